"""Whether a network of the sky gives the same in bfloat16: tried, when it is opened, on a small scene with stars.

How far bfloat16 is off depends on the weights, the processor and the version of the library, so that no card can tell
it beforehand. The trial costs 0.1 s.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.tiles.shards import TileBatch

if TYPE_CHECKING:
    from pipeline.bundle.card import Card
    from pipeline.tasks.spec import Column

# Values and uncertainties of this share of the pixels ...
_SHARE = 0.999
# ... differ by less than this many of their uncertainties, and by less than this share.
_LIMIT_SIGMA, _LIMIT_ERR = 0.05, 0.05
# Median change of the aperture sums of stars with a signal-to-noise ratio above 20.
_LIMIT_FLUX = 5e-4
# Of the flagged pixels, this share may be others.
_LIMIT_FLAGS = 0.02

# The scene, in electrons.
_SIDE_PX, _LEVEL, _READ_NOISE, _FWHM_PX = 256, 400.0, 6.0, 2.5
_STARS_PER_SIDE, _FAINTEST, _BRIGHTEST, _REACH_PX = 6, 3e3, 3e5, 4
_HOT_SHARE, _HOT_CHARGE = 2e-3, 2000.0


class FramePredictor(Protocol):
    """What of a `Predictor` is used."""

    card: "Card"
    columns: "Sequence[Column]"
    size_multiple: int

    def predict(self, batch: TileBatch) -> dict[str, np.ndarray]: ...

    def flags(self, planes: Mapping[str, np.ndarray], dq: np.ndarray, noise: float) -> np.ndarray: ...


def disagreement(reference: FramePredictor, other: FramePredictor) -> str | None:
    """What of a prediction differs too much from that of the reference, in words; None if nothing does."""
    scene, stars = _scene(reference.size_multiple, reference.card.input.channels)
    noise = float(scene.events["noise"][0])
    planes, found = ({k: v[0] for k, v in predictor.predict(scene).items()} for predictor in (reference, other))
    dq = np.zeros(scene.images.shape[2:], np.uint16)
    flags, flags_found = reference.flags(planes, dq, noise), other.flags(found, dq, noise)
    by_hdu = {column.hdu: column.name for column in reference.columns if column.hdu}
    problems = []
    if (n_other := np.count_nonzero(flags != flags_found)) > max(1, _LIMIT_FLAGS * np.count_nonzero(flags)):
        problems.append(f"{n_other} pixels have other flags, of {np.count_nonzero(flags)} flagged ones")
    err = scene.images[0, reference.card.input.channels.index("err")]
    if "SCI" in by_hdu:
        sci, sci_found = planes[by_hdu["SCI"]], found[by_hdu["SCI"]]
        if not (change := _most(np.abs(sci_found - sci) / err)) < _LIMIT_SIGMA:
            problems.append(f"values differ by {change:.2g} sigma")
        if not (change := _change_of_flux(sci, sci_found, stars)) < _LIMIT_FLUX:
            problems.append(f"the flux of stars differs by {100 * change:.2g} %")
    if "ERR" in by_hdu and not (change := _most(np.abs(found[by_hdu["ERR"]] / planes[by_hdu["ERR"]] - 1))) < _LIMIT_ERR:
        problems.append(f"uncertainties differ by {100 * change:.2g} %")
    return "; ".join(problems) or None


def _most(differences: np.ndarray) -> float:
    return float(np.quantile(differences, _SHARE))


def _change_of_flux(sci: np.ndarray, found: np.ndarray, stars: Sequence[tuple[int, int]]) -> float:
    """Of the median star, relative; over squares of 9 px."""
    apertures = [tuple(slice(place - _REACH_PX, place + _REACH_PX + 1) for place in star) for star in stars]
    flux = np.array([(sci[aperture] - _LEVEL).sum() for aperture in apertures])
    change = np.array([(found[aperture] - sci[aperture]).sum() for aperture in apertures])
    return float(abs(np.median(change / flux)))


def _scene(multiple: int, channels: Sequence[str]) -> tuple[TileBatch, list[tuple[int, int]]]:
    """One tile with stars on a grid, between pixels, and hot pixels; and where the stars are."""
    side = -(-_SIDE_PX // multiple) * multiple
    rng = np.random.default_rng(1)
    step = side // _STARS_PER_SIDE
    stars = [(step // 2 + step * row, step // 2 + step * column) for row, column in np.ndindex((_STARS_PER_SIDE,) * 2)]
    light = np.full((side, side), _LEVEL)
    pixels = np.arange(side)
    for (row, column), flux in zip(stars, np.geomspace(_FAINTEST, _BRIGHTEST, len(stars)), strict=True):
        profiles = [
            np.exp(-((pixels - place - shift) ** 2) / (2 * (_FWHM_PX / 2.3548) ** 2))
            for place, shift in zip((row, column), rng.uniform(-0.5, 0.5, 2), strict=True)
        ]
        light += flux * np.outer(*(profile / profile.sum() for profile in profiles))
    sci = rng.poisson(light) + rng.normal(0, _READ_NOISE, light.shape)
    hot = rng.random(light.shape) < _HOT_SHARE
    sci[hot] += rng.exponential(_HOT_CHARGE, np.count_nonzero(hot))
    planes = {"sci": sci, "err": np.sqrt(np.maximum(sci, 0) + _READ_NOISE**2)}
    events = {"level": np.full(1, _LEVEL), "noise": np.full(1, np.sqrt(_LEVEL + _READ_NOISE**2))}
    images = np.stack([planes[name] for name in channels])[None].astype(np.float32)
    masks = np.zeros((1, side, side), np.uint16)
    return TileBatch(images=images, events=events, group=np.zeros(1, np.int64), masks=masks), stars
