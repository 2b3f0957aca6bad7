import json
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table
from synthetic_tiles import CAMERA_IDENTITY, camera_entry

from pipeline.camera.baselines import FOREST_COLUMNS
from pipeline.config import parse_config
from pipeline.directions import RADIUS_68
from pipeline.errors import TooFewEventsError, UserError
from pipeline.stages.evaluate import _check_recipe, evaluate, evaluate_predictor
from pipeline.tasks.core.targets import core_vector_m
from pipeline.tiles.cameras import where_served
from pipeline.tiles.describe import write_manifest
from pipeline.tiles.shards import Channel, ShardWriter, TileBatch

DRAWN_BELOW = ("hillas_intensity", "hillas_length", "hillas_width", "hillas_psi", "hillas_phi")
FACTS = {"network": "oracle", "model": "truth-with-noise", "bundle_sha256": "0" * 64}
EDGES_TEV = (0.1, 1.0, 10.0)


def made_up_batch(n_showers, images_per_shower, rng):
    """Gammas and protons whose size follows energy and whose width tells the class, 3 images per shower."""
    n = n_showers * images_per_shower
    group = np.repeat(np.arange(n_showers), images_per_shower)
    log10_energy = np.repeat(rng.uniform(-1, 1, n_showers), images_per_shower)
    is_gamma = np.repeat(rng.random(n_showers) < 0.5, images_per_shower)
    parameters = [name for name in FOREST_COLUMNS if name not in DRAWN_BELOW]
    events = {name: rng.normal(size=n).astype(np.float32) for name in parameters}
    events |= {
        "camera": np.zeros(n, np.int16),
        "obs_id": np.ones(n, np.int64),
        "event_id": np.arange(n),
        "tel_id": np.ones(n, np.int64),
        "shower_id": group,
        "hillas_intensity": 10 ** (2.5 + log10_energy + rng.normal(0, 0.2, n)),
        "hillas_length": rng.uniform(0.2, 0.4, n),
        "hillas_width": np.where(is_gamma, 0.09, 0.12) * rng.lognormal(0, 0.25, n),
        "hillas_psi": rng.uniform(-90, 90, n),
        "hillas_phi": rng.uniform(-180, 180, n),
        "true_energy_tev": 10**log10_energy,
        "true_primary_id": np.where(is_gamma, 0, 101),
    }
    # The source is on the axis, 0.5 deg from the centre of gravity, at the end that the skewness tells.
    psi, phi = np.radians(events["hillas_psi"]), np.radians(events["hillas_phi"])
    end = np.sign(events["hillas_skewness"])
    for axis, along in (("lon", np.cos(psi)), ("lat", np.sin(psi))):
        events[f"hillas_fov_{axis}"] = 0.7 * (np.cos(phi) if axis == "lon" else np.sin(phi))
        events[f"true_fov_{axis}_deg"] = events[f"hillas_fov_{axis}"] + 0.5 * end * along
    events["true_offset_deg"] = np.hypot(events["true_fov_lon_deg"], events["true_fov_lat_deg"])
    events |= {"pointing_alt_deg": np.full(n, 90.0), "pointing_az_deg": np.full(n, 0.0)}
    events |= {f"tel_{axis}_m": np.full(n, place) for axis, place in (("x", 30.0), ("y", -40.0), ("z", 0.0))}
    impact = 200 * np.abs(events["hillas_length"] - 0.2) / 0.2  # from 0 to 200 m
    # Away from the source; at the zenith fov_lon is to the east, fov_lat to the south, x to the north, y to the west.
    for axis, place, along in (("x", 30.0, np.sin(psi)), ("y", -40.0, np.cos(psi))):
        events[f"true_core_{axis}_m"] = place + impact * end * along
    events["true_x_max_g_cm2"] = 300 + 100 * log10_energy
    # The split goes by shower, as the real one does.
    split = np.repeat(rng.choice(3, n_showers, p=(0.4, 0.2, 0.4)), images_per_shower).astype(np.uint8)
    images = np.zeros((n, 1, 4, 4), np.float16)
    return TileBatch(images=images, events=events, group=group, split=split)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    shards = []
    for run in (1, 2):
        path = folder / f"run_{run}.tiles.h5"
        with ShardWriter(
            path,
            channels=[Channel("charge", "p.e.")],
            tile_shape=(4, 4),
            source=f"run_{run}",
            wing="camera",
            attributes={"cameras": [camera_entry()]},
        ) as writer:
            writer.append(made_up_batch(300, 3, rng))
        shards.append(path)
    out = folder / "camera.manifest.json"
    write_manifest(shards, out, class_column="true_primary_id", equalised={"true_energy_tev": 3})
    return out


class Oracle:
    """A predictor that knows the truth up to a Gaussian error: better than any forest here."""

    cameras = (CAMERA_IDENTITY,)

    def predict(self, batch):
        rng = np.random.default_rng(batch.events["event_id"][0])
        energy = batch.events["true_energy_tev"] * 10 ** rng.normal(0, 0.05, len(batch))
        logit = np.where(batch.events["true_primary_id"] == 0, 2.0, -2.0) + rng.normal(0, 1.5, len(batch))
        return {
            "reco_energy_tev": energy,
            "reco_energy_uncert_tev": energy * np.log(10) * 0.05,
            "gammaness": 1 / (1 + np.exp(-logit)),
            "reco_core_x_m": batch.events["true_core_x_m"] + rng.normal(0, 10, len(batch)),
            "reco_core_y_m": batch.events["true_core_y_m"] + rng.normal(0, 10, len(batch)),
            "reco_impact_m": np.linalg.norm(core_vector_m(batch.events), axis=1) + rng.normal(0, 10, len(batch)),
            "reco_impact_uncert_m": np.full(len(batch), 10.0),
            "reco_x_max_g_cm2": batch.events["true_x_max_g_cm2"] + rng.normal(0, 20, len(batch)),
            "reco_x_max_uncert_g_cm2": np.full(len(batch), 20.0),
            "reco_fov_lon_deg": batch.events["true_fov_lon_deg"] + rng.normal(0, 0.05, len(batch)),
            "reco_fov_lat_deg": batch.events["true_fov_lat_deg"] + rng.normal(0, 0.05, len(batch)),
            "reco_alt_other_end_deg": np.full(len(batch), 89.0),
            "reco_ang_distance_uncert_deg": np.full(len(batch), RADIUS_68 * 0.05),
        }


class ByImage(Oracle):
    """The same with an error that belongs to the image, whatever other images are read with it."""

    def predict(self, batch):
        spread = np.sin(1e4 * batch.events["hillas_intensity"])
        return {"gammaness": 0.5 + np.where(batch.events["true_primary_id"] == 0, 0.1, -0.1) + 0.3 * spread}


@pytest.fixture(scope="module")
def cfg():
    return parse_config(
        {
            "evaluate": {
                "bootstrap": 100,
                "energy_edges_tev": EDGES_TEV,
                "size_cuts_pe": [50, 200, 1e6],
                "forest_trees": 20,
            }
        }
    )


@pytest.fixture(scope="module")
def gammaness(manifest, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "oracle"
    return evaluate_predictor(cfg, Oracle(), ["gammaness"], FACTS, [manifest], out) / "gammaness"


@pytest.fixture(scope="module")
def energy(manifest, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "oracle"
    return evaluate_predictor(cfg, Oracle(), ["energy"], FACTS, [manifest], out) / "energy"


@pytest.fixture(scope="module")
def direction(manifest, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "oracle"
    return evaluate_predictor(cfg, Oracle(), ["direction"], FACTS, [manifest], out) / "direction"


@pytest.fixture(scope="module")
def core(manifest, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "oracle"
    return evaluate_predictor(cfg, Oracle(), ["core"], FACTS, [manifest], out) / "core"


@pytest.fixture(scope="module")
def x_max(manifest, cfg, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "oracle"
    return evaluate_predictor(cfg, Oracle(), ["x_max"], FACTS, [manifest], out) / "x_max"


def read(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("task", ["gammaness", "energy", "direction", "core", "x_max"])
def test_metrics_json_keeps_the_contract(task, request, manifest):
    content = read(request.getfixturevalue(task))
    assert content["task"] == task
    assert content["network"] == FACTS["network"]
    assert content["model"] == FACTS["model"]
    assert content["bundle_sha256"] == FACTS["bundle_sha256"]
    assert content["data"]["manifests"] == [str(manifest)]
    assert content["data"]["split"] == "test"
    assert content["data"]["n"] >= content["data"]["n_weighted"] > content["data"]["n_groups"] > 0
    names = {
        "gammaness": {"auc", "background_at_80"},
        "energy": {"energy_bias", "energy_resolution", "log10_energy_rms"},
        "core": {"core_resolution_m", "impact_resolution_m"},
        "x_max": {"x_max_resolution_g_cm2", "x_max_bias_g_cm2"},
        "direction": {"angular_resolution_deg", "sign_accuracy", "axis_resolution_deg"},
    }
    for block in (content["metrics"], content["baselines"]["forest"]):
        assert set(block) == names[task]
        for entry in block.values():
            assert set(entry) == {"value", "low", "high", "n", "better"}
            assert entry["low"] <= entry["value"] <= entry["high"]
            assert entry["better"] in ("higher", "lower")
    for name, entry in content["differences"]["forest"].items():
        assert entry["low"] <= entry["value"] <= entry["high"]
        if not entry.get("absolute"):
            expected = content["metrics"][name]["value"] - content["baselines"]["forest"][name]["value"]
            assert entry["value"] == pytest.approx(expected)
    assert "combined" not in content["differences"]
    settings = content["baseline_settings"]["forest"]
    if task in ("direction", "core"):  # two forests, and no mean of a vector and a line
        assert settings["disp_norm_deg" if task == "direction" else "impact_m"]["tried"]
        settings = settings["disp_sign"]
    else:
        assert set(content["combined"]) == names[task]
    assert settings["tried"]
    assert content["provenance"]["config"]["seed"] == 1


def test_gammaness_beats_the_forest(gammaness):
    content = read(gammaness)
    assert content["metrics"]["auc"]["value"] > 0.9
    assert content["differences"]["forest"]["auc"]["low"] > 0
    assert content["differences"]["forest"]["background_at_80"]["high"] < 0


def test_energy_resolution_is_the_oracles(energy):
    content = read(energy)
    assert content["metrics"]["log10_energy_rms"]["value"] == pytest.approx(0.05, rel=0.15)
    assert content["metrics"]["energy_resolution"]["value"] == pytest.approx(10**0.05 - 1, rel=0.2)
    assert content["differences"]["forest"]["log10_energy_rms"]["high"] < 0
    assert content["calibration"]["pull_width"] == pytest.approx(1, abs=0.15)
    assert content["differences"]["forest"]["energy_bias"]["absolute"] is True


def test_direction_resolution_is_the_oracles(direction):
    content = read(direction)
    assert content["metrics"]["angular_resolution_deg"]["value"] == pytest.approx(RADIUS_68 * 0.05, rel=0.1)
    assert content["metrics"]["sign_accuracy"]["value"] == 1.0
    forest = content["baselines"]["forest"]
    assert forest["sign_accuracy"]["value"] > 0.95  # the skewness tells the end
    assert forest["axis_resolution_deg"]["value"] < 0.05  # the distance is the same for all, the axis that of the image
    assert content["calibration"]["pull_width"] == pytest.approx(1, abs=0.1)
    by_energy = content["calibration"]["by_true_energy_tev"]
    assert [entry["pull_width"] == pytest.approx(1, abs=0.15) for entry in by_energy] == [True, True]
    assert {b["by"] for b in content["bins"]} == {"true_energy_tev", "true_offset_deg"}
    table = Table.read(direction / "predictions.ecsv")
    assert set(table["true_primary_id"]) == {0}
    assert str(table["reco_fov_lon_deg_network"].unit) == "deg"


def test_core_and_depth_are_the_oracles(core, x_max):
    content = read(core)
    assert content["metrics"]["core_resolution_m"]["value"] == pytest.approx(RADIUS_68 * 10, rel=0.1)
    assert content["metrics"]["impact_resolution_m"]["value"] == pytest.approx(10, rel=0.15)
    assert content["calibration"]["pull_width"] == pytest.approx(1, abs=0.1)
    # The forest finds the distance in the length of the image, and its side in the skewness.
    assert content["baselines"]["forest"]["impact_resolution_m"]["value"] < 15
    assert content["baselines"]["forest"]["core_resolution_m"]["value"] < 25
    content = read(x_max)
    assert content["metrics"]["x_max_resolution_g_cm2"]["value"] == pytest.approx(20, rel=0.15)
    assert abs(content["metrics"]["x_max_bias_g_cm2"]["value"]) < 4
    assert content["calibration"]["pull_width"] == pytest.approx(1, abs=0.1)


def test_energy_is_judged_on_gammas_alone(energy, gammaness):
    table = Table.read(energy / "predictions.ecsv")
    assert set(table["true_primary_id"]) == {0}
    assert str(table["true_energy_tev"].unit) == "TeV"
    both = Table.read(gammaness / "predictions.ecsv")
    assert set(both["true_primary_id"]) == {0, 101}
    assert len(table) == (both["true_primary_id"] == 0).sum() == read(energy)["data"]["n"]


def test_bins_stand_beside_the_forest(energy, gammaness):
    bins = [b for b in read(energy)["bins"] if b["by"] == "true_energy_tev"]
    assert [(b["low"], b["high"]) for b in bins] == [(0.1, 1.0), (1.0, 10.0)]
    assert {b["by"] for b in read(energy)["bins"]} == {"true_energy_tev", "true_offset_deg"}
    assert all(b["energy_resolution"]["value"] < b["baselines"]["forest"]["energy_resolution"]["value"] for b in bins)
    sizes = [b for b in read(gammaness)["bins"] if b["by"] == "hillas_intensity_pe"]
    assert [(b["low"], b["high"]) for b in sizes] == [(50, None), (200, None), (1e6, None)]
    assert sizes[0]["n"] > sizes[1]["n"] > 0
    assert "auc" not in sizes[2]  # nothing is that bright: the bin is there, without a number
    rows = Table.read(energy / "bins.ecsv")
    assert set(rows["method"]) == {"network", "forest", "combined"}


@pytest.mark.parametrize("task", ["gammaness", "energy", "direction", "core", "x_max"])
def test_named_figures_and_tables_are_there(task, request):
    folder = request.getfixturevalue(task)
    content = read(folder)
    written = {path.name for path in folder.iterdir()}
    assert written == {"metrics.json", *content["tables"], *(f["file"] for f in content["figures"])}
    assert all(f["title"] and f["caption"] for f in content["figures"])
    sidecar = json.loads(folder.parent.with_name("oracle.provenance.json").read_text())
    assert sidecar["stage"] == "evaluate"


def test_equal_runs_give_equal_bytes(energy, manifest, cfg, tmp_path):
    again = evaluate_predictor(cfg, Oracle(), ["energy"], FACTS, [manifest], tmp_path / "oracle")
    for path in energy.iterdir():
        assert (again / "energy" / path.name).read_bytes() == path.read_bytes(), path.name


def test_existing_output_is_kept(energy, manifest, cfg):
    with pytest.raises(UserError, match=r"exists; choose another name or add --force"):
        evaluate_predictor(cfg, Oracle(), ["energy"], FACTS, [manifest], energy.parent)


def test_tiles_without_truth_are_refused(tmp_path, cfg):
    batch = made_up_batch(40, 3, np.random.default_rng(1))
    del batch.events["true_primary_id"]
    with ShardWriter(
        tmp_path / "a.tiles.h5",
        channels=[Channel("charge", "p.e.")],
        tile_shape=(4, 4),
        source="a",
        wing="camera",
        attributes={"cameras": [camera_entry()]},
    ) as writer:
        writer.append(batch)
    write_manifest([tmp_path / "a.tiles.h5"], tmp_path / "m.json")
    with pytest.raises(
        UserError, match=r"no truth \(true_primary_id\); gammaness can be judged on simulated tiles only"
    ):
        evaluate_predictor(cfg, Oracle(), ["gammaness"], FACTS, [tmp_path / "m.json"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("n_test", "message"),
    [
        (0, "the test split has no image"),
        (12, r"the test split has \d+ gammas and \d+ hadrons with weight; at least 25"),
    ],
)
def test_too_small_a_test_split_is_refused(n_test, message, tmp_path, cfg):
    batch = made_up_batch(200, 3, np.random.default_rng(1))
    batch.split[:] = np.arange(600) % 2
    batch.split[:n_test] = 2
    with ShardWriter(
        tmp_path / "a.tiles.h5",
        channels=[Channel("charge", "p.e.")],
        tile_shape=(4, 4),
        source="a",
        wing="camera",
        attributes={"cameras": [camera_entry()]},
    ) as writer:
        writer.append(batch)
    write_manifest([tmp_path / "a.tiles.h5"], tmp_path / "m.json", class_column="true_primary_id")
    with pytest.raises(TooFewEventsError, match=message):
        evaluate_predictor(cfg, Oracle(), ["gammaness"], FACTS, [tmp_path / "m.json"], tmp_path / "out")


def test_an_unknown_bundle_is_refused(manifest, cfg, tmp_path):
    with pytest.raises(UserError, match="there is no bundle 'nowhere'"):
        evaluate(cfg, "nowhere", [manifest], tmp_path / "out")


def test_images_that_were_cleaned_in_another_way_are_refused(caplog):
    recipe = {"picture_pe": 6.0, "boundary_pe": 3.0, "size_min_pe": 50.0, "size_px": 56}
    manifest = SimpleNamespace(
        path="m.json", attributes={"recipe": recipe | {"picture_pe": 15.0, "size_min_pe": 200.0}}
    )
    message = r"other images than the bundle reads: picture_pe 15.0 \(the bundle: 6.0\), size_min_pe 200.0"
    with pytest.raises(UserError, match=message):
        _check_recipe(recipe, manifest)
    manifest.attributes["recipe"] = recipe | {"size_min_pe": 200.0}
    _check_recipe(recipe, manifest)
    assert "other cuts than those of training: size_min_pe 200.0 (the bundle: 50.0)" in caplog.text
    caplog.clear()
    _check_recipe(recipe, SimpleNamespace(path="m.json", attributes={"recipe": recipe}))
    assert not caplog.text


def test_tiles_of_another_camera_are_refused(manifest, tmp_path):
    content = json.loads(manifest.read_text())
    content["attributes"]["cameras"] = ["square-2048"]
    other = manifest.with_name("other.manifest.json")
    other.write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds images of the camera square-2048, but the bundle serves hexagon-1855"):
        where_served([other], ("hexagon-1855",))
    assert where_served([other], ("hexagon-1855", "square-2048")) == {}


@pytest.mark.slow
def test_tiles_of_the_bundles_own_camera_are_judged(tmp_path, cfg):
    """Of two cameras: network and forest see the same images as where a manifest has this camera alone."""
    batch = made_up_batch(400, 3, np.random.default_rng(5))
    batch.events["camera"] = (np.arange(len(batch)) % 3 == 0).astype(np.int16)
    entries = [camera_entry("another"), camera_entry()]
    own = batch.select(batch.events["camera"] == 1)
    own.events["camera"] = np.zeros(len(own), np.int16)
    found = {}
    for name, tiles, cameras in (("mixed", batch, entries), ("own", own, entries[1:])):
        (tmp_path / name).mkdir()
        with ShardWriter(
            tmp_path / name / "a.tiles.h5",
            channels=[Channel("charge", "p.e.")],
            tile_shape=(4, 4),
            source="a",
            wing="camera",
            attributes={"cameras": cameras},
        ) as writer:
            writer.append(tiles)
        manifest = write_manifest(
            [tmp_path / name / "a.tiles.h5"],
            tmp_path / name / "m.json",
            class_column="true_primary_id",
            equalised={"true_energy_tev": 3},
        )
        out = evaluate_predictor(cfg, ByImage(), ["gammaness"], FACTS, [manifest], tmp_path / name / "out")
        found[name] = read(out / "gammaness")
    assert 0 < found["mixed"]["data"]["n"] == np.count_nonzero(own.split == 2)
    for key in ("metrics", "baselines", "differences", "bins", "baseline_settings"):
        assert found["mixed"][key] == found["own"][key], key


def test_a_task_that_is_not_judged_is_named(tmp_path, manifest, cfg):
    with pytest.raises(
        UserError, match="unknown task 'sky'; accepted: gammaness, energy, direction, core, x_max, denoise"
    ):
        evaluate_predictor(cfg, Oracle(), ["sky"], FACTS, [manifest], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_head_is_judged_in_a_folder_of_its_own(manifest, cfg, energy, gammaness, tmp_path):
    out = evaluate_predictor(cfg, Oracle(), ["energy", "gammaness"], FACTS, [manifest], tmp_path / "both")
    assert sorted(path.name for path in out.iterdir()) == ["energy", "gammaness"]
    for alone in (energy, gammaness):
        for path in alone.iterdir():
            assert (out / alone.name / path.name).read_bytes() == path.read_bytes(), path
