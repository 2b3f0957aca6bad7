"""Stage `info`: what is in a file, on one screen and within a few seconds. The type is read from the content."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputFileError
from pipeline.filetypes import Kind, file_kind, let_eventio_read_frames
from pipeline.text_tables import format_table

if TYPE_CHECKING:
    from pipeline.camera.dl1 import DL1File
    from pipeline.tiles.shards import Shard

# Time limit of an overview; what was counted until then is given as "at least".
_MAX_SECONDS = 3.0
_MAX_ROWS = 20


def describe_file(path: str | Path) -> list[str]:
    """Lines that say what is in `path`.

    Raises
    ------
    InputFileError
        If it cannot be read, or its type is unknown to lightpool.
    """
    path = Path(path)
    kind = file_kind(path)
    title, rows = _DESCRIBERS[kind](path)
    files = [path] if not path.is_dir() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return [f"{path.name}: {title}, {_bytes(size)}", *format_table(rows, "<<", indent="  ")]


Row = tuple[str, str]
Description = tuple[str, list[Row]]


# ---- camera ----------------------------------------------------------------------------------------------------------
# Types of top-level eventio objects [hessioxxx, io_hess.h].
_RUN_HEADER, _MC_RUN_HEADER, _CAMERA_SETTINGS = 2000, 2001, 2002
_MC_SHOWER, _MC_EVENT, _ARRAY_EVENT, _CALIBRATION_EVENT, _HISTOGRAMS = 2020, 2021, 2010, 2028, 100


def _simtel(path: Path) -> Description:
    """Headers and counts by eventio alone: ctapipe needs 4 s to import, and refuses some of these files."""
    from eventio import EventIOFile

    let_eventio_read_frames()
    counts: Counter[int] = Counter()
    headers: dict[int, dict[str, Any]] = {}
    cameras: Counter[str] = Counter()
    runs: list[str] = []
    end = ""
    started = time.monotonic()
    try:
        with EventIOFile(str(path)) as file:
            item = None
            for item in file:
                kind = item.header.type
                counts[kind] += 1
                if kind in (_RUN_HEADER, _MC_RUN_HEADER):
                    header = item.parse()
                    headers.setdefault(kind, header)
                    if kind == _RUN_HEADER:
                        runs.append(str(header["run"]))
                elif kind == _CAMERA_SETTINGS:
                    settings = item.parse()
                    cameras[f"{settings['n_pixels']} pixels, f = {settings['focal_length']:.4g} m"] += 1
                if time.monotonic() - started > _MAX_SECONDS:
                    end = " at least (not read to its end)"
                    break
            if not end and (item is None or not _is_whole(path, file, item)):
                end = " up to where it is damaged (the file is cut)"
            elif not end and not counts[_HISTOGRAMS]:
                end = "; no histograms close the run, so events may be missing"
    except Exception as error:  # eventio, zlib and zstandard each have their own for a damaged file
        end = f" up to where it is damaged ({type(error).__name__}{f': {error}' if str(error) else ''})"
    rows = [("telescopes", f"{count} x {text}") for text, count in cameras.most_common(_MAX_ROWS)]
    if _RUN_HEADER in headers:
        several = " (several runs in one file: ingest and predict refuse it)" if len(runs) > 1 else ""
        rows.insert(0, ("run", ", ".join(runs) + several))
        n_telescopes, n_described = int(headers[_RUN_HEADER]["n_telescopes"]), counts[_CAMERA_SETTINGS]
        if n_described < n_telescopes and " at least" not in end:
            end = f" up to where it is damaged (only {n_described} of {n_telescopes} telescopes are described)"
    if _MC_RUN_HEADER in headers:
        rows += _simulation_rows(headers[_MC_RUN_HEADER])
    rows.append(
        (
            "events",
            f"{counts[_ARRAY_EVENT]} triggered of {counts[_MC_EVENT]} from {counts[_MC_SHOWER]} showers, "
            f"{counts[_CALIBRATION_EVENT]} calibration{end}",
        )
    )
    return "simtel (sim_telarray)", rows


def _is_whole(path: Path, file: Any, item: Any) -> bool:
    """Whether the last object of an eventio file is there to its end: eventio does not look, it steps over the data."""
    from eventio.base import is_gzip, is_zstd

    is_compressed = is_gzip(str(path)) or is_zstd(str(path))
    reached = file.tell() if is_compressed else path.stat().st_size
    return reached >= item.header.content_address + item.header.content_size


def _simulation_rows(header: dict[str, Any]) -> list[Row]:
    low, high = header["E_range"]
    return [
        (
            "simulated",
            f"{header['n_showers']} showers, used {header['n_use']} times each, {low:.4g} to {high:.4g} TeV, "
            f"index {header['spectral_index']:.3g}, view cone {header['viewcone'][1]:.3g} deg, "
            f"scattered over {header['core_range'][1]:.4g} m, site at {header['obsheight']:.0f} m",
        )
    ]


def _corsika(path: Path) -> Description:
    return (
        "CORSIKA photon bunches (IACT format)",
        [("note", "lightpool reads camera images: run sim_telarray first")],
    )


def _dl1(path: Path) -> Description:
    from pipeline.camera.dl1 import DL1File

    with DL1File(path) as file:
        rows = [("runs", ", ".join(map(str, file.obs_ids[:_MAX_ROWS])))]
        rows += _telescope_rows(file.telescopes, {tel_id: file.n_images_of(tel_id) for tel_id in file.tel_ids})
        rows.append(("images", f"{file.n_images} of {file.n_events} events"))
        rows += _event_rows(file)
        rows += _prediction_rows(path)
        rows.append(("truth", "yes" if file.has_truth else "no"))
        if file.generated_by:
            rows.append(("generated by", f"{file.generated_by}: a network, not a simulation"))
        rows.append(("made by", _software(file.provenance)))
        return f"ctapipe DL1, data model {file.data_model_version}", rows


def _software(provenance: str) -> str:
    """What made a DL1 file, by the provenance that lightpool writes into its own."""
    try:
        return str(json.loads(provenance).get("software", "ctapipe"))
    except (ValueError, AttributeError, RecursionError):
        return "unknown: its provenance is damaged"


def _event_rows(file: "DL1File") -> list[Row]:
    """Types of events and pointings, or what is wrong with the keys of the tables that tell them."""
    try:
        types, n_untriggered = file.event_types(), file.n_untriggered
        pointings = {tel_id: pointing for tel_id in file.tel_ids if (pointing := file.pointing_of(tel_id)) is not None}
    except InputFileError as error:
        return [("refused", f"{error}".removeprefix(f"{file.path}: "))]
    rows = [("event types", ", ".join(f"{count} {name}" for name, count in types.items()) or "none")]
    if n_untriggered:
        rows.append(("no trigger", f"{n_untriggered} images or more: left out; the file is refused if they are many"))
    if not pointings:
        return [*rows, ("pointing", "unknown")]
    by_direction: dict[str, list[int]] = {}
    for tel_id, (alt_deg, az_deg) in pointings.items():
        text = f"altitude {alt_deg:.2f} deg, azimuth {az_deg % 360:.2f} deg"
        by_direction.setdefault(text, []).append(tel_id)
    if len(by_direction) == 1:
        return [*rows, ("pointing", next(iter(by_direction)))]
    shown = [("pointing", f"{text} (telescope {_ranges(tel_ids)})") for text, tel_ids in by_direction.items()]
    return rows + shown[:_MAX_ROWS]


def _telescope_rows(telescopes: dict[int, Any], n_images: dict[int, int]) -> list[Row]:
    """One row per type of camera."""
    types: dict[str, list[int]] = {}
    for tel_id, camera in telescopes.items():
        text = f"{camera.name}, {camera.n_pixels} pixels, f = {camera.focal_length_m:.4g} m ({camera.identity})"
        types.setdefault(text, []).append(tel_id)
    return [
        ("telescopes", f"{_ranges(ids)}: {text}, {sum(n_images.get(tel_id, 0) for tel_id in ids)} images")
        for text, ids in types.items()
    ]


def _dl2(path: Path) -> Description:
    from pipeline.camera.dl2.contents import SHOWER, TRIGGER
    from pipeline.hdf5 import attribute, open_hdf5

    with open_hdf5(path) as file:
        version = attribute(file, "CTA PRODUCT DATA MODEL VERSION", "text", "unknown")
        rows = [("events", str(len(file.get(TRIGGER, ()))))]
        truth = "yes" if SHOWER in file else "no"
    rows += _prediction_rows(path)
    rows += [("images", "none: give predict the file that they are in"), ("truth", truth)]
    return f"ctapipe DL2, data model {version}", rows


def _prediction_rows(path: Path) -> list[Row]:
    """One row for each reconstructor and what it gives, of the file's DL2."""
    from pipeline.camera.dl2.contents import DL2_OF_EVENTS, DL2_OF_TELESCOPES, contents_of
    from pipeline.hdf5 import dataset, open_hdf5

    rows = []
    with open_hdf5(path) as file:
        contents = contents_of(file)
        for group, paths in contents.of_telescopes.items():
            if not group.startswith(f"{DL2_OF_TELESCOPES}/"):
                continue
            kind, _, model = group.removeprefix(f"{DL2_OF_TELESCOPES}/").partition("/")
            tables = [dataset(file, path, ("obs_id", "event_id")) for path in paths.values()]
            # Some quantities, such as impact distances, are given without saying which are valid.
            flag = f"{model}_tel_is_valid"
            flags = [table.fields(flag)[:].astype(bool) for table in tables if flag in table.dtype.names]
            valid = f", {sum(int(values.sum()) for values in flags)} valid" if flags else ""
            rows.append((kind, f"{model}: {sum(map(len, tables))} images of telescopes {_ranges(paths)}{valid}"))
        for path_of_table in contents.of_events:
            if path_of_table.startswith(f"{DL2_OF_EVENTS}/"):
                kind, _, model = path_of_table.removeprefix(f"{DL2_OF_EVENTS}/").partition("/")
                rows.append((kind, f"{model}: {len(dataset(file, path_of_table))} events, telescopes combined"))
    return rows


def _lstchain(path: Path) -> Description:
    from pipeline.camera.lstchain import IMAGES, PARAMETERS, WITHOUT_IMAGES
    from pipeline.hdf5 import dataset, open_hdf5, read_columns

    with open_hdf5(path) as file:
        table = dataset(file, PARAMETERS)
        if IMAGES in file:
            n_images = len(dataset(file, IMAGES))
            note = f"convert it with `lightpool ingest {path.name} --out DIR`"
        else:
            n_images, note = 0, f"it holds {WITHOUT_IMAGES}"
        names = table.dtype.names or ()
        runs = sorted(set(read_columns(file, PARAMETERS, {"obs_id": "integer"})["obs_id"].tolist()))
    shown = ", ".join(map(str, runs[:_MAX_ROWS])) + (
        f" and {len(runs) - _MAX_ROWS} more" if len(runs) > _MAX_ROWS else ""
    )
    rows = [("runs", shown), ("images", str(n_images)), ("truth", "yes" if "mc_energy" in names else "no")]
    return "lstchain DL1", [*rows, ("note", note)]


# ---- sky -------------------------------------------------------------------------------------------------------------
_CARDS = ("OBJECT", "DATE-OBS", "EXPTIME", "FILTER", "TELESCOP", "INSTRUME")


def _fits(path: Path) -> Description:
    from pipeline.sky.frames import open_fits
    from pipeline.sky.headers import Cards

    rows = []
    with open_fits(path, memmap=True) as hdus:
        for number, hdu in enumerate(hdus[:_MAX_ROWS]):
            shape = " x ".join(str(hdu.header.get(f"NAXIS{n}")) for n in range(hdu.header.get("NAXIS", 0), 0, -1))
            unit = Cards(hdu.header).text("BUNIT")
            kind = "image" if hdu.is_image else "table"
            text = f"{hdu.name or '(no name)'}: {kind} {shape or 'without data'} {unit}".rstrip()
            rows.append((f"HDU {number}", text))
        if len(hdus) > _MAX_ROWS:
            rows.append(("HDUs", f"{len(hdus)} in all"))
        for card in _CARDS:
            found = next((text for hdu in hdus if (text := Cards(hdu.header).text(card))), None)
            if found is not None:
                rows.append((card, found))
        rows += _frame_rows(hdus, path)
    return "FITS", rows


def _frame_rows(hdus: Any, path: Path) -> list[Row]:
    """Which HDUs would be read as the frame and what belongs to it, or why none would; and what is odd."""
    from pipeline.config import SkyIngestConfig
    from pipeline.sky.frames import planes_of, remark_on_file, science_hdus
    from pipeline.sky.remarks import Remarks

    cfg, remarks = SkyIngestConfig(), Remarks()
    try:
        chosen = science_hdus(hdus, cfg, path)
    except InputFileError as error:
        return [("science image", f"none: {error}")]
    rows = [("science image", ", ".join(f"HDU {number}" for number in chosen))]
    for number in chosen[:_MAX_ROWS]:
        planes = [f"HDU {other} ({kind})" for other, kind in planes_of(hdus, number, cfg, path)]
        if planes:
            rows.append((f"with HDU {number}", ", ".join(planes)))
    remark_on_file(hdus, chosen, remarks)
    return rows + [("warning", text) for text in remarks.warnings] + [("note", text) for text in remarks.notes]


# ---- lightpool's own -------------------------------------------------------------------------------------------------
def _tiles(path: Path) -> Description:
    from pipeline.tiles.shards import Shard

    with Shard(path) as shard:
        channels = ", ".join(f"{c.name} [{c.unit or '-'}]" for c in shard.channels)
        height, width = shard.tile_shape
        rows = [
            ("source", shard.source),
            ("tiles", f"{shard.n_tiles} of {height} x {width} px in {shard.n_groups} groups"),
            *_camera_rows(shard),
            ("channels", channels),
            ("targets", ", ".join(shard.targets) or "none"),
            ("columns", ", ".join(shard.columns)),
        ]
        return f"tile shard ({shard.wing})", rows


def _camera_rows(shard: "Shard") -> list[Row]:
    """One row for each camera, with the number of its tiles."""
    from pipeline.tiles.layout import CAMERA_COLUMN

    of_tiles = shard.read_columns([CAMERA_COLUMN])[CAMERA_COLUMN].tolist() if shard.cameras and shard.n_tiles else []
    counts = Counter(of_tiles)
    return [
        (
            "camera",
            f"{camera.name} ({camera.identity}), {counts[place]} tiles, pixels of {camera.tile_pixel_deg:.4g} deg",
        )
        for place, camera in enumerate(shard.cameras)
    ]


def _manifest(path: Path) -> Description:
    from pipeline.tiles.manifest import Manifest

    manifest = Manifest.load(path, shards_outside=True)  # none of them is opened
    height, width = manifest.tile_shape
    rows = [
        ("shards", str(len(manifest.shards))),
        ("tiles", f"{height} x {width} px, channels {', '.join(c.name for c in manifest.channels)}"),
        *(("camera", identity) for identity in manifest.cameras),
    ]
    for split, classes in manifest.counts.items():
        parts = ", ".join(f"{name} {count}" for name, count in classes.items() if name != "all")
        rows.append((split, f"{sum(classes.values())}" + (f" ({parts})" if parts else "")))
    texts = manifest.provenance.get("warnings")
    rows += [("warning", str(text)) for text in texts] if isinstance(texts, list) else []
    return f"manifest of tiles ({manifest.wing})", rows


def _bundle(path: Path) -> Description:
    from pipeline.bundle.card import load_bundle_card
    from pipeline.bundle.files import check_bundle

    card = load_bundle_card(path)
    height, width = card.input.tile_shape
    rows = [
        ("network", f"{card.network}: {card.model.name}, {card.model.n_parameters:,} parameters"),
        ("input", f"tiles of {height} x {width} px, channels {', '.join(card.input.channels)}"),
    ]
    rows += [(head.task, ", ".join(f"{c.name} [{c.unit or '-'}]" for c in head.columns)) for head in card.heads]
    rows += [("camera", f"{camera.name} ({camera.identity})") for camera in card.cameras]
    population = getattr(card.input.preparation, "population", None)
    rows += [("trained range", str(trained)) for trained in (population.ranges if population else ())]
    rows.append(("trained on", f"{card.training.n_images:,} images, {card.training.epochs} epochs"))
    rows += [("validation", f"{name} {value:.4g}") for name, value in card.validation.items() if value is not None]
    rows += [("limit", text) for text in card.limits]
    rows.append(("sha256", card.bundle_sha256))
    try:
        check_bundle(path, card)
    except InputFileError as error:
        rows.append(("damaged", str(error)))
    return f"model bundle {card.name}", rows


def _hdf5(path: Path) -> Description:
    import h5py

    from pipeline.hdf5 import open_hdf5

    rows: list[Row] = []
    with open_hdf5(path) as file:

        def note(name: str, item: Any) -> bool | None:
            if isinstance(item, h5py.Dataset):
                rows.append((name, f"{item.shape} {item.dtype if item.dtype.names is None else 'table'}"))
            return True if len(rows) >= _MAX_ROWS else None

        file.visititems(note)
    return "HDF5, but no layout that lightpool reads", rows


_DESCRIBERS: dict[Kind, Callable[[Path], Description]] = {
    "simtel": _simtel,
    "corsika": _corsika,
    "dl1": _dl1,
    "dl2": _dl2,
    "lstchain": _lstchain,
    "fits": _fits,
    "tiles": _tiles,
    "manifest": _manifest,
    "bundle": _bundle,
    "hdf5": _hdf5,
}


# ---- text ------------------------------------------------------------------------------------------------------------
def _bytes(n: int) -> str:
    power = min(len(f"{n:.0f}") - 1, 14) // 3
    return f"{n / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _ranges(numbers: Iterable[int]) -> str:
    """1, 2, 3, 7 as '1-3, 7'."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
