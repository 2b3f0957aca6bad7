"""Runs of showers: reproducible, readable, and right in geometry."""

import hashlib
import math

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1File
from pipeline.camera.showers.cherenkov import new_record
from pipeline.camera.showers.generate import ShowerSimulator, depth_of_maximum, join, showers_per_block
from pipeline.config import Config, ShowerClass, ShowersConfig, TelescopePlace
from pipeline.errors import UserError
from pipeline.stages.simulate_showers import simulate_showers


def config(n_gamma=12, n_proton=25, **classes):
    common = {"runs": 1, "energy_min_tev": 0.2, "energy_max_tev": 2.0, "viewcone_deg": 1.0} | classes
    return Config(
        seed=3,
        showers=ShowersConfig(
            positions_per_shower=8,
            classes=(
                ShowerClass(particle="gamma", showers_per_run=n_gamma, **common),
                ShowerClass(particle="proton", showers_per_run=n_proton, **common),
                ShowerClass(particle="electron", showers_per_run=2, **common),
            ),
        ),
    )


@pytest.fixture(scope="module")
def cfg():
    return config()


@pytest.fixture(scope="module")
def gamma_file(cfg, tmp_path_factory):
    return simulate_showers(cfg, 1, tmp_path_factory.mktemp("showers") / "run_1.dl1.h5")


@pytest.fixture(scope="module")
def gammas(gamma_file):
    with DL1File(gamma_file) as file:
        (chunk,) = file.chunks(size=10_000)
    return chunk


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_equal_seeds_give_equal_bytes(cfg, gamma_file, tmp_path):
    again = simulate_showers(cfg, 1, tmp_path / "again.dl1.h5")
    assert sha256(again) == sha256(gamma_file)
    other = simulate_showers(cfg, 1, tmp_path / "other.dl1.h5", seed=4)
    assert sha256(other) != sha256(gamma_file)


def test_a_shower_does_not_depend_on_what_came_before(cfg):
    simulator = ShowerSimulator(cfg.showers, 1, 3)
    chunks = {number: simulator.shower(number)[0] for number in (5, 2, 7, 5)}
    fresh = ShowerSimulator(cfg.showers, 1, 3)
    for number in (2, 5, 7):
        (expected,) = fresh.shower(number)
        np.testing.assert_array_equal(chunks[number].image, expected.image)
        np.testing.assert_array_equal(chunks[number].peak_time, expected.peak_time)
    assert sum(map(len, chunks.values())) > 0


def test_maxima_are_at_vertical_depths(cfg):
    """As sim_telarray counts them; 1 TeV gammas have theirs at 330 g/cm2 along the axis, from any direction."""
    found = {}
    for zenith_deg in (0.0, 60.0):
        one = cfg.showers.classes[0].model_copy(
            update={"energy_min_tev": 0.99, "energy_max_tev": 1.01, "viewcone_deg": 0.0}
        )
        simulator = ShowerSimulator(cfg.showers.model_copy(update={"zenith_deg": zenith_deg, "classes": (one,)}), 1, 3)
        chunks = [simulator.shower(number)[0] for number in range(1, 16)]
        found[zenith_deg] = np.median([chunk.truth["true_x_max_g_cm2"][0] for chunk in chunks if len(chunk)])
    assert found[0.0] == pytest.approx(330, abs=60)
    assert found[60.0] == pytest.approx(330 * math.cos(math.radians(60)), abs=30)


def test_runs_differ(cfg):
    same_class = cfg.showers.model_copy(update={"classes": (cfg.showers.classes[0].model_copy(update={"runs": 2}),)})
    first, second = (ShowerSimulator(same_class, run, 3).primary(1) for run in (1, 2))
    assert first.energy_gev != second.energy_gev


def test_a_record_that_is_too_short_is_repeated_with_room(cfg):
    simulator = ShowerSimulator(cfg.showers, 1, 3)
    number = next(n for n in range(1, 20) if len(simulator.shower(n)[0]))
    (expected,) = simulator.shower(number)
    simulator._record = new_record(10)
    np.testing.assert_array_equal(simulator.shower(number)[0].image, expected.image)


def test_events_and_truth(cfg, gammas):
    n_showers, n_positions = 12, 8
    assert 20 < len(gammas) <= n_showers * n_positions
    assert len(np.unique(gammas.event_id)) == len(gammas)
    np.testing.assert_array_equal(gammas.event_id // 100, gammas.shower_id)
    assert set(gammas.event_id % 100) <= set(range(n_positions))
    assert set(gammas.obs_id) == {1}
    truth = gammas.truth
    assert set(truth["true_primary_id"]) == {0}
    assert np.all((truth["true_energy_tev"] >= 0.2) & (truth["true_energy_tev"] <= 2.0))
    assert np.all(truth["true_offset_deg"] <= 1.0 + 1e-6)
    assert np.all(truth["true_impact_m"] <= 300)
    assert np.all((truth["true_h_first_int_m"] > 5e3) & (truth["true_h_first_int_m"] < 80e3))
    assert np.all((truth["true_x_max_g_cm2"] > 100) & (truth["true_x_max_g_cm2"] < 700))
    for number in np.unique(gammas.shower_id):
        assert len(np.unique(truth["true_energy_tev"][gammas.shower_id == number])) == 1


def test_impact_is_the_distance_from_the_axis(cfg, gammas):
    alt, az = np.radians(gammas.truth["true_alt_deg"]), np.radians(gammas.truth["true_az_deg"])
    axis = np.column_stack([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)])
    core = np.column_stack([gammas.truth["true_core_x_m"], gammas.truth["true_core_y_m"], np.zeros(len(alt))])
    distance = np.linalg.norm(np.cross([0, 0, 16.0] - core, axis), axis=1)
    np.testing.assert_allclose(distance, gammas.truth["true_impact_m"], rtol=1e-4)


def test_image_axes_point_at_the_source(gammas, gamma_file):
    """The long axis of a gamma image passes the source position, in ctapipe's telescope frame."""
    with h5py.File(gamma_file) as file:
        table = file["dl1/event/telescope/parameters/tel_001"][:]
    np.testing.assert_array_equal(table["event_id"], gammas.event_id)
    alt, az = np.radians(gammas.truth["true_alt_deg"]), np.radians(gammas.truth["true_az_deg"] - 180)
    # Parameters are in degrees of the equivalent focal length, images in those of the effective one.
    scale = 29.30565 / 28.0
    lon, lat = scale * np.degrees(az * np.cos(alt)), scale * (np.degrees(alt) - 70)
    psi = np.radians(table["hillas_psi"])
    across = (table["hillas_fov_lon"] - lon) * np.sin(psi) - (table["hillas_fov_lat"] - lat) * np.cos(psi)
    good = (table["hillas_intensity"] > 300) & (table["leakage_intensity_width_1"] < 0.1)
    good &= table["hillas_width"] < 0.6 * table["hillas_length"]
    assert good.sum() > 10
    assert np.median(np.abs(across[good])) < 0.1


def test_charges_sum_to_the_true_photo_electrons(gamma_file):
    with h5py.File(gamma_file) as file:
        image = file["dl1/event/telescope/images/tel_001"]["image"]
        true = file["simulation/event/telescope/images/tel_001"]["true_image"]
    assert true.min() >= 0
    bright = true > 30
    assert bright.sum() > 100
    assert image[bright].sum() / true[bright].sum() == pytest.approx(1.0, abs=0.03)
    dark = image[true == 0]
    assert dark.mean() == pytest.approx(0, abs=0.02)


def test_protons_are_dimmer_than_gammas_of_their_energy(cfg, gammas, tmp_path):
    path = simulate_showers(cfg, 2, tmp_path / "run_2.dl1.h5")
    with DL1File(path) as file:
        protons = next(iter(file.chunks(size=10_000)))
    assert set(protons.truth["true_primary_id"]) == {101}
    # images per shower: most protons of these energies stay below the trigger
    assert len(protons) / 25 < len(gammas) / 12


def test_ctapipe_reads_the_file(gamma_file, gammas):
    from ctapipe.io import TableLoader

    with TableLoader(gamma_file) as loader:
        table = loader.read_telescope_events(dl1_images=True, true_images=True, simulated=True)
        run = loader.read_simulation_configuration()
    assert len(table) == len(gammas)
    np.testing.assert_allclose(table["image"], gammas.image)
    np.testing.assert_allclose(table["true_energy"].quantity.to_value("TeV"), gammas.truth["true_energy_tev"])
    assert run["n_showers"][0] == 12
    assert run["shower_reuse"][0] == 8


def test_electrons_can_be_simulated(cfg, tmp_path):
    path = simulate_showers(cfg, 3, tmp_path / "run_3.dl1.h5")
    with DL1File(path) as file:
        chunk = next(iter(file.chunks(size=10_000)))
    assert set(chunk.truth["true_primary_id"]) == {1}
    assert set(chunk.obs_id) == {3}


def test_jobs_change_no_byte(cfg, gamma_file, tmp_path):
    several = simulate_showers(cfg, 1, tmp_path / "several.dl1.h5", jobs=2)
    assert sha256(several) == sha256(gamma_file)


def test_a_run_without_triggers_is_a_valid_file(tmp_path):
    dark = config(n_gamma=2, energy_min_tev=0.005, energy_max_tev=0.006)
    path = simulate_showers(dark, 1, tmp_path / "dark.dl1.h5")
    with h5py.File(path) as file:
        assert len(file["dl1/event/subarray/trigger"]) == 0
        assert file["configuration/simulation/run"]["n_showers"][0] == 2


def test_unknown_run_and_telescope(cfg, tmp_path):
    with pytest.raises(UserError, match="unknown shower run 9; the configuration defines runs 1 to 3"):
        simulate_showers(cfg, 9, tmp_path / "x.dl1.h5")
    other = cfg.model_copy(update={"showers": cfg.showers.model_copy(update={"telescope": "HST"})})
    with pytest.raises(UserError, match="unknown telescope 'HST'"):
        simulate_showers(other, 1, tmp_path / "x.dl1.h5")
    assert not list(tmp_path.iterdir())


def test_an_output_in_the_way(cfg, gamma_file):
    with pytest.raises(UserError, match=r"run_1\.dl1\.h5 exists; choose another name or add --force"):
        simulate_showers(cfg, 1, gamma_file)


def test_provenance(gamma_file):
    sidecar = gamma_file.with_name(gamma_file.name + ".provenance.json")
    assert '"stage": "simulate showers"' in sidecar.read_text()


# ---- small parts -----------------------------------------------------------------------------------------------------
def test_depth_of_maximum():
    depth = (np.arange(60) + 0.5) * 20
    assert depth_of_maximum(np.exp(-0.5 * ((depth - 333) / 100) ** 2)) == pytest.approx(333, abs=1)
    assert math.isnan(depth_of_maximum(np.zeros(60)))
    assert depth_of_maximum(np.arange(60.0)) == 59.5 * 20


def test_joined_chunks_keep_their_order(cfg):
    simulator = ShowerSimulator(cfg.showers, 1, 3)
    single = [simulator.shower(number) for number in range(1, 8)]
    (joined,), block = join(single), simulator.showers(range(1, 8))
    ids = np.concatenate([chunk.event_id for (chunk,) in single])
    assert len(ids) > 10
    for chunk in (joined, block.chunks[0]):
        np.testing.assert_array_equal(chunk.event_id, ids)
        np.testing.assert_array_equal(chunk.image, np.concatenate([part.image for (part,) in single]))
        np.testing.assert_array_equal(chunk.truth["shower_id"], ids // 100)
    assert block.energy_tev.shape == (7,)
    assert block.core_distance_m.shape == (7, 8)


def test_blocks_have_few_images_and_at_least_one_shower(cfg):
    showers = cfg.showers
    assert showers_per_block(showers) == 256 // 8
    many = showers.model_copy(update={"positions_per_shower": 100, "array": (TelescopePlace(type="LST"),) * 5})
    assert showers_per_block(many) == 1
