"""Tables in Markdown of what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pages import table

from photometry.limits import Limit, ratio
from photometry.methods import NETWORK, RECORDED
from photometry.pixels import SNR_NAMES
from photometry.summary import magnitude_gain

Facts = Mapping[str, Any]


def number(value: float | None, style: str = "{:.3f}") -> str:
    """A number, or a dash where nothing could be measured."""
    return "–" if value is None or not np.isfinite(value) else style.format(value)


def limit_table(limits: Sequence[Limit]) -> str:
    """Every demand with its verdict."""
    return table(("demand", "limit", "reached", "where", "verdict"), [limit.cells() for limit in limits])


# ---- frames of known truth -------------------------------------------------------------------------------------------
def mask_table(frames: Sequence[Facts]) -> str:
    """The network's mask on every frame, by both counts."""
    rows = []
    for frame in frames:
        facts = frame["methods"].get(NETWORK)
        if facts is None:
            continue
        rates = [
            " / ".join(number(facts.get(f"found_{count}", {}).get(rate)) for count in ("bench", "own"))
            for rate in ("0.0001", "0.0005", "0.001", "0.005")
        ]
        mask = facts["mask_bench"]
        classes = facts.get("by_class_bench", {})
        rows.append(
            [
                frame["name"], *rates, f"{number(mask['found'])} at {number(100 * mask['false'])} %",
                f"{number(mask['false_in_cores'], '{:.4f}')} of {mask['n_core']:,}",
                number(facts.get("core_false_at_0.05%_bench"), "{:.4f}"),
                *(number(classes.get(name)) for name in ("cosmic ray", "hot", "dead", "trail")),
            ]
        )  # fmt: skip
    head = (
        "frame", "found at .01 %: bench / own", "at .05 %", "at .1 %", "at .5 %", "mask as applied (bench)",
        "false in star cores, mask", "the same at .05 %", "cosmic rays at .05 %", "hot", "dead", "trails",
    )  # fmt: skip
    return table(head, rows)


def method_table(frames: Sequence[Facts]) -> str:
    """All methods: the two frames of the comparison, and the others together."""
    groups = [([frame], frame["name"]) for frame in frames if frame["name"].startswith("bench")]
    others = [frame for frame in frames if not frame["name"].startswith("bench")]
    if others:
        groups.append((others, f"the {len(others)} others, mean" if len(others) > 1 else others[0]["name"]))
    rows = [_method_row(label, method, chosen) for chosen, label in groups for method in chosen[0]["methods"]]
    head = (
        "frames", "method", "mask: defects found", "cosmic rays found", "mask: false", "false in star cores",
        "found at .05 %", "rms on cosmic rays [e−]", "noise of empty sky [σ]", "flux bias [%]", "flux scatter / before",
        "limiting magnitude gained", "CPU s", "Mpix per CPU s",
    )  # fmt: skip
    return table(head, rows)


def _method_row(label: str, method: str, frames: Sequence[Facts]) -> list[str]:
    parts = [frame["methods"][method] for frame in frames]
    masks = [part["mask_bench"] for part in parts if "mask_bench" in part]
    fluxes = [frame["stars"].get(method, {}).get("flux_clear", {}) for frame in frames]
    gains = [
        _difference(part["limiting_magnitude"], frame["methods"][RECORDED]["limiting_magnitude"])
        for part, frame in zip(parts, frames, strict=True)
    ]
    seconds, n_pixels = sum(part["cpu_s"] for part in parts), sum(frame["n_px"] for frame in frames)
    is_recorded = method == RECORDED
    return [
        label, method, number(_mean([m["found"] for m in masks])),
        number(_mean([m["by_class"].get("cosmic ray") for m in masks])),
        number(_mean([m["false"] for m in masks]), "{:.5f}"),
        number(_mean([m["false_in_cores"] for m in masks]), "{:.4f}"),
        number(_mean([part["found_bench"]["0.0005"] for part in parts if "found_bench" in part])),
        number(_mean([part["rms_on_tracks_e"] for part in parts]), "{:.1f}"),
        number(_mean([part["sky_noise"] for part in parts])),
        number(_mean([100 * flux["bias"] for flux in fluxes if flux]), "{:+.2f}"),
        number(_mean([flux["scatter_ratio"] for flux in fluxes if flux]), "{:.2f}"),
        "–" if is_recorded else number(_mean(gains), "{:+.2f}"),
        "–" if is_recorded else number(seconds, "{:.1f}"),
        "–" if is_recorded else number(n_pixels / 1e6 / seconds, "{:.2f}"),
    ]  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def error_table(frames: Sequence[Facts]) -> str:
    """Rms outside defects, after over before, in bins of the pixel's true signal-to-noise ratio."""
    head = ("frame", f"S/N {SNR_NAMES[0]}", *SNR_NAMES[1:])
    rows = []
    for frame in frames:
        after, before = (frame["methods"][name]["rms_by_snr"] for name in (NETWORK, RECORDED))
        rows.append([frame["name"], *(number(ratio(a, b)) for a, b in zip(after, before, strict=True))])
    return table(head, rows)


def star_table(bins: Sequence[Facts]) -> str:
    """Fluxes of stars with clear apertures, by FWHM and magnitude."""
    rows = []
    for one in bins:
        low, high = one["fwhm_px"]
        facts = one["methods"][NETWORK]
        rows.append(
            [
                f"{low:g} to {high:g}" if high > low else f"{low:g}", number(one["magnitude"], "{:.1f}"), f"{one['n']}",
                number(100 * facts["bias_before"], "{:+.2f}"),
                f"{100 * facts['bias']:+.2f} ± {100 * facts['bias_error']:.2f}",
                number(100 * facts["bias_added"], "{:+.2f}"), number(100 * facts["scatter_before"], "{:.2f}"),
                number(100 * facts["scatter"], "{:.2f}"), number(facts["scatter_ratio"], "{:.2f}"),
            ]
        )  # fmt: skip
    head = (
        "FWHM [px]", "magnitude", "stars", "bias before [%]", "after [%]", "added [%]", "scatter before [%]",
        "after [%]", "after / before",
    )  # fmt: skip
    return table(head, rows)


def shape_table(frames: Sequence[Facts]) -> str:
    """Centroids, ellipticities, and stars with a defect in the aperture."""
    rows = []
    for frame in frames:
        stars = frame["stars"]
        own, before = stars.get(NETWORK, {}), stars.get(RECORDED, {})
        if "centroid_px" not in own:
            continue
        cells = []
        for key in ("centroid_px", "ellipticity"):
            facts = own[key]
            cells += [f"{facts['before']:.4f} / {facts['after']:.4f}", number(facts["added"], "{:.4f}")]
            cells += [number(facts["systematic"], "{:.4f}")]
        hit = [facts.get("flux_hit", {}).get("scatter") for facts in (before, own)]
        cells.append(f"{stars['n_hit']}: " + " / ".join(number(h and 100 * h, "{:.1f}") for h in hit))
        rows.append([frame["name"], f"{stars['n_clear']}", *cells])
    head = (
        "frame", "stars", "centroid error [px], before / after", "added", "systematic",
        "ellipticity error, before / after", "added", "systematic",
        "stars with a defect: flux scatter [%], before / after",
    )  # fmt: skip
    return table(head, rows)


def pull_table(frames: Sequence[Facts]) -> str:
    """Width of the pulls and share beyond 3, by stratum."""
    names = ("sky", "faint", "core", "galaxy", "painted")
    rows = [
        [
            frame["name"],
            *(f"{number(p['width'], '{:.2f}')}, {number(_percent(p, 'beyond_3'), '{:.1f}')} %, {p['n']:,}" for p in
              (frame["pulls"][name] for name in names)),
        ]
        for frame in frames
    ]  # fmt: skip
    return table(("frame: width, share beyond 3, pixels", *names), rows)


def noise_table(frames: Sequence[Facts]) -> str:
    """Noise of the sky, what the residual holds, limiting magnitudes, seams."""
    rows = []
    for frame in frames:
        own, before = (frame["methods"][name] for name in (NETWORK, RECORDED))
        residual = frame["residual_correlation"]
        rows.append(
            [
                frame["name"], number(before["sky_noise"] / own["sky_noise"], "{:.2f}"),
                *(" ".join(number(rho, "{:+.2f}") for rho in residual[name]) for name in ("sky", "faint", "galaxy")),
                number(before["limiting_magnitude"], "{:.2f}"), number(own["limiting_magnitude"], "{:.2f}"),
                number(magnitude_gain(frame), "{:+.2f}"),
                number(frame["limiting_magnitude_without_defects"], "{:.2f}"),
                number(frame.get("seam", {}).get("largest"), "{:.1e}"),
            ]
        )  # fmt: skip
    head = (
        "frame", "noise of empty sky, before / after", "correlation of what was removed at 1, 2, 3 px: sky", "faint",
        "galaxies", "limiting magnitude as recorded", "after", "gain", "as recorded, without defects", "seams [σ]",
    )  # fmt: skip
    return table(head, rows)


# ---- real frames -----------------------------------------------------------------------------------------------------
def real_star_table(sets: Sequence[Facts]) -> str:
    """Confirmed stars of every set, and its galaxies."""
    rows = []
    for one in sets:
        low, high = one["fwhm_px"]
        rows.append(
            [
                one["name"], f"{one['n_frames']}", f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}",
                ", ".join(one["confirmed_by"]), f"{one['n_stars']} ({one['n_saturated']})",
                number(100 * one["masked"]), number(_percent(one, "flagged"), "{:.2f}"),
                number(_percent(one, "median_kept"), "{:.2f}"), number(_percent(one, "lost_5_percent"), "{:.2f}"),
                number(_percent(one, "worst_loss"), "{:.1f}"), number(one.get("worst_loss_sigma"), "{:.1f}"),
                f"{one['n_galaxies']}: {100 * one['worst_galaxy']:.2f}" if "worst_galaxy" in one else "–",
            ]
        )  # fmt: skip
    head = (
        "set", "frames", "FWHM [px]", "stars confirmed by", "stars with S/N > 30 (saturated)", "pixels in the mask [%]",
        "stars flagged [%]", "median flux kept [%]", "unsaturated stars that lost > 5 % [%]", "largest loss [%]",
        "largest loss [σ of the star]", "galaxies: largest change [%]",
    )  # fmt: skip
    return table(head, rows)


def _percent(facts: Facts, key: str) -> float | None:
    return None if facts.get(key) is None else 100 * facts[key]


def real_mask_table(sets: Sequence[Facts]) -> str:
    """Of a mask alone: stars that it flags, and added tracks that it finds."""
    rows = [
        [
            one["name"], f"{one['n_stars']} ({one['n_saturated']})", number(100 * one["masked"]),
            number(_percent(one, "flagged"), "{:.2f}"), number(_percent(one, "flagged_unsaturated"), "{:.2f}"),
            _tracks(one),
        ]
        for one in sets
    ]  # fmt: skip
    head = (
        "set", "stars with S/N > 30 (saturated)", "pixels in the mask [%]", "stars flagged [%]",
        "of the unsaturated [%]", "added tracks: pixels found, tracks found",
    )  # fmt: skip
    return table(head, rows)


def _tracks(one: Facts) -> str:
    if "n_tracks" not in one:
        return "–"
    return f"{number(one['track_pixels_found'])}, {number(one['tracks_found'])} of {one['n_tracks']}"


def injected_table(sets: Sequence[Facts]) -> str:
    """Response to added stars, and added tracks that were found."""
    rows = []
    levels = [(where, snr) for where in ("sky", "wings") for snr in (10.0, 100.0, 1000.0)]
    for one in sets:
        known = {(part["where"], part["snr"]): part for part in one["responses"]}
        cells = []
        for level in levels:
            part = known.get(level)
            cells.append(
                f"{part['median']:.3f} ({part['low']:.3f} to {part['high']:.3f}), {part['n']}" if part else "–"
            )
        rows.append([one["name"], *cells, _tracks(one)])
    head = (
        "set", *(f"{where}, S/N {snr:g}" for where, snr in levels), "added tracks: pixels found, tracks found",
    )  # fmt: skip
    return table(head, rows)
