"""Which processor computes."""

import pytest

from pipeline.device import choose_device, choose_precision, torch_threads
from pipeline.errors import UserError


def test_auto_is_something_that_is_there():
    assert choose_device(choose_device("auto")) == choose_device("auto")
    assert choose_device("cpu") == "cpu"


def test_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"device 'cuda' is not available to torch .*; accepted here: auto, cpu"):
        choose_device("cuda")


def test_precision_is_what_was_asked_for(monkeypatch):
    monkeypatch.setattr("pipeline.device.bfloat16_is_fast", lambda device: device == "cpu")
    assert choose_precision("float32", "cpu") == "float32"
    assert choose_precision("bfloat16", "mps") == "bfloat16"
    assert choose_precision("auto", "cpu") == "bfloat16"
    assert choose_precision("auto", "mps") == "float32"


def test_threads_are_given_back():
    import torch

    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
