"""`lightpool info --system`."""

import os
from types import SimpleNamespace

import pytest
import torch

from pipeline.cli import main
from pipeline.stages import system
from pipeline.stages.system import describe_system, memory_limit, usable_cores


def test_the_system_is_described(capsys):
    assert main(["info", "--system"]) == 0
    text = capsys.readouterr().out
    for word in ("This machine has:", "cores may be used", "Gloo", "device of train", "ranks of train", "Missing:"):
        assert word in text
    assert f"torch {torch.__version__}" in text
    assert f"{usable_cores()} of {os.cpu_count()} cores" in text


@pytest.mark.parametrize("arguments", [["info"], ["info", "--system", "frame.fits"]])
def test_a_file_or_the_system(arguments, capsys):
    assert main(arguments) == 2
    assert "takes the name of a file, or --system alone: give one of the two" in capsys.readouterr().err


def test_the_limit_of_a_job_is_found(tmp_path):
    for text, expected in (("2147483648\n", 2**31), ("max\n", None)):
        (tmp_path / "limit").write_text(text)
        assert memory_limit((str(tmp_path / "none"), str(tmp_path / "limit"))) == expected
    assert memory_limit((str(tmp_path / "none"),)) is None


def with_gpus(monkeypatch, n):
    facts = SimpleNamespace(name="Test GPU", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: facts)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


def test_gpus_are_listed(monkeypatch):
    with_gpus(monkeypatch, 2)
    monkeypatch.setattr(system, "_providers", lambda: ["processor"])
    text = "\n".join(describe_system())
    assert "GPU 1" in text
    assert "Test GPU, 80 GiB, compute capability 9.0" in text
    assert "device of train             cuda:0" in text
    assert "onnxruntime-gpu: evaluate and predict run on the processor" in text


@pytest.mark.parametrize(
    ("cuda", "environment", "message"),
    [
        (None, {}, "is built without CUDA: install one for CUDA"),
        ("12.8", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES hides the GPU"),
        ("12.8", {}, "torch finds no GPU: ask the batch system for one"),
    ],
)
def test_a_gpu_that_torch_does_not_see(cuda, environment, message, monkeypatch):
    monkeypatch.setattr(system.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with_gpus(monkeypatch, 0)
    assert message in "\n".join(system._missing(environment))


def test_what_is_missing(monkeypatch):
    monkeypatch.setattr(system.shutil, "which", lambda name: "/usr/bin/sbatch" if name == "sbatch" else None)
    monkeypatch.setattr(system, "_installed", lambda name: False)
    monkeypatch.setattr(system, "usable_cores", lambda: 1)
    text = "\n".join(system._missing({}))
    assert "a C++ compiler (g++), which networks.NAME.compile: true needs" in text
    assert "cores: 1 may be used, and a training has 2 threads; set threads: 1" in text
    assert "pip install 'lightpool[cluster]'" in text
