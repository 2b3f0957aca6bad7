import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1Writer, EventChunk, SimulationRun, Subarray
from pipeline.camera.geometry import Camera
from pipeline.camera.mapping import tile_mapper
from pipeline.config import parse_config
from pipeline.errors import UserError
from pipeline.stages.manifest import make_manifest
from pipeline.stages.tiles import make_tiles
from pipeline.tiles import SPLITS
from pipeline.tiles.shards import Shard

CONFIG = {"seed": 3, "tiles": {"camera": {"size": 24, "cuts": {"n_pixels_min": 3, "leakage_max": 0.5}}}}


def camera(focal_length_m=28.0, rings=8):
    q, r = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    inside = abs(q + r) <= rings
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    return Camera(
        "Cam", x, y, np.full(len(x), 0.00216), True, focal_length_m, mirror_area_m2=386.0, sampling_rate_ghz=1
    )


def write_run(path, n_showers=30, uses=2, brightness_pe=40.0, telescopes=None, seed=0, obs_id=1, seen_by=None):
    """Every telescope, or those of `seen_by`, sees showers of its own."""
    rng = np.random.default_rng(seed)
    telescopes = telescopes or {1: camera()}
    array = Subarray("s", telescopes, dict.fromkeys(telescopes, (0.0, 0.0, 0.0)))
    run = SimulationRun(0.1, 1.0, -2.0, n_showers=n_showers, shower_reuse=uses)
    with DL1Writer(
        path, array, obs_id=obs_id, pointing_alt_rad=1.2, pointing_az_rad=3.1, simulation=run, provenance={"seed": seed}
    ) as writer:
        for tel_id, one in telescopes.items():
            if seen_by is not None and tel_id not in seen_by:
                continue
            n = n_showers * uses
            event_id = 100 * (np.arange(n) // uses) + np.arange(n) % uses + 100_000 * tel_id
            x0, y0 = rng.uniform(-0.3, 0.3, (2, n, 1)) * one.pix_x_deg.max()
            distance2 = (one.pix_x_deg - x0) ** 2 + (one.pix_y_deg - y0) ** 2
            image = brightness_pe * np.exp(-0.5 * distance2 / (1.3 * one.pitch_deg) ** 2) + rng.normal(
                0, 0.5, distance2.shape
            )
            image = image.astype(np.float32)
            truth = {
                "true_energy_tev": rng.uniform(0.1, 1, n), "true_alt_deg": np.full(n, 68.0),
                "true_az_deg": np.full(n, 178.0),
                "true_core_x_m": np.zeros(n), "true_core_y_m": np.zeros(n), "shower_id": event_id // 100,
                "true_primary_id": np.full(n, 101),
            }  # fmt: skip
            writer.append(EventChunk(event_id, np.full(n, tel_id), image, 10 + 0 * image, truth=truth))
    return path


def test_one_shard_per_run(tmp_path):
    paths = [write_run(tmp_path / f"run_{i}.dl1.h5", seed=i) for i in (1, 2)]
    statuses = make_tiles(paths, parse_config(CONFIG), tmp_path / "tiles")
    assert [status["status"] for status in statuses] == ["ok", "ok"]
    assert statuses[0]["n_tiles"] == statuses[0]["n_images"] == 60
    assert statuses[0]["rejected"] == {}
    with Shard(tmp_path / "tiles" / "run_1.tiles.h5") as shard:
        assert (shard.source, shard.wing, shard.n_tiles, shard.n_groups) == ("run_1", "camera", 60, 30)
        assert [channel.unit for channel in shard.channels] == ["p.e.", "ns", ""]
        assert shard.targets == ["core", "direction", "energy", "gammaness", "x_max"]
        assert shard.attributes["cameras"] == [
            {
                "identity": camera().identity, "name": "Cam", "type": "LST", "focal_length_m": 28.0,
                "tile_pixel_deg": pytest.approx(tile_mapper(camera(), 24).pixel_deg),
            },
        ]  # fmt: skip
        assert shard.attributes["recipe"] == {
            "version": 1, "size_px": 24, "picture_pe": 6.0, "boundary_pe": 3.0, "min_picture_neighbors": 1,
            "size_min_pe": 50.0, "n_pixels_min": 3, "leakage_max": 0.5,
        }  # fmt: skip
        assert len(shard.attributes["provenance"]["input_sha256"]) == 64
        # All images of a shower are on one side, and there is more than one side.
        for group in range(30):
            assert len(np.unique(shard.split[shard.group == group])) == 1
        assert set(shard.split.tolist()) <= set(SPLITS.values())
        assert len(set(shard.split.tolist())) > 1
        columns = shard.read_columns(["shower_id", "hillas_intensity", "true_offset_deg"])
        assert columns["shower_id"].tolist() == np.repeat(1000 + np.arange(30), 2).tolist()
        assert columns["hillas_intensity"].min() > 50
    sidecar = json.loads((tmp_path / "tiles" / "run_1.tiles.h5.provenance.json").read_text())
    assert sidecar["n_tiles"] == 60
    assert sidecar["stage"] == "tiles"


def test_equal_runs_give_equal_bytes(tmp_path):
    path = write_run(tmp_path / "run.dl1.h5")
    shards = []
    for folder in ("a", "b"):
        make_tiles([path], parse_config(CONFIG), tmp_path / folder)
        shards.append((tmp_path / folder / "run.tiles.h5").read_bytes())
    assert shards[0] == shards[1]


def test_rejected_images_are_counted(tmp_path):
    telescopes = {1: camera(), 2: camera(16.0)}
    path = write_run(tmp_path / "run.h5", telescopes=telescopes)
    cfg = parse_config(CONFIG | {"tiles": {"camera": {"size": 24, "cuts": {"size_min_pe": 400}}}})
    (status,) = make_tiles([path], cfg, tmp_path)
    assert status["n_images"] == 120
    assert status["rejected"]["other camera"] == 60
    assert status["n_tiles"] + sum(status["rejected"].values()) == 120


def test_all_cameras_in_one_shard(tmp_path):
    telescopes = {1: camera(), 2: camera(16.0)}
    paths = [
        write_run(tmp_path / "both.h5", telescopes=telescopes),
        write_run(tmp_path / "one.h5", telescopes=telescopes, seen_by=[2], seed=1),
    ]
    cfg = parse_config(CONFIG | {"tiles": {"camera": {**CONFIG["tiles"]["camera"], "camera": "all"}}})
    both, one = make_tiles(paths, cfg, tmp_path)
    identities = sorted(each.identity for each in telescopes.values())
    assert both["cameras"] == one["cameras"] == identities
    assert (both["n_images"], both["n_tiles"], both["rejected"]) == (120, 120, {})
    assert (one["n_images"], one["n_tiles"], one["rejected"]) == (60, 60, {})
    place = {tel_id: identities.index(each.identity) for tel_id, each in telescopes.items()}
    for status in (both, one):
        with Shard(status["output"]) as shard:
            assert [each.identity for each in shard.cameras] == identities
            columns = shard.read_columns(["camera", "tel_id"])
            assert columns["camera"].tolist() == [place[tel_id] for tel_id in columns["tel_id"].tolist()]
    manifest = make_manifest([Path(both["output"]), Path(one["output"])], cfg, tmp_path / "m.json")
    assert manifest.cameras == tuple(identities)


def test_truth_that_is_missing_is_counted(tmp_path, caplog):
    path = write_run(tmp_path / "run.dl1.h5")
    with h5py.File(path, "r+") as file:
        del file["/configuration/telescope/pointing"]
        rows = file["/simulation/event/subarray/shower"][:]
        rows["true_energy"][:4] = np.nan, 0, -1, np.inf
        rows["true_shower_primary_id"][4] = 32767
        file["/simulation/event/subarray/shower"][:] = rows
    (status,) = make_tiles([path], parse_config(CONFIG), tmp_path / "out")
    lost = "no true energy, or an unknown particle"
    assert (status["n_images"], status["n_tiles"], status["rejected"]) == (60, 55, {lost: 5})
    warnings = status["warnings"]
    assert warnings[-1] == f"5 of 60 images are left out: {lost}"
    assert "pointing" in warnings[0]
    assert len(warnings) == 2
    with Shard(tmp_path / "out" / "run.tiles.h5") as shard:
        assert shard.attributes["provenance"]["warnings"] == warnings
    sidecar = json.loads((tmp_path / "out" / "run.tiles.h5.provenance.json").read_text())
    assert sidecar["warnings"] == warnings
    for text in warnings:
        assert f"run.dl1.h5: {text}" in caplog.text


def test_nothing_accepted_is_an_empty_shard(tmp_path):
    path = write_run(tmp_path / "run.h5", brightness_pe=1.0)
    (status,) = make_tiles([path], parse_config(CONFIG), tmp_path)
    assert status["rejected"] == {"nothing left by the cleaning": 60}
    with Shard(tmp_path / "run.tiles.h5") as shard:
        assert shard.n_tiles == 0
        assert "true_energy_tev" in shard.columns
        assert shard.targets == ["core", "direction", "energy", "gammaness", "x_max"]


def test_a_bad_file_does_not_stop_the_others(tmp_path, caplog):
    good, bad, other = write_run(tmp_path / "good.h5"), tmp_path / "bad.h5", tmp_path / "other.txt"
    bad.write_bytes(good.read_bytes()[:20000])
    other.write_text("hello")
    statuses = make_tiles([bad, good, other], parse_config(CONFIG), tmp_path / "out")
    assert [status["status"] for status in statuses] == ["failed", "ok", "failed"]
    assert "bad.h5" in statuses[0]["reason"]
    assert "bad.h5" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good.tiles.h5", "good.tiles.h5.provenance.json", "status.json",
    ]  # fmt: skip


def test_outputs_in_the_way(tmp_path):
    path = write_run(tmp_path / "run.dl1.h5")
    make_tiles([path], parse_config(CONFIG), tmp_path)
    with pytest.raises(UserError, match=r"run.tiles.h5 exists; .* --force"):
        make_tiles([path], parse_config(CONFIG), tmp_path)
    make_tiles([path], parse_config(CONFIG), tmp_path, force=True)
    with pytest.raises(UserError, match="2 inputs are named 'run'"):
        make_tiles([path, tmp_path / "sub" / "run.h5"], parse_config(CONFIG), tmp_path / "new")


def test_runs_of_one_number_are_told_apart_by_their_files(tmp_path):
    cfg = parse_config(CONFIG)
    shards = {}
    for name, folder, seed in (("a", "one", 1), ("b", "one", 2), ("a", "two", 2)):
        path = tmp_path / folder / f"{name}.dl1.h5"
        path.parent.mkdir(exist_ok=True)
        (status,) = make_tiles([write_run(path, seed=seed)], cfg, tmp_path / folder / "tiles")
        shards[folder, name] = Path(status["output"])
    both = make_manifest([shards["one", "a"], shards["one", "b"]], cfg, tmp_path / "manifest.json")
    assert sum(entry.n_tiles for entry in both.shards) == 120
    with pytest.raises(UserError, match="both of a source named a, and both hold run 1, event 100000, telescope 1"):
        make_manifest([shards["one", "a"], shards["two", "a"]], cfg, tmp_path / "other.json")


# ---- noise -----------------------------------------------------------------------------------------------------------
NOISE = {"night_sky_max_pe": 5.0, "gain_spread_max": 0.2, "dead_fraction_max": 0.05}


def with_noise(**changes):
    return parse_config({"seed": 3, "tiles": {"camera": CONFIG["tiles"]["camera"] | {"noise": NOISE | changes}}})


def columns_of(path):
    with Shard(path) as shard:
        return shard.read_columns([*shard.columns, "split"]) | {"images": shard.tiles(0, shard.n_tiles).images}


@pytest.mark.parametrize("splits", [None, ["test"]])
def test_noise_is_in_the_splits_that_get_it(tmp_path, splits):
    path = write_run(tmp_path / "run.dl1.h5")
    cfg = with_noise(**({"splits": splits} if splits else {}))
    make_tiles([path], parse_config(CONFIG), tmp_path / "plain")
    make_tiles([path], cfg, tmp_path / "noisy")
    plain, noisy = (columns_of(tmp_path / folder / "run.tiles.h5") for folder in ("plain", "noisy"))
    assert plain["event_id"].tolist() == noisy["event_id"].tolist()
    assert plain["split"].tolist() == noisy["split"].tolist()
    chosen = np.isin(plain["split"], [SPLITS[name] for name in splits or ("train", "validation")])
    assert 0 < chosen.sum() < len(chosen)
    for name in ("images", "hillas_intensity", "hillas_width", "n_pixels"):
        np.testing.assert_array_equal(noisy[name][~chosen], plain[name][~chosen])
    # The image parameters are those of the noisy image.
    assert (noisy["hillas_intensity"][chosen] != plain["hillas_intensity"][chosen]).all()
    assert (noisy["images"][chosen] != plain["images"][chosen]).any(axis=(1, 2, 3)).all()
    assert noisy["n_pixels"][chosen].mean() > plain["n_pixels"][chosen].mean()


def test_noise_does_not_depend_on_what_is_read_together(tmp_path, monkeypatch):
    path = write_run(tmp_path / "run.dl1.h5", telescopes={1: camera(), 2: camera()})
    make_tiles([path], with_noise(), tmp_path / "a")
    monkeypatch.setattr("pipeline.camera.tiling._chunk_images", lambda *_: 5)
    make_tiles([path], with_noise(), tmp_path / "b")
    one, two = (columns_of(tmp_path / folder / "run.tiles.h5") for folder in "ab")
    for name, column in one.items():
        np.testing.assert_array_equal(column, two[name])


def test_shards_say_their_noise(tmp_path):
    path = write_run(tmp_path / "run.dl1.h5")
    make_tiles([path], with_noise(), tmp_path / "noisy")
    make_tiles([path], parse_config(CONFIG), tmp_path / "plain")
    said = {"splits": ["train", "validation"], **NOISE}
    with Shard(tmp_path / "noisy" / "run.tiles.h5") as shard:
        assert shard.attributes["noise"] == said
        assert shard.attributes["provenance"]["config"]["tiles.camera"]["noise"] == said
        assert "noise" not in shard.attributes["recipe"]
    with Shard(tmp_path / "plain" / "run.tiles.h5") as shard:
        assert "noise" not in shard.attributes
    manifest = make_manifest([tmp_path / "noisy" / "run.tiles.h5"], with_noise(), tmp_path / "noisy.json")
    assert manifest.attributes["noise"] == said


def test_a_manifest_has_one_noise(tmp_path):
    shards = []
    for seed, cfg in ((1, with_noise()), (2, parse_config(CONFIG))):
        path = write_run(tmp_path / f"run_{seed}.dl1.h5", seed=seed)
        make_tiles([path], cfg, tmp_path)
        shards.append(tmp_path / f"run_{seed}.tiles.h5")
    with pytest.raises(
        UserError, match=r"run_2.tiles.h5 has noise None, but .*run_1.tiles.h5 has \{.*one manifest for"
    ):
        make_manifest(shards, with_noise(), tmp_path / "manifest.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": []}, r"tiles\.camera\.noise\.splits"),
        ({"splits": ["training"]}, r"tiles\.camera\.noise\.splits.*'train', 'validation' or 'test'"),
        ({"night_sky_max_pe": -1}, r"tiles\.camera\.noise\.night_sky_max_pe.*greater than or equal to 0"),
        ({"gain_spread_max": 0.6}, r"tiles\.camera\.noise\.gain_spread_max.*less than or equal to 0.5"),
        ({"dead_fraction_max": 1}, r"tiles\.camera\.noise\.dead_fraction_max.*less than or equal to 0.5"),
        ({"night_sky": 1}, r"unknown key 'tiles\.camera\.noise\.night_sky'; did you mean 'night_sky_max_pe'"),
    ],
)
def test_noise_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        with_noise(**changes)
