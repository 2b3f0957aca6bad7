"""The ready configurations: each names telescopes that exist, and simulates what ctapipe reads."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.camera.showers.array import lay_out, subarray
from pipeline.config import Config, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
READY = ("lst_mono", "lst_stereo", "magic", "mixed_array", "mst_array", "sst_array")
# What their telescopes look at: degrees from the axis to the edge of the camera
FIELD_DEG = {"LST": 2.3, "MAGIC": 1.8, "MST-NectarCam": 4.1, "SST-CHEC": 4.8}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_loads_and_its_telescopes_exist(path):
    cfg = load_config(path)
    assert cfg.name == path.stem
    kinds, kind, mirrors_m = lay_out(cfg.showers)
    assert len(kind) == len(mirrors_m) == len(cfg.showers.places)
    assert {kinds[index].name for index in kind} == {place.type for place in cfg.showers.places}


@pytest.mark.parametrize("name", READY)
def test_ready_configurations_suit_their_instrument(name):
    path = CONFIGS / f"{name}.yaml"
    showers = load_config(path).showers
    gamma, proton, source = showers.classes
    assert (gamma.particle, proton.particle, source.particle) == ("gamma", "proton", "gamma")
    assert gamma.viewcone_deg > 0, "diffuse gammas to train on"
    assert source.viewcone_deg == 0 < source.offset_deg, "a point source, observed beside the camera's centre"
    # Half a proton's energy makes light: the ranges have the same light, and the protons come from farther outside.
    assert proton.energy_min_tev > gamma.energy_min_tev
    assert proton.scatter_radius_m > gamma.scatter_radius_m
    field_deg = min(FIELD_DEG[place.type] for place in showers.places)
    assert source.offset_deg < gamma.viewcone_deg < proton.viewcone_deg + 1e-9
    assert gamma.viewcone_deg <= field_deg + 0.5
    assert showers.min_telescopes == min(2, len(showers.places))
    distance = np.linalg.norm(lay_out(showers)[2][:, :2], axis=1)
    assert distance.max() < gamma.scatter_radius_m
    text = path.read_text()
    assert f"lightpool simulate showers --config configs/{name}.yaml --run 1 --out run1.h5" in text
    assert "CPU s" in text
    assert " MB" in text


def test_distances_between_telescopes():
    """Neighbouring LSTs stand some 100 m apart, the MAGIC telescopes 85 m."""

    def nearest(name):
        mirrors_m = lay_out(load_config(CONFIGS / f"{name}.yaml").showers)[2]
        distance = np.linalg.norm(mirrors_m[:, None, :2] - mirrors_m[None, :, :2], axis=2)
        return np.where(distance > 0, distance, np.inf).min(axis=1)

    assert nearest("magic") == pytest.approx([85, 85], abs=0.5)
    assert np.all((nearest("lst_stereo") > 90) & (nearest("lst_stereo") < 130))
    assert np.all((nearest("mst_array") > 130) & (nearest("mst_array") < 230))


def test_the_mixed_array_is_made_of_the_others():
    """The four LSTs, and five MSTs around them, each with a network of its own, and two for their events."""
    places = {name: load_config(CONFIGS / f"{name}.yaml").showers.places for name in ("lst_stereo", "mst_array")}
    cfg = load_config(CONFIGS / "mixed_array.yaml")
    lsts = [place for place in cfg.showers.places if place.type == "LST"]
    msts = [place for place in cfg.showers.places if place.type == "MST-NectarCam"]
    assert lsts == list(places["lst_stereo"])
    assert len(msts) == 5
    assert all(place in places["mst_array"] for place in msts)
    angle_deg = np.sort(np.degrees([np.arctan2(place.y_m, place.x_m) for place in msts]))
    assert np.diff(angle_deg, append=angle_deg[0] + 360).max() < 100
    assert min(np.hypot(place.x_m, place.y_m) for place in msts) > max(np.hypot(p.x_m, p.y_m) for p in lsts)
    assert cfg.tiles.camera.camera == "all"
    cameras = {name: network.camera for name, network in cfg.networks.items()}
    assert cameras == {"mono_lst": "LST", "mono_mst": "MST", "stereo": None, "direction": None}
    for name in ("stereo", "direction"):
        assert cfg.networks[name].start_from == ("mono_lst", "mono_mst")
    assert cfg.predict.uses == {"camera": ("stereo", "direction")}
    assert cfg.networks["mono_lst"] == cfg.networks["mono_mst"].model_copy(update={"camera": "LST"})


def few(cfg: Config, n_showers: int) -> Config:
    """The same experiment with few showers in each run, and these of the upper end of the spectrum."""
    classes = tuple(
        entry.model_copy(update={"showers_per_run": n_showers, "energy_min_tev": 10 * entry.energy_min_tev})
        for entry in cfg.showers.classes
    )
    return cfg.model_copy(update={"showers": cfg.showers.model_copy(update={"classes": classes})})


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
def test_ctapipe_reads_what_a_ready_configuration_makes(name, tmp_path):
    from ctapipe.io import TableLoader

    from pipeline.stages.simulate_showers import simulate_showers

    cfg = few(load_config(CONFIGS / f"{name}.yaml"), n_showers=8)
    expected = subarray(cfg.showers)
    run = 1
    for entry in cfg.showers.classes:
        path = simulate_showers(cfg, run, tmp_path / f"run_{run}.h5")
        run += entry.runs
        with TableLoader(path) as loader:
            events = loader.read_subarray_events()
            images = loader.read_telescope_events(dl1_images=True, true_images=True, simulated=True)
            thrown = loader.read_simulation_configuration()
            for tel_id, position_m in expected.positions_m.items():
                np.testing.assert_allclose(loader.subarray.positions[tel_id].to_value("m"), position_m, atol=1e-3)
        assert len(events) > 0, entry
        assert events["tels_with_trigger"].sum(axis=1).min() >= cfg.showers.min_telescopes
        assert len(images) == events["tels_with_trigger"].sum()
        assert np.isfinite(images["image"]).all()
        energy_tev = images["true_energy"].quantity.to_value("TeV")
        assert np.all((energy_tev > 0.99 * entry.energy_min_tev) & (energy_tev < 1.01 * entry.energy_max_tev))
        assert thrown["n_showers"][0] == 8
        assert thrown["shower_reuse"][0] == cfg.showers.positions_per_shower
        assert thrown["max_viewcone_radius"][0] == pytest.approx(entry.viewcone_deg)
        if entry.viewcone_deg == 0:
            alt_deg = images["true_alt"].quantity.to_value("deg")
            assert alt_deg == pytest.approx(90 - cfg.showers.zenith_deg + entry.offset_deg, abs=1e-4)
