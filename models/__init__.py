"""Network definitions: torch only, one file per family, never importing `pipeline`."""

from models import (  # noqa: F401  (importing a family registers its entries)
    autoencoder,
    densenet,
    fractalnet,
    hypernet,
    lenet,
    preact_resnet,
    resnet,
    senet,
    stochastic_depth,
)
from models.describe import LayerRow, ModelDescription, describe
from models.registry import ModelEntry, create_model, list_models, model_entry, register_model

__all__ = [
    "LayerRow",
    "ModelDescription",
    "ModelEntry",
    "create_model",
    "describe",
    "list_models",
    "model_entry",
    "register_model",
]
