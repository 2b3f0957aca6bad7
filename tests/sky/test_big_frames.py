"""Frames that are read, restored and written strip by strip are, bit for bit, those that are in memory as a whole."""

import errno
import gzip
import shutil
from dataclasses import asdict, fields, replace
from typing import ClassVar

import numpy as np
import pytest
from astropy.io import fits
from populations import population

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import strips
from pipeline.sky.background import Background, robust_background
from pipeline.sky.dq import DQ, has
from pipeline.sky.frame_results import product_of
from pipeline.sky.frames import Frame, StreamedProduct, open_frames, read_frames, write_products
from pipeline.sky.frames.coverage import uncovered
from pipeline.sky.ingest import ingest_frame
from pipeline.sky.restore import Restoration, restore_frame
from pipeline.sky.strips import Bits, LazyImage, Strips, computed, part_of, strip_rows_of
from pipeline.sky.summary import Summary
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.spec import Column

SHAPE = (150, 131)
TILES = {"tile_px": 64, "overlap_px": 24}


@pytest.fixture
def narrow(monkeypatch):
    """Strips of seven rows, as if a frame were large."""

    def use(n_pixels=7 * SHAPE[1]):
        monkeypatch.setattr(strips, "STRIP_PX", n_pixels)

    return use


@pytest.fixture
def image(rng):
    return rng.normal(0, 1, SHAPE).astype(np.float32)


def lazy(array, strip_rows=7):
    return LazyImage(array.shape, array.dtype, lambda rows, columns: array[rows, columns], strip_rows)


# ---- images of strips ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index", [slice(3, 90), (slice(5, 6), slice(10, 20)), (slice(1, None, 2), slice(0, None, 3))])
def test_a_lazy_image_is_read_as_an_array_is(index, image):
    for read in (lazy(image), Strips().cached(lazy(image)), Strips(5000).cached(lazy(image))):
        assert np.array_equal(read[index], image[index])
        assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize("index", [4, (slice(None), 4), slice(None, None, -1)])
def test_a_lazy_image_takes_slices_only(index, image):
    with pytest.raises(TypeError, match="a lazy image is read"):
        lazy(image)[index]


def test_a_part_of_a_part(image):
    part, phase = (slice(3, 140), slice(1, None)), (slice(1, None, 2), slice(0, None, 2))
    assert np.array_equal(np.asarray(part_of(part_of(lazy(image), part), phase)), image[part][phase])


def test_strips_that_were_decoded_are_kept_as_long_as_there_is_room(image):
    read = []

    def window(rows, columns):
        read.append(rows.start)
        return image[rows, columns].copy()

    source = LazyImage(SHAPE, np.float32, window, 7)
    kept = Strips(3 * 7 * SHAPE[1] * 4).cached(source)
    for rows in (slice(0, 7), slice(3, 6), slice(0, 20), slice(140, 150), slice(0, 7)):
        assert np.array_equal(kept[rows], image[rows])
    assert read == [0, 7, 14, 140, 147, 0]
    with pytest.raises(ValueError, match="read-only"):
        kept[0:3][0, 0] = 1


@pytest.mark.parametrize("room", [True, False])
def test_what_is_too_large_to_be_kept_is_decoded_once(room, image, monkeypatch):
    read = []

    def window(rows, columns):
        read.append(rows.start)
        return image[rows, columns]

    def no_room(*_arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    if not room:
        monkeypatch.setattr(strips.os, "pwrite", no_room)
    kept = Strips(5000)
    spooled = kept.spooled(LazyImage(SHAPE, np.float32, window, 40))
    for _ in range(2):
        assert np.array_equal(np.asarray(spooled), image)
        assert np.array_equal(spooled[35:90, 3:7], image[35:90, 3:7])
    assert len(read) == (4 if room else 2 * (4 + 3))
    kept.close()
    small = LazyImage(SHAPE, np.float32, window, 40)
    assert Strips().spooled(small) is small


def test_a_halo_reaches_across_strips_and_ends_at_the_edge(image):
    def neighbours(pixels):
        padded = np.pad(pixels, 1)
        return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]

    sums = computed(neighbours, lazy(image), dtype=np.float32, halo=1)
    assert np.array_equal(np.asarray(sums), neighbours(image))
    assert np.array_equal(sums[20:25, 30:33], neighbours(image)[20:25, 30:33])


@pytest.mark.parametrize("n_rows", [1, 2, 101, 150])
def test_the_median_is_exact(n_rows, image):
    image[3:5] = np.nan
    image[0, :7] = [-np.inf, np.inf, 0.0, -0.0, 1e-42, -1e-42, 3e38]
    median = strips.median(lazy(image[:n_rows]))
    assert (median, median.dtype) == (np.nanmedian(image[:n_rows]), np.float32)
    assert np.isnan(strips.median(lazy(np.full((3, 4), np.nan, np.float32))))


def test_counts_extremes_samples_and_values(image):
    image[40:60] = np.nan
    read = lazy(np.rint(3 * image).astype(np.float32))
    whole = np.asarray(read)
    assert strips.count(computed(np.isnan, read, dtype=bool)) == np.count_nonzero(np.isnan(whole))
    assert strips.largest(read) == np.nanmax(whole)
    for least in (1, 100, 9000, 10**6):
        expected = whole.ravel()[:: max(1, whole.size // least)]
        assert np.array_equal(strips.sample_of(read, least), expected, equal_nan=True)
    values, counts = strips.distinct(read, lambda strip: strip[strip > 0])
    for found, expected in zip((values, counts), np.unique(whole[whole > 0], return_counts=True), strict=True):
        assert np.array_equal(found, expected)


def test_bits_are_a_mask(image):
    bits = Bits(SHAPE)
    bits.add(0, image[:80] > 1)
    bits.add(70, image[70:] > 1)
    assert np.array_equal(np.asarray(bits.image), image > 1)
    assert np.array_equal(bits.image[3:9, 13:60], image[3:9, 13:60] > 1)


@pytest.mark.parametrize("heights", [(150,), (1,) * 150, (63, 2, 64, 21)])
def test_the_background_does_not_depend_on_the_strips(heights, image):
    mask = image > 2
    background, top = Background(SHAPE, 32), 0
    for height in heights:
        background.add(image[top : top + height], mask[top : top + height])
        top += height
    assert background.result() == robust_background(image, mask, 32)


@pytest.mark.parametrize("fill", [0.0, -99.0])
def test_parts_without_light_are_found_across_strips(fill, image):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image[(x + 2 * y < 90) | (np.abs(y - 75) < 6)] = fill
    whole, values = uncovered(image)
    where, found = uncovered(lazy(image))
    assert found == values == [fill]
    assert np.array_equal(np.asarray(where), np.asarray(whole))
    assert 0.9 < np.mean(image[np.asarray(where)] == fill) <= 1


# ---- files -----------------------------------------------------------------------------------------------------------
def stars(rng, shape=SHAPE):
    """Twenty stars of FWHM 3 px on sky, a saturated one, and hits of single pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = np.zeros(shape)
    for flux in (*rng.uniform(500, 20_000, 20), 1e6):
        cy, cx = rng.uniform(8, np.array(shape) - 8)
        light += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.27**2)) / (2 * np.pi * 1.27**2)
    light += (rng.random(shape) < 0.003) * 2000
    return np.minimum(rng.poisson(light + 400) + rng.normal(300, 5, shape), 50_000)


def plain(rng):
    return [fits.PrimaryHDU(stars(rng).astype(np.float32), fits.Header({"GAIN": 1.5, "RDNOISE": 4.0}))]


def scaled_integers(rng):
    stored = np.rint(stars(rng) / 2 - 12_000).astype(np.int16)
    stored[20:23, 30:60] = -32768
    hdu = fits.PrimaryHDU(stored)
    hdu.header.update(BSCALE=2.0, BZERO=24_000.0, BLANK=-32768, GAIN=1.0)
    return [hdu]


def raw_with_overscan(rng):
    adu = stars(rng)
    adu[:, :12] = rng.normal(300, 5, (SHAPE[0], 12))
    adu[-9:] = rng.normal(300, 5, (9, SHAPE[1]))
    hdu = fits.PrimaryHDU(np.rint(adu).astype(np.uint16))
    hdu.header.update(GAIN=2.0, RDNOISE=6.0, TRIMSEC="[13:131,1:141]", BIASSEC="[1:12,1:141]")
    return [hdu]


def several_extensions(rng):
    hdus = [fits.PrimaryHDU()]
    for version in (1, 2, 3):
        hdus.append(fits.ImageHDU(stars(rng, (60 + version, 80)).astype(np.float32), name="SCI", ver=version))
        hdus.append(fits.ImageHDU(np.full((60 + version, 80), 20, np.float32), name="ERR", ver=version))
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(5.0))], name="CAT"))
    return hdus


def with_companions(rng):
    sci = stars(rng).astype(np.float32)
    sci[:40, :30] = 0  # without light
    mask = (rng.random(SHAPE) < 0.01).astype(np.int32) * 3 + (sci > 5000) * 8
    weight = np.full(SHAPE, 1 / 400, np.float32)
    weight[100:110, 50:55] = 0
    return [
        fits.PrimaryHDU(header=fits.Header({"OBJECT": "field"})),
        fits.ImageHDU(sci, name="SCI"),
        fits.ImageHDU(mask, name="MASK"),
        fits.ImageHDU(weight, name="IVAR"),
    ]


def compressed(rng, **how):
    return [fits.PrimaryHDU(), fits.CompImageHDU(stars(rng).astype(np.float32), **how)]


FILES = {
    "plain": plain,
    "scaled": scaled_integers,
    "raw": raw_with_overscan,
    "several": several_extensions,
    "companions": with_companions,
    "rice": lambda rng: compressed(rng, compression_type="RICE_1", quantize_level=16),
    "tiles": lambda rng: compressed(rng, compression_type="GZIP_2", quantize_level=0, tile_shape=(40, 50)),
    "one_tile": lambda rng: compressed(rng, compression_type="GZIP_1", quantize_level=0, tile_shape=SHAPE),
}


@pytest.fixture(params=[*FILES, "gz", "ingested", "beside"])
def source(request, rng, tmp_path):
    """A file, and the configuration with which it is read."""
    path = tmp_path / "frame.fits"
    maker = FILES.get(request.param, plain)
    with_files = request.param == "beside"
    hdus = with_companions(rng) if with_files else maker(rng)
    fits.HDUList(hdus[:2] if with_files else hdus).writeto(path)
    if with_files:
        for number, name in ((2, "mask"), (3, "weight")):
            fits.PrimaryHDU(hdus[number].data).writeto(tmp_path / f"frame.{name}.fits")
        suffixes = {"mask_suffix": (".fits", ".mask.fits"), "weight_suffix": (".fits", ".weight.fits")}
        return path, SkyIngestConfig(**suffixes)
    if request.param == "gz":
        packed = tmp_path / "frame.fits.gz"
        with open(path, "rb") as whole, gzip.open(packed, "wb") as target:
            shutil.copyfileobj(whole, target)
        path = packed
    if request.param == "ingested":
        ingest_frame(path, tmp_path / "ingested.fits", SkyIngestConfig())
        path = tmp_path / "ingested.fits"
    return path, SkyIngestConfig()


def assert_same(frame: Frame, expected: Frame):
    for field in fields(Frame):
        one, two = getattr(frame, field.name), getattr(expected, field.name)
        if field.name in ("sci", "err", "dq"):
            assert np.asarray(one).dtype == np.asarray(two).dtype
            assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), field.name
        elif field.name not in ("header", "searched"):
            assert one == two, field.name


class Careful:
    """A stand-in for a network, with a plane of its own; it compares frames with those of its training."""

    columns = (*get_spec("denoise").columns, Column("toy_flux", "sci", "light above the background", hdu="TOYFLUX"))
    size_multiple = 4
    receptive_field_px = None
    population = population(fwhm_px=(6.0, 7.0))
    lines: ClassVar = {}
    correlations: ClassVar = {}
    warnings = ()

    def predict(self, batch):
        level, noise = (batch.events[name][:, None, None].astype(np.float32) for name in ("level", "noise"))
        sci = batch.images[:, 0]
        defect = ~(sci < level + 10 * noise)
        return {
            "restored": np.where(defect, level, 0.5 * (sci + level)).astype(np.float32),
            "restored_err": (0.5 * batch.images[:, 1]).astype(np.float32),
            "defect_probability": defect.astype(np.float32),
            "painted": defect.astype(np.float32),
            "place": np.zeros(sci.shape, np.float32),
            "toy_flux": np.nan_to_num(sci - level),
        }

    def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
        return get_decoder("denoise").flags(planes, dq, noise, kept, unless_sure=unless_sure)


def test_a_frame_read_in_strips_is_the_whole_one(source, narrow):
    path, cfg = source
    whole = read_frames(path, cfg)
    assert all(isinstance(frame.sci, np.ndarray) for frame in whole)
    narrow()
    with open_frames(path, cfg) as streamed:
        assert len(streamed) == len(whole)
        for frame, expected in zip(streamed, whole, strict=True):
            assert isinstance(frame.sci, LazyImage)
            assert_same(frame, expected)


@pytest.mark.parametrize("ending", [".fits", ".fits.gz", ".fits.fz"])
def test_a_product_written_in_strips_is_the_whole_one(ending, source, narrow, tmp_path):
    path, cfg = source
    model = Careful()
    frames = read_frames(path, cfg)
    products = [product_of(frame, restore_frame(frame, model, **TILES)) for frame in frames]
    write_products(path, tmp_path / f"whole{ending}", products, ["a model"])
    narrow()
    with open_frames(path, cfg) as streamed:
        restorations = [Restoration.of(frame, model, **TILES) for frame in streamed]
        write_products(
            path, tmp_path / f"strips{ending}", [restoration.product() for restoration in restorations], ["a model"]
        )
    assert sum(restoration.n_kept for restoration in restorations) > 0
    assert (tmp_path / f"strips{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    if ending == ".fits":  # and astropy reads from it what was computed
        with fits.open(tmp_path / "strips.fits", checksum=True) as hdus:
            for product in products:
                place = next(
                    n for n, hdu in enumerate(hdus) if hdu.data is not None and hdu.data.shape == product.shape
                )
                assert hdus[place].data.astype("f4").tobytes() == np.asarray(product.sci, np.float32).tobytes()


def test_no_plane_is_read_into_memory_as_a_whole(source, narrow, tmp_path, monkeypatch):
    path, cfg = source
    narrow()

    def refuse(*_args, **_options):
        raise AssertionError("a whole plane was asked for")

    monkeypatch.setattr(LazyImage, "__array__", refuse)
    with open_frames(path, cfg) as frames:
        products = [Restoration.of(frame, Careful(), **TILES).product() for frame in frames]
        write_products(path, tmp_path / "out.fits", products)
        with pytest.raises(AssertionError, match="a whole plane"):
            np.asarray(frames[0].sci)


def test_other_hdus_are_copied_byte_for_byte(narrow, rng, tmp_path):
    fits.HDUList(several_extensions(rng)).writeto(tmp_path / "in.fits")
    narrow()
    with open_frames(tmp_path / "in.fits") as frames:
        products = [Restoration.of(frame, Careful(), **TILES).product() for frame in frames]
        write_products(tmp_path / "in.fits", tmp_path / "out.fits", products)
    content = (tmp_path / "in.fits").read_bytes(), (tmp_path / "out.fits").read_bytes()
    tables = []
    for name, whole in zip(("in.fits", "out.fits"), content, strict=True):
        with fits.open(tmp_path / name) as hdus:
            places = hdus["CAT"].fileinfo()
            tables.append(whole[places["hdrLoc"] : places["datLoc"] + places["datSpan"]])
    assert tables[0] == tables[1]
    assert content[0][:2880] == content[1][:2880]


def test_a_colour_mosaic_in_strips(narrow, rng, tmp_path):
    sci = stars(rng, (151, 160)).astype(np.float32)
    sci[::2, ::2] += 300
    hdu = fits.PrimaryHDU(sci)
    hdu.header.update(BUNIT="electron")
    hdu.writeto(tmp_path / "in.fits")
    model = Careful()
    model.population = population(colour_pattern=(0.0, 0.03))
    (frame,) = read_frames(tmp_path / "in.fits")
    whole = restore_frame(frame, model, **TILES)
    assert "each of its four kinds of pixels" in whole.warnings[0]
    narrow(5 * 160)
    with open_frames(tmp_path / "in.fits") as (streamed,):
        result = Restoration.of(streamed, model, **TILES).whole()
    for name in ("sci", "err", "dq"):
        assert getattr(result, name).tobytes() == getattr(whole, name).tobytes()
    assert result.planes["TOYFLUX"][0].tobytes() == whole.planes["TOYFLUX"][0].tobytes()
    assert (result.n_kept, result.warnings) == (whole.n_kept, whole.warnings)


def test_numbers_of_a_result_that_passes_by(narrow, rng, tmp_path):
    fits.HDUList(raw_with_overscan(rng)).writeto(tmp_path / "in.fits")
    (frame,) = read_frames(tmp_path / "in.fits")
    whole, part = restore_frame(frame, Careful(), **TILES), frame.exposed
    narrow()
    with open_frames(tmp_path / "in.fits") as (streamed,):
        summary = Summary(Restoration.of(streamed, Careful(), **TILES))
        assert sum(len(strip.sci) for strip in summary.watched()) == SHAPE[0]
        numbers = summary.numbers()
    level, noise = robust_background(whole.sci[part], has(whole.dq[part], ~DQ.RESTORED))
    assert (numbers["level_after"], numbers["noise_after"]) == (level, noise)
    assert numbers["median_err_before"] == np.median(frame.err)
    assert numbers["median_err_after"] == np.median(whole.err)
    assert numbers["median_toyflux"] == np.median(whole.planes["TOYFLUX"][0][part])
    assert numbers["n_restored"] == np.count_nonzero(has(whole.dq, DQ.RESTORED)) > 0
    assert numbers["n_kept"] == whole.n_kept
    assert asdict(whole.statistics).items() <= numbers.items()


def test_ingest_in_strips(narrow, rng, tmp_path):
    fits.HDUList(raw_with_overscan(rng)).writeto(tmp_path / "in.fits")
    whole = ingest_frame(tmp_path / "in.fits", tmp_path / "whole.fits", SkyIngestConfig())
    narrow()
    assert ingest_frame(tmp_path / "in.fits", tmp_path / "strips.fits", SkyIngestConfig()) == whole
    assert (tmp_path / "strips.fits").read_bytes() == (tmp_path / "whole.fits").read_bytes()


def test_ingest_reads_no_plane_as_a_whole(narrow, rng, tmp_path, monkeypatch):
    fits.HDUList(plain(rng)).writeto(tmp_path / "in.fits")
    narrow()

    def whole(*_arguments):
        raise AssertionError("a plane was read as a whole")

    monkeypatch.setattr(LazyImage, "__array__", whole)
    monkeypatch.setattr(Frame, "loaded", whole)
    assert ingest_frame(tmp_path / "in.fits", tmp_path / "out.fits", SkyIngestConfig())["shape"] == list(SHAPE)


# ---- what fails leaves nothing ---------------------------------------------------------------------------------------
def test_a_failure_in_the_middle_leaves_no_file(narrow, rng, tmp_path):
    fits.HDUList(plain(rng)).writeto(tmp_path / "in.fits")
    narrow()

    class Failing(Careful):
        n_tiles = 0

        def predict(self, batch):
            self.n_tiles += 1
            if self.n_tiles == 5:
                raise InputFileError("the fifth tile fails")
            return super().predict(batch)

    with open_frames(tmp_path / "in.fits") as (frame,):
        product = Restoration.of(frame, Failing(), **TILES).product()
        with pytest.raises(InputFileError, match="the fifth tile fails"):
            write_products(tmp_path / "in.fits", tmp_path / "out.fits", [product])
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.fits"]


def test_a_product_that_ends_too_early_is_no_product(rng, tmp_path):
    fits.HDUList(plain(rng)).writeto(tmp_path / "in.fits")
    with open_frames(tmp_path / "in.fits") as (frame,):
        product = Restoration.of(frame, Careful(), **TILES).product()
        short = replace(product, compute=lambda: (strip for strip in product.strips() if strip.top < 40))
        assert isinstance(short, StreamedProduct)
        with pytest.raises(ValueError, match="a product of 150 rows came with 44"):
            write_products(tmp_path / "in.fits", tmp_path / "out.fits", [short])
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.fits"]


def test_a_damaged_tile_is_named(narrow, rng, tmp_path):
    path = tmp_path / "in.fits.fz"
    fits.HDUList(FILES["tiles"](rng)).writeto(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        end = (
            hdus[1].fileinfo()["datLoc"]
            + hdus[1].header["NAXIS1"] * hdus[1].header["NAXIS2"]
            + hdus[1].header["PCOUNT"]
        )
    content = bytearray(path.read_bytes())
    content[end - 3000 : end - 1000] = bytes(2000)
    path.write_bytes(content)
    narrow()
    reason = r"in\.fits\.fz: the pixels of HDU .* cannot be read, the file is damaged"
    with pytest.raises(InputFileError, match=reason), open_frames(path) as (frame,):
        frame.loaded()


def test_a_strip_has_whole_rows_of_tiles():
    assert strip_rows_of((20_000, 20_000)) == 104
    assert strip_rows_of((20_000, 20_000), 256) == 256
    assert strip_rows_of((20_000, 2000), 256) == 1024
    assert strip_rows_of((10, 10**8)) == 1
