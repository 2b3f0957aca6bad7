"""Network definitions: torch only, one file per family, never importing `pipeline`."""

from models import (  # noqa: F401  (importing a family registers its entries)
    alexnet,
    autoencoder,
    densenet,
    fractalnet,
    googlenet,
    hypernet,
    inception,
    lenet,
    mlp,
    nin,
    preact_resnet,
    resnet,
    senet,
    sequence,
    stochastic_depth,
    vgg,
)
from models.describe import LayerRow, ModelDescription, describe
from models.registry import ModelEntry, create_model, list_models, model_entry, register_model, with_scalars

__all__ = [
    "LayerRow",
    "ModelDescription",
    "ModelEntry",
    "create_model",
    "describe",
    "list_models",
    "model_entry",
    "register_model",
    "with_scalars",
]
