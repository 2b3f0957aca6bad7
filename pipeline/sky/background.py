"""Background level and noise of a frame: one estimate by photutils (ingest), and a light one for single predictions."""

import numpy as np

_CLIP_SIGMA = 3.0
_CLIP_ITERATIONS = 10
# A sample of boxes spread over the frame tells the level as well as all of them, at a bounded cost.
_MAX_BOXES = 100


def robust_background(image: np.ndarray, mask: np.ndarray | None = None, box_px: int = 64) -> tuple[float, float]:
    """Median level and rms of the sky, with numpy alone.

    The frame is cut into boxes, each is sigma-clipped, and the medians over boxes are taken: a gradient of the sky
    does not count as noise, and boxes full of stars do not pull the level.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        NaN is left out.
    mask : ndarray of bool, shape (H, W), optional
        True excludes a pixel.
    box_px : int
        Side of a box; smaller where the frame is.

    Returns
    -------
    level, noise : float
        In the unit of `image`; NaN where no pixel is valid.
    """
    boxes = _boxes(image, mask, box_px)
    keep = np.isfinite(boxes)
    enough = keep.sum(axis=1) >= max(1, boxes.shape[1] // 2)
    if not enough.any():
        enough = keep.any(axis=1)
    if not enough.any():
        return float("nan"), float("nan")
    median, std = _clipped(boxes[enough])
    return float(np.median(median)), float(np.median(std))


def measured_background(image: np.ndarray, mask: np.ndarray | None = None, box_px: int = 64) -> tuple[float, float]:
    """The same by photutils' Background2D (SExtractor-like mesh, 3-sigma clipping, median-filtered)."""
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground, StdBackgroundRMS

    invalid = ~np.isfinite(image)
    if mask is not None:
        invalid |= mask
    box = tuple(min(box_px, side) for side in image.shape)
    mesh = Background2D(
        np.where(invalid, 0, image).astype(float),
        box,
        mask=invalid,
        # A box is used as long as a tenth of it is valid: frames with wide gaps or many bad columns are frames too.
        exclude_percentile=90.0,
        sigma_clip=SigmaClip(_CLIP_SIGMA, maxiters=_CLIP_ITERATIONS),
        bkg_estimator=MedianBackground(),
        bkg_rms_estimator=StdBackgroundRMS(),
    )
    return float(mesh.background_median), float(mesh.background_rms_median)


def _boxes(image: np.ndarray, mask: np.ndarray | None, box_px: int) -> np.ndarray:
    """Float64 pixels of up to `_MAX_BOXES` boxes, shape (n, box^2); NaN where excluded."""
    height, width = (min(box_px, side) for side in image.shape)
    rows, columns = (
        np.linspace(0, side - box, -(-side // box)).astype(int)
        for side, box in zip(image.shape, (height, width), strict=True)
    )
    count = rows.size * columns.size
    chosen = np.unique(np.linspace(0, count - 1, min(_MAX_BOXES, count)).astype(int))
    boxes = np.empty((chosen.size, height * width))
    for box, number in zip(boxes, chosen, strict=True):
        y, x = rows[number // columns.size], columns[number % columns.size]
        part = (slice(y, y + height), slice(x, x + width))
        box[:] = image[part].ravel()
        if mask is not None:
            box[mask[part].ravel()] = np.nan
    return boxes


def _clipped(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and standard deviation of each row after iterated clipping; rows have at least one finite value."""
    boxes = boxes.copy()
    for _ in range(_CLIP_ITERATIONS):
        median = np.nanmedian(boxes, axis=1, keepdims=True)
        std = np.nanstd(boxes, axis=1, keepdims=True)
        outside = np.abs(boxes - median) > _CLIP_SIGMA * std
        if not outside.any():
            break
        boxes[outside] = np.nan
    return np.nanmedian(boxes, axis=1), np.nanstd(boxes, axis=1)
