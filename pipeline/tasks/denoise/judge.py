"""From sky tiles to the frames that are judged: put together, restored by the network and by the baselines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import NETWORK
from pipeline.evaluation.frames import fields_of_test_split
from pipeline.evaluation.result import Predicts, Result
from pipeline.sky.baselines import Settings, astroscrappy_median, tune
from pipeline.sky.dq import DQ_DTYPE, LOST, UNJUDGED
from pipeline.sky.tiled_frames import predicted_planes, tiles_of_frames
from pipeline.sky.tiling import untile
from pipeline.tasks.denoise.merit import evaluate_against_exposures, evaluate_against_truth
from pipeline.tasks.denoise.scores import (
    NOISY,
    JudgedFrame,
    Pair,
    Score,
    score_against_exposures,
    score_against_truth,
)
from pipeline.tasks.denoise.spec import SPEC
from pipeline.tasks.denoise.unaided import evaluate_unaided, joined
from pipeline.tasks.denoise.without_truth import Checked, check
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

BASELINE = "astroscrappy_median"
# The baseline tries a dozen settings: about this many pixels of the validation split are enough to choose.
_TUNING_PIXELS = 600_000
# A frame that is tuned on is cut to this side: large frames are alike in themselves.
_TUNING_PX = 512


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Judge a denoiser on whole frames of the test split, one frame in memory at a time.

    Parameters
    ----------
    predictor : Predicts
    manifests : sequence of path or Manifest
        Tiles with a truth, pairs of exposures, or single frames.
    cfg : Config

    Raises
    ------
    UserError
        If the tiles are not of the sky.
    TooFewEventsError
        If the test split has fewer than two fields or the validation split none.
    """
    target = target_of(manifests)
    if target == "noise2void":
        return _judge_single_frames(predictor, manifests, cfg)
    reader = fields_of_test_split(manifests, SPEC.name)
    paired = target == "noise2noise"
    settings, tuned_on = _tune(manifests)
    scores: list[Score] = []
    checked: list[Checked] = []
    for recorded in frames_of(reader):
        frame = restore(recorded, predictor, settings, cfg)
        scores.append(score_against_exposures(frame) if paired else score_against_truth(frame, cfg.seed))
        if paired:
            checked.append(_check(frame, predictor, settings, cfg))
    if paired:
        unaided = evaluate_unaided(checked, cfg.evaluate, seed=cfg.seed)
        result = joined(evaluate_against_exposures(scores, cfg.evaluate, seed=cfg.seed), unaided)
    else:
        result = evaluate_against_truth(scores, cfg.evaluate, seed=cfg.seed)
    return _with_facts(result, reader, settings.as_dict() | tuned_on)


def _judge_single_frames(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Without any truth, all splits can be judged: a network knows nothing of the pixels that it is not shown."""
    reader = TileReader(manifests, "all")
    settings = Settings()
    checked = [
        _check(restore(frame, predictor, settings, cfg), predictor, settings, cfg) for frame in frames_of(reader)
    ]
    if not checked:
        raise TooFewEventsError("the manifests hold no tile: there is no frame to judge")
    result = evaluate_unaided(checked, cfg.evaluate, seed=cfg.seed)
    return _with_facts(result, reader, settings.as_dict())


def _check(frame: JudgedFrame, predictor: Predicts, settings: Settings, cfg: Config) -> Checked:
    def restores(sci: np.ndarray, err: np.ndarray) -> Mapping[str, np.ndarray]:
        return restore(replace(frame, sci=sci, err=err), predictor, settings, cfg).restored

    return check(frame, restores, cfg.seed)


def _with_facts(result: Result, reader: TileReader, settings: Mapping[str, Any]) -> Result:
    facts = {"n": reader.n_tiles, "n_groups": reader.n_groups}
    return replace(result, content=dict(result.content) | {"data": facts}, baseline_settings={BASELINE: dict(settings)})


def target_of(manifests: Sequence[Any]) -> str:
    """What the tiles are made to learn from, a value of `tiles.sky.target`."""
    reader = TileReader(manifests, "all")
    target = reader.attributes.get("target", "truth")
    reader.close()
    return target


def frames_of(reader: TileReader) -> Iterator[JudgedFrame]:
    """The frames of a split, put together from their tiles, in the order of the shards."""
    for name, batch, facts in tiles_of_frames(reader):
        yield _put_together(name, batch, facts, reader.channels[0].unit)


def _put_together(name: str, batch: TileBatch, facts: Mapping[str, Any], unit: str) -> JudgedFrame:
    planes = untile(batch)
    target = facts.get("target")
    paired = target == "noise2noise"
    pairs = [
        Pair(int(x), int(y), image)
        for x, y, image in zip(batch.events["x0"], batch.events["y0"], batch.targets["clean"][:, 0], strict=True)
    ]
    sci = planes["sci"]
    if target == "noise2void":  # without the tracks that were laid over it
        sci = np.where(np.isfinite(planes["clean"]), planes["clean"], sci)
    return JudgedFrame(
        name=name,
        sci=sci,
        err=planes["err"],
        dq=planes["dq"],
        level=float(batch.events["level"][0]),
        noise=float(batch.events["noise"][0]),
        unit=unit,
        clean=planes["clean"],
        stars={} if paired else {name: np.asarray(values) for name, values in facts.get("stars", {}).items()},
        fwhm_px=facts.get("truth", {}).get("PSFFWHM"),
        pairs=pairs if paired else (),
        registration=facts.get("registration", {}),
    )


def restore(frame: JudgedFrame, predictor: Predicts, settings: Settings, cfg: Config) -> JudgedFrame:
    """What the network and the baselines make of a frame: they see which pixels are lost, never the true defects."""
    known = frame.dq & DQ_DTYPE(LOST)
    how = cfg.predict.tile_px, cfg.predict.overlap_px
    whole = predicted_planes(frame.sci, frame.err, known, frame.level, frame.noise, predictor, *how)
    return replace(
        frame,
        restored={
            NETWORK: whole["restored"],
            NOISY: frame.sci,
            BASELINE: astroscrappy_median(frame.sci, frame.err, known, settings)[0],
        },
        restored_err=whole["restored_err"],
        defect_probability=whole["defect_probability"],
        painted=whole["painted"] >= 0.5,
    )


def _tune(manifests: Sequence[Any]) -> tuple[Settings, dict[str, float | int]]:
    """The baseline's settings with the best PSNR on validation frames (against truth, or the other exposure)."""
    reader = TileReader(manifests, "validation")
    frames, truths, n_pixels = [], [], 0
    for frame in frames_of(reader):
        part = _middle(frame.sci.shape)
        frames.append((frame.sci[part], frame.err[part], (frame.dq & DQ_DTYPE(LOST))[part]))
        truths.append(np.where(frame.has(UNJUDGED), np.nan, frame.clean)[part])
        n_pixels += truths[-1].size
        if n_pixels >= _TUNING_PIXELS:
            break
    reader.close()
    if not frames:
        raise TooFewEventsError(
            "the validation split has no field; the baseline is tuned on it: add frames or enlarge "
            "tiles.splits.validation"
        )
    settings, score = tune(frames, truths)
    return settings, {"validation_psnr_db": score, "n_validation_frames": len(frames)}


def _middle(shape: tuple[int, int]) -> tuple[slice, slice]:
    starts = [max((length - _TUNING_PX) // 2, 0) for length in shape]
    return slice(starts[0], starts[0] + _TUNING_PX), slice(starts[1], starts[1] + _TUNING_PX)
