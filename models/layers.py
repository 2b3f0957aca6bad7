"""What the families share: the interface of a network, its head with joined scalars, and small building blocks."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureInfo:
    """One level of features, for use of a network as an encoder (timm's `feature_info`)."""

    module: str
    """Name of the submodule whose output it is (`Module.get_submodule`)."""
    num_chs: int
    reduction: int
    """Input pixels per feature pixel along one side."""


class AuxOutputs(NamedTuple):
    """What a network with auxiliary heads gives in training; in evaluation it gives the main outputs alone."""

    main: Tensor
    auxiliary: tuple[Tensor, ...]


class TileModel(nn.Module):
    """A network with one vector of outputs per tile.

    A family defines `forward_features`, and sets the attributes below in its constructor.

    Attributes
    ----------
    in_chans : int
        Channels of the input.
    min_size : int
        Smallest height and width of a tile; below it the network refuses with a message that names it.
    feature_info : list of FeatureInfo
        The levels of features, finest first.
    head : nn.Module
        Called with the pooled features and the scalars; has ``reset(num_outputs)``.
    head_reads_positions : bool
        Whether fully connected layers read the last maps, so that what one element of these maps sees of the tile is
        not all that the outputs see.
    """

    in_chans: int
    min_size: int
    feature_info: list[FeatureInfo]
    head: nn.Module
    head_reads_positions: bool = False

    def forward_features(self, x: Tensor) -> Tensor:
        """Tiles (N, C, H, W) to the last feature maps (N, F, h, w)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, scalars: Tensor | None = None) -> Tensor:
        """Feature maps (N, F, h, w), and scalars (N, n_scalars) if it takes any, to outputs (N, num_outputs)."""
        return self.head(features.mean((2, 3)), scalars)

    def forward(self, x: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x), scalars)

    def reset_head(self, num_outputs: int) -> None:
        """Draw a new last layer with `num_outputs` outputs; what is before it keeps its weights (transfer learning)."""
        self.head.reset(num_outputs)

    def check_tile(self, x: Tensor) -> None:
        """Refuse tiles that the network cannot take.

        Raises
        ------
        ValueError
            For another number of channels or a tile smaller than `min_size`.
        """
        if torch.compiler.is_compiling():  # in an exported graph a test of the shape would freeze it
            return
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"{name} was built for tiles (N, {self.in_chans}, H, W), got {tuple(x.shape)}")
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f"a tile of {x.shape[2]} x {x.shape[3]} px is too small for {name}; the smallest is {self.min_size} px"
            )


class Head(nn.Module):
    """Pooled features, joined by scalars if there are any, to outputs.

    Without scalars it is the one linear layer of the papers. Scalars pass two layers of their own, and a hidden layer
    follows the join: what a length tells depends on the size and the distance that come with it, and on what the
    convolutions saw. (Joined bare, they are learned far slower than by a network of their own.)

    Parameters
    ----------
    num_features
        Length of the pooled feature vector.
    num_outputs
        Length of the output vector.
    n_scalars
        Length of the vector of scalars; they should come standardised (mean 0, rms 1).
    hidden
        Width of the scalars' layers and of the one after the join.
    drop_rate
        Probability with which an input of the last layer is dropped in training.

    Raises
    ------
    ValueError
        If there are less than 0 scalars, or hidden layers without units: their outputs would not depend on the image.
    """

    def __init__(
        self, num_features: int, num_outputs: int, n_scalars: int = 0, hidden: int = 64, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        if n_scalars < 0 or hidden < 1:
            raise ValueError(
                f"n_scalars must be at least 0 and scalars_hidden at least 1, got {n_scalars} and {hidden}"
            )
        self.n_scalars = n_scalars
        self.embed, self.join = nn.Sequential(), nn.Sequential()
        if n_scalars:
            self.embed = nn.Sequential(*_linear_relu(n_scalars, hidden), *_linear_relu(hidden, hidden))
            self.join = nn.Sequential(*_linear_relu(num_features + hidden, hidden))
        self.drop = nn.Dropout(drop_rate)
        self.output = nn.Linear(hidden if n_scalars else num_features, num_outputs)

    def forward(self, pooled: Tensor, scalars: Tensor | None = None) -> Tensor:
        check_scalars(scalars, self.n_scalars)
        if scalars is not None:
            pooled = torch.cat([pooled, self.embed(scalars.to(pooled.dtype))], dim=1)
        return self.output(self.drop(self.join(pooled)))

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer."""
        self.output = new_linear_like(self.output, num_outputs)


def _linear_relu(num_inputs: int, num_outputs: int) -> list[nn.Module]:
    linear = nn.Linear(num_inputs, num_outputs)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return [linear, nn.ReLU()]


def check_scalars(scalars: Tensor | None, n_scalars: int) -> None:
    """Refuse scalars that a network was not built for.

    Raises
    ------
    ValueError
        If they are missing, not expected, or of another number.
    """
    got = 0 if scalars is None else scalars.shape[-1]
    if got != n_scalars:
        raise ValueError(f"the network was built for {n_scalars} scalars per tile, got {got}")


def join_scalars(pooled: Tensor, scalars: Tensor | None, n_scalars: int) -> Tensor:
    """Pooled features (N, F) and scalars (N, n_scalars) side by side.

    Raises
    ------
    ValueError
        If scalars are missing, not expected, or of another number.
    """
    check_scalars(scalars, n_scalars)
    if scalars is None:
        return pooled
    return torch.cat([pooled, scalars.to(pooled.dtype)], dim=1)


def new_linear_like(old: nn.Linear, num_outputs: int) -> nn.Linear:
    """A freshly drawn linear layer with the inputs, device and type of another one."""
    return nn.Linear(old.in_features, num_outputs, device=old.weight.device, dtype=old.weight.dtype)


def conv_bn(in_chans: int, out_chans: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution that keeps the size at stride 1, without bias, and the batch normalisation that replaces the bias."""
    convolution = nn.Conv2d(in_chans, out_chans, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out_chans)]


def init_he_normal(module: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """He et al.'s initialisation of every convolution, batch normalisation to the identity.

    Parameters
    ----------
    module
        Every convolution and batch normalisation in it is drawn anew.
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

    The paper does not say where the zeros go; they follow the old channels, as in the authors' group's Torch code.

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
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)  # of an odd rim, the pixels that there are
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


def surviving_paths(n_paths: int, drop_rate: float, device: torch.device | None = None) -> Tensor:
    """Weights of the paths that meet in a join, after dropping some: equal for the survivors, sum 1.

    Parameters
    ----------
    n_paths
        Number of paths.
    drop_rate
        Probability with which each is dropped. If that hits them all, one drawn at random survives.
    device
        Where to draw.

    Returns
    -------
    Tensor, shape (n_paths,)

    References
    ----------
    .. [1] Larsson, Maire, Shakhnarovich (2017), "FractalNet", arXiv:1605.07648, section 3 (local drop-path).
    """
    draw = torch.rand(n_paths, device=device)
    survives = (draw >= drop_rate) | (draw == draw.max())
    return survives / survives.sum()


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


class DenseHead(nn.Module):
    """Head of AlexNet and VGG: the last maps at a fixed size, two hidden layers, outputs.

    Parameters
    ----------
    in_chans
        Channels of the maps.
    pool
        Brings them to their size, so that a tile of any size fits the first layer.
    hidden
        Width of the two hidden layers; dropout follows each of them.
    num_outputs, n_scalars, scalars_hidden, drop_rate
        As for `Head`, which follows.
    """

    def __init__(
        self,
        in_chans: int,
        pool: PoolTo,
        hidden: int,
        num_outputs: int,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        self.pool = pool
        first = _linear_relu(in_chans * pool.side**2, hidden)
        self.hidden = nn.Sequential(*first, nn.Dropout(drop_rate), *_linear_relu(hidden, hidden))
        self.head = Head(hidden, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward(self, maps: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(self.pool(maps).flatten(1)), scalars)

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer."""
        self.head.reset(num_outputs)
