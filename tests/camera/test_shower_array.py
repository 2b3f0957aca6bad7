"""Arrays: stereo events, coincident times, several kinds of cameras in one file, waveforms; and muons and nuclei."""

import math

import astropy.units as u
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1File
from pipeline.camera.dl1.coordinates import impact_distance_m
from pipeline.camera.showers.array import lay_out, split_rays, subarray
from pipeline.camera.showers.cherenkov import RAY, new_record
from pipeline.camera.showers.generate import ShowerSimulator
from pipeline.camera.showers.particles import NEUTRON, PROTON, SPEED_OF_LIGHT_M_PER_NS
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.transport import follow_shower
from pipeline.camera.telescopes import get_telescope
from pipeline.config import CameraConditions, Config, ShowerClass, ShowersConfig, TelescopePlace, parse_config
from pipeline.errors import InputFileError, UserError
from pipeline.stages.simulate_showers import simulate_showers

N_SHOWERS, N_USES = 12, 4
STEREO = {"energy_min_tev": 0.05, "energy_max_tev": 1.0, "scatter_radius_m": 250.0}
SQUARE = tuple(TelescopePlace(type="LST", x_m=x, y_m=y) for x in (-50, 50) for y in (-50, 50))
MIXED = (
    TelescopePlace(type="MAGIC", x_m=-60),
    TelescopePlace(type="LST", y_m=70, z_m=5),
    TelescopePlace(type="MAGIC", x_m=60),
)


def config(array, particle="gamma", showers_per_run=N_SHOWERS, of_class=None, **settings):
    thrown = {"energy_min_tev": 0.3, "energy_max_tev": 3.0, "scatter_radius_m": 150.0, "viewcone_deg": 1.0}
    thrown |= {"particle": particle, "runs": 1, "showers_per_run": showers_per_run} | (of_class or {})
    showers = {"array": array, "positions_per_shower": N_USES, "classes": (ShowerClass(**thrown),)} | settings
    return Config(seed=5, showers=ShowersConfig(**showers))


def simulated(cfg, folder, **kwargs):
    return simulate_showers(cfg, 1, folder / "run_1.dl1.h5", **kwargs)


def tables(path):
    """Telescope triggers (with their times in ns within the second) and showers by event."""
    with h5py.File(path) as file:
        trigger = file["dl1/event/telescope/trigger"][:]
        showers = file["simulation/event/subarray/shower"][:]
    nanoseconds = 1e9 * trigger["time"][:, 0].astype(float) + 0.25 * trigger["time"][:, 1]
    return trigger, nanoseconds, {int(row["event_id"]): row for row in showers}


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    return simulated(config(SQUARE, of_class=STEREO, min_telescopes=2), tmp_path_factory.mktemp("stereo"))


@pytest.fixture(scope="module")
def mixed_config():
    return config(MIXED, waveforms=True, camera=CameraConditions(dead_pixel_fraction=0.01), showers_per_run=6)


@pytest.fixture(scope="module")
def mixed(mixed_config, tmp_path_factory):
    return simulated(mixed_config, tmp_path_factory.mktemp("mixed"))


# ---- stereo ----------------------------------------------------------------------------------------------------------
def test_telescopes_of_an_event_share_shower_and_core(stereo):
    trigger, _, showers = tables(stereo)
    events, multiplicity = np.unique(trigger["event_id"], return_counts=True)
    assert len(events) > 5
    assert multiplicity.min() >= 2
    assert set(showers) == set(events.tolist())
    with DL1File(stereo) as file:
        assert file.telescopes[1] is file.telescopes[4]
        for chunk in file.chunks():
            np.testing.assert_array_equal(chunk.shower_id, chunk.event_id // 100)
            for column, name in (("true_core_x", "true_core_x_m"), ("true_energy", "true_energy_tev")):
                expected = [showers[event][column] for event in chunk.event_id.tolist()]
                np.testing.assert_array_equal(chunk.truth[name], expected)
    # The uses of one shower differ in nothing but the core.
    for number in set(events // 100):
        rows = [row for event, row in showers.items() if event // 100 == number]
        assert {row["shower_id"] for row in rows} == {number}
        assert len({row["true_energy"] for row in rows}) == len({row["true_x_max"] for row in rows}) == 1
        assert len({row["true_core_x"] for row in rows}) == len(rows)


def test_impact_distances_are_to_the_mirror_centres(stereo):
    array = subarray(config(SQUARE).showers)
    with DL1File(stereo) as file, h5py.File(stereo) as raw:
        for chunk in file.chunks():
            written = raw[f"simulation/event/telescope/impact/tel_{chunk.tel_id:03d}"]["true_impact_distance"]
            expected = impact_distance_m(chunk.truth, array.positions_m[chunk.tel_id])
            np.testing.assert_allclose(written, expected, rtol=1e-9)


def test_times_coincide_after_geometry(stereo):
    """Without the way that the light front still has to go, the telescopes of an event trigger within 20 ns."""
    trigger, time_ns, showers = tables(stereo)
    positions = subarray(config(SQUARE).showers).positions_m
    spreads, raw = [], []
    for event, row in showers.items():
        here = trigger["event_id"] == event
        alt, az = np.radians([row["true_alt"], row["true_az"]])
        axis = np.array([math.cos(alt) * math.cos(az), -math.cos(alt) * math.sin(az), math.sin(alt)])
        place = np.array([positions[tel_id] for tel_id in trigger["tel_id"][here].tolist()])
        raw.append(np.ptp(time_ns[here]))
        spreads.append(np.ptp(time_ns[here] + place @ axis / SPEED_OF_LIGHT_M_PER_NS))
    assert max(spreads) < 20
    assert max(raw) > 50
    assert np.all(abs(time_ns * 1e-9 - trigger["event_id"] / 100) < 1e-6)


def test_min_telescopes_only_drops_events(stereo, tmp_path):
    alone = simulated(config(SQUARE, of_class=STEREO), tmp_path)
    every, stereo_only = tables(alone)[0], tables(stereo)[0]
    ids, multiplicity = np.unique(every["event_id"], return_counts=True)
    assert (multiplicity == 1).any()
    np.testing.assert_array_equal(np.unique(stereo_only["event_id"]), ids[multiplicity >= 2])
    with DL1File(alone) as one, DL1File(stereo) as two:
        several = next(two.chunks(tel_ids=[2]))
        same = next(one.chunks(tel_ids=[2], event_ids=several.event_id.tolist()))
    np.testing.assert_array_equal(same.image, several.image)


# ---- several kinds of cameras ----------------------------------------------------------------------------------------
def test_layout(mixed_config):
    kinds, kind, mirrors = lay_out(mixed_config.showers)
    assert [telescope.name for telescope in kinds] == ["MAGIC", "LST"]
    assert kind.tolist() == [0, 1, 0]
    magic, lst = kinds
    np.testing.assert_allclose(
        mirrors, [(-60, 0, magic.mirror_height_m), (0, 70, 5 + lst.mirror_height_m), (60, 0, magic.mirror_height_m)]
    )
    array = subarray(mixed_config.showers)
    assert array.telescopes[1] is array.telescopes[3]
    assert array.telescopes[2].n_pixels == 1855


def test_our_reader_reads_mixed_cameras(mixed):
    trigger, _, _ = tables(mixed)
    with DL1File(mixed) as file:
        assert file.tel_ids == [1, 2, 3]
        pixels = {chunk.tel_id: chunk.image.shape[1] for chunk in file.chunks()}
        counts = [file.n_images_of(tel_id) for tel_id in (1, 2, 3)]
    assert pixels == {1: 1039, 2: 1855, 3: 1039}
    assert counts == np.bincount(trigger["tel_id"])[1:].tolist()
    assert min(counts) > 3


def test_ctapipe_reads_mixed_cameras_and_waveforms(mixed):
    """Table loader and event source, and ctapipe's extraction of charges from the waveforms gives ours."""
    from ctapipe.calib import CameraCalibrator
    from ctapipe.io import EventSource, TableLoader

    with TableLoader(mixed) as loader:
        by_type = {
            str(telescope): loader.read_telescope_events([telescope], dl1_images=True, simulated=True)
            for telescope in loader.subarray.telescope_types
        }
    assert sorted(table["image"].shape[1] for table in by_type.values()) == [1039, 1855]
    pairs = {1039: [], 1855: []}
    with EventSource(mixed) as source:
        assert {level.name for level in source.datalevels} >= {"R1", "DL1_IMAGES", "DL1_PARAMETERS"}
        calibrate = CameraCalibrator(source.subarray, image_extractor_type="NeighborPeakWindowSum")
        n_events = 0
        for event in source:
            n_events += 1
            ours = {tel_id: camera_event.image.copy() for tel_id, camera_event in event.dl1.tel.items()}
            assert set(event.r1.tel) == set(ours) == set(event.trigger.tels_with_trigger)
            for tel_id, r1 in event.r1.tel.items():
                telescope = source.subarray.tel[tel_id].camera
                assert r1.waveform.shape == (1, telescope.geometry.n_pixels, telescope.readout.n_samples)
                assert set(np.unique(r1.pixel_status)) == {0, 4}
                assert not ours[tel_id][r1.pixel_status == 0].any()
                assert not r1.waveform[0, r1.pixel_status == 0].any()
                # What ctapipe would take from a file of monitoring data
                broken = (r1.pixel_status == 0)[None]
                event.monitoring.tel[tel_id].camera.coefficients.outlier_mask = broken
            calibrate(event)
            for tel_id, image in ours.items():
                bright = image > 15
                pairs[len(image)].append((event.dl1.tel[tel_id].image[bright].sum(), image[bright].sum()))
    assert n_events == len(np.unique(tables(mixed)[0]["event_id"]))
    for charges in pairs.values():
        theirs, our = np.sum(charges, axis=0)
        assert our > 500
        assert theirs / our == pytest.approx(1, abs=0.05)


def test_jobs_change_no_byte_of_a_mixed_array(mixed, mixed_config, tmp_path):
    several = simulated(mixed_config, tmp_path, jobs=2)
    assert several.read_bytes() == mixed.read_bytes()


def test_ctapipe_counts_every_use_of_a_shower(mixed):
    """The number of thrown showers that ctapipe's tools reweight with, and how they were thrown."""
    from ctapipe.io import TableLoader
    from ctapipe.io.dl2_tables_preprocessing import DL2EventLoader

    with TableLoader(mixed) as loader:
        distribution = loader.read_shower_distribution()
        stub = type("Loader", (), {"log": None})()
        info, _ = DL2EventLoader.get_simulation_information(stub, loader, obs_time=1 * u.h)
    assert info.n_showers == 6 * N_USES
    assert info.spectral_index == -2
    assert (info.energy_min.to_value("TeV"), info.energy_max.to_value("TeV")) == pytest.approx((0.3, 3.0))
    assert (info.max_impact.to_value("m"), info.viewcone_max.to_value("deg")) == (150, 1)
    assert distribution["histogram"][0].sum() == 6 * N_USES
    assert distribution["histogram"][0].shape == (40, 20)


# ---- particles -------------------------------------------------------------------------------------------------------
def test_helium_is_four_nucleons():
    simulator = ShowerSimulator(config(SQUARE, particle="helium").showers, 1, 5)
    primary = simulator.primary(3)
    record = simulator.follow(primary)
    rays, first_m = record.rays[: record.n_rays[0]].copy(), float(record.first_interaction_m[0])
    profile = record.profile.copy()
    single, heights = new_record(1_000_000), []
    world = simulator.world_of(primary)
    for code, seed in zip((PROTON, PROTON, NEUTRON, NEUTRON), primary.seeds.tolist(), strict=True):
        single.first_interaction_m[0] = -1
        follow_shower(code, primary.energy_gev / 4, primary.direction, world, simulator._library, Steps(), seed, single)
        heights.append(float(single.first_interaction_m[0]))
    assert len(rays) == single.n_rays[0] > 100
    np.testing.assert_array_equal(rays, single.rays[: len(rays)])
    np.testing.assert_array_equal(profile, single.profile)
    assert first_m == max(heights)
    assert len(set(heights)) == 4


def test_a_file_of_nuclei_says_how_they_were_made(tmp_path):
    path = simulated(config((), "helium", 2), tmp_path)
    with DL1File(path) as file:
        assert '"nucleus": "superposition: 4 independent nucleons' in file.provenance
    with h5py.File(path) as file:
        assert set(file["simulation/event/subarray/shower"]["true_shower_primary_id"]) == {402}


def test_muons_from_near_the_ground_make_rings(tmp_path):
    thrown = {"energy_min_tev": 0.02, "energy_max_tev": 0.5, "scatter_radius_m": 8.0, "viewcone_deg": 0.0}
    muons = config((), "muon", 20, thrown | {"start_height_m": 1000.0}, positions_per_shower=1)
    path = simulated(muons, tmp_path)
    camera = get_telescope("LST").camera
    with h5py.File(path) as file:
        images = file["simulation/event/telescope/images/tel_001"]["true_image"]
        showers = file["simulation/event/subarray/shower"][:]
    assert set(showers["true_shower_primary_id"]) == {2}
    assert np.isnan(showers["true_x_max"]).all()
    assert np.isnan(showers["true_h_first_int"]).all()
    assert np.all((showers["true_starting_grammage"] > 650) & (showers["true_starting_grammage"] < 750))
    assert len(images) >= 18
    # A ring around the muon's direction, here that of the pointing
    scale = camera.focal_length_m / camera.effective_focal_length_m
    distance = scale * np.hypot(camera.pix_x_deg, camera.pix_y_deg)
    radius = images @ distance / images.sum(axis=1)
    assert np.median(radius) == pytest.approx(1.2, abs=0.07)
    high = config((), "muon", 20, thrown, positions_per_shower=1)
    with h5py.File(simulated(high, tmp_path, force=True)) as file:
        # From the top of the atmosphere they are scattered out of the mirror's reach.
        assert len(file["dl1/event/subarray/trigger"]) < 10


# ---- small parts -----------------------------------------------------------------------------------------------------
def test_rays_are_split_by_telescope_in_their_order():
    rays = np.zeros(1000, RAY)
    rays["telescope"] = np.random.default_rng(0).integers(0, 5, 1000)
    rays["t"] = np.arange(1000)
    parts = split_rays(rays, 7)
    assert [len(part) for part in parts[5:]] == [0, 0]
    for telescope, part in enumerate(parts):
        np.testing.assert_array_equal(part["t"], np.flatnonzero(rays["telescope"] == telescope))


def test_unknown_type_in_an_array(tmp_path):
    with pytest.raises(UserError, match=r"unknown telescope 'LSST'"):
        simulated(config((TelescopePlace(type="LSST"),)), tmp_path)


def test_geometry_from_a_file(mixed, tmp_path):
    """A camera that a DL1 file describes takes the place of the built-in one."""
    cfg = config((TelescopePlace(type="MAGIC"),), geometry_files={"MAGIC": str(mixed)}).showers
    (kind,), _, _ = lay_out(cfg)
    assert kind.camera.n_pixels == 1039
    assert kind.camera is not get_telescope("MAGIC").camera
    missing = config((TelescopePlace(type="MAGIC"),), geometry_files={"MAGIC": str(tmp_path / "no.h5")})
    with pytest.raises(InputFileError, match=r"no\.h5 does not exist"):
        simulated(missing, tmp_path)
    assert not list(tmp_path.iterdir())


def test_geometry_for_a_type_that_is_not_there():
    with pytest.raises(UserError, match=r"geometry_files names VERITAS; .* has LST"):
        parse_config({"showers": {"geometry_files": {"VERITAS": "x.h5"}}})


def test_more_telescopes_asked_for_than_there_are():
    with pytest.raises(UserError, match="min_telescopes is 2, the array has 1"):
        parse_config({"showers": {"min_telescopes": 2}})
