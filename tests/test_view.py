"""The local page: who is answered, tiles to the bit, masks that go out; and in a browser, a real click."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest
from astropy.io import fits
from browser import Page, chromium
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1

from pipeline.apps.view.app import site_of
from pipeline.apps.view.server import ViewServer
from pipeline.config import parse_config
from pipeline.errors import UserError
from pipeline.sky.dq import DQ
from pipeline.stages.predict import predict

CFG = parse_config({"threads": 1, "predict": {"tile_px": 64, "overlap_px": 16}})
SHAPE = (300, 530)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("view")
    camera_bundle(root / "energy", "energy", toy_camera().identity)
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    pixels = np.random.default_rng(3).normal(200, 15, SHAPE).astype(np.float32)
    pixels[5, 7], pixels[100, 400] = np.nan, 5000
    header = fits.Header({"BUNIT": "electron", "GAIN": 1.0, "RDNOISE": 5.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 50.0, "CRPIX2": 40.0, "CDELT1": -1e-4, "CDELT2": 1e-4})
    fits.PrimaryHDU(pixels, header).writeto(root / "frame.fits")
    return root


@pytest.fixture(scope="module")
def serving():
    """A function that serves a file, and gives a function that asks for a path of it."""
    with ExitStack() as stack:

        def serve(path, *bundles):
            server = ViewServer(site_of(CFG, path, bundles, stack))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return server

        yield serve


@pytest.fixture(scope="module")
def frame_server(folder, serving):
    return serving(folder / "frame.fits", folder / "denoise")


@pytest.fixture(scope="module")
def event_server(folder, serving):
    return serving(folder / "run.dl1.h5", folder / "energy")


def ask(server, path, method="GET", body=None, **headers):
    """Status, headers and body of an answer; `path` is below the token unless it begins with /."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        full = path if path.startswith("/") else f"/{server.token}/{path}"
        connection.request(method, full, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def tile(server, plane, level, row, column, shape):
    status, _, body = ask(server, f"tile/0/{plane}/{level}/{row}/{column}")
    assert status == 200, body
    return np.frombuffer(body, "<u2" if plane == "dq" else "<f4").reshape(shape)


# ---- who is answered -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "headers", "text"),
    [
        ("/", {}, b"lacks its token"),
        ("/info.json", {}, b"lacks its token"),
        ("/x" * 10, {}, b"lacks its token"),
        ("info.json", {"Host": "lightpool.example:80"}, b"only 127.0.0.1 and localhost are answered"),
        ("info.json", {"Host": "127.0.0.1"}, b"only 127.0.0.1 and localhost are answered"),
    ],
)
def test_strangers_get_nothing(frame_server, path, headers, text):
    status, answered, body = ask(frame_server, path, **headers)
    assert (status, text in body) == (403, True)
    assert "default-src 'self'" in answered["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "..%2f..%2fpyproject.toml", "style.css/../../x", "view/style.css", "tile/0/after"],
)
def test_there_are_no_other_files(frame_server, path):
    assert ask(frame_server, path)[0] == 404


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(frame_server, method):
    status, headers, _ = ask(frame_server, "info.json", method)
    assert (status, headers["Allow"]) == (405, "GET, POST")


def test_posts_of_other_pages_and_long_ones_are_refused(frame_server):
    body = json.dumps({"bit": 8, "threshold": None, "edits": []})
    assert ask(frame_server, "mask/0", "POST", body, Origin="http://lightpool.example")[0] == 403
    assert ask(frame_server, "mask/0", "POST", None, **{"Content-Length": str(1 << 40)})[0] == 413
    assert ask(frame_server, "mask/0", "POST", "[1, 2]")[::2] == (
        400, b"the edits of the mask cannot be read; load the page again"
    )  # fmt: skip
    assert ask(frame_server, "nothing", "POST", "{}")[0] == 404


def test_everything_of_the_page_is_ours(frame_server):
    page = ask(frame_server, "")[2].decode()
    names = [name for name in ("style.css", "main.js", "common.js", "frames.js", "events.js", "tiles.js")]
    texts = [page] + [ask(frame_server, name)[2].decode() for name in names]
    assert all(len(text) > 500 for text in texts[:2])
    assert not any("http://" in text or "https://" in text for text in texts)
    assert ask(frame_server, "main.js")[1]["Content-Type"].startswith("text/javascript")


def test_a_port_that_is_taken(frame_server, folder):
    with ExitStack() as stack:
        site = site_of(CFG, folder / "run.dl1.h5", (), stack)
        with pytest.raises(
            UserError, match=f"cannot listen on port {frame_server.server_port} .*choose another --port"
        ):
            ViewServer(site, frame_server.server_port)


def test_models_for_other_files(folder):
    with ExitStack() as stack:
        with pytest.raises(UserError, match="holds camera images, and tiny_denoise is no model for that"):
            site_of(CFG, folder / "run.dl1.h5", [folder / "denoise"], stack)
        with pytest.raises(UserError, match="holds a FITS frame, and tiny_energy is no model for that"):
            site_of(CFG, folder / "frame.fits", [folder / "energy"], stack)


def test_other_files(folder, tmp_path):
    with ExitStack() as stack:
        with pytest.raises(UserError, match="energy is bundle; view takes simtel, DL1, lstchain and FITS files"):
            site_of(CFG, folder / "energy", (), stack)
        predict(CFG, [folder / "run.dl1.h5"], [folder / "energy"], tmp_path / "x.dl2.h5")
        with pytest.raises(UserError, match="is a DL2 file without images: give the DL1 file beside it"):
            site_of(CFG, tmp_path / "x.dl2.h5", (), stack)


@pytest.fixture
def shipped(folder, monkeypatch):
    """As if these models shipped."""
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: folder)


def test_models_that_ship_are_taken(folder, shipped, serving, caplog):
    caplog.set_level("INFO", logger="lightpool")
    info = json.loads(ask(serving(folder / "frame.fits"), "info.json")[2])
    assert info["images"][0]["planes"] == ["before", "after", "residual", "err"]
    event = json.loads(ask(serving(folder / "run.dl1.h5"), "event/1")[2])
    assert event["images"][0]["predicted"][0].startswith("energy ")
    assert [text for text in caplog.messages if "ship" in text] == [
        "frame.fits: taking denoise (denoise), which ship with lightpool",
        "run.dl1.h5: taking energy (energy), which ship with lightpool",
    ]


def test_without_a_model(folder, shipped, caplog):
    with ExitStack() as stack:
        assert list(site_of(CFG, folder / "frame.fits", (), stack, no_model=True).scenes[0].planes) == ["frame", "err"]
        assert site_of(CFG, folder / "run.dl1.h5", (), stack, no_model=True).info()["predictions"] == ""
        with pytest.raises(UserError, match="--bundle gives a model, and --no-model applies none"):
            site_of(CFG, folder / "frame.fits", [folder / "denoise"], stack, no_model=True)
    assert caplog.messages == []


def test_what_no_model_serves_is_shown_all_the_same(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: tmp_path)
    with ExitStack() as stack:
        site = site_of(CFG, folder / "run.dl1.h5", (), stack)
        assert "no model that ships serves Other, Toy" in caplog.text
        assert site.event(1)["images"][0]["predicted"] == []
        site = site_of(CFG, folder / "frame.fits", (), stack)
        assert list(site.scenes[0].planes) == ["frame", "err"]
        assert "no model that ships is for frames" in site.notes[0]


def test_the_command_ends_on_ctrl_c(folder, checkout):
    code = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "view", str(folder / "run.dl1.h5"), "--no-browser"],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    url = urlsplit(process.stdout.readline().strip())
    connection = HTTPConnection(url.hostname, url.port, timeout=10)
    connection.request("GET", f"{url.path}info.json")
    assert json.loads(connection.getresponse().read())["kind"] == "events"
    connection.close()
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.splitlines()[-1]) == (0, "ended")


# ---- frames ----------------------------------------------------------------------------------------------------------
def test_tiles_are_the_pixels_of_the_files_to_the_bit(frame_server, folder, tmp_path):
    before = fits.getdata(folder / "frame.fits").astype("<f4")
    np.testing.assert_array_equal(tile(frame_server, "before", 0, 0, 0, (256, 256)), before[:256, :256])
    np.testing.assert_array_equal(tile(frame_server, "before", 0, 1, 2, (44, 18)), before[256:, 512:])
    predict(CFG, [folder / "frame.fits"], [folder / "denoise"], tmp_path / "restored.fits")
    with fits.open(tmp_path / "restored.fits") as product:
        after, dq = product[0].data.astype("<f4"), product["DQ"].data
    np.testing.assert_array_equal(tile(frame_server, "after", 0, 0, 1, (256, 256)), after[:256, 256:512])
    np.testing.assert_array_equal(tile(frame_server, "dq", 0, 0, 0, (256, 256)), dq[:256, :256])
    np.testing.assert_array_equal(
        tile(frame_server, "residual", 0, 0, 0, (256, 256)), before[:256, :256] - after[:256, :256]
    )


def test_coarse_tiles_are_means_and_all_bits(frame_server, folder):
    before = fits.getdata(folder / "frame.fits")
    found = tile(frame_server, "before", 1, 0, 0, (150, 256))
    blocks = before[:300, :512].reshape(150, 2, 256, 2).astype(float)
    np.testing.assert_allclose(found, np.nanmean(blocks, axis=(1, 3)), rtol=1e-6)
    assert tile(frame_server, "dq", 2, 0, 0, (75, 133))[1, 1] & DQ.MISSING
    np.testing.assert_allclose(tile(frame_server, "score", 3, 0, 0, (38, 67)).max(), _score(frame_server).max())


def _whole(server, plane):
    parts = [[(256, 256), (256, 256), (256, 18)], [(44, 256), (44, 256), (44, 18)]]
    return np.block([[tile(server, plane, 0, r, c, s) for c, s in enumerate(line)] for r, line in enumerate(parts)])


def _score(server):
    return _whole(server, "score")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tile/0/before/0/9/0", "there is no tile (9, 0) of level 0"),
        ("tile/3/before/0/0/0", "there is no image 3; there are 1"),
        ("tile/0/none/0/0/0", "there is no plane none; there are before, after, residual, err, dq, score"),
        ("tile/0/before/-1/0/0", "'-1' is not a number of a pixel, tile or image"),
        ("at/0?x=600&y=1", "pixel (600, 1) is outside the image of 530 x 300 px"),
    ],
)
def test_what_is_not_there(frame_server, path, text):
    assert ask(frame_server, path)[::2] == (400, text.encode())


def test_values_of_a_pixel_and_its_place(frame_server):
    _, _, body = ask(frame_server, "at/0?x=49&y=39")
    at = json.loads(body)
    np.testing.assert_allclose(at["sky"]["deg"], [10, 20], atol=1e-9)
    assert at["sky"]["text"] == "00h40m00.00s +20d00m00.00s"
    assert at["before"] == pytest.approx(at["after"] + at["residual"], rel=1e-6)
    missing = json.loads(ask(frame_server, "at/0?x=7&y=5")[2])
    assert (missing["before"], missing["dq"] & DQ.MISSING) == (None, DQ.MISSING)
    limits = json.loads(ask(frame_server, "limits/0/before")[2])
    assert limits["zscale"][0] < 200 < limits["zscale"][1]
    assert limits["all"][1] == 5000


def test_the_mask_with_edits_is_a_fits_file(frame_server, tmp_path):
    edit = np.zeros((44, 18), np.uint8)
    edit[2, 3] = 1
    clear = np.zeros((256, 256), np.uint8)
    clear[5, 6:9] = 2
    edits = [[1, 2, base64.b64encode(edit.tobytes()).decode()], [0, 0, base64.b64encode(clear.tobytes()).decode()]]
    score, dq = _score(frame_server), _whole(frame_server, "dq")
    threshold = float(np.sort(score[np.isfinite(score)])[-10])
    asked = json.dumps({"bit": int(DQ.TRAIL), "threshold": threshold, "edits": edits})
    status, headers, body = ask(frame_server, "mask/0", "POST", asked)
    assert (status, headers["Content-Disposition"]) == (200, 'attachment; filename="frame.mask.fits"')
    (tmp_path / "mask.fits").write_bytes(body)
    with fits.open(tmp_path / "mask.fits", checksum=True) as hdus:
        hdus.verify("exception")
        mask, header = hdus[0].data, hdus[0].header
    assert (mask.dtype, mask.shape) == (np.uint16, SHAPE)
    expected = np.where(score >= threshold, dq | DQ.TRAIL, dq)
    expected[258, 515] |= DQ.TRAIL
    expected[5, 6:9] &= DQ.MISSING  # what is missing cannot be made good
    np.testing.assert_array_equal(mask, expected)
    assert (mask[5, 7], mask[5, 6]) == (DQ.MISSING, 0)
    assert (header["LPBIT16"], header["CTYPE1"], header["CRVAL1"]) == ("satellite or aircraft trail", "RA---TAN", 10.0)


def test_a_product_finds_the_frame_beside_it(folder, serving, tmp_path):
    (tmp_path / "frame.fits").write_bytes((folder / "frame.fits").read_bytes())
    predict(CFG, [tmp_path / "frame.fits"], [folder / "denoise"], tmp_path / "out.fits")
    info = json.loads(ask(serving(tmp_path / "out.fits"), "info.json")[2])
    assert info["images"][0]["planes"] == ["before", "after", "residual", "err"]
    assert info["images"][0]["score"]["label"].startswith("no score in this file")
    (tmp_path / "frame.fits").unlink()
    info = json.loads(ask(serving(tmp_path / "out.fits"), "info.json")[2])
    assert info["images"][0]["planes"] == ["frame", "err"]
    assert info["notes"] == ["the frame that out.fits was made from is not beside it: there is no picture before"]
    with ExitStack() as stack, pytest.raises(UserError, match=r"out\.fits is restored already; leave --bundle out"):
        site_of(CFG, tmp_path / "out.fits", [folder / "denoise"], stack)


# ---- events ----------------------------------------------------------------------------------------------------------
def test_an_event_with_its_images(event_server):
    assert json.loads(ask(event_server, f"find?id={FIRST_EVENT + 1}")[2]) == {"number": 1}
    event = json.loads(ask(event_server, "event/1")[2])
    assert (event["event"], [image["tel_id"] for image in event["images"]]) == (FIRST_EVENT + 1, [1, 2])
    assert event["truth"][0] == "gamma"
    first = event["images"][0]
    assert (len(first["charge"]), len(first["time"])) == (256, 256)
    assert first["predicted"][0].startswith("energy ")
    assert event["images"][1]["reason"].startswith("tiny_energy does not serve")
    camera = json.loads(ask(event_server, "camera/1/1")[2])
    assert np.shape(camera["outlines"]) == (256, 4, 2)


def test_cleaning_at_other_thresholds(event_server):
    loose, strict = (
        json.loads(ask(event_server, f"cleaned/1/1?picture={p}&boundary={b}")[2]) for p, b in ((6, 3), (60, 30))
    )
    assert set(strict["mask"]) < set(loose["mask"])
    assert dict(strict["parameters"])["pixels"] == len(strict["mask"])
    assert ask(event_server, "cleaned/1/1?picture=3&boundary=6")[::2] == (
        400, b"the boundary threshold is 6 p.e., the picture threshold 3 p.e."
    )  # fmt: skip
    assert ask(event_server, "find?id=5")[::2] == (400, b"there is no event 5 in run.dl1.h5")


def test_predictions_of_a_dl2_file_beside_it(folder, serving, tmp_path):
    (tmp_path / "run.dl1.h5").write_bytes((folder / "run.dl1.h5").read_bytes())
    predict(CFG, [tmp_path / "run.dl1.h5"], [folder / "energy"], tmp_path / "run.dl2.h5")
    server = serving(tmp_path / "run.dl1.h5")
    assert json.loads(ask(server, "info.json")[2])["predictions"] == "run.dl2.h5"
    stored = json.loads(ask(server, "event/1")[2])["images"][0]["predicted"]
    model = json.loads(ask(serving(folder / "run.dl1.h5", folder / "energy"), "event/1")[2])["images"][0]["predicted"]
    assert stored == model


# ---- in a browser ----------------------------------------------------------------------------------------------------
def test_a_real_click(frame_server, event_server, tmp_path):
    chromium()
    page = Page(tmp_path, 1280, 800)
    try:
        ready = "document.body.dataset.ready === 'yes' && document.getElementById('canvas').dataset.idle === 'true'"
        page.open(frame_server.url, ready)
        centre = page.value("(() => { const b = document.getElementById('canvas').getBoundingClientRect();"
                            " return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
        page.click(*centre)
        page.wait("document.getElementById('readout').textContent.startsWith('x 265  y 149  RA, Dec 00h3')")
        page.click_on("#panel button:nth-child(2)")
        page.wait("document.querySelector('#panel button:nth-child(2)').getAttribute('aria-pressed') === 'true'")
        page.press("e")
        page.click(*centre)
        page.press("x")
        for _ in range(100):
            if saved := [path for path in page.downloads.glob("*.mask.fits") if path.stat().st_size > 2880]:
                break
            page.wait("new Promise((done) => setTimeout(() => done(true), 50))")
        painted = fits.getdata(saved[0])
        assert painted[149, 265] & DQ.COSMIC_RAY
        assert not painted[149, 275] & DQ.COSMIC_RAY
        page.resize(360, 740)
        assert page.value("document.documentElement.scrollWidth") <= 360
        page.open(event_server.url, "document.body.dataset.ready === 'yes'")
        page.press("n")
        page.wait(f"document.querySelector('#panel input').value === '{FIRST_EVENT + 1}'")
        assert page.value("document.documentElement.scrollWidth") <= 360
        assert page.problems == []
    finally:
        page.close()
