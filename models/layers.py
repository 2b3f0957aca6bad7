"""Small building blocks that the families share."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(in_chans: int, out_chans: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution that keeps the size at stride 1, without bias, and the batch normalisation that replaces the bias."""
    convolution = nn.Conv2d(in_chans, out_chans, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out_chans)]


def init_he_normal(module: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """He et al.'s initialisation of every convolution, batch normalisation to the identity.

    Parameters
    ----------
    module
        Every convolution and batch normalisation in it is redrawn.
    mode
        Keep the variance of the gradients (``fan_out``) or of the activations (``fan_in``: for networks without
        normalisation, where 1x1 convolutions to few channels would let it grow).

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2015), arXiv:1502.01852, Eq. 14: keeps the variance of the gradients. Section 2.2
       there: fan-in or fan-out, either is enough.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if mode == "fan_out" and layer.groups > 1:
                # torch counts the outputs of all groups, of which an input reaches those of its own
                with torch.no_grad():
                    layer.weight.mul_(layer.groups**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


class ScaledTanh(nn.Module):
    """LeCun's squashing function 1.7159 tanh(2x/3): f(1) = 1, f(-1) = -1, strongest curvature there.

    References
    ----------
    .. [1] LeCun, Bottou, Bengio, Haffner (1998), Proc. IEEE 86, 2278, Appendix A.
    """

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class RandomisedLeakyReLU(nn.Module):
    """x above zero, a x below, with a slope `a` drawn for each element and call in training, its mean in evaluation.

    Parameters
    ----------
    lower, upper
        The slope is uniform between them.

    References
    ----------
    .. [1] Xu, Wang, Chen, Li (2015), "Empirical evaluation of rectified activations in convolutional network",
       arXiv:1505.00853, section 2.4. The range there, 1/8 to 1/3, is steeper than the one here.
    """

    def __init__(self, lower: float = 0.01, upper: float = 0.05) -> None:
        super().__init__()
        if not 0 <= lower <= upper:
            raise ValueError(f"slopes of a randomised leaky ReLU must be 0 <= lower <= upper, got {lower} and {upper}")
        self.lower = lower
        self.upper = upper

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.rrelu(x, self.lower, self.upper, training=True)
        return F.leaky_relu(x, (self.lower + self.upper) / 2)

    def extra_repr(self) -> str:
        return f"lower={self.lower:g}, upper={self.upper:g}"


class DropChannels(nn.Dropout2d):
    """Set whole feature maps to zero in training: pixels of one map are too alike to be dropped one by one.

    Torch takes a batch of three dimensions for one image without batch; here it is refused, for that would drop rows.

    References
    ----------
    .. [1] Tompson, Goroshin, Jain, LeCun, Bregler (2015), "Efficient object localization using convolutional
       networks", arXiv:1411.4280, section 3.2 (spatial dropout).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"dropping channels needs maps of 4 dimensions (N, C, H, W), got {tuple(x.shape)}")
        return super().forward(x)


class PadShortcut(nn.Module):
    """Parameter-free shortcut, option A of He et al.: every stride-th pixel, new channels zero.

    The paper does not specify where the zeros go; they follow the old channels, as in the authors' group's Torch code.

    Parameters
    ----------
    in_chans, out_chans, stride
        How the shape changes.
    average
        Average stride x stride pixels instead of taking one of them.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2016), arXiv:1512.03385, section 3.3 (A) and 4.2.
    .. [2] https://github.com/facebookarchive/fb.resnet.torch, models/resnet.lua, shortcut type A.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int, average: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.average = average
        self.new_chans = out_chans - in_chans

    def forward(self, x: Tensor) -> Tensor:
        if self.average:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)  # at an odd rim, the remaining pixels
        else:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new_chans))


class SqueezeExcite(nn.Module):
    """Scale each channel by a number in (0, 1) that the means of all channels decide.

    Parameters
    ----------
    chans
        Channels of the maps.
    reduction
        The hidden layer has ``floor(chans / reduction)`` units, but at least `MIN_HIDDEN`: the published networks
        have no fewer, and a single ReLU unit that dies would freeze a narrow network's gates for good.

    References
    ----------
    .. [1] Hu, Shen, Albanie, Sun, Wu (2018), "Squeeze-and-excitation networks", arXiv:1709.01507, section 3.
    """

    MIN_HIDDEN = 4  # of [1]'s networks, the narrowest: 64 channels, reduction 16

    def __init__(self, chans: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(chans // reduction, self.MIN_HIDDEN)
        self.reduce = nn.Conv2d(chans, hidden, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(hidden, chans, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(self.act(self.reduce(squeezed))))


class StochasticGate(nn.Module):
    """Keep or drop a residual branch: one draw per call, the same for every image of the mini-batch.

    In training the branch is multiplied by 1 with probability `survival`, else by 0; in evaluation by `survival`
    itself, its mean. It is always computed: without a branch of the program, every parameter has a gradient in every
    step (zero when dropped), which distributed training needs, and compiled code needs no second version.

    References
    ----------
    .. [1] Huang, Sun, Liu, Sedra, Weinberger (2016), "Deep networks with stochastic depth", arXiv:1603.09382,
       Eqs. 2 and 5.
    """

    def __init__(self, survival: float) -> None:
        super().__init__()
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.survival
        return x * (torch.rand((), device=x.device) < self.survival)

    def extra_repr(self) -> str:
        return f"survival={self.survival:g}"


def scaled_chans(chans: int, width: int, base: int, multiple: int = 1) -> int:
    """A paper's number of channels at another width, rounded to a multiple; equal to `chans` at ``width == base``.

    Parameters
    ----------
    chans
        The paper's number.
    width, base
        Channels of the first convolution here and in the paper.
    multiple
        What the number must be divisible by (groups).
    """
    return max(1, (2 * chans * width + base * multiple) // (2 * base * multiple)) * multiple


class PoolTo(nn.Module):
    """Maps of any size to `side` x `side`, by averages or maxima over bins that cover the map.

    The bins are those of `torch.nn.AdaptiveAvgPool2d` and `AdaptiveMaxPool2d`: bin i of a side of n elements goes from
    floor(i n / side) to ceil((i + 1) n / side), so that they overlap where `side` does not divide n and repeat elements
    where the map is the smaller. Written as products with matrices and as a gathering, it exports to ONNX for every
    size, and its gradient is the same in each run on a GPU, which torch's is not.

    Parameters
    ----------
    side
        Height and width of the result.
    kind
        ``avg`` or ``max``.
    """

    def __init__(self, side: int, kind: Literal["avg", "max"]) -> None:
        super().__init__()
        self.side = side
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) == (self.side, self.side):
            return x
        bins = [self.bins(size) for size in x.shape[2:]]
        if self.kind == "avg":
            rows, columns = (self._average(size, part, x) for size, part in zip(x.shape[2:], bins, strict=True))
            return rows @ x @ columns.T
        for dim, part in zip((2, 3), bins, strict=True):
            longest = max(stop - start for start, stop in part)
            # a shorter bin repeats its last element, which changes no maximum
            places = [[min(start + i, stop - 1) for start, stop in part] for i in range(longest)]
            x = torch.stack([x.index_select(dim, torch.tensor(place, device=x.device)) for place in places]).amax(0)
        return x

    def bins(self, size: int) -> list[tuple[int, int]]:
        """First element and the one behind the last, of each bin of a side of `size` elements."""
        return [(i * size // self.side, -(-(i + 1) * size // self.side)) for i in range(self.side)]

    @staticmethod
    def _average(size: int, bins: list[tuple[int, int]], like: Tensor) -> Tensor:
        weights = [[(start <= i < stop) / (stop - start) for i in range(size)] for start, stop in bins]
        return torch.tensor(weights, device=like.device, dtype=like.dtype)

    def extra_repr(self) -> str:
        return f"side={self.side}, kind={self.kind!r}"
