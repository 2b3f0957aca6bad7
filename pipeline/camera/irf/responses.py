"""Responses of one kind of gammas: cuts, GADF tables and benchmarks, by ctapipe's tools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.irf import fits_files, settings, tools
from pipeline.camera.irf.events import Events, columns_of, read_events
from pipeline.camera.irf.inputs import Prefixes, Thrown, quality_criteria
from pipeline.camera.irf.summary import MIN_BACKGROUND, Entry, summarise
from pipeline.config import IrfConfig
from pipeline.errors import TooFewEventsError
from pipeline.logs import get_logger

log = get_logger(__name__)

#: Files of cuts, of responses without and with the cut in direction, of benchmarks, and the tools' configuration.
CUTS, IRF, POINT_LIKE, BENCHMARKS, SETTINGS = (
    "cuts.fits", "irf.fits", "irf_point_like.fits", "benchmarks.fits", "ctapipe.yaml",
)  # fmt: skip
#: Kind of gammas -> what the messages call it.
NAMES = {"point_source": "a point source", "diffuse": "diffuse gammas"}


@dataclass(frozen=True)
class EventSet:
    """One merged file of one particle.

    Attributes
    ----------
    path : Path
    thrown : Thrown
    n_thrown, n_events : int
        Showers thrown, each use counted, and those that triggered.
    """

    path: Path
    thrown: Thrown
    n_thrown: int
    n_events: int


@dataclass
class Responses:
    """What was made for one kind of gammas.

    Attributes
    ----------
    kind : {"point_source", "diffuse"}
    bins : settings.Bins
    counts : dict
        Particle -> numbers of showers and events: thrown, triggered, with good quality, after the cut in gammaness.
    entries : list of dict
        See `summarise`.
    tables : list of str
        Types of the GADF tables in irf.fits.
    is_checked : bool
        Whether the tables were compared with the format by ogadf-schema.
    warnings : list of str
    """

    kind: str
    bins: settings.Bins
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    is_checked: bool = False
    warnings: list[str] = field(default_factory=list)


def make_responses(
    cfg: IrfConfig,
    gammas: EventSet,
    background: Mapping[str, EventSet],
    prefixes: Prefixes,
    folder: Path,
    *,
    n_resamples: int,
    seed: int,
) -> Responses:
    """Optimise cuts, compute responses and sum them up in `folder`, which is made.

    Parameters
    ----------
    cfg : IrfConfig
    gammas : EventSet
    background : mapping
        proton and, perhaps, electron; empty without any.
    prefixes : Prefixes
    folder : path
    n_resamples, seed : int
        Of the intervals.

    Raises
    ------
    TooFewEventsError
        If there is no gamma left, or cuts cannot be optimised.
    """
    bins = settings.bins_of(cfg, gammas.thrown, [events.thrown for events in background.values()])
    made = Responses(gammas.thrown.kind, bins)
    sets = {"gamma": gammas} | dict(background)
    optimise = cfg.optimiser == "sensitivity" and bool(background)
    if not background:
        made.warnings.append(
            f"there are no protons: the cuts keep {cfg.gamma_percent} % of the gammas in each energy bin, and there is "
            "neither background nor sensitivity; add a class of protons to the section irf"
        )
    criteria = quality_criteria(columns_of(gammas.path), prefixes, cfg.min_telescopes)
    configuration = settings.ctapipe_configuration(cfg, prefixes, criteria, bins, optimise=optimise)
    folder.mkdir()
    settings.write_configuration(folder / SETTINGS, configuration)
    _run_tools(folder, sets, configuration, bins, cfg.observation_h)
    selected = {
        name: read_events(
            events.path, name, configuration, cfg.observation_h, bins.offset_edges_deg, folder / CUTS
        )
        for name, events in sets.items()
    }  # fmt: skip
    made.counts = {name: _counts(sets[name], events) for name, events in selected.items()}
    noise = joined([selected[name] for name in background]) if background else None
    made.entries = summarise(folder, selected["gamma"], noise, bins, n_resamples=n_resamples, seed=seed)
    made.tables = fits_files.tables_of(folder / IRF)
    made.is_checked = all([fits_files.check_schema(folder / name) for name in (IRF, POINT_LIKE)])
    made.warnings += _warnings_of(made)
    return made


def _counts(events: EventSet, selected: Events) -> dict[str, int]:
    return {
        "thrown": events.n_thrown,
        "triggered": events.n_events,
        "good_quality": len(selected),
        "after_gammaness_cut": int(selected.passes_gammaness.sum()),
    }


def joined(parts: Sequence[Events]) -> Events:
    """Events of several particles; no two of them share a shower."""
    columns: dict[str, Any] = {
        item.name: np.concatenate([getattr(part, item.name) for part in parts])
        for item in fields(Events)
        if item.name not in ("shower", "n_thrown")
    }
    starts = np.cumsum([0, *(part.shower.max(initial=-1) + 1 for part in parts[:-1])])
    shower = np.concatenate([part.shower + start for part, start in zip(parts, starts, strict=True)])
    return Events(**columns, shower=shower, n_thrown=sum(part.n_thrown for part in parts))


def _run_tools(
    folder: Path,
    sets: Mapping[str, EventSet],
    configuration: Mapping[str, Any],
    bins: settings.Bins,
    observation_h: float,
) -> None:
    kind = NAMES[sets["gamma"].thrown.kind]
    inputs = [part for name, events in sets.items() for part in (f"--{name}-file", events.path)]
    common = ["--config", folder / SETTINGS, *inputs]
    before = {
        name: read_events(events.path, name, configuration, observation_h, bins.offset_edges_deg)
        for name, events in sets.items()
    }
    for name, events in before.items():
        if not len(events):
            raise TooFewEventsError(
                f"none of {sets[name].n_events} {name} events ({kind}) has all values from enough telescopes "
                "(irf.min_telescopes); simulate more showers"
            )
    log.info("%s: optimising cuts with %s", kind, ", ".join(f"{len(e)} {name}s" for name, e in before.items()))
    try:
        tools.run("optimize-event-selection", [*common, "--output", folder / CUTS], folder)
    except tools.NoOptimum as error:
        raise TooFewEventsError(_too_few(before, bins)) from error
    fits_files.limit_offsets(folder / CUTS, float(bins.offset_edges_deg[-1]))
    if len(sets) == 1:
        common.append("--no-do-background")
    common += ["--cuts", folder / CUTS]
    log.info("%s: computing responses", kind)
    tools.run("compute-irf", [*common, "--output", folder / IRF], folder)
    # With the cut in direction: so benchmarks must be, or a source's gammas outside it would count as seen.
    last = ["--spatial-selection-applied", "--output", folder / POINT_LIKE, "--benchmark-output", folder / BENCHMARKS]
    tools.run("compute-irf", [*common, *last], folder)
    for path in folder.glob("*.provenance.log"):
        path.unlink()


def _too_few(events: Mapping[str, Events], bins: settings.Bins) -> str:
    """Why no cuts could be optimised: which bins have the fewest events."""
    edges = bins.reco_edges_tev
    counts = {name: np.histogram(part.reco_energy_tev, edges)[0] for name, part in events.items() if name != "electron"}
    worst = np.argsort(np.min(list(counts.values()), axis=0), kind="stable")[:3]
    listed = "; ".join(
        f"{edges[i]:.3g} to {edges[i + 1]:.3g} TeV: "
        + ", ".join(f"{number[i]} {name}s" for name, number in counts.items())
        for i in sorted(worst.tolist())
    )
    return (
        "cuts cannot be optimised for sensitivity, because there are energy bins without one between others that have "
        f"one; the emptiest bins before cuts are {listed}: simulate more showers of the section irf, use fewer "
        "reco_bins_per_decade, end the bins earlier (energy_max_tev), or choose optimiser: percentile"
    )


def _warnings_of(made: Responses) -> list[str]:
    """In one line, where the sensitivity is not known."""
    cells = [entry for entry in made.entries if entry["by"] == "sensitivity"]
    poor = [e for e in cells if e["n_background"] < MIN_BACKGROUND or e["sensitivity_crab"]["value"] is None]
    if not poor:
        return []
    places = dict.fromkeys(f"{entry['low']:.2g} to {entry['high']:.2g} TeV" for entry in poor)
    return [
        f"the sensitivity to {NAMES[made.kind]} is not known in {len(poor)} of {len(cells)} bins, which have fewer "
        f"than {MIN_BACKGROUND} background events after cuts ({', '.join(places)}); simulate more protons"
    ]
