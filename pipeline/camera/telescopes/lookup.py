"""Telescopes by name, with the camera of their module or that of a file."""

from pathlib import Path

from pipeline.camera.telescopes.from_file import with_camera_of
from pipeline.camera.telescopes.registry import build_telescope
from pipeline.camera.telescopes.telescope import Telescope


def get_telescope(name: str, geometry_file: str | Path | None = None) -> Telescope:
    """The telescope type called `name`.

    Parameters
    ----------
    name : str
    geometry_file : path, optional
        A simtel or DL1 file: take the camera (pixels and focal length) of a telescope of this kind from there, see
        `pipeline.camera.telescopes.from_file.with_camera_of`.

    Raises
    ------
    UserError
        If no type has this name (the message lists the nearest, or all), or no telescope of the file is of this kind.
    InputFileError
        If the file cannot be read.
    """
    telescope = build_telescope(name)
    return telescope if geometry_file is None else with_camera_of(telescope, geometry_file)
