"""Products keep what their input had: planes of all kinds, axes, versions, checksums; and are what their names say."""

import bz2
import gzip
import time
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

from pipeline.config import SkyIngestConfig
from pipeline.sky.dq import DQ, has
from pipeline.sky.frame_results import FrameResult, product_of
from pipeline.sky.frames import read_frame, read_frames, write_products
from pipeline.sky.frames.writing import printable
from pipeline.sky.ingest import ingest_frame

SHAPE = (64, 65)


def restored(path, out):
    """A product whose uncertainty is half of the frame's."""
    results = [(frame, FrameResult(frame.sci, frame.err / 2, frame.dq, {})) for frame in read_frames(path)]
    return write_products(path, out, [product_of(frame, result) for frame, result in results])


@pytest.fixture
def pixels(rng):
    return rng.normal(900, 20, SHAPE).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "value", "after"),
    [(StdDevUncertainty, 20, 10), (VarianceUncertainty, 400, 100), (InverseVariance, 1 / 400, 1 / 100)],
)
def test_ccddata_reads_our_uncertainty_and_mask(kind, value, after, pixels, tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[3, 4] = True
    plane = kind(np.full(SHAPE, value, np.float32))
    CCDData(pixels, unit="adu", uncertainty=plane, mask=mask).write(tmp_path / "in.fits")
    ccd = CCDData.read(restored(tmp_path / "in.fits", tmp_path / "out.fits"))
    assert isinstance(ccd.uncertainty, kind)
    np.testing.assert_allclose(ccd.uncertainty.array, after, rtol=1e-5)
    assert np.array_equal(ccd.mask, mask)  # a bad pixel that was not restored
    assert fits.getdata(tmp_path / "out.fits", "ERR") == pytest.approx(10, rel=1e-5)


def test_a_restored_pixel_is_not_masked(pixels, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3, 4] = mask[5, 6] = 1
    fits.HDUList([fits.PrimaryHDU(pixels), fits.ImageHDU(mask, name="MASK")]).writeto(tmp_path / "in.fits")
    frame = read_frame(tmp_path / "in.fits")
    dq = frame.dq.copy()
    dq[3, 4] |= DQ.RESTORED
    product = product_of(frame, FrameResult(frame.sci, frame.err, dq, {}))
    write_products(tmp_path / "in.fits", tmp_path / "out.fits", [product])
    assert list(np.flatnonzero(fits.getdata(tmp_path / "out.fits", "MASK"))) == [5 * 65 + 6]


def test_uncertainties_follow_the_unit_of_ingest(pixels, tmp_path):
    hdus = [fits.PrimaryHDU(pixels), fits.ImageHDU(np.full(SHAPE, 400, np.float32), name="VAR")]
    hdus[0].header.update(BUNIT="adu", GAIN=2.0)
    hdus[1].header["BUNIT"] = "adu2"
    fits.HDUList(hdus).writeto(tmp_path / "in.fits")
    ingest_frame(tmp_path / "in.fits", tmp_path / "out.fits", SkyIngestConfig(bias_level_adu=700))
    with fits.open(tmp_path / "out.fits") as after:
        assert after["VAR"].header["BUNIT"] == "electron2"
        assert np.median(after["VAR"].data) == pytest.approx(np.median(after["ERR"].data) ** 2, rel=1e-5)


@pytest.mark.parametrize(
    ("unit", "name", "value", "before", "after"),
    [
        ("Jy", "ERR", 20e3, "mJy", "Jy"),
        ("Jy", "VAR", 400e6, "mJy2", "Jy2"),
        ("Jy", "IVAR", 1 / 400e6, "1 / mJy2", "1 / Jy2"),
        ("MJy/sr", "VAR", 400e12, "Jy2 / sr2", "MJy2 / sr2"),
        ("MJy/sr", "IVAR", 1 / 400e12, "sr2 / Jy2", "sr2 / MJy2"),
        ("adu", "ERR", 40, "electron", "adu"),
        ("ADU", "ERR", 40, "electron", "ADU"),
        ("ADU", "VAR", 1600, "electron2", "adu2"),
        (None, "ERR", 40, "electron", "adu"),
        (None, "IVAR", 1 / 1600, "1 / electron2", "1 / adu2"),
        ("flux", "VAR", 400, "s2", "(flux)**2"),
        # The image's own unit
        ("Jy", "ERR", 20, "Jy", "Jy"),
        ("Jy", "ERR", 20, "1000 mJy", "1000 mJy"),
        ("Jy", "VAR", 400, "Jy^2", "Jy^2"),
        ("Jy", "VAR", 400, "Jy", "Jy"),
        ("electron/s", "VAR", 400, "(e-/s)**2", "(e-/s)**2"),
        ("ADU", "ERR", 20, "COUNTS", "COUNTS"),
        (None, "VAR", 400, "DN**2", "DN**2"),
        ("flux", "VAR", 400, "flux2", "flux2"),
        ("Jy", "ERR", 20, "", ""),
        ("Jy", "ERR", 20, None, None),
    ],
)
def test_the_unit_of_an_uncertainty_is_that_of_its_new_values(unit, name, value, before, after, pixels, tmp_path):
    hdus = [fits.PrimaryHDU(pixels), fits.ImageHDU(np.full(SHAPE, value, np.float32), name=name)]
    hdus[0].header.update({"GAIN": 2.0} | ({} if unit is None else {"BUNIT": unit}))
    if before is not None:
        hdus[1].header["BUNIT"] = (before, "as it was")
    fits.HDUList(hdus).writeto(tmp_path / "in.fits")
    frame = read_frame(tmp_path / "in.fits", SkyIngestConfig(bias_level_adu=100))
    result = FrameResult(frame.sci, frame.err / 2, frame.dq, {})
    write_products(tmp_path / "in.fits", tmp_path / "out.fits", [product_of(frame, result)])
    with fits.open(tmp_path / "out.fits") as product, fits.open(tmp_path / "in.fits") as source:
        assert product[name].header.get("BUNIT") == after
        assert np.median(product["ERR"].data) == pytest.approx(10, rel=0.05)
        if before == after and before is not None:
            assert product[name].header.cards["BUNIT"].image == source[name].header.cards["BUNIT"].image
    again = read_frame(tmp_path / "out.fits", SkyIngestConfig(bias_level_adu=100))
    assert not any("it is not used" in text for text in again.warnings)


def test_the_unit_of_the_image_may_stand_in_the_primary_header(pixels, tmp_path):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI"), fits.ImageHDU(pixels / 45e-3, name="ERR")]
    hdus[0].header["BUNIT"] = "Jy"
    hdus[2].header["BUNIT"] = "mJy"
    fits.HDUList(hdus).writeto(tmp_path / "in.fits")
    assert fits.getheader(restored(tmp_path / "in.fits", tmp_path / "out.fits"), "ERR")["BUNIT"] == "Jy"


@pytest.mark.parametrize("version", [0, 1, 3, None])
def test_versions_are_kept(version, pixels, tmp_path):
    sci = fits.ImageHDU(pixels, name="SCI")
    if version is not None:
        sci.header["EXTVER"] = version
    fits.HDUList([fits.PrimaryHDU(), sci]).writeto(tmp_path / "in.fits")
    with fits.open(restored(tmp_path / "in.fits", tmp_path / "out.fits")) as hdus:
        assert hdus["SCI"].header.get("EXTVER") == version
        assert [hdus[name].ver for name in ("ERR", "DQ")] == [1 if version is None else version] * 2
    assert len(read_frames(tmp_path / "out.fits")) == 1


@pytest.mark.parametrize("shape", [(1, 64, 65), (1, 1, 64, 65), (64, 65, 1)])
def test_axes_of_length_one_are_kept(shape, pixels, tmp_path):
    fits.PrimaryHDU(pixels.reshape(shape)).writeto(tmp_path / "in.fits")
    with fits.open(restored(tmp_path / "in.fits", tmp_path / "out.fits")) as hdus:
        assert [hdu.shape for hdu in hdus] == [shape] * 3
    np.testing.assert_array_equal(read_frame(tmp_path / "out.fits").sci, pixels)


def checksums(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as hdus:
            return ["CHECKSUM" in hdu.header for hdu in hdus]


@pytest.mark.parametrize("extend", [True, False])
@pytest.mark.parametrize("primary", [True, False])
def test_checksums_are_right_where_the_input_has_them(extend, primary, pixels, tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(4.0))], name="CAT")
    hdus = (
        [fits.PrimaryHDU(pixels), table] if primary else [fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI"), table]
    )
    fits.HDUList(hdus).writeto(tmp_path / "in.fits", checksum=True)
    if not extend:  # as writers that do not know of extensions leave it out
        content = (tmp_path / "in.fits").read_bytes()
        head = fits.PrimaryHDU(header=fits.Header.fromstring(content[:2880]))
        head.header.remove("EXTEND", ignore_missing=True)
        if not primary:
            head.writeto(tmp_path / "head.fits", checksum=True)
            (tmp_path / "in.fits").write_bytes((tmp_path / "head.fits").read_bytes() + content[2880:])
    assert all(checksums(tmp_path / "in.fits"))
    assert all(checksums(restored(tmp_path / "in.fits", tmp_path / "out.fits")))


def test_damage_to_a_plane_that_was_added_shows(pixels, tmp_path):
    fits.PrimaryHDU(pixels).writeto(tmp_path / "in.fits")
    made = restored(tmp_path / "in.fits", tmp_path / "out.fits")
    assert checksums(made) == [False, True, True]  # the image had none
    whole = made.read_bytes()
    with fits.open(made) as hdus:
        starts = {number: hdus[number].fileinfo()["datLoc"] for number in (1, 2)}
    for number, start in starts.items():
        damaged = bytearray(whole)
        damaged[start + 4000] ^= 0x10
        made.write_bytes(damaged)
        (frame,) = read_frames(made)
        assert any(f"the DATASUM of HDU {number} is not that of the data" in text for text in frame.warnings)


@pytest.mark.parametrize(
    "name",
    ["o.fits", "o.fit", "o.FTS", "o.fits.gz", "o.FITS.GZ", "o.fits.bz2", "o.fit.Bz2", "o.fits.fz", "o.FITS.FZ"],
)
def test_names_mean_what_they_say(name, pixels, tmp_path):
    fits.PrimaryHDU(pixels).writeto(tmp_path / "in.fits")
    out = restored(tmp_path / "in.fits", tmp_path / name)
    content = out.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1e9)
        again = restored(tmp_path / "in.fits", tmp_path / f"second_{name}")
    assert content == again.read_bytes()  # no time, no name in the packing
    start = {".gz": b"\x1f\x8b", ".bz2": b"BZh"}.get(out.suffix.lower(), b"SIMPLE")
    assert content.startswith(start)
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(out.suffix.lower(), bytes)
    (tmp_path / "plain.fits").write_bytes(unpack(content))
    with fits.open(tmp_path / "plain.fits") as hdus:
        assert [hdu.name for hdu in hdus if hdu.data is not None] == ["SCI", "ERR", "DQ"]
        assert isinstance(hdus["SCI"], fits.CompImageHDU) == (out.suffix.lower() == ".fz")
        np.testing.assert_array_equal(hdus["SCI"].data, pixels)
    frame = read_frame(out)
    np.testing.assert_array_equal(frame.sci, pixels)


def test_tile_compression_loses_nothing(pixels, tmp_path):
    pixels[3, 4] = np.nan
    pixels[5] *= 1e-20
    fits.PrimaryHDU(pixels).writeto(tmp_path / "in.fits")
    out = restored(tmp_path / "in.fits", tmp_path / "o.fits.fz")
    np.testing.assert_array_equal(fits.getdata(out, "SCI"), pixels)
    assert fits.getdata(out, "DQ").dtype == np.uint16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"), ("M31_été", r"M31_\xe9t\xe9"), ("星", r"\u661f"), ("a\x07b\n", r"a\x07b\x0a"),
        (b"\xff".decode("utf-8", "surrogateescape"), r"\udcff"),
    ],
)  # fmt: skip
def test_what_cards_can_hold(text, expected):
    assert printable(text) == expected
    fits.Header().add_history(printable(text))


@pytest.mark.parametrize("name", ["M31_été.fits", "星雲.fits", "tab\there.fits"])
def test_names_of_files_go_into_history(name, pixels, tmp_path):
    fits.PrimaryHDU(pixels).writeto(tmp_path / name)
    ingest_frame(tmp_path / name, tmp_path / "out.fits", SkyIngestConfig())
    history = "".join(fits.getheader(tmp_path / "out.fits")["HISTORY"])
    assert f"ingest of {printable(name)}" in history


def test_each_image_has_its_own_history(tmp_path, pixels):
    images = [fits.ImageHDU(pixels, name="SCI", ver=version) for version in (1, 2)]
    images[0].header["GAIN"], images[1].header["GAIN"] = 2.0, 3.0
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "in.fits")
    ingest_frame(tmp_path / "in.fits", tmp_path / "out.fits", SkyIngestConfig(bias_level_adu=100))
    for version, gain, other in ((1, 2, 3), (2, 3, 2)):
        history = " ".join(fits.getheader(tmp_path / "out.fits", ("SCI", version))["HISTORY"])
        assert f"gain {gain}" in history
        assert f"gain {other}" not in history


def test_images_of_one_extver_keep_their_own_uncertainty_and_mask(tmp_path, rng):
    """im1 to im4 have no EXTVER: their planes stand behind them, so that each finds its own again."""
    hdus = [fits.PrimaryHDU()]
    for k in range(1, 5):
        pixels = rng.poisson(400 * k, (80, 90)).astype(np.float32)
        pixels[k, k] = np.nan
        hdus.append(fits.ImageHDU(pixels, name=f"im{k}"))
    hdus[0].header.update(GAIN=1.0, RDNOISE=5.0)
    fits.HDUList(hdus).writeto(tmp_path / "amplifiers.fits", checksum=True)
    ingest_frame(tmp_path / "amplifiers.fits", tmp_path / "out.fits", SkyIngestConfig())
    frames = read_frames(tmp_path / "out.fits")
    assert [frame.science_hdu for frame in frames] == [1, 4, 7, 10]
    for k, frame in enumerate(frames, 1):
        assert np.median(frame.err) == pytest.approx(np.sqrt(400 * k), rel=0.05)
        assert np.flatnonzero(has(frame.dq, DQ.MISSING)).tolist() == [k * 90 + k]
    with warnings.catch_warnings(), fits.open(tmp_path / "out.fits", checksum=True) as made:
        warnings.simplefilter("error")
        assert all("CHECKSUM" in hdu.header for hdu in made)
