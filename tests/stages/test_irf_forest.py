"""Responses of the stereo forests beside those of the networks: the same events, images as tiles have them."""

import json
import shutil

import h5py
import numpy as np
import pytest
from tiny_bundles import camera_bundle

from pipeline.camera.dl1 import DL1File
from pipeline.camera.irf.forest import PREFIXES, EventForests, forest_tiles
from pipeline.camera.irf.images import check_images, read_images
from pipeline.camera.irf.inputs import read_event_file
from pipeline.camera.stereo.forests import COLUMNS
from pipeline.camera.stereo.training import images_of
from pipeline.camera.tiling import tile_file
from pipeline.config import parse_config
from pipeline.errors import InputFileError, TooFewEventsError, UserError
from pipeline.evaluation.showers import event_sample
from pipeline.inputs.shower import events_of
from pipeline.provenance import sha256_file
from pipeline.reporting.collect import collect
from pipeline.reporting.page import render
from pipeline.stages.irf import irf
from pipeline.stages.irf_runs import irf_from_runs
from pipeline.stages.manifest import make_manifest
from pipeline.stages.predict import predict
from pipeline.stages.simulate_showers import simulate_showers
from pipeline.stages.tiles import make_tiles
from pipeline.tasks.energy.baseline import ESTIMANDS, LOG10_ENERGY
from pipeline.tasks.energy.spec import SPEC
from pipeline.tiles.events import EventReader

IDENTITY = "hexagon-1855-6.14arcmin-41deg-r24"
GAMMA = {
    "particle": "gamma", "runs": 1, "showers_per_run": 40, "energy_min_tev": 0.3, "energy_max_tev": 3.0,
    "scatter_radius_m": 150.0, "viewcone_deg": 1.5,
}  # fmt: skip
PROTON = GAMMA | {"particle": "proton", "energy_min_tev": 0.5, "energy_max_tev": 10.0, "viewcone_deg": 1.6}
BAD = {"dead_pixel_fraction": 0.05, "flat_field_rms": 0.1, "night_sky_factor": 2.0}
GAMMA_RUN, PROTON_RUN = 10_001, 10_002


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment: a function for its configuration, DL1 and DL2 files of its runs, and tiles of the same showers."""
    folder = tmp_path_factory.mktemp("made")
    tasks = ("energy", "gammaness", "direction")
    bundles = {task: str(camera_bundle(folder / task, task, IDENTITY)) for task in tasks}
    places = [{"type": "LST", "x_m": x, "y_m": y} for x in (-60, 60) for y in (-60, 60)]

    def config(**changes):
        section = bundles | {"classes": [GAMMA, PROTON], "baseline": "forest", "optimiser": "percentile"}
        section |= {"true_bins_per_decade": 2, "reco_bins_per_decade": 2, "offset_bins": 2}
        return parse_config(
            {
                "name": "tiny", "seed": 3, "threads": 1, "networks": {}, "irf": section | changes,
                "evaluate": {"bootstrap": 50, "forest_trees": 10},
                "tiles": {
                    "splits": {"train": 0.5, "validation": 0.3, "test": 0.2},
                    "weighting": {"energy_bins": 1, "offset_bins": 1, "size_bins": 1},
                },
                "showers": {"array": places, "min_telescopes": 2, "positions_per_shower": 4, "camera": BAD},
            }
        )  # fmt: skip

    cfg = config()
    dl1 = {run: simulate_showers(cfg, run, folder / f"run_{run}.dl1.h5") for run in cfg.irf.runs}
    dl2 = {run: folder / f"run_{run}.dl2.h5" for run in dl1}
    for run, path in dl1.items():
        (status,) = predict(cfg, [path], list(bundles.values()), dl2[run])
        assert status["status"] == "ok"
    make_tiles(list(dl1.values()), cfg, folder / "tiles")
    manifest = folder / "tiles" / "camera.manifest.json"
    make_manifest(sorted((folder / "tiles").glob("*.tiles.h5")), cfg, manifest)
    return config, dl1, dl2, manifest


@pytest.fixture(scope="module")
def forests(made):
    config, _, _, manifest = made
    return EventForests.train(forest_tiles(config(), [manifest]), config())


@pytest.fixture(scope="module")
def product(made, tmp_path_factory):
    config, _, dl2, manifest = made
    return irf(config(), tmp_path_factory.mktemp("product") / "tiny" / "irf", list(dl2.values()), tiles=[manifest])


@pytest.mark.parametrize("run", [GAMMA_RUN, PROTON_RUN])
def test_images_of_dl2_are_those_of_tiles_to_the_last_bit(made, run):
    config, dl1, dl2, manifest = made
    tiles = forest_tiles(config(), [manifest])
    with DL1File(dl1[run]) as file:
        parts = [batch.events for batch, _ in tile_file(file, tiles.recipe, [IDENTITY])]
    expected = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    events = read_images(dl2[run], tiles.recipe, tiles.cameras)
    images = events.images
    found = dict(images.columns) | {"event_id": events.event_id[images.event], "obs_id": events.obs_id[images.event]}
    several = np.isin(expected["event_id"], found["event_id"])
    uses, counts = np.unique(expected["event_id"], return_counts=True)
    np.testing.assert_array_equal(np.unique(found["event_id"]), uses[counts > 1])
    orders = [np.lexsort((columns["tel_id"], columns["event_id"])) for columns in (expected, found)]
    orders[0] = orders[0][several[orders[0]]]
    for name in {*COLUMNS, "obs_id", "event_id", "tel_id"}:
        want, got = expected[name][orders[0]], found[name][orders[1]]
        assert name in ("obs_id", "event_id", "tel_id") or got.dtype == want.dtype, name
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_values_are_those_of_the_evaluation(made, forests):
    """The same forest, and the same value for each event of the test split."""
    config, _, dl2, manifest = made
    cfg = config()

    class Oracle:
        mono = {}  # noqa: RUF012
        cameras = (IDENTITY,)

        def predict(self, batch):
            return {"reco_energy_tev": events_of(batch).events["true_energy_tev"]}

    sample = event_sample(SPEC, {LOG10_ENERGY: ESTIMANDS[LOG10_ENERGY]}, Oracle(), [manifest], cfg)
    events = read_images(dl2[GAMMA_RUN], forests.tiles.recipe, forests.tiles.cameras)
    values = forests.predict(events)["energy"]["energy"]
    place = np.searchsorted(events.event_id, sample.events["event_id"])
    assert len(place) > 10
    np.testing.assert_array_equal(10 ** sample.baseline[LOG10_ENERGY], values[place])


def test_columns_say_which_events_have_values_and_whose_images_they_are_from(made, forests, tmp_path):
    _, _, dl2, _ = made
    tiles, path = forests.tiles, dl2[GAMMA_RUN]
    copies = forests.complete([read_event_file(path, {})], {path: path}, tmp_path)
    events = read_images(path, tiles.recipe, tiles.cameras)
    several = np.isin(np.arange(len(events.event_id)), events.images.event)
    with h5py.File(copies[path]) as file, h5py.File(path) as before:
        for place, prefix in (
            ("energy/{}", "energy"),
            ("classification/{}", "gammaness"),
            ("geometry/{}", "direction"),
        ):
            table = file[f"dl2/event/subarray/{place.format(f'forest_{prefix}')}"][:]
            np.testing.assert_array_equal(table["event_id"], before["dl1/event/subarray/trigger"]["event_id"])
            np.testing.assert_array_equal(table[f"forest_{prefix}_is_valid"], several)
            used = table[f"forest_{prefix}_tels_used"].sum(axis=1)
            np.testing.assert_array_equal(used, np.bincount(events.images.event, minlength=len(several)))
        assert set(before["dl2/event/subarray/energy"]) == {"tiny_energy"}


def test_both_methods_are_in_the_product(made, product):
    *_, manifest = made
    names = {"cuts.fits", "irf.fits", "irf_point_like.fits", "benchmarks.fits", "ctapipe.yaml"}
    assert {path.name for path in (product / "diffuse" / "forest").iterdir()} == names
    assert "gammaness_classifier: forest_gammaness" in (product / "diffuse" / "forest" / "ctapipe.yaml").read_text()
    content = json.loads((product / "irf.json").read_text())
    network, forest = content["kinds"]["diffuse"], content["baselines"]["forest"]["kinds"]["diffuse"]
    edges = [
        [(entry["by"], entry["low"], entry["high"], entry["offset_low_deg"]) for entry in part["bins"]]
        for part in (network, forest)
    ]
    assert edges[0] == edges[1]
    assert network["counts"]["gamma"]["triggered"] == forest["counts"]["gamma"]["triggered"]
    assert content["baselines"]["forest"]["settings"].keys() == {"energy", "gammaness", "direction"}
    best = [
        min(
            entry["angular_resolution_deg"]["value"] or 9 for entry in part["bins"] if "angular_resolution_deg" in entry
        )
        for part in (network, forest)
    ]
    assert best[1] < 0.3 < best[0]  # the network is made by hand
    assert any(text.startswith("of the forest: the sensitivity") for text in content["warnings"])
    sidecar = json.loads((product.parent / "irf.provenance.json").read_text())
    (digest,) = sidecar["manifests"]
    assert digest == sha256_file(manifest)


def test_the_report_shows_both_methods(product):
    page = render(collect(product.parent))
    assert page.count("<td>forest</td>") > 10
    assert "forests on the image parameters" in page


@pytest.mark.slow
def test_the_networks_responses_do_not_depend_on_the_baseline(made, product, tmp_path):
    config, _, dl2, _ = made
    alone = irf(config(baseline=None), tmp_path / "irf", list(dl2.values()))
    first, second = (json.loads((folder / "irf.json").read_text())["kinds"] for folder in (product, alone))
    assert first == second
    assert not (alone / "diffuse" / "forest").exists()


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_tiles_and_baseline_belong_together(made, tmp_path, monkeypatch):
    config, _, dl2, manifest = made
    files = list(dl2.values())
    monkeypatch.chdir(tmp_path)
    missing = (
        r"is trained on camera tiles, and there is no results/tiny/tiles/camera\.manifest\.json, .*--tiles MANIFEST"
    )
    with pytest.raises(UserError, match=missing):
        irf(config(), tmp_path / "irf", files)
    with pytest.raises(UserError, match=missing):
        irf_from_runs(config(), tmp_path / "irf")
    with pytest.raises(UserError, match=r"no forests learn from them; set irf\.baseline: forest, or leave --tiles"):
        irf(config(baseline=None), tmp_path / "irf", files, tiles=[manifest])
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    (tmp_path / "results" / "tiny" / "tiles").symlink_to(manifest.parent)
    (usual,) = forest_tiles(config(), []).manifests
    assert usual.path.resolve() == manifest.resolve()


def copied(path, folder, **changes):
    """A copy of a DL2 file whose stamp says something else of the events."""
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        stamped = json.loads(file.attrs["LIGHTPOOL PROVENANCE"]) | changes
        file.attrs["LIGHTPOOL PROVENANCE"] = np.bytes_(json.dumps(stamped).encode())
    return copy


def test_images_of_another_cleaning_are_refused(made, tmp_path):
    config, _, dl2, manifest = made
    other = {"picture_pe": 8.0, "boundary_pe": 3.0, "min_picture_neighbors": 1}
    path = copied(dl2[GAMMA_RUN], tmp_path, cleaning=other)
    message = r"cleaned with picture_pe 8\.0, boundary_pe 3\.0, .* those of the tiles with picture_pe 6\.0, .* alike"
    with pytest.raises(InputFileError, match=message):
        irf(config(), tmp_path / "irf", [path], tiles=[manifest])
    assert not (tmp_path / "irf").exists()


def test_images_of_unknown_cleaning_are_refused(made, tmp_path):
    config, _, dl2, manifest = made
    path = copied(dl2[GAMMA_RUN], tmp_path, cleaning=None)
    with pytest.raises(
        InputFileError, match=r"does not say how its images were cleaned, .*may not be those of the tile"
    ):
        irf(config(), tmp_path / "irf", [path], tiles=[manifest])


def test_files_without_image_parameters_are_refused(made, tmp_path):
    config, _, dl2, manifest = made
    tiles = forest_tiles(config(), [manifest])
    path = copied(dl2[GAMMA_RUN], tmp_path)
    with h5py.File(path, "r+") as file:
        del file["dl1/event/telescope/parameters"]
    with pytest.raises(InputFileError, match="has no image parameters, which the forests need"):
        check_images(path, tiles.recipe, tiles.cameras)


def test_tiles_of_another_camera_are_refused(made):
    config, _, dl2, manifest = made
    recipe = forest_tiles(config(), [manifest]).recipe
    with pytest.raises(
        InputFileError, match=rf"of the camera {IDENTITY}, but the tiles are of hexagon-7; give tiles of"
    ):
        check_images(dl2[GAMMA_RUN], recipe, ["hexagon-7"])


def test_tiles_of_single_telescopes_are_refused(made, tmp_path):
    config, dl1, _, _ = made
    alone = tmp_path / "run_1.dl1.h5"
    shutil.copyfile(dl1[GAMMA_RUN], alone)
    with h5py.File(alone, "r+") as file:
        for tel_id in (2, 3, 4):
            del file[f"dl1/event/telescope/images/tel_{tel_id:03d}"]
    make_tiles([alone], config(), tmp_path)
    manifest = tmp_path / "m.json"
    make_manifest([tmp_path / "run_1.tiles.h5"], config(), manifest)
    with pytest.raises(TooFewEventsError, match="the train split has no event with images of two telescopes"):
        forest_tiles(config(), [manifest])


def test_values_of_the_forests_are_added_once(made, forests, tmp_path):
    config, _, dl2, manifest = made
    cfg, path = config(), dl2[GAMMA_RUN]
    copies = forests.complete([read_event_file(path, {})], {path: path}, tmp_path)
    with pytest.raises(InputFileError, match="holds values of forest_energy already; give the file without them"):
        irf(cfg, tmp_path / "irf", [copies[path]], tiles=[manifest])


@pytest.mark.slow
def test_too_few_events_of_the_forests_do_not_cost_the_networks_theirs(made, forests, product, tmp_path, monkeypatch):
    config, _, dl2, manifest = made

    def without_images(path, recipe, cameras):
        events = read_images(path, recipe, cameras)
        return events.__class__(events.obs_id[:0], events.event_id[:0], read_images(path, recipe, ()).images)

    monkeypatch.setattr("pipeline.camera.irf.forest.read_images", without_images)
    monkeypatch.setattr(EventForests, "train", lambda *_: forests)
    made_without = irf(config(), tmp_path / "irf", list(dl2.values()), tiles=[manifest])
    content = json.loads((made_without / "irf.json").read_text())
    assert content["kinds"] == json.loads((product / "irf.json").read_text())["kinds"]
    assert content["baselines"] == {}
    assert any(
        text.startswith("the forest has no responses to diffuse gammas: none of") for text in content["warnings"]
    )
    assert not (made_without / "diffuse" / "forest").exists()


def test_prefixes_are_those_that_the_documentation_names():
    assert dict(PREFIXES) == {
        "energy": "forest_energy", "gammaness": "forest_gammaness", "direction": "forest_direction"
    }  # fmt: skip


def test_the_reader_of_tiles_gives_the_same_radius(made):
    config, _, dl2, manifest = made
    tiles = forest_tiles(config(), [manifest])
    reader = EventReader([manifest], "train")
    images, _ = images_of(reader)
    reader.close()
    impact = {}
    for own in (images, read_images(dl2[GAMMA_RUN], tiles.recipe, tiles.cameras).images):
        for key, value in zip(own.columns["hillas_intensity"].tolist(), own.columns["stereo_impact_m"], strict=True):
            impact.setdefault(key, []).append(value)
    pairs = np.array([pair for pair in impact.values() if len(pair) == 2])
    assert len(pairs) > 50
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
