"""FWHM, shape, noise and colour pattern of frames with known ones; and which pixels look like sources."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar
from unittest.mock import ANY

import numpy as np
import pytest
from astropy.io import fits
from populations import population

from pipeline.config import parse_config
from pipeline.errors import InputFileError
from pipeline.inputs.population import QUANTITIES
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DQ, DQ_DTYPE, NO_SOURCE, has
from pipeline.sky.frame_statistics import described, measure
from pipeline.sky.frames import Frame, read_frame
from pipeline.sky.headers import Section
from pipeline.sky.ingest import ingest_frame
from pipeline.sky.mosaic import mosaic_of, phases_of
from pipeline.sky.restore import restore_frame
from pipeline.sky.source_pixels import possible_sources, source_pixels
from pipeline.sky.training_range import compare
from pipeline.sky.truth import read_truth, truth_path
from pipeline.stages.simulate_sky import simulate_sky
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.defects.decode import SURE

LEVEL, NOISE = 900.0, 30.0
_FINE = (np.arange(3) - 1) / 3  # places within a pixel at which a star is sampled


def frame_of(sci, dq=None, header=None) -> Frame:
    level, noise = robust_background(sci)
    dq = np.zeros(sci.shape, DQ_DTYPE) if dq is None else dq
    err = np.full(sci.shape, noise, np.float32)
    header = header if header is None else fits.Header(header)
    return Frame(Path("frame.fits"), 0, sci, err, dq, "electron", "electron", level, noise, header=header)


def star_field(rng, fwhm_px, *, axis_ratio=1.0, angle=0.5, n_stars=40, shape=(300, 320), peak=3000.0):
    """Gaussian stars that the pixels integrate; their places."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    major = fwhm_px / 2.3548 / np.sqrt(axis_ratio)
    places = np.column_stack([rng.uniform(12, shape[1] - 12, n_stars), rng.uniform(12, shape[0] - 12, n_stars)])
    sci = np.zeros(shape)
    for cx, cy in places:
        part = (slice(max(int(cy) - 30, 0), int(cy) + 31), slice(max(int(cx) - 30, 0), int(cx) + 31))
        for dy in _FINE:
            for dx in _FINE:
                u, v = x[part] - cx + dx, y[part] - cy + dy
                along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
                radius2 = (along / major) ** 2 + (across / (axis_ratio * major)) ** 2
                sci[part] += peak / len(_FINE) ** 2 * np.exp(-radius2 / 2)
    sci = rng.poisson(sci + LEVEL - 25) + rng.normal(25, 5, shape)
    return sci.astype(np.float32), places


def with_single_hits(sci, rng, n=150):
    """Hot pixels, hits of two pixels, and straight tracks: all sharper than any star."""
    sci = sci.copy()
    for number in range(n):
        y, x = rng.integers(15, np.array(sci.shape) - 15)
        for step in range((1, 2, 9)[number % 3]):
            sci[y + (step if number % 2 else 0), x + step] += rng.uniform(500, 5000)
    return sci


# ---- the point-spread function ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("fwhm_px", [1.2, 1.6, 2.0, 3.0, 4.5, 6.0, 8.0])
@pytest.mark.parametrize("hits", [False, True])
def test_fwhm(rng, fwhm_px, hits):
    sci, _ = star_field(rng, fwhm_px)
    found = measure(frame_of(with_single_hits(sci, rng) if hits else sci))
    as_pixels_see_it = np.hypot(fwhm_px, 2.3548 / np.sqrt(12))
    assert found.fwhm_px == pytest.approx(as_pixels_see_it, rel=0.06)
    assert found.ellipticity < 0.08


@pytest.mark.parametrize(("axis_ratio", "angle"), [(0.7, 0.0), (0.5, 0.5), (0.5, 2.2), (0.35, 1.57)])
def test_elongated_stars(rng, axis_ratio, angle):
    sci, _ = star_field(rng, 3.5, axis_ratio=axis_ratio, angle=angle)
    found = measure(frame_of(with_single_hits(sci, rng)))
    assert found.ellipticity == pytest.approx(1 - axis_ratio, abs=0.08)
    assert found.fwhm_px == pytest.approx(3.5, rel=0.1)


def test_without_stars_there_is_no_fwhm(rng):
    sci = rng.normal(LEVEL, NOISE, (200, 200)).astype(np.float32)
    assert measure(frame_of(sci)).fwhm_px is None
    assert measure(frame_of(with_single_hits(sci, rng))).fwhm_px is None  # whatever their number, hits are no stars


def test_flagged_stars_are_not_measured(rng):
    sci, places = star_field(rng, 3.0)
    dq = np.zeros(sci.shape, DQ_DTYPE)
    for x, y in np.rint(places).astype(int):
        dq[y, x] = DQ.SATURATED
    assert measure(frame_of(sci, dq)).fwhm_px is None


@pytest.mark.parametrize("shape", [(2, 3), (3, 400), (21, 20), (60, 7)])
def test_frames_too_small_to_measure(rng, shape):
    found = measure(frame_of(rng.normal(LEVEL, NOISE, shape).astype(np.float32)))
    assert found.fwhm_px is None
    assert found.colour_pattern is None or np.prod(shape) >= 1600  # four times 400 pixels
    assert all(value is None or np.isfinite(value) for value in asdict(found).values())
    noise = frame_of(np.full(shape, LEVEL, np.float32) + rng.normal(0, 1, shape).astype("f4"))
    marked = source_pixels(noise, described(noise)[1])
    assert not np.asarray(marked).all()


def test_a_large_frame_is_sampled(rng):
    sci, _ = star_field(rng, 2.2, n_stars=400, shape=(2400, 2300))
    assert measure(frame_of(sci)).fwhm_px == pytest.approx(2.32, rel=0.03)


# ---- the background --------------------------------------------------------------------------------------------------
def test_independent_noise(rng):
    found = measure(frame_of(star_field(rng, 3.0)[0]))
    for name in ("noise_correlation_x", "noise_correlation_y", "noise_correlation_diagonal", "colour_pattern"):
        assert abs(getattr(found, name)) < 0.04


def test_correlated_noise(rng):
    """The mean of two neighbours shares half of its variance with the next one."""
    noise = rng.normal(0, NOISE, (301, 301)).astype(np.float32)
    along_x = measure(frame_of((noise[1:, 1:] + noise[1:, :-1]) / 2 + 900))
    assert along_x.noise_correlation_x == pytest.approx(0.5, abs=0.03)
    assert along_x.noise_correlation_y == pytest.approx(0, abs=0.03)
    both = measure(frame_of((noise[1:, 1:] + noise[1:, :-1] + noise[:-1, 1:] + noise[:-1, :-1]) / 4 + 900))
    assert both.noise_correlation_y == pytest.approx(0.5, abs=0.03)
    assert both.noise_correlation_diagonal == pytest.approx(0.25, abs=0.03)


def bayer(sci):
    """Light through red, green, green and blue filters."""
    transmission = np.tile([[0.6, 1.0], [1.0, 0.8]], (sci.shape[0] // 2, sci.shape[1] // 2))
    return (sci * transmission).astype(np.float32)


def test_colour_pattern(rng):
    sci, _ = star_field(rng, 3.0)
    found = measure(frame_of(bayer(sci)))
    assert found.colour_pattern > 1.0
    rows = sci + np.where(np.arange(len(sci)) % 2, NOISE, 0)[:, None].astype(np.float32)
    assert measure(frame_of(rows)).colour_pattern == pytest.approx(0.9, abs=0.15)  # read-out that differs by rows


def test_a_gradient_is_no_pattern(rng):
    sci, _ = star_field(rng, 3.0)
    found = measure(frame_of(sci + np.linspace(0, 600, sci.shape[1], dtype=np.float32)))
    assert found.colour_pattern < 0.05
    assert abs(found.noise_correlation_x) < 0.06


def test_crowding(rng):
    sparse, crowded = (star_field(rng, 3.0, n_stars=n, peak=1000)[0] for n in (40, 1500))
    assert measure(frame_of(sparse)).source_density == pytest.approx(40 / 96, rel=0.1)
    assert measure(frame_of(crowded)).source_density > 4


def test_noise_over_its_stated_uncertainty(rng):
    frame = frame_of(rng.normal(LEVEL, NOISE, (300, 300)).astype(np.float32))
    assert measure(frame).noise_over_err == pytest.approx(1, abs=0.01)
    assert measure(replace(frame, err=frame.err / 2)).noise_over_err == pytest.approx(2, rel=0.01)
    assert measure(replace(frame, err=frame.err * 0)).noise_over_err is None


def test_pixels_far_above_and_below(rng):
    sci = rng.normal(LEVEL, NOISE, (200, 200)).astype(np.float32)
    sci[5:45:4, 10] += 30 * NOISE
    sci[5:45:2, 90] -= 30 * NOISE
    found = measure(frame_of(sci))
    assert found.share_above == found.hit_density == pytest.approx(10 / 40)
    assert found.share_below == pytest.approx(20 / 40)


@pytest.mark.parametrize("step", [0.2, 1.0])
def test_digital_steps(rng, step):
    sci = (np.round(rng.normal(LEVEL, NOISE, (300, 300)) / (step * NOISE)) * step * NOISE).astype(np.float32)
    assert measure(frame_of(sci)).adu_step == pytest.approx(step, rel=0.05)
    assert measure(frame_of(sci + rng.normal(0, 1, sci.shape).astype(np.float32))).adu_step < 0.01


def test_gradient(rng):
    sci = rng.normal(LEVEL, NOISE, (640, 640)).astype(np.float32)
    assert measure(frame_of(sci)).gradient < 0.1
    found = measure(frame_of(sci + np.linspace(0, 5 * NOISE, 640, dtype=np.float32)))
    assert found.gradient == pytest.approx(0.9 * 5, rel=0.1)


def test_rows_and_columns_with_noise_of_their_own(rng):
    sci = rng.normal(LEVEL, NOISE, (300, 300)).astype(np.float32)
    plain = measure(frame_of(sci))
    assert plain.row_noise == pytest.approx(1, abs=0.15)
    assert plain.column_noise == pytest.approx(1, abs=0.15)
    rows = measure(frame_of(sci + 0.3 * NOISE * rng.standard_normal((300, 1)).astype(np.float32)))
    assert rows.row_noise == pytest.approx(np.hypot(1, 0.3 * np.sqrt(300)), rel=0.15)
    assert rows.column_noise == pytest.approx(1, abs=0.15)


# ---- what looks like a source ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("fwhm_px", [1.2, 1.6, 3.0, 6.0])
def test_stars_look_like_sources_and_hits_do_not(rng, fwhm_px):
    sci, places = star_field(rng, fwhm_px)
    hit = with_single_hits(sci, rng)
    frame = frame_of(hit)
    marked = np.asarray(source_pixels(frame, described(frame)[1]))
    x, y = np.rint(places).astype(int).T
    assert marked[y, x].mean() > 0.95
    y, x = np.indices(sci.shape)
    away = np.all([np.hypot(x - cx, y - cy) > 3 * fwhm_px + 3 for cx, cy in places], axis=0)
    hits = (hit != sci) & away
    assert hits.sum() > 100
    assert marked[hits].mean() < 0.1


def test_sources_in_the_overscan_are_none(rng):
    from pipeline.sky.headers import Section

    sci, _ = star_field(rng, 3.0)
    frame = replace(frame_of(sci), section=Section((0, 300), (100, 320)))
    assert not source_pixels(frame, described(frame)[1])[:, :100].any()
    assert source_pixels(frame, described(frame)[1])[:, 100:].any()


def test_hits_on_the_sky_are_no_part_of_a_source(rng):
    sci, places = star_field(rng, 3.0)
    hit = with_single_hits(sci, rng)
    frame = frame_of(hit)
    psf = described(frame)[1]
    possible = np.asarray(possible_sources(frame, psf))
    assert not (np.asarray(source_pixels(frame, psf)) & ~possible).any()
    y, x = np.indices(sci.shape)
    away = np.all([np.hypot(x - cx, y - cy) > 13 for cx, cy in places], axis=0)
    hits = (hit != sci) & away
    assert hits.sum() > 100
    assert possible[hits].mean() < 0.1


@pytest.mark.parametrize("cy", [380, 680])
def test_what_a_saturated_star_bleeds_is_part_of_it(rng, cy):
    """Across the windows in which a frame is looked at, too; a track that begins elsewhere and is as long is not."""
    sci, _ = star_field(rng, 3.0, shape=(900, 320))
    cx, bled = 150, slice(380, 680)
    y, x = np.indices(sci.shape)
    away = np.hypot(x - cx, y - cy) < 8
    sci[away] += (60_000 * np.exp(-(np.hypot(x - cx, y - cy) ** 2) / 3.2))[away]
    sci[bled, cx] = 60_000
    sci[400:700, 20] += 5_000
    frame = frame_of(sci)
    possible = np.asarray(possible_sources(frame, described(frame)[1]))
    assert possible[bled, cx].all()
    assert possible[400:700, 20].mean() < 0.2


def test_the_ends_of_a_galaxy_are_part_of_it_and_a_track_across_a_star_is_not(rng):
    sci, places = star_field(rng, 3.0, n_stars=12)
    y, x = np.indices(sci.shape)
    along, across = (x - 160) * 0.8 + (y - 150) * 0.6, (y - 150) * 0.8 - (x - 160) * 0.6
    galaxy = 2500 * np.exp(-np.abs(along) / 9 - across**2 / (2 * 1.4**2))
    away = np.hypot(*(places - [160, 150]).T) > 70
    cx, cy = np.rint(places[away][0]).astype(int)
    track = np.zeros(sci.shape, bool)
    track[cy, max(cx - 40, 2) : cx + 40] = True
    frame = frame_of((sci + galaxy + 900 * track).astype(np.float32))
    possible = np.asarray(possible_sources(frame, described(frame)[1]))
    bright = galaxy > 5 * NOISE
    assert np.abs(along[bright]).max() > 20
    assert possible[bright].mean() > 0.98
    assert possible[bright & (np.abs(along) > 15)].mean() > 0.9
    others = np.all([np.hypot(x - px, y - py) > 12 for px, py in places], axis=0) & (galaxy < 1)
    assert (track & others).sum() > 20
    assert possible[track & others].mean() < 0.2


@pytest.mark.parametrize("hole", ["edge", "missing", "dark"])
def test_a_star_that_is_cut_may_be_one(rng, hole):
    sci, _ = star_field(rng, 3.0)
    y, x = np.indices(sci.shape)
    cy, cx = (150, 0) if hole == "edge" else (151, 160)
    sci += (3000 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 3.2)).astype(np.float32)
    if hole != "edge":
        sci[:, 150:160] = np.nan if hole == "missing" else LEVEL - 20 * NOISE
    frame = frame_of(sci)
    possible = np.asarray(possible_sources(frame, described(frame)[1]))
    assert possible[cy, cx : cx + 2].all()


# ---- against the range of training -----------------------------------------------------------------------------------
def test_every_quantity_is_measured(rng):
    measured = asdict(measure(frame_of(star_field(rng, 3.0)[0])))
    del measured["lit_lines"]  # tells spectra by itself: small crowded frames differ in it from large ones
    assert [quantity.name for quantity in QUANTITIES] == list(measured)


class Suspicious:
    """A stand-in for a network that takes whatever is 10 sigma above the background for a defect."""

    columns = get_spec("denoise").columns
    size_multiple = 1
    receptive_field_px = None
    population = population(fwhm_px=(2.4, 4.9), colour_pattern=(0.0, 0.03))
    lines: ClassVar = {}
    correlations: ClassVar = {}
    warnings = ()

    def predict(self, batch):
        level, noise = (batch.events[name][:, None, None].astype(np.float32) for name in ("level", "noise"))
        sci = batch.images[:, 0]
        defect = ~(sci < level + 10 * noise)
        return {
            "restored": np.where(defect, level, sci + 1).astype(np.float32),
            "restored_err": np.broadcast_to(noise / 2, sci.shape).astype(np.float32),
            "defect_probability": defect.astype(np.float32),
            "painted": defect.astype(np.float32),
            "place": np.zeros(sci.shape, np.float32),
        }

    def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
        return get_decoder("denoise").flags(planes, dq, noise, kept, unless_sure=unless_sure)


def test_sharp_stars_are_left_alone_and_named(rng):
    sci, places = star_field(rng, 1.6)
    frame = frame_of(with_single_hits(sci, rng))
    result = restore_frame(frame, Suspicious())
    x, y = np.rint(places).astype(int).T
    kept = ~has(result.dq[y, x], DQ.RESTORED)
    assert np.count_nonzero(~kept) <= 2
    assert np.array_equal(result.sci[y, x][kept], frame.sci[y, x][kept])
    assert np.array_equal(result.err[y, x][kept], frame.err[y, x][kept])
    assert has(result.dq[y, x][kept], DQ.LOW_CONFIDENCE).mean() > 0.9
    assert has(result.dq, DQ.RESTORED).sum() > 200  # the hits are still replaced
    [warning] = result.warnings
    assert "unlike the frames that the model was trained on: FWHM of the stars 1.7" in warning
    assert f"{result.n_kept} pixels that look like sources keep their values" in warning


class Told(Suspicious):
    """Keeps what it is told of the pixels of one tile."""

    def predict(self, batch):
        self.told = has(batch.masks[0], NO_SOURCE)
        return super().predict(batch)


def test_a_network_that_replaces_is_told_where_no_source_is(rng):
    """In frames like those of training with round stars alone: elsewhere, shapes tell nothing that is known to hold."""
    frame = frame_of(with_single_hits(star_field(rng, 3.0)[0], rng))
    model = Told()
    restore_frame(frame, model)
    told = model.told[: frame.shape[0], : frame.shape[1]]
    np.testing.assert_array_equal(told, ~np.asarray(possible_sources(frame, described(frame)[1])))
    assert 0.5 < told.mean() < 0.99
    unlike = frame_of(star_field(rng, 1.6)[0])
    elongated = frame_of(star_field(rng, 3.0, axis_ratio=0.6)[0])
    empty = frame_of(rng.normal(LEVEL, NOISE, (300, 300)).astype(np.float32))
    flagging = Told()
    flagging.columns = tuple(column for column in model.columns if column.name != "painted")
    flagging.flags = lambda planes, dq, *_, **__: np.zeros(dq.shape, DQ_DTYPE)
    for image, network in ((unlike, model), (elongated, model), (empty, model), (frame, flagging)):
        restore_frame(image, network)
        assert not network.told.any()


def test_the_header_says_how_far_a_frame_is_from_training(rng):
    sharp, usual = (restore_frame(frame_of(star_field(rng, fwhm_px)[0]), Suspicious()) for fwhm_px in (1.6, 3.0))
    assert [(card[0], card[1]) for card in sharp.cards] == [("LPOOD", ANY), ("LPOODWHY", "FWHM 1.7, trained > 2.4")]
    assert sharp.cards[0][1] > 1
    [(keyword, score, _)] = usual.cards
    assert keyword == "LPOOD"
    assert 0 <= score <= 1


@pytest.mark.parametrize("only_flags", [False, True])
def test_far_from_training_whatever_was_changed_is_of_low_confidence(rng, only_flags):
    """Pixels that keep their value are not doubted, nor are those beside the mask where nothing but it is written."""
    frame = frame_of(with_single_hits(star_field(rng, 1.6)[0], rng))
    model = Suspicious()
    model.population = population(fwhm_px=(4.0, 4.9))
    if only_flags:
        model.columns = tuple(replace(column, hdu=None) for column in model.columns)
    result = restore_frame(frame, model)
    assert result.cards[0][1] > 3
    doubt, replaced = has(result.dq, DQ.LOW_CONFIDENCE), has(result.dq, DQ.RESTORED)
    assert doubt[replaced].all()
    if only_flags:
        assert doubt.mean() < 0.05
    else:
        assert doubt[result.sci != frame.sci].all()
    model.population = population(fwhm_px=(2.0, 4.9))
    assert has(restore_frame(frame, model).dq, DQ.LOW_CONFIDENCE).mean() < 0.1


def test_known_defects_are_replaced_in_sources_too(rng):
    sci, places = star_field(rng, 1.6)
    dq = np.zeros(sci.shape, DQ_DTYPE)
    x, y = np.rint(places[0]).astype(int)
    dq[y, x + 1] = DQ.HOT
    assert has(restore_frame(frame_of(sci, dq), Suspicious()).dq[y, x + 1], DQ.RESTORED)


def test_a_result_may_be_forced_or_refused(rng):
    frame = frame_of(star_field(rng, 1.6)[0])
    forced = restore_frame(frame, Suspicious(), outside_range="apply")
    assert has(forced.dq, DQ.RESTORED).sum() > 100
    assert forced.n_kept == 0
    assert "its result is applied everywhere" in forced.warnings[0]
    with pytest.raises(InputFileError, match=r"frame\.fits: unlike the frames .*FWHM of the stars 1\.7.*outside_range"):
        restore_frame(frame, Suspicious(), outside_range="refuse")


def test_a_frame_within_the_range_is_restored_as_without_it(rng):
    frame = frame_of(star_field(rng, 3.0)[0])
    unknown = Suspicious()
    unknown.population = None
    one, two = restore_frame(frame, Suspicious(), outside_range="apply"), restore_frame(frame, unknown)
    assert one.warnings == two.warnings == ()
    assert one.sci.tobytes() == two.sci.tobytes()
    assert one.dq.tobytes() == two.dq.tobytes()
    assert (one.statistics is None, two.statistics is None) == (False, True)


def test_elongated_stars_are_not_taken_for_defects_in_a_frame_within_the_range(rng, monkeypatch):
    sci, places = star_field(rng, 3.0)
    frame = frame_of(sci)
    model = Suspicious()
    round_stars = restore_frame(frame, model)
    assert has(round_stars.dq, DQ.RESTORED).sum() > 10
    monkeypatch.setattr("pipeline.sky.training_range.ELONGATED", -1.0)
    painted, result = restore_frame(frame, model, outside_range="apply"), restore_frame(frame, model)
    x, y = np.rint(places).astype(int).T
    taken = has(painted.dq, DQ.RESTORED)[y, x]
    assert taken.sum() > 10
    assert not has(result.dq, DQ.RESTORED)[y, x].any()
    assert has(result.dq, DQ.LOW_CONFIDENCE)[y, x][taken].all()
    np.testing.assert_array_equal(result.sci[y, x][taken], frame.sci[y, x][taken])
    beside = ~has(painted.dq, DQ.RESTORED)  # the model's correction is still made
    np.testing.assert_array_equal(result.sci[beside], painted.sci[beside])
    assert result.n_kept == 0
    (warning,) = result.warnings
    assert warning.startswith("the stars are elongated (ellipticity 0.")
    assert warning.endswith("cosmic rays that look like one may stay (DQ bit 128); see predict.outside_range")


def test_a_mask_alone_does_not_flag_elongated_stars(rng, monkeypatch):
    class Mask(Suspicious):
        """The same as a model that flags only: no plane is written."""

        columns = get_spec("defects").columns
        certainty = SURE - 0.1

        def predict(self, batch):
            score = np.where(super().predict(batch)["painted"] > 0, self.certainty, -9.0).astype(np.float32)
            logits = [column.name for column in self.columns if column.name.endswith("_logit")]
            return {"defect_score": score, "surroundings_snr": np.zeros_like(score)} | dict.fromkeys(logits, score)

        def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
            return get_decoder("defects").flags(planes, dq, noise, kept, unless_sure=unless_sure)

    sci, places = star_field(rng, 3.0)
    frame = frame_of(sci)
    x, y = np.rint(places).astype(int).T
    flagged = has(restore_frame(frame, Mask()).dq, DQ.COSMIC_RAY)[y, x]
    assert flagged.sum() > 10
    monkeypatch.setattr("pipeline.sky.training_range.ELONGATED", -1.0)
    result = restore_frame(frame, Mask())
    assert not has(result.dq, DQ.COSMIC_RAY)[y, x].any()
    assert has(result.dq, DQ.LOW_CONFIDENCE)[y, x][flagged].all()
    np.testing.assert_array_equal(result.sci, frame.sci)
    (warning,) = result.warnings
    assert "what looks like a source is not painted over, and flagged only beyond doubt" in warning
    Mask.certainty = SURE + 0.1
    assert has(restore_frame(frame, Mask()).dq, DQ.COSMIC_RAY)[y, x][flagged].all()


def test_where_stars_are_single_pixels_nothing_bright_is_painted_over(rng):
    sci, places = star_field(rng, 0.8, peak=30_000)
    result = restore_frame(frame_of(sci), Suspicious())
    assert "FWHM of the stars" in result.warnings[0]
    x, y = np.rint(places).astype(int).T
    assert has(restore_frame(frame_of(sci), Suspicious(), outside_range="apply").dq, DQ.RESTORED)[y, x].any()
    for row, column in zip(y, x, strict=True):
        star = (slice(row - 1, row + 2), slice(column - 1, column + 2))
        bright = sci[star] > 2 * LEVEL
        np.testing.assert_array_equal(result.sci[star][bright], sci[star][bright])


def spectrum(rng, shape=(300, 400)):
    """The trace of a star along the rows, and lines of the night sky along the columns."""
    sci = rng.poisson(LEVEL, shape).astype(np.float32)
    sci += 3000 * np.exp(-0.5 * ((np.arange(shape[0])[:, None] - 140) / 2.5) ** 2).astype(np.float32)
    sci[:, rng.choice(shape[1], 14, replace=False)] += 600
    return sci


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (fits.Header(), "of its rows or columns are bright from end to end, and what is bright has the ellipticity"),
        (fits.Header({"CTYPE1": "WAVE", "CTYPE2": "LINEAR"}), r"\(its axis 1 is WAVE\)"),
    ],
)
def test_a_spectrum_is_left_as_it_is(rng, header, why):
    """Its lines look like defects: unless this is asked for, nothing is changed."""
    frame = frame_of(spectrum(rng), header=header)
    result = restore_frame(frame, Suspicious())
    (warning,) = result.warnings
    assert re.search(f"this is a spectrum .*{why}", warning)
    assert warning.endswith("no pixel is changed; see predict.outside_range")
    np.testing.assert_array_equal(result.sci, frame.sci)
    assert not has(result.dq, DQ.RESTORED).any()
    with pytest.raises(InputFileError, match="this is a spectrum"):
        restore_frame(frame, Suspicious(), outside_range="refuse")
    assert has(restore_frame(frame, Suspicious(), outside_range="apply").dq, DQ.RESTORED).any()


@pytest.mark.parametrize(("sky_e", "read_noise_e"), [(0.5, 0.05), (0.5, 0.3), (1.0, 0.5)])
def test_counts_of_single_photons_are_left_as_they_are(rng, sky_e, read_noise_e):
    """Their noise has no lower tail: a network painted a fifth of the sky over."""
    sci = rng.poisson(sky_e, (200, 220)) + rng.normal(0, read_noise_e, (200, 220))
    frame = replace(frame_of(sci.astype(np.float32)), unit="electron")
    result = restore_frame(frame, Suspicious())
    (warning,) = result.warnings
    assert warning.startswith("these are counts of single photons (noise of ")
    assert warning.endswith("no pixel is changed; see predict.outside_range")
    np.testing.assert_array_equal(result.sci, frame.sci)
    assert compare(frame, Suspicious.population, "keep_sources").score > 1
    with pytest.raises(InputFileError, match="counts of single photons"):
        restore_frame(frame, Suspicious(), outside_range="refuse")


def test_a_hit_in_a_cut_out_of_a_few_pixels_is_no_density(rng):
    for side, is_known in ((10, False), (60, True)):
        sci = rng.normal(LEVEL, 20, (side, side)).astype(np.float32)
        sci[5, 3:8] += 4000
        found = measure(frame_of(sci))
        densities = found.source_density, found.hit_density, found.share_above, found.share_below
        assert all((density is not None) == is_known for density in densities)


def test_few_photons_are_warned_of(rng):
    sci = (rng.poisson(5, (200, 220)) + rng.normal(0, 1, (200, 220))).astype(np.float32)
    found = compare(frame_of(sci), Suspicious.population, "keep_sources")
    assert found.score > 1
    assert "few photons per pixel (noise of 2." in found.warnings[0]
    average = (100 + rng.normal(0, 2.4, (200, 220))).astype(np.float32)  # of many frames: as little noise, not skewed
    for other in (frame_of(average), replace(frame_of(sci), unit="adu")):
        assert not any("photon" in text for text in compare(other, Suspicious.population, "keep_sources").warnings)


def test_frames_of_stars_are_no_spectra(rng):
    for sci in (star_field(rng, 3.0, n_stars=400)[0], star_field(rng, 4.0, axis_ratio=0.3)[0]):
        assert not any("spectrum" in text for text in restore_frame(frame_of(sci), Suspicious()).warnings)


def test_a_colour_mosaic_is_restored_colour_by_colour(rng):
    frame = frame_of(bayer(with_single_hits(star_field(rng, 6.0)[0], rng)))
    result = restore_frame(frame, Suspicious())
    assert "differences of the background" in result.warnings[0]
    assert "each of its four kinds of pixels is taken for a frame of its own" in result.warnings[0]
    for row in (0, 1):
        for column in (0, 1):
            phase = frame.sci[row::2, column::2]
            alone = replace(frame_of(phase), err=frame.err[row::2, column::2])
            expected = restore_frame(alone, Suspicious())
            assert result.sci[row::2, column::2].tobytes() == expected.sci.tobytes()
            assert result.err[row::2, column::2].tobytes() == expected.err.tobytes()
            assert result.dq[row::2, column::2].tobytes() == expected.dq.tobytes()
    assert "its result is applied everywhere" in compare(frame, Suspicious.population, "apply").warnings[0]


def test_the_primary_header_says_that_an_extension_is_a_mosaic(tmp_path, rng):
    image = fits.ImageHDU(rng.normal(900, 20, (40, 50)).astype(np.float32))
    primary = fits.PrimaryHDU(header=fits.Header({"BAYERPAT": "RGGB", "YBAYROFF": 1}))
    fits.HDUList([primary, image]).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert mosaic_of(frame).pattern == "GBRG"
    assert all(mosaic_of(phase) is None for _, phase in phases_of(frame))


def test_the_phases_of_a_mosaic_stay_within_the_exposed_section(rng):
    frame = replace(frame_of(bayer(star_field(rng, 6.0)[0])), section=Section((3, 200), (1, 151)))
    result = restore_frame(frame, Suspicious())
    changed = result.sci != frame.sci
    assert changed[3:200, 1:151].any()
    assert not changed[:3].any()
    assert not changed[200:].any()
    assert not changed[:, :1].any()
    assert not changed[:, 151:].any()


@pytest.mark.parametrize("bayer", ["auto", "GBRG"])
def test_a_mosaic_that_is_said_to_be_one_is_taken_apart_though_the_sky_is_grey(rng, bayer):
    header = {"BAYERPAT": "RGGB", "XBAYROFF": 0, "YBAYROFF": 1} if bayer == "auto" else {}
    frame = frame_of(star_field(rng, 3.0)[0], header=header)
    result = restore_frame(frame, Suspicious(), bayer=bayer)
    said = "BAYERPAT = RGGB, offset 0, 1" if bayer == "auto" else "given as GBRG"
    assert result.warnings[0].startswith(f"colour mosaic ({said}): each of its four kinds of pixels")
    # The pixels of each colour are sharper than what the model was trained on, and every one says so.
    assert [text.split()[0] for text in result.warnings[1:]] == ["G", "B", "R", "G"]
    part = np.s_[1::2, ::2]  # its red pixels
    alone = restore_frame(replace(frame_of(frame.sci[part]), err=frame.err[part]), Suspicious())
    assert result.sci[part].tobytes() == alone.sci.tobytes()
    assert result.dq[part].tobytes() == alone.dq.tobytes()


def test_a_card_of_a_mosaic_can_be_contradicted(rng):
    frame = frame_of(star_field(rng, 3.0)[0], header={"BAYERPAT": "RGGB"})
    assert restore_frame(frame, Suspicious(), bayer="none").warnings == ()
    assert restore_frame(frame_of(frame.sci, header={"BAYERPAT": "NONE"}), Suspicious()).warnings == ()
    patterned = restore_frame(frame_of(bayer(star_field(rng, 3.0)[0])), Suspicious(), bayer="none")
    assert "differences of the background" in patterned.warnings[0]
    assert f"{patterned.n_kept} pixels that look like sources keep their values" in patterned.warnings[0]
    assert patterned.n_kept > 0


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"BAYERPAT": "GBGGRG"}, r"BAYERPAT is 'GBGGRG', and only patterns of 2 x 2 pixels .* --bayer"),
        ({"BAYERPAT": "RGGB", "YBAYROFF": "half"}, r"YBAYROFF is 'half', not a whole number of pixels"),
    ],
)
def test_patterns_that_cannot_be_taken_apart(rng, cards, message):
    with pytest.raises(InputFileError, match=message):
        restore_frame(frame_of(star_field(rng, 3.0)[0], header=cards), Suspicious())


# ---- simulated frames, with cosmic rays of every kind ----------------------------------------------------------------
@pytest.fixture(scope="module")
def simulated_frames(tmp_path_factory):
    """Ingested frames and truths by the FWHM of their stars."""
    folder, frames = tmp_path_factory.mktemp("frames"), {}
    for fwhm_px in (1.6, 2.0, 3.0, 4.5):
        cfg = parse_config({"sky": {"shape": [384, 384], "fwhm_px": [fwhm_px, fwhm_px]}, "seed": 7})
        raw, out = folder / f"raw_{fwhm_px}.fits", folder / f"frame_{fwhm_px}.fits"
        ingest_frame(simulate_sky(cfg, 1, raw), out, cfg.ingest.sky)
        frames[fwhm_px] = read_frame(out), read_truth(truth_path(out))
    return frames


def test_stars_of_simulated_frames_are_told_from_cosmic_rays(simulated_frames):
    for fwhm_px, (frame, truth) in simulated_frames.items():
        found = measure(frame)
        assert 1.02 * fwhm_px < found.fwhm_px < 1.3 * fwhm_px  # the pixel, and the wings of a Moffat profile
        assert found.ellipticity < 0.1
        x, y = (np.rint(truth.stars[name]).astype(int) for name in "xy")
        inside = (x >= 5) & (y >= 5) & (x < 379) & (y < 379)
        x, y = x[inside], y[inside]
        seen = (truth.clean_e[y, x] - frame.level > 10 * frame.noise) & (truth.dq[y, x] == 0)
        assert np.asarray(source_pixels(frame, described(frame)[1]))[y, x][seen].mean() > 0.9
        bare = has(truth.dq, DQ.COSMIC_RAY) & (truth.clean_e - frame.level < 3 * frame.noise)
        assert np.asarray(source_pixels(frame, described(frame)[1]))[bare].mean() < 0.4
