"""What does not fit in a file, or was lost from it, is said: on the screen, and in what is made of the file."""

import gzip

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import Config
from pipeline.sky.frames import read_frame
from pipeline.stages.ingest import ingest

DATA = "the DATASUM of HDU 1 is not that of the data"
HEADER = "the CHECKSUM of HDU 1 does not fit"


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    header = fits.Header({"BUNIT": "electron", "RDNOISE": 5.0})
    image = fits.ImageHDU(rng.normal(200, 15, (50, 61)).astype(np.float32), header, name="SCI")
    path = tmp_path / "frame.fits"
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, checksum=True)
    return path


def _sums(path):
    return [text for text in read_frame(path).warnings if "SUM of" in text]


def _change(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_sums_that_fit_are_nothing_to_say(path):
    assert _sums(path) == []
    plain = path.read_bytes()
    path.write_bytes(gzip.compress(plain))
    assert _sums(path) == []
    path.write_bytes(plain + b"behind the last HDU")
    assert _sums(path) == []


@pytest.mark.parametrize("packed", [False, True])
def test_one_bit_of_the_pixels_is_noticed(path, packed):
    content = bytearray(path.read_bytes())
    content[-5000] ^= 4
    path.write_bytes(gzip.compress(bytes(content)) if packed else content)
    (text,) = _sums(path)
    assert text.startswith(DATA)


def test_a_card_that_changed_is_noticed_and_told_from_pixels(path):
    _change(path, b"RDNOISE =                  5.0", b"RDNOISE =                 50.0")
    (text,) = _sums(path)
    assert text.startswith(HEADER)
    assert text.endswith("check gain, read noise and saturation")


def test_sums_that_were_not_computed_are_no_sums(path):
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["CHECKSUM"] = "0" * 16
        hdus[1].header["DATASUM"] = ""
    assert _sums(path) == []


def test_a_compressed_image_is_checked_as_stored(tmp_path):
    path = tmp_path / "frame.fits.fz"
    image = fits.CompImageHDU(np.arange(4000, dtype=np.int32).reshape(50, 80) % 97)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, checksum=True)
    assert _sums(path) == []
    content = bytearray(path.read_bytes())
    content[content.rindex(b"DATASUM = '") + 11] ^= 1  # another digit
    path.write_bytes(content)
    (text,) = _sums(path)
    assert text.startswith(DATA)


def test_an_extension_of_an_unknown_kind_is_named(path):
    _change(path, b"XTENSION= 'IMAGE   '", b"XTENSION= 'IMAGF   '")
    image = np.random.default_rng(1).normal(200, 15, (50, 61)).astype(np.float32)
    fits.append(path, image, fits.Header({"EXTNAME": "SCI"}))
    texts = read_frame(path).warnings
    assert any(text.startswith("HDU 1 is of no kind that FITS knows (XTENSION = IMAGF)") for text in texts)


@pytest.mark.parametrize("lost", ["ERR", "DQ"])
def test_planes_that_an_ingested_file_has_lost_are_named(tmp_path, path, lost):
    ingest([path], Config(), tmp_path / "out")
    made = tmp_path / "out" / "frame.fits"
    assert not any("cannot be read or was removed" in text for text in read_frame(made).warnings)
    with fits.open(made, mode="update") as hdus:
        del hdus[lost]
    assert any(f"but its {lost} cannot be read or was removed" in text for text in read_frame(made).warnings)
