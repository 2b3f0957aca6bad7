"""Which pixels can be used, and which of them hold light of the shower, for many images at once.

A pixel without a measurement is NaN. `usable_charges` and `usable_times` turn numbers that no camera measures into NaN
as well, so that one absurd pixel changes what is known of itself and nothing else. `tailcuts` finds the shower.
"""

import numpy as np

from pipeline.camera.compiled import njit
from pipeline.camera.geometry import Camera

#: Charges beyond these are no measurement [p.e.]. Pixels saturate at 10^3 to 10^5 p.e.; the noise of a bright night
#: stays within some ten p.e. below the pedestal.
MIN_CHARGE_PE, MAX_CHARGE_PE = -100.0, 1e6
# Times of one image can differ by the length of the readout, and by what calibration moves single pixels [ns].
_TIME_MARGIN_NS = 10.0
# A number of float32 further from 0 than this resolves no nanosecond.
_MAX_TIME_NS = 1e6


def usable_charges(image: np.ndarray) -> np.ndarray:
    """Charges [p.e.] with NaN for all that are not finite or beyond `MIN_CHARGE_PE` and `MAX_CHARGE_PE`.

    Parameters
    ----------
    image : ndarray of float32, shape (n, n_pixels)
    """
    with np.errstate(invalid="ignore"):
        return np.where((image >= MIN_CHARGE_PE) & (image <= MAX_CHARGE_PE), image, np.float32(np.nan))


def usable_times(image: np.ndarray, peak_time: np.ndarray, mask: np.ndarray, camera: Camera) -> np.ndarray:
    """Arrival times [ns] with NaN where they cannot belong to the image.

    A time belongs to it within one length of the camera's readout (and 10 ns) of the charge-weighted median of the
    cleaned pixels' times, which half of the charge has to move.

    Parameters
    ----------
    image, peak_time : ndarray of float32, shape (n, n_pixels)
    mask : ndarray of bool, shape (n, n_pixels)
        Pixels that are kept by the cleaning.
    camera : Camera
    """
    window_ns = camera.readout_ns + _TIME_MARGIN_NS
    near = _dilate(np.ascontiguousarray(mask), camera.neighbors)
    return _usable_times(image, np.asarray(peak_time, np.float32), mask, near, window_ns, _MAX_TIME_NS)


def tailcuts(
    image: np.ndarray, camera: Camera, picture_pe: float, boundary_pe: float, min_picture_neighbors: int = 0
) -> np.ndarray:
    """Two-threshold cleaning; the same pixels as ``ctapipe.image.tailcuts_clean``.

    A picture pixel is kept if it has a neighbour above the boundary threshold, a boundary pixel if it has a picture
    neighbour.

    Parameters
    ----------
    image : ndarray, shape (n, n_pixels)
        Charge [p.e.]. NaN passes no threshold.
    camera : Camera
    picture_pe, boundary_pe : float
        Thresholds [p.e.]; charges equal to them pass.
    min_picture_neighbors : int
        A picture pixel with fewer picture neighbours does not count as one.

    Returns
    -------
    ndarray of bool, shape (n, n_pixels)
        True for pixels that are kept.
    """
    _check_shape(image, camera)
    if boundary_pe > picture_pe:
        raise ValueError(f"boundary_pe {boundary_pe} is above picture_pe {picture_pe}")
    image = np.ascontiguousarray(image)
    return _tailcuts(image, camera.neighbors, float(picture_pe), float(boundary_pe), min_picture_neighbors)


def dilate(mask: np.ndarray, camera: Camera) -> np.ndarray:
    """`mask` and all neighbours of its pixels, shape (n, n_pixels)."""
    _check_shape(mask, camera)
    return _dilate(np.ascontiguousarray(mask), camera.neighbors)


def _check_shape(image: np.ndarray, camera: Camera) -> None:
    if image.ndim != 2 or image.shape[1] != camera.n_pixels:
        raise ValueError(f"images have shape {image.shape}; expected (n, {camera.n_pixels}) for camera {camera.name}")


@njit(cache=True, nogil=True)
def _tailcuts(image, neighbors, picture_pe, boundary_pe, min_picture_neighbors):
    n_images, n_pixels = image.shape
    mask = np.zeros((n_images, n_pixels), np.bool_)
    picture = np.empty(n_pixels, np.bool_)
    for i in range(n_images):
        for pixel in range(n_pixels):
            picture[pixel] = False
            if image[i, pixel] >= picture_pe:
                count = 0
                for other in neighbors[pixel]:
                    if other >= 0 and image[i, other] >= picture_pe:
                        count += 1
                picture[pixel] = count >= min_picture_neighbors
        for pixel in range(n_pixels):
            if not image[i, pixel] >= boundary_pe:
                continue
            for other in neighbors[pixel]:
                if other >= 0 and (picture[other] or (picture[pixel] and image[i, other] >= boundary_pe)):
                    mask[i, pixel] = True
                    break
    return mask


@njit(cache=True, nogil=True)
def _dilate(mask, neighbors):
    n_images, n_pixels = mask.shape
    dilated = mask.copy()
    for i in range(n_images):
        for pixel in range(n_pixels):
            if mask[i, pixel]:
                for other in neighbors[pixel]:
                    if other >= 0:
                        dilated[i, other] = True
    return dilated


@njit(cache=True, nogil=True)
def _usable_times(image, time, mask, near, window, limit):
    n_images, n_pixels = image.shape
    usable = time.copy()
    for i in range(n_images):
        low, high = np.inf, -np.inf
        for pixel in range(n_pixels):
            if not abs(time[i, pixel]) <= limit:
                usable[i, pixel] = np.nan
            elif near[i, pixel]:
                low, high = min(low, time[i, pixel]), max(high, time[i, pixel])
        # Times this near to each other are near to any median of them: the usual case, and no need to find it.
        if high - low <= window:
            continue
        pixels = np.flatnonzero(mask[i] & np.isfinite(usable[i]))
        if len(pixels) == 0:
            continue
        order = pixels[np.argsort(time[i][pixels])]
        charge = np.cumsum(np.maximum(image[i][order], 0.0))
        middle = time[i, order[np.searchsorted(charge, 0.5 * charge[-1])]]
        for pixel in range(n_pixels):
            if abs(time[i, pixel] - middle) > window:
                usable[i, pixel] = np.nan
    return usable
