"""Inception-v2, -v3, -v4 and Inception-ResNet-v2: modules of parallel branches with batch normalisation.

Names follow [3], section 1: v1 is GoogLeNet (`googlenet`), v2 the one that came with batch normalisation [1], v3 the
one with factorised kernels [2], v4 and Inception-ResNet [3]. Modules are called A, B and C after their resolution (35,
17 and 8 px at 299 px), as in [3].

Parameter counts
    inception_v2        11,188,288: Fig. 5 of [1], layer by layer below
    inception_v3        23,834,568, with the auxiliary head 27,161,264: torchvision 0.29.1, measured
    inception_v4        42,679,816: timm 1.0.31, measured
    inception_resnet_v2 55,843,464: timm 1.0.31, measured

The papers' tables are in `models.inception_tables`.

Inception-v2. Fig. 5 of [1] contradicts itself: its pooling branches of 4c and 4d end with 128 channels, which would
make 608 where its column of output sizes has 576, and 1056 instead of 1024 behind 4e. The authors' code [4] follows
the output sizes, with 96 channels, and so does this one. Parameters, scale and shift of the normalisation included, no
biases but the last layer's:

    first convolution (depthwise 1,176, 1x1 1,664) 2,840; second 115,200
    3a 219,072; 3b 260,160; 3c 385,088
    4a 609,984; 4b 665,344; 4c 895,936; 4d 1,108,032; 4e 1,439,744
    5a 2,182,272; 5b 2,279,616; last layer 1,025,000

The text of [1] has 13.6 million, which its figure does not give (11,278,528 as printed, with 128 channels). The
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

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from models.heads import Head
from models.inception_tables import VERSIONS, Version
from models.layers import init_he_normal, scaled_chans
from models.registry import register_model
from models.tables import Assembler, AuxPool, Conv, Steps, TableNetwork, check_choice, check_width

STEMS = ("paper", "small")
BATCH_NORM_EPS = 1e-3  # [4], inception_utils.py; torch's own default is 1e-5
AUX_CHANS, AUX_FEATURES, AUX_SIDE = 128, 768, 5  # [2], Fig. 8; [4]


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
        3x3 and the first pooling is omitted; in the others the first convolution has stride 1 and every convolution
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
