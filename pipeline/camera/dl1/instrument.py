"""Telescopes and cameras as a file describes them."""

from pathlib import Path

import h5py
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import quantity, text
from pipeline.camera.geometry import Camera


def read_subarray(file: h5py.File, path: Path) -> tuple[dict[int, Camera], dict[int, tuple[float, float, float]]]:
    """Cameras and positions [m] of all telescopes by id; telescopes of one type share the camera object.

    Geometry always comes from the file: cameras of one name differ in the order of their pixels.
    """
    layout, optics = file[schema.LAYOUT], file[schema.OPTICS]
    cameras: dict[tuple[int, int], Camera] = {}
    telescopes, positions = {}, {}
    columns = [quantity(layout, f"pos_{axis}", "m", path) for axis in "xyz"]
    for row, position in zip(layout[:], zip(*columns, strict=True), strict=True):
        key = int(row["camera_index"]), int(row["optics_index"])
        if key not in cameras:
            cameras[key] = _read_camera(file, path, key[0], optics, key[1])
        telescopes[int(row["tel_id"])] = cameras[key]
        positions[int(row["tel_id"])] = tuple(float(value) for value in position)
    return telescopes, positions


def _read_camera(file: h5py.File, path: Path, number: int, optics: h5py.Dataset, optics_index: int) -> Camera:
    geometry, readout = file[f"{schema.CAMERA}/geometry_{number}"], file[f"{schema.CAMERA}/readout_{number}"]
    row = optics[optics_index]
    n_channels = int(readout.attrs["NCHAN"])
    return Camera(
        name=text(geometry.attrs["CAM_ID"]),
        pix_x_m=quantity(geometry, "pix_x", "m", path),
        pix_y_m=quantity(geometry, "pix_y", "m", path),
        pix_area_m2=quantity(geometry, "pix_area", "m2", path),
        hexagonal=not text(geometry.attrs["PIX_TYPE"]).lower().startswith(("sq", "rect")),
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
        reference_pulse=np.array([readout[f"reference_pulse_shape_channel{i}"] for i in range(n_channels)]),
        reference_pulse_step_ns=float(readout.attrs["REFWIDTH"]),
    )
