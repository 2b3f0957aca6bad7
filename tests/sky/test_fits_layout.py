"""Files whose headers declare what they do not hold, packed files, and files that are only a little odd."""

import bz2
import gzip
import io
import os
import tempfile

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky.frames import layout, open_fits, read_frame, read_frames
from pipeline.sky.frames.hdus import images_left_out, pixels_of, science_hdus


@pytest.fixture
def pixels(rng):
    return rng.poisson(900, (64, 65)).astype(np.int16)


def file_of(*hdus):
    buffer = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(buffer)
    return bytearray(buffer.getvalue())


def set_card(content, keyword, value):
    """Overwrite the first card of a name."""
    place = content.index(keyword.encode().ljust(8) + b"=")
    content[place : place + 80] = (keyword.ljust(8) + "= " + value.rjust(20)).encode().ljust(80)


def add_card(content, card):
    end = content.index(b"END".ljust(80))
    content[end : end + 160] = card.encode("latin-1").ljust(80) + b"END".ljust(80)


@pytest.fixture
def put(tmp_path):
    def write(content, name="frame.fits"):
        (tmp_path / name).write_bytes(bytes(content))
        return tmp_path / name

    return write


# ---- refused before anything is allocated ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        (
            "NAXIS1",
            "10000000000",
            "is truncated or damaged: HDU 0 needs 1,280,000,000,000 bytes of data, and 8,640 are",
        ),
        ("NAXIS1", "-5", r"axes of \[-5, 64\] pixels"),
        ("NAXIS", "-3", "NAXIS = -3; allowed: 0 to 999"),
        ("NAXIS", "77777777", "NAXIS = 77777777; allowed"),
        ("NAXIS2", "1e10", "NAXIS2 = 1e10, not a whole number"),
        ("BITPIX", "17", "BITPIX = 17; allowed: 8, 16"),
        ("BITPIX", "'abc'", "BITPIX = abc, not a whole number"),
        ("SIMPLE", "F", r"not standard FITS \(SIMPLE = F\)"),
    ],
)
def test_absurd_headers(keyword, value, message, pixels, put):
    content = file_of(fits.PrimaryHDU(pixels))
    set_card(content, keyword, value)
    with pytest.raises(InputFileError, match=message):
        read_frame(put(content))


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        (
            "ZNAXIS1",
            "100000000",
            r"\[100000000, 64\] pixels in tiles of \[65, 1\] are 98461568 tiles, and the file has 64",
        ),
        ("ZTILE1", "0", r"a compressed image of \[65, 64\] pixels in tiles of \[0, 1\]"),
        ("ZTILE2", "99999999", "are 1 tiles, and the file has 64"),
        ("ZBITPIX", "3", "ZBITPIX = 3; allowed"),
        ("TFORM1", "'99999PB(3)'", "columns of 99999PB.* do not fill rows"),
        ("TFORM1", "'?'", "do not fill rows"),
        ("TFIELDS", "2147483647", "TFIELDS = 2147483647; allowed: 0 to 999"),
        ("PCOUNT", "-1", "PCOUNT = -1, GCOUNT = 1; both are 0 or more"),
    ],
)
def test_absurd_headers_of_compressed_images(keyword, value, message, pixels, put):
    content = file_of(fits.PrimaryHDU(), fits.CompImageHDU(pixels, tile_shape=(1, 65)))
    set_card(content, keyword, value)
    with pytest.raises(InputFileError, match=message):
        read_frame(put(content))


def test_more_pixels_than_their_compressed_bytes_can_hold(pixels, put):
    content = file_of(fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type="GZIP_1", tile_shape=(64, 65)))
    for keyword in ("ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2"):
        set_card(content, keyword, "90000")
    with pytest.raises(
        InputFileError, match=r"unpacks to 16,200 MB or more, and of its size no more than 512 MB .*funpack"
    ):
        read_frame(put(content))


def test_more_pixels_than_memory(pixels, put, monkeypatch):
    path = put(file_of(fits.PrimaryHDU(pixels)))
    monkeypatch.setattr("pipeline.sky.frames.hdus.memory_limit", lambda: 100_000)
    with pytest.raises(
        InputFileError, match=r"HDU \(no name\) declares 64 x 65 pixels, which need 0.000175 GB of memory"
    ):
        read_frame(path)


def test_a_header_without_end(put):
    with pytest.raises(InputFileError, match="the header of HDU 0 has no END within 8 MB"):
        read_frame(put(b"SIMPLE  =                    T".ljust(80) + b" " * 9_000_000))
    with pytest.raises(InputFileError, match="is truncated: the header of HDU 0 has no end"):
        read_frame(put(b"SIMPLE  =                    T".ljust(80)))


def test_too_many_hdus(pixels, put, monkeypatch):
    monkeypatch.setattr(layout, "_MAX_HDUS", 20)
    extension = file_of(fits.PrimaryHDU(), fits.ImageHDU())[2880:]
    with pytest.raises(InputFileError, match="has more than 20 HDUs; split it"):
        read_frame(put(file_of(fits.PrimaryHDU(pixels)) + 20 * extension))
    assert read_frame(put(file_of(fits.PrimaryHDU(pixels)) + 19 * extension)).shape == (64, 65)


# ---- packed files ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("opener", [gzip.open, bz2.open])
def test_what_stands_behind_the_last_hdu_is_not_unpacked(opener, pixels, put, tmp_path, monkeypatch):
    path = tmp_path / "bomb.fits.gz"
    with opener(path, "wb") as stream:
        stream.write(file_of(fits.PrimaryHDU(pixels)))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    monkeypatch.setattr(layout, "_UNPACKED_BYTES", 100_000)
    monkeypatch.setattr(layout, "_UNPACKED_RATIO", 1)
    np.testing.assert_array_equal(read_frame(path).sci, pixels)


def test_an_unpacked_size_that_is_declared_has_a_limit(pixels, put, monkeypatch):
    content = file_of(fits.PrimaryHDU(pixels))
    monkeypatch.setattr(layout, "_UNPACKED_BYTES", 5000)
    set_card(content, "NAXIS1", "65000000")
    with pytest.raises(
        InputFileError, match=r"unpacks to 8,320 MB or more, and of its size no more than 0 MB .* \(gunzip"
    ):
        read_frame(put(gzip.compress(content), "frame.fits.gz"))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_nothing_is_left_of_an_unpacked_file(pack, pixels, put, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))
    (tmp_path / "unpacked").mkdir()
    packed = put(pack(file_of(fits.PrimaryHDU(pixels))))
    with open_fits(packed, do_not_scale_image_data=True) as hdus:
        assert os.listdir(tmp_path / "unpacked") == []
        np.testing.assert_array_equal(pixels_of(hdus[0])[0], pixels)


def test_a_packed_file_that_is_cut_or_changed(pixels, put):
    packed = bytearray(gzip.compress(file_of(fits.PrimaryHDU(pixels))))
    with pytest.raises(InputFileError, match="is truncated or damaged; fetch it again"):
        read_frame(put(packed[:-600]))
    packed[-8] ^= 1  # the checksum
    with pytest.raises(InputFileError, match=r"is truncated or damaged; fetch it again \(CRC check failed"):
        read_frame(put(packed))


# ---- odd, and read ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_fill_of_the_last_block_may_lack(pack, pixels, put):
    content = file_of(fits.PrimaryHDU(pixels))[: 2880 + pixels.nbytes]
    frame = read_frame(put(pack(content)))
    np.testing.assert_array_equal(frame.sci, pixels)
    assert "the last block of the file is not filled up to 2880 bytes; all pixels are there" in frame.notes
    with pytest.raises(InputFileError, match="HDU 0 needs 8,320 bytes of data, and 8,318 are there"):
        read_frame(put(pack(content[:-2])))


def test_a_damaged_extension_is_told(pixels, put):
    """Its mask would silently be missing."""
    content = file_of(fits.PrimaryHDU(pixels), fits.ImageHDU(np.zeros((64, 65), np.uint8), name="MASK"))
    content[content.index(b"XTENSION") + 1] = ord("x")
    frame = read_frame(put(content))
    assert any("behind the last HDU the file goes on with what is not FITS" in text for text in frame.warnings)


@pytest.mark.parametrize(
    "card",
    [
        "OBJECT  = NGC 7000",
        "GAIN    = 1,95",
        "EXTNAME = sky",
        "BUNIT   = adu",
        "OBSERVER= Müller\x07",
    ],
)
def test_cards_that_are_no_fits(card, pixels, put, tmp_path):
    from pipeline.sky.ingest import ingest_frame

    content = file_of(fits.PrimaryHDU(pixels))
    add_card(content, card)
    path = put(content)
    np.testing.assert_array_equal(read_frame(path).sci, pixels)
    ingest_frame(path, tmp_path / "out.fits", SkyIngestConfig())
    with fits.open(tmp_path / "out.fits") as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus[0].data, pixels)


def test_our_own_errors_are_no_damage_of_the_file(pixels, put):
    path = put(file_of(fits.PrimaryHDU(pixels)))
    with pytest.raises(KeyError, match="a mistake of ours"), open_fits(path):
        raise KeyError("a mistake of ours")


# ---- which images ----------------------------------------------------------------------------------------------------
def choice(path, **configuration):
    cfg = SkyIngestConfig(**configuration)
    with open_fits(path) as hdus:
        chosen = science_hdus(hdus, cfg, path)
        return chosen, images_left_out(hdus, chosen)


def image(shape=(64, 64), name=None, **cards):
    hdu = fits.ImageHDU(np.random.default_rng(1).normal(900, 9, shape).astype(np.float32), name=name)
    hdu.header.update(cards)
    return hdu


@pytest.mark.parametrize(
    ("hdus", "expected"),
    [
        ([fits.PrimaryHDU(), *(image(name=f"im{k}") for k in range(1, 5))], [1, 2, 3, 4]),
        ([fits.PrimaryHDU(), *(image(CCDSEC=f"[1:{k},1:1]") for k in range(1, 4))], [1, 2, 3]),
        ([fits.PrimaryHDU(), *(image(name="CHIP", EXTVER=k) for k in range(1, 4))], [1, 2, 3]),
        ([fits.PrimaryHDU(np.zeros((0, 0), np.float32)), image()], [1]),
        ([fits.PrimaryHDU(np.zeros((16, 16), np.uint8)), image()], [1]),  # a thumbnail
        ([fits.PrimaryHDU(np.zeros((3, 16, 16), np.uint8)), image()], [1]),
        ([fits.PrimaryHDU(), image(name="MASK"), image(name="IMAGE")], [2]),
        ([fits.PrimaryHDU(), image(name="BKG"), image(name="IMAGE", EXTTYPE="IMAGE")], [2]),
        ([fits.PrimaryHDU(), image(name="X"), image(name="Y", HDUCLAS2="DATA")], [2]),
        ([fits.PrimaryHDU(), image(name=" Sci ")], [1]),
    ],
)
def test_science_images(hdus, expected, tmp_path):
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    assert choice(tmp_path / "frame.fits") == (expected, None)


def test_images_that_nothing_distinguishes_are_named(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), image(name="A"), image(name="B")]).writeto(tmp_path / "frame.fits")
    chosen, left_out = choice(tmp_path / "frame.fits")
    assert chosen == [1]
    assert left_out.startswith("only 1 A 64x64 is read, of several images of the same size; set ingest.sky.science_hdu")
    assert left_out.endswith("for another: 2 B 64x64")
    assert left_out in read_frame(tmp_path / "frame.fits").warnings
    assert choice(tmp_path / "frame.fits", science_hdu="b")[0] == [2]


def test_amplifiers_have_their_own_planes(tmp_path, rng):
    """All of the same EXTVER: planes belong to the image before them."""
    hdus = [fits.PrimaryHDU()]
    for k in (1, 2):
        mask = np.zeros((64, 64), np.uint8)
        mask[k, k] = 1
        hdus += [
            image(name=f"AMP{k}"),
            fits.ImageHDU(np.full((64, 64), 9.0 + k), name="ERR"),
            fits.ImageHDU(mask, name="DQ"),
        ]
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    first, second = read_frames(tmp_path / "frame.fits")
    assert (list(np.flatnonzero(first.dq)), list(np.flatnonzero(second.dq))) == ([65], [130])


@pytest.mark.parametrize(("science", "planes"), [(2, 1), (2, 2), (1, 2)])
def test_planes_of_a_lone_image_are_its_own(science, planes, tmp_path):
    """What is cut out of a file of several images keeps its EXTVER, and its planes may have lost theirs."""
    err, mask = image(name="ERR", EXTVER=planes), np.zeros((64, 64), np.uint8)
    err.data[:], mask[1, 1] = 9.0, 1
    dq = fits.ImageHDU(mask, name="DQ")
    dq.header["EXTVER"] = planes
    fits.HDUList([fits.PrimaryHDU(), image(name="SCI", EXTVER=science), err, dq]).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert list(np.flatnonzero(frame.dq)) == [65]
    assert np.median(frame.err) == 9.0


def test_planes_of_another_image_are_not_taken(tmp_path):
    """Of two images, one may have planes and the other none."""
    err = image(name="ERR", EXTVER=2)
    err.data[:] = 9.0
    hdus = [fits.PrimaryHDU(), image(name="SCI", EXTVER=1), image(name="SCI", EXTVER=2), err]
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    first, second = read_frames(tmp_path / "frame.fits")
    assert np.median(first.err) != 9.0
    assert np.median(second.err) == 9.0


@pytest.mark.parametrize("shape", [(1, 64, 65), (1, 1, 64, 65), (64, 65, 1)])
def test_axes_of_length_one(shape, pixels, tmp_path):
    fits.PrimaryHDU(pixels.reshape(shape)).writeto(tmp_path / "frame.fits")
    np.testing.assert_array_equal(read_frame(tmp_path / "frame.fits").sci, pixels)


def test_pixels_that_do_not_fit_their_sum(pixels, tmp_path):
    fits.PrimaryHDU(pixels).writeto(tmp_path / "frame.fits", checksum=True)
    assert not any("DATASUM" in text for text in read_frame(tmp_path / "frame.fits").warnings)
    content = bytearray((tmp_path / "frame.fits").read_bytes())
    content[4000] ^= 4
    (tmp_path / "frame.fits").write_bytes(content)
    assert any(
        "the DATASUM of HDU 0 is not that of the data" in text for text in read_frame(tmp_path / "frame.fits").warnings
    )
