"""sim_telarray files to DL1, through ctapipe: calibration, image extraction, cleaning, image parameters; and cameras.

ctapipe takes seconds to import and is needed nowhere else on the way from images to predictions, so everything of it is
imported where it is used.
"""

import gzip
import json
import logging
import uuid
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import provenance
from pipeline.camera.dl1.repack import repack
from pipeline.camera.geometry import Camera
from pipeline.config import CameraIngestConfig
from pipeline.errors import InputFileError
from pipeline.files import atomic_output, check_free, check_regular
from pipeline.filetypes import ZSTD, let_eventio_read_frames, open_zst
from pipeline.logs import get_logger
from pipeline.output.whole import check_whole

if TYPE_CHECKING:
    from ctapipe.containers import ArrayEventContainer
    from ctapipe.instrument import TelescopeDescription
    from ctapipe.io import SimTelEventSource

log = get_logger(__name__)

# ctapipe's Hillas parameters make a square matrix of the cleaned pixels, its borders one of all pixels: gigabytes for
# more than this. Tiles are cleaned and parametrised without such matrices.
_MAX_PIXELS = 12_000
_GZIP = b"\x1f\x8b"  # first bytes of such files
_RUN_HEADER = 2000  # type of eventio object [hessioxxx, io_hess.h]
_KEPT = "only what comes before was read"
# What ctapipe's writer stamps with the time of the run, a random number or the user's name: the sidecar has these.
_VARYING = (
    "CTA ACTIVITY ID", "CTA ACTIVITY START TIME", "CTA ACTIVITY STOP TIME", "CTA PRODUCT CREATION TIME",
    "CTA CONTACT NAME", "CTA CONTACT EMAIL", "CTA CONTACT ORGANIZATION",
)  # fmt: skip


class Findings(NamedTuple):
    """What was found while a file was read: `warnings` change the meaning of the product, `notes` do not."""

    warnings: list[str]
    notes: list[str]


def ingest_simtel(path: str | Path, out: str | Path, cfg: CameraIngestConfig, force: bool = False) -> dict[str, Any]:
    """Calibrate one simtel file (.simtel, .gz, .zst) and write its images as DL1.

    Degrees are those of the equivalent focal length. Cleaning and parameters in the file are ctapipe's defaults; tiles
    are cleaned again, as configured.

    Parameters
    ----------
    path, out : path
    cfg : CameraIngestConfig
    force : bool
        Replace an existing `out`.

    Returns
    -------
    dict
        ``n_events``, ``n_images``, ``n_telescopes``, ``notes``: what was not done, in words; and, if there are any,
        ``warnings``: what could not be read. A file that ends in the middle of an event gives all the events before it.

    Raises
    ------
    InputFileError
        If the file cannot be opened, describes a camera that cannot be one, has no triggered event, or several runs.
    """
    path, out = Path(path), check_free(out, force=force)
    check_regular(path)
    findings = Findings([], [])
    with _quiet(path), atomic_output(out, force=force) as temporary:
        raw = temporary.with_name(temporary.name + ".raw.h5")
        try:
            counts = _process(path, raw, cfg, findings)
            check_whole(raw)
            stamped = provenance.stamp(
                "ingest",
                config=cfg.model_dump(mode="json"),
                input=path.name,
                input_sha256=provenance.sha256_file(path),
                warnings=findings.warnings,
            )
            product_id = uuid.uuid5(uuid.NAMESPACE_OID, stamped["input_sha256"] + stamped["config_sha256"])
            attributes = {
                "CTA PRODUCT ID": str(product_id),
                "LIGHTPOOL PROVENANCE": json.dumps(stamped, sort_keys=True),
            }
            repack(raw, temporary, dict.fromkeys(_VARYING) | attributes)
        finally:
            raw.unlink(missing_ok=True)
        provenance.write_sidecar(temporary, stamped, **counts)
    return counts | ({"warnings": findings.warnings} if findings.warnings else {})


def simtel_cameras(path: str | Path) -> dict[int, Camera]:
    """Cameras of a simtel file by telescope id, as ctapipe has them; telescopes of one type share the object.

    Raises
    ------
    InputFileError
        If the file cannot be opened.
    """
    with open_simtel(Path(path), CameraIngestConfig(max_events=1)) as source:
        return _cameras(source, Path(path))


def _cameras(source: "SimTelEventSource", path: Path) -> dict[int, Camera]:
    """Cameras by telescope id, checked."""
    cameras: dict[Any, Camera] = {}
    descriptions = source.subarray.tel
    for tel_id, description in descriptions.items():
        if description not in cameras:
            try:
                cameras[description] = camera_of(description)
            except ValueError as error:
                name = description.camera.name
                raise InputFileError(f"{path}: camera {name} of telescope {tel_id} cannot be used: {error}") from error
    return {tel_id: cameras[description] for tel_id, description in descriptions.items()}


@contextmanager
def open_simtel(path: Path, cfg: CameraIngestConfig | None = None) -> Iterator["SimTelEventSource"]:
    """A simtel file as ctapipe reads it, with degrees of the equivalent focal length; take its `whole_events`.

    Raises
    ------
    InputFileError
        If the file cannot be opened.
    """
    check_regular(path)
    with _quiet(path), _open(path, cfg or CameraIngestConfig(), Findings([], [])) as source:
        yield source


def camera_of(telescope: "TelescopeDescription") -> Camera:
    """Camera and optics of a telescope as ctapipe describes it.

    Raises
    ------
    ValueError
        If its numbers cannot be those of a camera.
    """
    geometry, readout, optics = telescope.camera.geometry, telescope.camera.readout, telescope.optics
    return Camera(
        name=telescope.camera.name,
        pix_x_m=geometry.pix_x.to_value("m"),
        pix_y_m=geometry.pix_y.to_value("m"),
        pix_area_m2=geometry.pix_area.to_value("m2"),
        hexagonal=geometry.pix_type.value != "square",
        focal_length_m=optics.equivalent_focal_length.to_value("m"),
        pix_rotation_deg=geometry.pix_rotation.to_value("deg"),
        cam_rotation_deg=geometry.cam_rotation.to_value("deg"),
        effective_focal_length_m=optics.effective_focal_length.to_value("m"),
        mirror_area_m2=optics.mirror_area.to_value("m2"),
        n_mirrors=optics.n_mirrors,
        n_mirror_tiles=optics.n_mirror_tiles,
        optics_name=optics.name,
        reflector_shape=optics.reflector_shape.name,
        n_samples=readout.n_samples,
        sampling_rate_ghz=readout.sampling_rate.to_value("GHz"),
        reference_pulse=readout.reference_pulse_shape,
        reference_pulse_step_ns=readout.reference_pulse_sample_width.to_value("ns"),
    )


@contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Silence ctapipe and eventio: warnings become debug messages, and what matters of them goes into the findings."""
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("ctapipe", "eventio"))}
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
    for warning in caught:
        log.debug("%s: %s", path.name, warning.message)


class _EventNotWrittenError(Exception):
    """An event that was read could not be written: parts of it are in the product."""


def _process(path: Path, raw: Path, cfg: CameraIngestConfig, findings: Findings) -> dict[str, Any]:
    """Write the events of `path` to `raw`; the counts."""
    from ctapipe.core import Provenance

    Provenance().start_activity("lightpool ingest")
    try:
        with _open(path, cfg, findings) as source:
            counts = _write_events(source, path, raw, findings)
            unclosed = [] if findings.warnings else _unclosed(source, counts["n_events"])
        if not findings.warnings and cfg.max_events is None and (fault := _compression_fault(path)):
            findings.warnings.append(
                f"its compressed data are damaged ({fault}): numbers in any of its {counts['n_events']} events may be "
                "wrong; copy it again"
            )
        findings.warnings.extend(unclosed)
        return counts
    except _EventNotWrittenError as error:
        n_events, cause = error.args
        raw.unlink(missing_ok=True)
        if n_events == 0:
            raise InputFileError(f"{path}: its first event is damaged ({_described(cause)})") from cause
        # Again, and only up to there.
        limited = cfg.model_copy(update={"max_events": n_events})
        found = Findings([], [])
        with _open(path, limited, found) as source:
            counts = _write_events(source, path, raw, found)
        findings.warnings[:] = [f"is damaged after event {n_events} ({_described(cause)}); {_KEPT}"]
        return counts
    finally:
        Provenance().finish_activity("lightpool ingest")


def _write_events(source: "SimTelEventSource", path: Path, raw: Path, findings: Findings) -> dict[str, Any]:
    from ctapipe import fitting
    from ctapipe.calib import CameraCalibrator
    from ctapipe.image import ImageProcessor
    from ctapipe.io import DataWriter

    # ctapipe's fit of time gradients draws from one generator: restart it, whatever files came before.
    fitting.FIT_RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    events = whole_events(source, path, findings.warnings)
    event = next(events, None)
    if event is None:
        reasons = findings.warnings or _unclosed(source, 0)
        raise InputFileError(f"{path} holds no triggered event{''.join(f' ({reason})' for reason in reasons[-1:])}")
    calibrate = CameraCalibrator(subarray=source.subarray)
    n_pixels = max(telescope.camera.geometry.n_pixels for telescope in source.subarray.tel.values())
    parametrise = ImageProcessor(subarray=source.subarray) if n_pixels <= _MAX_PIXELS else None
    if parametrise is None:
        findings.notes.append(f"no image parameters: a camera has {n_pixels} pixels, ctapipe's do up to {_MAX_PIXELS}")
    n_events = n_images = 0
    with DataWriter(
        event_source=source,
        output_path=raw,
        write_dl1_images=True,
        write_dl1_parameters=parametrise is not None,
    ) as write:
        while event is not None:
            try:
                calibrate(event)
                if parametrise is not None:
                    parametrise(event)
                write(event)
            except OSError:
                raise
            except Exception as error:
                if type(error).__name__ == "HDF5ExtError":  # of PyTables: the disk is full, for example
                    raise
                raise _EventNotWrittenError(n_events, error) from error
            n_events += 1
            n_images += len(event.dl1.tel)
            event = next(events, None)
        _write_thrown(source, write, findings)
    return {"n_events": n_events, "n_images": n_images, "n_telescopes": len(source.subarray), "notes": findings.notes}


def _write_thrown(source: "SimTelEventSource", write: Any, findings: Findings) -> None:
    """The histogram at the end of a run: how many showers were thrown, for effective areas."""
    if source.file_.histograms is None:
        return
    try:
        distributions = source.simulated_shower_distributions
    except Exception as error:
        findings.warnings.append(
            f"its histogram of thrown showers cannot be read ({_described(error)}); effective areas need the number "
            "from elsewhere"
        )
        return
    write.write_simulated_shower_distributions(distributions)


def _unclosed(source: "SimTelEventSource", n_events: int) -> list[str]:
    """What to say of a run without its end; a killed job leaves such a file, and so do programs that shorten runs."""
    if source.file_.histograms is not None or n_events == source.max_events:
        return []
    return [f"ends without the histograms that close a run; events after event {n_events} may be missing"]


def _compression_fault(path: Path) -> str:
    """What is wrong with a compressed file, by its checksum, which eventio does not look at; empty if nothing is."""
    import zstandard

    with open(path, "rb") as raw:
        head = raw.read(4)
    if not head.startswith((_GZIP, *ZSTD)):
        return ""
    try:
        with gzip.open(path) if head.startswith(_GZIP) else open_zst(path) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        return _described(error)
    return ""


@contextmanager
def _open(path: Path, cfg: CameraIngestConfig, findings: Findings) -> Iterator["SimTelEventSource"]:
    from ctapipe.io import SimTelEventSource

    let_eventio_read_frames()
    options: dict[str, Any] = {"focal_length_choice": "EQUIVALENT", "max_events": cfg.max_events}
    if cfg.allowed_telescopes:
        options["allowed_tels"] = set(cfg.allowed_telescopes)
    try:
        source = SimTelEventSource(path, **options)
    except UnicodeDecodeError:
        # sim_telarray leaves bytes of other memory behind the name of the atmosphere now and then. The profile is
        # for reconstruction by templates, which nothing here does.
        findings.notes.append("the name of the atmosphere is garbled; its profile was dropped")
        try:
            source = SimTelEventSource(path, atmosphere_profile_choice="NONE", **options)
        except Exception as error:
            raise _unreadable(path, error) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    with source:
        _cameras(source, path)
        yield source


def _unreadable(path: Path, error: Exception) -> InputFileError:
    # On a truncated or foreign file eventio raises whatever error the bytes happen to cause.
    if isinstance(error, StopIteration | EOFError):
        return InputFileError(f"{path} ends before the first event: the file is cut short, or a part of a larger one")
    return InputFileError(f"{path} cannot be read as simtel ({_described(error)})")


def whole_events(source: "SimTelEventSource", path: Path, found: list[str]) -> Iterator["ArrayEventContainer"]:
    """The events up to the first that cannot be read; what happened then goes into `found`.

    Raises
    ------
    InputFileError
        If another run follows: of files joined into one, ctapipe reads the first, or mixes them.
    """
    events, header = iter(source), source.file_.header
    n_events = 0
    while True:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                event = next(events, None)
            except Exception as error:
                found.append(f"ends or is damaged after event {n_events} ({_described(error)}); {_KEPT}")
                log.debug("%s", path.name, exc_info=True)
                return
        if source.file_.header is not header or (event is None and _another_run_follows(source)):
            raise InputFileError(f"{path} holds several runs; give each run as a file of its own")
        if event is None:
            # ctapipe ends quietly, with a warning, where the file does in the middle of an object.
            if any("truncated" in str(warning.message) for warning in caught):
                found.append(f"ends in the middle, after event {n_events}; {_KEPT}")
            return
        n_events += 1
        yield event


def _another_run_follows(source: "SimTelEventSource") -> bool:
    """Whether there is one behind the histograms, where eventio stops."""
    if source.file_.histograms is None:
        return False
    try:
        return any(item.header.type == _RUN_HEADER for item in source.file_._file)
    except Exception:  # no eventio object: whatever follows, the run is whole
        return False


def _described(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
