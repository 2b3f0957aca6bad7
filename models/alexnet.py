"""AlexNet, the network of 2012 on two towers and its one-tower form of 2014.

Parameters of the two-tower form, layer by layer from section 3.5 of [1]: 34,944 + 307,456 + 885,120 + 663,936
+ 442,624 + 37,752,832 + 16,781,312 + 4,097,000 = 60,965,224 (60 M in the paper). Those of the one-tower form are
torchvision's 61,100,840, measured, whose channels 64-192-384-256-256 are those of the author's own configuration [3];
the text of [2] has 64-192-384-384-256, which would be 61,838,248.

The paper's input is 227 px (given as 224, which its stride does not fit). Convolutions of two groups replace the two
towers, each of which sees the other's maps only in the third convolution and in the hidden layers.

Departures from the papers: the response normalisation of [1], section 3.3, runs over all maps, not over those of a
tower; the last pooling takes maxima over bins that give 6x6 pixels for any map (on the paper's map of 13x13 the bins
are its 3x3 windows of stride 2), so that any tile of `min_size` or more is accepted; He et al.'s initialisation, for
the paper's fixed deviation of 0.01 belongs to its widths; torchvision's form of [2] differs from the one here by a
padding of 2, dropout before the hidden layers and no response normalisation. `stem="small"`, `map_size`, `hidden` and
`width` are for small tiles.

References
----------
.. [1] Krizhevsky, Sutskever, Hinton (2012), "ImageNet classification with deep convolutional neural networks",
   NIPS 25, doi:10.1145/3065386.
.. [2] Krizhevsky (2014), "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997.
.. [3] https://github.com/akrizhevsky/cuda-convnet2, layers/layers-223-1gpu.cfg.
"""

from typing import Any, Literal

from torch import Tensor

from models.heads import DenseHead
from models.layers import PoolTo, init_he_normal, scaled_chans
from models.registry import register_model
from models.tables import Assembler, Conv, Lrn, Pool, Steps, TableNetwork, check_choice, check_width

STEMS = ("paper", "small")
TOWERS = {2: (96, 256, 384, 384, 256), 1: (64, 192, 384, 256, 256)}  # [1], section 3.5; [3]
HIDDEN = 4096
RESPONSE_NORM = Lrn(alpha=1e-4, size=5, beta=0.75, k=2)  # [1], section 3.3
OVERLAPPING = Pool("max", 3, 2, "valid")  # [1], section 3.4


class AlexNet(TableNetwork):
    """AlexNet ([1], section 3.5 and Fig. 2; [2]).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    towers
        2: the network of 2012, whose second, fourth and fifth convolution have two groups; 1: that of 2014.
    width
        Channels of the first convolution (96 of two towers, 64 of one); all other layers keep the paper's ratio to it.
    stem
        ``paper``: 11x11 of stride 4, which leaves one pixel of a tile below 67 px; ``small``: 5x5 of stride 1, so that
        a tile of 55 px gives the maps that 227 px give in the paper.
    map_size
        Height and width that the last map is pooled to before the hidden layers; 6 in the paper.
    hidden
        Width of the two hidden layers; None for the paper's ratio to `width` (4096).
    drop_rate
        Dropout behind the hidden layers.
    n_scalars
        Scalars per tile joined to the second hidden layer's outputs.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    head_reads_positions = True

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        towers: Literal[1, 2] = 2,
        width: int = 96,
        stem: Literal["paper", "small"] = "paper",
        map_size: int = 6,
        hidden: int | None = None,
        drop_rate: float = 0.5,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        check_width("an AlexNet", width)
        check_choice("an AlexNet", "stem", stem, STEMS)
        if towers not in TOWERS:
            raise ValueError(f"towers of an AlexNet must be 1 or 2, got {towers}")
        for argument, value in (("map_size", map_size), ("hidden", hidden)):
            if value is not None and value < 1:
                raise ValueError(f"{argument} of an AlexNet must be at least 1, got {value}")

        first, second, third, fourth, fifth = TOWERS[towers]
        table: dict[str, Steps] = {
            "conv1": (Conv(first, 11, 4, "valid") if stem == "paper" else Conv(first, 5), RESPONSE_NORM),
            "pool1": (OVERLAPPING,),
            "conv2": (Conv(second, 5, groups=towers), RESPONSE_NORM),
            "pool2": (OVERLAPPING,),
            "conv3": (Conv(third, 3),),
            "conv4": (Conv(fourth, 3, groups=towers),),
            "conv5": (Conv(fifth, 3, groups=towers),),
        }

        def scale(chans: int) -> int:
            return scaled_chans(chans, width, first, multiple=towers)

        super().__init__(in_chans, table, Assembler(scale))
        init_he_normal(self, "fan_in")
        self.head = DenseHead(
            self.num_features,
            PoolTo(map_size, "max"),
            scale(HIDDEN) if hidden is None else hidden,
            num_outputs,
            n_scalars,
            scalars_hidden,
            drop_rate,
        )

    def forward_head(self, features: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.head(features, scalars)


_REF = {"in_chans": 3, "num_outputs": 1000}


@register_model(paper="doi:10.1145/3065386", ref=_REF, num_params=60_965_224)
def alexnet(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> AlexNet:
    """AlexNet of 2012: two towers, response normalisation, overlapping pooling."""
    return AlexNet(in_chans, num_outputs, **kwargs)


@register_model(paper="arXiv:1404.5997", ref=_REF, num_params=61_100_840)
def alexnet_owt(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> AlexNet:
    """AlexNet of 2014 ("one weird trick"): one tower."""
    return AlexNet(in_chans, num_outputs, **({"towers": 1, "width": 64} | kwargs))
