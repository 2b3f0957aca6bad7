"""Bundles from Python."""

import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1

from pipeline.apps import load_bundle
from pipeline.camera.dl1 import DL1File
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("api")
    camera_bundle(root / "energy", "energy", toy_camera().identity)
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    pixels = np.random.default_rng(1).normal(200, 15, (64, 70)).astype(np.float32)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "electron"})).writeto(root / "frame.fits")
    return root


def test_files_and_arrays_give_the_same(folder):
    bundle = load_bundle(folder / "energy", threads=1)
    assert repr(bundle) == "<lightpool bundle tiny_energy: energy, by_hand>"
    from_file = list(bundle.predict_file(folder / "run.dl1.h5", tel_id=1))
    with DL1File(folder / "run.dl1.h5") as file:
        (chunk,) = file.chunks(100, tel_ids=[1])
    values = bundle.predict_images(chunk.image, chunk.peak_time, chunk.camera)
    expected = [r["reco_energy_tev"] if r["valid"] else np.nan for r in from_file]
    np.testing.assert_allclose(values["reco_energy_tev"], expected, rtol=1e-6)
    assert [r.get("reason", "") for r in from_file] == values["reason"].tolist()


def test_one_event(folder):
    (record,) = load_bundle(folder / "energy").predict_file(folder / "run.dl1.h5", event_id=FIRST_EVENT + 1, tel_id=1)
    assert record["event_id"] == FIRST_EVENT + 1


def test_one_image_needs_no_batch_axis(folder):
    values = load_bundle(folder / "energy").predict_images(np.zeros(256), np.zeros(256), toy_camera())
    assert values["reason"].tolist() == ["nothing left by the cleaning"]


def test_a_frame_is_restored(folder):
    restored, err, dq = load_bundle(folder / "denoise").restore(folder / "frame.fits", tile_px=64, overlap_px=16)
    np.testing.assert_allclose(restored, fits.getdata(folder / "frame.fits"), rtol=1e-5)
    assert err.shape == dq.shape == restored.shape


def test_wrong_wing_and_shape(folder):
    with pytest.raises(UserError, match="tiny_energy is a model for camera images, not for FITS frames"):
        load_bundle(folder / "energy").restore(folder / "frame.fits")
    with pytest.raises(UserError, match="tiny_denoise is a model for FITS frames"):
        list(load_bundle(folder / "denoise").predict_file(folder / "run.dl1.h5"))
    with pytest.raises(ValueError, match=r"must both be \(n, 256\)"):
        load_bundle(folder / "energy").predict_images(np.zeros((2, 9)), np.zeros((2, 9)), toy_camera())
