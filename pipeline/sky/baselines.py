"""The classical cleaning of a frame: L.A.Cosmic (astroscrappy) for defects, a median filter for the noise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from pipeline.sky.dq import DETECTOR, DQ, has


@dataclass(frozen=True)
class Settings:
    """Settings of `astroscrappy_median`.

    Attributes
    ----------
    sigclip, objlim : float
        L.A.Cosmic's Laplacian threshold [sigma] and contrast against the fine structure of stars.
    median_px : int
        Side of the median filter; 1 for none.
    """

    sigclip: float = 4.5
    objlim: float = 5.0
    median_px: int = 3

    def as_dict(self) -> dict[str, float | int]:
        """For reports."""
        return asdict(self)


#: What `tune` tries: around astroscrappy's defaults, without a filter and with the two common ones.
GRID = tuple(Settings(*values) for values in product((4.5, 6.0), (2.0, 5.0), (1, 3, 5)))


def astroscrappy_median(
    sci_e: np.ndarray, err_e: np.ndarray, dq: np.ndarray, settings: Settings | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Remove cosmic rays with astroscrappy, fill bad and missing pixels from their neighbours, then median-filter.

    Parameters
    ----------
    sci_e, err_e : ndarray, shape (H, W)
        Frame and its one sigma, in electrons or any other unit: the variance is given, gain and read noise are not
        needed.
    dq : ndarray of uint16, shape (H, W)
        Flags known beforehand: bad, hot, saturated and missing pixels.

    Returns
    -------
    restored : ndarray, shape (H, W), float32
    defects : ndarray of bool, shape (H, W)
        Pixels that astroscrappy classified as cosmic rays.
    """
    import astroscrappy
    from scipy.ndimage import median_filter

    settings = settings or Settings()
    missing = ~np.isfinite(sci_e) | has(dq, DETECTOR)
    complete = filled(np.where(missing, np.nan, sci_e))
    variance = np.where(np.isfinite(err_e) & ~missing, err_e, np.nanmedian(err_e)).astype(np.float32) ** 2
    saturated = has(dq, DQ.SATURATED)
    defects, cleaned = astroscrappy.detect_cosmics(
        complete,
        inmask=missing | saturated,
        invar=variance,
        sigclip=settings.sigclip,
        objlim=settings.objlim,
        gain=1.0,
        readnoise=0.0,
        satlevel=np.inf,
        cleantype="medmask",
    )
    if settings.median_px > 1:
        # Saturated cores are kept: their surroundings are not noise.
        cleaned = np.where(saturated, cleaned, median_filter(cleaned, settings.median_px))
    return cleaned.astype(np.float32), np.asarray(defects, bool)


def tune(
    frames: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    truths: Sequence[np.ndarray],
    grid: Sequence[Settings] = GRID,
) -> tuple[Settings, float]:
    """Choose the settings with the highest mean PSNR on validation frames.

    Parameters
    ----------
    frames : sequence of (sci, err, dq)
    truths : sequence of ndarray
        Clean frames; NaN pixels are ignored.
    grid : sequence of Settings
        Settings to try.

    Returns
    -------
    settings : Settings
    psnr_db : float
        Their mean PSNR.

    Raises
    ------
    ValueError
        If `frames` is empty.
    """
    if not frames:
        raise ValueError("tune needs at least one frame")

    def score(settings: Settings) -> float:
        return float(
            np.mean(
                [
                    psnr_db(astroscrappy_median(*frame, settings)[0], truth)
                    for frame, truth in zip(frames, truths, strict=True)
                ]
            )
        )

    scores = {settings: score(settings) for settings in grid}
    best = max(scores, key=scores.__getitem__)
    return best, scores[best]


def psnr_db(image: np.ndarray, truth: np.ndarray, keep: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio [dB]; the peak is the range of the truth, NaN pixels are ignored."""
    judged = np.isfinite(image) & np.isfinite(truth)
    if keep is not None:
        judged &= keep
    error = float(np.mean((image[judged] - truth[judged]).astype(float) ** 2))
    span = float(np.nanmax(truth) - np.nanmin(truth))
    return float(10 * np.log10(span**2 / error)) if error > 0 else float("inf")


def filled(image: np.ndarray) -> np.ndarray:
    """NaN replaced by the median of ever larger neighbourhoods, and by the frame's median where all fail; (H, W)."""
    result = image.astype(np.float32)
    for reach in (1, 2, 4):
        rows, columns = np.nonzero(~np.isfinite(result))
        if rows.size == 0:
            return result
        padded = np.pad(result, reach, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))[rows, columns]
        some = np.isfinite(windows).any(axis=(1, 2))
        result[rows[some], columns[some]] = np.nanmedian(windows[some], axis=(1, 2))
    return np.where(np.isfinite(result), result, np.nanmedian(result)).astype(np.float32)
