"""Networks learn from real images: digits, radio galaxies, and digits that several telescopes share between them.

Widths and depths are far below the papers'; thresholds are for them, not for the papers' networks.
"""

import gzip
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from models import create_model, list_models, model_entry
from models.sequence import telescope_table

pytestmark = pytest.mark.slow


def train(predict, model, images, targets, epochs, loss=F.cross_entropy, augment=None, learning_rate=3e-3):
    """Adam on batches of 64, with a learning rate that falls to zero along a cosine."""
    batch_size = 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // batch_size))
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for batch in order[: len(order) // batch_size * batch_size].split(batch_size):
            x = images[batch] if augment is None else augment(images[batch])
            optimizer.zero_grad()
            loss(predict(x), targets[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(predict, images, labels):
    answers = torch.cat([predict(batch).argmax(1) for batch in images.split(256)])
    return (answers == labels).float().mean().item()


def standardised(images):
    x = torch.tensor(images, dtype=torch.float32)
    return (x - x.mean()) / x.std()


# ---- MNIST: the 10,000 test digits, 8,000 to learn from -------------------------------------------------------------
@pytest.fixture(scope="module")
def t10k(data_dir):
    folder = data_dir / "reference"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return standardised(images), torch.tensor(labels, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "pad", "kwargs"), [("mlp", 0, {}), ("lenet5", 2, {"output": "rbf"}), ("lenet5_modern", 2, {})]
)
def test_mnist(name, pad, kwargs, t10k):
    """96 % after six epochs; LeNet-5 reads 32 x 32 px as in its paper."""
    torch.manual_seed(0)
    images, labels = t10k
    images = F.pad(images, [pad] * 4, value=images.min().item())
    model = create_model(name, num_outputs=10, **kwargs)
    train(model, model, images[:8000], labels[:8000], epochs=6)
    assert accuracy(model, images[8000:], labels[8000:]) >= 0.96


# ---- scikit-learn's digits: every family -----------------------------------------------------------------------------
@cache
def digits(size):
    """Images (1797, 1, size, size) of 8 x 8 px, enlarged; one in five is kept for the test."""
    data = load_digits()
    images = standardised(data.images)[:, None].repeat_interleave(size // 8, 2).repeat_interleave(size // 8, 3)
    test = torch.arange(len(images)) % 5 == 0
    labels = torch.as_tensor(data.target)
    return images[~test], labels[~test], images[test], labels[test]


SMALL_STEM = {"stem": "small"}
FAMILIES = {
    "alexnet": {"width": 16, "map_size": 2, "hidden": 64, "drop_rate": 0.2} | SMALL_STEM,
    "vgg11_bn": {"width": 8, "map_size": 1, "hidden": 64, "drop_rate": 0.2} | SMALL_STEM,
    "nin_cifar": {"width": 48, "drop_rate": 0.0},
    "googlenet": {"width": 12, "drop_rate": 0.1} | SMALL_STEM,
    "inception_v3": {"width": 6, "depths": (1, 1, 1), "drop_rate": 0.1} | SMALL_STEM,
    "resnet20": {"width": 8, "depths": (1, 1, 1)},
    "preact_resnet110": {"width": 8, "depths": (1, 1, 1)},
    "se_resnet18": {"width": 8, "depths": (1, 1, 1), "stem": "cifar"},
    "stochastic_depth_resnet110": {"width": 8, "depths": (2, 2, 2)},
    "fractalnet20": {"width": 8, "factors": (1, 2, 4), "columns": 2, "block_drop_rate": 0.1},
    "densenet_bc100_k12": {"growth_rate": 8, "depths": (3, 3, 3)},
    "hypernet": {},
    "hypernet_wrn40_2": {"width": 8, "depths": (1, 1, 1)},
}


def test_every_family_is_here():
    classifiers = {model_entry(name).family for name in list_models() if model_entry(name).takes == "image"} - {
        "mlp",
        "lenet",
    }
    assert {model_entry(name).family for name in FAMILIES} == classifiers


@pytest.mark.parametrize("name", FAMILIES)
def test_digits(name):
    torch.manual_seed(0)
    images, labels, test_images, test_labels = digits(32 if name == "hypernet" else 16)
    model = create_model(name, num_outputs=10, **FAMILIES[name])
    train(model, model, images, labels, epochs=20)
    assert accuracy(model, test_images, test_labels) >= 0.97


STEREO = {"encoder": "resnet20", "encoder_kwargs": {"width": 16, "depths": (1, 1)}, "n_scalars": 1}


@pytest.mark.parametrize("name", list_models("sequence"))
def test_digits_seen_by_two_telescopes(name):
    """One sees the upper half, the other the lower; a number tells which. Neither half suffices."""
    torch.manual_seed(0)
    images, labels, test_images, test_labels = digits(16)
    model = create_model(name, num_outputs=10, **STEREO)

    def predict(x):
        halves = x.unflatten(2, (2, 8)).transpose(1, 2).flatten(0, 1)
        return model(halves, torch.tensor([[-1.0], [1.0]]).repeat(len(x), 1), telescope_table([2] * len(x)))

    train(predict, model, images, labels, epochs=20)
    assert accuracy(predict, test_images, test_labels) >= 0.97


@pytest.mark.parametrize("name", list_models("autoencoder"))
def test_denoised_digits(name):
    """Noise as strong as the signal goes down to 0.4 of that."""
    torch.manual_seed(0)
    images, _, test_images, _ = digits(16)
    model = create_model(name, width=16)

    def noisy(x):
        return x + torch.randn_like(x)

    train(model, model, images, images, epochs=30, loss=F.mse_loss, augment=noisy)
    with torch.no_grad():
        error = (model(noisy(test_images)) - test_images).square().mean().sqrt().item()
    assert error < 0.4


# ---- MiraBest: radio galaxies of FIRST, Fanaroff and Riley's classes I and II ---------------------------------------
@pytest.fixture(scope="module")
def mirabest(data_dir):
    """Arrays X, Y to learn from and Xt, Yt for the test; 150 px averaged to 75 px."""
    with np.load(data_dir / "reference" / "mirabest.npz") as file:
        images = [F.avg_pool2d(torch.as_tensor(file[key], dtype=torch.float32)[:, None], 2) for key in ("X", "Xt")]
        labels = [torch.as_tensor(file[key]) for key in ("Y", "Yt")]
    mean, rms = images[0].mean(), images[0].std()
    return *((x - mean) / rms for x in images), *labels


def turned(x):
    """A galaxy has no up: any quarter turn, any mirror image."""
    x = torch.rot90(x, int(torch.randint(4, ())), (2, 3))
    return x.flip(3) if torch.rand(()) < 0.5 else x


MIRABEST = {
    "resnet18": {"width": 8, "depths": (1, 1, 1, 1), "stem": "stride2"},
    "se_resnet18": {"width": 8, "depths": (1, 1, 1, 1), "stem": "stride2"},
    "densenet121": {"growth_rate": 8, "depths": (2, 2, 2), "stem": "stride2"},
}


@pytest.mark.parametrize("name", MIRABEST)
def test_mirabest(name, mirabest):
    """The greater class is 56 % of the test images."""
    torch.manual_seed(0)
    images, test_images, labels, test_labels = mirabest
    model = create_model(name, num_outputs=2, **MIRABEST[name])
    train(model, model, images, labels, epochs=25, augment=turned)
    assert accuracy(model, test_images, test_labels) >= 0.75
