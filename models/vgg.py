"""VGG: 3x3 convolutions only, five stages, two large hidden layers.

Parameter counts are those of torchvision 0.29.1, measured; the paper rounds them (Table 2: 133, 133, 138, 144 M). The
forms with batch normalisation are torchvision's, not the paper's: they keep the convolutions' biases.

Departures from the paper: the last map is averaged to 7x7 (nothing to do at 224 px), so that any tile of `min_size` or
more is accepted, and a map of a smaller tile repeats its pixels; He et al.'s initialisation instead of training the
shallow network first, as the paper itself proposes (there: Glorot and Bengio's); `stem="small"`, `map_size`, `hidden`
and `width` are for small tiles.

References
----------
.. [1] Simonyan, Zisserman (2015), "Very deep convolutional networks for large-scale image recognition",
   arXiv:1409.1556, Table 1.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from models.heads import DenseHead
from models.layers import PoolTo, init_he_normal
from models.registry import register_model
from models.tables import Assembler, Conv, Pool, Steps, TableNetwork, check_choice, check_width

STEMS = ("paper", "small")
STAGE_CHANS = (64, 128, 256, 512, 512)  # [1], Table 1
BASE_WIDTH = STAGE_CHANS[0]
HIDDEN = 4096


class Vgg(TableNetwork):
    """VGG ([1], Table 1).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    depths
        Number of 3x3 convolutions of the five stages; a maximum pooling 2x2 follows each stage.
    batch_norm
        Normalise behind every convolution.
    width
        Channels of the first stage (64 in the paper); all other layers keep the paper's ratio to it.
    stem
        ``paper``; ``small``: without the first pooling, which leaves tiles of 48 to 112 px twice the resolution (a tile
        of 56 px ends as 3x3 pixels instead of one), at almost four times the operations.
    map_size
        Height and width that the last map is averaged to before the hidden layers: 7 in the paper. On small tiles the
        map is smaller than that, and 1 to 3 give the same information with far fewer parameters.
    hidden
        Width of the two hidden layers; None for the paper's ratio to `width` (4096 at 64).
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
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        batch_norm: bool = False,
        width: int = BASE_WIDTH,
        stem: Literal["paper", "small"] = "paper",
        map_size: int = 7,
        hidden: int | None = None,
        drop_rate: float = 0.5,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        check_width("a VGG", width)
        check_choice("a VGG", "stem", stem, STEMS)
        if len(depths) != len(STAGE_CHANS) or min(depths) < 1:
            raise ValueError(f"depths of a VGG are the numbers of convolutions of five stages, got {tuple(depths)}")
        for argument, value in (("map_size", map_size), ("hidden", hidden)):
            if value is not None and value < 1:
                raise ValueError(f"{argument} of a VGG must be at least 1, got {value}")

        table: dict[str, Steps] = {}
        for stage, (depth, chans) in enumerate(zip(depths, STAGE_CHANS, strict=True), start=1):
            table[f"stage{stage}"] = (Conv(chans, 3),) * depth
            if stage > 1 or stem == "paper":
                table[f"pool{stage}"] = (Pool("max", 2, 2, "valid"),)

        def scale(chans: int) -> int:
            return chans * width // BASE_WIDTH  # every number is a multiple of the base

        super().__init__(in_chans, table, Assembler(scale, batch_norm_eps=1e-5 if batch_norm else None))
        init_he_normal(self, "fan_in")
        self.head = DenseHead(
            self.num_features,
            PoolTo(map_size, "avg"),
            scale(HIDDEN) if hidden is None else hidden,
            num_outputs,
            n_scalars,
            scalars_hidden,
            drop_rate,
        )

    def forward_head(self, features: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.head(features, scalars)


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # A, B, D, E
_IMAGENET = {"paper": "arXiv:1409.1556", "ref": {"in_chans": 3, "num_outputs": 1000}}


def _vgg(layers: int, in_chans: int, num_outputs: int, kwargs: dict[str, Any], batch_norm: bool = False) -> Vgg:
    return Vgg(in_chans, num_outputs, **({"depths": _DEPTHS[layers], "batch_norm": batch_norm} | kwargs))


@register_model(**_IMAGENET, num_params=132_863_336)
def vgg11(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-11 (Table 1, A)."""
    return _vgg(11, in_chans, num_outputs, kwargs)


@register_model(**_IMAGENET, num_params=133_047_848)
def vgg13(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-13 (Table 1, B)."""
    return _vgg(13, in_chans, num_outputs, kwargs)


@register_model(**_IMAGENET, num_params=138_357_544)
def vgg16(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-16 (Table 1, D)."""
    return _vgg(16, in_chans, num_outputs, kwargs)


@register_model(**_IMAGENET, num_params=143_667_240)
def vgg19(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-19 (Table 1, E)."""
    return _vgg(19, in_chans, num_outputs, kwargs)


@register_model(**_IMAGENET, num_params=132_868_840)
def vgg11_bn(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-11 with batch normalisation."""
    return _vgg(11, in_chans, num_outputs, kwargs, batch_norm=True)


@register_model(**_IMAGENET, num_params=133_053_736)
def vgg13_bn(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-13 with batch normalisation."""
    return _vgg(13, in_chans, num_outputs, kwargs, batch_norm=True)


@register_model(**_IMAGENET, num_params=138_365_992)
def vgg16_bn(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-16 with batch normalisation."""
    return _vgg(16, in_chans, num_outputs, kwargs, batch_norm=True)


@register_model(**_IMAGENET, num_params=143_678_248)
def vgg19_bn(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Vgg:
    """VGG-19 with batch normalisation."""
    return _vgg(19, in_chans, num_outputs, kwargs, batch_norm=True)
