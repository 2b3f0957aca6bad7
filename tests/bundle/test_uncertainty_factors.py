"""Calibration of uncertainties: fitted factors, and what prediction makes of them."""

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_bundles import camera_bundle
from toy_events import toy_camera, write_toy_dl1

from pipeline.bundle.calibration import Calibration
from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.model_card import card_markdown
from pipeline.bundle.runtime import Predictor
from pipeline.camera.dl1 import DL1File
from pipeline.camera.event_predictions import predict_file
from pipeline.camera.predictions import CameraModel
from pipeline.errors import UserError

RNG = np.random.default_rng(4)


def test_factors_are_the_widths_of_the_pulls_by_bin():
    size = RNG.uniform(50, 1000, 80_000)
    width = np.where(size < 500, 2.0, 0.5)
    pulls = width[:, None] * RNG.normal(size=(len(size), 2))
    pulls[::7] = np.nan
    found = Calibration.fit(pulls, "hillas_intensity", size)
    assert len(found.factors) == 8
    factors = found.of({"hillas_intensity": np.array([10.0, 60.0, 300.0, 900.0, 1e6])})
    np.testing.assert_allclose(factors, [2, 2, 2, 0.5, 0.5], rtol=0.03)
    calibrated = pulls / found.of({"hillas_intensity": size})[:, None]
    low, high = np.nanquantile(calibrated[size < 400], [0.158655, 0.841345])
    assert (high - low) / 2 == pytest.approx(1, abs=0.02)


def test_few_images_give_one_factor_and_fewer_none():
    one = Calibration.fit(3 * RNG.normal(size=(150, 1)), "hillas_intensity", RNG.uniform(size=150))
    assert one.edges == ()
    assert one.factors[0] == pytest.approx(3, rel=0.3)
    assert Calibration.fit(RNG.normal(size=(99, 1)), "hillas_intensity", np.ones(99)) is None
    assert Calibration.fit(np.full((500, 1), np.nan), "hillas_intensity", np.ones(500)) is None


def test_images_of_one_size_share_a_factor():
    found = Calibration.fit(2 * RNG.normal(size=(1000, 1)), "hillas_intensity", np.full(1000, 70.0))
    np.testing.assert_allclose(found.of({"hillas_intensity": np.array([70.0])}), 2, rtol=0.1)


@pytest.mark.parametrize(
    ("edges", "factors", "message"),
    [
        ((1.0,), (1.0,), "1 edges need 2 factors above 0"),
        ((1.0,), (1.0, -1.0), "1 edges need 2 factors above 0"),
        ((2.0, 1.0), (1.0, 1.0, 1.0), "the edges do not rise"),
        ((), (float("nan"),), "finite number"),
    ],
)
def test_a_calibration_that_gives_no_factor_is_refused(edges, factors, message):
    with pytest.raises(ValidationError, match=message):
        Calibration(column="hillas_intensity", edges=edges, factors=factors)


@pytest.fixture
def calibrated(tmp_path):
    """A bundle whose uncertainty is multiplied by 3 above 1000 p.e., and the same without."""
    plain = camera_bundle(tmp_path / "plain", "energy", toy_camera().identity)
    made = camera_bundle(tmp_path / "calibrated", "energy", toy_camera().identity)
    card = load_bundle_card(made)
    calibration = Calibration(column="hillas_intensity", edges=(1000.0,), factors=(1.0, 3.0))
    head = card.heads[0].model_copy(update={"calibration": calibration})
    card = card.model_copy(update={"heads": (head,)})
    (made / "card.json").write_text(card.model_dump_json() + "\n")
    return plain, made


def test_prediction_multiplies_the_uncertainty_alone(calibrated, tmp_path):
    write_toy_dl1(tmp_path / "run.dl1.h5")
    found = []
    for bundle in calibrated:
        model = CameraModel.of(Predictor.load(bundle, threads=1))
        with DL1File(tmp_path / "run.dl1.h5") as file:
            (chunk,) = predict_file(file, [model], tel_ids=[1])
        found.append(chunk.values["tiny_energy"])
        size = chunk.size_pe
    np.testing.assert_array_equal(found[0]["reco_energy_tev"], found[1]["reco_energy_tev"])
    ratio = found[1]["reco_energy_uncert_tev"] / found[0]["reco_energy_uncert_tev"]
    valid = np.isfinite(ratio)
    assert {1.0, 3.0} == set(ratio[valid].round(6))
    np.testing.assert_allclose(ratio[valid], np.where(size[valid] >= 1000, 3.0, 1.0))


def test_tiles_without_the_column_are_refused(calibrated):
    from synthetic_tiles import camera_batch

    batch = camera_batch(3, size=32)
    del batch.events["hillas_intensity"]
    with pytest.raises(UserError, match="the head energy of tiny_energy also reads hillas_intensity, which the tiles"):
        Predictor.load(calibrated[1], threads=1).predict(batch)


def test_the_model_card_names_the_factors(calibrated):
    text = card_markdown(load_bundle_card(calibrated[1]))
    assert "Uncertainties are multiplied by 1, 3, in bins of hillas_intensity with the inner edges 1000" in text
    assert "Uncertainties" not in card_markdown(load_bundle_card(calibrated[0]))
