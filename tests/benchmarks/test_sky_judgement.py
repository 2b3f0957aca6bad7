"""The measures of benchmarks/sky_judgement.py, each on a case whose answer is known."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import sky_judgement
from astropy.io import fits
from pages import write_page
from photometry import pixels, real, scenes
from photometry.independent import judge
from photometry.injection import add_stars, add_tracks, count_tracks
from photometry.limits import Limit, worst
from photometry.methods import NETWORK, RECORDED, Bundle, Method, outside, read
from photometry.real import RealFrame, RealSet, real_sets, restore_set
from photometry.stars import added, faintest_crossing, flux_statistics, limiting_magnitude, measure_stars, moments
from photometry.summary import real_mask_limits, star_figures, star_summary
from photometry.tables import real_mask_table
from tiny_bundles import sky_bundle

from pipeline.errors import UserError
from pipeline.sky.dq import DQ

PLAIN = scenes.Recipe("plain", 5, 3.0, n_stars=60, n_galaxies=0, n_tracks=20, side_px=192)


@pytest.fixture(scope="module")
def scene():
    """Stars, cosmic rays, hot and dead pixels on a flat sky."""
    return scenes.draw(PLAIN)


@pytest.fixture(scope="module")
def frame(scene, tmp_path_factory):
    return read(scene.write(tmp_path_factory.mktemp("plain") / "plain.fits"))[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """It believes every pixel, halves the uncertainty, and sees no defect."""
    return Bundle(sky_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def as_it_is(frame, mask=None):
    return Method(frame.sci, np.zeros(frame.shape, bool) if mask is None else mask, frame.err)


# ---- scenes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "n_pixels", "fwhm_px"), [("hst", 52_441, 2.0), ("ground", 8_212, 4.0)])
def test_the_frames_of_the_comparison_have_its_cosmic_rays(kind, n_pixels, fwhm_px):
    scene = scenes.bench_scene(kind)
    assert scene.clean.shape == (2048, 2048)
    assert np.count_nonzero(scene.excess > 3) == n_pixels  # counted by the script of the comparison
    assert scene.fwhm_px == fwhm_px


def test_a_drawn_scene_is_what_its_parts_add_up_to(scene):
    again = scenes.draw(PLAIN)
    np.testing.assert_array_equal(scene.recorded, again.recorded)
    assert scene.clean == pytest.approx(PLAIN.sky_e + scene.star_light)
    inside = (np.abs(scene.stars["x"] - 95.5) < 70) & (np.abs(scene.stars["y"] - 95.5) < 70)
    alone = replace(PLAIN, n_stars=1)
    one = {name: values[inside][:1] for name, values in scene.stars.items()}
    light = scenes._Psf.of(alone).draw(one, (192, 192), alone)
    assert light.sum() == pytest.approx(one["flux"][0], rel=0.01)
    dead = scene.charge["dead"] < 0
    assert dead.any()
    np.testing.assert_allclose(scene.recorded[dead], (scene.undefected - scene.clean)[dead])


def test_a_scene_in_adu_is_read_in_electrons(tmp_path):
    scene = scenes.draw(replace(PLAIN, gain_e_per_adu=1.7, sky_e=900))
    (frame,) = read(scene.write(tmp_path / "adu.fits"))
    assert frame.unit == "electron"
    np.testing.assert_allclose(frame.sci, scene.recorded, rtol=1e-6)


def test_every_recipe_has_its_own_seed_and_the_widths_of_the_demands():
    assert len({recipe.seed for recipe in scenes.RECIPES}) == len(scenes.RECIPES) == 10
    assert (min(r.fwhm_px for r in scenes.RECIPES), max(r.fwhm_px for r in scenes.RECIPES)) == (1.6, 7.0)


# ---- masks -----------------------------------------------------------------------------------------------------------
def test_the_share_found_at_a_false_rate_is_exact():
    # 1,000 good pixels with scores 0 to 999, ten defects, and one pixel of 1 sigma above all.
    excess = np.concatenate([np.zeros(1000), np.full(10, 4.0), [1.0]])
    score = np.concatenate([np.arange(1000.0), [5.0, 980.0, *np.full(8, 995.5)], [2000.0]])
    found = pixels.found_at(score, pixels.Count.bench(excess), rates=(0.005, 0.05))
    assert found == {0.005: (0.8, 994.0), 0.05: (0.9, 949.0)}
    # By the own count the pixel of 1 sigma is a good one: the threshold is one place higher.
    assert pixels.found_at(score, pixels.Count.own(excess), rates=(0.005,)) == {0.005: (0.8, 995.0)}


def test_a_mask_with_known_shares():
    excess = np.array([5.0, 5.0, 5.0, 5.0, 2.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    mask = np.array([True, True, True, False, True, True, False, False, False, False])
    assert pixels.rates_of(mask, pixels.Count.bench(excess)) == (0.75, 0.2)
    assert pixels.rates_of(mask, pixels.Count.own(excess)) == (0.8, 0.2)


# ---- pixels ----------------------------------------------------------------------------------------------------------
def test_errors_of_two_sigma_are_found_in_every_bin(scene):
    signs = np.where(np.indices(scene.clean.shape).sum(axis=0) % 2, 1, -1)
    image = scene.clean + 2 * signs * scene.noise
    found = np.array(pixels.rms_by_snr(image, scene))
    np.testing.assert_allclose(found[np.isfinite(found)], 2.0)
    assert pixels.sky_noise(image, scene) == pytest.approx(2.0, rel=1e-3)
    # The error on tracks is that of their pixels alone.
    tracks = scene.charge["cosmic ray"] > 3 * scene.noise
    assert pixels.rms_on_tracks(np.where(tracks, scene.clean + 25, 0), scene) == pytest.approx(25.0)


def test_pulls_of_an_uncertainty_that_is_half_of_the_error(scene):
    found = pixels.pulls(Method(scene.undefected, np.zeros(scene.clean.shape, bool), scene.noise / 2), scene)
    assert found["sky"]["n"] > 20_000
    assert found["sky"]["width"] == pytest.approx(2.0, rel=0.03)
    assert found["sky"]["beyond_3"] == pytest.approx(0.1336, rel=0.1)  # of a Gaussian, beyond 1.5 sigma
    assert found["painted"]["n"] == 0


def test_strata_share_no_pixel(scene):
    painted = scene.excess > 1
    parts = pixels.strata(scene, painted)
    assert np.sum([part.astype(int) for part in parts.values()], axis=0).max() == 1


def test_correlation_of_white_noise_and_of_its_mean_of_three_pixels(rng):
    white = rng.normal(size=(400, 400))
    usable = np.ones(white.shape, bool)
    np.testing.assert_allclose(pixels.residual_correlation(white, usable), 0, atol=0.01)
    mean = white[:, :-2] + white[:, 1:-1] + white[:, 2:]
    mean = mean[:-2] + mean[1:-1] + mean[2:]
    found = pixels.residual_correlation(mean, usable[:-2, :-2])
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 0], atol=0.03)


def test_a_seam_is_found(frame):
    other = replace(as_it_is(frame), sci=frame.sci.copy())
    other.sci[50, 60] += 3 * frame.noise
    assert pixels.seam(as_it_is(frame), other, frame.noise)["largest"] == pytest.approx(3.0, rel=1e-4)


# ---- stars -----------------------------------------------------------------------------------------------------------
def test_stars_that_lose_three_percent_are_found_so():
    scene = scenes.draw(replace(PLAIN, n_stars=250, side_px=384, n_tracks=60))
    images = {RECORDED: scene.clean, "lossy": scene.clean - 0.03 * scene.star_light}
    stars = measure_stars(images, scene)
    assert len(stars.snr) > 10
    np.testing.assert_allclose(stars.flux_error[RECORDED], 0, atol=1e-12)
    np.testing.assert_allclose(stars.flux_error["lossy"], -0.03, rtol=1e-6)
    np.testing.assert_allclose(stars.shift_px["lossy"], 0, atol=2e-3)
    summary = star_summary(stars)
    assert summary["lossy"]["flux_clear"]["bias"] == pytest.approx(-0.03)
    assert summary["n_clear"] + summary["n_hit"] == len(stars.snr)
    bins = star_figures(stars)
    assert bins
    assert [one["methods"]["lossy"]["bias_added"] for one in bins] == pytest.approx([-0.03] * len(bins))


def test_flux_statistics_are_those_of_the_numbers():
    before = np.linspace(-0.01, 0.01, 101)
    facts = flux_statistics(2 * before + 0.005, before)
    assert facts["bias"] == pytest.approx(0.005)
    assert facts["bias_added"] == pytest.approx(0.005)
    assert facts["scatter_ratio"] == pytest.approx(2.0)
    assert facts["scatter_before"] == pytest.approx(0.01 * 0.68269, rel=1e-3)


def test_moments_find_a_shift_and_an_elongation():
    grid = np.zeros((61, 61))
    scenes.paste(grid, 1e4 * scenes.psf_stamp(3.0, 15, 0.1, 0.0), 30, 30)
    place, shape = moments(grid, np.array([30.0]), np.array([30.0]), 3.0, np.zeros(1))
    np.testing.assert_allclose(place[0], [30.1, 30.0], atol=1e-3)
    np.testing.assert_allclose(shape[0], 0, atol=1e-3)
    wide = grid + 2e3 * np.roll(scenes.psf_stamp(3.0, 30, 0.1, 0.0), 1, axis=1)
    wide += 2e3 * np.roll(scenes.psf_stamp(3.0, 30, 0.1, 0.0), -1, axis=1)
    _, shape = moments(wide, np.array([30.0]), np.array([30.0]), 3.0, np.zeros(1))
    assert shape[0, 0] > 0.02
    assert abs(shape[0, 1]) < 1e-3


def test_what_was_added_to_places():
    before = np.array([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]])
    facts = added(before * 5 / 3, before)
    assert facts == pytest.approx({"after": 5.0, "before": 3.0, "systematic": 0.0, "added": 4.0})
    assert added(before + np.array([0.5, 0.0]), before)["systematic"] == pytest.approx(0.5)
    assert added(before / 2, before)["added"] == 0.0


def test_the_magnitude_where_half_is_found():
    magnitude = np.add.outer(np.arange(-10, -6, 0.5), np.linspace(0, 0.49, 20)).ravel()
    share = np.repeat([1, 1, 1, 1, 1, 0.75, 0.25, 0], 20)
    found = np.tile(np.arange(20), 8) < 20 * share
    assert faintest_crossing(magnitude, found) == pytest.approx(-7.0)
    assert faintest_crossing(magnitude, np.ones(160, bool)) is None
    assert faintest_crossing(magnitude, np.zeros(160, bool)) is None


def test_less_noise_finds_fainter_stars():
    scene = scenes.draw(replace(PLAIN, seed=9, n_stars=700, side_px=512, n_tracks=60))
    quiet = scene.clean + (scene.undefected - scene.clean) / 10**0.4
    before, after = (limiting_magnitude(image, scene, noisy=True) for image in (scene.undefected, quiet))
    assert after - before == pytest.approx(1.0, abs=0.35)  # the noise is lower by one magnitude
    with_tracks = limiting_magnitude(scene.recorded, scene, noisy=True)
    assert with_tracks < before


# ---- real frames -----------------------------------------------------------------------------------------------------
def test_tracks_and_hot_pixels_are_no_stars_by_their_profile(scene, frame):
    bright = scene.stars["flux"] > 50 * frame.noise * 3
    x, y = (scene.stars[name][bright] for name in ("x", "y"))
    inside = (np.minimum(x, y) > 8) & (np.maximum(x, y) < 183)
    x, y = x[inside], y[inside]
    clean = replace(frame, sci=(scene.undefected).astype(np.float32))
    assert real.like_the_psf(clean, x, y, 3.0).mean() > 0.7
    spoilt = clean.sci.copy()
    spoilt[40:43, 100] += 5000
    spoilt[120, 60] += 5000
    found = real.like_the_psf(replace(clean, sci=spoilt), np.append(x, [100, 60]), np.append(y, [41, 120]), 3.0)
    assert found[-2:].tolist() == [False, False]


def test_stars_are_seen_again_and_cosmic_rays_are_not(scene, frame):
    def shifted(dx, dy):
        sci = np.roll(scene.undefected, (dy, dx), (0, 1)).astype(np.float32)
        return replace(frame, sci=sci, dq=np.zeros_like(frame.dq))

    here = replace(frame, sci=scene.undefected.astype(np.float32), dq=np.zeros_like(frame.dq))
    bright = (scene.stars["flux"] > 100 * frame.noise) & (
        np.maximum(np.abs(scene.stars["x"] - 95), np.abs(scene.stars["y"] - 95)) < 70
    )
    x, y = (scene.stars[name][bright] for name in ("x", "y"))
    seen = real.seen_again(here, np.append(x, 77.0), np.append(y, 11.0), [shifted(5, -3), shifted(-4, 6)], 3.0)
    assert seen[:-1].mean() > 0.9
    assert not seen[-1]
    nothing = replace(frame, sci=np.full_like(frame.sci, frame.level))
    assert real.seen_again(here, x, y, [nothing], 3.0) is None


def test_flux_that_is_kept_and_stars_that_are_flagged(scene, frame):
    y, x = scene.stars["y"], scene.stars["x"]
    order = [k for k in np.argsort(-scene.stars["flux"]) if min(x[k], y[k]) > 20 and max(x[k], y[k]) < 170][:3]
    lost = 0.03 * scene.star_light.astype(np.float32)
    mask = np.zeros(frame.shape, bool)
    mask[round(y[order[0]]) + 2, round(x[order[0]])] = True
    clean = replace(frame, sci=scene.clean.astype(np.float32))
    found = real.kept_flux(clean, Method(clean.sci - lost, mask, frame.err), x[order], y[order], 3.0)
    np.testing.assert_allclose(found.kept, 0.97, atol=1e-4)
    assert found.flagged.tolist()[0]
    assert found.flagged.sum() == 1
    assert not found.saturated.any()


def test_a_defect_counts_up_to_one_fwhm_from_the_peak():
    mask = np.zeros((20, 20), bool)
    mask[10, 13] = True
    assert real.any_within(mask, np.array([10.0, 9.9]), np.array([10.0, 10.0]), 3.0).tolist() == [True, False]
    assert not real.any_within(mask & False, np.array([10.0]), np.array([10.0]), 3.0).any()


def test_saturated_pixels_are_those_of_the_mask_and_of_a_plateau(frame):
    sci, dq = np.full_like(frame.sci, frame.level), np.zeros_like(frame.dq)
    sci[10:12, 20:23] = sci[50, 60] = frame.level + 5000  # a plateau, and one bright pixel
    dq[3, 4] |= np.uint16(DQ.SATURATED)
    expected = np.zeros(sci.shape, bool)
    expected[10:12, 20:23] = expected[3, 4] = True
    np.testing.assert_array_equal(real.saturated(replace(frame, sci=sci, dq=dq)), expected)


def test_a_galaxy_that_loses_two_percent():
    scene = scenes.draw(replace(PLAIN, n_stars=2, n_tracks=0, hot=0, dead=0))
    y, x = np.mgrid[:192, :192]
    galaxy = 400 * np.exp(-((x - 90) ** 2 / 200 + (y - 100) ** 2 / 60))
    recorded = (scene.undefected + galaxy).astype(np.float32)
    frame = replace(read_in_memory(scene, recorded))
    found = real.kept_galaxies(frame, Method((recorded - 0.02 * galaxy).astype(np.float32)), 3.0, largest=5)
    assert (found["x"][0], found["y"][0]) == pytest.approx((90, 100), abs=4)
    assert found["kept"][0] == pytest.approx(0.98, abs=0.002)


def read_in_memory(scene, sci):
    """A frame without a file."""
    from pathlib import Path

    from pipeline.sky.frames import Frame

    level = float(np.median(sci))
    noise = float(np.median(scene.noise))
    dq = np.zeros(sci.shape, np.uint16)
    return Frame(
        Path("memory.fits"), 0, sci, scene.noise.astype(np.float32), dq, "electron", "electron", level, noise,
        err_modelled=True,
    )  # fmt: skip


def test_the_width_of_few_stars_is_fitted():
    scene = scenes.draw(replace(PLAIN, fwhm_px=6.0, n_stars=0, n_tracks=0, hot=0, dead=0))
    sci = scene.undefected.astype(np.float32)
    scenes.paste(sci, 2e5 * scenes.psf_stamp(6.0, 30, 0.2, 0.1).astype(np.float32), 90, 100)
    frame = read_in_memory(scene, sci)
    assert real.fwhm_of(frame) == pytest.approx(6.0, abs=0.2)
    small = replace(frame, sci=sci[:40, :40], err=frame.err[:40, :40], dq=frame.dq[:40, :40])
    assert real.fwhm_of(small) == 2.5
    assert real.fwhm_of(replace(small, header={"FWHM": 3.3}), "FWHM") == 3.3


# ---- added stars and tracks ------------------------------------------------------------------------------------------
def test_a_bundle_that_changes_nothing_answers_added_stars_with_one(scene, frame, bundle):
    after = bundle.restore(frame)
    np.testing.assert_allclose(after.sci, frame.sci, rtol=1e-5)
    stars = real.kept_flux(frame, after, scene.stars["x"], scene.stars["y"], 3.0)
    done = RealFrame("plain", frame, after, 3.0, "truth", stars)
    found = add_stars(done, bundle, seed=3)
    assert len(found.snr) > 5
    assert found.on_wing.any()
    np.testing.assert_allclose(found.response, 1, atol=2e-3)
    tracks = add_tracks(done, bundle, seed=3)
    assert tracks.n_tracks > 3
    assert (tracks.pixels_found, tracks.tracks_found) == (0.0, 0.0)


def test_added_stars_that_lose_a_tenth_are_found_so(scene, frame, bundle):
    class Lossy:
        def restore(self, frame):
            return Method((frame.level + 0.9 * (frame.sci - frame.level)).astype(np.float32), as_it_is(frame).mask)

    after = Lossy().restore(frame)
    stars = real.kept_flux(frame, as_it_is(frame), scene.stars["x"], scene.stars["y"], 3.0)
    found = add_stars(RealFrame("plain", frame, after, 3.0, "truth", stars), Lossy(), seed=3)
    np.testing.assert_allclose(found.response, 0.9, atol=2e-3)


def test_shares_of_tracks_are_exact():
    owner = np.full((3, 8), -1)
    owner[0, :4], owner[1, :2], owner[2, :2] = 0, 1, 2
    mask = np.zeros((3, 8), bool)
    mask[0, :2] = mask[1, 0] = mask[0, 7] = True
    found = count_tracks(owner, Method(mask.astype(float), mask))
    assert (found.n_tracks, found.n_pixels) == (3, 8)
    assert found.pixels_found == pytest.approx(3 / 8)
    assert found.tracks_found == pytest.approx(2 / 3)


# ---- demands and tables ----------------------------------------------------------------------------------------------
def test_verdicts():
    assert Limit("a", 0.3, 0.3, True).met is True
    assert Limit("a", 0.31, 0.3, True).met is False
    assert Limit("a", 0.31, 0.3, False).met is True
    assert Limit("a", float("nan"), 0.3, True).cells() == ["a", "≤ 0.3", "–", "", "not measured"]
    assert worst({"a": 1.0, "b": float("nan"), "c": None, "d": -2.0}) == (1.0, "a")
    assert worst({"a": 1.0, "d": -2.0}, largest=False) == (-2.0, "d")
    assert np.isnan(worst({})[0])


def test_a_page_without_a_place_for_a_table_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- a: begin -->\nold\n<!-- a: end -->\n")
    write_page(page, {"a": "new"})
    assert page.read_text() == "<!-- a: begin -->\nnew\n<!-- a: end -->\n"
    with pytest.raises(UserError, match=r"page\.md has no place for the table b"):
        write_page(page, {"b": "new"})


# ---- the whole -------------------------------------------------------------------------------------------------------
def test_a_frame_is_judged_with_its_peers(bundle, tmp_path):
    judged = judge(scenes.draw(PLAIN), bundle, tmp_path, seams=True)
    own, before = (judged.facts["methods"][name] for name in (NETWORK, RECORDED))
    assert own["rms_on_tracks_e"] == pytest.approx(before["rms_on_tracks_e"], rel=1e-4)
    assert own["mask_bench"]["found"] == 0.0
    assert judged.facts["pulls"]["sky"]["width"] == pytest.approx(2.0, rel=0.05)
    assert judged.facts["seam"]["largest"] == 0.0
    assert judged.facts["methods"]["astroscrappy + median inpainting"]["mask_bench"]["by_class"]["cosmic ray"] > 0.3
    assert (tmp_path / "plain.restored.fits").exists()


def test_the_command_writes_its_judgement_and_makes_tables_of_it(tmp_path, monkeypatch, capsys):
    folder = sky_bundle(tmp_path / "tiny")
    monkeypatch.setattr(scenes, "TINY", PLAIN)
    monkeypatch.delenv("LIGHTPOOL_DATA", raising=False)
    out = tmp_path / "out"
    command = ["sky_judgement.py", "--quick", "--bundle", str(folder), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    sky_judgement.main()
    printed = capsys.readouterr().out
    assert "real frames are left out: LIGHTPOOL_DATA is not set" in printed
    judgement = json.loads((out / "judgement.json").read_text())
    assert judgement["bundle"]["name"] == "tiny_denoise"
    verdicts = {limit["text"]: limit["met"] for limit in judgement["limits"]}
    assert verdicts["false alarms in star cores, mask as applied"] is True
    assert verdicts["noise of empty sky, before / after, worst frame"] is False
    assert (out / "independent_plain.png").stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", ["sky_judgement.py", "--from", str(out / "judgement.json")])
    sky_judgement.main()
    again = capsys.readouterr().out
    assert again.strip() == printed[printed.index("## limits") - 1 :].strip()


def test_judgements_of_two_bundles_are_not_joined():
    one, other = {"bundle": {"name": "a"}, "real": 1}, {"bundle": {"name": "b"}}
    assert sky_judgement.joined([one, one | {"independent": 2}]) == one | {"independent": 2}
    with pytest.raises(UserError, match=r"of different bundles \(a, b\)"):
        sky_judgement.joined([one, other])
    assert sky_judgement.joined([one, {"bundle": None, "masks": 3}]) == one | {"masks": 3}


def test_other_programs_are_taken_from_an_earlier_judgement_of_the_same_frames():
    def judged(noise, **methods):
        recorded = {"as recorded": {"rms_by_snr": [noise, float("nan")]}}
        return {
            "frames": [{"name": "a", "methods": recorded | methods, "stars": dict(methods)}],
            "stars": [{"fwhm_px": (2.0, 3.0), "magnitude": -8.5, "methods": dict(methods)}],
        }

    earlier = sky_judgement.plain(judged(1.0, lightpool=1, median=2))
    joined = sky_judgement.with_earlier_peers(judged(1.0, lightpool=3), earlier)
    (frame,), (one,) = joined["frames"], joined["stars"]
    assert (frame["methods"]["lightpool"], frame["methods"]["median"]) == (3, 2)
    assert frame["stars"] == one["methods"] == {"lightpool": 3, "median": 2}
    with pytest.raises(UserError, match="has not the same frame 'a'"):
        sky_judgement.with_earlier_peers(judged(1.1, lightpool=3), earlier)


def test_results_of_other_environments_are_methods_too(tmp_path, scene, frame):
    folder = tmp_path / scene.file_stem
    with pytest.raises(UserError, match="plain has no results of other programs; run benchmarks/outside"):
        outside(folder, frame)
    folder.mkdir()
    mask = scene.excess > 3
    np.savez(folder / "truth.npz", mask=mask, score=scene.excess, sci=scene.clean, cpu_s=1.5)
    np.savez(folder / "mask only.npz", mask=mask, cpu_s=0.5)
    judged = judge(scene, None, tmp_path, seams=False, elsewhere=tmp_path)
    truth, mask_only = (judged.facts["methods"][name] for name in ("truth", "mask only"))
    assert truth["mask_bench"]["found"] == truth["found_bench"]["0.0005"] == 1.0
    assert truth["rms_on_tracks_e"] == 0
    assert (truth["cpu_s"], mask_only["cpu_s"]) == (1.5, 0.5)
    assert "found_bench" not in mask_only
    # Medians of the neighbours: as good as noise allows.
    assert mask_only["rms_on_tracks_e"] < 0.2 * judged.facts["methods"][RECORDED]["rms_on_tracks_e"]


def test_frames_are_written_for_other_programs_in_electrons(tmp_path, monkeypatch):
    argv = ["sky_judgement.py", "--quick", "--frames", "none", "--write-frames", str(tmp_path / "frames")]
    monkeypatch.setattr(sys, "argv", argv)
    sky_judgement.main()
    (path,) = (tmp_path / "frames").glob("*.fits")
    tiny = scenes.draw(scenes.TINY)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(hdus[0].data, tiny.recorded.astype(np.float32))
        assert hdus[0].header["RDNOISE"] == tiny.read_noise_e
    assert path.stem == tiny.file_stem


def test_a_mask_alone_is_judged_by_the_stars_that_it_flags():
    many = {"name": "a", "n_stars": 400, "n_saturated": 4, "masked": 0.01, "flagged": 0.02, "flagged_unsaturated": 0.01}
    sets = [
        many | {"n_tracks": 10, "track_pixels_found": 0.8, "tracks_found": 0.9},
        {"name": "b", "n_stars": 0, "n_saturated": 0, "masked": 0.0},
        many | {"name": "few", "n_stars": 2, "flagged_unsaturated": 0.5},
    ]
    (limit,) = real_mask_limits(sets)
    assert (limit.value, limit.where, limit.met) == (0.01, "a", False)
    first, second, _ = real_mask_table(sets).splitlines()[2:]
    assert first == "| a | 400 (4) | 1.000 | 2.00 | 1.00 | 0.800, 0.900 of 10 |"
    assert second == "| b | 0 (0) | 0.000 | – | – | – |"


def test_real_frames_need_a_bundle(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sky_judgement.py", "--frames", "real"])
    with pytest.raises(UserError, match="they say nothing without a bundle"):
        sky_judgement.main()


def test_real_sets_are_those_that_are_there(tmp_path):
    assert real_sets(tmp_path) == []
    (tmp_path / "saao").mkdir()
    (tmp_path / "saao" / "a.fits").touch()
    assert [one.name for one in real_sets(tmp_path)] == ["saao"]


def test_a_real_frame_is_left_alone_by_a_bundle_that_changes_nothing(data_dir, bundle):
    chosen = {one.name: one for one in real_sets(data_dir / "sky")}
    (done,) = restore_set(chosen["kmtnet"], bundle)
    assert len(done.stars.kept) >= 1
    np.testing.assert_allclose(done.stars.kept, 1, atol=1e-4)
    assert not done.stars.flagged.any()


def test_a_set_of_one_field_is_confirmed_by_its_other_exposures(data_dir, bundle):
    chosen = {one.name: one for one in real_sets(data_dir / "sky")}["microobs_hatp32"]
    few = RealSet("microobs_hatp32", chosen.files[:4], [1], one_field=True)
    (done,) = restore_set(few, bundle)
    assert done.confirmed_by == "other exposures"
    assert len(done.stars.kept) > 20
