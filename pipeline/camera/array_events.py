"""Images of ctapipe's events in memory, as those of a file. ctapipe itself is not imported."""

import math
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.camera.dl1 import ImageChunk
from pipeline.camera.event_types import UNKNOWN, combined_types, reasons_of_types
from pipeline.camera.geometry import Camera
from pipeline.config import CameraIngestConfig
from pipeline.errors import UserError

if TYPE_CHECKING:
    from ctapipe.containers import ArrayEventContainer
    from ctapipe.instrument import SubarrayDescription, TelescopeDescription


def telescopes_with_images(event: "ArrayEventContainer") -> list[int]:
    """Telescopes of an event that have charges and peak times, in the order of the event."""
    return [int(tel_id) for tel_id, dl1 in event.dl1.tel.items() if dl1.image is not None and dl1.peak_time is not None]


def images_of_event(
    event: "ArrayEventContainer",
    subarray: "SubarrayDescription",
    cameras: Mapping[int, Camera],
    tel_ids: Collection[int],
) -> Iterator[ImageChunk]:
    """The DL1 images of an event, telescope by telescope, as `DL1File` reads them from a file with this event.

    Parameters
    ----------
    event : ArrayEventContainer
        With DL1 images of `tel_ids`.
    subarray : SubarrayDescription
        Where the telescopes stand.
    cameras : mapping
        Telescope -> its camera.
    tel_ids : collection of int
        Which telescopes, in which order.

    Raises
    ------
    UserError
        If an image does not have the pixels of its camera.
    """
    wanted = CameraIngestConfig().event_types
    for tel_id in tel_ids:
        dl1 = event.dl1.tel[tel_id]
        chunk = image_chunk(cameras[tel_id], tel_id, dl1.image, dl1.peak_time)
        chunk.obs_id[:], chunk.event_id[:], chunk.is_valid[:] = event.index.obs_id, event.index.event_id, dl1.is_valid
        own_type = event.trigger.tel[tel_id].event_type.value if tel_id in event.trigger.tel else UNKNOWN
        chunk.event_type[:] = combined_types(event.trigger.event_type.value, own_type)
        chunk.left_out[:] = reasons_of_types(chunk.event_type, wanted)
        chunk.pointing_alt_deg[:], chunk.pointing_az_deg[:] = _pointing_deg(event, tel_id)
        chunk.position_m = tuple(subarray.positions[tel_id].to_value("m").tolist())
        yield chunk


def _pointing_deg(event: "ArrayEventContainer", tel_id: int) -> tuple[float, float]:
    """Altitude and azimuth of a telescope; NaN where the event does not have them."""
    if tel_id not in event.monitoring.tel:  # to ask for it makes one, which ctapipe's writer then writes
        return math.nan, math.nan
    pointing = event.monitoring.tel[tel_id].pointing
    return pointing.altitude.to_value("deg"), pointing.azimuth.to_value("deg")


def image_chunk(camera: Camera, tel_id: int, image: Any, peak_time: Any) -> ImageChunk:
    """Images of one telescope, valid, their ids 0.

    Parameters
    ----------
    camera : Camera
    tel_id : int
    image, peak_time : array-like, shape (n, n_pixels) or (n_pixels,)
        [p.e.] and [ns], or with units that can be converted; NaN or masked without a measurement.

    Raises
    ------
    UserError
        If they are not numbers, have another unit, or do not have the pixels of the camera.
    """
    image = np.atleast_2d(_floats("image", image, "p.e."))
    peak_time = np.atleast_2d(_floats("peak_time", peak_time, "ns"))
    if image.shape != peak_time.shape or image.ndim != 2 or image.shape[1] != camera.n_pixels:
        raise UserError(
            f"image {image.shape} and peak_time {peak_time.shape} must both be (n, {camera.n_pixels}), "
            f"for {camera.name} has {camera.n_pixels} pixels"
        )
    n = len(image)
    return ImageChunk(
        camera=camera,
        tel_id=tel_id,
        obs_id=np.zeros(n, np.int64),
        event_id=np.zeros(n, np.int64),
        shower_id=np.zeros(n, np.int64),
        time_s=np.full(n, np.nan),
        image=image,
        peak_time=peak_time,
        is_valid=np.ones(n, bool),
    )


def _floats(name: str, values: Any, unit: str) -> np.ndarray:
    """Numbers in `unit`, in which those without a unit are; NaN where they are masked."""
    own = getattr(values, "unit", None)
    try:
        # astropy has no unit of photo-electrons: their number is without one.
        factor = 1.0 if own is None or str(own) == unit else own.to("" if unit == "p.e." else unit)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is in {own}, which cannot be converted to {unit}") from error
    try:
        masked = np.ma.masked_array(values)  # takes the masks of astropy's arrays, too, which asarray ignores
        if masked.dtype.kind in "cmM":
            raise TypeError(f"it has elements of type {masked.dtype}")
        numbers = np.asarray(masked.data, np.float32) * np.float32(factor)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is not an array of numbers: {error}") from error
    return np.where(np.ma.getmaskarray(masked), np.float32(np.nan), numbers)


# Neighbours and the mapping to a tile belong to the camera object: one that is used for many events is kept.
@lru_cache(maxsize=32)
def camera_of_telescope(telescope: "TelescopeDescription") -> Camera:
    """Camera and optics of a telescope; equal telescopes share the object."""
    from pipeline.camera.simtel import camera_of

    return camera_of(telescope)
