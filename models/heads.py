"""From the last features to the outputs: heads with joined scalars."""

import torch
from torch import Tensor, nn

from models.layers import PoolTo


class Head(nn.Module):
    """Pooled features, joined by scalars if given, to outputs.

    Without scalars it is the one linear layer of the papers. Scalars pass two layers of their own, and a hidden layer
    follows the join: the meaning of a length depends on the size and the distance that come with it, and on what the
    convolutions saw. (Joined bare, they are learned far slower than by a network of their own.)

    Parameters
    ----------
    num_features
        Length of the pooled feature vector.
    num_outputs
        Length of the output vector.
    n_scalars
        Length of the vector of scalars; they should come standardised (mean 0, rms 1).
    hidden
        Width of the scalars' layers and of the one after the join.
    drop_rate
        Probability with which an input of the last layer is dropped in training.

    Raises
    ------
    ValueError
        If `n_scalars` is negative, or hidden layers have no units: their outputs would not depend on the image.
    """

    def __init__(
        self, num_features: int, num_outputs: int, n_scalars: int = 0, hidden: int = 64, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        if n_scalars < 0 or hidden < 1:
            raise ValueError(
                f"n_scalars must be at least 0 and scalars_hidden at least 1, got {n_scalars} and {hidden}"
            )
        self.n_scalars = n_scalars
        self.embed, self.join = nn.Sequential(), nn.Sequential()
        if n_scalars:
            self.embed = nn.Sequential(*_linear_relu(n_scalars, hidden), *_linear_relu(hidden, hidden))
            self.join = nn.Sequential(*_linear_relu(num_features + hidden, hidden))
        self.drop = nn.Dropout(drop_rate)
        self.output = nn.Linear(hidden if n_scalars else num_features, num_outputs)

    def forward(self, pooled: Tensor, scalars: Tensor | None = None) -> Tensor:
        check_scalars(scalars, self.n_scalars)
        if scalars is not None:
            pooled = torch.cat([pooled, self.embed(scalars.to(pooled.dtype))], dim=1)
        return self.output(self.drop(self.join(pooled)))

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer."""
        self.output = new_linear_like(self.output, num_outputs)


def _linear_relu(num_inputs: int, num_outputs: int) -> list[nn.Module]:
    linear = nn.Linear(num_inputs, num_outputs)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return [linear, nn.ReLU()]


def check_scalars(scalars: Tensor | None, n_scalars: int) -> None:
    """Refuse scalars that a network was not built for.

    Raises
    ------
    ValueError
        If they are missing, not expected, or of another number.
    """
    got = 0 if scalars is None else scalars.shape[-1]
    if got != n_scalars:
        raise ValueError(f"the network was built for {n_scalars} scalars per tile, got {got}")


def join_scalars(pooled: Tensor, scalars: Tensor | None, n_scalars: int) -> Tensor:
    """Pooled features (N, F) and scalars (N, n_scalars) side by side.

    Raises
    ------
    ValueError
        If scalars are missing, not expected, or of another number.
    """
    check_scalars(scalars, n_scalars)
    if scalars is None:
        return pooled
    return torch.cat([pooled, scalars.to(pooled.dtype)], dim=1)


def new_linear_like(old: nn.Linear, num_outputs: int) -> nn.Linear:
    """A freshly drawn linear layer with the inputs, device and type of another one."""
    return nn.Linear(old.in_features, num_outputs, device=old.weight.device, dtype=old.weight.dtype)


class DenseHead(nn.Module):
    """Head of AlexNet and VGG: the last maps at a fixed size, two hidden layers, outputs.

    Parameters
    ----------
    in_chans
        Channels of the maps.
    pool
        Brings them to their size, so that a tile of any size fits the first layer.
    hidden
        Width of the two hidden layers; dropout follows each of them.
    num_outputs, n_scalars, scalars_hidden, drop_rate
        As for `Head`, which follows.
    """

    def __init__(
        self,
        in_chans: int,
        pool: PoolTo,
        hidden: int,
        num_outputs: int,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        self.pool = pool
        first = _linear_relu(in_chans * pool.side**2, hidden)
        self.hidden = nn.Sequential(*first, nn.Dropout(drop_rate), *_linear_relu(hidden, hidden))
        self.head = Head(hidden, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward(self, maps: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(self.pool(maps).flatten(1)), scalars)

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer."""
        self.head.reset(num_outputs)
