"""Pictures of predictions: what is drawn lies where it belongs, and what cannot be drawn is refused."""

import io
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, SIDE, toy_camera, write_toy_dl1

from pipeline.bundle.runtime import Predictor
from pipeline.camera.dl1 import DL1File
from pipeline.camera.event_views import Thresholds, event_view
from pipeline.camera.predictions import CameraModel
from pipeline.camera.telescopes import get_telescope
from pipeline.config import parse_config
from pipeline.directions import pointing_axes
from pipeline.errors import UserError
from pipeline.figures.cameras import pixel_outlines_deg
from pipeline.figures.events import event_picture, open_edges_deg
from pipeline.figures.frames import bit_layers, frame_picture
from pipeline.sky.dq import DQ
from pipeline.sky.frames import Strip, read_frame
from pipeline.sky.previews import Preview
from pipeline.stages import pictures
from pipeline.stages.pictures import Picture
from pipeline.stages.predict import predict

CFG = parse_config({"threads": 1, "predict": {"tile_px": 64, "overlap_px": 16}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for task in ("energy", "direction"):
        camera_bundle(root / task, task, toy_camera().identity)
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    rng = np.random.default_rng(1)
    header = fits.Header({"BUNIT": "electron", "GAIN": 1.0, "RDNOISE": 5.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 50.0, "CRPIX2": 40.0, "CDELT1": -1e-4, "CDELT2": 1e-4})
    fits.PrimaryHDU(rng.normal(200, 15, (90, 110)).astype(np.float32), header).writeto(root / "frame.fits")
    return root


@pytest.fixture(scope="module")
def view(folder):
    models = [CameraModel.of(Predictor.load(folder / task, threads=1)) for task in ("energy", "direction")]
    with DL1File(folder / "run.dl1.h5") as file:
        return event_view(file, FIRST_EVENT + 1, models, thresholds=Thresholds.of(models))


def test_edges_of_a_block_of_squares():
    camera, mask = toy_camera(), np.zeros((SIDE, SIDE), bool)
    mask[4:6, 7:10] = True
    edges = open_edges_deg(camera, mask.ravel())
    assert len(edges) == 2 * (2 + 3)
    # they go once around the block
    outlines = pixel_outlines_deg(camera)[mask.ravel()]
    np.testing.assert_allclose(np.ptp(edges, axis=(0, 1)), np.ptp(outlines, axis=(0, 1)))
    length_deg = np.linalg.norm(np.diff(edges, axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(length_deg, camera.pitch_deg * camera.focal_length_m / 5.1, rtol=1e-6)


def test_edges_of_hexagons():
    camera = get_telescope("LST").camera
    mask = np.zeros(camera.n_pixels, bool)
    middle = int(np.hypot(camera.pix_x_deg, camera.pix_y_deg).argmin())
    mask[middle] = True
    assert len(open_edges_deg(camera, mask)) == 6
    mask[camera.neighbors[middle]] = True
    assert len(open_edges_deg(camera, mask)) == 18
    assert len(open_edges_deg(camera, np.zeros(camera.n_pixels, bool))) == 0


def test_an_images_axis_on_the_ground_goes_through_the_core(view):
    core_m, place_m, pointing = np.array([80.0, -150.0, 0.0]), (20.0, 40.0, 12.0), (65.0, 140.0)
    along_lon, along_lat, _ = (axis[0] for axis in pointing_axes(*(np.array([angle]) for angle in pointing)))
    # towards the shower's axis, as seen along the pointing, is away from the source
    away = core_m - place_m
    psi = np.degrees(np.arctan2(away @ along_lat, away @ along_lon))
    image = view.images[0]
    known = replace(image.cleaned, parameters={**image.cleaned.parameters, "hillas_psi": psi})
    start, direction = replace(image, cleaned=known, position_m=place_m, pointing_deg=pointing).axis_on_ground()
    to_core = core_m[:2] - start
    np.testing.assert_allclose(to_core[0] * direction[1] - to_core[1] * direction[0], 0, atol=1e-9)


def test_an_event_as_it_is_seen(view):
    assert [image.tel_id for image in view.images] == [1, 2]
    one, other = view.images
    assert one.values["reco_energy_tev"] == pytest.approx(one.cleaned.parameters["hillas_intensity"] / 100, rel=1e-5)
    assert other.reason.startswith("tiny_direction does not serve the camera Other")
    assert one.reco_source_deg == pytest.approx([one.values["reco_fov_lon_deg"], one.values["reco_fov_lat_deg"]])
    assert view.particle == "gamma"
    figure = event_picture(view, ["run, $a$"])
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.partition("\n")[0] for title in titles[:3]] == [
        "telescope 1 (Toy)", "telescope 2 (Other)", "ground seen along the pointing, axes of the images",
    ]  # fmt: skip
    assert "energy" in titles[0]
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"Hillas ellipse (1 rms)", "true source", "predicted source"} <= labels


def test_pictures_are_written(folder, tmp_path):
    out = tmp_path / "event.png"
    [status] = predict(CFG, [folder / "run.dl1.h5"], [folder / "energy"], event=101, telescope=1, picture=Picture(out),
                       stream=io.StringIO())  # fmt: skip
    assert status["status"] == "ok"
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(UserError, match=r"event.png exists"):
        Picture(out)
    predict(CFG, [folder / "frame.fits"], [folder / "denoise"], tmp_path / "r.fits", picture=Picture(out, force=True))
    assert (tmp_path / "r.fits").exists()
    assert out.stat().st_size > 50_000


def test_the_event_that_is_drawn_is_predicted_once(folder, view, tmp_path, monkeypatch):
    drawn, predicted = [], []
    title, of_network = pictures.title_of_event, Predictor.predict
    monkeypatch.setattr(pictures, "title_of_event", lambda view, name: drawn.append(view) or title(view, name))
    monkeypatch.setattr(Predictor, "predict", lambda self, batch: predicted.append(batch) or of_network(self, batch))
    models = [folder / "energy", folder / "direction"]
    predict(CFG, [folder / "run.dl1.h5"], models, event=view.event_id, picture=Picture(tmp_path / "event.png"))
    assert [len(batch) for batch in predicted] == [1, 1]  # one image, which both models are for
    [again] = drawn
    assert (again.obs_id, again.event_id) == (view.obs_id, view.event_id)
    assert again.truth == pytest.approx(view.truth, nan_ok=True)
    for image, expected in zip(again.images, view.images, strict=True):
        assert image.values == pytest.approx(expected.values, nan_ok=True)
        assert (image.reason, image.reco_source_deg) == (expected.reason, expected.reco_source_deg)


@pytest.mark.parametrize(
    ("names", "path", "message"),
    [
        (["run.dl1.h5"], "a.pdf", "the picture is written as PNG, got --plot .*a.pdf; end the name in .png"),
        (["run.dl1.h5"], "a.png", "draws one event; choose it with --event ID"),
        (["run.dl1.h5", "frame.fits"], "a.png", "draws one event or one frame, got 2 files; give one"),
    ],
)
def test_what_is_not_drawn(folder, tmp_path, names, path, message):
    with pytest.raises(UserError, match=message):
        predict(CFG, [folder / name for name in names], [folder / "energy"], picture=Picture(tmp_path / path))


# ---- frames ----------------------------------------------------------------------------------------------------------
def _strips(sci, dq, rows=7):
    for top in range(0, len(sci), rows):
        part = slice(top, top + rows)
        yield Strip(top, sci[part], sci[part], dq[part], {})


def test_large_frames_are_kept_as_means_of_blocks(folder, monkeypatch):
    monkeypatch.setattr("pipeline.sky.previews.WHOLE_PX", 1000)
    monkeypatch.setattr("pipeline.sky.previews._SIDE_PX", 40)
    frame = read_frame(folder / "frame.fits")
    after, dq = np.full(frame.shape, 7.0, np.float32), np.zeros(frame.shape, np.uint16)
    after[0, 0], dq[4, 5], dq[3, 5] = np.nan, DQ.HOT, DQ.RESTORED
    preview = Preview(frame)
    assert len(list(preview.watched(_strips(after, dq)))) == 13
    pictures = preview.pictures()
    assert (pictures.step, pictures.before.shape) == (3, (30, 37))
    np.testing.assert_allclose(pictures.before[1, 2], frame.sci[3:6, 6:9].mean(), rtol=1e-6)
    np.testing.assert_allclose(pictures.before[29, 36], frame.sci[87:, 108:].mean(), rtol=1e-6)
    assert (pictures.after == 7).all()  # what is missing does not count
    assert pictures.dq[1, 1] == DQ.HOT | DQ.RESTORED
    assert np.count_nonzero(pictures.dq) == 1


def test_a_frame_with_coordinates(folder):
    frame = read_frame(folder / "frame.fits")
    dq = np.zeros(frame.shape, np.uint16)
    dq[4, 5:8], dq[7, 7] = DQ.COSMIC_RAY | DQ.RESTORED, DQ.MISSING
    preview = Preview(frame)
    list(preview.watched(_strips(frame.sci, dq)))
    figure = frame_picture(preview.pictures(), ["frame"])
    assert [axes.get_title().partition(",")[0] for axes in figure.axes] == [
        "before", "after", "mask", "before − after",
    ]  # fmt: skip
    assert all(hasattr(axes, "wcs") for axes in figure.axes)
    assert "5 arcsec" in [text.get_text() for text in figure.axes[0].texts]  # 110 px of 0.36 arcsec
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["cosmic ray: 3 px", "missing data: 1 px", "restored by the model: 3 px"]
    layers = bit_layers(dq)
    assert np.count_nonzero(layers[..., 3]) == 4
    np.testing.assert_allclose(layers[4, 5], layers[4, 7])
    only = frame_picture(preview.pictures(), ["frame"], only_flags=True)
    assert [axes.get_title() for axes in only.axes] == ["frame", "mask"]
