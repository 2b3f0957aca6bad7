import json

import numpy as np
import pytest
from astropy.table import Table
from scipy.ndimage import binary_dilation, gaussian_filter, median_filter

from pipeline.config import parse_config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.sky.baselines import Settings
from pipeline.sky.dq import DQ, DQ_DTYPE, NO_SOURCE, flag, has
from pipeline.stages.evaluate import evaluate_predictor
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.denoise.judge import frames_of, restore
from pipeline.tiles.describe import write_manifest
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import Channel, ShardWriter, TileBatch

FACTS = {"network": "smooth", "model": "smooth-sky", "bundle_sha256": "0" * 64}
SIZE, TILE, LEVEL, NOISE, FWHM = 96, 32, 200.0, 15.0, 2.5


def scene(rng):
    """Stars on a flat sky, without noise; and the stars."""
    y, x = np.mgrid[:SIZE, :SIZE]
    stars = {"x": [], "y": [], "mag": []}
    clean = np.full((SIZE, SIZE), LEVEL)
    sigma = FWHM / 2.355
    for row in range(16, SIZE, 20):
        for column in range(16, SIZE, 20):
            sx, sy, flux = column + rng.uniform(-2, 2), row + rng.uniform(-2, 2), 10 ** rng.uniform(3.6, 5)
            clean += flux / (2 * np.pi * sigma**2) * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / (2 * sigma**2))
            for name, value in (("x", sx), ("y", sy), ("mag", 30 - 2.5 * np.log10(flux))):
                stars[name].append(value)
    return clean, stars


def tiles_of(frame, targets, columns):
    corners = [(y, x) for y in range(0, SIZE, TILE) for x in range(0, SIZE, TILE)]

    def cut(image):
        return np.stack([image[y : y + TILE, x : x + TILE] for y, x in corners])

    n = len(corners)
    events = {name: np.full(n, value) for name, value in columns.items()}
    events |= {"y0": np.array([c[0] for c in corners]), "x0": np.array([c[1] for c in corners])}
    return TileBatch(
        images=np.stack([cut(frame["sci"]), cut(frame["err"])], axis=1).astype(np.float32),
        events=events,
        group=np.zeros(n, np.int64),
        targets={name: cut(image)[:, None].astype(np.float32) for name, image in targets.items()},
        masks=cut(frame["dq"]),
    )


def recorded(clean, rng, *, defects=True):
    """Noise, cosmic rays, a saturated star and missing columns."""
    sci = clean + rng.normal(0, NOISE, clean.shape)
    dq = np.zeros(clean.shape, DQ_DTYPE)
    if defects:
        hit = rng.random(clean.shape) < 0.01
        sci[hit] += rng.uniform(300, 3000, hit.sum())
        flag(dq, hit, DQ.COSMIC_RAY)
        flag(dq, np.s_[:, -3:], DQ.MISSING)
        flag(dq, np.s_[4:8, 4:8], DQ.SATURATED)
    missing = has(dq, DQ.MISSING)
    return {"sci": np.where(missing, np.nan, sci), "err": np.full(clean.shape, NOISE), "dq": dq}


def write_shard(path, batch, source, split, attributes):
    batch.split[:] = split
    with ShardWriter(
        path,
        channels=[Channel("sci", "electron"), Channel("err", "electron")],
        tile_shape=(TILE, TILE),
        dtype="float32",
        source=source,
        wing="sky",
        attributes=attributes,
        masks=True,
    ) as writer:
        writer.append(batch)


@pytest.fixture(scope="module")
def with_truth(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("truth"), np.random.default_rng(0)
    shards = []
    for number in range(8):
        clean, stars = scene(rng)
        columns = {"field": number, "frame": number, "level": LEVEL, "noise": NOISE}
        attributes = {"target": "truth", "unit": "electron", "stars": stars, "truth": {"PSFFWHM": FWHM}}
        path = folder / f"{number}.tiles.h5"
        batch = tiles_of(recorded(clean, rng), {"clean": clean}, columns)
        write_shard(path, batch, f"field_{number}", 2 if number < 6 else 1, attributes)
        shards.append(path)
    write_manifest(shards, folder / "sky.json")
    return folder / "sky.json"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(1)
    clean, _ = scene(rng)
    shards = []
    for number in range(6):
        columns = {"field": 7, "frame": number, "level": LEVEL, "noise": NOISE}
        other = clean + rng.normal(0, NOISE, clean.shape)
        batch = tiles_of(recorded(clean, rng, defects=False), {"clean": other}, columns)
        path = folder / f"{number}.tiles.h5"
        write_shard(
            path, batch, f"frame_{number}", 2 if number < 4 else 1, {"target": "noise2noise", "unit": "electron"}
        )
        shards.append(path)
    write_manifest(shards, folder / "sky.json")
    return folder / "sky.json"


class Smooth:
    """Replaces single outliers and smooths where there is no star: a plain but honest denoiser."""

    cameras = ()
    columns = get_spec("denoise").columns
    size_multiple = 1
    receptive_field_px = None

    def __init__(self, light_kept=1.0):
        self.light_kept = light_kept

    def predict(self, batch):
        sci = np.where(np.isfinite(batch.images[:, 0]), batch.images[:, 0], LEVEL)
        middle = np.stack([median_filter(image, 5) for image in sci])
        outlier = (sci - middle > 8 * NOISE) & (middle < LEVEL + 3 * NOISE)
        kept = np.where(outlier, middle, sci)
        bright = np.stack([gaussian_filter(image, 1.0) for image in kept]) > LEVEL + 2 * NOISE
        star = np.stack([binary_dilation(image, iterations=3) for image in bright])
        smooth = np.stack([gaussian_filter(image, 2.0) for image in np.where(star, LEVEL, kept)])
        restored = np.where(star, LEVEL + self.light_kept * (kept - LEVEL), smooth)
        return {
            "restored": restored.astype(np.float32),
            "restored_err": np.where(star, NOISE, NOISE / 4).astype(np.float32),
            "defect_probability": np.clip(outlier * (sci - middle) / (250 * NOISE), 0.001, 0.999).astype(np.float32),
            "painted": outlier.astype(np.float32),
            "place": star.astype(np.float32),
        }

    def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
        return get_decoder("denoise").flags(planes, dq, noise, kept, unless_sure=unless_sure)


@pytest.fixture(scope="module")
def cfg():
    return parse_config({"evaluate": {"bootstrap": 100}, "predict": {"tile_px": 64, "overlap_px": 16}})


@pytest.fixture(scope="module")
def judged(with_truth, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "smooth"
    return evaluate_predictor(cfg, Smooth(), ["denoise"], FACTS, [with_truth], out) / "denoise"


@pytest.fixture(scope="module")
def judged_pairs(pairs, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "smooth"
    return evaluate_predictor(cfg, Smooth(), ["denoise"], FACTS, [pairs], out) / "denoise"


def read(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_frames_are_put_together(with_truth):
    reader = TileReader([with_truth], "test")
    frames = list(frames_of(reader))
    assert [frame.name for frame in frames] == [f"field_{n}" for n in range(6)]
    assert all(frame.sci.shape == (SIZE, SIZE) for frame in frames)
    assert frames[0].fwhm_px == FWHM
    assert len(frames[0].stars["x"]) == 16
    assert np.isfinite(frames[0].clean).all()
    assert frames[0].has(DQ.MISSING).sum() == 3 * SIZE


def test_metrics_keep_the_contract(judged):
    content = read(judged)
    assert content["data"]["n"] == 6 * 9
    assert content["data"]["n_groups"] == 6
    assert set(content["baselines"]) == {"noisy", "astroscrappy_median"}
    names = {"psnr_db", "psnr_clean_pixels_db", "ssim", "flux_bias", "flux_scatter", "defect_rmse_e", "sky_rms_sigma"}
    assert set(content["metrics"]) == {*names, "tpr_at_fpr_0.0005"}
    for baseline in content["baselines"]:
        assert set(content["baselines"][baseline]) == set(content["differences"][baseline]) == names
    for block in (content["metrics"], *content["baselines"].values()):
        assert all(e["low"] <= e["value"] <= e["high"] for e in block.values())
    assert content["metrics"]["psnr_db"]["n"] == 6
    assert content["baseline_settings"]["astroscrappy_median"]["n_validation_frames"] == 2
    assert all((judged / f["file"]).exists() for f in content["figures"])


def test_smoothing_helps_where_it_should(judged):
    content = read(judged)
    difference = content["differences"]["noisy"]
    assert difference["psnr_db"]["low"] > 0
    assert difference["sky_rms_sigma"]["high"] < 0
    assert difference["defect_rmse_e"]["high"] < 0
    assert content["baselines"]["noisy"]["sky_rms_sigma"]["value"] == pytest.approx(1, abs=0.03)
    assert abs(content["metrics"]["flux_bias"]["value"]) < 0.01
    assert content["metrics"]["tpr_at_fpr_0.0005"]["value"] > 0.3
    calibration = content["calibration"]
    assert set(calibration) == {"pull_median", "pull_width", "strata"}
    assert set(calibration["strata"]) == {"sky", "faint", "core", "painted", "missing"}
    assert calibration["strata"]["core"]["width"] == pytest.approx(1, abs=0.1)  # as it came, with its own noise
    assert calibration["strata"]["missing"]["n"] == 6 * 3 * SIZE


def test_eaten_light_is_seen(with_truth, cfg, tmp_path):
    out = (
        evaluate_predictor(cfg, Smooth(light_kept=0.9), ["denoise"], FACTS, [with_truth], tmp_path / "out") / "denoise"
    )
    content = read(out)
    assert content["metrics"]["flux_bias"]["value"] == pytest.approx(-0.1, abs=0.03)
    difference = content["differences"]["noisy"]["flux_bias"]
    assert difference["absolute"] is True
    assert difference["low"] > 0  # further from zero than the frame as it was recorded
    stars = Table.read(out / "stars.ecsv")
    assert len(stars) > 50
    rows = Table.read(out / "bins.ecsv")
    assert set(rows["by"]) == {"magnitude"}


def test_nobody_sees_the_true_defects(with_truth, cfg):
    seen = []

    class Spy(Smooth):
        def predict(self, batch):
            seen.append(batch.masks)
            return super().predict(batch)

    frame = next(frames_of(TileReader([with_truth], "test")))
    assert frame.has(DQ.COSMIC_RAY).any()
    restored = restore(frame, Spy(), Settings(), cfg)
    bits = np.bitwise_or.reduce(np.concatenate([masks.ravel() for masks in seen]))
    assert bits & ~NO_SOURCE == DQ.MISSING | DQ.SATURATED
    assert set(restored.restored) == {"network", "noisy", "astroscrappy_median"}


def test_exposures_judge_where_there_is_no_truth(judged_pairs):
    content = read(judged_pairs)
    assert set(content["metrics"]) >= {"n2n_rms_e", "n2n_sky_rms_e", "flux_bias", "flux_scatter"}
    # Two exposures differ by sqrt 2 of the noise; a clean frame and an exposure by its noise alone.
    assert content["baselines"]["noisy"]["n2n_rms_e"]["value"] == pytest.approx(np.sqrt(2) * NOISE, rel=0.02)
    assert content["baselines"]["noisy"]["n2n_sky_rms_e"]["value"] == pytest.approx(np.sqrt(2) * NOISE, rel=0.03)
    assert content["differences"]["noisy"]["n2n_rms_e"]["high"] < 0
    assert content["differences"]["noisy"]["n2n_sky_rms_e"]["high"] < 0
    assert abs(content["metrics"]["flux_bias"]["value"]) < 0.01
    assert "flux_bias" not in content["baselines"]["noisy"]  # the reference itself
    assert {f["file"] for f in content["figures"]} == {"cutouts.png", "flux_bias.png", "injected_stars.png"}


def test_single_frames_are_judged_as_they_were_recorded(cfg, tmp_path):
    """Tiles for Noise2Void have tracks laid over them: what is judged is the frame below, all of it."""
    rng = np.random.default_rng(4)
    clean, _ = scene(rng)
    frame = recorded(clean, rng, defects=False)
    struck = rng.random(clean.shape) < 0.01
    with_tracks = frame | {"sci": frame["sci"] + 3000 * struck}
    role = np.where(np.arange(SIZE) < 2, 0, 1) * np.ones((SIZE, 1))  # two masked columns
    targets = {"clean": np.where(role == 1, frame["sci"], np.nan), "clean_err": frame["err"], "role": role}
    columns = {"field": 7, "frame": 0, "level": LEVEL, "noise": NOISE}
    batch = tiles_of(with_tracks, targets, columns)
    write_shard(tmp_path / "one.tiles.h5", batch, "one", 0, {"target": "noise2void", "unit": "electron"})
    write_manifest([tmp_path / "one.tiles.h5"], tmp_path / "m.json")
    (judged,) = frames_of(TileReader([tmp_path / "m.json"], "all"))
    assert np.array_equal(judged.sci[:, 2:], frame["sci"][:, 2:].astype(np.float32))
    out = evaluate_predictor(cfg, Smooth(), ["denoise"], FACTS, [tmp_path / "m.json"], tmp_path / "out") / "denoise"
    content = read(out)
    assert content["data"]["n"] == 9
    assert set(content["metrics"]) >= {"residual_width", "residual_correlation_1", "residual_on_sources"}
    assert "umse_sigma2" not in content["metrics"]  # there is no other exposure
    assert 0.4 < content["metrics"]["residual_width"]["value"] < 1  # it leaves stars as they are
    assert set(Table.read(out / "without_truth.ecsv")["method"]) == {"network", "noisy", "astroscrappy_median"}


def test_one_field_is_too_few(with_truth, cfg, tmp_path):
    batch = tiles_of(
        recorded(*scene(np.random.default_rng(3))[:1], np.random.default_rng(3)),
        {"clean": np.zeros((SIZE, SIZE))},
        {"field": 1, "frame": 1, "level": LEVEL, "noise": NOISE},
    )
    write_shard(tmp_path / "a.tiles.h5", batch, "a", 2, {"target": "truth"})
    write_manifest([tmp_path / "a.tiles.h5"], tmp_path / "m.json")
    with pytest.raises(TooFewEventsError, match="the test split has 1 fields; at least 2"):
        evaluate_predictor(cfg, Smooth(), ["denoise"], FACTS, [tmp_path / "m.json"], tmp_path / "out")
    write_shard(tmp_path / "b.tiles.h5", batch, "b", 2, {"target": "truth"})
    write_manifest([tmp_path / "a.tiles.h5", tmp_path / "b.tiles.h5"], tmp_path / "m.json", force=True)
    with pytest.raises(TooFewEventsError, match="the validation split has no field; the baseline is tuned on it"):
        evaluate_predictor(cfg, Smooth(), ["denoise"], FACTS, [tmp_path / "m.json"], tmp_path / "out")


def test_tiles_of_the_other_wing_are_refused(with_truth, cfg, tmp_path):
    with pytest.raises(UserError, match="hold sky tiles, but energy is judged on camera tiles"):
        evaluate_predictor(cfg, Smooth(), ["energy"], FACTS, [with_truth], tmp_path / "out")
