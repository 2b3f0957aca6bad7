"""Predictions, times and provenance of a run as rows of the page's tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.reporting import words
from pipeline.reporting.collect import CameraPredictions, PredictedFile, Run

# Names of files that stand beside a warning.
_NAMES = 3


def camera_file(entry: PredictedFile) -> tuple[str, str, str, str]:
    """Name, images, images with a value, and rejected ones by reason."""
    left_out = "; ".join(f"{words.count_text(n)} × {reason}" for reason, n in entry.left_out.items())
    return entry.name, words.count_text(entry.n_images), words.count_text(entry.n_valid), left_out or "none"


def valid_values(entry: CameraPredictions) -> str:
    """Images, or events, with a value, per quantity."""
    return ", ".join(f"{name}: {words.count_text(n)}" for name, _, n in entry.quantities) or "none"


def first_events(entry: CameraPredictions) -> dict[str, Any]:
    """Table of the first events of a file."""
    head = [
        "obs_id",
        "event_id",
        "tel_id",
        *(f"{name} [{unit}]" if unit else name for name, unit, _ in entry.quantities),
    ]
    return {"name": entry.name, "head": head, "rows": entry.first_rows, "numbers": range(len(head))}


def warnings_by_text(sidecars: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What the products warn of: text, number of files, and names of some; what concerns most files comes first.

    Texts that differ in their numbers alone are one: the first is shown. A file that several stages warn about counts
    once.
    """
    texts: dict[str, str] = {}
    files: dict[str, dict[str, None]] = {}
    for sidecar in sidecars:
        said = sidecar.get("warnings")
        name = str(sidecar.get("input") or sidecar.get("product") or "a product")
        for text in said if isinstance(said, list) else ():
            key = re.sub(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", "#", str(text))
            texts.setdefault(key, str(text))
            files.setdefault(key, {})[name] = None
    rows = []
    for key in sorted(files, key=lambda key: -len(files[key])):
        names = list(files[key])
        more = f" and {words.count_text(len(names) - _NAMES)} more" if len(names) > _NAMES else ""
        rows.append((texts[key], words.count_text(len(names)), ", ".join(names[:_NAMES]) + more))
    return rows


def rule_time(entry: Any) -> tuple[str, ...]:
    """One row of the table of times."""
    memory = "—" if entry.peak_mb is None else f"{words.count_text(round(entry.peak_mb))} MB"
    return (
        entry.rule,
        words.count_text(entry.n_jobs),
        words.duration_text(entry.total_s),
        words.duration_text(entry.longest_s),
        memory,
    )


def time_text(stamp: Any) -> str:
    """A time stamp for readers."""
    return str(stamp).replace("T", " ").replace("+00:00", " UTC")


def products_by_stage(sidecars: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row per stage, configuration and commit: a run has a product for each of its files."""
    together: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for sidecar in sidecars:
        commit, config = str(sidecar.get("commit") or "—"), str(sidecar.get("config_sha256") or "—")
        short = commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
        together.setdefault((str(sidecar.get("stage", "")), short, config[:12]), []).append(sidecar)
    rows = []
    for (stage, commit, config), members in together.items():
        times = sorted(time_text(member.get("made_at", "")) for member in members)
        names = sorted(str(member.get("product", "")) for member in members)
        what = names[0] if len(names) == 1 else f"{words.count_text(len(names))}: {names[0]} to {names[-1]}"
        rows.append((times[0], (stage, what, times[-1], commit, config)))
    return [row for _, row in sorted(rows)]


def fingerprints(run: Run) -> list[tuple[str, str]]:
    rows = [
        (f"bundle {network.name}", str(network.card["bundle_sha256"]))
        for network in run.networks
        if network.card and network.card.get("bundle_sha256")
    ]
    for head in run.heads:
        digests = (head.metrics or {}).get("data", {}).get("manifests_sha256", ())
        rows += [(f"tiles that {head.task} of {head.network} was judged on", digest) for digest in digests]
    return rows


def versions(run: Run) -> str:
    """Python and the packages that made the newest product."""
    newest: Sequence[tuple[str, str]] = ()
    for sidecar in run.sidecars:
        newest = [("python", str(sidecar.get("python", "?"))), *_pairs(sidecar.get("packages"))]
    return ", ".join(f"{name} {version}" for name, version in newest)


def _pairs(packages: Any) -> Iterable[tuple[str, str]]:
    return sorted((str(k), str(v)) for k, v in packages.items()) if isinstance(packages, Mapping) else ()
