"""Residual units in the five orders of He et al. 2016, from which the families of residual networks are built.

=======================  ==================================================  =======  ======
variant                  branch of a basic unit                              after +  [2]
=======================  ==================================================  =======  ======
`original`               conv BN ReLU conv BN                                ReLU     (a)
`bn_after_addition`      conv BN ReLU conv                                   BN ReLU  (b)
`relu_before_addition`   conv BN ReLU conv BN ReLU                           --       (c)
`relu_preact`            ReLU conv BN ReLU conv BN                           --       (d)
`full_preact`            BN ReLU conv BN ReLU conv                           --       (e)
=======================  ==================================================  =======  ======

The last two leave the shortcut free from end to end. Of their details, [2] (appendix) states that the first unit of a
network has no activation of its own, because the stem ends with one, and that one more follows the last addition.
Where the shape changes, a projection reads the activated input of the branch, as in the authors' code [3]; a padded
shortcut reads the unit's input itself, as in their group's code [4].

References
----------
.. [1] He, Zhang, Ren, Sun (2016), "Deep residual learning for image recognition", arXiv:1512.03385.
.. [2] He, Zhang, Ren, Sun (2016), "Identity mappings in deep residual networks", arXiv:1603.05027, Fig. 4.
.. [3] https://github.com/KaimingHe/resnet-1k-layers, resnet-pre-act.lua.
.. [4] https://github.com/facebookarchive/fb.resnet.torch, models/preresnet.lua.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.layers import PadShortcut, conv_bn

VARIANTS = ("original", "bn_after_addition", "relu_before_addition", "relu_preact", "full_preact")
PREACTIVATED = ("relu_preact", "full_preact")
SHORTCUTS = ("projection", "pad", "average_pad")

Convolution = tuple[int, int, int, int]
"""Input channels, output channels, kernel, stride."""


class ResidualBlock(nn.Module):
    """Residual branch + shortcut, then what the variant has after the addition ([1], Figs. 2 and 5).

    Parameters
    ----------
    residual
        The branch.
    shortcut
        The path of the input past it.
    act
        What follows the addition.
    before
        What precedes both (an activation that branch and shortcut share).
    """

    def __init__(
        self,
        residual: nn.Sequential,
        shortcut: nn.Module,
        act: nn.Module | None = None,
        before: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.residual = residual
        self.shortcut = shortcut
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.act(self.residual(x) + self.shortcut(x))


def residual_block(
    convolutions: Sequence[Convolution],
    variant: str = "original",
    shortcut: str = "projection",
    *,
    ends: Sequence[nn.Module] = (),
    first: bool = False,
) -> ResidualBlock:
    """One unit of a residual network.

    Parameters
    ----------
    convolutions
        Of the branch, in order.
    variant
        Order of convolutions, normalisations and activations: one of `VARIANTS`.
    shortcut
        Where the shape changes: one of `SHORTCUTS`.
    ends
        What the branch ends with (a gate, squeeze and excitation).
    first
        Whether it is the network's first unit, the input of which is activated already.
    """
    layers = _branch(convolutions, variant)
    before = None
    n_leading = {"relu_preact": 1, "full_preact": 2}.get(variant, 0)
    leading, layers = layers[:n_leading], layers[n_leading:]
    in_chans, out_chans = convolutions[0][0], convolutions[-1][1]
    stride = max(stride for *_, stride in convolutions)
    if stride == 1 and in_chans == out_chans:
        past = nn.Identity()
    elif shortcut == "projection":
        if leading and not first:
            before, leading = nn.Sequential(*leading), []
        projection = conv_bn(in_chans, out_chans, 1, stride)
        past = nn.Sequential(*(projection[:1] if variant == "full_preact" else projection))
    else:
        past = PadShortcut(in_chans, out_chans, stride, average=shortcut == "average_pad")
    if first:
        leading = []
    return ResidualBlock(nn.Sequential(*leading, *layers, *ends), past, _after_addition(variant, out_chans), before)


def _branch(convolutions: Sequence[Convolution], variant: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for in_chans, out_chans, kernel, stride in convolutions:
        convolution, norm = conv_bn(in_chans, out_chans, kernel, stride)
        if variant == "relu_preact":
            # the first one must leave the unit's input as it is: the shortcut reads it, too
            layers += [nn.ReLU(inplace=bool(layers)), convolution, norm]
        elif variant == "full_preact":
            layers += [nn.BatchNorm2d(in_chans), nn.ReLU(inplace=True), convolution]
        else:
            layers += [convolution, norm, nn.ReLU(inplace=True)]
    moved_behind_the_addition = {"original": 1, "bn_after_addition": 2}.get(variant, 0)
    return layers[: len(layers) - moved_behind_the_addition]


def _after_addition(variant: str, chans: int) -> nn.Module | None:
    if variant == "original":
        return nn.ReLU(inplace=True)
    if variant == "bn_after_addition":
        return nn.Sequential(nn.BatchNorm2d(chans), nn.ReLU(inplace=True))
    return None


def last_activation(variant: str, chans: int) -> nn.Sequential:
    """What a network of this variant needs between its last unit and the pooling; empty if nothing."""
    if variant == "relu_preact":
        return nn.Sequential(nn.ReLU())
    if variant == "full_preact":
        return nn.Sequential(nn.BatchNorm2d(chans), nn.ReLU())
    return nn.Sequential()


def zero_init_branch(block: ResidualBlock) -> None:
    """Let a branch start at zero: its last normalisation, or its last convolution where none follows."""
    last = [layer for layer in block.residual if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
