"""Tables in Markdown of images against simulated ones."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from pages import table

from against.images import GAMMA, PARTICLES, PROTON, Images, direction_errors, energy_errors, shape_ranks, size_ranks
from pipeline.statistics import auc

AUC_MIN_PE = 200
SHAPES = {
    "n_pixels": ("pixels", "{:.0f}"),
    "hillas_width": ("width [deg]", "{:.3f}"),
    "hillas_length": ("length [deg]", "{:.3f}"),
    "abs_timing_slope": ("time slope [ns/deg]", "{:.1f}"),
    "leakage_intensity_width_1": ("leakage", "{:.3f}"),
}


def noise_table(sets: Sequence[Images]) -> str:
    """Dark pixels and cuts of every set."""
    rows = []
    for images in sets:
        level, noise, dead = (images.dark[name] for name in ("level_pe", "noise_pe", "dead"))
        n_kept = len(images.events["event_id"])
        why = "; ".join(f"{count} {reason}" for reason, count in images.rejected.most_common(2))
        rows.append(
            [
                images.name, images.camera, f"{images.n_images}", f"{n_kept}", f"{np.median(level):+.2f}",
                "{1:.2f} ({0:.2f} to {2:.2f})".format(*np.quantile(noise, [0.05, 0.5, 0.95])),
                f"{100 * dead.mean():.2f} %", why,
            ]
        )  # fmt: skip
    head = (
        "set", "camera", "images", "pass the cuts", "median of dark pixels [p.e.]", "their noise [p.e.]",
        "dead pixels", "most rejected",
    )  # fmt: skip
    return table(head, rows)


def shape_table(sets: Sequence[Images], simulations: Mapping[str, Images]) -> str:
    """Median of each parameter, and the mean rank of the images among simulated ones of the same kind."""
    rows = []
    for images, primary_id in itertools.product(sets, (GAMMA, PROTON)):
        here = images.of_class(primary_id)
        if not here.any() or images.identity not in simulations:
            continue
        simulation = simulations[images.identity]
        cells = [
            _rank_cell(images.events["hillas_intensity"][here], size_ranks(images, simulation, primary_id), "{:.0f}")
        ]
        for column, (_, style) in SHAPES.items():
            cells.append(
                _rank_cell(images.events[column][here], shape_ranks(images, simulation, primary_id, column), style)
            )
        rows.append([f"{images.name}, {images.camera}", PARTICLES[primary_id], f"{here.sum()}", *cells])
    return table(("set", "particle", "images", "size [p.e.]", *(words for words, _ in SHAPES.values())), rows)


def _rank_cell(values: np.ndarray, rank: np.ndarray, style: str) -> str:
    known = rank[np.isfinite(rank)]
    median = style.format(np.nanmedian(values))
    return f"{median} ({known.mean():.2f} ± {1 / np.sqrt(12 * len(known)):.2f})" if len(known) else median


def prediction_table(sets: Sequence[Images], bundles: Sequence[str]) -> str:
    """Energy, direction and gammaness of every set by each bundle."""
    rows = []
    for images, key in itertools.product(sets, bundles):
        if not len(images.events["event_id"]) or key not in images.predictions:
            continue
        predicted, gamma, proton = images.predictions[key], images.of_class(GAMMA), images.of_class(PROTON)
        cells = [f"{gamma.sum()} / {proton.sum()}"]
        if gamma.any():
            error = energy_errors(images, key)[gamma]
            angle = direction_errors(images, key)[gamma]
            cells += [f"{np.median(error):+.2f}", f"{np.quantile(np.abs(error), 0.68):.2f}"]
            cells += [f"{np.quantile(angle, 0.68):.2f}" if np.isfinite(angle).all() else "–"]
        else:
            cells += ["–"] * 3
        score = predicted["gammaness"]
        cells += [f"{np.median(score[chosen]):.2f}" if chosen.any() else "–" for chosen in (gamma, proton)]
        other = ~(gamma | proton)
        cells += [f"{np.median(score[other]):.2f} ({other.sum()})" if other.any() else "–"]
        # Fainter gammas have lower energies than the protons of equal size, which is what a network sees there.
        both = (gamma | proton) & (images.events["hillas_intensity"] > AUC_MIN_PE)
        gamma, proton = gamma & both, proton & both
        area = auc(score[both], gamma[both], np.ones(both.sum())) if gamma.any() and proton.any() else np.nan
        cells += [f"{area:.3f}" if np.isfinite(area) else "–"]
        rows.append([f"{images.name}, {images.camera}", key, *cells])
    head = (
        "set", "bundle", "gammas / protons", "energy: median bias", "68 % of the errors", "direction: 68 % [deg]",
        "gammaness of gammas", "of protons", "of others (images)", f"AUC above {AUC_MIN_PE} p.e.",
    )  # fmt: skip
    return table(head, rows)


def event_table(sets: Sequence[Images], bundles: Sequence[str]) -> str:
    """True against predicted values of every gamma and proton."""
    rows = []
    for images in sets:
        keys = [key for key in bundles if key in images.predictions]
        events = images.events
        shown = np.flatnonzero(images.of_class(GAMMA) | images.of_class(PROTON)) if keys else []
        angles = {key: direction_errors(images, key) for key in keys if len(shown)}
        for i in shown:
            row = [
                images.name, f"{events['event_id'][i]} / {events['tel_id'][i]}",
                PARTICLES[int(events["true_primary_id"][i])], f"{events['hillas_intensity'][i]:.0f}",
                f"{events['true_energy_tev'][i]:.3f}",
            ]  # fmt: skip
            for key in keys:
                predicted = images.predictions[key]
                row += [
                    f"{predicted['reco_energy_tev'][i]:.3f}", f"{angles[key][i]:.2f}",
                    f"{predicted['gammaness'][i]:.2f}",
                ]  # fmt: skip
            rows.append(row)
    head = ["set", "event / telescope", "particle", "size [p.e.]", "energy [TeV]"]
    head += [f"{key}: {words}" for key in bundles for words in ("energy", "direction error [deg]", "gammaness")]
    return table(head, rows)
