"""A comparison of networks: the products of its trainings, and the page about them.

Layout: config.yaml, zoo/TASK/LABEL/run_K/{bundle,evaluation}/ with K = 0, and further K for the best of each task:
those of zoo/TASK/best.json. A training that failed has bundle/failed.txt.
"""

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.bundle.card import load_bundle_card
from pipeline.config import load_config, parse_config, zoo_settings
from pipeline.documents import read_json
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular
from pipeline.reporting import words
from pipeline.reporting.pictures import Picture
from pipeline.reporting.templates import render_page
from pipeline.tasks import get_spec

FAILED_FILE = "failed.txt"
BEST_FILE = "best.json"
_FOREST = "forest"
_NO_INTERVAL = 1  # a standard deviation needs two values


class _Value(BaseModel):
    """A metric or a difference, with its interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class _Metric(_Value):
    better: Literal["higher", "lower"]


class _Data(BaseModel):
    n: int
    n_groups: int
    manifests_sha256: list[str]


class _Metrics(BaseModel):
    """What the page reads of an evaluation."""

    data: _Data
    metrics: dict[str, _Metric]
    baselines: dict[str, dict[str, _Value]]
    differences: dict[str, dict[str, _Value]]


@dataclass(frozen=True)
class Training:
    """One training of one entry: its card and its test metrics (content of metrics.json)."""

    card: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes
    ----------
    mflop : float
        Millions of operations per image, two per multiply-accumulate.
    predicted_per_cpu_s : float
        Images per second of CPU time, preparation included.
    trained_per_cpu_s : float or None
        The same in training; None where it was not measured.
    """

    mflop: float
    predicted_per_cpu_s: float
    trained_per_cpu_s: float | None


@dataclass
class Zoo:
    """Everything in the folder of a comparison.

    Attributes
    ----------
    config : dict
        The experiment, with all its defaults.
    trainings : dict
        Task -> label -> trainings, the first one first. Only entries whose first training was evaluated.
    absent : dict
        Task -> label -> why it is not in `trainings`.
    problems : list of str
        Inconsistencies, one sentence each.
    """

    folder: Path
    config: dict[str, Any]
    trainings: dict[str, dict[str, list[Training]]] = field(default_factory=dict)
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def bundle(self, task: str, label: str) -> Path:
        """Folder of the first training's bundle."""
        return self.folder / "zoo" / task / label / "run_0" / "bundle"


def collect_zoo(folder: str | Path) -> Zoo:
    """Read a comparison's folder.

    Raises
    ------
    UserError
        If `folder` holds no comparison, its config.yaml is not accepted, or no network is trained and evaluated yet.
    InputFileError
        If a card or metrics cannot be read.
    """
    folder = Path(folder)
    path = folder / "config.yaml"
    config = load_config(path).model_dump(mode="json") if os.path.isfile(path) else None
    if config is None or not config["zoo"]["entries"]:
        raise UserError(
            f"{folder} is not the folder of a comparison: it has no config.yaml with a section zoo; give results/NAME "
            "of an experiment with zoo.entries"
        )
    zoo = Zoo(folder, config)
    entries = config["zoo"]["entries"]
    for task in config["zoo"]["tasks"]:
        zoo.trainings[task], zoo.absent[task] = {}, {}
        best = folder / "zoo" / task / BEST_FILE
        chosen = _labels(best)
        for entry in entries:
            label = entry["label"]
            # Folders of earlier best networks may remain after the experiment was edited.
            repeats = config["zoo"]["seeds"] if label in chosen else 1
            trainings = _trainings(task, folder / "zoo" / task / label, repeats)
            if isinstance(trainings, str):
                zoo.absent[task][label] = trainings
                continue
            zoo.trainings[task][label] = trainings
            if len(trainings) < repeats:
                zoo.problems.append(
                    f"{label} ({words.task_title(task)}) has {len(trainings)} of {repeats} trainings: the others "
                    "failed or are not evaluated yet."
                )
        zoo.problems += _differing(task, zoo.trainings[task])
    if not any(zoo.trainings.values()):
        raise UserError(f"no network of {folder}/zoo is trained and evaluated; run the workflow first")
    return zoo


def _labels(path: Path) -> list[Any]:
    """Labels of the best networks; none where they are not known, or their file is damaged."""
    try:
        content = json.loads(check_regular(path).read_text()) if path.exists() else []
    except (OSError, ValueError, RecursionError):
        return []
    return content if isinstance(content, list) else []


def _trainings(task: str, folder: Path, repeats: int) -> list[Training] | str:
    """The first `repeats` trainings of an entry as far as they are done, or why the first one is not."""
    failed = folder / "run_0" / "bundle" / FAILED_FILE
    if failed.is_file():
        return failed.read_text(errors="replace").strip().removeprefix("error: ")
    trainings = []
    for run in (folder / f"run_{repeat}" for repeat in range(repeats)):
        card, metrics = run / "bundle" / "card.json", next(run.glob("evaluation/*/metrics.json"), run / "evaluation")
        if card.is_file() and metrics.is_file():
            trainings.append(_training(task, card.parent, metrics))
        elif run.name == "run_0":
            break
    return trainings or "not trained and evaluated yet"


def _training(task: str, bundle: Path, metrics: Path) -> Training:
    file = bundle / "card.json"
    try:
        card = load_bundle_card(bundle).model_dump(mode="json")
        file = metrics
        content = read_json(metrics, "the metrics of an evaluation")
        checked = _Metrics.model_validate(content)
        for name in get_spec(task).headline:
            for block in (checked.metrics, checked.baselines[_FOREST], checked.differences[_FOREST]):
                block[name]
    except (KeyError, ValueError) as error:  # of an incomplete copy: a key that is missing; all else
        reason = f"{' '.join(str(error).split()):.300}"
        raise InputFileError(
            f"{file} is not valid JSON of a training ({reason}); remove its folder and run the workflow"
        ) from error
    return Training(card, content)


def _differing(task: str, trainings: Mapping[str, list[Training]]) -> list[str]:
    """Networks can be compared if they were tested on the same images, against the same forest."""
    judged = {
        json.dumps([t.metrics["data"]["manifests_sha256"], t.metrics.get("baselines", {}).get(_FOREST)], sort_keys=True)
        for found in trainings.values()
        for t in found
    }
    if len(judged) <= 1:
        return []
    return [
        f"The networks for {task} were tested on different tiles or against different forests; evaluate them again."
    ]


def best_of(task: str, cards: Mapping[str, Mapping[str, Any]], n: int) -> list[str]:
    """Labels of the `n` best networks by the validation split (test results must not choose)."""
    metric, better = get_spec(task).monitor
    sign = -1 if better == "higher" else 1
    known = {label: card["validation"][metric] for label, card in cards.items()}
    ranked = sorted((sign * value, label) for label, value in known.items() if value is not None)
    return [label for _, label in ranked[:n]]


# ---- rows ------------------------------------------------------------------------------------------------------------
def rows_of(zoo: Zoo, costs: Mapping[tuple[str, str], Cost]) -> dict[str, list[dict[str, Any]]]:
    """Task -> one JSON-able row per network, the best (by its first headline metric on the test split) first."""
    return {
        task: sorted((_row(task, label, repeats, costs) for label, repeats in trainings.items()), key=_rank(task))
        for task, trainings in zoo.trainings.items()
    }


def _row(task: str, label: str, repeats: Sequence[Training], costs: Mapping[tuple[str, str], Cost]) -> dict[str, Any]:
    first, cost = repeats[0], costs[task, label]
    model = first.card["model"]
    return {
        "label": label,
        "model": model["name"],
        "kwargs": model["kwargs"],
        "citation": first.card.get("citation", ""),
        "n_parameters": model["n_parameters"],
        "mflop": cost.mflop,
        "trained_per_cpu_s": cost.trained_per_cpu_s,
        "predicted_per_cpu_s": cost.predicted_per_cpu_s,
        "epochs": first.card["training"]["epochs"],
        "metrics": {name: first.metrics["metrics"][name] for name in get_spec(task).headline},
        "minus_forest": {name: first.metrics["differences"][_FOREST][name] for name in get_spec(task).headline},
        "by_seed": {name: [t.metrics["metrics"][name]["value"] for t in repeats] for name in get_spec(task).headline},
    }


def _rank(task: str) -> Any:
    name = get_spec(task).headline[0]

    def key(row: Mapping[str, Any]) -> float:
        entry = row["metrics"][name]
        if entry["value"] is None:
            return float("inf")
        return -entry["value"] if entry["better"] == "higher" else entry["value"]

    return key


def forest_of(zoo: Zoo, task: str) -> dict[str, Any]:
    """Headline metrics of the forest, the same for every network."""
    first = next(iter(zoo.trainings[task].values()))[0]
    return {name: first.metrics["baselines"][_FOREST][name] for name in get_spec(task).headline}


# ---- page ------------------------------------------------------------------------------------------------------------
def render_zoo(zoo: Zoo, rows: Mapping[str, Sequence[Mapping[str, Any]]], pictures: Mapping[str, Picture]) -> str:
    """The comparison as HTML text."""
    config = zoo.config
    return render_page(
        "comparison.html.j2",
        {
            "title": f"Networks side by side: {config['name']}",
            "name": config["name"],
            "description": " ".join(str(config.get("description") or "").split()),
            "tasks": [_task(zoo, task, rows[task], pictures.get(task)) for task in rows if rows[task]],
            "absent": [(words.task_title(t), label, why) for t, es in zoo.absent.items() for label, why in es.items()],
            "problems": zoo.problems,
            "facts": _facts(zoo),
            "arguments": _arguments(rows.values()),
            "config_text": _yaml(config),
        },
    )


def _task(zoo: Zoo, task: str, rows: Sequence[Mapping[str, Any]], picture: Picture | None) -> dict[str, Any]:
    names = get_spec(task).headline
    forest = forest_of(zoo, task)
    data = next(iter(zoo.trainings[task].values()))[0]
    metric, better = get_spec(task).monitor
    repeated = [row for row in rows if len(row["by_seed"][names[0]]) > _NO_INTERVAL]
    numbers = sorted({len(row["by_seed"][names[0]]) for row in repeated})
    return {
        "name": task,
        "title": words.task_title(task),
        "text": f"Trained on {words.count_text(data.card['training']['n_images'])} images, judged on "
        f"{words.count_text(data.metrics['data']['n'])} images of "
        f"{words.count_text(data.metrics['data']['n_groups'])} showers of the test split.",
        "metrics": [words.metric_text(name).label for name in names],
        "arrows": [{"higher": "↑", "lower": "↓"}[rows[0]["metrics"][name]["better"]] for name in names],
        "forest": [_value(name, forest[name]) for name in names],
        "rows": [_row_text(row, names) for row in rows],
        "stopped": _stopped_early(rows, zoo.config["zoo"]["epochs"]),
        "picture": picture,
        "chosen_by": f"{words.metric_text(metric).label} of the validation split, the {better} the better",
        "repeated": [
            {"label": row["label"], "cells": [_spread(name, row["by_seed"][name]) for name in names]}
            for row in repeated
        ],
        "n_seeds": " to ".join(str(number) for number in dict.fromkeys(numbers[:1] + numbers[-1:])),
    }


def _row_text(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    first = names[0]
    return {
        "label": row["label"],
        "model": row["model"],
        "values": [_value(name, row["metrics"][name]) for name in names],
        "difference": _value(first, row["minus_forest"][first], signed=True),
        "verdict": words.verdict(row["minus_forest"][first], row["metrics"][first]["better"]),
        "parameters": words.count_text(row["n_parameters"]),
        "mflop": _number(row["mflop"]),
        "trained": _number(row["trained_per_cpu_s"]),
        "predicted": _number(row["predicted_per_cpu_s"]),
    }


def _stopped_early(rows: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """Networks whose training early stopping ended before the last epoch, or nothing."""
    return ", ".join(f"{row['label']} ({row['epochs']} of {epochs})" for row in rows if row["epochs"] < epochs)


def _value(name: str, entry: Mapping[str, Any], *, signed: bool = False) -> str:
    return words.value_text(entry, percent=words.metric_text(name).percent, signed=signed)


def _number(value: float | None) -> str:
    """Three digits, without an exponent."""
    if value is None:
        return "—"
    return words.count_text(round(value)) if value >= 100 else f"{value:.3g}"


def _spread(name: str, values: Sequence[float | None]) -> dict[str, str]:
    """Mean and standard deviation of the values that are defined, and all of them."""
    percent = words.metric_text(name).percent
    scale, unit, digits = (100, " %", 2) if percent else (1, "", 4)
    known = [scale * value for value in values if value is not None]
    return {
        "mean": f"{statistics.fmean(known):.{digits}f}{unit}" if known else "—",
        "deviation": f"{statistics.stdev(known):.{digits}f}{unit}" if len(known) > _NO_INTERVAL else "—",
        "each": ", ".join("—" if value is None else f"{scale * value:.{digits}f}" for value in values),
    }


def _facts(zoo: Zoo) -> list[tuple[str, str]]:
    config, cfg = zoo.config, parse_config(zoo.config)
    section = config["zoo"]
    facts = [("networks", str(len(section["entries"]))), ("epochs", str(section["epochs"]))]
    for task in section["tasks"]:
        train = zoo_settings(cfg, task)
        scalars = ", ".join(train["scalars"]) or "none: images alone"
        facts.append((f"training for {task}", f"{train['optimizer']}, batches of {train['batch_size']}, highest rate "
                      f"{train['learning_rate']:g}; scalars besides the image: {scalars}"))  # fmt: skip
    facts += [("seed", str(config["seed"])), ("threads", str(config["threads"])), ("device", str(config["device"]))]
    return facts


def _arguments(rows: Iterable[Sequence[Mapping[str, Any]]]) -> list[tuple[str, str, str, str]]:
    """Label, model, arguments and paper of each network, once."""
    rows_by_label = {}
    for row in (row for part in rows for row in part):
        kwargs = ", ".join(f"{key} {value}" for key, value in row["kwargs"].items()) or "as in the paper"
        paper = row["citation"].rpartition(": ")[2].rstrip(".")
        rows_by_label[row["label"]] = (row["label"], row["model"], kwargs, paper)
    return [rows_by_label[label] for label in sorted(rows_by_label)]


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, width=100, allow_unicode=True)
