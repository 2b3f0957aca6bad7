"""Read the products in the folder of a run. A missing or damaged part is reported, never fatal.

Layout: config.yaml, status/ingest_WING.json, tiles/WING.manifest.json, bundles/NETWORK/, evaluation/NETWORK/TASK/,
predictions/WING/NAME/, irf/, validation/showers/, benchmarks/.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents import read_json, read_yaml
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular, is_directory
from pipeline.logs import get_logger
from pipeline.tasks import specs_of, task_names

if TYPE_CHECKING:
    import h5py

LOG = get_logger(__name__)
PARTS = ("config.yaml", "status", "tiles", "bundles", "evaluation", "predictions", "irf", "validation", "benchmarks")
FIRST_EVENTS = 12
_MAX_README = 100_000
# What tells rows of DL2 apart; those of the whole array have no telescope.
_KEYS = ("obs_id", "event_id", "tel_id")
_Row = tuple[int | None, ...]


@dataclass(frozen=True)
class InputFile:
    """Ingest status of one of the user's files."""

    name: str
    wing: str
    ok: bool
    kind: str
    reason: str
    counts: dict[str, int]


@dataclass(frozen=True)
class HeadResult:
    """One head of a network: its evaluation (content of metrics.json), as far as it exists.

    Attributes
    ----------
    network, task : str
    metrics : dict or None
    evaluation : Path or None
        Folder of the evaluation of this head.
    """

    network: str
    task: str
    metrics: dict[str, Any] | None
    evaluation: Path | None


@dataclass(frozen=True)
class NetworkResult:
    """One network: its bundle and its heads, as far as they exist."""

    name: str
    heads: tuple[HeadResult, ...]
    card: dict[str, Any] | None
    bundle: Path | None
    model_card: str = ""


@dataclass(frozen=True)
class PredictedFile:
    """Status of one file given to `predict`; `wing` is the folder of its status.json."""

    name: str
    wing: str
    ok: bool
    source: str
    output: str
    reason: str
    n_images: int | None
    n_valid: int | None
    left_out: dict[str, int]


@dataclass(frozen=True)
class CameraPredictions:
    """The tables that `predict` wrote for one event file."""

    name: str
    quantities: tuple[tuple[str, str, int], ...]  # (column, unit, valid images or events)
    first_rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class RuleTime:
    """Time and memory of one workflow rule over its jobs."""

    rule: str
    n_jobs: int
    total_s: float
    longest_s: float
    peak_mb: float | None


@dataclass
class Run:
    """Everything in the folder; `problems` are parts that exist but could not be read."""

    folder: Path
    config: dict[str, Any] | None = None
    inputs: list[InputFile] = field(default_factory=list)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: list[NetworkResult] = field(default_factory=list)
    predicted: list[PredictedFile] = field(default_factory=list)
    camera_predictions: list[CameraPredictions] = field(default_factory=list)
    irf: dict[str, Any] | None = None  # content of irf/irf.json
    shower_validation: dict[str, Any] | None = None  # content of validation/showers/validation.json
    times: list[RuleTime] = field(default_factory=list)
    sidecars: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def heads(self) -> list[HeadResult]:
        """Heads of all networks."""
        return [head for network in self.networks for head in network.heads]

    @property
    def failed_inputs(self) -> list[InputFile]:
        """Input files that could not be used."""
        return [entry for entry in self.inputs if not entry.ok]

    @property
    def missing(self) -> list[str]:
        """Parts of a complete run that are missing."""
        parts = {
            "the experiment's configuration (config.yaml)": self.config,
            "tiles (tiles/*.manifest.json)": self.manifests,
            "trained models (bundles/)": [n for n in self.networks if n.card],
            "evaluations (evaluation/)": [head for head in self.heads if head.metrics],
            "predictions (predictions/)": self.predicted or self.camera_predictions,
            "times of the rules (benchmarks/)": self.times,
        }
        return [name for name, part in parts.items() if not part]


def collect(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises
    ------
    UserError
        If `folder` is not a directory or holds none of a run's parts.
    """
    folder = Path(folder)
    if not is_directory(folder):
        raise UserError(f"{folder} is not a directory; give the folder of a run (results/NAME)")
    if not any((folder / part).exists() for part in PARTS):
        raise UserError(f"{folder} is not the folder of a run: it has none of {', '.join(PARTS)}; give results/NAME")
    run = Run(folder)
    run.config = _read_config(run)
    for path in sorted((folder / "status").glob("ingest_*.json")):
        run.inputs += _input_files(run, path)
    for path in sorted((folder / "tiles").glob("*.manifest.json")):
        if content := _read_json(run, path):
            run.manifests[path.name.removesuffix(".manifest.json")] = content
    run.networks = _networks(run)
    _collect_predictions(run)
    validation = folder / "validation" / "showers" / "validation.json"
    run.shower_validation = _read_json(run, validation) if validation.is_file() else None
    responses = folder / "irf" / "irf.json"
    run.irf = _read_json(run, responses) if responses.is_file() else None
    run.times = _times(run)
    for path in sorted(folder.rglob("*.provenance.json")):
        content = _read_json(run, path)
        if content and content.get("stage") != "report":
            run.sidecars.append(content)
    return run


def _read_json(run: Run, path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path, "a JSON object")
    except InputFileError as error:
        run.problems.append(f"{path.relative_to(run.folder)} cannot be read ({_reason_of(run, error)})")
        return None


def _reason_of(run: Run, error: Exception) -> str:
    """An error in one line, without the folder of the run, which the page names once."""
    return " ".join(str(error).split()).replace(f"{run.folder}/", "")


def _read_config(run: Run) -> dict[str, Any] | None:
    path = run.folder / "config.yaml"
    if not path.exists():
        return None
    try:
        return read_yaml(path)
    except InputFileError as error:
        run.problems.append(f"config.yaml cannot be read ({_reason_of(run, error)})")
        return None


def _input_files(run: Run, path: Path) -> list[InputFile]:
    wing = path.stem.removeprefix("ingest_")
    entries = []
    for name, record in (_read_json(run, path) or {}).items():
        if not isinstance(record, Mapping):
            run.problems.append(f"{path.relative_to(run.folder)} says nothing of {name}: it is damaged")
            continue
        counts = {key: value for key, value in record.items() if type(value) is int}
        entries.append(
            InputFile(
                name=str(record.get("input") or name),
                wing=wing,
                ok=record.get("status") == "ok",
                kind=str(record.get("kind") or ""),
                reason=_reason(record, str(record.get("input") or name)),
                counts=counts,
            )
        )
    return entries


def _reason(record: Mapping[str, Any], name: str) -> str:
    """Why a file failed, without its folders."""
    return re.sub(rf"\S*/{re.escape(name)}", name, str(record.get("reason") or ""))


def _networks(run: Run) -> list[NetworkResult]:
    """Networks with a bundle or an evaluation, in the order of the tasks of their first heads."""
    names = {path.parent.parent.name for path in (run.folder / "evaluation").glob("*/*/metrics.json")}
    names |= {path.parent.name for path in (run.folder / "bundles").glob("*/card.json")}
    results = []
    for name in sorted(names):
        bundle = run.folder / "bundles" / name
        card = _read_json(run, bundle / "card.json") if (bundle / "card.json").exists() else None
        readme = bundle / "MODEL_CARD.md"
        results.append(
            NetworkResult(
                name=name,
                heads=tuple(_heads(run, name, card)),
                card=card,
                bundle=bundle if bundle.is_dir() else None,
                model_card=_beginning(readme) if readme.is_file() else "",
            )
        )
    return sorted(results, key=lambda result: (_rank(result.heads[0].task if result.heads else ""), result.name))


def _beginning(readme: Path) -> str:
    """A model card's text, as far as a page can show it."""
    with readme.open(errors="replace") as stream:
        return stream.read(_MAX_README)


def _heads(run: Run, network: str, card: dict[str, Any] | None) -> Iterator[HeadResult]:
    folder = run.folder / "evaluation" / network
    heads = (card or {}).get("heads", ())
    trained = [str(head.get("task")) for head in heads if isinstance(head, Mapping)] if isinstance(heads, list) else []
    judged = sorted((path.parent.name for path in folder.glob("*/metrics.json")), key=_rank)
    for task in dict.fromkeys([*trained, *judged]):
        path = folder / task / "metrics.json"
        metrics = _read_json(run, path) if path.exists() else None
        yield HeadResult(network, task, metrics, path.parent if path.parent.is_dir() else None)


def _rank(task: str) -> int:
    """Place of a task in a report; unknown ones come last."""
    return task_names().index(task) if task in task_names() else len(task_names())


# ---- predictions ---------------------------------------------------------------------------------------------
def _collect_predictions(run: Run) -> None:
    folder = run.folder / "predictions"
    for path in sorted(folder.rglob("*.dl2.h5")):
        try:
            run.camera_predictions.append(_camera_predictions(path))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            run.problems.append(f"{path.relative_to(run.folder)} cannot be read ({_reason_of(run, error)})")
    for path in sorted(folder.rglob("status.json")):
        for name, record in (_read_json(run, path) or {}).items():
            if isinstance(record, Mapping):
                run.predicted.append(_predicted_file(name, path.relative_to(folder).parts[0], record))


def _predicted_file(name: str, wing: str, record: Mapping[str, Any]) -> PredictedFile:
    left_out = record.get("left_out")
    return PredictedFile(
        name=name,
        wing=wing,
        ok=record.get("status") == "ok",
        source=str(record.get("file") or ""),
        output=str(record.get("output") or ""),
        reason=_reason(record, name),
        n_images=record.get("n_images"),
        n_valid=record.get("n_valid"),
        left_out=dict(left_out) if isinstance(left_out, Mapping) else {},
    )


def _camera_predictions(path: Path) -> CameraPredictions:
    """Valid values per quantity, and the first rows, of ctapipe's DL2 tables (any number of models and telescopes).

    Models of single images have a table for each telescope, and those of whole events one for the array. Rows of the
    latter have no telescope.
    """
    import numpy as np

    from pipeline.hdf5 import open_hdf5

    columns: dict[str, dict[_Row, float]] = {}
    units: dict[str, str] = {}
    rows: dict[_Row, None] = {}
    valid: dict[str, int] = {}
    with open_hdf5(path) as file:
        for prefix, table in _tables_of(file["dl2/event"]):
            names = [name for name in table.dtype.names if name in _wanted(prefix)]
            flag = f"{prefix}_is_valid"  # which groups that telescopes alone have do not hold
            is_valid = (
                np.asarray(table.fields(flag)[:], bool) if flag in table.dtype.names else np.ones(len(table), bool)
            )
            first = table[:FIRST_EVENTS]
            keys = [tuple(int(row[name]) if name in row.dtype.names else None for name in _KEYS) for row in first]
            for name in names:
                valid[name] = valid.get(name, 0) + int(np.count_nonzero(is_valid & np.isfinite(table.fields(name)[:])))
                units[name] = _unit(table, name)
                columns.setdefault(name, {}).update(zip(keys, first[name].astype(float).tolist(), strict=True))
            rows |= dict.fromkeys(keys)
    shown = list(rows)[:FIRST_EVENTS]
    first_rows = tuple(
        (
            *("—" if part is None else str(part) for part in key),
            *(_four_digits(columns[name].get(key)) for name in columns),
        )
        for key in shown
    )
    quantities = tuple((name, units[name], valid[name]) for name in columns)
    return CameraPredictions(path.name.removesuffix(".dl2.h5"), quantities, first_rows)


def _tables_of(events: "h5py.Group") -> Iterator[tuple[str, "h5py.Dataset"]]:
    """Tables of DL2 and the prefixes of their columns; averages over telescopes, which are theirs, are left out."""
    if not {"telescope", "subarray"} & set(events):
        raise ValueError("it has no tables of telescopes or of the array")
    of_telescopes, of_events = events.get("telescope", {}), events.get("subarray", {})
    for kind in of_telescopes.values():
        for model, tables in kind.items():
            for table in tables.values():
                yield f"{model}_tel", table
    averages = {model for kind in of_telescopes.values() for model in kind}
    for kind in of_events.values():
        for model, table in kind.items():
            if model not in averages:
                yield model, table


def _wanted(prefix: str) -> tuple[str, ...]:
    """Columns of predicted quantities: those that a task of the camera places in DL2."""
    places = [column.dl2 for spec in specs_of("camera") for column in spec.shown if column.dl2]
    return tuple(f"{prefix}_{place.name}" for place in places)


def _unit(table: Any, name: str) -> str:
    """Unit that PyTables' attributes state for a column of ctapipe's tables."""
    unit = table.attrs.get(f"CTAFIELD_{table.dtype.names.index(name)}_UNIT", "")
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def _four_digits(value: float | None) -> str:
    return "—" if value is None or value != value else f"{value:.4g}"


# ---- times ---------------------------------------------------------------------------------------------------
def _times(run: Run) -> list[RuleTime]:
    """Sum Snakemake's benchmark files by rule: benchmarks/RULE.tsv or benchmarks/RULE/NAME.tsv."""
    folder = run.folder / "benchmarks"
    jobs_of: dict[str, list[tuple[float, float | None]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        try:
            rows = list(csv.DictReader(check_regular(path).read_text().splitlines(), delimiter="\t"))
        except (OSError, ValueError, csv.Error) as error:
            run.problems.append(f"{path.relative_to(run.folder)} cannot be read ({_reason_of(run, error)})")
            continue
        for row in rows:
            if (seconds := _float(row.get("s"))) is not None:
                jobs_of.setdefault(rule, []).append((seconds, _float(row.get("max_rss"))))
    return [
        RuleTime(
            rule=rule,
            n_jobs=len(jobs),
            total_s=sum(seconds for seconds, _ in jobs),
            longest_s=max(seconds for seconds, _ in jobs),
            peak_mb=max((peak for _, peak in jobs if peak is not None), default=None),
        )
        for rule, jobs in sorted(jobs_of.items(), key=lambda item: -sum(s for s, _ in item[1]))
    ]


def _float(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:  # Snakemake writes "NA" where a job was too short to be measured
        return None
    return number if math.isfinite(number) else None
