"""Errors of sums of pixels of a restored frame, whose errors go together.

A sum over a square window of n x n pixels of restored empty sky varies by K_n times the root of its summed squared
uncertainties. K was measured for some n and is a power of n between them, from 1 for a single pixel. Beyond the largest
window the last power goes on: K grows until windows are larger than what two errors share, and ever slower, so that
this is too much rather than too little. A circle shares the pixels on its edge with what is outside; it counts as the
window of equal pixels with the same number (sum w)^2 / sum w^2, w being the shares.

Two things bound it, pixel by pixel. What a restoration takes from a pixel it gives to those beside it: a sum over many
pixels is as uncertain as it was before, so K is at most the noise before over the uncertainty after. And a pixel that
is as uncertain as before, in the core of a star, was left as it was measured, with an error of its own: K is 1.

The pixels of a painted hole are computed from the same surroundings, and most of their error is what nobody knows of
the light in the hole: they count as fully correlated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.sky import cards
from pipeline.sky.dq import DQ, has


def correlation_of(n_px: float, correlations: Mapping[int, float]) -> float:
    """K of a sum over `n_px` pixels of empty sky; infinite where nothing was measured.

    Parameters
    ----------
    n_px : float
        1 or more.
    correlations : mapping
        Side of a square window [px] -> its K.
    """
    if not correlations:
        return np.inf
    sides = sorted(correlations)
    log_side = np.log([1, *sides])
    log_k = np.log([1.0, *(correlations[side] for side in sides)])
    beyond = max(0.5 * np.log(n_px) - log_side[-1], 0.0)
    power = max((log_k[-1] - log_k[-2]) / (log_side[-1] - log_side[-2]), 0.0)
    return float(np.exp(np.interp(0.5 * np.log(n_px), log_side, log_k) + power * beyond))


def aperture_errors(
    err: np.ndarray, dq: np.ndarray, header: Mapping[str, Any], x: np.ndarray, y: np.ndarray, radius_px: float
) -> np.ndarray:
    """One sigma of the sums of a restored frame in circles.

    Parameters
    ----------
    err : ndarray, shape (H, W)
        As `predict` has written it.
    dq : ndarray of uint16, shape (H, W)
        Likewise.
    header : mapping
        With the cards LPRMS and LPCOR3 to LPCOR17 of the same image. Without the latter, K is as large as it can be.
    x, y : ndarray, shape (n,)
        Centres [px], integers at the centres of pixels.
    radius_px : float

    Returns
    -------
    ndarray, shape (n,)
        In the unit of `err`. Of a circle that the frame cuts off, of the part inside; NaN outside.

    Raises
    ------
    UserError
        If the header is not one of a product, shapes differ, or the radius is not positive.
    """
    from photutils.aperture import CircularAperture

    if err.shape != dq.shape:
        raise UserError(f"ERR of shape {err.shape} and DQ of shape {dq.shape} are not of one image")
    if not radius_px > 0:
        raise UserError(f"the radius of an aperture is a positive number of pixels, got {radius_px}")
    noise = header.get(cards.NOISE_BEFORE.keyword)
    if noise is None:
        raise UserError(
            f"the header has no card {cards.NOISE_BEFORE.keyword}: errors of sums are known for what `predict` wrote; "
            "give the header of its SCI extension"
        )
    known = {side: float(header[key]) for side, key in cards.CORRELATIONS.items() if key in header}
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    if not x.size:
        return np.empty(0)
    circles = CircularAperture(np.column_stack([x, y]), r=radius_px)
    errors = np.full(x.size, np.nan)
    for number, circle in enumerate(circles.to_mask(method="exact")):
        place, inside = circle.get_overlap_slices(err.shape)
        if place is None:
            continue
        weighted = circle.data[inside] * err[place].astype(float)
        # Nothing that a circle does not touch may count, and NaN times 0 is NaN.
        weighted[circle.data[inside] == 0] = 0.0
        n_px = circle.data.sum() ** 2 / np.square(circle.data).sum()
        with np.errstate(divide="ignore"):
            factor = np.minimum(correlation_of(n_px, known), np.maximum(1.0, float(noise) / err[place]))
        errors[number] = np.sqrt(_variance(weighted, factor, has(dq[place], DQ.RESTORED)))
    return errors


def _variance(weighted: np.ndarray, factor: np.ndarray, painted: np.ndarray) -> float:
    """Of a sum: of measured pixels with their factor, and of holes, each as one."""
    from scipy.ndimage import label
    from scipy.ndimage import sum as summed

    measured = np.square(np.where(painted | (weighted == 0), 0.0, factor * weighted)).sum()
    holes, n_holes = label(painted, np.ones((3, 3)))
    return float(measured + np.square(summed(weighted, holes, np.arange(1, n_holes + 1))).sum())
