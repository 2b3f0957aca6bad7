"""Residual networks of any depth and width, in the forms for ImageNet and for CIFAR.

Parameter counts of the ImageNet forms are those of torchvision 0.29.1, measured; those of the CIFAR forms are computed
from section 4.2 of [1], 10 classes, option A (the paper rounds them: 0.27 M, 0.46 M, 0.66 M, 0.85 M, 1.7 M, 19.4 M).

The same class builds the networks of `preact_resnet`, `stochastic_depth` and, but for one, `senet`: they differ in
the residual unit.

Departures from the paper: the head pools whatever map arrives, so that any tile of `min_size` or more is accepted;
`stem="stride2"` is for small tiles.

References
----------
.. [1] He, Zhang, Ren, Sun (2016), "Deep residual learning for image recognition", arXiv:1512.03385.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from models.heads import Head
from models.layers import SqueezeExcite, StochasticGate, conv_bn, init_he_normal
from models.registry import register_model
from models.residual import (
    PREACTIVATED,
    SHORTCUTS,
    VARIANTS,
    Convolution,
    ResidualBlock,
    last_activation,
    residual_block,
    zero_init_branch,
)
from models.tile_model import FeatureInfo, TileModel

BLOCKS = ("basic", "bottleneck")
STEMS = ("imagenet", "stride2", "cifar")
BOTTLENECK_STRIDES = ("1x1", "3x3")
BOTTLENECK_EXPANSION = 4  # [1], Table 1: a bottleneck's output has four times the channels of its 3x3


class ResNet(TileModel):
    """Residual network ([1], Table 1 and section 4.2).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    block
        ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1).
    depths
        Number of blocks per stage; every stage after the first halves the size and doubles the channels.
    width
        Channels of the first stage (64 for ImageNet, 16 for CIFAR in the paper).
    stem
        ``imagenet``: 7x7 stride 2 and 3x3 max pooling of stride 2; ``stride2``: 3x3 stride 2 without pooling, which
        leaves small tiles twice the resolution; ``cifar``: 3x3 stride 1.
    shortcut
        Where the shape changes: ``projection`` (1x1 convolution, option B) or ``pad`` (option A, no parameters), which
        takes every second pixel; ``average_pad`` averages the 2x2 pixels.
    bottleneck_stride
        Which convolution of a bottleneck strides: ``1x1``, the first, as in the paper, or ``3x3`` as in torchvision
        ("ResNet 1.5"), which reads every pixel, at more operations. The parameters are the same.
    variant
        Order of convolutions, normalisations and activations in a unit; see `models.residual`.
    widen
        Factor on the channels of all stages, but not of the stem (wide residual networks).
    se_reduction
        Squeeze and excitation at the end of each branch, with this reduction; None for none.
    last_survival
        Stochastic depth: probability with which the last unit's branch is kept in a training step; it falls linearly
        from 1 at the input. 1 for none.
    zero_init_residual
        Start each residual branch at zero (Goyal et al. 2017, arXiv:1706.02677, section 5.1): the network starts as a
        shallow one.
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
        block: Literal["basic", "bottleneck"] = "basic",
        depths: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        stem: Literal["imagenet", "stride2", "cifar"] = "imagenet",
        shortcut: Literal["projection", "pad", "average_pad"] = "projection",
        bottleneck_stride: Literal["1x1", "3x3"] = "1x1",
        variant: Literal[
            "original", "bn_after_addition", "relu_before_addition", "relu_preact", "full_preact"
        ] = "original",
        widen: int = 1,
        se_reduction: int | None = None,
        last_survival: float = 1.0,
        zero_init_residual: bool = False,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        _check_choice("block", block, BLOCKS)
        _check_choice("stem", stem, STEMS)
        _check_choice("shortcut", shortcut, SHORTCUTS)
        _check_choice("bottleneck_stride", bottleneck_stride, BOTTLENECK_STRIDES)
        _check_choice("variant", variant, VARIANTS)
        if not depths or min(depths) < 1:
            raise ValueError(f"depths of a ResNet are the numbers of blocks per stage, each at least 1, got {depths}")
        for argument, value in (("width", width), ("widen", widen), ("se_reduction", se_reduction)):
            if value is not None and value < 1:
                raise ValueError(f"{argument} of a ResNet must be at least 1, got {value}")
        if not 0 < last_survival <= 1:
            raise ValueError(f"last_survival of a ResNet must be in (0, 1], got {last_survival}")
        if zero_init_residual and variant == "relu_before_addition":
            raise ValueError("zero_init_residual: behind a last ReLU that starts at zero, no gradient passes; drop it")
        self.in_chans = in_chans
        self.bottleneck = block == "bottleneck"
        self.bottleneck_stride = bottleneck_stride

        self.stem, reduction = _stem(stem, in_chans, width)
        self.feature_info = []
        stages = []
        chans = width
        n_blocks = 0
        for index, depth in enumerate(depths):
            inner = width * widen * 2**index
            blocks = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                convolutions = self._convolutions(chans, inner, stride)
                chans = convolutions[-1][1]
                n_blocks += 1
                ends: list[nn.Module] = []
                if se_reduction is not None:
                    ends.append(SqueezeExcite(chans, se_reduction))
                if last_survival < 1:
                    ends.append(StochasticGate(1 - n_blocks / sum(depths) * (1 - last_survival)))
                blocks.append(residual_block(convolutions, variant, shortcut, ends=ends, first=n_blocks == 1))
                reduction *= stride
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(f"stages.{index}", chans, reduction))
        self.stages = nn.Sequential(*stages)
        self.last = last_activation(variant, chans)
        if variant in PREACTIVATED:
            self.feature_info[-1] = FeatureInfo("last", chans, reduction)
        self.min_size = reduction  # below it, the last map would be made of padding for the greater part
        init_he_normal(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    zero_init_branch(module)
        self.head = Head(chans, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def _convolutions(self, in_chans: int, inner: int, stride: int) -> list[Convolution]:
        """Those of one branch."""
        if not self.bottleneck:
            return [(in_chans, inner, 3, stride), (inner, inner, 3, 1)]
        first, second = (stride, 1) if self.bottleneck_stride == "1x1" else (1, stride)
        return [(in_chans, inner, 1, first), (inner, inner, 3, second), (inner, inner * BOTTLENECK_EXPANSION, 1, 1)]

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.last(self.stages(self.stem(x)))


def _check_choice(argument: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{argument} of a ResNet must be one of {', '.join(accepted)}, got {value!r}")


def _stem(kind: str, in_chans: int, width: int) -> tuple[nn.Sequential, int]:
    """The first layers and their total stride."""
    if kind == "imagenet":
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        return nn.Sequential(*conv_bn(in_chans, width, 7, 2), nn.ReLU(inplace=True), pool), 4
    stride = 2 if kind == "stride2" else 1
    return nn.Sequential(*conv_bn(in_chans, width, 3, stride), nn.ReLU(inplace=True)), stride


def build_resnet(in_chans: int, num_outputs: int, kwargs: dict[str, Any], **entry: Any) -> ResNet:
    """An entry is a set of defaults: every one of them may be named otherwise."""
    return ResNet(in_chans, num_outputs, **(entry | kwargs))


def build_cifar_resnet(layers: int, in_chans: int, num_outputs: int, kwargs: dict[str, Any]) -> ResNet:
    """Section 4.2: 6n + 2 weighted layers, three stages of n basic blocks, 16 / 32 / 64 channels, option A."""
    entry = {"depths": ((layers - 2) // 6,) * 3, "width": 16, "stem": "cifar", "shortcut": "pad"}
    return build_resnet(in_chans, num_outputs, kwargs, **entry)


IMAGENET_REF = {"in_chans": 3, "num_outputs": 1000}
CIFAR_REF = {"in_chans": 3, "num_outputs": 10}
_IMAGENET = {"paper": "arXiv:1512.03385", "ref": IMAGENET_REF}
_CIFAR = {"paper": "arXiv:1512.03385", "ref": CIFAR_REF}


@register_model(**_IMAGENET, num_params=11_689_512)
def resnet18(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-18 (Table 1)."""
    return build_resnet(in_chans, num_outputs, kwargs, depths=(2, 2, 2, 2))


@register_model(**_IMAGENET, num_params=21_797_672)
def resnet34(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-34 (Table 1)."""
    return build_resnet(in_chans, num_outputs, kwargs, depths=(3, 4, 6, 3))


@register_model(**_IMAGENET, num_params=25_557_032)
def resnet50(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-50 (Table 1), bottleneck blocks."""
    return build_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 6, 3))


@register_model(**_IMAGENET, num_params=44_549_160)
def resnet101(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-101 (Table 1), bottleneck blocks."""
    return build_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 23, 3))


@register_model(**_IMAGENET, num_params=60_192_808)
def resnet152(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-152 (Table 1), bottleneck blocks."""
    return build_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 8, 36, 3))


@register_model(**_CIFAR, num_params=269_722)
def resnet20(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-20 for CIFAR (section 4.2, n = 3)."""
    return build_cifar_resnet(20, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=464_154)
def resnet32(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-32 for CIFAR (section 4.2, n = 5)."""
    return build_cifar_resnet(32, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=658_586)
def resnet44(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-44 for CIFAR (section 4.2, n = 7)."""
    return build_cifar_resnet(44, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=853_018)
def resnet56(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-56 for CIFAR (section 4.2, n = 9)."""
    return build_cifar_resnet(56, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=1_727_962)
def resnet110(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-110 for CIFAR (section 4.2, n = 18)."""
    return build_cifar_resnet(110, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=19_421_274)
def resnet1202(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-1202 for CIFAR (section 4.2, n = 200)."""
    return build_cifar_resnet(1202, in_chans, num_outputs, kwargs)
