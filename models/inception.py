"""Inception-v2, -v3, -v4 and Inception-ResNet-v2: modules of parallel branches with batch normalisation.

Names follow [3], section 1: v1 is GoogLeNet (`googlenet`), v2 the one that came with batch normalisation [1], v3 the
one with factorised kernels [2], v4 and Inception-ResNet [3]. Modules are called A, B and C after their resolution (35,
17 and 8 px at 299 px), as in [3].

Parameter counts
    inception_v2        11,188,288: Fig. 5 of [1], layer by layer below
    inception_v3        23,834,568, with the auxiliary head 27,161,264: torchvision 0.29.1, measured
    inception_v4        42,679,816: timm 1.0.31, measured
    inception_resnet_v2 55,843,464: timm 1.0.31, measured

Inception-v2. Fig. 5 of [1] contradicts itself: its pooling branches of 4c and 4d end with 128 channels, which would
make 608 where its column of output sizes says 576, and 1056 instead of 1024 behind 4e. The authors' code [4] follows
the output sizes, with 96 channels, and so does this one. Parameters, scale and shift of the normalisation included, no
biases but the last layer's:

    first convolution (depthwise 1,176, 1x1 1,664) 2,840; second 115,200
    3a 219,072; 3b 260,160; 3c 385,088
    4a 609,984; 4b 665,344; 4c 895,936; 4d 1,108,032; 4e 1,439,744
    5a 2,182,272; 5b 2,279,616; last layer 1,025,000

The text of [1] says 13.6 million, which its figure does not give (11,278,528 as printed, with 128 channels). The
authors' test of [4] does agree: it expects 10,173,112 without the last layer, where the normalisation of the 9,952 maps
has two moving averages and a shift but no scale, and the first convolution has 64 biases in its place:
11,188,288 - 1,025,000 + 9,952 - 3 x 64 + 64.

Departures, shared: the head averages whatever map arrives. The papers leave many convolutions and poolings unpadded,
so that v3, v4 and Inception-ResNet-v2 need tiles of 75 px and more; `stem="small"` pads them all. `width` and
`depths` are for small machines. He et al.'s initialisation instead of the authors' truncated normal one.

Departure of inception_v3: the rim of an average pooling counts the padding, as in torchvision, whose weights it thus
can take; the authors' code does not count it, nor do the other three here.

Departure of inception_resnet_v2 from [3]: it is the network that the authors published with its weights [4], with 10,
20 and 10 blocks, the stem of v3, and 320, 1088 and 2080 channels, where the paper has 5, 10 and 5 blocks, the stem of
v4, and 384, 1154 and 2048 channels.

References
----------
.. [1] Ioffe, Szegedy (2015), "Batch normalization", arXiv:1502.03167, Fig. 5.
.. [2] Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), "Rethinking the Inception architecture for computer vision",
   arXiv:1512.00567.
.. [3] Szegedy, Ioffe, Vanhoucke, Alemi (2017), "Inception-v4, Inception-ResNet and the impact of residual connections
   on learning", arXiv:1602.07261.
.. [4] https://github.com/tensorflow/models, research/slim/nets: inception_v2.py, inception_v3.py, inception_v4.py,
   inception_resnet_v2.py and their tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from models.layers import Head, init_he_normal, scaled_chans
from models.registry import register_model
from models.tables import (
    Assembler,
    AuxPool,
    Conv,
    Fork,
    Pool,
    Residual,
    Separable,
    Step,
    Steps,
    TableNetwork,
    check_choice,
    check_width,
)

STEMS = ("paper", "small")
BATCH_NORM_EPS = 1e-3  # [4], inception_utils.py; torch's own default is 1e-5
AUX_CHANS, AUX_FEATURES, AUX_SIDE = 128, 768, 5  # [2], Fig. 8; [4]


@dataclass(frozen=True)
class Version:
    """One network of the family: its paper's table, and what differs besides."""

    width: int
    """Channels of the first convolution."""
    stem: Mapping[str, Steps]
    small_stem: Mapping[str, Steps]
    modules: tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]
    """A, B, C."""
    reductions: tuple[Step, Step]
    """Between A and B, between B and C."""
    tail: Mapping[str, Steps]
    """Behind the last module."""
    last: Step | None = None
    """The last module, where it differs from those before it."""


# ---- Inception-v2 ([1], Fig. 5) -------------------------------------------------------------------------------------
def _v2(ones: int, reduce3: int, threes: int, reduce_double: int, double: int, pool: Pool, pooled: int) -> Fork:
    return Fork((
        (Conv(ones),),
        (Conv(reduce3), Conv(threes, 3)),
        (Conv(reduce_double), Conv(double, 3), Conv(double, 3)),
        (pool, Conv(pooled)),
    ))  # fmt: skip


def _v2_reduction(reduce3: int, threes: int, reduce_double: int, double: int) -> Fork:
    return Fork((
        (Conv(reduce3), Conv(threes, 3, 2)),
        (Conv(reduce_double), Conv(double, 3), Conv(double, 3, 2)),
        (Pool("max", 3, 2),),
    ))  # fmt: skip


_AVG, _MAX = Pool("avg"), Pool("max")
_V2 = Version(
    width=64,
    stem={
        "stem1": (Separable(64, 7, 2, multiplier=8),),
        "stem2": (Pool("max", 3, 2), Conv(64), Conv(192, 3)),
        "stem3": (Pool("max", 3, 2),),
    },
    small_stem={
        "stem1": (Separable(64, 3, 2, multiplier=8),),
        "stem2": (Conv(64), Conv(192, 3)),
        "stem3": (Pool("max", 3, 2),),
    },
    modules=(
        (_v2(64, 64, 64, 64, 96, _AVG, 32), _v2(64, 64, 96, 64, 96, _AVG, 64)),
        (
            _v2(224, 64, 96, 96, 128, _AVG, 128),
            _v2(192, 96, 128, 96, 128, _AVG, 128),
            _v2(160, 128, 160, 128, 160, _AVG, 96),  # 96: see the module's docstring
            _v2(96, 128, 192, 160, 192, _AVG, 96),
        ),
        (_v2(352, 192, 320, 160, 224, _AVG, 128), _v2(352, 192, 320, 192, 224, _MAX, 128)),
    ),
    reductions=(_v2_reduction(128, 160, 64, 96), _v2_reduction(128, 192, 192, 256)),
    tail={},
)

# ---- Inception-v3 ([2], Table 1 and Figs. 5, 6, 7, 10; channels from [4]) --------------------------------------------
_AVG_COUNTED = Pool("avg", count_padding=True)


def _pool(kind: Literal["max", "avg"] = "max") -> Pool:
    return Pool(kind, 3, 2, "valid")


def _v3_stem(first_stride: int) -> dict[str, Steps]:
    return {
        "stem1": (Conv(32, 3, first_stride, "valid"), Conv(32, 3, 1, "valid"), Conv(64, 3)),
        "stem2": (_pool(), Conv(80), Conv(192, 3, 1, "valid")),
        "stem3": (_pool(),),
    }


def _v3_a(pooled: int) -> Fork:
    return Fork((
        (Conv(64),),
        (Conv(48), Conv(64, 5)),
        (Conv(64), Conv(96, 3), Conv(96, 3)),
        (_AVG_COUNTED, Conv(pooled)),
    ))  # fmt: skip


def _v3_b(inner: int) -> Fork:
    return Fork((
        (Conv(192),),
        (Conv(inner), Conv(inner, (1, 7)), Conv(192, (7, 1))),
        (Conv(inner), Conv(inner, (7, 1)), Conv(inner, (1, 7)), Conv(inner, (7, 1)), Conv(192, (1, 7))),
        (_AVG_COUNTED, Conv(192)),
    ))  # fmt: skip


def _both(chans: int) -> Fork:
    """1x3 and 3x1 beside each other ([2], Fig. 7)."""
    return Fork(((Conv(chans, (1, 3)),), (Conv(chans, (3, 1)),)))


_V3_C = Fork((
    (Conv(320),),
    (Conv(384), _both(384)),
    (Conv(448), Conv(384, 3), _both(384)),
    (_AVG_COUNTED, Conv(192)),
))  # fmt: skip
_V3 = Version(
    width=32,
    stem=_v3_stem(2),
    small_stem=_v3_stem(1),
    modules=((_v3_a(32), _v3_a(64), _v3_a(64)), (_v3_b(128), _v3_b(160), _v3_b(160), _v3_b(192)), (_V3_C, _V3_C)),
    reductions=(
        Fork((
            (Conv(384, 3, 2, "valid"),),
            (Conv(64), Conv(96, 3), Conv(96, 3, 2, "valid")),
            (_pool(),),
        )),
        Fork((
            (Conv(192), Conv(320, 3, 2, "valid")),
            (Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2, "valid")),
            (_pool(),),
        )),
    ),
    tail={},
)  # fmt: skip


# ---- Inception-v4 ([3], Figs. 3 to 9) -------------------------------------------------------------------------------
def _v4_stem(first_stride: int) -> dict[str, Steps]:
    return {
        "stem1": (Conv(32, 3, first_stride, "valid"), Conv(32, 3, 1, "valid"), Conv(64, 3)),
        "stem2": (
            Fork(((_pool(),), (Conv(96, 3, 2, "valid"),))),
            Fork((
                (Conv(64), Conv(96, 3, 1, "valid")),
                (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, 1, "valid")),
            )),
        ),
        "stem3": (Fork(((Conv(192, 3, 2, "valid"),), (_pool(),))),),
    }  # fmt: skip


_V4_A = Fork((
    (Conv(96),),
    (Conv(64), Conv(96, 3)),
    (Conv(64), Conv(96, 3), Conv(96, 3)),
    (_AVG, Conv(96)),
))  # fmt: skip
_V4_B = Fork((
    (Conv(384),),
    (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
    (_AVG, Conv(128)),
))  # fmt: skip
_V4_C = Fork((
    (Conv(256),),
    (Conv(384), _both(256)),
    (Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), _both(256)),
    (_AVG, Conv(256)),
))  # fmt: skip
_V4 = Version(
    width=32,
    stem=_v4_stem(2),
    small_stem=_v4_stem(1),
    modules=((_V4_A,) * 4, (_V4_B,) * 7, (_V4_C,) * 3),
    reductions=(
        Fork((
            (Conv(384, 3, 2, "valid"),),
            (Conv(192), Conv(224, 3), Conv(256, 3, 2, "valid")),
            (_pool(),),
        )),
        Fork((
            (Conv(192), Conv(192, 3, 2, "valid")),
            (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2, "valid")),
            (_pool(),),
        )),
    ),
    tail={},
)  # fmt: skip

# ---- Inception-ResNet-v2 ([4]; scales of the residuals within the range of [3], section 3.3) ------------------------
_BLOCK35 = Residual((
    (Conv(32),),
    (Conv(32), Conv(32, 3)),
    (Conv(32), Conv(48, 3), Conv(64, 3)),
), scale=0.17)  # fmt: skip
_BLOCK17 = Residual((
    (Conv(192),),
    (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))),
), scale=0.10)  # fmt: skip
_BLOCK8_BRANCHES: tuple[Steps, ...] = (
    (Conv(192),),
    (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))),
)  # fmt: skip


def _resnet_v2_stem(first_stride: int) -> dict[str, Steps]:
    """That of v3, and a module that is not residual."""
    mixed = Fork((
        (Conv(96),),
        (Conv(48), Conv(64, 5)),
        (Conv(64), Conv(96, 3), Conv(96, 3)),
        (_AVG, Conv(64)),
    ))  # fmt: skip
    return _v3_stem(first_stride) | {"mixed": (mixed,)}


_RESNET_V2 = Version(
    width=32,
    stem=_resnet_v2_stem(2),
    small_stem=_resnet_v2_stem(1),
    modules=((_BLOCK35,) * 10, (_BLOCK17,) * 20, (Residual(_BLOCK8_BRANCHES, scale=0.20),) * 10),
    reductions=(
        Fork((
            (Conv(384, 3, 2, "valid"),),
            (Conv(256), Conv(256, 3), Conv(384, 3, 2, "valid")),
            (_pool(),),
        )),
        Fork((
            (Conv(256), Conv(384, 3, 2, "valid")),
            (Conv(256), Conv(288, 3, 2, "valid")),
            (Conv(256), Conv(288, 3), Conv(320, 3, 2, "valid")),
            (_pool(),),
        )),
    ),
    tail={"last": (Conv(1536),)},
    last=Residual(_BLOCK8_BRANCHES, scale=1.0, relu=False),
)  # fmt: skip

VERSIONS = {"v2": _V2, "v3": _V3, "v4": _V4, "resnet_v2": _RESNET_V2}


class InceptionAux(nn.Module):
    """Auxiliary head of Inception-v3: average pooling to 5x5, two convolutions with batch normalisation, outputs.

    Parameters
    ----------
    in_chans
        Channels of the maps.
    assembler
        Makes the two convolutions.
    num_outputs
        Length of the output vector.

    References
    ----------
    .. [1] Szegedy et al. (2016), arXiv:1512.00567, Fig. 8 and section 6.
    """

    def __init__(self, in_chans: int, assembler: Assembler, num_outputs: int) -> None:
        super().__init__()
        self.pool = AuxPool(AUX_SIDE)
        self.maps, chans = assembler.assemble((Conv(AUX_CHANS), Conv(AUX_FEATURES, AUX_SIDE, 1, "valid")), in_chans)
        self.output = nn.Linear(chans, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.maps(self.pool(x)).mean((2, 3)))


class Inception(TableNetwork):
    """Inception networks with batch normalisation (epsilon 1e-3).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    version
        ``v2``, ``v3``, ``v4`` or ``resnet_v2``.
    width
        Channels of the first convolution; all others keep the paper's ratio to it. None for the paper's: 64 in v2, 32
        in the others.
    depths
        Number of modules A, B and C; None for the paper's: (2, 4, 2), (3, 4, 2), (4, 7, 3), (10, 20, 10). Where they
        differ among each other, fewer are the first ones, and more repeat the last.
    stem
        ``paper``; ``small``: for tiles of 48 to 112 px. In v2, whose layers are all padded, the first convolution is
        3x3 and the first pooling is left out; in the others the first convolution has stride 1 and every convolution
        and pooling is padded. A map has about twice the size that the paper's stem would leave.
    aux
        With the auxiliary head of v3 behind the last module B: in training the network then gives `AuxOutputs`. It
        reads the image alone, not the scalars.
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
        version: Literal["v2", "v3", "v4", "resnet_v2"] = "v3",
        width: int | None = None,
        depths: Sequence[int] | None = None,
        stem: Literal["paper", "small"] = "paper",
        aux: bool = False,
        drop_rate: float = 0.2,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        check_choice("an Inception network", "version", version, tuple(VERSIONS))
        check_choice("an Inception network", "stem", stem, STEMS)
        made = VERSIONS[version]
        base = made.width
        width = base if width is None else width
        check_width("an Inception network", width)
        if aux and version != "v3":
            raise ValueError(f"aux is the auxiliary head of Inception version v3, got version {version!r}")
        depths = tuple(map(len, made.modules)) if depths is None else tuple(depths)
        if len(depths) != 3 or min(depths) < 1:
            raise ValueError(
                f"depths of an Inception network are the numbers of modules A, B, C, each at least 1, got {depths}"
            )
        assembler = Assembler(
            lambda chans: scaled_chans(chans, width, base),
            batch_norm_eps=BATCH_NORM_EPS,
            bias=False,
            pad_all=stem == "small",
        )
        super().__init__(in_chans, _table(made, stem, depths), assembler)
        if aux:
            behind = f"b{depths[1]}"
            chans = next(info.num_chs for info in self.feature_info if info.module == f"blocks.{behind}")
            self.auxiliary[behind] = InceptionAux(chans, assembler, num_outputs)
        init_he_normal(self)
        self.head = Head(self.num_features, num_outputs, n_scalars, scalars_hidden, drop_rate)


def _table(version: Version, stem: str, depths: Sequence[int]) -> dict[str, Steps]:
    """The blocks: stem1 ..., a1 ..., reduction_a, b1 ..., reduction_b, c1 ..., and what follows."""
    table = dict(version.stem if stem == "paper" else version.small_stem)
    reductions = (*version.reductions, None)
    for kind, modules, depth, reduction in zip("abc", version.modules, depths, reductions, strict=True):
        for number in range(1, depth + 1):
            table[f"{kind}{number}"] = (modules[min(number, len(modules)) - 1],)
        if reduction is not None:
            table[f"reduction_{kind}"] = (reduction,)
    if version.last is not None:
        table[f"c{depths[-1]}"] = (version.last,)
    return table | dict(version.tail)


def _inception(version: str, in_chans: int, num_outputs: int, kwargs: dict[str, Any], **entry: Any) -> Inception:
    return Inception(in_chans, num_outputs, **({"version": version} | entry | kwargs))


_REF = {"in_chans": 3, "num_outputs": 1000}


@register_model(paper="arXiv:1502.03167", ref=_REF, num_params=11_188_288)
def inception_v2(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Inception:
    """Inception-v2 (BN-Inception): GoogLeNet with batch normalisation, two 3x3 kernels for each 5x5."""
    return _inception("v2", in_chans, num_outputs, kwargs, drop_rate=0.0)  # [1], section 4.2.1: dropout removed


@register_model(paper="arXiv:1512.00567", ref=_REF, num_params=23_834_568)
def inception_v3(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Inception:
    """Inception-v3: n x n kernels factorised into 1 x n and n x 1."""
    return _inception("v3", in_chans, num_outputs, kwargs)


@register_model(paper="arXiv:1602.07261", ref=_REF, num_params=42_679_816)
def inception_v4(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Inception:
    """Inception-v4: uniform modules A, B and C."""
    return _inception("v4", in_chans, num_outputs, kwargs)


@register_model(paper="arXiv:1602.07261", ref=_REF, num_params=55_843_464)
def inception_resnet_v2(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Inception:
    """Inception-ResNet-v2: Inception modules as scaled residual branches."""
    return _inception("resnet_v2", in_chans, num_outputs, kwargs)
