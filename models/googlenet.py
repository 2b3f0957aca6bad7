"""GoogLeNet: nine modules of parallel 1x1, 3x3, 5x5 convolutions and pooling.

Parameters from Table 1 of [1], every convolution with a bias and no batch normalisation: 6,998,552, and 13,378,280
with both auxiliary heads (3,188,840 behind 4a, 3,190,888 behind 4d). torchvision's network of that name has 3x3
instead of 5x5 kernels, batch normalisation and no response normalisation: 6,624,904.

Departures from the paper: the head averages whatever map arrives, and the auxiliary heads bring theirs to 4x4, so that
any tile of 32 px or more is accepted; He et al.'s initialisation (the paper does not name one). The paper names no
constants of the response normalisation of its Fig. 3: they are those of the public Caffe model [2], as is the rule
that poolings may reach beyond the map. `stem="small"` and `width` are for small tiles.

References
----------
.. [1] Szegedy et al. (2015), "Going deeper with convolutions", arXiv:1409.4842, Table 1 and Fig. 3.
.. [2] https://github.com/BVLC/caffe, models/bvlc_googlenet/train_val.prototxt.
"""

from typing import Any, Literal

from torch import Tensor, nn

from models.heads import Head
from models.layers import init_he_normal, scaled_chans
from models.registry import register_model
from models.tables import (
    Assembler,
    AuxPool,
    Conv,
    Fork,
    Lrn,
    Pool,
    Steps,
    TableNetwork,
    check_choice,
    check_width,
)

STEMS = ("paper", "small")
BASE_WIDTH = 64
# [1], Table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool proj. Channels that come out: 256, 480, 512, 512, 512, 528,
# 832, 832, 1024.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUX_BEHIND = ("4a", "4d")
AUX_CHANS, AUX_HIDDEN, AUX_SIDE, AUX_DROP_RATE = 128, 1024, 4, 0.7  # [1], section 5
RESPONSE_NORM = Lrn(alpha=1e-4 / 5)  # [2]: 1e-4, which Caffe divides by the size


class GoogLeNetAux(nn.Module):
    """Auxiliary head: average pooling to 4x4, a 1x1 convolution, a hidden layer, dropout, outputs ([1], section 5).

    Parameters
    ----------
    in_chans
        Channels of the maps.
    chans, hidden
        Channels of the 1x1 convolution, width of the hidden layer.
    num_outputs
        Length of the output vector.
    """

    def __init__(self, in_chans: int, chans: int, hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(AuxPool(AUX_SIDE), nn.Conv2d(in_chans, chans, 1), nn.ReLU(inplace=True))
        linear = nn.Linear(chans * AUX_SIDE**2, hidden)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        self.hidden = nn.Sequential(linear, nn.ReLU(inplace=True), nn.Dropout(AUX_DROP_RATE))
        self.output = nn.Linear(hidden, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(self.maps(x).flatten(1)))


class GoogLeNet(TableNetwork):
    """GoogLeNet ([1], Table 1).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    width
        Channels of the first convolution (64 in the paper); all others keep the paper's ratio to it.
    stem
        ``paper``: 7x7 of stride 2 and two poolings, which leave one pixel of a tile of 56 px at the end; ``small``: 3x3
        of stride 2 without the first pooling and its normalisation, twice the resolution.
    aux
        With auxiliary heads behind 4a and 4d: in training the network then gives `AuxOutputs`. They read the image
        alone, not the scalars.
    drop_rate
        Dropout before the last layer.
    n_scalars
        Scalars per tile joined to the averaged features.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        width: int = BASE_WIDTH,
        stem: Literal["paper", "small"] = "paper",
        aux: bool = False,
        drop_rate: float = 0.4,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        check_width("a GoogLeNet", width)
        check_choice("a GoogLeNet", "stem", stem, STEMS)

        def scale(chans: int) -> int:
            return scaled_chans(chans, width, BASE_WIDTH)

        super().__init__(in_chans, _table(stem), Assembler(scale))
        if aux:
            for name in AUX_BEHIND:
                ones, _, threes, _, fives, pooled = MODULES[name]
                chans = sum(map(scale, (ones, threes, fives, pooled)))
                self.auxiliary[name] = GoogLeNetAux(chans, scale(AUX_CHANS), scale(AUX_HIDDEN), num_outputs)
        init_he_normal(self, "fan_in")
        self.head = Head(self.num_features, num_outputs, n_scalars, scalars_hidden, drop_rate)


def _table(stem: str) -> dict[str, Steps]:
    pool = Pool("max", 3, 2, "ceil")
    if stem == "paper":
        table: dict[str, Steps] = {"conv1": (Conv(64, 7, 2),), "pool1": (pool, RESPONSE_NORM)}
    else:
        table = {"conv1": (Conv(64, 3, 2),)}
    table |= {"conv2": (Conv(64), Conv(192, 3), RESPONSE_NORM), "pool2": (pool,)}
    for name, counts in MODULES.items():
        if name in ("4a", "5a"):
            table[f"pool{int(name[0]) - 1}"] = (pool,)
        table[name] = (_inception(*counts),)
    return table


def _inception(ones: int, reduce3: int, threes: int, reduce5: int, fives: int, pooled: int) -> Fork:
    """The module of [1], Fig. 2b."""
    return Fork((
        (Conv(ones),),
        (Conv(reduce3), Conv(threes, 3)),
        (Conv(reduce5), Conv(fives, 5)),
        (Pool("max"), Conv(pooled)),
    ))  # fmt: skip


@register_model(paper="arXiv:1409.4842", ref={"in_chans": 3, "num_outputs": 1000}, num_params=6_998_552)
def googlenet(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> GoogLeNet:
    """GoogLeNet (Inception-v1) as published: 5x5 kernels, biases, response normalisation."""
    return GoogLeNet(in_chans, num_outputs, **kwargs)
