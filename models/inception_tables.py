"""The layers of Inception-v2, -v3, -v4 and Inception-ResNet-v2, as their papers' tables and diagrams give them.

The references [1] to [4], and the departures from them, are those of `models.inception`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from models.tables import Conv, Fork, Pool, Residual, Separable, Step, Steps


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
            _v2(160, 128, 160, 128, 160, _AVG, 96),  # 96: see the docstring of `models.inception`
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
    """1x3 and 3x1 side by side ([2], Fig. 7)."""
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
