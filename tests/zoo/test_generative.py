"""Networks that make images: their loss is a bound, their prior can be inverted, their generator is what remains."""

import numpy as np
import pytest
import torch
from scipy.stats import dirichlet_multinomial, nbinom, norm
from torch.distributions import Normal, kl_divergence

from models import create_model, describe, model_entry
from models.generative import ConvVAE, Coupling, Details

SMALL = {"in_chans": 5, "num_outputs": 4, "n_scalars": 5, "size": 16, "width": 8, "latent": 4}


@pytest.fixture(params=["conv_vae", "conv_flow"])
def network(request) -> ConvVAE:
    torch.manual_seed(0)
    return create_model(request.param, **SMALL).eval()


def images(n: int = 3, size: int = 16) -> torch.Tensor:
    """Pixels of 2 x 2 cells; a quarter of the tile is outside the camera."""
    generator = torch.Generator().manual_seed(1)
    side = size // 2
    number = torch.arange(1, side**2 + 1).reshape(1, side, side).repeat(n, 1, 1)
    number[:, side // 2 :, side // 2 :] = 0
    inside = number > 0
    light = torch.poisson(torch.rand(n, side, side, generator=generator) * 3, generator=generator) * inside
    time = torch.randn(n, side, side, generator=generator) * 5
    timed = (torch.rand(n, side, side, generator=generator) < 0.3) & inside
    planes = [light / 4, time, timed, number // 256, number % 256]
    return torch.stack([plane.float().repeat_interleave(2, 1).repeat_interleave(2, 2) for plane in planes], dim=1)


@pytest.mark.parametrize("name", ["conv_vae", "conv_flow"])
def test_reference_parameter_count(name):
    entry = model_entry(name)
    assert sum(p.numel() for p in create_model(name, **entry.ref).parameters()) == entry.num_params
    with pytest.raises(ValueError, match=f"{name} makes images; its layers are not listed"):
        describe(name)


def in_pixels(cells: np.ndarray) -> np.ndarray:
    """Sums over the cells of the pixels of `images`."""
    return cells.reshape(8, 2, 8, 2).sum((1, 3))


@pytest.mark.parametrize("varied", [False, True])
def test_terms_of_the_loss_by_hand(network, varied):
    """Shares and times are compared in pixels, which add up their cells."""
    x, conditions = images(), torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        network.log_time_noise.fill_(0.7)
        network.decoder.spreads.bias.copy_(torch.tensor([4.0, 0.5, 1.5]))
        layer = network.decoder.out[0]  # four channels of it make one map
        layer.weight[8:] *= 100 * varied
        terms = network(x, conditions)
        mean, log_std, seen = network.encoder(x, conditions)
        noise = torch.randn(3, network.latent, generator=torch.Generator().manual_seed(0))
        z, of_details = mean + log_std.exp() * noise[:, : network.vector], noise[:, network.vector :]
        made = network.decoder(z, conditions, of_details, seen)
    logits, time, log_a, log_time_stds, _ = (part.double().numpy() for part in made)
    assert (np.ptp(log_a, axis=(1, 2)) > 0.5 if varied else np.ptp(log_a, axis=(1, 2)) == 0).all()
    light, measured, timed, multiples, rest = x.double().numpy().transpose(1, 0, 2, 3)
    for k in range(3):
        inside = multiples[k] * 256 + rest[k] > 0
        share = np.where(inside, np.exp(logits[k]), 0)
        share /= share.sum()
        seen = in_pixels(share) > 0
        n, p, size = np.rint(in_pixels(light[k]))[seen].astype(int), in_pixels(share)[seen], round(light[k].sum())
        a = np.exp(in_pixels(share * log_a[k])[seen] / p)
        if varied:
            all_of_them = nbinom((a * p).sum(), 1 / (1 + size / (a * p).sum()))
            law = nbinom(a * p, 1 / (1 + size / a)).logpmf(n).sum() - all_of_them.logpmf(size)
        else:
            law = dirichlet_multinomial(a * p, size).logpmf(n)
        assert terms[k, 0].item() == pytest.approx(-law, rel=1e-4)
        own = timed[k][::2, ::2] > 0
        expected_ns = in_pixels(share * time[k])[own] / in_pixels(share)[own]
        n = np.maximum(in_pixels(light[k])[own], 1)
        of_all, per_electron = np.exp(log_time_stds[k])
        std_ns = np.sqrt(of_all**2 + per_electron**2 / n + np.exp(1.4) / n**2)
        law = norm(expected_ns, std_ns).logpdf(measured[k][::2, ::2][own]) + np.log(10) + np.log(2 * np.pi) / 2
        assert terms[k, 1].item() == pytest.approx(-law.sum(), rel=1e-4)


def test_what_is_outside_the_camera_is_not_asked_for(network):
    """Light that the decoder sees there costs nothing, or it would learn that showers end at the camera's edge."""
    x, conditions = images(), torch.zeros(3, 5)
    decode = network.decoder.forward
    with torch.no_grad():
        before = network(x, conditions)
        outside = x[:, 3] * 256 + x[:, 4] == 0

        def brighter_outside(*given):
            logits, time, log_a, *others = decode(*given)
            return logits + 5.0 * outside, time + 50.0 * outside, log_a + 3.0 * outside, *others

        network.decoder.forward = brighter_outside
        torch.testing.assert_close(network(x, conditions), before)


def test_latent_term_is_the_divergence_from_the_prior():
    """Its mean over many draws is that of q and p; with a prior of normal numbers there is a formula."""
    torch.manual_seed(0)
    network = create_model("conv_vae", **SMALL, details=0)
    x, conditions = images(1), torch.zeros(1, 5)
    network.train()
    with torch.no_grad():
        mean, log_std, _ = network.encoder(x, conditions)
        drawn = torch.stack([network(x, conditions)[0, 2] for _ in range(2000)])
    expected = (0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum()
    assert float(drawn.mean()) == pytest.approx(float(expected), abs=5 * float(drawn.std()) / 2000**0.5)


def test_details_are_drawn_from_what_the_encoder_saw():
    torch.manual_seed(1)
    details, x, seen = Details(6, 2), torch.randn(3, 6, 4, 4), torch.randn(3, 6, 4, 4)
    noise = torch.randn(3, 32)
    with torch.no_grad():
        mean, log_std = details.posterior(torch.cat([x, seen], dim=1)).chunk(2, dim=1)
        q = Normal(mean, (log_std - 0.1).exp())
        made, divergence = details(x, noise, seen)
        expected = kl_divergence(q, Normal(0.0, 1.0)).sum((1, 2, 3))
        torch.testing.assert_close(divergence, expected)
        drawn = q.mean + q.stddev * noise.view(3, 2, 4, 4)
        torch.testing.assert_close(made, details(x, drawn.flatten(1), None)[0])
        assert (details(x, noise, None)[1] == 0).all()


@pytest.mark.parametrize("details", [0, 2])
def test_maps_of_details_are_part_of_the_noise(details):
    network = create_model("conv_vae", **SMALL, details=details).eval()
    assert network.latent == 4 + details * 16
    noise, conditions = torch.zeros(1, network.latent), torch.zeros(1, 5)
    changed = noise.clone()
    changed[:, -1] = 3
    with torch.no_grad():
        network.decoder.out[0].weight.normal_()
        assert not torch.equal(network.generator()(noise, conditions), network.generator()(changed, conditions))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("latent", [4, 5])
def test_coupling_inverts_itself(flip, latent):
    torch.manual_seed(3)
    coupling = Coupling(latent, 2, flip=flip).double()
    for parameter in coupling.parameters():
        parameter.data.normal_(std=0.3)
    z, conditions = torch.randn(1, latent, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    there, log_det = coupling(z, conditions)
    assert not torch.allclose(there, z)
    torch.testing.assert_close(coupling.inverse(there, conditions), z)
    jacobian = torch.autograd.functional.jacobian(lambda v: coupling(v, conditions)[0], z)[0, :, 0]
    assert log_det.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item())


def test_generator_spreads_all_of_the_light(network):
    noise, conditions = torch.randn(4, network.latent), torch.randn(4, 5)
    with torch.no_grad():
        made = network.generator()(noise, conditions)
    assert made.shape == (4, 5, 16, 16)
    assert (made[:, 3:] == made[:, 3:, :1, :1]).all()
    torch.testing.assert_close(made[:, 0].sum((1, 2)), torch.ones(4))
    assert (made[:, 0] >= 0).all()


def test_training_uses_the_latent_vector_from_the_first_step_on():
    """A decoder that finds noise alone learns to do without: images must differ in their latent vectors at once."""
    torch.manual_seed(0)
    network = create_model("conv_vae", in_chans=5, num_outputs=4, n_scalars=5)
    with torch.no_grad():
        mean, log_std, _ = network.encoder(images(16, 64), torch.zeros(16, 5))
    assert (mean.std(0) > log_std.exp().mean(0)).float().mean() > 0.9


def test_every_parameter_gets_a_finite_gradient(network):
    network.train()
    x = images()
    x[0, 0] = 0  # all the light is beside the tile
    network(x, torch.zeros(3, 5)).sum().backward()
    gradients = [parameter.grad for name, parameter in network.named_parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_loss_is_repeatable_in_evaluation_and_drawn_in_training(network):
    x, conditions = images(), torch.zeros(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(network(x, conditions), network(x, conditions), rtol=0, atol=0)
        network.train()
        assert not torch.equal(network(x, conditions), network(x, conditions))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"in_chans": 3}, "reads 5 channels and gives 4 terms of its loss, got in_chans 3"),
        ({"num_outputs": 1}, "got in_chans 5 and num_outputs 1"),
        ({"size": 40}, "size of a generative network must be a multiple of 16, got 40"),
        ({"width": 4}, "width of a generative network must be at least 8, got 4"),
        ({"latent": 1}, "latent of a generative network must be at least 2, got 1"),
        ({"couplings": -1}, "couplings of a generative network must be at least 0, got -1"),
        ({"details": -1}, "details of a generative network must be at least 0, got -1"),
    ],
)
def test_arguments_are_checked(changed, message):
    with pytest.raises(ValueError, match=message):
        create_model("conv_vae", **(SMALL | changed))


def test_refuses_other_images_and_other_heads(network):
    with pytest.raises(ValueError, match=r"was built for images \(N, 5, 16, 16\), got \(1, 5, 32, 32\)"):
        network(torch.zeros(1, 5, 32, 32))
    with pytest.raises(ValueError, match="generates images and has no head for 2 other outputs"):
        network.reset_head(2)
