"""What the families share: the interface of a network, its head with joined scalars, and small building blocks."""

from dataclasses import dataclass

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
    """

    in_chans: int
    min_size: int
    feature_info: list[FeatureInfo]
    head: nn.Module

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
    """

    def __init__(
        self, num_features: int, num_outputs: int, n_scalars: int = 0, hidden: int = 64, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
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


def init_he_normal(module: nn.Module) -> None:
    """He et al.'s initialisation of every convolution (mode fan-out), batch normalisation to the identity.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2015), arXiv:1502.01852, Eq. 14: keeps the variance of the gradients. Section 2.2
       there: fan-in or fan-out, either is enough.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
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


class PadShortcut(nn.Module):
    """Parameter-free shortcut, option A of He et al.: every stride-th pixel, new channels zero.

    The paper does not say where the zeros go; they follow the old channels, as in the authors' group's Torch code.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2016), arXiv:1512.03385, section 3.3 (A) and 4.2.
    .. [2] https://github.com/facebookarchive/fb.resnet.torch, models/resnet.lua, shortcut type A.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_chans = out_chans - in_chans

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_chans))
