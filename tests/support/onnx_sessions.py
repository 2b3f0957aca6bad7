"""A network exported to ONNX and opened in onnxruntime."""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn


def onnx_session(
    model: nn.Module, path: Path, *arguments: torch.Tensor, dynamic_shapes: Any, **more: torch.Tensor
) -> onnxruntime.InferenceSession:
    """Export in evaluation mode; the graph's inputs have the names of the arguments of `forward`."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own internals
        program = torch.onnx.export(
            model.eval(), arguments, kwargs=more, dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False
        )
    exporter.setLevel(level)
    program.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
