"""The shower simulation against its references: verdicts, CORSIKA's files, and each comparison on few showers.

What the comparisons find on many showers is in docs/simulation.md; the slow tests here hold them to it.
"""

import json
import math

import numpy as np
import pytest

from pipeline.camera.corsika import GAMMA, PROTON, read_showers
from pipeline.camera.showers.cherenkov import PROFILE_STEP_G_CM2
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.validation import gammas, images, light, noise, pool, protons, sim_telarray, steps
from pipeline.camera.showers.validation.checks import CHECKS, ORDER, run_checks
from pipeline.camera.showers.validation.rows import Reference, Row, compared, mean_and_error, table, with_error
from pipeline.camera.telescopes import get_telescope
from pipeline.cli import main
from pipeline.errors import InputFileError, UserError

REFERENCE = Reference(100.0, 3.0, "somewhere")
# What docs/simulation.md owns up to; a row that is not here must agree.
KNOWN_DIFFERENCES = {"proton_light_40"}


# ---- verdicts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "error", "bound", "verdict"),
    [
        (104.9, 0.0, None, "agrees"),  # within 5 %
        (107.0, 2.0, None, "agrees"),  # within 2 sigma of both errors together
        (110.0, 1.0, None, "differs"),
        (110.0, 1.0, 12.0, "bounded"),
        (115.0, 1.0, 12.0, "differs"),
        (math.nan, 1.0, 12.0, "differs"),
    ],
)
def test_verdict_beside_a_reference(value, error, bound, verdict):
    row = compared("name", "quantity", "", REFERENCE, (value, error), bound_percent=bound)
    assert row.verdict == verdict
    assert row.passed == (verdict != "differs")


@pytest.mark.parametrize(("value", "verdict"), [(0.99, "differs"), (1.0, "agrees"), (1.1, "agrees"), (1.2, "differs")])
def test_verdict_of_a_range(value, verdict):
    assert Row("name", "quantity", "", value, 0.0, "somewhere", low=1.0, high=1.1).verdict == verdict


def test_a_range_has_the_leeway_of_two_errors():
    assert Row("name", "quantity", "", 0.9, 0.06, "somewhere", low=1.0).verdict == "agrees"
    assert Row("name", "quantity", "", 0.9, 0.04, "somewhere", low=1.0).verdict == "differs"


def test_differences_are_in_per_cent_and_sigma():
    row = compared("name", "quantity", "", REFERENCE, (108.0, 4.0))
    assert row.difference_percent == pytest.approx(8.0)
    assert row.difference_sigma == pytest.approx(8.0 / 5.0)
    assert json.loads(json.dumps(row.to_json()))["verdict"] == "agrees"


def test_the_table_for_readers():
    rows = [
        compared("a", "light", "", Reference(8.36e6, 0.09e6, "CORSIKA"), (8.61e6, 0.023e6)),
        Row("b", "power", "", 1.04, 0.013, "linear", low=1.0, high=1.1),
    ]
    first, second = table([row.to_json() for row in rows])
    assert first == ("light", "(8.360 ± 0.090)e6", "(8.610 ± 0.023)e6", "+3.0 %, +2.7 sigma", "agrees")
    assert second == ("power", "1 to 1.1", "1.040 ± 0.013", "", "agrees")
    assert with_error(71.5, None) == "71.5"


def test_mean_and_error():
    assert mean_and_error(np.array([1.0, 3.0])) == pytest.approx((2.0, 1.0))
    assert math.isnan(mean_and_error(np.array([1.0]))[1])


# ---- pieces of the comparisons ---------------------------------------------------------------------------------------
def test_development_of_a_known_profile():
    level = PROFILE_STEP_G_CM2 * np.arange(40)
    shape = np.exp(-((level - 213.0) ** 2) / (2 * 90.0**2))
    found = gammas.development(np.array([9.0, 10.0, 11.0])[:, None] * shape, PROFILE_STEP_G_CM2)
    assert found["depth"][0] == pytest.approx(213.0, abs=0.5)
    assert found["maximum"] == pytest.approx((10.0, 1 / math.sqrt(3)), rel=0.01)
    assert found["sum"][0] == pytest.approx(10 * 90.0 * math.sqrt(2 * math.pi), rel=0.01)


@pytest.mark.parametrize("zenith_deg", [0.0, 40.0])
def test_rings_are_at_their_impact_and_on_the_ground(zenith_deg):
    direction = light.inclined_gamma(100.0, zenith_deg).direction
    places = pool.rings(np.array([50.0, 120.0]), direction)
    impact = np.linalg.norm(np.cross(places, direction), axis=-1)
    np.testing.assert_allclose(impact, [[50.0] * pool.POOL_AZIMUTHS, [120.0] * pool.POOL_AZIMUTHS])
    np.testing.assert_allclose(places[..., 2], 0.0, atol=1e-9)


def test_photons_of_a_shower_are_those_of_its_pool():
    """Photons on spheres everywhere on the ground add up to the light of the shower, but for what misses the ring."""
    conditions = light.inclined_gamma(20.0, 0.0)
    radii = np.arange(10.0, 1500.0, 20.0)
    world = light.photon_world(conditions, pool.rings(radii, conditions.direction).reshape(-1, 3), 8.0)
    found = light.simulate(conditions, world, range(12))
    density = found.photons.reshape(12, len(radii), -1).mean(axis=2) / (math.pi * 8.0**2)
    total = (density * 2 * math.pi * radii * 20.0).sum(axis=1)
    assert total.mean() == pytest.approx(found.light.mean(), rel=0.12)


def test_the_same_seed_gives_the_same_shower():
    conditions = light.inclined_gamma(30.0)
    first, second = (light.simulate(conditions, light.photon_world(conditions), range(3)) for _ in range(2))
    np.testing.assert_array_equal(first.light, second.light)


def test_halved_steps_are_half_as_long():
    halved = steps.replace_steps(Steps(), 0.5)
    assert halved.max_radiation_lengths == Steps().max_radiation_lengths / 2
    assert halved.cut_gev == Steps().cut_gev


def test_a_ring_is_fitted_in_spite_of_noise(rng):
    camera = get_telescope("LST").camera
    angle, radius = rng.uniform(0, 2 * np.pi, 3000), rng.normal(1.12, 0.03, 3000)
    x, y = 0.2 + radius * np.cos(angle), -0.3 + radius * np.sin(angle)
    nearest = np.argmin((camera.pix_x_deg[:, None] - x) ** 2 + (camera.pix_y_deg[:, None] - y) ** 2, axis=0)
    pe = np.bincount(nearest, minlength=camera.n_pixels) + rng.poisson(0.02, camera.n_pixels)
    assert sim_telarray.ring_radius_deg(pe, camera.pix_x_deg, camera.pix_y_deg) == pytest.approx(1.12, abs=0.01)


def test_a_gradient_is_counted_away_from_the_source():
    slope, psi = np.array([3.0, 3.0, -3.0]), np.zeros(3)
    towards = images.outward_gradient(slope, psi, np.array([1.0, -1.0, -1.0]), np.zeros(3))
    np.testing.assert_array_equal(towards, [3.0, -3.0, 3.0])


def test_quartiles_leave_out_poor_bins(rng):
    sample = {"y": rng.normal(2.0, 1.0, 500), "x": np.append(np.full(495, 0.5), np.full(5, 1.5))}
    found = images.quartiles_against(sample, "y", "x", np.array([0.0, 1.0, 2.0]))
    assert found["x"].tolist() == [0.5]
    assert found["median"][0] == pytest.approx(2.0, abs=5 * found["error"][0])
    assert found["error"][0] == pytest.approx(1.2533 / math.sqrt(495), rel=0.15)


def test_quartiles_count_weights():
    sample = {"y": np.arange(40.0), "x": np.zeros(40), "weight": np.repeat([1.0, 0.0, 3.0], [10, 20, 10])}
    found = images.quartiles_against(sample, "y", "x", np.array([-1.0, 1.0]))
    assert [found[name][0] for name in ("lower", "median", "upper")] == [9.0, 33.0, 36.0]
    # Kish's effective number of images: 40^2 / 100
    assert found["error"][0] == pytest.approx(1.2533 * 27 / 1.349 / 4)


def test_weights_make_energies_alike_at_every_impact(rng):
    def sample(n, power):
        impact = rng.uniform(0, 300, n)
        return {"true_impact_m": impact, "true_energy_tev": 0.05 * (1 - rng.random(n)) ** -power * (1 + impact / 300)}

    ours, theirs = sample(50_000, 1.0), sample(5000, 0.6)
    weights = images.energies_alike(ours, theirs)
    assert np.all(weights[ours["true_energy_tev"] > images.ENERGY_EDGES_TEV[-1]] == 0)
    for low, high in ((0, 120), (120, 280)):
        means = []
        for one, weight in ((ours, weights), (theirs, np.ones(5000))):
            chosen = (one["true_impact_m"] >= low) & (one["true_impact_m"] < high) & (one["true_energy_tev"] < 8)
            means.append(np.average(np.log(one["true_energy_tev"][chosen]), weights=weight[chosen]))
        assert means[0] == pytest.approx(means[1], abs=0.05)


def test_the_power_of_a_power_law_is_found(rng):
    n = 2000
    energy = 0.1 * 60 ** rng.random(n)
    images_of_gammas = {
        "true_energy_tev": energy,
        "true_pe": rng.poisson(3000 * energy**1.06),
        "true_impact_m": np.full(n, 80.0),
        "offset_deg": np.zeros(n),
        "shower_id": np.arange(n) // 4,
    }
    power, error, _ = images.size_power(images_of_gammas)
    assert power == pytest.approx(1.06, abs=max(3 * error, 0.01))


def test_pixels_without_light_have_no_charge_in_the_mean():
    charges = noise.noise_charges(get_telescope("LST"), 4, 1)
    assert charges.mean() == pytest.approx(0.0, abs=0.05)
    assert 1.0 < charges.std() < 1.6


# ---- against numbers -------------------------------------------------------------------------------------------------
def test_gammas_against_published_numbers():
    rows, curves = gammas.check_gammas(150, None)
    assert [row.name for row in rows] == ["particles_100", "maximum_100", "depth_100", "light_100", "light_50"]
    assert all(row.passed for row in rows), table([row.to_json() for row in rows])
    assert set(curves["profile"]) == {"ours_100", "ours_50"}


def test_every_check_is_listed_once():
    assert sorted(ORDER) == sorted(CHECKS)


def test_missing_reference_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"lacks camera/corsika/.* and \d+ more files .* omit --data"):
        run_checks(tmp_path)


def test_a_wrong_directory_is_said(tmp_path, capsys):
    arguments = ["validate", "showers", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "none")]
    assert main(arguments) == 2
    assert "is not a directory; --data takes the folder of the reference files" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not a photon file at all, but long enough to be read as one" * 100])
def test_a_file_that_is_no_photon_file(tmp_path, content):
    path = tmp_path / "run.corsika.dat"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"run\.corsika\.dat cannot be read as a CORSIKA IACT photon file"):
        list(read_showers(path))
    with pytest.raises(InputFileError, match="does not exist"):
        list(read_showers(tmp_path / "missing.dat"))


def test_simtel_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "shower.simtel.zst"
    with pytest.raises(InputFileError, match="does not exist"):
        next(sim_telarray.read_events(path))
    path.write_bytes(b"no event data at all")
    with pytest.raises(InputFileError, match=r"shower\.simtel\.zst cannot be read as simtel"):
        next(sim_telarray.read_events(path))


def test_a_file_that_is_not_the_table(tmp_path):
    path = tmp_path / "table.h5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputFileError, match=r"table\.h5 is not the prod3b table"):
        images.read_table(path)


# ---- on CORSIKA's files ----------------------------------------------------------------------------------------------
def test_gamma_file(data_dir):
    showers = list(read_showers(data_dir / light.GAMMA_FILES[100]))
    assert len(showers) == 20
    run, shower = showers[0]
    assert (shower.primary, shower.energy_gev) == (GAMMA, 100.0)
    assert math.degrees(shower.zenith_rad) == pytest.approx(40.0)
    assert run.observation_height_m == pytest.approx(2147.0)
    assert run.wavelength_nm == (240.0, 1000.0)
    assert run.radius_m.tolist() == [12.5] * 4
    assert run.low_energy_model == "UrQMD"
    profile = shower.longitudinal
    assert profile.level_g_cm2[3] == 60.0
    # Each level is crossed by what is counted as charged.
    np.testing.assert_allclose(profile.charged, profile.electrons + profile.positrons + profile.muons, atol=2)
    assert len(shower.uses) == 1


def test_photons_arrive_from_the_shower(data_dir):
    """The mean direction of bunches is the shower's, turned into the array's axes; they hit the sphere."""
    for run, shower in read_showers(data_dir / light.GAMMA_FILES[50]):
        (use,) = shower.uses
        near = int(np.argmin(shower.impact_m(use)))
        bunches = use.bunches[near]
        weight = bunches["photons"]
        mean = np.array([np.average(bunches[name], weights=weight) for name in ("ux", "uy")])
        cos, sin = math.cos(shower.array_rotation_rad), math.sin(shower.array_rotation_rad)
        ux, uy, _ = shower.direction
        assert np.hypot(*(mean - [cos * ux + sin * uy, cos * uy - sin * ux])) < 0.02
        assert np.hypot(bunches["x_m"], bunches["y_m"]).max() < 1.4 * run.radius_m[near]


def test_the_4000_protons_are_200_showers(data_dir):
    showers = [shower for _, shower in read_showers(data_dir / protons.PROTON_FILE)]
    assert len(showers) == 200
    assert {len(shower.uses) for shower in showers} == {20}
    assert {shower.primary for shower in showers} == {PROTON}
    energy = np.array([shower.energy_gev for shower in showers])
    counts, _ = np.histogram(energy, protons.PROTON_BINS_GEV)
    assert counts.tolist() == [88, 66, 24, 13, 9]


def test_proton_light_against_corsika(data_dir):
    rows, curves = protons.check_protons(6, data_dir)
    assert [row.passed for row in rows] == [True] * 5, table([row.to_json() for row in rows])
    assert len(curves["protons"]["energy_gev"]) == 5
    # The first two bins hold three quarters of the showers: there the comparison is sharp.
    assert all(abs(row.difference_percent) < 12 for row in rows[:2])


def test_noise_of_sim_telarray_pixels(data_dir):
    path = data_dir / sim_telarray.GAMMA_FILES[2]
    rms = sim_telarray.dark_pixel_rms(path, "LST")
    assert len(rms) == 4
    assert rms == pytest.approx([1.33] * 4, abs=0.1)
    assert len(sim_telarray.dark_pixel_rms(path, "MST-NectarCam")) == 11
    assert sim_telarray.dark_pixel_rms(path, "MAGIC") == []


def test_half_of_a_simtel_file_is_an_error(data_dir, tmp_path):
    path = tmp_path / "half.simtel.zst"
    content = (data_dir / sim_telarray.GAMMA_FILES[0]).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputFileError, match=r"half\.simtel\.zst ends"):
        list(sim_telarray.read_events(path))


def test_telescopes_against_sim_telarray(data_dir):
    events = list(sim_telarray.read_events(data_dir / sim_telarray.GAMMA_FILES[1]))
    (event,) = events
    assert event.energy_gev == pytest.approx(200.0)
    assert [image.kind for image in event.images].count("LST") == 4
    assert max(image.pe.sum() for image in event.images if image.kind == "LST") == 1139
    assert min(event.impact_m()) == pytest.approx(35, abs=1)
    depth, simulated = next(sim_telarray.true_images(event, 0, range(1)))
    assert 50 < depth < 600
    assert [len(image) for image in simulated] == [len(image.pe) for image in event.images]


# ---- the whole, on many showers --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_everything_against_everything(data_dir, tmp_path):
    out = tmp_path / "validation"
    assert main(["validate", "showers", "--out", str(out), "--data", str(data_dir), "--jobs", "2", "-q"]) == 0
    content = json.loads((out / "validation.json").read_text())
    assert {row["name"] for row in content["rows"] if row["verdict"] == "differs"} <= KNOWN_DIFFERENCES
    assert {row["name"] for row in content["rows"] if row["verdict"] == "bounded"} <= {"proton_light_100"}
    assert len(content["figures"]) == 9
    for entry in content["figures"]:
        assert (out / entry["file"]).stat().st_size > 10_000
    from astropy.table import Table

    assert len(Table.read(out / "validation.ecsv")) == len(content["rows"])


@pytest.mark.slow
def test_quick_without_files_and_any_number_of_processes(tmp_path):
    for jobs in (1, 2):
        out = str(tmp_path / f"validation{jobs}")
        assert main(["validate", "showers", "--out", out, "--quick", "--jobs", str(jobs), "-q"]) == 0
    one, two = (json.loads((tmp_path / f"validation{jobs}" / "validation.json").read_text()) for jobs in (1, 2))
    assert not one["with_data"]
    for first, second in zip(one["rows"], two["rows"], strict=True):
        if first["name"] != "time":
            assert first == second
