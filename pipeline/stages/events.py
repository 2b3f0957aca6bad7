"""Event files of any accepted kind, read as DL1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import Config
from pipeline.files import source_name, temporary_folder
from pipeline.filetypes import Kind
from pipeline.logs import get_logger

log = get_logger(__name__)


@contextmanager
def as_dl1(path: Path, kind: Kind, cfg: Config) -> Iterator[Path]:
    """The file itself, or the temporary DL1 file made from it."""
    if kind == "dl1":
        yield path
        return
    with temporary_folder() as folder:
        target = folder / f"{source_name(path)}.dl1.h5"
        if kind == "lstchain":
            from pipeline.camera.lstchain import convert

            convert(path, target)
        else:
            log.info("%s: calibrating simtel with ctapipe; starting it takes a few seconds", path.name)
            from pipeline.camera.simtel import ingest_simtel

            ingest_simtel(path, target, cfg.ingest.camera)
        yield target
