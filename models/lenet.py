"""LeNet-5, as published in 1998 and as it is taught today.

Layers of both, on the reference tile of 32 x 32 px: C1 6@28x28 (5x5), S2 6@14x14, C3 16@10x10 (5x5), S4 16@5x5,
C5 120@1x1 (5x5), F6 84, outputs. Parameters of the published form [1]: 156 + 12 + 1,516 + 32 + 48,120 + 10,164
= 60,000, the fixed output codes not counted; of the taught one: 156 + 2,416 + 48,120 + 10,164 + 850 = 61,706.

Departure from the paper: on a tile larger than 32 px, C5 stays the convolution that it is in [1] and its map is
averaged, so that any tile of 32 px or more is accepted.

References
----------
.. [1] LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document recognition",
   Proc. IEEE 86, 2278, section II.B and Appendix A.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import join_scalars, new_linear_like
from models.layers import ScaledTanh
from models.registry import register_model
from models.tile_model import FeatureInfo, TileModel

# [1], Table I: which of the six maps of S2 each of the sixteen maps of C3 sees.
C3_INPUTS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
C1_MAPS, C3_MAPS, C5_MAPS, F6_UNITS = 6, 16, 120, 84
MIN_SIZE = 32  # C5's 5x5 kernel needs a map of 5x5 behind S4


class SparseConv2d(nn.Module):
    """C3 of LeNet-5: a 5x5 convolution of which only the connections of Table I exist.

    Only those 60 kernels are parameters; the full kernel tensor is put together in each pass, zeros elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        n_kernels = sum(map(len, C3_INPUTS))
        self.kernels = nn.Parameter(torch.empty(n_kernels, 5, 5))
        self.bias = nn.Parameter(torch.empty(C3_MAPS))
        place = torch.full((C3_MAPS, C1_MAPS), n_kernels)  # the number of the zero kernel appended in `forward`
        kernel = 0
        for out_map, in_maps in enumerate(C3_INPUTS):
            for in_map in in_maps:
                place[out_map, in_map] = kernel
                kernel += 1
        self.register_buffer("place", place, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        zero = self.kernels.new_zeros(1, 5, 5)
        return F.conv2d(x, torch.cat([self.kernels, zero])[self.place], self.bias)


class Subsampling(nn.Module):
    """S2 and S4 of LeNet-5: the sum over 2x2 pixels times a trainable coefficient plus a trainable bias, per map."""

    def __init__(self, chans: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(chans, 1, 1))
        self.bias = nn.Parameter(torch.empty(chans, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.coefficient * (4 * F.avg_pool2d(x, 2)) + self.bias


class RbfOutput(nn.Module):
    """Euclidean RBF outputs with fixed codes ([1], Eq. 7), negated so that the greatest output is the answer.

    -|x - w_i|^2 as logits of a softmax is the criterion of [1], Eq. 9, but for its constant class.

    The paper draws its codes of +-1 as 7x12 bitmaps of the characters and names an error-correcting code as the
    alternative. A shower has no character: the codes are rows of Paley's Hadamard matrix of order 84 = 83 + 1, any two
    of which differ in exactly 42 places.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        if num_outputs > F6_UNITS:
            raise ValueError(f"RBF outputs of LeNet-5 have {F6_UNITS} codes, {num_outputs} were requested")
        self.register_buffer("codes", paley_hadamard(F6_UNITS - 1)[:num_outputs], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(2)


def paley_hadamard(prime: int) -> Tensor:
    """Hadamard matrix of order `prime` + 1 by Paley's first construction; `prime` is 3 modulo 4.

    References
    ----------
    .. [1] Paley (1933), J. Math. Phys. 12, 311.
    """
    squares = {value * value % prime for value in range(1, prime)}
    legendre = [0] + [1 if value in squares else -1 for value in range(1, prime)]
    order = prime + 1
    rows = [[1] * order]
    for i in range(prime):
        rows.append([-1] + [legendre[(j - i) % prime] + (i == j) for j in range(prime)])
    return torch.tensor(rows, dtype=torch.float32)


class LeNetHead(nn.Module):
    """F6 and the outputs; scalars join at the input of F6, which is the hidden layer that they need."""

    def __init__(self, num_outputs: int, n_scalars: int, act: nn.Module, output: str, drop_rate: float) -> None:
        super().__init__()
        self.n_scalars = n_scalars
        self.f6 = nn.Linear(C5_MAPS + n_scalars, F6_UNITS)
        self.act = act
        self.drop = nn.Dropout(drop_rate)
        self.output = RbfOutput(num_outputs) if output == "rbf" else nn.Linear(F6_UNITS, num_outputs)

    def forward(self, pooled: Tensor, scalars: Tensor | None = None) -> Tensor:
        joined = join_scalars(pooled, scalars, self.n_scalars)
        return self.output(self.drop(self.act(self.f6(joined))))

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer (RBF: use as many codes)."""
        if isinstance(self.output, RbfOutput):
            self.output = RbfOutput(num_outputs).to(self.output.codes.device)
        else:
            self.output = new_linear_like(self.output, num_outputs)


class _LeNet(TileModel):
    """The layers that both forms share: C1, S2, C3, S4, C5, each followed by the squashing function."""

    min_size = MIN_SIZE

    def __init__(self, in_chans: int, s2: nn.Module, c3: nn.Module, s4: nn.Module, head: LeNetHead) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.c1 = nn.Conv2d(in_chans, C1_MAPS, 5)
        self.s2 = s2
        self.c3 = c3
        self.s4 = s4
        self.c5 = nn.Conv2d(C3_MAPS, C5_MAPS, 5)
        self.act = head.act
        self.head = head
        self.feature_info = [
            FeatureInfo("s2", C1_MAPS, 2), FeatureInfo("s4", C3_MAPS, 4), FeatureInfo("c5", C5_MAPS, 4),
        ]  # fmt: skip


class LeNet5(_LeNet):
    """LeNet-5 of 1998: sparse C3, trainable subsampling, 1.7159 tanh(2x/3) after every layer up to F6.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    output
        ``rbf``: the paper's distances to fixed codes, for classes; ``linear``: a trained layer, for everything else
        (negated distances are never positive, which neither an energy nor the logit of a gammaness is).
    drop_rate
        Dropout before the outputs.
    n_scalars
        Scalars per tile joined at the input of F6.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        output: Literal["rbf", "linear"] = "linear",
        drop_rate: float = 0.0,
        n_scalars: int = 0,
    ) -> None:
        if output not in ("rbf", "linear"):
            raise ValueError(f"output of lenet5 must be one of rbf, linear, got {output!r}")
        head = LeNetHead(num_outputs, n_scalars, ScaledTanh(), output, drop_rate)
        super().__init__(in_chans, Subsampling(C1_MAPS), SparseConv2d(), Subsampling(C3_MAPS), head)
        self._init_weights()

    def _init_weights(self) -> None:
        """Uniform within 2.4 / fan-in ([1], Appendix A), biases included."""
        c3_fan_in = torch.tensor([25.0 * len(in_maps) for in_maps in C3_INPUTS for _ in in_maps])
        with torch.no_grad():
            for layer in (self.c1, self.c5, self.head.f6, self.head.output):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    _uniform(2.4 / layer.weight[0].numel(), layer.weight, layer.bias)
            for layer in (self.s2, self.s4):
                _uniform(2.4 / 4, layer.coefficient, layer.bias)
            _uniform(2.4, self.c3.kernels, self.c3.bias)
            self.c3.kernels /= c3_fan_in.to(self.c3.kernels.device)[:, None, None]
            self.c3.bias /= torch.tensor([25.0 * len(in_maps) for in_maps in C3_INPUTS]).to(self.c3.bias.device)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        x = self.act(self.s2(self.act(self.c1(x))))
        x = self.act(self.s4(self.act(self.c3(x))))
        return self.act(self.c5(x))


def _uniform(limit: float, *parameters: Tensor) -> None:
    for parameter in parameters:
        nn.init.uniform_(parameter, -limit, limit)


class LeNet5Modern(_LeNet):
    """LeNet-5 as it is taught: dense C3, plain tanh and average pooling, linear outputs.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    drop_rate
        Dropout before the outputs.
    n_scalars
        Scalars per tile joined at the input of F6.
    """

    def __init__(self, in_chans: int = 1, num_outputs: int = 1, *, drop_rate: float = 0.0, n_scalars: int = 0) -> None:
        head = LeNetHead(num_outputs, n_scalars, nn.Tanh(), "linear", drop_rate)
        super().__init__(in_chans, nn.AvgPool2d(2), nn.Conv2d(C1_MAPS, C3_MAPS, 5), nn.AvgPool2d(2), head)
        for layer in (self.c1, self.c3, self.c5, self.head.f6):
            nn.init.xavier_uniform_(layer.weight)  # Glorot & Bengio (2010), Eq. 16: for tanh, where He's is for ReLU
            nn.init.zeros_(layer.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        x = self.s2(self.act(self.c1(x)))
        x = self.s4(self.act(self.c3(x)))
        return self.act(self.c5(x))


_PAPER = "doi:10.1109/5.726791"


@register_model(paper=_PAPER, ref={"in_chans": 1, "num_outputs": 10, "output": "rbf"}, num_params=60_000)
def lenet5(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> LeNet5:
    """LeNet-5 of 1998: sparse C3, trainable subsampling, RBF outputs if asked for."""
    return LeNet5(in_chans, num_outputs, **kwargs)


@register_model(paper=_PAPER, ref={"in_chans": 1, "num_outputs": 10}, num_params=61_706)
def lenet5_modern(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> LeNet5Modern:
    """LeNet-5 as it is taught: dense C3, tanh, average pooling, linear outputs."""
    return LeNet5Modern(in_chans, num_outputs, **kwargs)
