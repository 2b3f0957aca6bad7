"""The interface of a network with one vector of outputs per tile."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureInfo:
    """One level of features, for use of a network as an encoder (timm's `feature_info`)."""

    module: str
    """Name of the submodule whose output it is (`Module.get_submodule`)."""
    num_chs: int
    reduction: int
    """Input pixels per feature pixel along one side."""


class AuxOutputs(NamedTuple):
    """What a network with auxiliary heads gives in training; in evaluation it gives the main outputs alone."""

    main: Tensor
    auxiliary: tuple[Tensor, ...]


class TileModel(nn.Module):
    """A network with one vector of outputs per tile.

    A family defines `forward_features`, and sets the attributes below in its constructor.

    Attributes
    ----------
    in_chans : int
        Channels of the input.
    min_size : int
        Smallest height and width of a tile; below it the network refuses with a message that names it.
    feature_info : list of FeatureInfo
        The levels of features, finest first.
    head : nn.Module
        Called with the pooled features and the scalars; has ``reset(num_outputs)``.
    head_reads_positions : bool
        Whether fully connected layers read the last maps, so that what one element of these maps sees of the tile is
        not all that the outputs see.
    """

    in_chans: int
    min_size: int
    feature_info: list[FeatureInfo]
    head: nn.Module
    head_reads_positions: bool = False

    def forward_features(self, x: Tensor) -> Tensor:
        """Tiles (N, C, H, W) to the last feature maps (N, F, h, w)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, scalars: Tensor | None = None) -> Tensor:
        """Feature maps (N, F, h, w), and scalars (N, n_scalars) if it takes any, to outputs (N, num_outputs)."""
        return self.head(features.mean((2, 3)), scalars)

    def forward(self, x: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x), scalars)

    def reset_head(self, num_outputs: int) -> None:
        """Draw a new last layer with `num_outputs` outputs; what is before it keeps its weights (transfer learning)."""
        self.head.reset(num_outputs)

    def check_tile(self, x: Tensor) -> None:
        """Refuse tiles that the network cannot take.

        Raises
        ------
        ValueError
            For another number of channels or a tile smaller than `min_size`.
        """
        if torch.compiler.is_compiling():  # in an exported graph a test of the shape would freeze it
            return
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"{name} was built for tiles (N, {self.in_chans}, H, W), got {tuple(x.shape)}")
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f"a tile of {x.shape[2]} x {x.shape[3]} px is too small for {name}; the smallest is {self.min_size} px"
            )
