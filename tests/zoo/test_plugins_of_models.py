"""Networks in folders of a user's own: found, described, built and trained as those of lightpool."""

import os
import subprocess
import sys

import pytest

TOY = '''
"""A toy."""

from typing import Any

from torch import Tensor, nn

from models import FeatureInfo, Head, TileModel, register_model


class Toy(TileModel):
    def __init__(self, in_chans: int = 1, num_outputs: int = 1, *, width: int = 4, n_scalars: int = 0) -> None:
        super().__init__()
        self.in_chans, self.min_size = in_chans, 4
        self.conv = nn.Conv2d(in_chans, width, 3, stride=2, padding=1)
        self.feature_info = [FeatureInfo("conv", width, 2)]
        self.head = Head(width, num_outputs, n_scalars)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.conv(x)


@register_model(paper="arXiv:0000.00000", ref={"width": 4}, num_params=45)
def NAME(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Toy:
    """A toy."""
    return Toy(in_chans, num_outputs, **kwargs)
'''
USE = """
import torch
from models import create_model, describe, list_models, model_entry

assert list_models()[-1] == "toy" and list_models("own") == ["toy"]
entry = model_entry("toy")
assert (entry.family, entry.takes, entry.gives) == ("own", "image", "vector")
assert describe("toy", 16, width=2).receptive_field_px == 3
model = create_model("toy", 2, 3, n_scalars=1, width=2)
y = model(torch.randn(4, 2, 16, 16), torch.randn(4, 1))
assert y.shape == (4, 3)
y.square().sum().backward()
assert all(parameter.grad.abs().sum() > 0 for parameter in model.conv.parameters())
"""


@pytest.fixture
def with_plugins(checkout):
    """Run code in a process that finds these folders: what is imported once stays in this one."""

    def run(code, *folders):
        variables = {"LIGHTPOOL_PLUGINS": os.pathsep.join(map(str, folders)), "PYTHONPATH": str(checkout)}
        return subprocess.run(
            [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=False
        )

    return run


def write_toy(folder, file_name="own", name="toy"):
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models" / f"{file_name}.py").write_text(TOY.replace("NAME", name))
    return folder


def test_a_network_of_a_user(with_plugins, tmp_path):
    (tmp_path / "without_models").mkdir()
    folder = write_toy(tmp_path / "a")
    (folder / "models" / "_draft.py").write_text("raise AssertionError")
    done = with_plugins(USE, tmp_path / "without_models", folder, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file_name", "name", "message"),
    [
        ("own", "resnet18", "model 'resnet18' is registered already, by models.resnet"),
        ("resnet", "toy", "models.resnet is both in "),
    ],
)
def test_a_name_that_is_taken(file_name, name, message, with_plugins, tmp_path):
    done = with_plugins("import models", write_toy(tmp_path, file_name, name))
    assert done.returncode == 1
    assert f"ValueError: {message}" in done.stderr


def test_two_files_of_one_name(with_plugins, tmp_path):
    folders = [write_toy(tmp_path / place, name=place) for place in ("a", "b")]
    done = with_plugins("import models", *folders)
    assert f"models.own is both in {folders[0] / 'models'} and in {folders[1] / 'models'}; rename" in done.stderr


def test_a_folder_that_is_not_there(with_plugins, tmp_path):
    done = with_plugins("import models", tmp_path / "gone")
    assert f"ValueError: LIGHTPOOL_PLUGINS names {tmp_path / 'gone'}, which is not a directory; correct" in done.stderr
