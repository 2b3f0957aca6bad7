"""Masks of defects judged on whole frames."""

import json

import numpy as np
import pytest
from synthetic_tiles import SKY_CHANNELS

from pipeline.config import parse_config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.sky.dq import DQ, DQ_DTYPE
from pipeline.stages.evaluate import evaluate_predictor
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.defects.judge import kinds_of_pixels
from pipeline.tiles import SPLITS, ShardWriter, TileBatch, write_manifest

SIZE, N_FIELDS = 48, 4
LEVEL, NOISE = 200.0, 15.0


def field_of(number):
    """Two stars and 40 cosmic rays, a fourth of them faint; one column of tiles."""
    rng = np.random.default_rng(number)
    shape = (2 * SIZE, SIZE)
    y, x = np.mgrid[: shape[0], : shape[1]]
    clean = np.full(shape, LEVEL)
    for y0, x0 in ((20, 20), (70, 30)):
        clean += 40_000 / (2 * np.pi * 2.25) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 2.25)
    err = np.sqrt(clean - LEVEL + NOISE**2)
    snr, bits = np.zeros(shape), np.zeros(shape, DQ_DTYPE)
    lost = np.zeros(shape, DQ_DTYPE)
    lost[:2], lost[40, 40] = DQ.MISSING, DQ.SATURATED
    places = rng.choice(np.flatnonzero((clean < LEVEL + 1) & (lost == 0)), 40, replace=False)
    snr.flat[places] = np.where(np.arange(40) % 4 == 0, 1.0, 100.0)
    bits[snr > 0] = DQ.COSMIC_RAY
    dq = np.where(snr > 2, DQ_DTYPE(DQ.COSMIC_RAY), lost)
    sci = clean + err * rng.normal(size=shape) + snr * err
    parts = [slice(0, SIZE), slice(SIZE, None)]
    return TileBatch(
        images=np.stack([[sci[p], err[p]] for p in parts]).astype(np.float32),
        events={
            "field": np.full(2, number),
            "frame": np.full(2, number),
            "x0": np.zeros(2, np.int32),
            "y0": np.array([0, SIZE], np.int32),
            "level": np.full(2, LEVEL),
            "noise": np.full(2, NOISE),
        },
        targets={
            "clean": np.stack([[clean[p]] for p in parts]).astype(np.float32),
            "defect_snr": np.stack([[snr[p]] for p in parts]).astype(np.float16),
            "defect_bits": np.stack([[bits[p]] for p in parts]),
        },
        masks=np.stack([dq[p] for p in parts]),
        split=np.full(2, SPLITS["test"], np.uint8),
        group=np.zeros(2, np.int64),
    )


def manifest_of(folder, fields):
    shards = []
    for number, batch in enumerate(fields):
        shards.append(folder / f"sky_{number}.tiles.h5")
        with ShardWriter(
            shards[-1],
            channels=SKY_CHANNELS,
            tile_shape=(SIZE, SIZE),
            dtype="float32",
            source=f"sky_{number}",
            wing="sky",
            attributes={"unit": "electron", "target": "truth"},
            masks=True,
        ) as writer:
            writer.append(batch)
    return write_manifest(shards, folder / "sky.manifest.json")


class Bright:
    """Takes the brightest pixels for defects: it finds cosmic rays, and flags the cores of stars as well."""

    cameras = ()
    size_multiple = 1
    receptive_field_px = None
    columns = get_spec("defects").columns

    def predict(self, batch):
        signal = (batch.images[:, 0] - batch.events["level"][:, None, None]) / batch.events["noise"][:, None, None]
        logits = np.full((len(batch), 5, *signal.shape[1:]), -20.0)
        logits[:, 0] = np.nan_to_num(signal) / 50 - 5
        return get_decoder("defects").decode(logits, batch)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    manifest = manifest_of(folder, map(field_of, range(N_FIELDS)))
    cfg = parse_config({"evaluate": {"bootstrap": 50}})
    facts = {"network": "toy", "model": "toy", "bundle_sha256": "0"}
    out = evaluate_predictor(cfg, Bright(), ["defects"], facts, [manifest], folder / "out")
    return out / "defects", json.loads((out / "defects" / "metrics.json").read_text())


def test_both_counts_and_the_kinds_of_defects(judged):
    _, content = judged
    metrics = content["metrics"]
    assert content["data"]["pixels"]["bench"] == content["data"]["pixels"]["own"] == 30 * N_FIELDS
    assert content["data"]["pixels"]["cosmic_ray"] == 30 * N_FIELDS
    assert content["data"]["pixels"]["core"] > 20 * N_FIELDS
    assert metrics["bench_tpr_at_fpr_0.001"]["value"] == 0  # as many pixels of star cores are brighter
    assert metrics["bench_core_fpr"]["value"] > 0.01
    assert metrics["hot_tpr_at_fpr_0.0005"]["value"] is None
    assert 0 < metrics["bench_precision_at_tpr_0.95"]["value"] < 1
    found = content["baselines"]["astroscrappy"]["bench_tpr_at_fpr_0.0005"]["value"]
    assert found > 0.7  # which tells stars from single pixels
    assert {"bench", "own"} == {name.split("_")[0] for name in get_spec("defects").headline}
    assert set(get_spec("defects").headline) <= set(metrics)
    assert content["baseline_settings"]["astroscrappy"]["sigclip"][0] == 3.0


def test_table_and_curve_are_written(judged):
    from astropy.table import Table

    folder, content = judged
    table = Table.read(folder / "classes.ecsv")
    assert len(table) == 2 * 7
    assert set(table["method"]) == {"network", "astroscrappy"}
    assert [figure["file"] for figure in content["figures"]] == ["roc.png"]
    assert (folder / "roc.png").stat().st_size > 5000


def test_what_is_counted():
    one = np.ones((1, 6))
    frame = {
        "sci": 200 * one,
        "clean": np.array([[200, 200, 200, 900, 900, np.nan]]),
        "err": 15 * one,
        "level": 200.0,
        "dq": np.array([[0, DQ.HOT, 0, 0, DQ.SATURATED, 0]], DQ_DTYPE),
        "defect_snr": np.array([[0.0, 2.5, 1.0, 0.0, 50.0, 0.0]]),
        "defect_bits": np.array([[0, DQ.HOT, DQ.TRAIL, 0, DQ.BLEED, 0]], DQ_DTYPE),
    }
    found = {name: np.flatnonzero(where).tolist() for name, where in kinds_of_pixels(frame).items()}
    assert found == {
        "bench": [],  # 2.5 sigma count neither way
        "good": [0, 3],
        "core": [3],
        "own": [1],
        "sound": [0, 2, 3],
        "cosmic_ray": [],
        "hot": [1],
        "dead": [],
        "trail": [],
        "bleed": [4],
    }


def test_tiles_that_cannot_be_judged(tmp_path):
    cfg = parse_config({})
    facts = {"network": "toy", "model": "toy", "bundle_sha256": "0"}
    one = manifest_of(tmp_path, [field_of(0)])
    with pytest.raises(TooFewEventsError, match="the test split has 1 fields; at least 2 are needed"):
        evaluate_predictor(cfg, Bright(), ["defects"], facts, [one], tmp_path / "a")
    fields = [field_of(0), field_of(1)]
    for batch in fields:
        del batch.targets["defect_snr"], batch.targets["defect_bits"]
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="no truth to judge defects on: no target 'defect_snr'"):
        evaluate_predictor(cfg, Bright(), ["defects"], facts, [manifest_of(tmp_path / "b", fields)], tmp_path / "c")
