"""From the products of a run to the page: numbers become text here."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.camera.showers.validation.rows import table as validation_table
from pipeline.reporting import responses, words
from pipeline.reporting.collect import HeadResult, NetworkResult, Run
from pipeline.reporting.pictures import Picture, picture, restored_frames
from pipeline.reporting.pieces import Pieces
from pipeline.reporting.run_records import (
    camera_file,
    fingerprints,
    first_events,
    products_by_stage,
    rule_time,
    time_text,
    valid_values,
    versions,
    warnings_by_text,
)
from pipeline.reporting.templates import render_page
from pipeline.tasks import get_spec, task_names

_PARTICLES = {"0": "gamma", "1": "electron", "101": "proton", "all": "tiles"}
_GROUPS = {"camera": "shower", "sky": "field"}
_STRATA = {
    "sky": "empty sky",
    "faint": "light of 0.5 to 20 times the noise",
    "core": "above 20 times the noise",
    "painted": "painted over",
    "missing": "missing data",
}
_BIN_TITLES = {
    "true_energy_tev": ("In bands of true energy", "TeV"),
    "true_offset_deg": ("In bands of offset from the pointing", "deg"),
    "hillas_intensity_pe": ("Above image sizes", "p.e."),
    "n_telescopes": ("By number of telescopes", "telescopes"),
    "magnitude": ("In bands of magnitude", "mag"),
    "injected_snr": ("Stars laid over the frames, by signal-to-noise ratio", "S/N"),
    "star_snr": ("Stars from exposure to exposure, by signal-to-noise ratio", "S/N"),
}


def render(run: Run) -> str:
    """The page as HTML text."""
    return render_page("report.html.j2", _content(run))


def _content(run: Run) -> dict[str, Any]:
    """What the template shows. The problems are last in the page's making: each piece may add one."""
    pieces = Pieces(run.problems)
    config = run.config or {}
    name = str(config.get("name") or run.folder.resolve().name)
    judged = [head for head in run.heads if head.metrics]
    wings = {_wing(head.task) for head in judged}
    return {
        "title": pieces.one("the title", lambda: _title(config, name), name),
        "name": name,
        "description": " ".join(str(config.get("description") or "").split()),
        "finished": max((time_text(s["made_at"]) for s in run.sidecars if s.get("made_at")), default=""),
        "groups": " or ".join(f"{_GROUPS[wing]}s" for wing in sorted(wings)) or "groups",
        "summary": pieces.each(
            judged, lambda head: _summary(run, head), lambda head: f"the summary of {_anchor(head)}"
        ),
        "warnings": pieces.one("the warnings", lambda: warnings_by_text(run.sidecars), []),
        "missing": run.missing,
        "problems": run.problems,
        "experiment": pieces.one("the experiment", lambda: _experiment(config), []),
        "config_text": _yaml(run.config),
        "datasets": pieces.each(run.manifests.items(), lambda entry: _dataset(*entry), lambda e: f"the {e[0]} tiles"),
        "inputs": run.inputs,
        "failed": run.failed_inputs,
        "used": [(e.name, e.wing, e.kind, _counts(e.counts)) for e in run.inputs if e.ok],
        "networks": [_network(run, network, pieces) for network in run.networks],
        "sky_files": [f.name for f in run.predicted if f.ok and f.wing == "sky"],
        "prediction_failures": [(f.name, f.reason) for f in run.predicted if not f.ok],
        "prediction_figures": pieces.one("the restored frames", lambda: restored_frames(run), []),
        "irf": pieces.one("the instrument response functions", lambda: responses.section(run), None),
        "validation": pieces.one("the validation of the showers", lambda: _shower_validation(run), None),
        "times": pieces.each(run.times, rule_time, lambda entry: f"the time of {entry.rule}"),
        "provenance": pieces.one("the provenance", lambda: products_by_stage(run.sidecars), []),
        "hashes": pieces.one("the digests", lambda: fingerprints(run), []),
        "versions": pieces.one("the versions", lambda: versions(run), ""),
    } | _camera_predictions(run, pieces)


def _title(config: Mapping[str, Any], name: str) -> str:
    title = (config.get("report") or {}).get("title") or "lightpool report"
    return f"{title}: {name}" if name not in title else title


def _summary(run: Run, head: HeadResult) -> dict[str, Any]:
    return {"id": _anchor(head), "title": _head_title(run, head), "rows": _summary_rows(head)}


def _camera_predictions(run: Run, pieces: Pieces) -> dict[str, Any]:
    predicted = [f for f in run.predicted if f.ok and f.wing != "sky"]
    shown = [p for p in run.camera_predictions if p.first_rows]
    return {
        "camera_files": pieces.each(predicted, camera_file, lambda f: f"the predictions for {f.name}"),
        "valid_values": [(p.name, valid_values(p)) for p in run.camera_predictions],
        "first_events": [first_events(p) for p in shown][:3],
    }


def _wing(task: str) -> str:
    """Whose tiles a task is judged on; the camera's, where this installation does not have the task."""
    return get_spec(task).wing if task in task_names() else "camera"


def _anchor(head: HeadResult) -> str:
    return f"{head.network}-{head.task}"


def _head_title(run: Run, head: HeadResult) -> str:
    """The task; with the network's name where several networks have it, or it is called otherwise."""
    title = words.task_title(head.task)
    others = [other for other in run.heads if other.task == head.task]
    return title if len(others) == 1 and head.network == head.task else f"{title} (network {head.network})"


# ---- what was run --------------------------------------------------------------------------------------------
def _experiment(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    showers = config.get("showers") or {}
    if showers.get("classes"):
        facts.append(("simulated showers", "; ".join(_runs(c, showers.get("scale", 1)) for c in showers["classes"])))
        facts.append(
            (
                "telescopes",
                f"{_telescopes(showers)}, zenith angle {showers['zenith_deg']:g}°, "
                f"each shower seen from {showers['positions_per_shower']} places",
            )
        )
    sky = config.get("sky") or {}
    if sky.get("runs"):
        rows, columns = sky["shape"]
        facts.append(("simulated frames", f"{sky['runs']} of {rows} × {columns} px, exposure {sky['exposure_s']:g} s"))
    for name, section in (config.get("networks") or {}).items():
        heads = ", ".join(section["heads"])
        model = section["model"]
        facts.append((f"network {name}", f"{model['name']} {_arguments(model)} for {heads}"))
    for key in ("seed", "threads", "device"):
        if key in config:
            facts.append((key, str(config[key])))
    return facts


def _runs(kind: Mapping[str, Any], scale: int) -> str:
    """How many runs of one class of showers, of which energies, and where they come from."""
    source = f"up to {kind['viewcone_deg']:g}° off" if kind["viewcone_deg"] else f"{kind['offset_deg']:g}° off"
    return (
        f"{scale * kind['runs']} runs of {kind['showers_per_run']} {kind['particle']} showers, {source} the pointing, "
        f"{kind['energy_min_tev']:g} to {kind['energy_max_tev']:g} TeV, spectral index {kind['spectral_index']:g}"
    ).replace("-", "−")


def _telescopes(showers: Mapping[str, Any]) -> str:
    """How many of which type: 4 LST, 5 MST-NectarCam."""
    types = Counter(place["type"] for place in showers.get("array") or [{"type": showers["telescope"]}])
    return ", ".join(f"{n} {name}" for name, n in types.items())


def _arguments(model: Mapping[str, Any]) -> str:
    kwargs = model.get("kwargs") or {}
    return f"({', '.join(f'{key} {value}' for key, value in kwargs.items())})" if kwargs else ""


def _yaml(config: Mapping[str, Any] | None) -> str:
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, width=100, allow_unicode=True) if config else ""


def _dataset(wing: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    counts = manifest.get("counts") or {}
    classes = sorted({name for split in counts.values() for name in split}, key=lambda c: (len(c), c))
    shards = manifest.get("shards") or []
    n_groups = sum(shard.get("n_groups", 0) for shard in shards)
    group = _GROUPS.get(manifest.get("wing", wing), "group")
    order = {"train": 0, "validation": 1, "test": 2}
    splits = sorted(counts, key=lambda split: (order.get(split, 3), split))
    size = " × ".join(str(n) for n in manifest.get("tile_shape") or ())
    channels = ", ".join(_named_unit(c["name"], c["unit"]) for c in manifest.get("channels") or ())
    return {
        "title": {"camera": "Camera images", "sky": "Sky frames"}.get(wing, wing),
        "group": group,
        "text": f"{words.count_text(sum(s.get('n_tiles', 0) for s in shards))} tiles of {size} px ({channels}) from "
        f"{words.count_text(n_groups)} {group}s in {len(shards)} shard{'s' if len(shards) != 1 else ''}.",
        "head": ["split", *(_PARTICLES.get(name, name) for name in classes)],
        "rows": [[split, *(words.count_text(counts[split].get(c, 0)) for c in classes)] for split in splits],
        "numbers": range(1, len(classes) + 1),
    }


def _named_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('n_').replace('_', ' ')} {words.count_text(n)}" for name, n in counts.items())


# ---- the simulation ------------------------------------------------------------------------------------------
def _shower_validation(run: Run) -> dict[str, Any] | None:
    """The comparison of the shower simulation with its references, if the run has it."""
    content = run.shower_validation
    if content is None:
        return None
    folder = run.folder / "validation" / "showers"
    counts = content["counts"]
    return {
        "text": f"{counts['agrees']} of {len(content['rows'])} quantities agree with their reference"
        + (f", {counts['bounded']} differ within an explained bound" if counts["bounded"] else "")
        + (f", {counts['differs']} differ" if counts["differs"] else "")
        + "."
        + ("" if content["with_data"] else " Only published numbers were compared: no reference files were given.")
        + (" Few showers were simulated (--quick)." if content["quick"] else ""),
        "rows": validation_table(content["rows"]),
        "explanations": [
            (row["quantity"], row["explanation"]) for row in content["rows"] if row["verdict"] == "bounded"
        ],
        "figures": [
            picture(folder / entry["file"], entry["title"], entry["caption"])
            for entry in content["figures"]
            if (folder / entry["file"]).is_file()
        ],
    }


# ---- how good it is ------------------------------------------------------------------------------------------
def _summary_rows(head: HeadResult) -> list[dict[str, Any]]:
    metrics, rows = head.metrics["metrics"], []
    for name in words.headline_of(head.task, metrics):
        if name not in metrics:
            continue
        text = words.metric_text(name)
        for baseline, values in head.metrics.get("baselines", {}).items():
            if name not in values:
                continue
            difference = head.metrics["differences"].get(baseline, {}).get(name)
            rows.append(
                {
                    "metric": text.label,
                    "network": words.value_text(metrics[name], percent=text.percent),
                    "method": words.method_label(baseline),
                    "baseline": words.value_text(values[name], percent=text.percent),
                    "difference": words.value_text(difference, percent=text.percent, signed=True),
                    "verdict": words.verdict(difference, metrics[name]["better"]),
                }
            )
    return rows


def _network(run: Run, network: NetworkResult, pieces: Pieces) -> dict[str, Any]:
    return {
        "name": network.name,
        "model": pieces.one(f"the card of {network.name}", lambda: _model_text(network), ""),
        "heads": [
            pieces.one(
                f"the evaluation of {_anchor(head)}",
                lambda head=head: _head(run, head),
                _head(run, replace(head, metrics=None)),
            )
            for head in network.heads
        ],
        "learning": pieces.one(f"the learning curves of {network.name}", lambda: _learning(network), None),
        "model_card": pieces.one(f"the card of {network.name}", lambda: _markdown(network.model_card), ""),
    }


def _head(run: Run, head: HeadResult) -> dict[str, Any]:
    content = head.metrics or {}
    return {
        "id": _anchor(head),
        "title": _head_title(run, head),
        "judged": bool(head.metrics),
        "data": _data_text(head),
        "methods": _methods(content),
        "metrics": _metric_rows(content),
        "differences": _difference_rows(content),
        "calibration": _calibration(content.get("calibration") or {}),
        "figures": _figures(head),
        "bins": _bins(content),
        "settings": json.dumps(content["baseline_settings"], indent=1) if content.get("baseline_settings") else "",
    }


def _model_text(network: NetworkResult) -> str:
    if not network.card:
        return ""
    model, training = network.card["model"], network.card["training"]
    return (
        f"A {model['name']} {_arguments(model)} of {words.count_text(model.get('n_parameters'))} parameters, trained "
        f"on {words.count_text(training.get('n_images'))} tiles for {training['epochs']} epochs (best: epoch "
        f"{training['best_epoch']}) in {words.duration_text(training.get('wall_time_s'))} on {training['device']}."
    )


def _data_text(head: HeadResult) -> str:
    data = (head.metrics or {}).get("data")
    if not data:
        return ""
    wing = _wing(head.task)
    what = data.get("items") or ("images" if wing == "camera" else "tiles")
    text = (
        f"Judged on {words.count_text(data['n'])} {what} of {words.count_text(data['n_groups'])} {_GROUPS[wing]}s of "
    )
    text += f"the {data['split']} split."
    weighted = data.get("n_weighted")
    if weighted is not None and weighted != data["n"]:
        text += (
            f" {words.count_text(weighted)} of them have a weight: the others lie where one class has no images, and "
            "the weights equalise energy, offset and size between the classes."
        )
    return text


def _methods(content: Mapping[str, Any]) -> list[str]:
    named = ["network", *content.get("baselines", {}), *(["combined"] if "combined" in content else [])]
    return [words.method_label(name) for name in named] if content else []


def _metric_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not content:
        return []
    blocks = [content["metrics"], *content.get("baselines", {}).values()]
    blocks += [content["combined"]] if "combined" in content else []
    rows = []
    for name, entry in content["metrics"].items():
        text = words.metric_text(name)
        absolute = any(d.get(name, {}).get("absolute") for d in content.get("differences", {}).values())
        rows.append(
            {
                "label": text.label,
                "meaning": text.meaning,
                "arrow": "→0" if absolute else {"higher": "↑", "lower": "↓"}[entry["better"]],
                "values": [words.value_text(block.get(name), percent=text.percent) for block in blocks],
            }
        )
    return rows


def _difference_rows(content: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "metric": words.metric_text(name).label + (" (absolute value)" if entry.get("absolute") else ""),
            "method": words.method_label(baseline),
            "difference": words.value_text(entry, percent=words.metric_text(name).percent, signed=True),
            "verdict": words.verdict(entry, content["metrics"][name]["better"]),
        }
        for baseline, entries in content.get("differences", {}).items()
        for name, entry in entries.items()
    ]


def _calibration(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if "pull_width" not in content:
        return None
    rows = [
        [
            _STRATA.get(name, name),
            words.count_text(entry["n"]),
            _signed(entry["median"]),
            f"{entry['width']:.2f}",
            f"{100 * entry['beyond_3']:.2f} %",
        ]
        for name, entry in content.get("strata", {}).items()
    ]
    return {"median": _signed(content["pull_median"]), "width": f"{content['pull_width']:.2f}", "strata": rows}


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _bins(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = []
    for by in dict.fromkeys(entry["by"] for entry in content.get("bins", ())):
        entries = [entry for entry in content["bins"] if entry["by"] == by]
        title, unit = _BIN_TITLES.get(by, (f"By {by.replace('_', ' ')}", ""))
        baselines = list(content.get("baselines", {}))
        metrics = [name for name in content["metrics"] if any(name in entry for entry in entries)]
        columns = [(name, method) for name in metrics for method in ("network", *baselines)]
        head = [unit, "n", *(f"{words.metric_text(n).label}: {words.method_label(m)}" for n, m in columns)]
        rows = [
            [_range(entry), words.count_text(entry.get("n")), *(_cell(entry, *column) for column in columns)]
            for entry in entries
        ]
        tables.append(
            {
                "title": title,
                "caption": "With 95 % intervals; — where a bin has too few images.",
                "head": head,
                "rows": rows,
                "numbers": range(1, len(head)),
            }
        )
    return tables


def _cell(entry: Mapping[str, Any], metric: str, method: str) -> str:
    block = entry if method == "network" else entry.get("baselines", {}).get(method, {})
    return words.value_text(block.get(metric), percent=words.metric_text(metric).percent)


def _range(entry: Mapping[str, Any]) -> str:
    if "name" in entry:
        return entry["name"]
    low, high = entry.get("low"), entry.get("high")
    if high is None:
        return f"> {low:g}"
    return f"{low:g} to {high:g}" if low is not None else f"< {high:g}"


# ---- pictures and text ---------------------------------------------------------------------------------------
def _figures(head: HeadResult) -> list[Picture]:
    if not head.metrics or head.evaluation is None:
        return []
    pictures = []
    for entry in head.metrics.get("figures", ()):
        path = head.evaluation / Path(entry["file"]).name
        if path.is_file():
            pictures.append(picture(path, entry["title"], entry["caption"]))
    return pictures


def _learning(network: NetworkResult) -> Picture | None:
    path = network.bundle / "learning_curves.png" if network.bundle else None
    if path is None or not path.is_file():
        return None
    caption = (
        "Loss on training and validation images, a metric of the validation images, and the learning rate. Dashed: "
        "the epoch that was kept. A validation loss that rises while the training loss falls indicates overfitting."
    )
    return picture(path, "Learning curves", caption)


def _markdown(text: str) -> Any:
    """Model cards are Markdown; HTML inside them is escaped."""
    if not text.strip():
        return ""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text)
    # Headings of the card are placed below those of the page.
    for level in (4, 3, 2, 1):
        deeper = min(level + 3, 6)
        rendered = rendered.replace(f"<h{level}>", f"<h{deeper}>").replace(f"</h{level}>", f"</h{deeper}>")
    rendered = rendered.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return Markup(rendered)
