import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.sky.defects import (
    DarkCurrent,
    DeadPixels,
    DetectorGap,
    Digitisation,
    HotPixels,
    Muons,
    ReadNoise,
    ShotNoise,
    Trails,
    Worms,
    bloom,
    create_defect,
    list_defects,
    register_defect,
)
from pipeline.sky.defects.particles import _most_probable_loss_ev

SHAPE = (96, 128)


def assert_moments(samples, mean, variance):
    """Mean and variance of whole frames (independent draws) agree with the model's within 5 standard errors."""
    samples = np.asarray(samples, dtype=float)
    per_frame = samples.mean(axis=(1, 2))
    error = per_frame.std(ddof=1) / np.sqrt(len(samples))
    assert abs(per_frame.mean() - np.mean(mean)) < 5 * error + 1e-12
    squares = ((samples - mean) ** 2).mean(axis=(1, 2))
    error = squares.std(ddof=1) / np.sqrt(len(samples))
    assert abs(squares.mean() - np.mean(variance)) < 5 * error + 1e-12


@pytest.mark.parametrize("seed", [0, 1])
def test_shot_noise(seed):
    rng = np.random.default_rng(seed)
    expected = np.linspace(1, 200, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    noise = ShotNoise()
    samples = [noise.sample(rng, expected) for _ in range(30)]
    assert_moments(samples, noise.mean(expected), noise.variance(expected))


@pytest.mark.parametrize("model", [ReadNoise(7.5), DarkCurrent(0.02, 600.0), DetectorGap(0.037)])
def test_moments_of_independent_pixels(model, rng):
    samples = [model.sample(rng, SHAPE) for _ in range(60)]
    assert_moments(samples, model.mean(), model.variance())


def test_hot_pixels(rng):
    # a mild tail: the fourth moment of the default one needs more frames than a test has
    hot = HotPixels(0.05, 600.0, median_e_per_s=0.5, log_sigma=0.5, telegraph_fraction=0.4)
    samples = [hot.sample(rng, SHAPE) for _ in range(60)]
    assert_moments(samples, hot.mean(), hot.variance())


def test_default_hot_pixels_have_a_tail(rng):
    charge = HotPixels(0.01, 600.0).sample(rng, (512, 512))
    hot = charge[charge > 0]
    assert 0.008 < hot.size / charge.size < 0.011
    assert hot.max() > 20 * np.median(hot)


def test_dead_pixels(rng):
    dead = DeadPixels(0.02, bad_columns=3)
    samples = np.array([dead.sample(rng, SHAPE) for _ in range(400)])
    assert samples.max() == 1
    assert_moments(samples, dead.mean(SHAPE), dead.variance(SHAPE))


def test_digitisation_rounds_and_clips(rng):
    converter = Digitisation(gain_e_per_adu=4.0, bias_adu=500.0)
    charge = rng.uniform(100, 4000, SHAPE)
    error = (converter.sample(charge) - 500) * 4 - charge
    assert abs(error.mean() - converter.mean()) < 5 * error.std() / np.sqrt(error.size)
    assert error.var() == pytest.approx(converter.variance(), rel=0.05)
    assert converter.sample(np.array([-1e5, 1e9])).tolist() == [0, 65_535]


@pytest.mark.parametrize("kind", [Muons, Worms])
def test_particles(kind, rng):
    # a faint, thin detector: many tracks per frame, so that frames average well
    particles = kind(5000.0, thickness_um=20.0, reach_px=60)
    samples = [particles.sample(rng, SHAPE) for _ in range(60)]
    assert_moments(samples, particles.mean(), particles.variance())


def test_most_probable_loss_agrees_with_tables():
    # Particle Data Group (2022), fig. 34.9: 84 keV in 300 um of silicon for a minimum ionising particle, and about
    # 5 % more with the full density effect of a relativistic one
    assert _most_probable_loss_ev(300.0) == pytest.approx(84e3, rel=0.02)


def test_muons_are_longer_in_thick_silicon(rng):
    def longest(thickness_um):
        image = Muons(300.0, thickness_um=thickness_um).sample(np.random.default_rng(3), (400, 400))
        rows, _ = np.nonzero(image > 50)
        return np.unique(rows).size, np.count_nonzero(image > 50)

    assert longest(250.0)[1] > 2 * longest(15.0)[1]


def test_trails(rng):
    trails = Trails(3.0, fwhm_px=3.0, log_sigma=0.3)
    centre = tuple(slice(n // 2 - 8, n // 2 + 8) for n in SHAPE)
    samples = [trails.sample(rng, SHAPE)[centre] for _ in range(600)]
    assert_moments(samples, trails.mean(SHAPE), trails.variance(SHAPE))


def test_trail_profile_is_normalised():
    offsets = np.linspace(-400, 400, 80_001)
    step = offsets[1] - offsets[0]
    assert np.sum(Trails(1.0, 3.0, beta=2.5)._profile(offsets)) * step == pytest.approx(1, abs=2e-4)


def test_bloom_conserves_charge_and_respects_the_well():
    charge = np.full((40, 5), 10.0)
    charge[20, 2] = 1010.0
    spilled = bloom(charge, 100.0)
    assert spilled.max() <= 100 + 1e-9
    assert spilled.sum() == pytest.approx(charge.sum())
    assert np.array_equal(spilled[:, [0, 1, 3, 4]], charge[:, [0, 1, 3, 4]])
    assert spilled[15:26, 2].min() > 90  # to both sides alike
    assert spilled[25, 2] == pytest.approx(spilled[15, 2])


# ---- the registry ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", list_defects())
def test_registered_defects_have_samples_and_moments(name, rng):
    kwargs = {"hot_pixels": {"fraction": 0.01, "exposure_s": 60.0}}.get(name, {"per_mpix": 1000.0})
    defect = create_defect(name, kwargs)
    charge_e = defect.sample(rng, SHAPE)
    assert charge_e.shape == SHAPE
    assert (charge_e >= 0).all()
    assert defect.mean() > 0
    assert defect.variance() > 0


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (
            "muon",
            {},
            r"unknown defect 'muon' in sky\.defects; did you mean muons\? \(accepted: hot_pixels, muons, worms",
        ),
        ("flying saucer", {}, r"unknown defect 'flying saucer' in sky\.defects \(accepted: hot_pixels"),
        (
            "muons",
            {"per_mpix": 1, "size": 3},
            r"kwargs of the defect 'muons' .* unexpected keyword argument 'size'; it takes per_m",
        ),
        (
            "hot_pixels",
            {},
            r"kwargs of the defect 'hot_pixels' in sky\.defects: missing a required argument: 'fraction'",
        ),
    ],
)
def test_an_entry_that_cannot_be_made_is_refused(name, kwargs, message):
    with pytest.raises(UserError, match=message):
        create_defect(name, kwargs)


def test_a_name_is_taken_once():
    with pytest.raises(UserError, match=r"two modules register a defect named 'muons': .*particles and .*; rename one"):
        register_defect("muons")(type("Other", (), {}))
