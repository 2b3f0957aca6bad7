"""Networks with squeeze and excitation: channels are scaled by what all of them see on average.

====================  ===========  ==========================================================
entry                 parameters   source of the count
====================  ===========  ==========================================================
`se_resnet18`          11,778,592  timm 1.0.31, measured
`se_resnet34`          21,958,868  timm 1.0.31, measured
`se_resnet50`          28,088,024  timm 1.0.31, measured
`se_resnet101`         49,326,872  timm 1.0.31, measured
`se_resnet152`         66,821,848  timm 1.0.31, measured
`senet154`            115,088,984  timm 1.0.31, measured
`se_inception`         11,931,622  counted in the authors' definition, SE-BN-Inception of [2]
====================  ===========  ==========================================================

The block sits at the end of the residual branch, before the addition ([1], Fig. 3), or behind an Inception module
(Fig. 2), with reduction 16; its two layers are 1x1 convolutions with bias, as in the authors' definitions [2].

`se_inception` follows that definition where it differs from `inception_v2`: the first convolution is a plain 7x7, the
pooling branches of 4c and 4d have 128 channels, and the epsilon of the normalisation is Caffe's, 1e-5.

Departures from the papers: the head pools whatever map arrives, so that any tile of `min_size` or more is accepted;
narrow networks keep a least number of hidden units (`models.layers.SqueezeExcite`); poolings of stride 2 pad the rim
of the map, where Caffe lets the last window reach beyond it, which at odd sizes fits no parallel convolution.

References
----------
.. [1] Hu, Shen, Albanie, Sun, Wu (2018), "Squeeze-and-excitation networks", arXiv:1709.01507.
.. [2] https://github.com/hujie-frank/SENet, models.
.. [3] Ioffe, Szegedy (2015), "Batch normalization", arXiv:1502.03167, Fig. 5.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from models.heads import Head
from models.layers import SqueezeExcite, conv_bn, init_he_normal, scaled_chans
from models.registry import register_model
from models.residual import ResidualBlock
from models.resnet import IMAGENET_REF, ResNet, build_resnet
from models.tables import Assembler, Conv, Fork, Pool, Steps, TableNetwork, check_choice, check_width
from models.tile_model import FeatureInfo, TileModel

REDUCTION = 16  # [1], section 3.2: of all reported networks
SENET_EXPANSION = 4
STEMS = ("paper", "small")


class SENet(TileModel):
    """SENet-154: a deep ResNeXt of 64 groups with squeeze and excitation ([1], appendix).

    It differs from a ResNeXt in that the first 1x1 convolution of a bottleneck has half as many channels as the 3x3,
    the stem is three 3x3 convolutions, and projections with stride have a 3x3 kernel.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    depths
        Number of blocks per stage; every stage after the first halves the size and doubles the channels.
    width
        Channels of the stem's first convolutions, and number of groups of the 3x3 convolutions. A block's 3x3 has 4 x
        `width` channels in the first stage, 4 per group.
    stem
        ``paper``: three 3x3 convolutions, the first with stride 2, and 3x3 max pooling of stride 2; ``small``: without
        the pooling, for tiles of 48 to 112 px.
    reduction
        Of squeeze and excitation.
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
        depths: Sequence[int] = (3, 8, 36, 3),
        width: int = 64,
        stem: Literal["paper", "small"] = "paper",
        reduction: int = REDUCTION,
        drop_rate: float = 0.2,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        check_choice("a SENet", "stem", stem, STEMS)
        check_width("a SENet", width)
        if not depths or min(depths) < 1:
            raise ValueError(f"depths of a SENet are the numbers of blocks per stage, each at least 1, got {depths}")
        if reduction < 1:
            raise ValueError(f"reduction of a SENet must be at least 1, got {reduction}")
        self.in_chans = in_chans
        chans = 2 * width
        self.stem = nn.Sequential(
            *conv_bn(in_chans, width, 3, 2), nn.ReLU(inplace=True),
            *conv_bn(width, width, 3), nn.ReLU(inplace=True),
            *conv_bn(width, chans, 3), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1) if stem == "paper" else nn.Identity(),
        )  # fmt: skip
        size_ratio = 4 if stem == "paper" else 2
        self.feature_info = []
        stages = []
        for index, depth in enumerate(depths):
            inner = width * SENET_EXPANSION * 2**index
            blocks = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                blocks.append(_senet_block(chans, inner, stride, groups=width, reduction=reduction))
                chans = inner
                size_ratio *= stride
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(f"stages.{index}", chans, size_ratio))
        self.stages = nn.Sequential(*stages)
        self.min_size = size_ratio  # below it, the last map would be made of padding for the greater part
        init_he_normal(self)
        self.head = Head(chans, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.stages(self.stem(x))


def _senet_block(in_chans: int, chans: int, stride: int, groups: int, reduction: int) -> ResidualBlock:
    grouped = nn.Conv2d(chans // 2, chans, 3, stride, padding=1, groups=groups, bias=False)
    residual = nn.Sequential(
        *conv_bn(in_chans, chans // 2, 1), nn.ReLU(inplace=True),
        grouped, nn.BatchNorm2d(chans), nn.ReLU(inplace=True),
        *conv_bn(chans, chans, 1),
        SqueezeExcite(chans, reduction),
    )  # fmt: skip
    shortcut = nn.Identity()
    if stride != 1 or in_chans != chans:
        shortcut = nn.Sequential(*conv_bn(in_chans, chans, 1 if stride == 1 else 3, stride))
    return ResidualBlock(residual, shortcut, nn.ReLU(inplace=True))


class ExcitedAssembler(Assembler):
    """Puts squeeze and excitation behind every fork."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__(lambda chans: scaled_chans(chans, width, INCEPTION_WIDTH), batch_norm_eps=1e-5, bias=False)
        self.reduction = reduction

    def _branches(self, branches: Sequence[Steps], in_chans: int) -> tuple[nn.Module, int]:
        made, chans = super()._branches(branches, in_chans)
        return nn.Sequential(made, SqueezeExcite(chans, self.reduction)), chans


def _module(ones: int, reduce3: int, threes: int, reduce_double: int, double: int, pool: str, pooled: int) -> Steps:
    branches = (
        (Conv(ones),),
        (Conv(reduce3), Conv(threes, 3)),
        (Conv(reduce_double), Conv(double, 3), Conv(double, 3)),
        (Pool(pool), Conv(pooled)),
    )
    return (Fork(branches),)


def _reduction(reduce3: int, threes: int, reduce_double: int, double: int) -> Steps:
    branches = (
        (Conv(reduce3), Conv(threes, 3, 2)),
        (Conv(reduce_double), Conv(double, 3), Conv(double, 3, 2)),
        (Pool("max", 3, 2),),
    )
    return (Fork(branches),)


INCEPTION_WIDTH = 64
_INCEPTION_STEMS: dict[str, dict[str, Steps]] = {
    "paper": {
        "stem1": (Conv(64, 7, 2),),
        "stem2": (Pool("max", 3, 2), Conv(64), Conv(192, 3)),
        "stem3": (Pool("max", 3, 2),),
    },
    "small": {"stem1": (Conv(64, 3, 2),), "stem2": (Conv(64), Conv(192, 3)), "stem3": (Pool("max", 3, 2),)},
}
_INCEPTION_MODULES: dict[str, Steps] = {
    "3a": _module(64, 64, 64, 64, 96, "avg", 32),
    "3b": _module(64, 64, 96, 64, 96, "avg", 64),
    "3c": _reduction(128, 160, 64, 96),
    "4a": _module(224, 64, 96, 96, 128, "avg", 128),
    "4b": _module(192, 96, 128, 96, 128, "avg", 128),
    "4c": _module(160, 128, 160, 128, 160, "avg", 128),
    "4d": _module(96, 128, 192, 160, 192, "avg", 128),
    "4e": _reduction(128, 192, 192, 256),
    "5a": _module(352, 192, 320, 160, 224, "avg", 128),
    "5b": _module(352, 192, 320, 192, 224, "max", 128),
}


class SEInception(TableNetwork):
    """Inception network with batch normalisation ([3]) and squeeze and excitation behind each module ([1], Fig. 2).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    width
        Channels of the first convolution (64 in the paper); all others keep the paper's ratio to it.
    stem
        ``paper``; ``small``: the first convolution is 3x3 and the first pooling is omitted, for tiles of 48 to 112 px.
    reduction
        Of squeeze and excitation.
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
        width: int = INCEPTION_WIDTH,
        stem: Literal["paper", "small"] = "paper",
        reduction: int = REDUCTION,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        check_choice("an SE-Inception network", "stem", stem, STEMS)
        check_width("an SE-Inception network", width)
        if reduction < 1:
            raise ValueError(f"reduction of an SE-Inception network must be at least 1, got {reduction}")
        super().__init__(in_chans, _INCEPTION_STEMS[stem] | _INCEPTION_MODULES, ExcitedAssembler(width, reduction))
        init_he_normal(self)
        self.head = Head(self.num_features, num_outputs, n_scalars, scalars_hidden, drop_rate)


def _se_resnet(in_chans: int, num_outputs: int, kwargs: dict[str, Any], **entry: Any) -> ResNet:
    return build_resnet(in_chans, num_outputs, kwargs, se_reduction=REDUCTION, **entry)


_IMAGENET = {"paper": "arXiv:1709.01507", "ref": IMAGENET_REF}


@register_model(**_IMAGENET, num_params=11_778_592)
def se_resnet18(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-18."""
    return _se_resnet(in_chans, num_outputs, kwargs, depths=(2, 2, 2, 2))


@register_model(**_IMAGENET, num_params=21_958_868)
def se_resnet34(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-34."""
    return _se_resnet(in_chans, num_outputs, kwargs, depths=(3, 4, 6, 3))


@register_model(**_IMAGENET, num_params=28_088_024)
def se_resnet50(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-50 (Table 1), bottleneck blocks."""
    return _se_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 6, 3))


@register_model(**_IMAGENET, num_params=49_326_872)
def se_resnet101(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-101 (Table 2), bottleneck blocks."""
    return _se_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 23, 3))


@register_model(**_IMAGENET, num_params=66_821_848)
def se_resnet152(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-152 (Table 2), bottleneck blocks."""
    return _se_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 8, 36, 3))


@register_model(**_IMAGENET, num_params=115_088_984)
def senet154(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> SENet:
    """SENet-154 (appendix): 3 + 3 x 50 + 1 weighted layers."""
    return SENet(in_chans, num_outputs, **kwargs)


@register_model(**_IMAGENET, num_params=11_931_622)
def se_inception(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> SEInception:
    """Inception network with batch normalisation, squeeze and excitation (SE-BN-Inception, Table 2)."""
    return SEInception(in_chans, num_outputs, **kwargs)
