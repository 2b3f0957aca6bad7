"""From measurements of frames to figures: stars by magnitude and FWHM, and the demands with what was reached."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from photometry.limits import Limit, ratio, worst
from photometry.methods import NETWORK, RECORDED
from photometry.pixels import SNR_NAMES
from photometry.stars import Stars, added, flux_statistics, magnitude_bins

FWHM_GROUPS = ((0.0, 2.1), (2.1, 3.2), (3.2, 5.2), (5.2, 99.0))
#: Up to this FWHM, the lower one of two demands on the defect mask holds.
SHARP_FWHM_PX = 3.0
# Fewer pixels do not give the width of pulls to .03, nor the share beyond 3 sigma to .7 %.
_LEAST_PULLS = 200
# Of fewer stars, shares and medians of a set of real frames are not compared with a limit.
_LEAST_STARS = 5


# ---- stars -----------------------------------------------------------------------------------------------------------
def star_figures(stars: Stars) -> list[dict[str, Any]]:
    """Flux bias and scatter of every method, by group of FWHM and whole magnitude; clear apertures only."""
    found = []
    for low, high in FWHM_GROUPS:
        group = stars.select((stars.fwhm_px >= low) & (stars.fwhm_px < high) & stars.clear)
        for middle, inside in magnitude_bins(group.magnitude):
            before = group.flux_error[RECORDED][inside]
            methods = {
                name: flux_statistics(error[inside], before)
                for name, error in group.flux_error.items()
                if name != RECORDED
            }
            edges = float(group.fwhm_px.min()), float(group.fwhm_px.max())
            found.append({"fwhm_px": edges, "magnitude": middle, "n": int(inside.sum()), "methods": methods})
    return found


def star_summary(stars: Stars) -> dict[str, Any]:
    """Of one frame: fluxes of all stars with clear apertures and of those with a defect, places and shapes."""
    clear, hit = stars.select(stars.clear), stars.select(~stars.clear)
    facts: dict[str, Any] = {"n_clear": len(clear.snr), "n_hit": len(hit.snr)}
    for name in stars.flux_error:
        one: dict[str, Any] = {}
        for key, part in (("clear", clear), ("hit", hit)):
            if len(part.snr):
                one[f"flux_{key}"] = flux_statistics(part.flux_error[name], part.flux_error[RECORDED])
        if len(clear.snr):
            one["centroid_px"] = added(clear.shift_px[name], clear.shift_px[RECORDED])
            one["ellipticity"] = added(clear.ellipticity_error[name], clear.ellipticity_error[RECORDED])
        facts[name] = one
    return facts


# ---- demands ---------------------------------------------------------------------------------------------------------
def independent_limits(
    frames: Sequence[Mapping[str, Any]], bins: Sequence[Mapping[str, Any]], least_speed: float
) -> list[Limit]:
    """Demands on frames of known truth."""
    own = {frame["name"]: frame["methods"][NETWORK] for frame in frames}
    before = {frame["name"]: frame["methods"][RECORDED] for frame in frames}
    return [
        *_mask_limits(frames, own),
        *_error_limits(frames, own, before),
        *_star_limits(frames, bins),
        *_pull_limits(frames),
        _speed_limit(frames, least_speed),
    ]


def _mask_limits(frames: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> list[Limit]:
    limits = []
    for rate, text, least_of in (("0.0005", "0.05 %", (0.97, 0.985)), ("0.0001", "0.01 %", (0.90, 0.90))):
        for is_sharp, least, which in ((True, least_of[0], "up to 3 px"), (False, least_of[1], "above 3 px")):
            chosen = [f["name"] for f in frames if (f["fwhm_px"] <= SHARP_FWHM_PX) == is_sharp]
            shares = {name: own[name].get("found_bench", {}).get(rate) for name in chosen}
            value, where = worst(shares, largest=False)
            text_of = f"defect pixels found at a false-alarm rate of {text}, FWHM {which}, worst frame"
            limits.append(Limit(text_of, value, least, False, where))
    n = {name: facts["mask_bench"]["n_core"] for name, facts in own.items()}
    total = sum(n.values())
    in_mask = sum(own[name]["mask_bench"]["false_in_cores"] * n[name] for name in own if n[name])
    at_rate = sum(own[name].get("core_false_at_0.05%_bench", np.nan) * n[name] for name in own if n[name])
    where = f"{total:,} pixels of all frames"
    limits += [
        Limit("false alarms in star cores, mask as applied", in_mask / max(total, 1), 1e-4, True, where, "{:.1e}"),
        Limit(
            "false alarms in star cores, at 0.05 % of all pixels", at_rate / max(total, 1), 1e-4, True, where, "{:.1e}"
        ),
    ]
    for name, most in (("bench 2 px", 25.0), ("bench 4 px", 30.0)):
        value = own.get(name, {}).get("rms_on_tracks_e", np.nan)
        limits.append(Limit("rms error on cosmic-ray pixels [e−]", value, most, True, name, "{:.1f}"))
    return limits


def _error_limits(
    frames: Sequence[Mapping[str, Any]], own: Mapping[str, Any], before: Mapping[str, Any]
) -> list[Limit]:
    ratios = {
        f"{name}, {snr}": ratio(after, noisy)
        for name in own
        for snr, after, noisy in zip(SNR_NAMES, own[name]["rms_by_snr"], before[name]["rms_by_snr"], strict=True)
    }
    quieter = {name: before[name]["sky_noise"] / own[name]["sky_noise"] for name in own}
    gains = [gain for gain in map(magnitude_gain, frames) if gain is not None]
    seams = {f["name"]: f["seam"]["largest"] for f in frames if "seam" in f}
    return [
        Limit("rms outside defects, after / before, worst bin of S/N", *_last(worst(ratios), 1.0, True)),
        Limit("noise of empty sky, before / after, worst frame", *_last(worst(quieter, largest=False), 3.0, False)),
        Limit(
            "limiting magnitude at 95 % purity, after − as recorded", float(np.median(gains)) if gains else np.nan, 0.3,
            False, f"median of {len(gains)} frames", "{:+.2f}",
        ),
        Limit("seams: largest difference between tilings [σ]", *_last(worst(seams), 1e-3, True), "{:.1e}"),
    ]  # fmt: skip


def _last(found: tuple[float, str], limit: float, at_most: bool) -> tuple[float, float, bool, str]:
    value, where = found
    return value, limit, at_most, where


def magnitude_gain(frame: Mapping[str, Any]) -> float | None:
    """How much fainter stars are found after than before, at the same purity."""
    after, before = (frame["methods"][name]["limiting_magnitude"] for name in (NETWORK, RECORDED))
    return None if after is None or before is None else after - before


def _star_limits(frames: Sequence[Mapping[str, Any]], bins: Sequence[Mapping[str, Any]]) -> list[Limit]:
    def named(one: Mapping[str, Any]) -> str:
        low, high = one["fwhm_px"]
        return f"FWHM {low:g} to {high:g} px, magnitude {one['magnitude']:g}"

    bias = {named(one): 100 * abs(one["methods"][NETWORK]["bias_added"]) for one in bins}
    scatter = {named(one): one["methods"][NETWORK]["scatter_ratio"] for one in bins}
    shapes = {f["name"]: f["stars"].get(NETWORK, {}) for f in frames}

    def of_shape(key: str) -> dict[str, float]:
        return {
            name: max(facts[key]["added"], facts[key]["systematic"]) for name, facts in shapes.items() if key in facts
        }

    return [
        Limit("flux bias of stars that was added, worst bin [%]", *_last(worst(bias), 0.3, True), "{:.2f}"),
        Limit("flux scatter, after / before, worst bin", *_last(worst(scatter), 1.05, True)),
        Limit("centroid shift that was added, worst frame [px]", *_last(worst(of_shape("centroid_px")), 0.02, True)),
        Limit("ellipticity that was added, worst frame", *_last(worst(of_shape("ellipticity")), 0.005, True)),
    ]


def _pull_limits(frames: Sequence[Mapping[str, Any]]) -> list[Limit]:
    parts = {
        f"{frame['name']}, {stratum}": pull
        for frame in frames
        for stratum, pull in frame["pulls"].items()
        if pull["n"] >= _LEAST_PULLS
    }
    off = {name: abs(pull["width"] - 1) for name, pull in parts.items()}
    beyond = {name: 100 * pull["beyond_3"] for name, pull in parts.items()}
    return [
        Limit("width of the pulls, distance from 1, worst stratum", *_last(worst(off), 0.1, True)),
        Limit("pulls beyond 3, worst stratum [%]", *_last(worst(beyond), 1.0, True)),
    ]


def _speed_limit(frames: Sequence[Mapping[str, Any]], least: float) -> Limit:
    seconds = sum(frame["methods"][NETWORK]["cpu_s"] for frame in frames)
    speed = sum(frame["n_px"] for frame in frames) / 1e6 / seconds
    return Limit("Mpix per CPU second, file to file", speed, least, False, "all frames", "{:.2f}")


def _of_sets(sets: Sequence[Mapping[str, Any]], key: str, least: int = 0) -> dict[str, float]:
    """A figure of the sets that have it, and at least so many stars."""
    return {one["name"]: one[key] for one in sets if one.get(key) is not None and one["n_stars"] >= least}


def real_mask_limits(sets: Sequence[Mapping[str, Any]]) -> list[Limit]:
    """Demand on a mask alone, on real frames: of the worst set."""
    flagged = worst(_of_sets(sets, "flagged_unsaturated", _LEAST_STARS))
    return [Limit("unsaturated real stars with S/N > 30 that the mask flags, worst set", *_last(flagged, 0.005, True))]


def real_limits(sets: Sequence[Mapping[str, Any]]) -> list[Limit]:
    """Demands on real frames: each for the worst set."""

    def of_sets(key: str, least: int = 0) -> dict[str, float]:
        return _of_sets(sets, key, least)

    off = {
        f"{one['name']}, S/N {level['snr']:g} on {level['where']}": abs(level["median"] - 1)
        for one in sets
        for level in one["responses"]
    }
    return [
        Limit(
            "real stars with S/N > 30 that are flagged, worst set",
            *_last(worst(of_sets("flagged", _LEAST_STARS)), 0.005, True),
        ),
        Limit(
            "median of their flux kept, distance from 1 [%], worst set",
            *_last(worst({k: 100 * abs(v - 1) for k, v in of_sets("median_kept", _LEAST_STARS).items()}), 0.5, True),
        ),
        Limit(
            "largest loss of an unsaturated star [%], worst set",
            *_last(worst({k: 100 * v for k, v in of_sets("worst_loss").items()}), 5.0, True), "{:.1f}",
        ),
        Limit(
            "galaxies: largest change of the total flux [%]",
            *_last(worst({k: 100 * v for k, v in of_sets("worst_galaxy").items()}), 1.0, True),
        ),
        Limit("response to added stars, distance from 1, worst median", *_last(worst(off), 0.005, True)),
    ]  # fmt: skip
