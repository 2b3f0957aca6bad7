"""The list of architectures: one decorator puts a builder into it, one function builds by name."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from torch import nn

Input = Literal["image", "telescopes", "frame"]
"""What a network takes: one image, the images of all telescopes of a shower, or a frame of any size."""
Output = Literal["vector", "map", "image"]
"""What a network gives: one vector per image or shower, maps of the size of the frame, or images; in training these
give the terms of their loss instead."""

_ENTRIES: dict[str, "ModelEntry"] = {}


@dataclass(frozen=True)
class ModelEntry:
    """One registered architecture."""

    name: str
    builder: Callable[..., nn.Module]
    paper: str
    """Where the architecture is defined: an arXiv number or a DOI."""
    ref: Mapping[str, Any]
    """Arguments of the reference configuration, the one that `num_params` counts."""
    num_params: int
    """Number of trainable parameters of the reference configuration."""
    takes: Input = "image"
    gives: Output = "vector"

    @property
    def family(self) -> str:
        """The module that defines it: ``resnet``, ``lenet`` ..."""
        return self.builder.__module__.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """First line of the builder's docstring."""
        return inspect.getdoc(self.builder).partition("\n")[0]

    @property
    def network(self) -> type[nn.Module]:
        """The class that is built: the builder's return annotation."""
        return inspect.signature(self.builder).return_annotation

    @property
    def arguments(self) -> dict[str, Any]:
        """Accepted keyword arguments besides `in_chans` and `num_outputs`, with the constructor's defaults.

        The constructor's signature is the list of what a configuration may name. An entry may start from
        other values than these defaults (`resnet50` from other `depths` than `resnet18`).
        """
        parameters = inspect.signature(self.network).parameters.values()
        shared = ("in_chans", "num_outputs")
        return {parameter.name: parameter.default for parameter in parameters if parameter.name not in shared}


def register_model(
    *, paper: str, ref: Mapping[str, Any], num_params: int, takes: Input = "image", gives: Output = "vector"
) -> Callable:
    """Register the decorated builder under its own name.

    The builder takes `in_chans`, `num_outputs` and keyword arguments that it hands to the network's class, and is
    annotated with that class.

    Parameters
    ----------
    paper
        arXiv number or DOI of the publication that defines the architecture.
    ref
        Arguments that give the reference configuration.
    num_params
        Trainable parameters of the reference configuration; its source is in the family's module.
    takes
        ``image``: tiles (N, C, H, W). ``telescopes``: the images of all telescopes of all showers (M, C, H, W), and
        `members`, the table of which image belongs to which shower. ``frame``: frames (N, C, H, W) of any size.
    gives
        ``vector``: (N, num_outputs), one row per image or shower. ``map``: (N, num_outputs, H, W); such a network has
        the attribute `size_multiple`, and height and width must be multiples of it.

    Raises
    ------
    ValueError
        If the name is taken, or for an unknown `takes` or `gives`.
    """
    for argument, value, accepted in (("takes", takes, get_args(Input)), ("gives", gives, get_args(Output))):
        if value not in accepted:
            raise ValueError(f"{argument} of a model must be one of {', '.join(accepted)}, got {value!r}")

    def register(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        name = builder.__name__
        if name in _ENTRIES:
            raise ValueError(f"model {name!r} is registered already, by {_ENTRIES[name].builder.__module__}")
        _ENTRIES[name] = ModelEntry(name, builder, paper, MappingProxyType(dict(ref)), num_params, takes, gives)
        return builder

    return register


def list_models(family: str | None = None) -> list[str]:
    """Names of the registered architectures, of one family or of all; families together, in order of registration."""
    return [entry.name for entry in _ENTRIES.values() if family in (None, entry.family)]


def model_entry(name: str) -> ModelEntry:
    """The registry's entry of one architecture.

    Raises
    ------
    ValueError
        If no architecture has that name; the message lists the nearest ones.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    near = difflib.get_close_matches(name, _ENTRIES, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"accepted: {', '.join(_ENTRIES)}"
    raise ValueError(f"unknown model {name!r}; {hint} (`lightpool models list` shows all)")


def create_model(name: str, in_chans: int = 1, num_outputs: int = 1, n_scalars: int = 0, **kwargs: Any) -> nn.Module:
    """Build a network with freshly drawn weights (from torch's global random generator).

    Parameters
    ----------
    name
        One of `list_models()`.
    in_chans
        Channels of the input tiles.
    num_outputs
        Length of the output vector, or number of output maps of a dense network.
    n_scalars
        Scalars per tile (Hillas parameters, pointing) that join the image's features before the head.
    **kwargs
        Arguments of the network's class; `model_entry(name).arguments` lists them.

    Raises
    ------
    ValueError
        For an unknown name or argument, or a value that the network does not accept.
    """
    entry = model_entry(name)
    for argument, value in (("in_chans", in_chans), ("num_outputs", num_outputs)):
        if value < 1:
            raise ValueError(f"{argument} of {name} must be at least 1, got {value}")
    if n_scalars:
        kwargs["n_scalars"] = n_scalars
    accepted = entry.arguments
    for argument in kwargs:
        if argument not in accepted:
            raise ValueError(f"{name} has no argument {argument!r}; accepted: {', '.join(accepted)}")
    return entry.builder(in_chans=in_chans, num_outputs=num_outputs, **kwargs)
