"""The examples of CONTRIBUTING.md work as they stand."""

import os
import subprocess
import sys

import pytest
import yaml
from contributing_examples import example

from pipeline.config import parse_config

USE_OF_A_MODEL = """
import torch
from models import create_model, describe, list_models, model_entry

assert list_models("plain") == ["plain3"]
assert model_entry("plain3").summary == "Plain network of three layers (Table 1)."
table = describe("plain3", tile=56, num_outputs=10)
assert table.num_params == model_entry("plain3").num_params and table.receptive_field_px == 15

torch.manual_seed(0)
model = create_model("plain3", in_chans=3, num_outputs=2, n_scalars=4)
images, scalars, target = torch.randn(8, 3, 56, 56), torch.randn(8, 4), torch.randn(8, 2)
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
losses = []
for _ in range(10):
    loss = (model(images, scalars) - target).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
assert losses[-1] < 0.5 * losses[0], losses
"""


@pytest.fixture
def run_with_plugins(checkout, tmp_path):
    """Run this Python with arguments, in a process that finds the plugins in `tmp_path`."""

    def run(*arguments):
        variables = {"LIGHTPOOL_PLUGINS": str(tmp_path), "PYTHONPATH": str(checkout)}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=checkout,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def plain(tmp_path):
    """The example of a network as a plugin."""
    file = tmp_path / "models" / "plain.py"
    file.parent.mkdir()
    file.write_text(example("Add a model"))
    return file


@pytest.mark.usefixtures("plain")
def test_the_model_is_listed_described_and_learns(run_with_plugins):
    run_with_plugins("-c", USE_OF_A_MODEL)
    assert "plain3" in run_with_plugins(
        "-c", "from pipeline.cli import main; raise SystemExit(main(['models', 'list']))"
    )


@pytest.mark.usefixtures("plain")
def test_the_model_passes_the_tests_of_the_zoo(run_with_plugins):
    passed = run_with_plugins("-m", "pytest", "-p", "no:cacheprovider", "-k", "plain3", "tests/zoo/test_registry.py")
    assert " passed" in passed


def test_the_model_is_formatted(run_with_plugins, plain):
    for command in (["check"], ["format", "--check"]):
        run_with_plugins("-m", "ruff", *command, "--no-cache", "--config=pyproject.toml", str(plain))


def test_an_experiment_takes_the_model():
    cfg = parse_config(yaml.safe_load(example("Add a model", language="yaml")))
    assert cfg.network("gammaness").model.name == "plain3"
    assert cfg.network("gammaness").model.kwargs == {"width": 32}


def test_an_example_that_is_not_there():
    with pytest.raises(LookupError, match=r"has no section 'Add a planet'; it has Where things are, Add a model"):
        example("Add a planet")
    with pytest.raises(LookupError, match=r"'Add a model' of CONTRIBUTING.md has 1 block\(s\) of python, no number 1"):
        example("Add a model", 1)
