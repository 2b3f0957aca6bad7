"""Each telescope type: files that ctapipe reads, and image parameters on which it agrees."""

import numpy as np
import pytest

from pipeline.camera.gallery import typical_class
from pipeline.camera.telescopes import get_telescope, list_telescopes
from pipeline.config import Config, ShowersConfig
from pipeline.stages.simulate_showers import simulate_showers

LENGTHS = ("fov_lon", "fov_lat", "r", "length", "width")  # [deg]
N_SHOWERS = {"gamma": 4, "proton": 8}


def simulated(name, particle, n_showers, folder):
    thrown = typical_class(name, particle, n_showers)
    cfg = Config(seed=2, showers=ShowersConfig(telescope=name, positions_per_shower=10, classes=(thrown,)))
    return simulate_showers(cfg, 1, folder / f"{name}_{particle}.dl1.h5")


def compare_with_ctapipe(path):
    """Number of images and, by parameter, the largest difference between the file and ctapipe's own functions.

    Lengths are relative to the pixel's pitch, angles in degrees weighted by elongation: the axis of a round image is
    not defined.
    """
    import astropy.units as u
    from ctapipe.coordinates import TelescopeFrame
    from ctapipe.image import hillas_parameters, tailcuts_clean
    from ctapipe.io import HDF5EventSource, TableLoader

    # Image parameters in files of ctapipe are on the equivalent focal length's scale unless coma is corrected.
    options = {"focal_length_choice": "EQUIVALENT"}
    with TableLoader(path, **options) as loader:
        table = loader.read_telescope_events(dl1_images=True, true_images=True, simulated=True)
    assert np.isfinite(table["image"]).all()
    worst = dict.fromkeys(("intensity", *LENGTHS, "psi", "skewness", "kurtosis"), 0.0)
    n = 0
    with HDF5EventSource(path, **options) as source:
        camera_frame = source.subarray.tel[1].camera.geometry
        geometry = camera_frame.transform_to(TelescopeFrame())
        pitch_deg = float(np.sqrt(np.median(geometry.pix_area.to_value(u.deg**2))))
        for event, row in zip(source, table, strict=True):
            image = event.dl1.tel[1].image
            np.testing.assert_array_equal(image, row["image"])
            np.testing.assert_array_equal(event.simulation.tel[1].true_image, row["true_image"])
            mask = tailcuts_clean(geometry, image, picture_thresh=6, boundary_thresh=3, min_number_picture_neighbors=1)
            np.testing.assert_array_equal(mask, row["image_mask"])
            n += 1
            if np.count_nonzero(mask) < 3:
                continue
            theirs = hillas_parameters(geometry[mask], image[mask])
            for key in LENGTHS:
                difference = abs(theirs[key].to_value("deg") - row[f"hillas_{key}"]) / pitch_deg
                worst[key] = max(worst[key], difference)
            turn = (theirs.psi.to_value("deg") - row["hillas_psi"] + 90) % 180 - 90
            elongation = 1 - (theirs.width / theirs.length).to_value("")
            worst["psi"] = max(worst["psi"], abs(turn) * elongation)
            # A straight line of pixels along y has psi 90 or -90 by rounding, and its skewness the sign to go with it.
            sense = -1 if abs(theirs.psi.to_value("deg") - row["hillas_psi"]) > 179.9 else 1
            for key, sign in (("intensity", 1), ("skewness", sense), ("kurtosis", 1)):
                expected = sign * getattr(theirs, key)
                worst[key] = max(worst[key], abs(expected - row[f"hillas_{key}"]) / max(1.0, abs(expected)))
    assert n == len(table)
    return n, worst


@pytest.mark.slow
@pytest.mark.parametrize("name", list_telescopes())
def test_ctapipe_reads_each_type_and_agrees_on_hillas_parameters(name, tmp_path):
    for particle, n_showers in N_SHOWERS.items():
        n, worst = compare_with_ctapipe(simulated(name, particle, n_showers, tmp_path))
        assert n >= n_showers
        assert max(worst.values()) < 1e-3, worst


def test_typical_showers_have_more_energy_for_smaller_mirrors():
    energy_tev = {name: typical_class(name, "gamma").energy_min_tev for name in list_telescopes()}
    area_m2 = {name: get_telescope(name).mirror_area_m2 for name in list_telescopes()}
    assert sorted(energy_tev, key=energy_tev.get) == sorted(area_m2, key=area_m2.get, reverse=True)
    assert energy_tev["LST"] == pytest.approx(0.05, abs=0.01)
    assert typical_class("LST", "proton").energy_min_tev == 2 * energy_tev["LST"]
