"""Fractal networks: columns of different depth that meet in joins, trained with drop-path, without any shortcut.

f_1(z) = conv(z) and f_{C+1}(z) = join(f_C(f_C(z)), conv(z)): a block of C columns is 2^(C-1) convolutions deep, and its
c-th column consists of 2^(c-1) convolutions, each of which is 3x3, normalisation, ReLU ([1], section 2). A join is
the mean of its inputs. Each block ends with 2x2 max pooling, of each column before the last join (the order in [2]).
`fractalnet20` is five blocks of three columns with 64, 128, 256, 512 and 512 channels: 20 convolutions on the longest
way, 5 on the shortest.

Drop-path ([1], section 3) is drawn in training for the whole mini-batch. Locally, each join drops its inputs with
probability 0.15 and keeps at least one; globally, one column is used through the whole net. Half of the mini-batches
are of either kind. Joins take the mean of the survivors. In evaluation all paths are used, with the plain mean.

Drop-path needs long training. The means and variances of the normalisations are gathered under it,
and after few steps they do not suit the mean of all paths: of scikit-learn's digits (48 px, `width=8`,
`factors=(1, 2, 4)`, `stem="stride2"`, no dropout), 49 % are right after 132 steps of 64, and 93 % with statistics
gathered again without drop-path; after 264 steps 96 % and 98 %. With `global_share=0` it is 97.5 % after 132 steps,
without any drop-path 99.5 %.

Parameters with c input channels, n outputs, B blocks of w_b channels (w_0 = c), C columns and m = 2^C - 1 - C::

    sum over blocks of 9 C w_{b-1} w_b + 9 m w_b^2 + 2 (C + m) w_b,    and (w_B + 1) n

They give 33,724,618 for the reference form (3 channels, 10 outputs), which the network written by the author's
generator [2] has, too. The 38.6 M that are quoted for FractalNet ([3], Table 2) follow from neither.

Departures from the paper:

- the head pools whatever map arrives, so that any tile of `min_size` or more is accepted;
- `stem="stride2"` is for small machines: the first block otherwise runs at full resolution;
- a dropped path is computed and multiplied by zero, so that every parameter has a gradient in every step (zero when
  dropped) and compiled code needs no second version.

References
----------
.. [1] Larsson, Maire, Shakhnarovich (2017), "FractalNet: ultra-deep neural networks without residuals",
   arXiv:1605.07648.
.. [2] https://github.com/gustavla/fractalnet, generation/fractalnet.py and globals.crox.
.. [3] Huang, Liu, van der Maaten, Weinberger (2017), "Densely connected convolutional networks", arXiv:1608.06993.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.heads import Head
from models.layers import conv_bn
from models.registry import register_model
from models.tile_model import FeatureInfo, TileModel

STEMS = ("none", "stride2")


class PathDraw(NamedTuple):
    """What is drawn once for a mini-batch."""

    is_global: Tensor
    """Whether one column is used through the whole net."""
    column: Tensor
    """One-hot, shape (columns,): which one, if so."""


def surviving_paths(n_paths: int, drop_rate: float, device: torch.device | None = None) -> Tensor:
    """Weights of the paths that meet in a join, after dropping some: equal for the survivors, sum 1.

    Parameters
    ----------
    n_paths
        Number of paths.
    drop_rate
        Probability with which each is dropped. If that hits them all, one drawn at random survives.
    device
        Where to draw.

    Returns
    -------
    Tensor, shape (n_paths,)

    References
    ----------
    .. [1] Larsson, Maire, Shakhnarovich (2017), "FractalNet", arXiv:1605.07648, section 3 (local drop-path).
    """
    draw = torch.rand(n_paths, device=device)
    survives = (draw >= drop_rate) | (draw == draw.max())
    return survives / survives.sum()


class FractalUnit(nn.Sequential):
    """Convolution, dropout, normalisation, ReLU, in the order of [2]."""

    def __init__(self, in_chans: int, out_chans: int, drop_rate: float, stride: int = 1) -> None:
        convolution, norm = conv_bn(in_chans, out_chans, 3, stride)
        dropout = [nn.Dropout(drop_rate)] if drop_rate else []
        super().__init__(convolution, *dropout, norm, nn.ReLU(inplace=True))


class FractalBlock(nn.Module):
    """One fractal of several columns ([1], Fig. 1), which halves the size at its end.

    Parameters
    ----------
    in_chans, out_chans
        Channels of its input, and of every convolution.
    n_columns
        Number of columns; the first is the shallowest.
    local_drop_rate
        Probability with which local drop-path drops an input of a join.
    drop_rate
        Dropout of every convolution.
    """

    def __init__(self, in_chans: int, out_chans: int, n_columns: int, local_drop_rate: float, drop_rate: float) -> None:
        super().__init__()
        self.local_drop_rate = local_drop_rate
        self.columns = nn.ModuleList(
            nn.Sequential(
                *(FractalUnit(out_chans if place else in_chans, out_chans, drop_rate) for place in range(2**column))
            )
            for column in range(n_columns)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor, drawn: PathDraw | None = None) -> Tensor:
        n_columns = len(self.columns)
        states = [x] * n_columns
        length = 2 ** (n_columns - 1)
        for step in range(1, length + 1):
            ending = [column for column in range(n_columns) if step % (length >> column) == 0]
            for column in ending:
                states[column] = self.columns[column][step // (length >> column) - 1](states[column])
                if step == length:
                    states[column] = self.pool(states[column])
            joined = self._join([states[column] for column in ending], drawn)
            for column in ending:
                states[column] = joined
        return states[0]

    def _join(self, paths: list[Tensor], drawn: PathDraw | None) -> Tensor:
        """Mean of the surviving paths; they come from the deepest columns."""
        if drawn is None or len(paths) == 1:
            return sum(paths[1:], paths[0]) / len(paths)
        weights = surviving_paths(len(paths), self.local_drop_rate, paths[0].device)
        column = drawn.column[-len(paths) :]
        # A join that the drawn column does not pass continues as in local drop-path. Its result reaches no output, but
        # zeros would enter the running means of the normalisations behind it.
        weights = torch.where(drawn.is_global & column.any(), column.to(weights.dtype), weights)
        return sum(path * weight for path, weight in zip(paths[1:], weights[1:], strict=True)) + paths[0] * weights[0]


class FractalNet(TileModel):
    """Fractal network ([1], section 4).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    columns
        Columns per block; a block is 2^(columns - 1) convolutions deep.
    width
        Channels of the first block.
    factors
        Channels of the blocks in units of `width`; their number is the number of blocks, each of which halves the size.
    stem
        ``none``: the first block reads the image; ``stride2``: a convolution of stride 2 comes before it, which takes a
        quarter of the operations and doubles the smallest tile (fewer `factors` lower it).
    local_drop_rate
        Probability with which local drop-path drops an input of a join.
    global_share
        Share of the mini-batches with global drop-path. With 0, and a local drop rate of 0, there is no drop-path.
    block_drop_rate
        Dropout of the convolutions in the last block; it rises linearly from 0 in the first.
    drop_rate
        Dropout before the last layer.
    n_scalars
        Scalars per tile joined to the pooled features.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        columns: int = 3,
        width: int = 64,
        factors: Sequence[int] = (1, 2, 4, 8, 8),
        stem: Literal["none", "stride2"] = "none",
        local_drop_rate: float = 0.15,
        global_share: float = 0.5,
        block_drop_rate: float = 0.4,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        for argument, value in (("columns", columns), ("width", width)):
            if value < 1:
                raise ValueError(f"{argument} of a FractalNet must be at least 1, got {value}")
        if not factors or min(factors) < 1:
            raise ValueError(f"factors of a FractalNet are the widths of its blocks, each at least 1, got {factors}")
        if stem not in STEMS:
            raise ValueError(f"stem of a FractalNet must be one of {', '.join(STEMS)}, got {stem!r}")
        for argument, value in (("local_drop_rate", local_drop_rate), ("block_drop_rate", block_drop_rate)):
            if not 0 <= value < 1:
                raise ValueError(f"{argument} of a FractalNet must be in [0, 1), got {value}")
        if not 0 <= global_share <= 1:
            raise ValueError(f"global_share of a FractalNet must be in [0, 1], got {global_share}")
        self.in_chans = in_chans
        self.n_columns = columns
        self.global_share = global_share
        self.drop_path = bool(local_drop_rate or global_share)
        self.stem = nn.Sequential()
        self.blocks = nn.ModuleList()
        self.feature_info = []
        chans, reduction = in_chans, 1
        if stem == "stride2":
            self.stem.append(FractalUnit(in_chans, width, drop_rate=0.0, stride=2))
            chans, reduction = width, 2
        for index, factor in enumerate(factors):
            dropout = block_drop_rate * index / max(len(factors) - 1, 1)
            self.blocks.append(FractalBlock(chans, width * factor, columns, local_drop_rate, dropout))
            chans = width * factor
            reduction *= 2
            self.feature_info.append(FeatureInfo(f"blocks.{index}", chans, reduction))
        self.min_size = reduction
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)  # [2], globals.crox
        self.head = Head(chans, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        drawn = self._draw_paths(x.device) if self.training and self.drop_path else None
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, drawn)
        return x

    def _draw_paths(self, device: torch.device) -> PathDraw:
        is_global = torch.rand((), device=device) < self.global_share
        column = torch.arange(self.n_columns, device=device) == torch.randint(self.n_columns, (), device=device)
        return PathDraw(is_global, column)


@register_model(paper="arXiv:1605.07648", ref={"in_chans": 3, "num_outputs": 10}, num_params=33_724_618)
def fractalnet20(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> FractalNet:
    """FractalNet of 20 layers for CIFAR: five blocks of three columns (section 4)."""
    return FractalNet(in_chans, num_outputs, **kwargs)
