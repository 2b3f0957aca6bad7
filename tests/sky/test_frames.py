import bz2
import gzip

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DQ
from pipeline.sky.frame_results import FrameResult, product_of
from pipeline.sky.frames import read_frame, read_frames, write_products


def same(a, b):
    return np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_every_number_type(dtype, write_fits, rng):
    pixels = rng.normal(120, 10, (64, 70)).clip(1, 250).astype(dtype)
    frame = read_frame(write_fits(pixels=pixels))
    assert frame.sci.dtype == np.float32
    assert same(frame.sci, pixels.astype(np.float32))
    assert frame.unit == "adu"
    assert any("gain unknown" in note for note in frame.notes)


def write_back(frame, out, sci, err, dq, history=()):
    """Pixels in the frame's unit into a copy of its file."""
    return write_products(frame.path, out, [product_of(frame, FrameResult(sci, err, dq, {}))], history)


def test_scaled_and_blank_integers(tmp_path, rng):
    stored = rng.integers(-100, 100, (50, 60)).astype(np.int16)
    stored[3, 4] = -32768
    hdu = fits.PrimaryHDU(stored)
    path = tmp_path / "scaled.fits"
    hdu.writeto(path)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header.update(BSCALE=0.5, BZERO=1500.0, BLANK=-32768)
    frame = read_frame(path)
    expected = stored * 0.5 + 1500
    assert np.isnan(frame.sci[3, 4])
    assert frame.dq[3, 4] == DQ.MISSING
    keep = frame.dq == 0
    assert same(frame.sci[keep], expected[keep].astype(np.float32))


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_tile_compressed(compression, tmp_path, rng):
    pixels = rng.integers(900, 1100, (64, 64)).astype(np.uint16)
    path = tmp_path / "frame.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type=compression)]).writeto(path)
    frame = read_frame(path)
    assert same(frame.sci, pixels.astype(np.float32))
    out = write_back(frame, path.with_name("out.fits"), frame.sci, frame.err, frame.dq)
    with fits.open(out) as hdus:
        assert same(hdus[1].data, pixels.astype(np.float32))


@pytest.mark.parametrize(("opener", "suffix"), [(gzip.open, ".gz"), (bz2.open, ".bz2")])
def test_packed_files(opener, suffix, write_fits):
    plain = write_fits("plain.fits")
    packed = plain.with_name("packed.fits" + suffix)
    with opener(packed, "wb") as stream:
        stream.write(plain.read_bytes())
    assert same(read_frame(packed).sci, read_frame(plain).sci)


def test_electrons_with_known_gain_bias_and_read_noise(write_fits, rng):
    counts = rng.poisson(400, (128, 128)) + rng.normal(0, 5, (128, 128))
    adu = np.rint(counts / 2 + 300).astype(np.uint16)
    adu[10, 10] = 60_000
    frame = read_frame(write_fits(pixels=adu, GAIN=2.0, RDNOISE=5.0, BIASLVL=300.0, SATURATE=50_000.0))
    assert (frame.unit, frame.zero_known) == ("electron", True)
    assert frame.level == pytest.approx(400, abs=2)
    assert frame.noise == pytest.approx(np.sqrt(425), rel=0.03)
    assert frame.dq[10, 10] == DQ.SATURATED
    assert np.median(frame.err) == pytest.approx(np.sqrt(425), rel=0.01)
    assert same(frame.to_stored(frame.sci), adu.astype(np.float32))


def test_configuration_rules_over_the_header(write_fits):
    cfg = SkyIngestConfig(gain_e_per_adu=3.0, read_noise_e=4.0, bias_level_adu=900.0, saturation_adu=1025.0)
    frame = read_frame(write_fits(GAIN=2.0, RDNOISE=9.0), cfg)
    assert (frame.gain_e_per_adu, frame.read_noise_e, frame.bias_level) == (3.0, 4.0, 900.0)
    assert frame.level == pytest.approx(300, abs=10)
    assert (frame.dq & DQ.SATURATED).any()
    assert any("from the configuration" in note for note in frame.notes)


def test_overscan_gives_the_bias_and_is_left_alone(rng, write_fits):
    pixels = rng.normal(500, 10, (100, 120))
    pixels[:, 20:] += rng.normal(200, 5, (100, 100))
    frame = read_frame(
        write_fits(pixels=pixels.astype(np.uint16), TRIMSEC="[21:120,1:100]", BIASSEC="[3:18,1:100]", GAIN=1.0)
    )
    assert frame.bias_level == pytest.approx(500, abs=1)
    assert frame.level == pytest.approx(200, abs=2)
    assert frame.exposed == (slice(0, 100), slice(20, 120))


def overscanned(rng, **cards):
    """Sky of 200 electron over a bias of 500, beside 20 columns of overscan on the right."""
    pixels = rng.normal(500, 5, (100, 120))
    pixels[:, :100] += rng.poisson(200, (100, 100))
    return {"pixels": np.rint(pixels).astype(np.uint16), "GAIN": 1.0, "RDNOISE": 5.0} | cards


@pytest.mark.parametrize(
    ("cards", "columns"),
    [
        ({"BIASSEC": "[101:120,1:100]"}, 100),
        ({"BIASSEC": "[120:101,1:100]"}, 100),
        ({"BIASSEC": "[101:120,1:100]", "DATASEC": "[100:1,1:100]"}, 100),
        ({"BIASSEC": "[101:120,1:100]", "DATASEC": "[1:90,1:100]"}, 90),
        ({"BIASSEC": "[103:118,1:100]"}, 120),  # within the frame
        ({"BIASSEC": "[101:120,3:98]"}, 120),  # not all of its edge
        ({"BIASSEC": "[101:120,1:100]", "DATASEC": "[1:100,1:200]"}, 120),  # of another frame
    ],
)
def test_what_an_overscan_leaves_is_exposed(cards, columns, rng, write_fits):
    frame = read_frame(write_fits(**overscanned(rng, **cards)))
    assert frame.sci[frame.exposed].shape == (100, columns)
    assert frame.bias_level == pytest.approx(500, abs=1)


def test_an_overscan_may_be_of_rows_and_at_the_start(rng, write_fits):
    cards = overscanned(rng, BIASSEC="[1:100,1:20]")
    cards["pixels"] = cards["pixels"].T[::-1]
    assert read_frame(write_fits(**cards)).exposed == (slice(20, 120), slice(0, 100))


def test_an_overscan_of_everything_leaves_the_frame(rng, write_fits):
    assert read_frame(write_fits(**overscanned(rng, BIASSEC="[1:120,1:100]"))).section is None


def test_gain_and_read_noise_in_units_of_their_comments(write_fits, rng):
    adu = np.rint((rng.poisson(400, (128, 128)) + rng.normal(0, 6, (128, 128))) / 2 + 300).astype(np.uint16)
    frame = read_frame(write_fits(pixels=adu, GAIN=(0.5, "[adu/electron]"), RDNOISE=(3.0, "[adu]"), BIASLVL=300.0))
    assert (frame.unit, frame.gain_e_per_adu) == ("electron", pytest.approx(2))
    assert frame.read_noise_e == pytest.approx(6)
    assert frame.level == pytest.approx(400, abs=2)
    configured = SkyIngestConfig(gain_e_per_adu=2.1)
    assert read_frame(frame.path, configured).read_noise_e == pytest.approx(6.3)


@pytest.mark.parametrize("in_primary", [True, False])
def test_amplifiers_of_different_gains_are_a_warning(in_primary, tmp_path, rng):
    pixels = np.rint(rng.poisson(400, (96, 96)) / 1.5 + 300).astype(np.uint16)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels)]
    hdus[0 if in_primary else 1].header.update(GAIN1=1.0, GAIN2=2.0)
    hdus[1].header["BIASLVL"] = 300.0
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert frame.gain_e_per_adu == pytest.approx(1.5)
    (warning,) = frame.warnings
    assert "different gains (GAIN1 = 1, GAIN2 = 2)" in warning
    assert "stays in ADU" not in warning
    assert read_frame(frame.path, SkyIngestConfig(gain_e_per_adu=1.5)).warnings == ()


def test_a_full_converter_is_saturation(rng, write_fits):
    pixels = rng.integers(300, 400, (60, 60)).astype(np.int16)
    pixels[5, 5:9] = 4095
    assert np.count_nonzero(read_frame(write_fits(pixels=pixels)).dq & DQ.SATURATED) == 4


def test_uncertainty_of_pixels_that_are_no_counts(rng, write_fits):
    pixels = rng.normal(0, 0.003, (80, 80)).astype(np.float32)  # electron per second, called electron
    frame = read_frame(write_fits(pixels=pixels, BUNIT="ELECTRONS", RDNOISE=5.0))
    assert np.median(frame.err) == pytest.approx(0.003, rel=0.1)
    assert any("not counts" in text for text in frame.warnings)


def test_companion_extensions(rng, write_fits):
    shape = (60, 70)
    sci = rng.normal(100, 5, shape).astype(np.float32)
    variance = np.full(shape, 49, np.float32)
    mask = np.zeros(shape, np.int16)
    mask[4, 5], mask[6, 7] = 16, 4096
    extra = [fits.ImageHDU(sci, name="SCI"), fits.ImageHDU(variance, name="VAR"), fits.ImageHDU(mask, name="DQ")]
    path = write_fits(pixels=np.empty((0,), np.float32), extra=extra)
    frame = read_frame(path, SkyIngestConfig(dq_bits={4096: 8}))
    assert frame.err[0, 0] == pytest.approx(7)
    assert frame.dq[4, 5] == DQ.BAD
    assert frame.dq[6, 7] == DQ.COSMIC_RAY


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float64])
def test_no_bit_of_a_foreign_mask_is_lost(dtype, compressed, write_fits):
    """In float32, which pixels are read into, 2^30 + 1 is 2^30."""
    if compressed and np.dtype(dtype).itemsize == 8:
        pytest.skip("FITS does not compress integers of 64 bits")
    top = 1 << min(8 * np.dtype(dtype).itemsize - 2, 50)
    mask = np.zeros((80, 100), dtype)
    mask[3, 4], mask[5, 6], mask[7, 8] = top | 1, top, 1
    hdu = (fits.CompImageHDU if compressed else fits.ImageHDU)(mask, name="MASK")
    frame = read_frame(write_fits(extra=[hdu]), SkyIngestConfig(dq_bits={1: DQ.GHOST, top: DQ.BLEED}))
    assert (frame.dq[3, 4], frame.dq[5, 6], frame.dq[7, 8]) == (DQ.GHOST | DQ.BLEED, DQ.BLEED, DQ.GHOST)
    assert np.count_nonzero(frame.dq) == 3
    assert frame.dq.dtype == np.uint16


def test_the_highest_bit_of_a_signed_mask(write_fits):
    mask = np.zeros((80, 100), np.int16)
    mask[3, 4] = np.iinfo(np.int16).min
    path = write_fits(extra=[fits.ImageHDU(mask, name="DQ")])
    assert read_frame(path, SkyIngestConfig(dq_bits={1 << 15: DQ.HOT})).dq[3, 4] == DQ.HOT


@pytest.mark.parametrize("bit", [0, -1, 1024])
def test_a_foreign_bit_must_become_one_of_ours(write_fits, bit):
    path = write_fits(extra=[fits.ImageHDU(np.zeros((80, 100), np.int16), name="DQ")])
    with pytest.raises(UserError, match=rf"dq_bits has {bit}, not a sum of lightpool's bits; accepted: 1 \(bad"):
        read_frame(path, SkyIngestConfig(dq_bits={4: bit}))


def test_a_mask_that_calls_itself_ours_has_sixteen_bits(write_fits):
    hdu = fits.ImageHDU(np.full((80, 100), 1 << 16, np.int32), name="DQ")
    hdu.header["LPDQ"] = True
    with pytest.raises(InputFileError, match="is marked as lightpool's, but has more than sixteen bits"):
        read_frame(write_fits(extra=[hdu]))


def test_mask_and_weight_files_beside(rng, tmp_path):
    pixels = rng.normal(100, 5, (50, 50)).astype(np.float32)
    weight = np.full((50, 50), 0.04, np.float32)
    weight[2, 2] = 0
    mask = np.zeros((50, 50), np.int32)
    mask[1, 1] = 7
    for name, data in (("c4d_ooi_z.fits", pixels), ("c4d_oow_z.fits", weight), ("c4d_ood_z.fits", mask)):
        fits.PrimaryHDU(data).writeto(tmp_path / name)
    cfg = SkyIngestConfig(mask_suffix=("_ooi_", "_ood_"), weight_suffix=("_ooi_", "_oow_"))
    frame = read_frame(tmp_path / "c4d_ooi_z.fits", cfg)
    assert frame.err[5, 5] == pytest.approx(5)
    assert (frame.dq[2, 2], frame.dq[1, 1]) == (DQ.MISSING, DQ.BAD)
    assert frame.dq[5, 5] == 0


def test_each_sci_extension_has_its_own_mask(rng, write_fits):
    extra = []
    for version in (1, 2):
        extra.append(fits.ImageHDU(rng.normal(100, 5, (40, 40)).astype("f4"), name="SCI", ver=version))
        mask = np.zeros((40, 40), np.int16)
        mask[version, version] = 1
        extra.append(fits.ImageHDU(mask, name="DQ", ver=version))
    first, second = read_frames(write_fits(pixels=np.empty((0,), np.float32), extra=extra))
    assert (first.science_hdu, second.science_hdu) == (1, 3)
    assert (np.flatnonzero(first.dq), np.flatnonzero(second.dq)) == (41, 82)


def test_background_ignores_gradient_and_stars(rng):
    y, x = np.mgrid[:256, :256]
    image = rng.normal(0, 4, (256, 256)) + 200 + 0.2 * x
    image[np.hypot(x - 100, y - 80) < 6] += 5000
    image[:, 200:206] = np.nan
    level, noise = robust_background(image)
    assert level == pytest.approx(200 + 0.2 * 127.5, abs=1.5)
    assert noise == pytest.approx(5.5, abs=0.6)  # 4 and the gradient within a box


@pytest.mark.parametrize(
    ("shape", "gap", "rtol"),
    [
        ((192, 256), np.s_[:0], 1e-12),  # whole boxes
        ((200, 300), np.s_[:0], 1e-12),  # boxes that the edges cut
        ((50, 90), np.s_[:0], 1e-12),  # less than a box high
        ((256, 320), np.s_[:128], 2e-3),  # empty boxes: equally near neighbours are chosen in another order
    ],
)
def test_background_is_that_of_photutils(shape, gap, rtol, rng):
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground, StdBackgroundRMS

    image = rng.normal(200, 10, shape) + 0.05 * np.arange(shape[1])
    image[rng.random(shape) < 0.01] += 3000
    mask = rng.random(shape) < 0.05
    mask[gap] = True
    mesh = Background2D(
        image,
        (min(64, shape[0]), 64),
        mask=mask,
        exclude_percentile=90.0,
        sigma_clip=SigmaClip(3.0, maxiters=10),
        bkg_estimator=MedianBackground(),
        bkg_rms_estimator=StdBackgroundRMS(),
    )
    expected = (mesh.background_median, mesh.background_rms_median)
    np.testing.assert_allclose(robust_background(image, mask), expected, rtol=rtol)


def test_background_of_few_pixels(rng):
    image = np.full((100, 100), np.nan)
    assert np.isnan(robust_background(image)).all()
    image[3, 4:40] = rng.normal(7, 1, 36)  # less than a tenth of any box
    level, noise = robust_background(image)
    assert level == pytest.approx(np.median(image[3, 4:40]), abs=0.5)
    assert noise == pytest.approx(1, abs=0.4)


def test_a_raw_frame_has_the_background_that_ingest_writes(ingested, simulated):
    raw, calibrated = read_frame(simulated), read_frame(ingested)
    assert (raw.level, raw.noise) == (calibrated.level, calibrated.noise)


# ---- writing ---------------------------------------------------------------------------------------------------------
def test_product_keeps_everything_else(tmp_path, rng):
    pixels = rng.normal(1000, 25, (50, 60)).astype(np.uint16)
    primary = fits.PrimaryHDU(pixels)
    cards = {"OBJECT": "M 51", "GAIN": 2.0, "BIASLVL": 100.0, "CRVAL1": 202.5}
    cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "A_2_0": 1e-5}
    cards |= {"LONGTEXT": "a value that is too long for one card and goes on " * 3}
    primary.header.update(cards)
    primary.header["HIERARCH ESO TEL AIRM"] = 1.2
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(4.0))], name="CAT")
    squeezed = fits.CompImageHDU(pixels.astype(np.int32), name="PACKED")
    path = tmp_path / "in.fits"
    fits.HDUList([primary, table, squeezed]).writeto(path)
    frame = read_frame(path)
    restored = frame.sci + np.float32(10)
    out = write_back(frame, tmp_path / "out.fits", restored, frame.err, frame.dq, ["made by a test"])

    with fits.open(path) as before, fits.open(out) as after:
        assert [hdu.name for hdu in after] == ["SCI", "CAT", "PACKED", "ERR", "DQ"]
        kept = after[0].header
        for card in before[0].header.cards:
            if card.keyword not in ("BITPIX", "BZERO", "BSCALE", "EXTEND"):
                assert kept[card.keyword] == card.value, card.keyword
        assert "BZERO" not in kept
        assert kept["BITPIX"] == -32
        assert list(kept["HISTORY"]) == ["made by a test"]
        assert np.allclose(after[0].data, pixels + 5.0)  # 10 electron are 5 ADU
        assert np.allclose(after["ERR"].data, frame.err / 2)
        assert after["DQ"].data.dtype == np.uint16
    with (
        fits.open(path, disable_image_compression=True) as before,
        fits.open(out, disable_image_compression=True) as after,
    ):
        for number in (1, 2):
            assert before[number].header.tostring() == after[number].header.tostring()
            assert before[number].data.tobytes() == after[number].data.tobytes()


def test_products_of_products_update_err_and_dq(write_fits, tmp_path):
    frame = read_frame(write_fits())
    first = write_back(frame, tmp_path / "one.fits", frame.sci, frame.err, frame.dq)
    again = read_frame(first)
    dq = again.dq.copy()
    dq[1, 1] = DQ.RESTORED
    dq[2, 2] = 1 << 15 | DQ.GHOST | DQ.BAD
    second = write_back(again, tmp_path / "two.fits", again.sci, again.err * 2, dq)
    with fits.open(second) as hdus:
        assert [hdu.name for hdu in hdus] == ["SCI", "ERR", "DQ"]
        assert hdus["DQ"].data.dtype == np.uint16
        assert hdus["DQ"].header["BZERO"] == 32768
        assert hdus["DQ"].header["LPBIT512"] == "ghost or persistence"
        np.testing.assert_array_equal(hdus["DQ"].data, dq)
    np.testing.assert_array_equal(read_frame(second).dq, dq)
    assert np.allclose(read_frame(second).err, frame.err * 2)


def test_foreign_mask_keeps_its_bits(write_fits, tmp_path):
    mask = np.zeros((80, 100), np.int16)
    mask[3, 3] = 4096
    frame = read_frame(write_fits(extra=[fits.ImageHDU(mask, name="DQ")]))
    out = write_back(frame, tmp_path / "out.fits", frame.sci, frame.err, frame.dq)
    with fits.open(out) as hdus:
        assert hdus["DQ"].data[3, 3] == 4096
        assert hdus["LPDQ"].data[3, 3] == DQ.BAD
    assert read_frame(out).dq[3, 3] == DQ.BAD


def test_refuses_to_overwrite(write_fits, tmp_path):
    frame = read_frame(write_fits())
    with pytest.raises(UserError, match=r"frame\.fits exists"):
        write_back(frame, frame.path, frame.sci, frame.err, frame.dq)


# ---- files that cannot be used ---------------------------------------------------------------------------------------
def test_missing_file(tmp_path):
    with pytest.raises(InputFileError, match="does not exist"):
        read_frame(tmp_path / "nowhere.fits")


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x00" * 5000])
def test_not_fits(content, tmp_path):
    path = tmp_path / "text.fits"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"text\.fits is not a FITS file"):
        read_frame(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated(suffix, write_fits):
    whole = write_fits("whole.fits").read_bytes()
    path = write_fits("other.fits").with_name("cut.fits" + suffix)
    path.write_bytes(gzip.compress(whole)[:9000] if suffix else whole[: len(whole) // 2])
    with pytest.raises(InputFileError, match="is truncated"):
        read_frame(path)


def test_cube_names_the_choices(rng, write_fits):
    cube = rng.normal(0, 1, (4, 20, 20)).astype(np.float32)
    plane = fits.ImageHDU(rng.normal(0, 1, (30, 30)).astype(np.float32), name="PLANE")
    path = write_fits(pixels=cube, extra=[plane])
    with pytest.raises(InputFileError, match=r"HDU 0 has 3 axes \(4, 20, 20\), not 2; .*science_hdu: .*1 PLANE 30x30"):
        read_frame(path)
    assert read_frame(path, SkyIngestConfig(science_hdu="plane")).shape == (30, 30)
    assert read_frame(path, SkyIngestConfig(science_hdu=1)).shape == (30, 30)
    with pytest.raises(InputFileError, match="has no image HDU 'SKY'"):
        read_frame(path, SkyIngestConfig(science_hdu="SKY"))


def test_a_cube_alone_has_no_choices(rng, write_fits):
    path = write_fits(pixels=rng.normal(0, 1, (4, 20, 20)).astype(np.float32))
    with pytest.raises(InputFileError, match=r"not 2; write the plane that you mean to a file of its own$"):
        read_frame(path)


@pytest.mark.parametrize("shape", [(1, 300), (300, 3), (5, 7), (7, 7)])
def test_a_frame_without_room_for_a_star_is_refused(shape, rng, write_fits):
    path = write_fits(pixels=rng.normal(0, 1, shape).astype(np.float32))
    with pytest.raises(InputFileError, match=rf"HDU 0 is {shape[1]} x {shape[0]} px; frames have at least 8 each way$"):
        read_frame(path)


def test_a_collection_of_images_is_refused(rng, write_fits):
    extra = [fits.ImageHDU(rng.normal(0, 1, (8, 8)).astype(np.float32)) for _ in range(30)]
    with pytest.raises(InputFileError, match=r"holds 31 images and none is called SCI; .*\(31 in all\)"):
        read_frame(write_fits(extra=extra))


def test_a_table_is_refused(tmp_path):
    path = tmp_path / "table.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(4.0))], name="CAT")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    with pytest.raises(InputFileError, match="has no image; its HDUs are 0 PRIMARY"):
        read_frame(path)


def test_a_mask_is_no_frame(write_fits):
    with pytest.raises(InputFileError, match=r"most pixels have the value 0, .*mask_suffix"):
        read_frame(write_fits(pixels=np.zeros((40, 40), np.int16)))
    with pytest.raises(InputFileError, match="has no valid pixel"):
        read_frame(write_fits("nan.fits", pixels=np.full((40, 40), np.nan, np.float32)))
