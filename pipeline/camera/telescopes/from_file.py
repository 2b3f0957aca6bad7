"""Cameras of simtel and DL1 files in place of the generated ones."""

import dataclasses
import math
from collections import Counter
from functools import cache
from pathlib import Path

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.telescope import Telescope
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular

# How much mirror areas of one kind of telescope may differ: with the same pixels (large and medium telescopes have
# cameras of 1855 equal pixels, their areas differ by 3.7), and with other pixels.
_AREA_FACTOR_SAME_PIXELS, _AREA_FACTOR_OTHER_PIXELS = 2.0, 1.15


def with_camera_of(telescope: Telescope, path: str | Path) -> Telescope:
    """The same telescope with the camera of the first telescope in a file that is of the same kind.

    Of the same kind means: number and shape of the pixels agree, and mirror areas within a factor of two; else,
    mirror areas within 15 %, whatever the pixels. Pixels and focal lengths come from the file, mirror, sensors
    and readout from the telescope; the night sky per pixel is scaled with its solid angle. A file without effective
    focal length gets it in the telescope's own ratio to the equivalent one.

    Parameters
    ----------
    telescope : Telescope
    path : path
        A simtel file (.simtel, .gz, .zst) or ctapipe DL1 HDF5.

    Raises
    ------
    UserError
        If no telescope in the file is of the same kind; the message lists those of the file.
    InputFileError
        If the file cannot be read, or is of another format.
    """
    path = Path(path)
    cameras = read_cameras(path)
    tel_id = _of_the_same_kind(telescope.camera, cameras)
    if tel_id is None:
        kinds = Counter(_describe(camera) for camera in cameras.values())
        others = ", ".join(f"{n} x {text}" for text, n in kinds.items())
        raise UserError(
            f"{path} has no camera for the telescope {telescope.name} ({_describe(telescope.camera)}); it has {others}"
        )
    own, camera = telescope.camera, cameras[tel_id]
    effective_m = camera.effective_focal_length_m
    # Writers that know none put NaN or the equivalent one there; no real telescope has equal focal lengths.
    if math.isnan(effective_m) or effective_m == camera.focal_length_m:
        effective_m = camera.focal_length_m * own.effective_focal_length_m / own.focal_length_m
    pixels = ("name", "pix_x_m", "pix_y_m", "pix_area_m2", "hexagonal", "pix_rotation_deg", "cam_rotation_deg")
    taken = {name: getattr(camera, name) for name in (*pixels, "focal_length_m")}
    new = dataclasses.replace(own, **taken, effective_focal_length_m=effective_m)
    return dataclasses.replace(
        telescope,
        camera=new,
        # By the pitch, as the areas in some files are wrong
        night_sky_pe_per_ns=telescope.night_sky_pe_per_ns * (new.pitch_deg / own.pitch_deg) ** 2,
        sources=(*telescope.sources, f"Pixels and focal lengths: telescope {tel_id} ({camera.name}) of {path.name}"),
    )


def read_cameras(path: Path) -> dict[int, Camera]:
    """Cameras of a simtel or DL1 file by telescope id; telescopes with one kind of camera share the object.

    Raises
    ------
    InputFileError
        If the file cannot be read, or is of another format.
    """
    # A run calls this several times, and opening a simtel file takes seconds; a file that changes is read again.
    return _read_cameras(path, check_regular(path).stat().st_mtime_ns)


@cache
def _read_cameras(path: Path, _changed_ns: int) -> dict[int, Camera]:
    from pipeline.filetypes import file_kind

    kind = file_kind(path)
    if kind == "simtel":
        from pipeline.camera.simtel import simtel_cameras

        return simtel_cameras(path)
    if kind in ("dl1", "dl2"):
        from pipeline.camera.dl1 import DL1File

        with DL1File(path) as file:
            return dict(file.telescopes)
    raise InputFileError(f"{path} is a {kind} file; cameras are read from simtel and ctapipe DL1 files")


def _of_the_same_kind(own: Camera, cameras: dict[int, Camera]) -> int | None:
    for tel_id, camera in sorted(cameras.items()):
        same_pixels = camera.n_pixels == own.n_pixels and camera.hexagonal == own.hexagonal
        if same_pixels and not _area_differs(camera, own, _AREA_FACTOR_SAME_PIXELS):
            return tel_id
    for tel_id, camera in sorted(cameras.items()):
        if camera.mirror_area_m2 > 0 and not _area_differs(camera, own, _AREA_FACTOR_OTHER_PIXELS):
            return tel_id
    return None


def _area_differs(camera: Camera, own: Camera, factor: float) -> bool:
    """Whether mirror areas differ by more than a factor; an unknown one (NaN) does not."""
    return abs(math.log(camera.mirror_area_m2 / own.mirror_area_m2)) > math.log(factor)


def _describe(camera: Camera) -> str:
    shape = "hexagonal" if camera.hexagonal else "square"
    return f"{camera.name}: {camera.n_pixels} {shape} pixels, mirror of {camera.mirror_area_m2:.0f} m2"
