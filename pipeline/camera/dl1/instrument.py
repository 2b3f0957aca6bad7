"""Telescopes and cameras as a file describes them, checked as they are read.

Everything later believes these numbers: a camera that cannot be one is refused here, with the name of the file, of the
camera and of what is wrong.
"""

from pathlib import Path

import h5py
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import quantity, text
from pipeline.camera.geometry import Camera
from pipeline.errors import InputFileError

_MAX_TELESCOPES, _MAX_PIXELS, _MAX_PULSE = 10_000, 100_000, 1_000_000  # rows; checked before a table is read
_MAX_CHANNELS = 8
_MAX_DISTANCE_M = 1e5
# Words for the shape of a pixel, as ctapipe's PixelShape has them and its older versions wrote them.
_HEXAGONAL = {
    "hexagon": True,
    "hexagonal": True,
    "circle": True,
    "square": False,
    "rectangle": False,
    "rectangular": False,
}
# What h5py and numpy raise where a table is missing, of another type or damaged.
_FAULTS = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, OSError, RuntimeError, MemoryError,
)  # fmt: skip


def read_subarray(file: h5py.File, path: Path) -> tuple[dict[int, Camera], dict[int, tuple[float, float, float]]]:
    """Cameras and positions [m] of all telescopes by id; telescopes of one type share the camera object.

    Geometry always comes from the file: cameras of one name differ in the order of their pixels.

    Raises
    ------
    InputFileError
        If a table is missing or empty, a telescope is listed twice or refers to a camera or optics that are not there,
        or a camera's numbers cannot be those of a camera.
    """
    try:
        layout, optics = _table(file, schema.LAYOUT, _MAX_TELESCOPES), _table(file, schema.OPTICS, _MAX_TELESCOPES)
        tel_ids, camera_index, optics_index = (
            layout[name].astype(np.int64) for name in ("tel_id", "camera_index", "optics_index")
        )
        positions_m = np.column_stack([quantity(layout, f"pos_{axis}", "m", path) for axis in "xyz"])
    except _FAULTS as error:
        raise _unreadable(path, "its tables of telescopes", error) from error
    _check_telescopes(path, tel_ids, positions_m)
    cameras: dict[tuple[int, int], Camera] = {}
    for key in dict.fromkeys(zip(camera_index.tolist(), optics_index.tolist(), strict=True)):
        number, row = key
        # A negative index would count from the end without a word.
        if not 0 <= row < len(optics):
            raise InputFileError(f"{path}: a telescope has optics number {row}, of {len(optics)}; make the file again")
        try:
            cameras[key] = _read_camera(file, path, number, optics, row)
        except _FAULTS as error:
            raise _unreadable(path, f"camera {_name(file, number)} (geometry_{number})", error) from error
    kinds = zip(tel_ids.tolist(), camera_index.tolist(), optics_index.tolist(), strict=True)
    telescopes = {tel_id: cameras[camera, row] for tel_id, camera, row in kinds}
    return telescopes, dict(zip(tel_ids.tolist(), map(tuple, positions_m.tolist()), strict=True))


def _check_telescopes(path: Path, tel_ids: np.ndarray, positions_m: np.ndarray) -> None:
    values, counts = np.unique(tel_ids, return_counts=True)
    if (counts > 1).any():
        raise InputFileError(f"{path}: telescope {values[counts > 1][0]} is in the layout {counts.max()} times")
    astray = ~(np.abs(positions_m) <= _MAX_DISTANCE_M).all(axis=1)  # NaN as well
    if astray.any():
        x, y, z = positions_m[astray][0]
        raise InputFileError(
            f"{path}: telescope {tel_ids[astray][0]} is at ({x:g}, {y:g}, {z:g}) m; telescopes are within "
            f"{_MAX_DISTANCE_M / 1000:g} km: are positions in metres?"
        )


def _read_camera(file: h5py.File, path: Path, number: int, optics: h5py.Dataset, optics_index: int) -> Camera:
    geometry = _table(file, f"{schema.CAMERA}/geometry_{number}", _MAX_PIXELS)
    readout = _table(file, f"{schema.CAMERA}/readout_{number}", _MAX_PULSE)
    row = optics[optics_index]
    n_channels = int(readout.attrs["NCHAN"])
    if not 1 <= n_channels <= _MAX_CHANNELS:
        raise ValueError(f"its readout has NCHAN = {n_channels}; 1 to {_MAX_CHANNELS} exist")
    shape = text(geometry.attrs["PIX_TYPE"]).strip().lower()
    if shape not in _HEXAGONAL:
        raise ValueError(f"PIX_TYPE is {shape!r}; accepted: {', '.join(_HEXAGONAL)}")
    return Camera(
        name=text(geometry.attrs["CAM_ID"]),
        pix_x_m=quantity(geometry, "pix_x", "m", path),
        pix_y_m=quantity(geometry, "pix_y", "m", path),
        pix_area_m2=quantity(geometry, "pix_area", "m2", path),
        hexagonal=_HEXAGONAL[shape],
        focal_length_m=float(quantity(optics, "equivalent_focal_length", "m", path)[optics_index]),
        pix_rotation_deg=float(geometry.attrs["PIX_ROT"]),
        cam_rotation_deg=float(geometry.attrs["CAM_ROT"]),
        effective_focal_length_m=float(quantity(optics, "effective_focal_length", "m", path)[optics_index]),
        mirror_area_m2=float(quantity(optics, "mirror_area", "m2", path)[optics_index]),
        n_mirrors=int(row["n_mirrors"]),
        n_mirror_tiles=int(row["n_mirror_tiles"]),
        optics_name=text(row["optics_name"]),
        reflector_shape=text(row["reflector_shape"]),
        n_samples=int(readout.attrs.get("NSAMPLES", 0)),
        sampling_rate_ghz=float(readout.attrs["SAMPFREQ"]),
        reference_pulse=np.array([_numbers(readout, f"reference_pulse_shape_channel{i}") for i in range(n_channels)]),
        reference_pulse_step_ns=float(readout.attrs["REFWIDTH"]),
    )


def _numbers(table: h5py.Dataset, column: str) -> np.ndarray:
    values = table[column]
    if values.dtype.kind not in "fiu" or values.ndim != 1:
        raise ValueError(f"{column} holds no numbers")
    return values


def _table(file: h5py.File, name: str, max_rows: int) -> h5py.Dataset:
    """A table of plausible length: one that declares 10^10 rows would be allocated before it is read."""
    table = file[name]
    if not isinstance(table, h5py.Dataset) or table.dtype.names is None:
        raise ValueError(f"{name} is not a table")
    if not 1 <= len(table) <= max_rows:
        raise ValueError(f"{name} has {len(table)} rows; 1 to {max_rows} are possible")
    return table


def _name(file: h5py.File, number: int) -> str:
    try:
        return text(file[f"{schema.CAMERA}/geometry_{number}"].attrs["CAM_ID"])
    except _FAULTS:
        return f"number {number}"


def _unreadable(path: Path, what: str, error: BaseException) -> InputFileError:
    if isinstance(error, InputFileError):
        return InputFileError(f"{path}: {what} cannot be used: {str(error).removeprefix(f'{path}: ')}")
    reason = " ".join(str(error.args[0] if error.args else error).split()) or type(error).__name__
    if isinstance(error, ValueError):
        return InputFileError(f"{path}: {what} cannot be used: {reason}")
    return InputFileError(f"{path} is damaged or incomplete: {what} cannot be read ({reason}); copy or make it again")
