"""Attribution of a network's output to the parts of an image, and its feature maps (torch, captum).

References
----------
.. [1] Sundararajan, Taly, Yan (2017), "Axiomatic attribution for deep networks", arXiv:1703.01365.
.. [2] Selvaraju et al. (2017), "Grad-CAM", arXiv:1610.02391, Eqs. 1 and 2.
.. [3] Zeiler & Fergus (2014), "Visualizing and understanding convolutional networks", arXiv:1311.2901.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Points of the path integral, and how many of them are computed at once. With 64 the parts of the networks tried add
# up to the answer's change within 1 %.
_PATH_POINTS = 64
_POINTS_AT_ONCE = 16
# A map with fewer pixels than this along a side is too coarse to localise anything.
_FEWEST_MAP_PX = 4


@dataclass(frozen=True)
class Attribution:
    """Shares of one image's inputs in the change of one output from an empty image to this one.

    Attributes
    ----------
    images : ndarray, shape (C, H, W)
        Integrated gradients [1]_, in units of the output.
    scalars : ndarray, shape (S,)
        The same for the scalars; an average image's scalars are zero.
    output, empty_output : float
        For this image, and for an empty one (no charge, no time, nothing kept, average scalars).
    location : ndarray, shape (H, W), or None
        Grad-CAM [2]_, signed: where the features lie that raise or lower the output. None where no layer's maps have
        four pixels along a side.
    location_layer : str
        The layer whose maps `location` is made of, and their size.
    """

    images: np.ndarray
    scalars: np.ndarray
    output: float
    empty_output: float
    location: np.ndarray | None
    location_layer: str

    @property
    def missing(self) -> float:
        """Change of the output minus the sum of the parts: the error of the path integral."""
        return self.output - self.empty_output - float(self.images.sum() + self.scalars.sum())


def attribute(
    network: nn.Module,
    images: Tensor,
    scalars: Tensor | None,
    output: int = 0,
    *,
    empty: Tensor | None = None,
) -> Attribution:
    """Attribute one output of `network` (in evaluation mode) to its inputs.

    Parameters
    ----------
    network : nn.Module
        One vector of outputs per tile.
    images : Tensor, shape (1, C, H, W)
    scalars : Tensor, shape (1, S), or None
    output : int
        Which output.
    empty : Tensor, shape (1, C, H, W), optional
        The empty image; what it shares with `images` has no part in the change. By default, zeros.
    """
    from captum.attr import IntegratedGradients

    def answer(x: Tensor, s: Tensor | None = None) -> Tensor:
        return network(x, s)[:, output]

    inputs = (images,) if scalars is None else (images, scalars)
    nothing = (torch.zeros_like(images) if empty is None else empty, *(torch.zeros_like(part) for part in inputs[1:]))
    parts = IntegratedGradients(answer).attribute(
        inputs, baselines=nothing, n_steps=_PATH_POINTS, internal_batch_size=_POINTS_AT_ONCE, method="gausslegendre"
    )
    with torch.no_grad():
        value = float(answer(*inputs))
        empty_value = float(answer(*nothing))
    location, layer = _locate(network, answer, inputs)
    return Attribution(
        images=parts[0][0].detach().numpy(),
        scalars=parts[1][0].detach().numpy() if scalars is not None else np.zeros(0),
        output=value,
        empty_output=empty_value,
        location=location,
        location_layer=layer,
    )


def _locate(
    network: nn.Module, answer: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> tuple[np.ndarray | None, str]:
    """Grad-CAM at the deepest level of features that is fine enough to localise."""
    from captum.attr import LayerGradCam

    levels = [info.module for info in network.feature_info]
    with _outputs_of(network, levels) as outputs, torch.no_grad():
        answer(*inputs)
    fine = [name for name in levels if _is_map(outputs.get(name), _FEWEST_MAP_PX)]
    if not fine:
        return None, ""
    name = fine[-1]
    heatmap = LayerGradCam(answer, network.get_submodule(name)).attribute(
        inputs[0], additional_forward_args=inputs[1:] or None, relu_attributions=False
    )
    height, width = heatmap.shape[2:]
    location = F.interpolate(heatmap.detach(), inputs[0].shape[2:], mode="bilinear", align_corners=False)
    return location[0, 0].numpy(), f"{name}, {height} x {width} px"


def _is_map(output: object, fewest_px: int = 1) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= fewest_px


# ---- layers ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayerMaps:
    """The strongest maps of one layer for one image.

    Attributes
    ----------
    layer : str
    n_maps : int
        How many the layer has.
    indices : ndarray, shape (k,)
        Which ones are here, strongest first (by their mean square).
    maps : ndarray, shape (k, h, w)
    """

    layer: str
    n_maps: int
    indices: np.ndarray
    maps: np.ndarray


@dataclass(frozen=True)
class Features:
    """First filters of a network and its maps, level by level.

    Attributes
    ----------
    filters : ndarray, shape (k, C, h, w), or None
        Weights of the first convolution for the strongest of its maps, `levels[0]`; None if the network does not begin
        with a convolution.
    levels : list of LayerMaps
    """

    filters: np.ndarray | None
    levels: list[LayerMaps]


@torch.no_grad()
def features(network: nn.Module, images: Tensor, scalars: Tensor | None, n_maps: int = 8) -> Features:
    """Feature maps of `network` (in evaluation mode) for one image, shape (1, C, H, W).

    Raises
    ------
    ValueError
        If no layer gives maps.
    """
    first = _first_convolution(network, images.shape[1])
    names = [*([first] if first else []), *(info.module for info in network.feature_info)]
    with _outputs_of(network, names) as seen:
        network(images, scalars)
    levels = [_strongest(name, seen[name][0], n_maps) for name in dict.fromkeys(names) if _is_map(seen.get(name))]
    if not levels:
        raise ValueError(f"{type(network).__name__} has no feature maps: none of its layers keeps the positions")
    filters = network.get_submodule(first).weight[levels[0].indices].numpy() if first else None
    return Features(filters, levels)


def _first_convolution(network: nn.Module, in_chans: int) -> str | None:
    """The convolution that takes the image itself; None for a network that begins with another layer."""
    found = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    first = found[0] if found else None
    return first if first and network.get_submodule(first).weight.shape[1] == in_chans else None


def _strongest(name: str, maps: Tensor, n_maps: int) -> LayerMaps:
    indices = maps.square().mean((1, 2)).argsort(descending=True, stable=True)[:n_maps]
    return LayerMaps(name, len(maps), indices.numpy(), maps[indices].numpy())


@contextmanager
def _outputs_of(network: nn.Module, names: list[str]):
    """Outputs of layers while the block runs, by name; copies, because a later layer may work in place."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen[name] = output.detach().clone()

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in set(names)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
