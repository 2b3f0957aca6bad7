"""The section of a report about instrument response functions."""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting import words
from pipeline.reporting.collect import Run
from pipeline.reporting.pictures import picture

_KINDS = {"point_source": "point source", "diffuse": "diffuse gammas"}
_PARTICLES = {"gamma": "gammas", "proton": "protons", "electron": "electrons"}
# Quantity of a bin -> heading, factor, format
_COLUMNS = {
    "effective_area_m2": ("effective area [m²]", 1, "{:.3g}"),
    "energy_bias": ("energy bias [%]", 100, "{:+.1f}"),
    "energy_resolution": ("energy resolution [%]", 100, "{:.1f}"),
    "angular_resolution_deg": ("angular resolution [deg]", 1, "{:.3f}"),
    "background_rate_per_s_deg2": ("background rate [s⁻¹ deg⁻²]", 1, "{:.2g}"),
    "sensitivity_erg_per_cm2_s": ("sensitivity [erg cm⁻² s⁻¹]", 1, "{:.2g}"),
    "sensitivity_crab": ("in units of the Crab nebula", 1, "{:.2g}"),
}
_TITLES = {
    "true_energy_tev": "in bands of true energy",
    "reco_energy_tev": "background in bands of reconstructed energy",
    "sensitivity": "sensitivity in bands of reconstructed energy",
}

_FOREST = (
    " For comparison, the same is made of the same events with values of forests on the image parameters of several "
    "telescopes, which learnt from the same tiles."
)


def section(run: Run) -> dict[str, Any] | None:
    """What the template shows of the folder `irf` of a run; None without one."""
    content = run.irf
    if content is None:
        return None
    folder, sources = run.folder / "irf", content["sources"]
    methods = {"network": content["kinds"]} | {name: part["kinds"] for name, part in content["baselines"].items()}
    several = len(methods) > 1
    tables = [
        table
        for kind in content["kinds"]
        for by in _TITLES
        if (table := _table(kind, by, {method: kinds.get(kind) for method, kinds in methods.items()}))
    ]
    counts = [
        (_KINDS[kind], _PARTICLES[particle], *([method] * several), *map(words.count_text, numbers.values()))
        for method, kinds in methods.items()
        for kind, part in kinds.items()
        for particle, numbers in part["counts"].items()
    ]
    head = ["thrown", "triggered", "with all values", "after the cut in gammaness"]
    return {
        "text": f"Made by ctapipe's tools from runs that no network was trained on. Energies are from "
        f"{sources['energy']}, gammaness from {sources['gammaness']}, directions from {sources['direction']}. Cuts: "
        f"{_cuts(content['optimiser'])}. Observation time: {content['observation_h']:g} h.{_FOREST * several}",
        "counts_head": ["for", "events", *(["values of"] * several), *head],
        "counts": counts,
        "counts_numbers": [2 + several + i for i in range(len(head))],
        "figures": [
            picture(folder / entry["file"], entry["title"], entry["caption"])
            for entry in content["figures"]
            if (folder / entry["file"]).is_file()
        ],
        "tables": tables,
        "sources": list(dict.fromkeys(f"{curve['name']}: {curve['source']}" for curve in content["references"])),
    }


def _cuts(optimiser: str) -> str:
    return "optimised for sensitivity" if optimiser == "sensitivity" else "for a fixed share of the gammas"


def _table(kind: str, by: str, methods: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Bins of one quantity, those of the methods one below the other; None if there are none."""
    entries = [
        (method, entry) for method, part in methods.items() if part for entry in part["bins"] if entry["by"] == by
    ]
    if not entries:
        return None
    several = len(methods) > 1
    columns = [name for name in _COLUMNS if any(name in entry for _, entry in entries)]
    places = [_place(entry) for _, entry in entries]
    rows = [
        [
            f"{entry['low']:.3g} to {entry['high']:.3g}",
            f"{entry['offset_low_deg']:.3g} to {entry['offset_high_deg']:.3g}",
            *([method] * several),
            *(_cell(entry.get(name), *_COLUMNS[name][1:]) for name in columns),
        ]
        for method, entry in sorted(entries, key=lambda pair: places.index(_place(pair[1])))
    ]
    head = ["energy [TeV]", "offset [deg]", *(["values of"] * several), *(_COLUMNS[name][0] for name in columns)]
    return {
        "title": f"{_KINDS[kind].capitalize()}: {_TITLES[by]}",
        "caption": "With 95 % intervals, of whole showers; — where a bin has too few events.",
        "head": head,
        "rows": rows,
        "numbers": range(2 + several, len(head)),
    }


def _place(entry: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(entry[name] for name in ("offset_low_deg", "low"))


def _cell(entry: Mapping[str, Any] | None, factor: float, form: str) -> str:
    if entry is None or entry["value"] is None:
        return "—"
    value = form.format(factor * entry["value"])
    if entry["low"] is None or entry["high"] is None:
        return value
    return f"{value} [{form.format(factor * entry['low'])}, {form.format(factor * entry['high'])}]"
