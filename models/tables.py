"""Networks written as tables: steps, the modules that they describe, and the network that runs them block by block.

The papers of VGG, NiN, GoogLeNet and the Inception networks define them by tables and diagrams of layers. A family's
file holds such a table; what is here turns it into modules and reads off it what follows from it: the strides, the
smallest tile, the levels of features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from models.heads import new_linear_like
from models.layers import DropChannels, PoolTo
from models.tile_model import AuxOutputs, FeatureInfo, TileModel

Padding = Literal["same", "valid", "ceil"]
"""``same``: size / stride, rounded up (of an odd kernel); ``valid``: windows inside the map only, as many as fit;
``ceil`` (pooling only): windows start inside the map and the last may reach beyond it, as in Caffe."""


@dataclass(frozen=True)
class Conv:
    """Convolution, normalisation if the network has any, ReLU."""

    chans: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding = "same"
    groups: int = 1


@dataclass(frozen=True)
class Separable:
    """Convolution of each channel by itself to `multiplier` maps, then a 1x1 `Conv` over all of them."""

    chans: int
    kernel: int
    stride: int
    multiplier: int
    padding: Padding = "same"


@dataclass(frozen=True)
class Pool:
    """Maximum or average under a sliding window; an average counts the padding only with `count_padding`."""

    kind: Literal["max", "avg"]
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    count_padding: bool = False


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation over `size` neighbouring maps: x / (k + alpha * sum of squares) ** beta."""

    alpha: float
    size: int = 5
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Drop:
    """Dropout of single elements, or of whole maps."""

    rate: float
    channels: bool = False


@dataclass(frozen=True)
class Fork:
    """Parallel branches, their maps one after the other."""

    branches: tuple["Steps", ...]


@dataclass(frozen=True)
class Residual:
    """x + scale * branches(x), the branches joined by a linear 1x1 convolution; then ReLU, if not the last."""

    branches: tuple["Steps", ...]
    scale: float
    relu: bool = True


Step = Conv | Separable | Pool | Lrn | Drop | Fork | Residual
Steps = tuple[Step, ...]


class Branches(nn.Module):
    """Parallel branches over the same maps, their outputs one after the other."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class ScaledResidual(nn.Module):
    """x + scale * residual(x), then ReLU if `relu` is set."""

    def __init__(self, residual: nn.Sequential, scale: float, relu: bool) -> None:
        super().__init__()
        self.residual = residual
        self.scale = scale
        self.act = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.scale * self.residual(x))

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class Assembler:
    """Turns steps into modules.

    Parameters
    ----------
    scale
        From the table's number of channels to the one that is built.
    batch_norm_eps
        Epsilon of the batch normalisation behind every convolution; None for no normalisation.
    bias
        Whether convolutions have biases.
    pad_all
        Pad where the table has ``valid`` or ``ceil``, too: for small tiles, of which unpadded layers leave nothing.
    """

    def __init__(
        self,
        scale: Callable[[int], int] = int,
        *,
        batch_norm_eps: float | None = None,
        bias: bool = True,
        pad_all: bool = False,
    ) -> None:
        self.scale = scale
        self.batch_norm_eps = batch_norm_eps
        self.bias = bias
        self.pad_all = pad_all

    def assemble(self, steps: Steps, in_chans: int) -> tuple[nn.Module, int]:
        """The steps one after the other, and the channels that come out."""
        layers, chans = [], in_chans
        for step in steps:
            made, chans = self._layers(step, chans)
            layers += made
        return (layers[0] if len(layers) == 1 else nn.Sequential(*layers)), chans

    def _layers(self, step: Step, in_chans: int) -> tuple[list[nn.Module], int]:
        match step:
            case Conv():
                return self._convolution(step, in_chans)
            case Separable(_, kernel, stride, multiplier):
                chans = in_chans * multiplier
                padding = _half(kernel) if self._padded(step) else 0
                depthwise = nn.Conv2d(in_chans, chans, kernel, stride, padding, groups=in_chans, bias=False)
                pointwise, out_chans = self._convolution(Conv(step.chans), chans)
                return [depthwise, *pointwise], out_chans
            case Pool():
                return [self._pooling(step)], in_chans
            case Lrn(alpha, size, beta, k):
                return [nn.LocalResponseNorm(size, size * alpha, beta, k)], in_chans  # torch divides alpha by size
            case Drop(rate, channels):
                return [DropChannels(rate) if channels else nn.Dropout(rate)], in_chans
            case Fork(branches):
                made, out_chans = self._branches(branches, in_chans)
                return [made], out_chans
            case Residual(branches, scale, relu):
                made, chans = self._branches(branches, in_chans)
                residual = nn.Sequential(made, nn.Conv2d(chans, in_chans, 1))
                return [ScaledResidual(residual, scale, relu)], in_chans

    def _convolution(self, step: Conv, in_chans: int) -> tuple[list[nn.Module], int]:
        chans = self.scale(step.chans)
        sides = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
        padding = tuple(map(_half, sides)) if self._padded(step) else 0
        layers: list[nn.Module] = [
            nn.Conv2d(in_chans, chans, sides, step.stride, padding, groups=step.groups, bias=self.bias)
        ]
        if self.batch_norm_eps is not None:
            layers.append(nn.BatchNorm2d(chans, self.batch_norm_eps))
        return [*layers, nn.ReLU(inplace=True)], chans

    def _pooling(self, step: Pool) -> nn.Module:
        padded = self._padded(step)
        padding, ceil = _half(step.kernel) if padded else 0, step.padding == "ceil" and not padded
        if step.kind == "max":
            return nn.MaxPool2d(step.kernel, step.stride, padding, ceil_mode=ceil)
        return nn.AvgPool2d(step.kernel, step.stride, padding, ceil, count_include_pad=step.count_padding)

    def _branches(self, branches: Sequence[Steps], in_chans: int) -> tuple[Branches, int]:
        made, chans = zip(*(self.assemble(steps, in_chans) for steps in branches), strict=True)
        return Branches(made), sum(chans)

    def _padded(self, step: Conv | Separable | Pool) -> bool:
        return self.pad_all or step.padding == "same"

    def side_behind(self, steps: Steps, side: int) -> int:
        """Height of the map behind the steps, for an input of height `side`; 0 or less where nothing is left."""
        for step in steps:
            if isinstance(step, Fork | Residual):
                side = min(self.side_behind(branch, side) for branch in step.branches)
            elif isinstance(step, Conv | Separable | Pool):
                kernel = step.kernel if isinstance(step.kernel, int) else max(step.kernel)
                if self._padded(step):
                    side = (side + 2 * _half(kernel) - kernel) // step.stride + 1
                elif step.padding == "ceil":
                    side = -(-(side - kernel) // step.stride) + 1
                else:
                    side = (side - kernel) // step.stride + 1
            if side < 1:
                break
        return side


def _half(kernel: int) -> int:
    """Padding that keeps the size at stride 1, of an odd kernel."""
    return (kernel - 1) // 2


def total_stride(steps: Steps) -> int:
    """Input elements per output element along one side."""
    return prod(
        total_stride(step.branches[0]) if isinstance(step, Fork | Residual) else getattr(step, "stride", 1)
        for step in steps
    )


class TableNetwork(TileModel):
    """Blocks of steps one after the other; the family adds the head, and auxiliary heads if it has any.

    Parameters
    ----------
    in_chans
        Channels of the tiles.
    table
        The steps of each block under the block's name.
    assembler
        Turns them into modules.

    Attributes
    ----------
    blocks : nn.Sequential
        The blocks under their names.
    num_features : int
        Channels of the last maps.
    auxiliary : nn.ModuleDict
        Auxiliary heads under the names of the blocks whose maps they read. If any exist, the network gives
        `AuxOutputs` in training.
    """

    def __init__(self, in_chans: int, table: Mapping[str, Steps], assembler: Assembler) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.blocks = nn.Sequential()
        self.auxiliary = nn.ModuleDict()
        levels, chans, reduction = [], in_chans, 1
        for name, steps in table.items():
            block, chans = assembler.assemble(steps, chans)
            self.blocks.add_module(name, block)
            reduction *= total_stride(steps)
            levels.append(FeatureInfo(f"blocks.{name}", chans, reduction))
        self.num_features = chans
        # a level ends where the next block reduces the size
        self.feature_info = [level for level, after in pairwise(levels) if after.reduction > level.reduction]
        self.feature_info.append(levels[-1])

        steps = tuple(step for block in table.values() for step in block)
        # Below the total stride, the last map would be made of padding for the greater part; without padding, a larger
        # tile is needed for a map to be left at all.
        self.min_size = next(side for side in range(reduction, 10_000) if assembler.side_behind(steps, side) >= 1)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.blocks(x)

    def forward(self, x: Tensor, scalars: Tensor | None = None) -> Tensor | AuxOutputs:
        if not (self.training and len(self.auxiliary)):
            return super().forward(x, scalars)
        self.check_tile(x)
        auxiliary = []
        for name, block in self.blocks.named_children():
            x = block(x)
            if name in self.auxiliary:
                auxiliary.append(self.auxiliary[name](x))
        return AuxOutputs(self.forward_head(x, scalars), tuple(auxiliary))

    def reset_head(self, num_outputs: int) -> None:
        """Draw new last layers, of the auxiliary heads too; what is before them keeps its weights."""
        super().reset_head(num_outputs)
        for head in self.auxiliary.values():
            head.output = new_linear_like(head.output, num_outputs)


class AuxPool(nn.Module):
    """Average pooling 5x5 of stride 3, as the auxiliary heads of GoogLeNet and Inception-v3 begin, to a fixed size.

    On the paper's map (14 and 17 px) the pooling alone gives that size (4 and 5 px). The second step serves all others,
    alone where the map is smaller than the window.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.window = nn.AvgPool2d(5, 3, ceil_mode=True)
        self.pool = PoolTo(side, "avg")

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.window(x) if min(x.shape[2:]) >= 5 else x)


def check_choice(network: str, argument: str, value: str, accepted: Sequence[str]) -> None:
    """Refuse a value that is not among the accepted ones.

    Raises
    ------
    ValueError
        Naming the argument, the value and what is accepted.
    """
    if value not in accepted:
        raise ValueError(f"{argument} of {network} must be one of {', '.join(accepted)}, got {value!r}")


def check_width(network: str, width: int) -> None:
    """Refuse a width below 1.

    Raises
    ------
    ValueError
        Naming the width.
    """
    if width < 1:
        raise ValueError(f"width of {network} must be at least 1, got {width}")
