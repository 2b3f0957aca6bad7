"""Directions, cores and heights from crossing axes: known answers, and those of ctapipe."""

import numpy as np
import pytest
from stereo_tiles import TELESCOPES_M, images_of_axis, joined

from pipeline.camera.stereo.hillas import COLUMNS, reconstruct
from pipeline.config import Config, ShowerClass, ShowersConfig, TelescopePlace
from pipeline.directions import fov_of_altaz, offset_deg, unit_vectors
from pipeline.errors import UserError
from pipeline.stages.simulate_showers import simulate_showers

FOCAL = {"focal_length_choice": "EQUIVALENT"}
CORNERS = TELESCOPES_M[:4]


@pytest.mark.parametrize("telescopes", [[0, 1], [0, 2], [0, 1, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize(("pointing", "core_error_m"), [((70.6, 0.9), 0.02), ((70.0, 359.0), 1.0)])
def test_a_shower_without_errors_is_found(telescopes, pointing, core_error_m):
    """The core is sought in the plane perpendicular to the pointing, which is right for showers from there."""
    images = images_of_axis(70.6, 0.9, (35.0, -80.0), CORNERS[telescopes], pointing)
    event = np.zeros(len(telescopes), int)
    found = reconstruct(images, event, 1)
    # Axes are drawn straight in coordinates of the field of view, where great circles are slightly bent.
    assert offset_deg(found.alt_deg, found.az_deg, 70.6, 0.9)[0] < 2e-4
    assert found.h_max_m[0] == pytest.approx(9000, rel=1e-6)
    assert found.core_x_m[0] == pytest.approx(35, abs=core_error_m)
    assert found.core_y_m[0] == pytest.approx(-80, abs=core_error_m)
    core = np.array([35.0, -80.0, 0.0])
    axis = unit_vectors(np.array([70.6]), np.array([-0.9]))[0]
    distance = np.linalg.norm(np.cross(CORNERS[telescopes] - core, axis), axis=1)
    np.testing.assert_allclose(found.impact_m(images, event), distance, atol=core_error_m)


def test_pairs_count_by_intensity_shape_and_angle():
    """At the zenith, three images whose axes cross in three places: the mean has ctapipe's weights."""
    lon, lat, psi = np.array([1.0, 0.0, 0.5]), np.array([0.0, 1.0, -1.0]), np.array([0.0, 90.0, 60.0])
    n = 3
    images = images_of_axis(90.0, 0.0, (0.0, 0.0), CORNERS[:3], (90.0, 0.0)) | {
        "hillas_fov_lon": lon, "hillas_fov_lat": lat, "hillas_psi": psi,
        "hillas_intensity": np.array([100.0, 200.0, 400.0]), "hillas_width": np.array([0.1, 0.15, 0.2]),
    }  # fmt: skip
    found = reconstruct(images, np.zeros(n, int), 1)
    weight = images["hillas_intensity"] * images["hillas_length"] / images["hillas_width"]
    crossings, weights = [], []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        along = np.array([[np.cos(a), np.sin(a)] for a in np.radians(psi[[i, j]])])
        step = np.linalg.solve(along.T * [1, -1], [lon[j] - lon[i], lat[j] - lat[i]])
        crossings.append(np.array([lon[i], lat[i]]) + step[0] * along[0])
        weights.append(weight[i] * weight[j] * abs(np.sin(np.radians(psi[i] - psi[j]))))
    expected = np.average(crossings, axis=0, weights=weights)
    place = fov_of_altaz(found.alt_deg, found.az_deg, np.array([90.0]), np.array([0.0]))
    np.testing.assert_allclose(np.ravel(place), expected, atol=2e-3)  # flat against spherical


def test_larger_cameras_count_more():
    images = images_of_axis(70.3, 0.2, (35.0, -80.0), CORNERS[:3])
    images["hillas_psi"] = images["hillas_psi"] + np.array([0.0, 0.0, 8.0])
    event = np.zeros(3, int)
    alike, larger = (reconstruct(images, event, 1, camera_radius_deg=r) for r in (1.0, np.array([2.0, 2.0, 0.5])))
    errors = [offset_deg(g.alt_deg, g.az_deg, 70.3, 0.2)[0] for g in (alike, larger)]
    assert errors[1] < 0.7 * errors[0]
    of_one_kind = reconstruct(images, event, 1, camera_radius_deg=2.3)
    assert offset_deg(of_one_kind.alt_deg, of_one_kind.az_deg, alike.alt_deg, alike.az_deg)[0] < 1e-4


def test_images_without_an_axis_do_not_count():
    good = images_of_axis(70.6, 0.9, (35.0, -80.0), CORNERS[:2])
    spoilt = images_of_axis(70.6, 0.9, (35.0, -80.0), CORNERS)
    spoilt["hillas_width"] = np.array([0.1, 0.1, 0.0, np.nan])
    spoilt["hillas_intensity"] = good["hillas_intensity"][[0, 1, 0, 0]]
    one = images_of_axis(70.6, 0.9, (35.0, -80.0), CORNERS[:1])
    parallel = images_of_axis(70.6, 0.9, (35.0, -80.0), CORNERS[:2])
    for name in ("hillas_fov_lon", "hillas_fov_lat", "hillas_psi", "tel_y_m", "tel_z_m"):
        parallel[name] = np.repeat(parallel[name][:1], 2)
    images, event = joined(good, spoilt, one, parallel)
    shuffled = np.random.default_rng(0).permutation(len(event))
    found = reconstruct({name: column[shuffled] for name, column in images.items()}, event[shuffled], 5)
    values = np.stack([found.alt_deg, found.az_deg, found.core_x_m, found.core_y_m, found.h_max_m], axis=1)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-9)
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[2:]).all()  # one image, parallel axes, no image
    assert np.isnan(found.impact_m(images, event)[event == 2]).all()


def test_north_is_no_edge():
    events = [images_of_axis(70.0, az % 360, (20.0, 10.0), CORNERS, (70.0, az % 360)) for az in (-0.5, 0.5, 180.0)]
    found = reconstruct(*joined(*events), 3)
    np.testing.assert_allclose(found.az_deg, [359.5, 0.5, 180.0], atol=1e-4)


def test_tiles_without_positions_are_refused():
    images = images_of_axis(70.6, 0.9, (35.0, -80.0), CORNERS[:2])
    del images["tel_x_m"], images["tel_y_m"]
    with pytest.raises(UserError, match=r"also reads tel_x_m, tel_y_m, which the tiles do not have; make them again"):
        reconstruct(images, np.zeros(2, int), 1)


# ---- against ctapipe -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Some hundred events of four telescopes in a corner each."""
    array = tuple(TelescopePlace(type="LST", x_m=x, y_m=y, z_m=z) for x, y, z in CORNERS)
    thrown = ShowerClass(
        particle="gamma", runs=1, showers_per_run=20, energy_min_tev=0.1, energy_max_tev=3.0, scatter_radius_m=200.0,
        viewcone_deg=1.5,
    )  # fmt: skip
    showers = ShowersConfig(array=array, min_telescopes=2, positions_per_shower=10, classes=(thrown,))
    return simulate_showers(Config(seed=5, showers=showers), 1, tmp_path_factory.mktemp("stereo") / "run.dl1.h5")


def columns_of(event, subarray):
    """Images of ctapipe's event that its reconstruction counts: more than 50 p.e. in more than 3 pixels."""
    rows = []
    for tel_id, dl1 in event.dl1.tel.items():
        hillas, pointing = dl1.parameters.hillas, event.monitoring.tel[tel_id].pointing
        if hillas.intensity > 50 and hillas.width.value > 0 and dl1.parameters.morphology.n_pixels > 3:
            place = subarray.positions[tel_id].to_value("m")
            values = (hillas.fov_lon, hillas.fov_lat, hillas.psi)
            shape = (hillas.length, hillas.width, pointing.altitude, pointing.azimuth)
            own = (*(v.to_value("deg") for v in values), hillas.intensity, *(v.to_value("deg") for v in shape), *place)
            camera = subarray.tel[tel_id].camera.geometry
            radius_deg = np.degrees((camera.guess_radius() / camera.frame.focal_length).to_value(""))
            rows.append((tel_id, radius_deg, *own))
    return rows


def check_against_ctapipe(path):
    """Compare all events; how many were valid."""
    pytest.importorskip("ctapipe")
    from ctapipe.calib import CameraCalibrator
    from ctapipe.image import ImageProcessor
    from ctapipe.io import EventSource
    from ctapipe.reco import HillasReconstructor

    rows, theirs, impacts = [], [], []
    with EventSource(path, **FOCAL) as source:
        reconstructor = HillasReconstructor(source.subarray)
        calibrate = CameraCalibrator(source.subarray)
        process = ImageProcessor(source.subarray)
        for number, event in enumerate(source):
            if source.datalevels[0].name != "DL1_IMAGES":
                calibrate(event)
                process(event)
            images = columns_of(event, source.subarray)
            rows += [(number, *row) for row in images]
            reconstructor(event)
            geometry = event.dl2.stereo.geometry["HillasReconstructor"]
            units = {"alt": "deg", "az": "deg", "core_x": "m", "core_y": "m", "h_max": "m"}
            theirs.append([getattr(geometry, name).to_value(unit) for name, unit in units.items()])
            impacts += [event.dl2.tel[row[0]].impact["HillasReconstructor"].distance.to_value("m") for row in images]
        altitude_m = source.subarray.reference_location.geodetic.height.to_value("m")
    table, theirs = np.array(rows, float), np.array(theirs)
    event, images = table[:, 0].astype(int), dict(zip(COLUMNS, table[:, 3:].T, strict=True))
    ours = reconstruct(images, event, len(theirs), camera_radius_deg=table[:, 2])
    is_valid = np.isfinite(theirs[:, 0])
    np.testing.assert_array_equal(np.isfinite(ours.alt_deg), is_valid)
    assert np.max(offset_deg(ours.alt_deg, ours.az_deg, theirs[:, 0], theirs[:, 1])[is_valid]) < 1e-5
    for name, expected in zip(("core_x_m", "core_y_m"), theirs.T[2:], strict=False):
        np.testing.assert_allclose(getattr(ours, name)[is_valid], expected[is_valid], atol=1e-3, rtol=1e-8)
    np.testing.assert_allclose((ours.h_max_m + altitude_m)[is_valid], theirs[is_valid, 4], atol=1e-3, rtol=2e-7)
    np.testing.assert_allclose(
        ours.impact_m(images, event)[is_valid[event]], np.array(impacts)[is_valid[event]], atol=1e-3
    )
    return int(is_valid.sum())


def test_equals_ctapipe(run):
    assert check_against_ctapipe(run) > 100


def test_equals_ctapipe_for_cameras_of_several_kinds(data_dir):
    assert check_against_ctapipe(data_dir / "camera" / "simtel" / "st_v035_proton_run1_za20_North_700.simtel.zst") >= 3
