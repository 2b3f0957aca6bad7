"""Multilayer perceptron: every pixel to every hidden unit, the yardstick that a convolution has to beat.

Parameters of the reference, 784 pixels, 1000 hidden units, 10 outputs [1]: 785,000 + 10,010 = 795,010. The deep ones
of [2] are the `hidden` (2500, 2000, 1500, 1000, 500) at a `grid` of 29, and so on.

Departures from the papers: a tile is averaged to a grid of fixed size first (nothing to do where it has that size), so
that any tile of `grid` pixels or more is accepted; ReLU instead of the squashing function, which `act` brings back.

References
----------
.. [1] LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document recognition",
   Proc. IEEE 86, 2278, section III.C: 28x28-1000-10, 4.5 % on MNIST.
.. [2] Ciresan, Meier, Gambardella, Schmidhuber (2010), "Deep big simple neural nets excel on handwritten digit
   recognition", arXiv:1003.0358, Table 1.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from models.heads import Head
from models.layers import PoolTo, RandomisedLeakyReLU, ScaledTanh
from models.registry import register_model
from models.tables import check_choice
from models.tile_model import TileModel

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "rrelu": RandomisedLeakyReLU,
    "tanh": nn.Tanh,
    "scaled_tanh": ScaledTanh,
}


class Mlp(TileModel):
    """Fully connected layers over the pixels.

    `forward_features` gives the last hidden layer as maps of one pixel; `feature_info` is empty, for no layer
    keeps the positions.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    hidden
        Widths of the hidden layers.
    grid
        Height and width that a tile is averaged to before the first layer.
    act
        ``relu``, ``rrelu`` (`RandomisedLeakyReLU`), ``tanh`` or ``scaled_tanh`` (1.7159 tanh(2x/3), that of both
        papers).
    drop_rate
        Dropout behind every hidden layer.
    n_scalars
        Scalars per tile joined to the last hidden layer.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        hidden: Sequence[int] = (1000,),
        grid: int = 28,
        act: Literal["relu", "rrelu", "tanh", "scaled_tanh"] = "relu",
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        check_choice("an MLP", "act", act, tuple(ACTIVATIONS))
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden of an MLP are the widths of its hidden layers, each at least 1, got {hidden}")
        if grid < 1:
            raise ValueError(f"grid of an MLP must be at least 1, got {grid}")
        self.in_chans = in_chans
        self.min_size = grid
        self.feature_info = []
        self.pool = PoolTo(grid, "avg")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((in_chans * grid**2, *hidden)):
            linear = nn.Linear(inputs, outputs)
            if act in ("relu", "rrelu"):
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(linear.weight)  # Glorot & Bengio (2010), Eq. 16: for tanh
            nn.init.zeros_(linear.bias)
            layers += [linear, ACTIVATIONS[act](), nn.Dropout(drop_rate)]
        self.hidden = nn.Sequential(*layers[:-1])  # the head drops the last layer's units
        self.head = Head(hidden[-1], num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.hidden(self.pool(x).flatten(1))[:, :, None, None]


@register_model(paper="doi:10.1109/5.726791", ref={"in_chans": 1, "num_outputs": 10}, num_params=795_010)
def mlp(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Mlp:
    """Multilayer perceptron, one hidden layer of 1000 units."""
    return Mlp(in_chans, num_outputs, **kwargs)
