"""A committed bundle of format 2: later code reads it and gives the same values, whatever its defaults become."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.bundle.card import FORMAT_VERSION, load_bundle_card
from pipeline.bundle.runtime import Predictor
from pipeline.config import CameraTilesConfig, CleaningConfig, CutsConfig
from pipeline.inputs.image import ImageInput, ImageRecipe
from pipeline.tasks.spec import UncertaintyOptions
from pipeline.tiles import TileBatch

# log10(E / TeV) = 0.5 <asinh(charge / 3)> + 2 <time / 10> - <mask> + log10(size) - 2, for the tiles below; computed in
# float64 by this formula when the bundle was made (tests/data/make_bundle_v2.py). The relative uncertainty is
# ln(10) exp(-3 / 2).
EXPECTED_TEV = [0.81532907, 3.8476746, 21.80259722]
EXPECTED_UNCERT_TEV = [0.41889665, 1.97684356, 11.20165513]

RECIPE = {
    "version": 1, "size_px": 32, "picture_pe": 6.0, "boundary_pe": 3.0, "min_picture_neighbors": 1,
    "size_min_pe": 50.0, "n_pixels_min": 3, "leakage_max": 1.0,
}  # fmt: skip


@pytest.fixture
def bundle(checkout) -> Path:
    return checkout / "tests" / "data" / "bundle_v2"


def tiles() -> TileBatch:
    """Three ellipses of 80, 400 and 2000 p.e., without any random number."""
    size_pe = np.array([80.0, 400.0, 2000.0])
    y, x = np.mgrid[:32, :32] - 15.5
    shape = np.exp(-0.5 * ((x / 6.0) ** 2 + (y / 2.0) ** 2))
    charge = size_pe[:, None, None] * shape / shape.sum()
    mask = charge > 1.0
    images = np.stack([charge, np.where(mask, 2.0 + 0.25 * x, 0.0), mask], axis=1).astype(np.float16)
    return TileBatch(images=images, events={"hillas_intensity": size_pe}, group=np.arange(3))


def check_values(bundle: Path) -> None:
    found = Predictor.load(bundle, threads=1).predict(tiles())
    np.testing.assert_allclose(found["reco_energy_tev"], EXPECTED_TEV, rtol=2e-6)
    np.testing.assert_allclose(found["reco_energy_uncert_tev"], EXPECTED_UNCERT_TEV, rtol=2e-6)


def set_defaults(model: type, **values: float) -> None:
    for name, value in values.items():
        model.model_fields[name].default = value
    model.model_rebuild(force=True)


@pytest.fixture
def other_defaults():
    """Today's defaults, all of them another way; the old ones afterwards."""
    changes = [
        (CleaningConfig, {"picture_pe": 9.0, "boundary_pe": 5.0, "min_picture_neighbors": 3}),
        (CutsConfig, {"size_min_pe": 500.0, "n_pixels_min": 40, "leakage_max": 0.01}),
        (CameraTilesConfig, {"size": 96}),
        (ImageInput, {"charge_scale_pe": 7.0, "time_scale_ns": 2.0}),
        (UncertaintyOptions, {"uncertainty": False}),
    ]
    before = [(model, {name: model.model_fields[name].default for name in values}) for model, values in changes]
    for model, values in changes:
        set_defaults(model, **values)
    yield
    for model, values in before:
        set_defaults(model, **values)


def test_committed_bundle_gives_the_same_values(bundle):
    assert load_bundle_card(bundle).format_version == FORMAT_VERSION
    check_values(bundle)


def test_committed_bundle_is_small(bundle):
    assert sum(path.stat().st_size for path in bundle.iterdir()) < 8000


def test_recipe_and_preparation_are_those_of_the_card(bundle):
    card = load_bundle_card(bundle)
    assert ImageRecipe.model_validate(card.input.recipe).model_dump() == RECIPE
    preparation = card.input.preparation
    assert isinstance(preparation, ImageInput)
    assert (preparation.charge_scale_pe, preparation.time_scale_ns) == (3.0, 10.0)


def test_other_defaults_change_nothing(bundle, other_defaults):
    assert (CameraTilesConfig().size, CleaningConfig().picture_pe) == (96, 9.0)
    assert (ImageInput().charge_scale_pe, UncertaintyOptions().uncertainty) == (7.0, False)
    check_values(bundle)
    test_recipe_and_preparation_are_those_of_the_card(bundle)


def test_the_values_depend_on_what_the_defaults_are(bundle, other_defaults):
    """So that the test above can fail: an input with today's defaults gives other arrays."""
    preparation = load_bundle_card(bundle).input.preparation
    todays = ImageInput(scalar_statistics=preparation.scalar_statistics)
    assert np.abs(todays.arrays(tiles())["images"] - preparation.arrays(tiles())["images"]).max() > 0.1


def test_a_card_does_not_go_through_the_configuration(bundle, monkeypatch):
    """Its keys may be renamed: nothing of a card is read by the schema of an experiment."""

    def renamed(*_, **__):
        raise AssertionError("a card was read as a configuration")

    for section in (CameraTilesConfig, CleaningConfig, CutsConfig):
        monkeypatch.setattr(section, "model_validate", renamed)
        monkeypatch.setattr(section, "__init__", renamed)
    check_values(bundle)
    test_recipe_and_preparation_are_those_of_the_card(bundle)
