"""Masks of defects written into frames: alone, and beside a restored image."""

import json

import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle, defects_bundle, sky_bundle

import lightpool
from pipeline.bundle.false_alarms import SCORES, FalseAlarms
from pipeline.config import parse_config
from pipeline.errors import UserError
from pipeline.sky import cards
from pipeline.sky.dq import DQ
from pipeline.stages.predict import predict

RAYS = [(10, 20), (40, 61), (80, 99)]
DOUBTFUL = (60, 30)


def config(**options):
    return parse_config({"threads": 1, "predict": options})


def table():
    scores = np.random.default_rng(1).normal(-8, 1, 100_000)
    few = np.histogram(scores[:2000], SCORES)[0]
    return FalseAlarms.fit({name: np.histogram(scores, SCORES)[0] for name in ("sky", "source")} | {"core": few})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A frame of integers with its own uncertainty and three cosmic rays, and bundles for it."""
    root = tmp_path_factory.mktemp("defects")
    rng = np.random.default_rng(4)
    adu = rng.normal(1000, 15, (90, 110))
    for place in RAYS:
        adu[place] += 15 * np.sinh(8.0)
    adu[DOUBTFUL] = 1000 + 15 * np.sinh(3.7)  # its score is -5.2: 0.2 % of the good pixels have more
    header = fits.Header({"BUNIT": "electron", "RDNOISE": 5.0, "OBJECT": "toy"})
    science = fits.ImageHDU(adu.astype(np.int32), header, name="SCI")
    science.add_checksum()
    error = fits.ImageHDU(np.full((90, 110), 15.0), fits.Header({"BUNIT": "electron"}), name="ERR")
    fits.HDUList([fits.PrimaryHDU(), science, error]).writeto(root / "frame.fits")
    sky_bundle(root / "denoise")
    defects_bundle(root / "defects", false_alarms=table())
    defects_bundle(root / "both", false_alarms=table(), denoises=True)
    defects_bundle(root / "unknown")
    return root


def as_stored(path, name):
    """Bytes of an extension: header and data."""
    with fits.open(path, do_not_scale_image_data=True, memmap=False) as hdus:
        info = hdus[name].fileinfo()
        return path.read_bytes()[info["hdrLoc"] : info["datLoc"] + info["datSpan"]]


@pytest.mark.parametrize(("bundle", "only"), [("both", "defects"), ("defects", ""), ("defects", "defects")])
def test_only_the_mask_is_written(folder, tmp_path, bundle, only):
    (status,) = predict(config(only=only), [folder / "frame.fits"], [folder / bundle], tmp_path / "out.fits")
    assert status["status"] == "ok"
    for name in ("SCI", "ERR"):
        assert as_stored(tmp_path / "out.fits", name) == as_stored(folder / "frame.fits", name)
    with fits.open(tmp_path / "out.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ"]
        assert np.argwhere(hdus["DQ"].data & DQ.COSMIC_RAY).tolist() == [list(place) for place in RAYS]
        assert np.count_nonzero(hdus["DQ"].data) == 3
        history = hdus["DQ"].header["HISTORY"]
        assert any("defects by tiny_defects" in line for line in history)
        assert hdus["DQ"].header[cards.N_WARNINGS.keyword] == 1  # of its cores, fewer than the default needs
        assert "cannot be promised" in cards.warnings_in(history)[0]
    stamp = json.loads((tmp_path / "out.fits.provenance.json").read_text())
    assert stamp["config"]["predict.only"] == only
    assert len(stamp["warnings"]) == 1


def test_the_mask_of_a_second_run_joins_that_of_the_first(folder, tmp_path):
    predict(config(), [folder / "frame.fits"], [folder / "defects"], tmp_path / "one.fits")
    with fits.open(tmp_path / "one.fits", mode="update") as hdus:
        hdus["DQ"].data[0, 0] = DQ.HOT
    predict(config(), [tmp_path / "one.fits"], [folder / "defects"], tmp_path / "two.fits")
    with fits.open(tmp_path / "two.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ"]
        assert hdus["DQ"].data[0, 0] == DQ.HOT
        assert np.count_nonzero(hdus["DQ"].data) == 4


def test_both_heads_restore_and_say_which_defect_it_is(folder, tmp_path):
    predict(config(), [folder / "frame.fits"], [folder / "both"], tmp_path / "both.fits")
    predict(config(), [folder / "frame.fits"], [folder / "denoise"], tmp_path / "alone.fits")
    with fits.open(tmp_path / "both.fits") as both, fits.open(tmp_path / "alone.fits") as alone:
        for name in ("SCI", "ERR"):
            np.testing.assert_array_equal(both[name].data, alone[name].data)
        assert np.count_nonzero(both["DQ"].data & DQ.COSMIC_RAY) == 3
        np.testing.assert_array_equal(both["DQ"].data & ~np.uint16(DQ.COSMIC_RAY), alone["DQ"].data)


def test_another_rate_is_another_threshold(folder, tmp_path):
    for rate, found in ((None, 3), (1e-2, 4)):
        out = tmp_path / f"{rate}.fits"
        predict(config(fpr=rate), [folder / "frame.fits"], [folder / "defects"], out)
        with fits.open(out) as hdus:
            assert np.count_nonzero(hdus["DQ"].data) == found
            assert bool(hdus["DQ"].data[DOUBTFUL]) == (rate == 1e-2)
            assert hdus["DQ"].header[cards.N_WARNINGS.keyword] == (rate is None)


@pytest.mark.parametrize(
    ("bundle", "options", "message"),
    [
        ("denoise", {"only": "defects"}, "tiny_denoise has no head 'defects'; it has denoise"),
        (
            "denoise",
            {"fpr": 1e-3},
            "for models with a head defects, and tiny_denoise has denoise; leave it out",
        ),
        ("defects", {"fpr": 1e-7}, r"a false-alarm rate of 1e-07 on good pixels of the kind sky cannot be promised"),
        ("unknown", {"fpr": 1e-3}, "the card of tiny_defects has no table of false-alarm rates; leave the rate out"),
    ],
)
def test_what_the_model_cannot_do_is_refused_at_once(folder, tmp_path, bundle, options, message):
    with pytest.raises(UserError, match=message):
        predict(config(**options), [folder / "frame.fits"], [folder / bundle], tmp_path / "out.fits")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_has_both_options(folder, tmp_path, capsys):
    from pipeline.cli import main

    arguments = ["predict", str(folder / "frame.fits"), "--bundle", str(folder / "both"), "--only", "defects"]
    assert main([*arguments, "--fpr", "0.01", "--out", str(tmp_path / "out.fits")]) == 0
    stamp = json.loads((tmp_path / "out.fits.provenance.json").read_text())
    assert (stamp["config"]["predict.only"], stamp["config"]["predict.fpr"]) == ("defects", 0.01)
    assert main([*arguments, "--fpr", "2", "--out", str(tmp_path / "o.fits")]) == 2
    assert "predict.fpr: Input should be less than 1" in capsys.readouterr().err
    camera = str(camera_bundle(tmp_path / "camera", "energy", "toy"))
    assert main(["predict", str(folder / "frame.fits"), "--bundle", camera, "--only", "defects"]) == 2
    assert "--only: for models of sky frames, and no bundle is one; leave it out" in capsys.readouterr().err


def test_a_model_that_only_flags_leaves_data_in_memory_as_they_are(folder):
    image = np.random.default_rng(0).normal(1000, 15, (40, 50)).astype(np.float32)
    image[7, 9] += 15 * np.sinh(8.0)
    result = lightpool.load(folder / "defects").predict(image, gain_e_per_adu=1.5, read_noise_e=5)
    np.testing.assert_allclose(result.data, image, rtol=1e-6)
    assert np.argwhere(result.dq).tolist() == [[7, 9]]
    assert result.to_ccddata().shape == (40, 50)
