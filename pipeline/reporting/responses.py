"""The section of a report about instrument response functions."""

from collections.abc import Mapping, Sequence
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


def section(run: Run) -> dict[str, Any] | None:
    """What the template shows of the folder `irf` of a run; None without one."""
    content = run.irf
    if content is None:
        return None
    folder, sources = run.folder / "irf", content["sources"]
    kinds = content["kinds"]
    tables = [
        _table(kind, by, [entry for entry in kinds[kind]["bins"] if entry["by"] == by])
        for kind in kinds
        for by in _TITLES
        if any(entry["by"] == by for entry in kinds[kind]["bins"])
    ]
    return {
        "text": f"Made by ctapipe's tools from runs that no network was trained on. Energies are from "
        f"{sources['energy']}, gammaness from {sources['gammaness']}, directions from {sources['direction']}. Cuts: "
        f"{_cuts(content['optimiser'])}. Observation time: {content['observation_h']:g} h.",
        "counts_head": ["for", "events", "thrown", "triggered", "with all values", "after the cut in gammaness"],
        "counts": [
            (_KINDS[kind], _PARTICLES[particle], *(words.count_text(number) for number in counts.values()))
            for kind, part in kinds.items()
            for particle, counts in part["counts"].items()
        ],
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


def _table(kind: str, by: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = [name for name in _COLUMNS if any(name in entry for entry in entries)]
    rows = [
        [
            f"{entry['low']:.3g} to {entry['high']:.3g}",
            f"{entry['offset_low_deg']:.3g} to {entry['offset_high_deg']:.3g}",
            *(_cell(entry.get(name), *_COLUMNS[name][1:]) for name in columns),
        ]
        for entry in entries
    ]
    head = ["energy [TeV]", "offset [deg]", *(_COLUMNS[name][0] for name in columns)]
    return {
        "title": f"{_KINDS[kind].capitalize()}: {_TITLES[by]}",
        "caption": "With 95 % intervals, of whole showers; — where a bin has too few events.",
        "head": head,
        "rows": rows,
        "numbers": range(2, len(head)),
    }


def _cell(entry: Mapping[str, Any] | None, factor: float, form: str) -> str:
    if entry is None or entry["value"] is None:
        return "—"
    value = form.format(factor * entry["value"])
    if entry["low"] is None or entry["high"] is None:
        return value
    return f"{value} [{form.format(factor * entry['low'])}, {form.format(factor * entry['high'])}]"
