"""Pixels told wrongly, compared with a threshold on the noisy tile."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.comparison import NETWORK, Metric, compare
from pipeline.evaluation.result import Predicts, Result
from pipeline.statistics import mean
from pipeline.tiles.reader import TileReader


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    reader = TileReader(manifests, "test")
    wrong: dict[str, list[np.ndarray]] = {NETWORK: [], "threshold": []}
    for batch in reader.sequential():
        truth = batch.targets["source"][:, 0] > 0.5
        limit = (batch.events["level"] + 3 * batch.events["noise"])[:, None, None]
        told = {NETWORK: predictor.predict(batch)["source_probability"] > 0.5, "threshold": batch.images[:, 0] > limit}
        for method, sources in told.items():
            wrong[method].append((sources != truth).mean((1, 2)))
    groups = reader.events([])["group"]
    compared = compare(
        [Metric("wrong_pixels", "lower", mean)],
        {method: np.concatenate(parts) for method, parts in wrong.items()},
        groups,
        np.ones(len(groups)),
        n_resamples=cfg.evaluate.bootstrap,
        seed=cfg.seed,
    )
    content = compared.to_json() | {"data": {"n": reader.n_tiles, "n_groups": reader.n_groups}}
    return Result(content=content, bins=[], tables={}, figures=[])
