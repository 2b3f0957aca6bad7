"""Telescope types: pixels against known positions of the real cameras, cameras from files, and the registry."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from ctapipe_cameras import to_ctapipe
from toy_events import toy_camera

from pipeline.camera.dl1 import DL1File, DL1Writer, Subarray
from pipeline.camera.geometry import Camera
from pipeline.camera.pixel_map import pixel_map
from pipeline.camera.showers.conditions import make_conditions
from pipeline.camera.showers.electronics import make_electronics, noise_peaks
from pipeline.camera.telescopes import get_telescope, list_telescopes, register_telescope
from pipeline.camera.telescopes.layouts import (
    hexagonal_disc,
    seven_pixel_modules,
    square_modules,
    twelve_pixel_modules,
)
from pipeline.camera.telescopes.night_sky import dark_sky_pe_per_ns
from pipeline.camera.telescopes.telescope import davies_cotton_focal_length
from pipeline.config import CameraConditions
from pipeline.errors import InputFileError, UserError

N_PIXELS = {
    "LST": 1855,
    "MST-NectarCam": 1855,
    "MST-FlashCam": 1764,
    "SST-CHEC": 2048,
    "MAGIC": 1039,
    "VERITAS": 499,
    "TAIGA-IACT": 559,
}
every_type = pytest.mark.parametrize("name", N_PIXELS)


@pytest.fixture(scope="module")
def lst():
    return get_telescope("LST")


# ---- all types -------------------------------------------------------------------------------------------------------
def test_all_types_are_tested():
    assert set(N_PIXELS) == set(list_telescopes())


@every_type
def test_number_and_distance_of_pixels(name):
    camera = get_telescope(name).camera
    assert camera.n_pixels == N_PIXELS[name]
    # Touching, not overlapping: a pixel is as wide as its distance to the next, or a little less
    assert 0.97 * camera.pitch_deg < camera.pix_width_deg[0] < 1.0001 * camera.pitch_deg
    distance = np.hypot(
        camera.pix_x_m[:, None] - camera.pix_x_m, camera.pix_y_m[:, None] - camera.pix_y_m
    ) + 10 * np.eye(camera.n_pixels)
    np.testing.assert_allclose(distance.min(axis=1), camera.pitch_m, rtol=1e-9)
    # Centred to a pixel
    assert math.hypot(camera.pix_x_m.mean(), camera.pix_y_m.mean()) < 0.01 * camera.pitch_m


@every_type
def test_ctapipe_takes_the_camera_and_finds_the_same_neighbors(name):
    camera = get_telescope(name).camera
    description = to_ctapipe(camera)
    geometry = description.camera.geometry
    assert len(geometry.neighbors) == N_PIXELS[name]
    for theirs, ours in zip(geometry.neighbors, camera.neighbors, strict=True):
        assert sorted(theirs) == sorted(ours[ours >= 0])
    # ctapipe's own test of a hexagonal layout: hexagons of that rotation touch their neighbours along edges
    if camera.hexagonal:
        pixel = int(np.argmin(np.hypot(camera.pix_x_m, camera.pix_y_m)))
        direction = np.arctan2(
            camera.pix_y_m[camera.neighbors[pixel]] - camera.pix_y_m[pixel],
            camera.pix_x_m[camera.neighbors[pixel]] - camera.pix_x_m[pixel],
        )
        turned = (np.degrees(direction) - geometry.pix_rotation.to_value("deg")) % 60
        np.testing.assert_allclose(np.minimum(turned, 60 - turned), 0, atol=1e-3)
    optics = description.optics
    assert optics.effective_focal_length >= optics.equivalent_focal_length


@every_type
def test_readout_of_camera_and_telescope_agree(name):
    telescope = get_telescope(name)
    camera = telescope.camera
    assert (camera.n_samples, camera.sampling_rate_ghz) == (telescope.n_samples, pytest.approx(1 / telescope.sample_ns))
    pulse, step = camera.reference_pulse[0], camera.reference_pulse_step_ns
    # (t / tau)^2 exp(-t / tau): peak at 2 tau, area of 2 tau e^2 / 4 times the peak
    assert np.argmax(pulse) * step == pytest.approx(2 * telescope.pulse_time_ns, abs=step)
    assert pulse.sum() * step == pytest.approx(math.e**2 / 2 * telescope.pulse_time_ns * pulse.max(), rel=2e-3)
    assert telescope.window_before_peak < telescope.window_samples < telescope.n_samples
    assert camera.mirror_area_m2 == telescope.mirror_area_m2


@every_type
def test_every_type_names_its_sources(name):
    telescope = get_telescope(name)
    assert telescope.name == name
    assert len(telescope.sources) >= 4
    assert all(text and not text.endswith(".") for text in telescope.sources)
    assert 0 < telescope.throughput <= 1
    assert telescope.efficiency.shape == telescope.wavelength_nm.shape
    assert np.all(np.diff(telescope.wavelength_nm) > 0)
    assert np.all((telescope.efficiency >= 0) & (telescope.efficiency < 0.5))
    assert 300 <= telescope.saturation_pe <= 3000


@pytest.mark.parametrize(
    ("name", "published_deg", "tolerance"),
    [
        # Round cameras: from edge to edge, at the nominal focal length
        ("MAGIC", 3.5, 0.02),  # Aleksic et al. (2016), Astropart. Phys. 72, 61
        ("VERITAS", 3.5, 0.035),  # Holder et al. (2006), Astropart. Phys. 25, 391
        ("TAIGA-IACT", 9.6, 0.04),  # Borodin et al. (2021), PoS(ICRC2021) 742: of a camera with 576 pixels
        # Hexagons with cut corners: the circle of the same area, with the plate scale of the sky
        ("LST", 4.5, 0.03),  # CTA-LST Project (2023), ApJ 956, 80
        ("MST-NectarCam", 8.0, 0.03),  # Glicenstein et al. (2013), arXiv:1307.4545
        ("MST-FlashCam", 7.7, 0.01),  # Puehlhofer et al. (2015), arXiv:1509.02434
        ("SST-CHEC", 8.3, 0.05),  # "over 8 degrees": Daniel et al. (2017), arXiv:1712.00354
    ],
)
def test_field_of_view_is_as_published(name, published_deg, tolerance):
    telescope = get_telescope(name)
    camera = telescope.camera
    if name in ("MAGIC", "VERITAS", "TAIGA-IACT"):
        diameter_m = 2 * (np.hypot(camera.pix_x_m, camera.pix_y_m).max() + camera.pitch_m / 2)
        field_deg = math.degrees(diameter_m / camera.focal_length_m)
    else:
        cell_m2 = camera.pitch_m**2 * (math.sqrt(3) / 2 if camera.hexagonal else 1)
        diameter_m = 2 * math.sqrt(camera.n_pixels * cell_m2 / math.pi)
        field_deg = math.degrees(diameter_m / camera.effective_focal_length_m)
    assert field_deg == pytest.approx(published_deg, rel=tolerance)
    # What the simulation keeps of the sky encloses it
    assert 2 * math.degrees(telescope.field_of_view_rad) > 0.95 * field_deg


@every_type
def test_night_sky_alone_hardly_triggers(name):
    """The highest of 300 windows of noise lies far enough below the threshold: the tail falls tenfold in 0.1 of it."""
    telescope, conditions = get_telescope(name), CameraConditions()
    pixels = make_conditions(telescope, conditions, 2)
    peaks = noise_peaks(make_electronics(telescope, 1, conditions), pixels, 300, 3)
    tail = np.sort(peaks)[-30:]
    slope = 1 / (tail.mean() - tail[0])  # of an exponential tail, from its mean excess
    above = 30 / 300 * math.exp(-slope * (telescope.trigger_pe_per_ns - tail[0]))
    rate_hz = above / (telescope.n_samples * telescope.sample_ns * 1e-9)
    assert rate_hz < 3000
    # ... and the threshold is not out of all proportion, either
    assert telescope.trigger_pe_per_ns < 3 * np.median(peaks)


# ---- layouts ---------------------------------------------------------------------------------------------------------
def test_lst_has_the_positions_of_the_real_camera(lst):
    camera = lst.camera
    # First, second and third pixel of the CTAO prod6 files (LSTN-design), turned to camera rotation 0
    expected = [(0.0, 0.0), (-0.0377967, -0.03273243), (-0.04724547, 0.01636666)]
    got = np.column_stack([camera.pix_x_m, camera.pix_y_m])
    np.testing.assert_allclose(got[:3], expected, atol=1e-5)
    assert camera.pitch_m == pytest.approx(0.05, rel=1e-6)
    assert camera.pix_area_m2[0] == pytest.approx(0.00207933, rel=1e-5)
    assert camera.pix_rotation_deg == pytest.approx(40.893, abs=1e-3)


def test_lst_pixels_have_six_neighbors_but_at_the_border(lst):
    count = (lst.camera.neighbors >= 0).sum(axis=1)
    assert count.max() == 6
    # 265 modules: the border of a hexagon of nine rings of modules
    assert 120 < (count < 6).sum() < 180


def test_nectarcam_has_the_pixels_of_the_lst_on_another_sky(lst):
    camera = get_telescope("MST-NectarCam").camera
    np.testing.assert_array_equal(camera.pix_x_m, lst.camera.pix_x_m)
    assert camera.identity != lst.camera.identity
    assert camera.pitch_deg == pytest.approx(0.179, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "pixels", "atol_m"),
    [
        # ctapipe's description of the camera
        ("MAGIC", {1: (-0.009820, -0.028347), 2: (-0.029459, -0.005669), 8: (-0.039279, -0.034016)}, 2e-6),
        # CTAO prod3b files, telescope 100
        ("MST-FlashCam", {0: (-0.028868, 0.150), 1: (-0.072169, 0.125), 8: (0.014434, 0.075)}, 2e-6),
        # Eventdisplay's description of the camera: 31.40 mm to the second pixel
        ("VERITAS", {0: (0.0, 0.0), 1: (0.0314, 0.0), 2: (0.0157, -0.02719)}, 5e-6),
        # CTAO prod3b files, projected from the curved focal surface
        ("SST-CHEC", {0: (-0.1022, -0.1554), 7: (-0.0573, -0.1555), 8: (-0.0491, -0.1556)}, 4e-4),
    ],
)
def test_pixels_are_where_the_real_camera_has_them(name, pixels, atol_m):
    camera = get_telescope(name).camera
    for number, position in pixels.items():
        np.testing.assert_allclose((camera.pix_x_m[number], camera.pix_y_m[number]), position, atol=atol_m)


def test_modules_do_not_overlap():
    x, y = seven_pixel_modules(2, 1.0)
    assert len(x) == 7 * (19 - 6)
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 10 * np.eye(len(x))
    assert distance.min() == pytest.approx(1.0)


@pytest.mark.parametrize("n_per_side", [1, 2, 3])
def test_twelve_pixel_modules_are_three_equal_sectors(n_per_side):
    x, y = twelve_pixel_modules(n_per_side, 1.0)
    assert len(x) == 36 * n_per_side**2
    position = (x + 1j * y).reshape(3, -1)
    np.testing.assert_allclose(position[1], position[0] * np.exp(-2j * np.pi / 3), atol=1e-12)
    distance = np.abs(position.ravel()[:, None] - position.ravel()) + 10 * np.eye(len(x))
    np.testing.assert_allclose(distance.min(axis=1), 1)
    # The sectors touch: three pixels share the centre
    assert np.count_nonzero(np.isclose(np.hypot(x, y), 1 / math.sqrt(3))) == 3


def test_disc_is_round_and_complete():
    x, y = hexagonal_disc(61, 1.0, 20.0)
    radius = np.hypot(x, y)
    # Axial norms up to 16: every position of the lattice nearer than 4 pitches, and none that is farther
    assert radius.max() == pytest.approx(4)
    assert len(x) == sum(a * a + a * b + b * b <= 16 for a in range(-9, 10) for b in range(-9, 10))
    assert radius[0] == 0
    assert np.degrees(np.arctan2(-y[1], -x[1])) == pytest.approx(20)


def test_disc_does_not_cut_shells():
    with pytest.raises(ValueError, match="560 pixels make no whole disc; the nearest are 559 and 571"):
        hexagonal_disc(560, 0.03)


def test_square_modules_have_gaps():
    x, y = square_modules((1, 2), 2, 1.0, 3.0)
    np.testing.assert_allclose(np.column_stack([x, y])[:4], [(-0.5, -2), (0.5, -2), (-0.5, -1), (0.5, -1)])
    np.testing.assert_allclose(x[4:8], [-2, -1, 1, 2])
    assert len(x) == 12


def test_light_between_modules_is_lost():
    camera = get_telescope("SST-CHEC").camera
    table, _, cell = pixel_map(camera)
    found, count = np.unique(table[table >= 0], return_counts=True)
    assert len(found) == camera.n_pixels
    np.testing.assert_allclose(count * cell**2, camera.pitch_m**2, rtol=0.2)
    assert count.sum() * cell**2 == pytest.approx(camera.n_pixels * camera.pitch_m**2, rel=0.01)


# ---- optics and sky --------------------------------------------------------------------------------------------------
def test_sphere_has_the_area_of_the_mirror(lst):
    assert math.pi * lst.sphere_radius_m**2 == pytest.approx(lst.mirror_area_m2)
    assert math.degrees(lst.field_of_view_rad) == pytest.approx(2.4, abs=0.05)


def test_focal_length_of_a_davies_cotton_mirror_by_rays():
    """Facets on a sphere around the focus, each turned so that light along the axis meets there."""
    f, diameter, delta = 12.0, 12.0, 1e-4
    u = (np.arange(400) + 0.5) / 400
    rho, phi = (grid.ravel() for grid in np.meshgrid(diameter / 2 * np.sqrt(u), 2 * np.pi * u))
    # Origin in the focus, axis towards -z; a facet reflects (0, 0, -1) to the focus
    facet = np.column_stack([rho * np.cos(phi), rho * np.sin(phi), -np.sqrt(f**2 - rho**2)])
    normal = -facet / f - np.array([0.0, 0.0, -1.0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    light = np.array([math.sin(delta), 0.0, -math.cos(delta)])
    out = light - 2 * (normal @ light)[:, None] * normal
    image = facet - (facet[:, 2] / out[:, 2])[:, None] * out
    assert abs(image[:, 0].mean()) / math.tan(delta) == pytest.approx(davies_cotton_focal_length(f, diameter), rel=0.01)


@pytest.mark.parametrize(("name", "rate", "tolerance"), [("LST", 0.24, 0.25), ("MST-NectarCam", 0.208, 0.2)])
def test_sky_gives_the_rates_that_are_known(name, rate, tolerance):
    """Rates per pixel in CTAO prod5 files, against the sky of Benn & Ellison and nothing else."""
    telescope = get_telescope(name)
    efficiency = telescope.efficiency * telescope.throughput
    computed = dark_sky_pe_per_ns(telescope.camera, telescope.mirror_area_m2, telescope.wavelength_nm, efficiency)
    assert computed == pytest.approx(rate, rel=tolerance)


# ---- cameras of files ------------------------------------------------------------------------------------------------
def write_file(path, cameras):
    """A DL1 file without events, with these cameras."""
    numbered = dict(enumerate(cameras, start=1))
    array = Subarray("test", numbered, {i: (100.0 * i, 0.0, 10.0) for i in numbered}, altitude_m=2000.0)
    with DL1Writer(path, array, obs_id=1, pointing_alt_rad=1.2, pointing_az_rad=3.0):
        pass
    return path


def changed(camera, **fields):
    return dataclasses.replace(camera, **fields)


@pytest.fixture(scope="module")
def lst_and_mst(tmp_path_factory):
    """A file where the large telescope stands before the medium one with the same pixels, one with turned pixels."""
    lst = changed(get_telescope("LST").camera, name="Large", pix_rotation_deg=10.0, cam_rotation_deg=-30.0)
    mst = changed(get_telescope("MST-NectarCam").camera, name="Medium", effective_focal_length_m=math.nan)
    mst = changed(mst, focal_length_m=15.5, mirror_area_m2=104.0, n_samples=10)
    return write_file(tmp_path_factory.mktemp("cameras") / "two.dl1.h5", [lst, mst])


def test_camera_of_a_file_keeps_mirror_and_readout(lst_and_mst):
    generated, telescope = get_telescope("MST-NectarCam"), get_telescope("MST-NectarCam", lst_and_mst)
    camera = telescope.camera
    assert (camera.name, camera.focal_length_m) == ("Medium", 15.5)
    # not in the file: by the generated camera's ratio
    assert camera.effective_focal_length_m == pytest.approx(15.5 * 16.445 / 16)
    assert (camera.n_samples, camera.mirror_area_m2) == (generated.n_samples, generated.mirror_area_m2)
    assert telescope.trigger_pe_per_ns == generated.trigger_pe_per_ns
    assert telescope.night_sky_pe_per_ns == pytest.approx(generated.night_sky_pe_per_ns * (16 / 15.5) ** 2)
    assert telescope.sources[-1] == "Pixels and focal lengths: telescope 2 (Medium) of two.dl1.h5"


def test_rotation_of_a_file_is_kept(lst_and_mst):
    camera = get_telescope("LST", lst_and_mst).camera
    assert (camera.name, camera.pix_rotation_deg, camera.cam_rotation_deg) == ("Large", 10.0, -30.0)
    assert camera.n_pixels == 1855
    assert camera.focal_length_m == 28.0


def test_without_the_same_pixels_the_mirror_decides(lst_and_mst):
    assert get_telescope("MST-FlashCam", lst_and_mst).camera.name == "Medium"


def test_file_without_such_a_telescope(lst_and_mst, tmp_path):
    with pytest.raises(
        UserError,
        match=r"two.dl1.h5 has no camera for the telescope MAGIC \(MAGICCam: 1039 hexagonal pixels, mirror of 236 m2\);"
        r" it has 1 x Large: 1855 hexagonal pixels, mirror of 387 m2, 1 x Medium: ",
    ):
        get_telescope("MAGIC", lst_and_mst)
    toy = changed(toy_camera(), mirror_area_m2=math.nan)
    with pytest.raises(UserError, match="it has 2 x Toy: 256 square pixels, mirror of nan m2"):
        get_telescope("LST", write_file(tmp_path / "toy.dl1.h5", [toy, toy]))


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = tmp_path / "camera.dl1.h5"
    camera: Camera = get_telescope("VERITAS").camera
    write_file(path, [changed(camera, focal_length_m=12.5)])
    assert get_telescope("VERITAS", path).camera.focal_length_m == 12.5
    path.unlink()
    write_file(path, [changed(camera, focal_length_m=11.5)])
    assert get_telescope("VERITAS", str(path)).camera.focal_length_m == 11.5


def test_files_without_cameras(tmp_path):
    with pytest.raises(InputFileError, match=r"missing.simtel.zst does not exist"):
        get_telescope("LST", tmp_path / "missing.simtel.zst")
    path = tmp_path / "frame.fits"
    path.write_bytes(b"SIMPLE  =                    T" + b" " * 2850)
    with pytest.raises(InputFileError, match="is a fits file; cameras are read from simtel and ctapipe DL1 files"):
        get_telescope("LST", path)


@pytest.mark.parametrize(
    ("name", "file", "tolerance_m"),
    [
        ("LST", "pe_calib_events.simtel.gz", 2e-5),
        ("MST-NectarCam", "pe_calib_events.simtel.gz", 2e-5),
        ("MST-FlashCam", "pe_calib_events.simtel.gz", 2e-5),
        ("SST-CHEC", "pe_gamma_merged.simtel.gz", 4e-4),
    ],
)
def test_generated_pixels_are_those_of_simtel_files(data_dir, name, file, tolerance_m):
    from scipy.spatial import cKDTree

    generated = get_telescope(name).camera
    camera = get_telescope(name, data_dir / "camera" / "simtel" / file).camera
    real = cKDTree(np.column_stack([camera.pix_x_m, camera.pix_y_m]))
    distance, index = real.query(np.column_stack([generated.pix_x_m, generated.pix_y_m]))
    assert distance.max() < tolerance_m
    assert len(np.unique(index)) == camera.n_pixels == generated.n_pixels
    if name != "SST-CHEC":  # another focal length there
        assert generated.identity == camera.identity


# ---- the registry ----------------------------------------------------------------------------------------------------
def test_unknown_telescope_lists_the_known():
    with pytest.raises(UserError, match=r"unknown telescope 'lst2'; did you mean 'LST'\? \(accepted: LST, MAGIC, .*"):
        get_telescope("lst2")
    with pytest.raises(UserError, match=r"did you mean 'MST-FlashCam'\?"):
        get_telescope("mst_flashcam")


def test_a_name_is_taken_once():
    with pytest.raises(
        UserError,
        match=r"two modules register a telescope named 'LST': .*telescopes.lst and .*; rename one of them",
    ):
        register_telescope("LST")(lambda: None)


TOY_TELESCOPE = """
import dataclasses

from pipeline.camera.telescopes.registry import build_telescope, register_telescope


@register_telescope("Toy")
def _toy():
    return dataclasses.replace(build_telescope("VERITAS"), name="Toy", sources=("made up",))
"""


def test_a_file_in_a_plugin_folder_is_a_telescope(tmp_path):
    (tmp_path / "telescopes").mkdir()
    (tmp_path / "telescopes" / "toy.py").write_text(TOY_TELESCOPE)
    showers = {"particle": "gamma", "runs": 1, "showers_per_run": 3, "energy_min_tev": 1.0, "energy_max_tev": 2.0}
    config = {"name": "toy", "showers": {"telescope": "Toy", "classes": [showers | {"scatter_radius_m": 60.0}]}}
    (tmp_path / "toy.yaml").write_text(json.dumps(config))
    out = tmp_path / "run.dl1.h5"
    code = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    command = ["simulate", "showers", "--config", str(tmp_path / "toy.yaml"), "--run", "1", "--out", str(out)]
    # Two processes: those that simulate find the folder as well.
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--jobs", "2"],
        capture_output=True, text=True, check=False, env=os.environ | {"LIGHTPOOL_PLUGINS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with DL1File(out) as file:
        assert file.n_images > 0
        assert [camera.n_pixels for camera in file.telescopes.values()] == [499]
    assert "Toy" not in list_telescopes()


def test_telescopes_need_neither_ctapipe_nor_numba():
    heavy = "('ctapipe', 'numba', 'h5py', 'scipy')"
    code = f"import sys, pipeline.camera.telescopes; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
