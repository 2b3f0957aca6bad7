"""Networks for events of several telescopes, judged on the same events as their baselines."""

import json

import numpy as np
import pytest
from astropy.table import Table
from stereo_tiles import CAMERA_IDENTITY, stereo_batch, write_stereo_tiles

from pipeline.camera.stereo.forests import stereo_images
from pipeline.camera.telescopes import get_telescope
from pipeline.config import Config, ShowerClass, ShowersConfig, TelescopePlace, parse_config
from pipeline.directions import RADIUS_68, altaz_of_fov
from pipeline.errors import TooFewEventsError, UserError
from pipeline.evaluation.showers import event_sample
from pipeline.figures.published import published_curves
from pipeline.inputs.shower import events_of
from pipeline.stages.evaluate import evaluate_predictor
from pipeline.stages.manifest import make_manifest
from pipeline.stages.simulate_showers import simulate_showers
from pipeline.stages.tiles import make_tiles
from pipeline.tasks.direction.baseline import ESTIMANDS, NORM
from pipeline.tasks.direction.spec import SPEC

FACTS = {"network": "oracle", "model": "truth-with-noise", "bundle_sha256": "0" * 64}
METRICS = {
    "gammaness": {"auc", "background_at_80"},
    "energy": {"energy_bias", "energy_resolution", "log10_energy_rms"},
    "direction": {"angular_resolution_deg"},
    "core": {"core_resolution_m"},
    "x_max": {"x_max_resolution_g_cm2", "x_max_bias_g_cm2"},
}
BASELINES = {
    "gammaness": ["forest", "mono"],
    "energy": ["forest", "mono"],
    "direction": ["forest", "hillas", "mono"],
    "core": ["hillas", "mono"],
    "x_max": ["forest"],  # DL2 has no depth, and so no mean of it over telescopes
}


class Telescopes:
    """Knows the truth of each image up to an error: what a network for single telescopes says."""

    takes = "image"

    def __init__(self, error=3.0, cameras=(CAMERA_IDENTITY,)):
        self.error, self.cameras = error, cameras

    def predict(self, batch):
        """All columns."""
        return self._columns(batch.events, len(batch))

    def _columns(self, events, n):
        rng = np.random.default_rng(events["event_id"][:1])
        noise = self.error * rng.normal(size=(8, n))
        energy = events["true_energy_tev"] * 10 ** (0.05 * noise[0])
        lon, lat = (events[f"true_fov_{axis}_deg"] + 0.05 * noise[i + 1] for i, axis in enumerate(("lon", "lat")))
        pointing = events["pointing_alt_deg"], events["pointing_az_deg"]
        alt, az = altaz_of_fov(lon, lat, *pointing)
        cog = events["hillas_fov_lon"], events["hillas_fov_lat"]
        other = altaz_of_fov(2 * cog[0] - lon, 2 * cog[1] - lat, *pointing)
        logit = np.where(events["true_primary_id"] == 0, 2.0, -2.0) + 0.8 * noise[3]
        columns = {
            "reco_energy_tev": energy,
            "reco_energy_uncert_tev": energy * np.log(10) * 0.05 * self.error,
            "gammaness": 1 / (1 + np.exp(-logit)),
            "reco_core_x_m": events["true_core_x_m"] + 10 * noise[4],
            "reco_core_y_m": events["true_core_y_m"] + 10 * noise[5],
            "reco_impact_m": np.full(n, np.nan),
            "reco_impact_uncert_m": np.full(n, 10.0 * self.error),
            "reco_core_uncert_x_m": np.full(n, 10.0 * self.error),
            "reco_core_uncert_y_m": np.full(n, 10.0 * self.error),
            "reco_x_max_g_cm2": events["true_x_max_g_cm2"] + 20 * noise[6],
            "reco_x_max_uncert_g_cm2": np.full(n, 20.0 * self.error),
            "reco_fov_lon_deg": lon, "reco_fov_lat_deg": lat, "reco_alt_deg": alt, "reco_az_deg": az,
            "reco_alt_other_end_deg": other[0], "reco_az_other_end_deg": other[1],
            "reco_ang_distance_uncert_deg": np.full(n, RADIUS_68 * 0.05 * self.error),
        }  # fmt: skip
        columns |= dict.fromkeys(("reco_alt_uncert_deg", "reco_az_uncert_deg"), np.full(n, 0.05 * self.error))
        return columns | dict.fromkeys(("reco_end_log_odds", "reco_disp_deg", "reco_sign_score"), np.zeros(n))


class Events(Telescopes):
    """The same for whole events."""

    takes = "telescopes"

    def __init__(self, error=1.0, mono=None, cameras=(CAMERA_IDENTITY,)):
        super().__init__(error, cameras)
        self.mono = {CAMERA_IDENTITY: Telescopes()} if mono is None else mono

    def predict(self, batch):
        """A row per event, which has no ends."""
        events = events_of(batch).events
        columns = self._columns(events, len(events["event_id"]))
        return columns | {"reco_alt_other_end_deg": np.full(len(columns["reco_alt_deg"]), np.nan)}


def settings(**evaluate):
    return parse_config(
        {
            "evaluate": {
                "bootstrap": 60, "energy_edges_tev": [0.1, 1.0, 10.0], "size_cuts_pe": [50, 1e6], "forest_trees": 20,
                "offset_edges_deg": [0, 1, 2],
            } | evaluate
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_stereo_tiles(tmp_path_factory.mktemp("tiles"), stereo_batch(400, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def judged(manifest, tmp_path_factory):
    """All tasks; the folder of the results."""
    out = tmp_path_factory.mktemp("evaluation") / "oracle"
    return evaluate_predictor(settings(reference="cta_4lst"), Events(), list(METRICS), FACTS, [manifest], out)


def read(judged, task):
    return json.loads((judged / task / "metrics.json").read_text())


@pytest.mark.parametrize("task", METRICS)
def test_metrics_stand_beside_all_baselines(judged, task):
    content = read(judged, task)
    assert list(content["baselines"]) == list(content["differences"]) == BASELINES[task]
    for block in (content["metrics"], *content["baselines"].values(), *content["differences"].values()):
        assert set(block) == METRICS[task]
    assert content["data"]["items"] == "events"
    assert content["data"]["n_images"] > 2 * content["data"]["n"] > 2 * content["data"]["n_groups"] > 0
    assert ("combined" in content) == (task in ("gammaness", "energy", "x_max"))
    assert ("forest" in content["baseline_settings"]) == (task != "core")
    bins = [entry for entry in content["bins"] if entry["by"] == "n_telescopes"]
    assert [(entry["name"], entry["low"], entry["high"]) for entry in bins] == [
        ("2", 2, 2), ("3", 3, 3), ("4", 4, 4), ("5 or more", 5, None),
    ]  # fmt: skip
    assert sum(entry["n"] for entry in bins) == content["data"]["n"]
    assert all(set(entry["baselines"]) == set(BASELINES[task]) for entry in bins)
    rows = Table.read(judged / task / "bins.ecsv")
    assert set(rows["bin"][rows["by"] == "n_telescopes"]) == {"2", "3", "4", "5 or more"}


@pytest.mark.parametrize("task", METRICS)
def test_captions_speak_of_events(judged, task):
    content = read(judged, task)
    files = {figure["file"] for figure in content["figures"]}
    assert any(file.endswith("by_multiplicity.png") for file in files)
    assert {path.name for path in (judged / task).iterdir()} == {"metrics.json", *content["tables"], *files}
    text = " ".join(figure["title"] + figure["caption"] for figure in content["figures"])
    assert "same events" in text
    assert "of the images stay" not in text
    assert "right end" not in text


def test_the_network_is_as_good_as_it_was_made(judged):
    direction = read(judged, "direction")
    assert direction["metrics"]["angular_resolution_deg"]["value"] == pytest.approx(RADIUS_68 * 0.05, rel=0.1)
    assert direction["calibration"]["pull_width"] == pytest.approx(1, abs=0.15)
    # Axes have errors of 2 deg: with two telescopes that cross at small angles, far more than with five.
    by_telescopes = [entry for entry in direction["bins"] if entry["by"] == "n_telescopes"]
    hillas = [entry["baselines"]["hillas"]["angular_resolution_deg"]["value"] for entry in by_telescopes]
    assert hillas == sorted(hillas, reverse=True)
    # The mean of n telescopes with equal errors of 0.15 deg along each axis.
    for entry in by_telescopes[:3]:
        expected = RADIUS_68 * 0.15 / np.sqrt(entry["low"])
        assert entry["baselines"]["mono"]["angular_resolution_deg"]["value"] == pytest.approx(expected, rel=0.25)
    core = read(judged, "core")
    assert core["metrics"]["core_resolution_m"]["value"] == pytest.approx(RADIUS_68 * 10, rel=0.1)
    assert core["baselines"]["hillas"]["core_resolution_m"]["value"] < 20
    energy = read(judged, "energy")
    assert energy["metrics"]["log10_energy_rms"]["value"] == pytest.approx(0.05, rel=0.15)
    assert (
        energy["baselines"]["forest"]["log10_energy_rms"]["value"] < 0.2
    )  # of one telescope's charge, before the mean
    assert read(judged, "gammaness")["baselines"]["forest"]["auc"]["value"] > 0.8


def test_the_published_line_names_its_source(judged):
    for task in ("energy", "direction"):
        first = next(f for f in read(judged, task)["figures"] if f["file"].endswith("_performance.png"))
        assert (
            "CTAO requirement, four LSTs, as published (https://github.com/cta-observatory/ctaplot" in first["caption"]
        )
    with pytest.raises(UserError, match=r"evaluate.reference.*lst1_mono.*cta_4lst"):
        settings(reference="cta_5lst")


def test_each_reference_of_the_configuration_is_published():
    from pipeline.config import EvaluateConfig

    field = EvaluateConfig.model_fields["reference"]
    assert set(field.annotation.__args__) == {"", *(curve["key"] for curve in published_curves())}


def test_predictions_have_a_row_per_event(judged, manifest):
    table = Table.read(judged / "direction" / "predictions.ecsv")
    assert len(table) == read(judged, "direction")["data"]["n"]
    assert set(table["true_primary_id"]) == {0}
    assert "tel_id" not in table.colnames
    assert set(table["n_telescopes"]) == {2, 3, 4, 5}
    assert len(np.unique(table["event_id"])) == len(table)


def test_all_methods_see_the_same_events(manifest):
    sample = event_sample(SPEC, {NORM: ESTIMANDS[NORM]}, Events(), [manifest], settings())
    n = len(sample.events["event_id"])
    assert len(sample.images.geometry.alt_deg) == len(sample.mono["reco_alt_deg"]) == sample.images.n_events == n
    first = np.unique(sample.images.event, return_index=True)[1]
    np.testing.assert_array_equal(sample.events["event_id"], sample.images.columns["event_id"][first])
    assert set(sample.images.camera) == {CAMERA_IDENTITY}


def test_images_of_several_cameras(tmp_path, monkeypatch):
    """The network has an encoder that no image is for: each image is of the camera that its identity says."""
    batch = stereo_batch(200, np.random.default_rng(1))
    batch.events["camera"] = (batch.events["tel_id"] % 2).astype(np.int16)
    manifest = write_stereo_tiles(tmp_path, batch, {"hexagon-b": 0.5, "hexagon-d": 1.5})
    seen, radii = [], []

    class OfThreeCameras(Events):
        def predict(self, batch):
            seen.append((batch.events["tel_id"] % 2, batch.events["camera"]))
            return super().predict(batch)

    def recorded(columns, *others):
        radii.append((columns["tel_id"] % 2, others[-1]))
        return stereo_images(columns, *others)

    monkeypatch.setattr("pipeline.camera.stereo.training.stereo_images", recorded)
    predictor = OfThreeCameras(
        cameras=("hexagon-a", "hexagon-b", "hexagon-d"), mono={"hexagon-b": Telescopes(), "hexagon-d": Telescopes()}
    )
    sample = event_sample(SPEC, {NORM: ESTIMANDS[NORM]}, predictor, [manifest], settings())
    odd = sample.images.columns["tel_id"] % 2
    np.testing.assert_array_equal(sample.images.camera, np.where(odd, "hexagon-d", "hexagon-b"))
    for parity, number in seen:
        np.testing.assert_array_equal(number, 1 + parity)
    for parity, radius_deg in radii:
        np.testing.assert_array_equal(radius_deg, np.where(parity, 3.0, 1.0))  # of tiles of 4 x 4 px
    assert set(sample.forests[NORM].forests) == {"hexagon-b", "hexagon-d"}
    assert np.isfinite(sample.mono["reco_alt_deg"]).all()


def test_images_of_cameras_that_are_not_served_are_left_out(tmp_path):
    batch = stereo_batch(200, np.random.default_rng(1))
    batch.events["camera"] = (batch.events["tel_id"] % 2).astype(np.int16)
    manifest = write_stereo_tiles(tmp_path, batch, {"hexagon-b": 0.5, "hexagon-d": 1.5})
    sample = event_sample(SPEC, {}, Events(cameras=("hexagon-d",), mono={}), [manifest], settings())
    assert set(sample.images.columns["tel_id"]) == {1, 3, 5}
    assert set(sample.images.camera) == {"hexagon-d"}
    assert sample.events["n_telescopes"].min() == 2
    with pytest.raises(UserError, match="holds images of the camera hexagon-b, hexagon-d, but the bundle serves"):
        event_sample(SPEC, {}, Events(), [manifest], settings())


def test_without_a_network_for_single_telescopes_there_is_no_mono(manifest, tmp_path):
    out = evaluate_predictor(settings(), Events(mono={}), ["core"], FACTS, [manifest], tmp_path / "out")
    assert list(read(out, "core")["baselines"]) == ["hillas"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            "one telescope",
            TooFewEventsError,
            "the test split has no event with images of two telescopes; simulate an array",
        ),
        ("few", TooFewEventsError, r"the test split has \d+ gammas with weight; at least 25 are needed"),
        (
            "no positions",
            UserError,
            "the tiles do not have tel_x_m, which events of several telescopes are reconstructed",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(change, error, message, tmp_path):
    rng = np.random.default_rng(3)
    telescopes = (1, 1) if change == "one telescope" else (2, 3)
    batch = stereo_batch(120, rng, telescopes=telescopes)
    if change == "few":
        batch.split[:] = batch.group % 2
        batch.split[batch.group < 6] = 2
    if change == "no positions":
        del batch.events["tel_x_m"]
    manifest = write_stereo_tiles(tmp_path, batch)
    with pytest.raises(error, match=message):
        evaluate_predictor(settings(), Events(), ["direction"], FACTS, [manifest], tmp_path / "out")


def test_simulated_showers_of_an_array(tmp_path):
    """From the simulation to the judge: axes of real images cross near the source."""
    array = tuple(TelescopePlace(type="LST", x_m=x, y_m=y) for x in (-60, 60) for y in (-60, 60))
    thrown = ShowerClass(
        particle="gamma", runs=1, showers_per_run=24, energy_min_tev=0.3, energy_max_tev=3.0, scatter_radius_m=150.0,
        viewcone_deg=1.0,
    )  # fmt: skip
    cfg = Config(
        seed=11,
        showers=ShowersConfig(array=array, min_telescopes=2, positions_per_shower=10, classes=(thrown,)),
        evaluate=settings(energy_edges_tev=[0.3, 3.0]).evaluate,
    )
    raw = simulate_showers(cfg, 1, tmp_path / "run.dl1.h5")
    make_tiles([raw], cfg, tmp_path / "tiles")
    manifest = tmp_path / "m.json"
    make_manifest([tmp_path / "tiles" / "run.tiles.h5"], cfg, manifest)
    events = Events(mono={}, cameras=(get_telescope("LST").camera.identity,))
    out = evaluate_predictor(cfg, events, ["direction", "core"], FACTS, [manifest], tmp_path / "out")
    content = read(out, "direction")
    assert content["data"]["n"] > 25
    assert content["baselines"]["hillas"]["angular_resolution_deg"]["value"] < 0.5
    assert content["baselines"]["forest"]["angular_resolution_deg"]["value"] < 0.5
    assert read(out, "core")["baselines"]["hillas"]["core_resolution_m"]["value"] < 60
