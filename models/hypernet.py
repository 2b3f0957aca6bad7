"""Static hypernetworks: convolutions whose kernels a small shared network generates from learned embeddings.

A basic kernel of N_in x N_out channels and f x f pixels comes from an embedding z of N_z numbers by two linear layers
([1], Eq. 2): a_i = W_i z + B_i for each input channel i, then K_i = <W_out, a_i> + B_out with a common W_out. A larger
kernel is tiled from basic ones, each with an embedding of its own (Eq. 3). The parameters are, with hidden size d and
D basic kernels in all,

    d (N_z + 1) N_in  +  f^2 N_out (d + 1)  +  D N_z

`hypernet` (sections 4.1 and A.3.1; layers from the authors' notebook [2]): 7x7 convolution to 16 maps, max pooling, a
generated 7x7 convolution 16 -> 16, max pooling, linear outputs; N_z = d = 4. The generator has 320 + 3,920 = 4,240
parameters and the embedding 4, where the kernel itself would have 12,544; with 800 + 16 + 7,850 of the other layers,
all is 12,910.

`hypernet_wrn40_2` (section 4.2): WRN-40-2, the 36 kernels of its three groups generated in pieces of 16 x 16 channels;
N_z = d = 64. The paper gives 0.148 M parameters without saying which. The generator has 75,920 and the 966 embeddings
61,824. All four counts of its Table 2 come out with shortcuts that have no parameters and three numbers per channel of
each convolution, read here as a bias and the two of batch normalisation:

===========  =========  ==========  =============  ===========  ==========  ============  =======
network      generator  embeddings  first 3x3      3 per chan.  classifier  sum           paper
===========  =========  ==========  =============  ===========  ==========  ============  =======
hyper 40-1      75,920      15,488            432        4,080         650        96,570  0.097 M
hyper 40-2      75,920      61,824            432        8,112       1,290       147,578  0.148 M
plain 40-1          --     557,568 (direct)   432        4,080         650       562,730  0.563 M
plain 40-2          --   2,225,664 (direct)   432        8,112       1,290     2,235,498  2.236 M
===========  =========  ==========  =============  ===========  ==========  ============  =======

(The last misses the rounding by 2.) Batch normalisation cancels these biases, so that they learn nothing: only the
reference configuration has them, `bias=True`; without, the network has 144,874 parameters.

Departures: the start of the weights, see `KernelGenerator`; `hypernet` averages its last maps to 7 x 7 on tiles larger
than MNIST's 28 px, so that any tile of 28 px or more is accepted.

References
----------
.. [1] Ha, Dai, Le (2016), "HyperNetworks", arXiv:1609.09106.
.. [2] https://github.com/hardmaru/supercell, assets/MNIST_Static_HyperNetwork_Example.ipynb.
.. [3] Zagoruyko, Komodakis (2016), "Wide residual networks", arXiv:1605.07146.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import Head
from models.layers import PoolTo, init_he_normal
from models.registry import register_model
from models.resnet import ResNet
from models.tile_model import FeatureInfo, TileModel

MAP_SIZE = 7  # of `hypernet` behind its second pooling, on the 28 px of MNIST


class KernelGenerator(nn.Module):
    """Two linear layers from embeddings to basic kernels, and these tiled to larger ones ([1], Eqs. 2 and 3).

    Both weight matrices start with orthogonal columns, scaled so that the mean square of a generated kernel equals
    that of its embedding; biases start at zero. An embedding of mean square v (see `HyperConv2d`) then gives weights
    of variance v, exactly where both matrices have at least as many rows as columns. ([1] does not give how its static
    networks start, [2] draws every weight with a deviation of 0.01, which is too little for more than one layer.)

    Parameters
    ----------
    chans
        Input and output channels of a basic kernel.
    kernel
        Its height and width.
    embedding
        Numbers per embedding, N_z; the hidden size d is the same, as in [1].
    """

    def __init__(self, chans: int, kernel: int, embedding: int) -> None:
        super().__init__()
        self.chans = chans
        self.kernel = kernel
        self.embedding = embedding
        self.project = nn.Linear(embedding, chans * embedding)
        self.emit = nn.Linear(embedding, chans * kernel**2)
        for layer in (self.project, self.emit):
            nn.init.orthogonal_(layer.weight, gain=max(1, layer.out_features / layer.in_features) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (rows, columns, N_z) to a kernel (columns * chans, rows * chans, f, f); rows are of the input."""
        rows, columns, _ = embeddings.shape
        slices = self.emit(self.project(embeddings).reshape(rows, columns, self.chans, self.embedding))
        basic = slices.reshape(rows, columns, self.chans, self.chans, self.kernel, self.kernel)
        return basic.permute(1, 3, 0, 2, 4, 5).reshape(columns * self.chans, rows * self.chans, *basic.shape[4:])


class HyperConv2d(nn.Module):
    """Convolution that keeps the size at stride 1, with a generated kernel: its own are only the embeddings.

    The embeddings start with a mean square of 2 / (f^2 out_chans) each, so that the generated weights have the
    variance of He et al.'s initialisation (mode fan-out, as `init_he_normal`) whatever the size of the layer.

    Parameters
    ----------
    in_chans, out_chans
        Multiples of the generator's channels.
    generator
        Of all layers that share it. It belongs to the network, not to this layer: saved and counted once.
    stride
        Of the convolution.
    bias
        Whether to add a learned bias.
    """

    def __init__(
        self, in_chans: int, out_chans: int, generator: KernelGenerator, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        if in_chans % generator.chans or out_chans % generator.chans:
            raise ValueError(
                f"channels of a generated kernel must be multiples of {generator.chans}, got {in_chans} and {out_chans}"
            )
        self._generator = (generator,)  # in a tuple, torch does not make it a part of this layer
        self.stride = stride
        drawn = torch.randn(in_chans // generator.chans, out_chans // generator.chans, generator.embedding)
        mean_square = 2 / (generator.kernel**2 * out_chans)
        self.embeddings = nn.Parameter(drawn * (mean_square / drawn.square().mean(2, keepdim=True)).sqrt())
        self.bias = nn.Parameter(torch.zeros(out_chans)) if bias else None

    @property
    def generator(self) -> KernelGenerator:
        return self._generator[0]

    def weight(self) -> Tensor:
        """The kernel, (out_chans, in_chans, f, f)."""
        return self.generator(self.embeddings)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, self.stride, self.generator.kernel // 2)

    def extra_repr(self) -> str:
        rows, columns, size = self.embeddings.shape
        return f"{rows} x {columns} embeddings of {size}, stride={self.stride}, bias={self.bias is not None}"


class HyperNet(TileModel):
    """Two convolutions of which the second has a generated kernel ([1], section 4.1).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    width
        Maps of both convolutions.
    embedding
        Numbers from which the second kernel is generated.
    drop_rate
        Dropout before the last layer.
    n_scalars
        Scalars per tile joined to the features.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    min_size = 4 * MAP_SIZE
    head_reads_positions = True

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        width: int = 16,
        embedding: int = 4,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        _check_positive("HyperNet", width=width, embedding=embedding)
        self.in_chans = in_chans
        self.generator = KernelGenerator(width, 7, embedding)
        self.conv1 = nn.Conv2d(in_chans, width, 7, padding=3)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = HyperConv2d(width, width, self.generator, bias=True)
        self.pool2 = nn.MaxPool2d(2)
        self.act = nn.ReLU()
        init_he_normal(self)
        self.feature_info = [FeatureInfo("pool1", width, 2), FeatureInfo("pool2", width, 4)]
        self.pool_to = PoolTo(MAP_SIZE, "avg")
        self.head = Head(width * MAP_SIZE**2, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        x = self.pool1(self.act(self.conv1(x)))
        return self.pool2(self.act(self.conv2(x)))

    def forward_head(self, features: Tensor, scalars: Tensor | None = None) -> Tensor:
        """The maps, averaged to 7 x 7 pixels, flattened."""
        return self.head(self.pool_to(features).flatten(1), scalars)


class HyperResNet(ResNet):
    """Wide residual network whose 3x3 kernels, but for the first, are generated ([1], section 4.2).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    depths
        Number of residual blocks per group.
    width
        Channels of the first convolution, and of a basic kernel.
    widen
        Channels of the first group are `widen` x `width`; each further group doubles them.
    embedding
        Numbers from which a basic kernel is generated.
    shortcut
        Where the shape changes, as in `ResNet`.
    bias
        Whether the convolutions have biases, which batch normalisation cancels; see the module.
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
        depths: Sequence[int] = (6, 6, 6),
        width: int = 16,
        widen: int = 2,
        embedding: int = 64,
        shortcut: Literal["projection", "pad", "average_pad"] = "pad",
        bias: bool = False,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        _check_positive("HyperResNet", embedding=embedding)
        super().__init__(
            in_chans,
            num_outputs,
            depths=depths,
            width=width,
            widen=widen,
            stem="cifar",
            shortcut=shortcut,
            variant="full_preact",
            drop_rate=drop_rate,
            n_scalars=n_scalars,
            scalars_hidden=scalars_hidden,
        )
        self.generator = KernelGenerator(width, 3, embedding)
        for block in (block for stage in self.stages for block in stage):
            for position, layer in enumerate(block.residual):
                if isinstance(layer, nn.Conv2d):
                    block.residual[position] = HyperConv2d(
                        layer.in_channels, layer.out_channels, self.generator, layer.stride[0], bias
                    )
        if bias:
            self.stem[0].bias = nn.Parameter(torch.zeros(width))


def _check_positive(name: str, **arguments: int) -> None:
    for argument, value in arguments.items():
        if value < 1:
            raise ValueError(f"{argument} of a {name} must be at least 1, got {value}")


_PAPER = "arXiv:1609.09106"


@register_model(paper=_PAPER, ref={"in_chans": 1, "num_outputs": 10}, num_params=12_910)
def hypernet(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> HyperNet:
    """Two convolutions for MNIST, the second kernel generated (section 4.1)."""
    return HyperNet(in_chans, num_outputs, **kwargs)


@register_model(paper=_PAPER, ref={"in_chans": 3, "num_outputs": 10, "bias": True}, num_params=147_578)
def hypernet_wrn40_2(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> HyperResNet:
    """WRN-40-2 with generated kernels (section 4.2)."""
    return HyperResNet(in_chans, num_outputs, **kwargs)
