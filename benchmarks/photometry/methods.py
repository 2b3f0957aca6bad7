"""What is judged: a bundle by the way that users go, and classical programs beside it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.bundle.backends import facts_of
from pipeline.bundle.runtime import Predictor
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.sky.baselines import Settings, astroscrappy_median, filled
from pipeline.sky.dq import DEFECTS, DQ, DQ_DTYPE, has
from pipeline.sky.frame_results import FrameResult, product_of
from pipeline.sky.frames import Frame, read_frames
from pipeline.sky.restore import restore_frame
from pipeline.stages.products import write_frames

NETWORK, RECORDED = "lightpool", "as recorded"
#: Planes that rank pixels as defects, of the tasks denoise and defects.
_SCORES = ("defect_probability", "defect_score")
_HDU = "SCORE_{}"
_SMOOTHED_PX = 5


@dataclass(frozen=True)
class Method:
    """What one method makes of one frame.

    Attributes
    ----------
    sci : ndarray, shape (H, W)
    mask : ndarray of bool, shape (H, W), optional
        What it takes for defects; None for a method without a mask.
    err : ndarray, shape (H, W), optional
        Its stated one sigma.
    score : ndarray, shape (H, W), optional
        The higher, the more like a defect; ranks the pixels.
    cpu_s : float
    """

    sci: np.ndarray
    mask: np.ndarray | None = None
    err: np.ndarray | None = None
    score: np.ndarray | None = None
    cpu_s: float = 0.0


class Bundle:
    """A bundle, opened once."""

    def __init__(self, folder: Path, cfg: Config | None = None) -> None:
        self.cfg = cfg or Config()
        self._predictor = _WithScores(Predictor.load(folder, threads=1, backend=self.cfg.backend))
        self.card = self._predictor.card

    def from_file_to_file(self, path: Path, out: Path) -> tuple[Frame, Method]:
        """What `lightpool predict` does with a file of one image, and its CPU seconds, without loading the bundle."""
        started = time.process_time()
        (frame,) = read(path, self.cfg)
        result = self._result(frame, self.cfg.predict.tile_px)
        # The scores are no part of the product.
        product = product_of(frame, replace(result, planes={}))
        write_frames(path, out, [product], self.card, self._predictor.backend, self.cfg, started=time.monotonic())
        return frame, replace(_as_method(frame, result), cpu_s=time.process_time() - started)

    def restore(self, frame: Frame, tile_px: int | None = None) -> Method:
        """The same in memory, in the frame's unit."""
        started = time.process_time()
        result = self._result(frame, tile_px or self.cfg.predict.tile_px)
        return replace(_as_method(frame, result), cpu_s=time.process_time() - started)

    def _result(self, frame: Frame, tile_px: int) -> FrameResult:
        how = self.cfg.predict
        return restore_frame(frame, self._predictor, tile_px, how.overlap_px, how.outside_range, how.bayer)


def _as_method(frame: Frame, result: FrameResult) -> Method:
    """With the scores that no product holds; of several tasks, the largest."""
    scores = [plane for name, (plane, _) in result.planes.items() if name.startswith(_HDU.format(""))]
    score = np.max(scores, axis=0) if scores else None
    return Method(result.sci, new_defects(frame, result), result.err, score)


class _WithScores:
    """A predictor whose scores of defects count as planes of the product."""

    def __init__(self, predictor: Predictor) -> None:
        self.card, self.backend = predictor.card, facts_of(predictor.backend)
        self.size_multiple, self.population = predictor.size_multiple, predictor.population
        self.receptive_field_px = predictor.receptive_field_px
        self.predict, self.flags = predictor.predict, predictor.flags
        self.lines, self.warnings = predictor.lines, predictor.warnings
        self.correlations = predictor.correlations
        self.columns = tuple(
            replace(column, hdu=_HDU.format(column.name)) if column.name in _SCORES else column
            for column in predictor.columns
        )


def new_defects(frame: Frame, result: FrameResult) -> np.ndarray:
    """Pixels that were taken for defects and were none before, shape (H, W), bool: replaced, or with a defect's bit."""
    bits = DEFECTS | DQ.RESTORED
    return has(result.dq & ~frame.dq, bits) & ~has(frame.dq, DEFECTS | DQ.MISSING)


def read(path: Path, cfg: Config | None = None) -> list[Frame]:
    """All science images of a file, as `lightpool predict` reads them."""
    return read_frames(path, (cfg or Config()).ingest.sky)


# ---- peers -----------------------------------------------------------------------------------------------------------
def recorded(frame: Frame) -> Method:
    """The frame as it came."""
    return Method(frame.sci, err=frame.err)


def median(frame: Frame) -> Method:
    """A median of 3 x 3 px for the noise; defects are what stands out of the median of 5 x 5 px."""
    from scipy.ndimage import median_filter

    started = time.process_time()
    filtered = median_filter(frame.sci, 3)
    score = np.abs(frame.sci - median_filter(frame.sci, _SMOOTHED_PX)) / frame.err
    return Method(filtered, score > 5, score=score, cpu_s=time.process_time() - started)


def astroscrappy(frame: Frame) -> Method:
    """L.A.Cosmic, and the median of the good neighbours for what it finds."""
    started = time.process_time()
    sci, mask = astroscrappy_median(frame.sci, frame.err, _known(frame), Settings(median_px=1))
    return Method(sci, mask, cpu_s=time.process_time() - started)


def non_local_means(frame: Frame, cleaned: Method) -> Method:
    """Non-local means of a frame that was cleaned before, stretched so that its noise is 1 everywhere."""
    from skimage.restoration import denoise_nl_means

    started = time.process_time()
    # Integral of 1 / sigma over the flux, sigma^2 being a + b (flux - level): Anscombe's transform.
    a = frame.noise**2
    bright = frame.sci > frame.level + 20 * frame.noise
    light = np.maximum(frame.sci - frame.level, 1e-6)
    slope = float(np.median((frame.err[bright] ** 2 - a) / light[bright])) if bright.any() else 0.0
    slope = max(slope, 1e-6 * frame.noise)
    stretched = 2 / slope * np.sqrt(np.maximum(a + slope * (cleaned.sci - frame.level), 0.01 * a))
    smooth = denoise_nl_means(
        stretched.astype(np.float32), patch_size=5, patch_distance=5, h=0.8, sigma=1.0, fast_mode=True
    )
    sci = frame.level + (np.square(smooth * slope / 2) - a) / slope
    return Method(sci, cleaned.mask, cpu_s=cleaned.cpu_s + time.process_time() - started)


def _known(frame: Frame) -> np.ndarray:
    return frame.dq.astype(DQ_DTYPE)


def peers(frame: Frame) -> Mapping[str, Callable[[], Method]]:
    """Methods that can run where lightpool runs, by name."""
    cleaned: list[Method] = []

    def scrappy() -> Method:
        cleaned.append(astroscrappy(frame))
        return cleaned[0]

    return {
        "astroscrappy + median inpainting": scrappy,
        "astroscrappy + non-local means": lambda: non_local_means(frame, cleaned[0]),
        "median filter": lambda: median(frame),
    }


def outside(folder: Path, frame: Frame) -> Mapping[str, Callable[[], Method]]:
    """Methods that ran elsewhere (`benchmarks/outside/sky_peers.py`), by name; `folder` is that of the frame.

    Where a program makes no image, what it masks is the median of its neighbours.

    Raises
    ------
    UserError
        If there is none.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise UserError(f"{folder} has no results of other programs; run benchmarks/outside/sky_peers.py")

    def load(path: Path) -> Callable[[], Method]:
        def run() -> Method:
            with np.load(path, allow_pickle=False) as found:
                mask = found["mask"].astype(bool)
                sci = found["sci"] if "sci" in found else filled(np.where(mask, np.nan, frame.sci))
                return Method(sci, mask, score=found.get("score"), cpu_s=float(found["cpu_s"]))

        return run

    return {path.stem: load(path) for path in paths}
