"""What a network does to a tile, layer by layer: shapes, parameters, operations, receptive field.

The network is built on torch's meta device, so that the largest one costs no memory. Operations are counted by torch
itself (`torch.utils.flop_counter`). The receptive field follows the tensors through every torch function, not only
through modules, so that shortcuts, concatenations and slices are seen.

A factor per channel that the whole tile decides (squeeze and excitation) is ignored: it measures how much
of something the tile has, not where.

References
----------
.. [1] Araujo, Norris, Sim (2019), "Computing receptive fields of convolutional neural networks",
   doi:10.23915/distill.00021: the recurrence of size and jump, Eq. 2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from models.layers import PoolTo
from models.registry import create_model, model_entry


@dataclass(frozen=True)
class Reach:
    """What one element of a tensor has seen of the input, along one side.

    `field_px` is None behind a layer that mixes all positions (global pooling).
    """

    field_px: float | None
    jump_px: float | None
    """Distance of neighbouring elements in input pixels."""

    def widen(self, kernel: float, stride: float = 1) -> "Reach":
        """Behind a sliding window of `kernel` elements that moves by `stride` elements."""
        if self.field_px is None or self.jump_px is None:
            return self
        return Reach(self.field_px + (kernel - 1) * self.jump_px, self.jump_px * stride)


WHOLE = Reach(None, None)


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    """Without the batch dimension."""
    num_params: int
    """Trainable parameters of its own, not of its parts; 0 from the second call of a shared layer on."""
    flops: int
    """Two per multiply-accumulate; convolutions and matrix products, as torch counts. Those of its parts are in their
    own rows."""
    receptive_field_px: int | None
    """None where every output has seen the whole tile."""
    jump_px: float | None
    """Input pixels between neighbouring outputs; None without neighbours, or if they do not differ in place."""


@dataclass(frozen=True)
class ModelDescription:
    """A network on one tile."""

    name: str
    tile_px: int
    in_chans: int
    num_outputs: int
    layers: tuple[LayerRow, ...]
    num_params: int
    """As `count_params`: the sum over the layers."""
    flops: int
    receptive_field_px: int | None
    """Of the last feature maps, those before pooling (or of the output maps of a dense network)."""
    min_size_px: int
    warnings: tuple[str, ...]


def describe(name: str, tile: int = 56, in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ModelDescription:
    """Table of a network's layers for square tiles of `tile` pixels.

    Parameters
    ----------
    name, in_chans, num_outputs, **kwargs
        As for `models.create_model`.
    tile
        Height and width of the tile [px].

    Returns
    -------
    ModelDescription
        With a warning if the last features of a network of one output per tile do not see the whole tile.

    Raises
    ------
    ValueError
        As `create_model`, or if the tile is smaller than the network accepts, or if it makes images: it has another
        part for each of its two uses.
    """
    if model_entry(name).gives == "image":
        raise ValueError(f"{name} makes images; its layers are not listed, see `lightpool models list` and models/")
    with torch.device("meta"):
        network = create_model(name, in_chans, num_outputs, **kwargs).eval()
        images = torch.empty(1, in_chans, tile, tile)
        scalars = torch.empty(1, kwargs["n_scalars"]) if kwargs.get("n_scalars") else None
    dense = model_entry(name).gives == "map"
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _ReachTracker(images) as tracker:
        rows, handles = _record_layers(network, tracker, counter)
        features = network.forward_features(images)
        outputs = network.forward_head(features, scalars)
    for handle in handles:
        handle.remove()
    reach = tracker.reach(outputs if dense else features)
    warnings = []
    all_that_is_seen = not dense and not network.head_reads_positions
    if all_that_is_seen and reach.field_px is not None and reach.field_px < tile:
        warnings.append(
            f"the last features of {name} see {reach.field_px:.0f} px, not the whole tile of {tile} px: take a smaller "
            "tile or a network of more layers or strides"
        )
    return ModelDescription(
        name=name,
        tile_px=tile,
        in_chans=in_chans,
        num_outputs=num_outputs,
        layers=tuple(rows),
        num_params=count_params(network),
        flops=counter.get_total_flops(),
        receptive_field_px=_whole_px(reach.field_px),
        min_size_px=network.min_size,
        warnings=tuple(warnings),
    )


def count_params(network: nn.Module) -> int:
    """Trainable parameters of a network in use: auxiliary heads are for the training alone."""
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not name.startswith("auxiliary.")
    )


def _whole_px(field_px: float | None) -> int | None:
    return None if field_px is None else round(field_px)


def _record_layers(
    network: nn.Module, tracker: "_ReachTracker", counter: FlopCounterMode
) -> tuple[list[LayerRow], list[Any]]:
    """Hook every layer that has no parts or parameters of its own; the rows fill up when the network is called."""
    rows: list[LayerRow] = []
    running: list[_Running] = []
    counted: set[int] = set()

    def enter(_layer: nn.Module, _inputs: tuple) -> None:
        running.append(_Running(counter.get_total_flops()))

    def leave(name: str) -> Callable:
        def hook(layer: nn.Module, inputs: tuple, output: Any) -> None:
            call = running.pop()
            flops = counter.get_total_flops() - call.flops_before
            if running:
                running[-1].flops_of_parts += flops
            maps = _tensors(output)[0]
            if isinstance(layer, PoolTo):
                tracker.set_reach(maps, _bins(tracker.reach(inputs[0]), layer.bins(inputs[0].shape[-1])))
            reach = tracker.reach(maps)
            own = [p for p in layer.parameters(recurse=False) if p.requires_grad and id(p) not in counted]
            counted.update(map(id, own))
            rows.append(
                LayerRow(
                    name=name,
                    kind=type(layer).__name__.removeprefix("_"),
                    output_shape=tuple(maps.shape[1:]),
                    num_params=sum(parameter.numel() for parameter in own),
                    flops=flops - call.flops_of_parts,
                    receptive_field_px=_whole_px(reach.field_px),
                    jump_px=reach.jump_px,
                )
            )

        return hook

    handles = []
    for name, layer in network.named_modules():
        is_part = not any(True for _ in layer.children()) and not isinstance(layer, nn.Identity | nn.Sequential)
        if is_part or any(True for _ in layer.parameters(recurse=False)):
            handles += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave(name))]
    return rows, handles


@dataclass
class _Running:
    """A layer between its call and its return."""

    flops_before: int
    flops_of_parts: int = 0


# ---- how each torch function changes the reach ----------------------------------------------------------------------
def _first(value: Any) -> Any:
    """Kernels and strides come as a number or per side; the table follows the first side, the height.

    Tiles are square, and a 1 x n kernel comes with an n x 1: one side is enough.
    """
    return value[0] if isinstance(value, tuple | list) else value


def _convolution(reach: Reach, args: Mapping[str, Any]) -> Reach:
    size = _first(tuple(args["weight"].shape[2:]))
    return reach.widen((size - 1) * _first(args.get("dilation", 1)) + 1, _first(args.get("stride", 1)))


def _transposed(reach: Reach, args: Mapping[str, Any]) -> Reach:
    """An output element sees ceil(kernel / stride) input elements."""
    stride = _first(args.get("stride", 1))
    seen = -(-_first(tuple(args["weight"].shape[2:])) // stride)
    return reach.widen(seen, 1 / stride)


def _pool(reach: Reach, args: Mapping[str, Any]) -> Reach:
    kernel = _first(args["kernel_size"])
    stride = args.get("stride")
    return reach.widen(kernel, _first(stride) if stride else kernel)


def _unshuffle(reach: Reach, args: Mapping[str, Any]) -> Reach:
    return reach.widen(args["downscale_factor"], args["downscale_factor"])


def _shuffle(reach: Reach, args: Mapping[str, Any]) -> Reach:
    return reach.widen(1, 1 / args["upscale_factor"])


def _slice(reach: Reach, args: Mapping[str, Any]) -> Reach:
    index = args["index"] if isinstance(args["index"], tuple) else (args["index"],)
    return reach.widen(1, max((part.step or 1 for part in index if isinstance(part, slice)), default=1))


def _mean(reach: Reach, args: Mapping[str, Any]) -> Reach:
    dims = args.get("dim", (-2, -1))
    dims = dims if isinstance(dims, tuple | list) else (dims,)
    return WHOLE if any(dim % args["input"].ndim >= 2 for dim in dims) else reach


def _flatten(reach: Reach, args: Mapping[str, Any]) -> Reach:
    """What reads a flattened map reads all its positions."""
    return WHOLE if args["input"].ndim == 4 and args["output"].ndim < 4 else reach


def _bins(reach: Reach, bins: Sequence[tuple[int, int]]) -> Reach:
    """Behind `PoolTo`: the widest of its bins counts, and the mean distance of their centres."""
    widest = max(stop - start for start, stop in bins)
    if len(bins) == 1:
        return replace(reach.widen(widest), jump_px=None)  # no neighbour
    return reach.widen(widest, (sum(bins[-1]) - sum(bins[0])) / 2 / (len(bins) - 1))


# Names of the positional arguments, and the rule. A function that is not here keeps the reach of its widest input: one
# that moves a window over pixels must be here.
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONV_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_POOL = ("input", "kernel_size", "stride")
_RULES: dict[Callable, tuple[tuple[str, ...], Callable[[Reach, Mapping[str, Any]], Reach]]] = {
    F.conv2d: (_CONV, _convolution),
    F.conv_transpose2d: (_CONV_TRANSPOSED, _transposed),
    F.max_pool2d: (_POOL, _pool),
    torch.max_pool2d: (_POOL, _pool),
    F.avg_pool2d: (_POOL, _pool),
    F.pixel_unshuffle: (("input", "downscale_factor"), _unshuffle),
    F.pixel_shuffle: (("input", "upscale_factor"), _shuffle),
    Tensor.__getitem__: (("input", "index"), _slice),
    Tensor.flatten: (("input",), _flatten),
    torch.flatten: (("input",), _flatten),
    Tensor.reshape: (("input",), _flatten),
    Tensor.view: (("input",), _flatten),
    Tensor.mean: (("input", "dim"), _mean),
    torch.mean: (("input", "dim"), _mean),
}


class _ReachTracker(TorchFunctionMode):
    """Carries a `Reach` along with every tensor that comes from the images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._reaches = {id(images): Reach(1.0, 1.0)}
        self._alive = [images]  # an id is unique only while its tensor lives

    def reach(self, tensor: Tensor) -> Reach:
        """What the elements of a tensor have seen; `WHOLE` for one that does not come from the images."""
        return self._reaches.get(id(tensor), WHOLE)

    def set_reach(self, tensor: Tensor, reach: Reach) -> None:
        self._reaches[id(tensor)] = reach
        self._alive.append(tensor)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        seen = [tensor for tensor in _tensors((args, kwargs)) if id(tensor) in self._reaches]
        if func in _PRODUCTS:
            seen = self._without_gates(seen)
        if seen:
            reach = _widest([self._reaches[id(tensor)] for tensor in seen])
            for tensor in _tensors(output):
                self.set_reach(tensor, self._behind(func, reach, args, kwargs, tensor))
        return output

    def _without_gates(self, factors: list[Tensor]) -> list[Tensor]:
        """Without those of one number per channel that all positions decide."""
        maps = [factor for factor in factors if self.reach(factor) != WHOLE or factor.shape[2:] != (1, 1)]
        return maps or factors

    @staticmethod
    def _behind(func: Callable, reach: Reach, args: tuple, kwargs: dict, output: Tensor) -> Reach:
        if func not in _RULES:
            return reach
        names, rule = _RULES[func]
        return rule(reach, dict(zip(names, args, strict=False)) | kwargs | {"output": output})


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


_PRODUCTS = {torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__}


def _widest(reaches: list[Reach]) -> Reach:
    """Where branches join, the widest field counts; branches that join have the same jump."""
    fields = [reach.field_px for reach in reaches]
    return WHOLE if None in fields else replace(reaches[0], field_px=max(fields))
