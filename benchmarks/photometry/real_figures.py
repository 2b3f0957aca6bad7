"""Figures of a set of real frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from photometry.injection import SNRS, AddedStars, AddedTracks
from photometry.real import RealFrame

_FEWEST_RESPONSES = 5


def set_figures(
    name: str, frames: Sequence[RealFrame], stars: Sequence[AddedStars], tracks: Sequence[AddedTracks]
) -> dict[str, Any]:
    """Stars, galaxies, added stars and added tracks of all judged frames together."""
    kept, flagged, saturated = (
        np.concatenate([getattr(one.stars, key) for one in frames]) for key in ("kept", "flagged", "saturated")
    )
    free = ~saturated.astype(bool)
    lost_sigma = (1 - kept) * np.concatenate([one.stars.snr for one in frames])
    widths = [one.fwhm_px for one in frames]
    n_pixels = sum(one.frame.sci[one.frame.exposed].size for one in frames)
    facts: dict[str, Any] = {
        "name": name,
        "n_frames": len(frames),
        "fwhm_px": [float(min(widths)), float(max(widths))],
        "confirmed_by": sorted({one.confirmed_by for one in frames}),
        "n_stars": len(kept),
        "n_saturated": int(saturated.sum()),
        "masked": sum(int(one.after.mask.sum()) for one in frames) / n_pixels,
        "warnings": sorted({text for one in frames for text in one.frame.warnings}),
        "responses": _responses(stars),
    }
    if len(kept):
        facts |= {"flagged": float(flagged.mean()), "median_kept": float(np.median(kept))}
    if free.any():
        facts |= {
            "flagged_unsaturated": float(flagged[free].mean()),
            "worst_loss": float(1 - kept[free].min()),
            "worst_loss_sigma": float(lost_sigma[free].max()),
            "lost_5_percent": float((kept[free] < 0.95).mean()),
        }
    galaxies = [one.galaxies for one in frames if one.galaxies]
    if galaxies and sum(len(g["kept"]) for g in galaxies):
        share = np.concatenate([g["kept"] for g in galaxies])
        columns = {key: np.concatenate([g[key] for g in galaxies]).tolist() for key in galaxies[0]}
        facts |= {"n_galaxies": len(share), "worst_galaxy": float(np.abs(share - 1).max()), "galaxies": columns}
    n_tracks = sum(one.n_tracks for one in tracks)
    if n_tracks:
        n_track_px = sum(one.n_pixels for one in tracks)
        facts |= {
            "n_tracks": n_tracks,
            "track_pixels_found": sum(one.pixels_found * one.n_pixels for one in tracks if one.n_tracks) / n_track_px,
            "tracks_found": sum(one.tracks_found * one.n_tracks for one in tracks if one.n_tracks) / n_tracks,
        }
    return facts


def _responses(parts: Sequence[AddedStars]) -> list[dict[str, Any]]:
    """Median and the central 68 % by signal-to-noise ratio, on sky and on wings."""
    snr, response, on_wing = (
        np.concatenate([getattr(part, key) for part in parts]) if parts else np.empty(0)
        for key in ("snr", "response", "on_wing")
    )
    found = []
    for where, there in (("sky", ~on_wing.astype(bool)), ("wings", on_wing.astype(bool))):
        for level in SNRS:
            values = response[(snr == level) & there]
            if len(values) >= _FEWEST_RESPONSES:
                low, middle, high = np.quantile(values, [0.158655, 0.5, 0.841345])
                found.append(
                    {
                        "snr": level, "where": where, "n": len(values), "median": float(middle),
                        "low": float(low), "high": float(high), "lowest": float(values.min()),
                    }
                )  # fmt: skip
    return found
