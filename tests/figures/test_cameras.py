"""Pixels stand where the camera has them, in one piece; the gallery shows what the simulation makes."""

import numpy as np
import pytest

from pipeline.camera.gallery import gallery_images
from pipeline.camera.showers.primaries import around, pointing
from pipeline.camera.telescopes import get_telescope, list_telescopes
from pipeline.config import ShowersConfig
from pipeline.errors import UserError
from pipeline.figures.cameras import camera_gallery, pixel_outlines_deg
from pipeline.figures.style import save_figure


@pytest.mark.parametrize("name", list_telescopes())
def test_neighbouring_pixels_share_an_edge(name):
    camera = get_telescope(name).camera
    outlines = pixel_outlines_deg(camera)
    pitch_deg = camera.pitch_deg * camera.focal_length_m / camera.effective_focal_length_m
    inner = np.flatnonzero((camera.neighbors >= 0).all(axis=1))
    assert len(inner) > 0.6 * camera.n_pixels
    pixel = inner[len(inner) // 2]
    for other in camera.neighbors[pixel]:
        distance = np.linalg.norm(outlines[pixel][:, None] - outlines[other][None], axis=2)
        # Two corners of each; gaps between modules are wider than between pixels, but less than a third of a pixel.
        assert np.count_nonzero(distance < 0.34 * pitch_deg) == 2


def test_outlines_are_on_the_sky():
    """The field of the LST, 4.3 deg across [CTA-LST Project (2023), ApJ 956, 80], with coma."""
    outlines = pixel_outlines_deg(get_telescope("LST").camera)
    assert np.ptp(outlines[..., 1]) == pytest.approx(4.5, abs=0.2)
    centres = outlines.mean(axis=1)
    assert np.linalg.norm(centres, axis=1).max() < 2.4


@pytest.fixture(scope="module")
def lst_gammas():
    return gallery_images("LST", "gamma", n=3)


def test_gallery_images(lst_gammas):
    camera, images = lst_gammas
    assert len(images) == 3
    energy_tev = [image.energy_tev for image in images]
    assert energy_tev == sorted(energy_tev)
    assert len(set(energy_tev)) == 3
    for image in images:
        assert image.charge_pe.shape == (camera.n_pixels,)
        assert image.size_pe > 100
        assert image.impact_m < 200


def test_images_lie_on_the_side_of_the_source_where_the_light_comes_from():
    """The axis of a gamma image points at the source: no mirrored or turned drawing does that for all of them."""
    camera, images = gallery_images("LST", "gamma", n=8)
    centres = pixel_outlines_deg(camera).mean(axis=1)
    n_elongated = 0
    for image in images:
        bright = image.charge_pe > max(6.0, 0.15 * image.charge_pe.max())
        weight, place = image.charge_pe[bright], centres[bright]
        cog = np.average(place, axis=0, weights=weight)
        squares, axes = np.linalg.eigh(np.cov(place.T, aweights=weight))
        # Small or round images have no axis to speak of
        if image.size_pe > 400 and squares[0] < 0.6**2 * squares[1]:
            source = np.asarray(image.source_deg) - cog
            assert abs(source @ axes[:, 0]) < 0.12
            n_elongated += 1
    assert n_elongated >= 3


def test_the_source_is_where_its_direction_is(lst_gammas):
    from pipeline.camera.gallery import _from_the_pointing

    cfg = ShowersConfig()
    alt, az = pointing(cfg)
    for position_angle, expected in ((0.0, (0, 1)), (np.pi / 2, (1, 0)), (np.pi, (0, -1))):
        source = _from_the_pointing(*around(alt, az, np.radians(1.0), position_angle), cfg)
        assert source == pytest.approx(expected, abs=1e-6)


def test_equal_images_give_equal_bytes(lst_gammas, tmp_path):
    camera, images = lst_gammas
    files = [
        save_figure(camera_gallery(camera, {"gamma": images, "proton": images[:2]}, "LST"), tmp_path / f"{i}.png")
        for i in range(2)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_cannot_be_seen_is_said(monkeypatch):
    monkeypatch.setattr("pipeline.camera.gallery._MIN_SIZE_PE", 1e9)
    monkeypatch.setattr("pipeline.camera.gallery._MAX_SHOWERS", 3)
    with pytest.raises(UserError, match=r"3 gamma showers gave 0 images of LST above 1e\+09 p\.e\.; 2 were requested"):
        gallery_images("LST", "gamma", n=2)
    with pytest.raises(UserError, match="unknown telescope 'LSST'"):
        gallery_images("LSST", "gamma")
