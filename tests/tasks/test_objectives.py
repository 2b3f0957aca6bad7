"""Losses, metrics and what objectives refuse; overfitting one batch, judged by the task's own metric."""

import numpy as np
import pytest
import torch
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from models import create_model
from pipeline import statistics
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs.frame import FrameInput
from pipeline.inputs.image import ImageInput
from pipeline.tasks import get_decoder, get_objective, get_spec, get_targets
from pipeline.tiles import TileBatch, TileReader
from pipeline.training.data import as_tensors
from pipeline.training.objective import Objective


def objective_of(task: str, **options) -> Objective:
    return get_objective(task)(get_spec(task).options(**options))


def target_of(task: str, tiles: TileBatch) -> dict[str, torch.Tensor]:
    """What a loss is given: the targets, and weights."""
    return as_tensors(get_targets(task).arrays(tiles) | {"weights": tiles.weights})


def overfit(task: str, tiles: TileBatch, network, steps: int, rate: float = 5e-3) -> dict[str, np.ndarray]:
    """Train on one batch without augmentation; give back the decoded outputs."""
    objective = objective_of(task)
    inputs = ImageInput() if objective.spec.wing == "camera" else FrameInput()
    images, target = as_tensors(inputs.arrays(tiles))["images"], target_of(task, tiles)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(network(images), target).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        outputs = network(images).numpy()
    return get_decoder(task).decode(outputs, tiles)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_energy_overfits_one_batch():
    tiles = camera_batch(8)
    network = create_model("resnet18", 3, 2, width=4, stem="stride2")
    found = overfit("energy", tiles, network, steps=250, rate=2e-3)
    residual = np.log10(found["reco_energy_tev"] / tiles.events["true_energy_tev"])
    assert np.sqrt(np.mean(residual**2)) < 0.1  # of 0.6; what is left depends on the last bits of sums


def test_gammaness_overfits_one_batch():
    tiles = camera_batch(8)
    network = create_model("resnet18", 3, 1, width=4, stem="stride2")
    found = overfit("gammaness", tiles, network, steps=30)
    labels = tiles.targets["gammaness"][:, 0] > 0.5
    assert statistics.auc(found["gammaness"], labels, np.ones(8)) == 1.0
    assert np.abs(found["gammaness"] - labels).max() < 0.2


def test_direction_overfits_one_batch():
    tiles = camera_batch(8)
    network = create_model("resnet18", 3, 7, width=4, stem="stride2")
    found = overfit("direction", tiles, network, steps=150)
    off = np.hypot(*(found[f"reco_fov_{axis}_deg"] - tiles.events[f"true_fov_{axis}_deg"] for axis in ("lon", "lat")))
    assert off.max() < 0.05  # of 0.8 deg, and the other end is 1.6 deg away
    assert found["reco_sign_score"].min() > 0.5


def direction_target(vectors: list[tuple[float, float]], outward=(1.0, 0.0)) -> dict[str, torch.Tensor]:
    n = len(vectors)
    return {
        "displacement_deg": torch.tensor(vectors), "outward": torch.tensor([outward] * n), "weights": torch.ones(n),
    }  # fmt: skip


def test_direction_loss_knows_line_and_end_apart():
    """The right line at the wrong end costs the end only; the right end on the wrong line costs both less."""
    objective = objective_of("direction", uncertainty=False)
    target = direction_target([(0.6, 0.0)])

    def loss(axis, head):
        return float(objective.loss(torch.tensor([[*axis, *head, 0.0, 0.0]]), target))

    line = (0.6, 0.0)  # |d| (cos 0, sin 0)
    right, undecided, wrong = (loss(line, (logit, 0.0)) for logit in (5.0, 0.0, -5.0))
    assert right == pytest.approx(np.log1p(np.exp(-5)), abs=1e-6)
    assert undecided == pytest.approx(np.log(2), abs=1e-6)
    assert wrong == pytest.approx(np.log1p(np.exp(5)), abs=1e-6)
    # A line turned by 10 deg: |d| times the chord of 20 deg, in the Huber loss.
    turned = 0.6 * np.cos(np.radians(20)), 0.6 * np.sin(np.radians(20))
    chord = 0.6 * 2 * np.sin(np.radians(10))
    assert loss(turned, (5.0, 0.0)) - right == pytest.approx(10 * chord**2, rel=1e-4)


def test_direction_loss_does_not_change_when_image_and_outputs_are_turned():
    objective = objective_of("direction")
    for turn in np.linspace(0, 2 * np.pi, 7):
        c, s, c2, s2 = np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)
        target = direction_target([(0.5 * c - 0.2 * s, 0.5 * s + 0.2 * c)], outward=(2 * c, 2 * s))
        axis, head = (0.4 * c2 - 0.3 * s2, 0.4 * s2 + 0.3 * c2), (1.0 * c + 0.5 * s, 1.0 * s - 0.5 * c)
        loss = float(objective.loss(torch.tensor([[*axis, *head, 0.3, -0.7, -3.0]], dtype=torch.float32), target))
        unturned = torch.tensor([[0.4, 0.3, 1.0, -0.5, 0.3, -0.7, -3.0]])
        assert loss == pytest.approx(float(objective.loss(unturned, direction_target([(0.5, 0.2)]))), rel=1e-5)


def test_gammas_count_by_a_power_of_their_energy():
    target = direction_target([(0.6, 0.0), (0.0, 0.4)])
    energies = torch.tensor([0.1, 1.6])
    outputs = torch.randn(2, 7)

    def loss(rows, **options):
        part = {name: values[rows] for name, values in target.items()} | {"energy_tev": energies[rows]}
        return float(objective_of("direction", **options).loss(outputs[rows], part))

    low, high, both = loss([0]), loss([1]), loss([0, 1], energy_power=0.5)
    assert both == pytest.approx((low * 1 + high * 4) / 5, rel=1e-5)  # the mean weight of a batch is 1
    assert loss([0, 1]) == pytest.approx((low + high) / 2, rel=1e-5)


def test_direction_metrics_of_known_errors():
    metrics = objective_of("direction").metrics()
    target = direction_target([(0.5, 0.0)] * 4)
    sigma = 2 * np.log(0.1 / np.sqrt(2))  # half of the squared distance is the variance along one axis
    outputs = torch.tensor([[0.1, 0, 3, 0, 0.3, 0, sigma]] * 3 + [[0.1, 0, -3, 0, 0.3, 0, sigma]], dtype=torch.float32)
    metrics.update(outputs, target)
    found = metrics.compute()
    assert found["angular_resolution_deg"] == pytest.approx(0.1, rel=1e-5)  # 3 of 4 are 0.1 deg off, one 0.9 deg
    assert found["axis_resolution_deg"] == pytest.approx(0.1, rel=1e-5)
    assert found["sign_accuracy"] == 0.75
    assert found["pull_rms"] == pytest.approx(1.0, rel=1e-5)


def test_direction_needs_to_know_where_the_telescope_pointed(tmp_path):
    tiles = camera_batch(60)
    tiles.events["true_fov_lon_deg"][:5] = np.nan
    reader = TileReader([write_tiles(tmp_path, tiles)], "all", where={"true_primary_id": 0}, equalise=False)
    with pytest.raises(UserError, match=r"3 of 30 tiles of the all split have no true direction relative to the tele"):
        objective_of("direction").check(reader)


@pytest.mark.parametrize(
    ("task", "names"),
    [("core", ("reco_core_x_m", "reco_core_y_m")), ("x_max", ("reco_x_max_g_cm2",))],
)
def test_core_and_depth_overfit_one_batch(task, names):
    tiles = camera_batch(8)
    tiles.targets |= get_targets(task).of_truth(tiles)
    network = create_model("resnet18", 3, len(get_spec(task).outputs), width=4, stem="stride2")
    found = overfit(task, tiles, network, steps=150)
    for name in names:
        truth = tiles.events[name.replace("reco", "true")]
        assert np.abs(found[name] - truth).max() < 0.1 * np.ptp(truth)


@pytest.mark.parametrize(
    ("task", "column", "message"),
    [
        ("core", "pointing_alt_deg", r"3 of 30 tiles of the all split have no true core relative to the telescope"),
        ("x_max", "true_x_max_g_cm2", r"3 of 30 tiles of the all split have no true depth of the maximum"),
    ],
)
def test_tiles_without_the_truth_of_a_head_are_refused(task, column, message, tmp_path):
    tiles = camera_batch(60)
    tiles.targets |= get_targets(task).of_truth(tiles)
    tiles.events[column][:5] = np.nan
    reader = TileReader([write_tiles(tmp_path, tiles)], "all", where={"true_primary_id": 0}, equalise=False)
    with pytest.raises(UserError, match=message):
        objective_of(task).check(reader)


def test_metrics_of_known_errors_of_core_and_depth():
    core = objective_of("core").metrics()
    sigma = 2 * np.log(0.3 / np.sqrt(2))
    target = {"core": torch.tensor([[1.0, 0.0]] * 4), "weights": torch.ones(4)}
    core.update(torch.tensor([[1.0, 0.3, sigma]] * 4), target)
    found = core.compute()
    assert found["core_resolution_m"] == pytest.approx(30, rel=1e-5)
    assert found["impact_resolution_m"] == pytest.approx(100 * (np.hypot(1, 0.3) - 1), rel=1e-4)
    assert found["pull_rms"] == pytest.approx(1, rel=1e-5)
    depth = objective_of("x_max").metrics()
    depth.update(torch.tensor([[0.7, 2 * np.log(0.2)]] * 4), {"x_max": torch.full((4,), 0.5), "weights": torch.ones(4)})
    assert depth.compute() == pytest.approx(
        {"x_max_resolution_g_cm2": 20, "x_max_bias_g_cm2": 20, "pull_rms": 1}, rel=1e-5
    )


def test_denoise_overfits_one_batch():
    tiles = sky_batch(8)
    network = create_model("conv_autoencoder", 3, 5, width=20, depth=1, skips=True)
    found = overfit("denoise", tiles, network, steps=250)
    clean, sci = tiles.targets["clean"][:, 0], tiles.images[:, 0]
    defects = (tiles.masks & 8) != 0
    sound = (tiles.masks == 0) & np.isfinite(sci)
    noise = tiles.events["noise"][0]

    def rmse(image, where):
        return np.sqrt(np.mean((image[where] - clean[where]) ** 2)) / noise

    defects &= (tiles.masks & 4) == 0
    assert rmse(found["restored"], sound) < 0.8 * rmse(sci, sound)
    assert rmse(found["restored"], defects) < 0.15 * rmse(sci, defects)
    flux = clean[sound].sum() - 200.0 * sound.sum()
    assert abs((found["restored"] - clean)[sound].sum() / flux) < 0.01
    assert statistics.auc(found["defect_probability"].ravel(), defects.ravel(), np.ones(defects.size)) > 0.999


@pytest.mark.parametrize("noise2noise", [False, True])
def test_denoise_loss_is_least_at_the_truth(noise2noise):
    """Correction that gives exactly the expectation, against none and against a biased one."""
    tiles = sky_batch(8, noise2noise=noise2noise)
    objective, target = objective_of("denoise"), target_of("denoise", tiles)
    expectation = torch.from_numpy(sky_batch(8).targets["clean"][:, 0] - 200.0) / batch_noise(tiles)
    outputs = torch.zeros(8, 5, 32, 32)
    # Everything replaced by the expectation: what an ideal network would do with noise, too.
    outputs[:, 1], outputs[:, 3] = torch.asinh(expectation), 30.0
    perfect = objective.loss(outputs, {k: v for k, v in target.items() if k != "defect"})
    for wrong in (torch.asinh(expectation + 0.3), torch.asinh(0.9 * expectation)):
        outputs[:, 1] = wrong
        assert objective.loss(outputs, {k: v for k, v in target.items() if k != "defect"}) > perfect


def batch_noise(tiles: TileBatch) -> float:
    return float(tiles.events["noise"][0])


def test_metrics_of_a_perfect_denoiser():
    tiles = sky_batch(8)
    objective, target = objective_of("denoise"), target_of("denoise", tiles)
    # No pixel fluctuates so low that the truth is above what a replacement may be.
    target["signal"] = torch.maximum(target["signal"], target["clean"] - 3 * target["uncertainty"])
    outputs = torch.zeros(8, 5, 32, 32)
    outputs[:, 1], outputs[:, 3] = torch.asinh(target["clean"]), 30.0
    metrics = objective.metrics()
    metrics.update(outputs, target)
    found = metrics.compute()
    assert found["gain_db"] > 60
    assert abs(found["flux_bias"]) < 1e-4
    assert found["defect_rmse"] < 1e-2


def test_replacement_of_a_defect_is_not_far_above_what_was_measured():
    """Only missing and dead pixels may come back brighter, and they as bright as what is around them."""
    tiles = sky_batch(1)
    tiles.images[:, 0], tiles.images[:, 1] = 200.0, 10.0
    tiles.images[0, 0, 3, 3], tiles.images[0, 0, 3, 4] = np.nan, 50.0
    tiles.masks[:] = 0
    outputs = np.zeros((1, 5, 32, 32), np.float32)
    outputs[:, 1], outputs[:, 3] = 8.0, 30.0
    restored = get_decoder("denoise").decode(outputs, tiles)["restored"][0]
    assert restored[0, 0] == pytest.approx(240.0)
    noise = float(tiles.events["noise"][0])
    assert restored[3, 3:5] == pytest.approx(200.0 + 4 * noise)


def test_an_energy_counts_in_proportion_to_itself():
    objective = objective_of("energy", uncertainty=False)
    target = {"log10_energy": torch.tensor([-1.0, 0.0]), "weights": torch.ones(2)}
    for wrong, share in ((0, 1 / 11), (1, 10 / 11)):
        outputs = target["log10_energy"][:, None].clone()
        outputs[wrong] += 0.1
        assert float(objective.loss(outputs, target)) == pytest.approx(10 * 0.1**2 * share, rel=1e-5)


def test_energy_metrics_are_those_of_the_residuals(rng):
    objective = objective_of("energy")
    truth = rng.normal(size=100).astype(np.float32)
    residual = rng.normal(0.1, 0.3, 100).astype(np.float32)
    outputs = torch.from_numpy(np.stack([truth + residual, np.full(100, 2 * np.log(0.3))], 1)).float()
    metrics = objective.metrics()
    for part in (slice(0, 30), slice(30, 100)):
        target = {"log10_energy": torch.from_numpy(truth[part]), "weights": torch.ones(part.stop - part.start)}
        metrics.update(outputs[part], target)
    found = metrics.compute()
    assert found["log10_energy_rms"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-5)
    assert found["log10_energy_bias"] == pytest.approx(residual.mean(), rel=1e-4)
    assert found["pull_rms"] == pytest.approx(np.sqrt(np.mean(residual**2)) / 0.3, rel=1e-4)


def test_weights_reach_the_loss():
    objective = objective_of("gammaness")
    outputs = torch.tensor([[4.0], [4.0]])
    target = {"gamma": torch.tensor([1.0, 0.0]), "weights": torch.tensor([1.0, 0.0])}
    assert objective.loss(outputs, target) < 0.02
    assert objective.loss(outputs, target | {"weights": torch.tensor([0.0, 1.0])}) > 1


def test_smoothed_labels_have_their_least_loss_inside():
    objective = objective_of("gammaness", label_smoothing=0.2)
    target = {"gamma": torch.tensor([1.0]), "weights": torch.ones(1)}
    logits = torch.linspace(0, 5, 501)
    losses = [float(objective.loss(logit.view(1, 1), target)) for logit in logits]
    assert torch.sigmoid(logits[int(np.argmin(losses))]) == pytest.approx(0.9, abs=0.002)


def test_bias_of_bright_windows_is_seen():
    """A star 3 % too faint costs by the term's scale; noise without bias costs next to nothing."""
    from pipeline.tasks.denoise.objective import BIAS_TOLERANCE, _bias_loss

    tiles = sky_batch(16, size=64, seed=3)
    clean = torch.from_numpy((tiles.targets["clean"][:, 0] - 200.0) / batch_noise(tiles)).float()
    sigma2, sound = 1 + clean / batch_noise(tiles), torch.ones_like(clean, dtype=torch.bool)
    faint = float(_bias_loss(-0.03 * clean, clean, sigma2, sound))
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, clean.shape)).float()
    assert faint == pytest.approx(0.03 / BIAS_TOLERANCE - 0.5, rel=0.05)  # linear part of the Huber loss
    assert float(_bias_loss(noise, clean, sigma2, sound)) < 0.1 * faint


def star_tile(flux: float, change: float, size: int = 33) -> tuple[torch.Tensor, ...]:
    """One star with an aperture of 7 px on a sky of unit noise, whose flux changes by a part of itself."""
    y, x = np.mgrid[:size, :size] - size // 2
    profile = np.exp(-0.5 * (x**2 + y**2) / 1.27**2)
    light = torch.from_numpy(flux * profile / profile.sum())[None].float()
    stars, fwhm = torch.zeros_like(light), torch.zeros_like(light)
    stars[0, size // 2, size // 2], fwhm[0, size // 2, size // 2] = flux, 3.5
    sound = torch.ones_like(light, dtype=torch.bool)
    return change * light, torch.ones_like(light), sound, {"star_flux": stars, "star_fwhm_px": fwhm}


def test_a_change_of_the_flux_of_a_star_is_counted_in_units_of_its_noise_and_relative():
    from pipeline.tasks.denoise.objective import BIAS_TOLERANCE, STAR_SNR_EDGES, _star_loss

    harm, bias = _star_loss(*star_tile(1000.0, 0.02))
    # Squares of 7 px hold all but 1 % of the light, 20 electrons against 7 of noise.
    assert float(harm) == pytest.approx(0.988 * 20 / 7 - 0.5, rel=0.01)
    assert float(bias) == pytest.approx((0.988 * 0.02 / BIAS_TOLERANCE - 0.5) / (len(STAR_SNR_EDGES) - 1), rel=0.03)
    assert _star_loss(*star_tile(1000.0, 0.0)) == (0, 0)
    change, sigma2, sound, target = star_tile(1000.0, 0.02)
    sound[0, 16, 17] = False  # a defect in the aperture: its flux is not known
    assert _star_loss(change, sigma2, sound, target) == (0, 0)
    assert _star_loss(*star_tile(30.0, 0.5)) == (0, 0)  # S/N below 5


def test_the_weight_of_the_bias_grows_in_the_last_third():
    """The targets without simulated stars and with them, at either end of a training."""
    tiles = sky_batch(8)
    tiles.targets["stars"] = np.zeros((8, 2, 32, 32), np.float32)
    tiles.targets["stars"][:, :, 16, 16] = 2000.0, 3.5
    objective, target = objective_of("denoise"), target_of("denoise", tiles)
    del target["defect"]  # whose hardest pixels count more later, too
    outputs = torch.zeros(8, 5, 32, 32)
    outputs[:, 0], outputs[:, 4] = torch.linspace(-2, 2, 32), -5.0
    early = float(objective.loss(outputs, target))
    objective.progress = 0.5
    assert float(objective.loss(outputs, target)) == early
    objective.progress = 0.9
    assert float(objective.loss(outputs, target)) > early


def test_what_a_correction_aims_at_has_its_own_variance():
    from pipeline.tasks.denoise.objective import _correction_likelihood

    tiles = sky_batch(8)
    target = target_of("denoise", tiles)
    sound = target["good"] & target["usable"] & ~target["saturated"]
    outputs = torch.zeros(8, 5, 32, 32)

    def likelihood(log_tau2: float) -> float:
        outputs[:, 4] = log_tau2
        return float(_correction_likelihood(outputs, target)[sound].mean())

    # Without a correction, it is off by the noise itself: tau^2 is sigma^2.
    assert likelihood(0.0) < min(likelihood(0.3), likelihood(-0.3))


# ---- what is refused -------------------------------------------------------------------------------------------------
def check(task: str, folder, batch: TileBatch) -> None:
    manifest = write_tiles(folder, batch)
    objective = objective_of(task)
    for split in ("train", "validation"):
        reader = TileReader([manifest], split, where=objective.spec.where, equalise=objective.spec.equalise)
        objective.check(reader)


def test_no_truth(tmp_path):
    batch = camera_batch(100)
    batch.targets = {}
    with pytest.raises(UserError, match=r"no truth to train gammaness on: no target 'gammaness' \(they have none\)"):
        check("gammaness", tmp_path, batch)


def test_one_class_only(tmp_path):
    with pytest.raises(TooFewEventsError, match=r"the train split has \d+ gammas and 0 hadrons"):
        check("gammaness", tmp_path, camera_batch(100, gamma=True))


def test_energy_not_positive(tmp_path):
    batch = camera_batch(100)
    batch.events["true_energy_tev"][:10] = np.nan
    with pytest.raises(UserError, match="have no positive true energy"):
        check("energy", tmp_path, batch)


def test_direction_metrics_without_ends():
    """Several telescopes tell the end: there is no share of right ones."""
    metrics = objective_of("direction", ends=False).metrics()
    metrics.update(torch.tensor([[0.4, 0.0, 2 * np.log(0.1)]] * 3), direction_target([(0.5, 0.0)] * 3))
    found = metrics.compute()
    assert found == pytest.approx({"angular_resolution_deg": 0.1, "pull_rms": np.sqrt(0.5)}, rel=1e-5)
