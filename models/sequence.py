"""Networks for showers that several telescopes saw: one encoder for all images, then a join over the telescopes.

Each image passes the same encoder, any tile network of the registry without its head. The averaged features of an
image, and the scalars that belong to it, become one vector per telescope; a join makes one vector of a shower's
variable number of telescopes, and a linear layer gives the outputs.

=================== ========== ======== ==============================================================================
entry               parameters order    join
=================== ========== ======== ==============================================================================
`stereo_mean`       11,210,433 free     mean over the telescopes, then a hidden layer (deep sets [1])
`stereo_lstm`       11,239,553 matters  LSTM over the telescopes, as in [2]
`hyper_lstm`        11,265,505 matters  HyperLSTM over the telescopes [3]
`stereo_attention`  11,306,433 free     self-attention among the telescopes and a token that collects [4]
=================== ========== ======== ==============================================================================

Where the order matters, it must follow the same rule in training and in prediction: by telescope, or by image size
([5] found no gain in sorting by size).

Reference configuration: two input channels (charge, time), one output, ResNet-18 as the encoder (11,173,376 parameters
without its head), vectors of W = 64. The parameters of the rest, with F = 512 features of the encoder, smaller cells of
n = 32 units and embeddings of N_z = 4:

    vector per telescope  (F + 1) W                                     all joins
    mean                  (W + 1) W
    LSTM                  4 W (2 W + 2)                                 torch's cell has two biases
    HyperLSTM             see `models.hyper_lstm` with N_x = N_h = W
    attention             2 (12 W + 13) W + 2 W + W                     two layers, last normalisation, token
    outputs               W + 1                                         all joins

Showers in a batch differ in the number of telescopes, so images come as one batch (M, C, H, W) with all telescopes of
all showers, and a table (N, T) lists which images belong to which shower. The encoder then computes no padding, and
no padding enters the statistics of its batch normalisation.

References
----------
.. [1] Zaheer et al. (2017), "Deep sets", arXiv:1703.06114, Theorem 2.
.. [2] Shilon et al. (2019), "Application of deep learning methods to analysis of imaging atmospheric Cherenkov
   telescopes data", arXiv:1803.10698.
.. [3] Ha, Dai, Le (2016), "HyperNetworks", arXiv:1609.09106.
.. [4] Vaswani et al. (2017), "Attention is all you need", arXiv:1706.03762, section 3.2. Normalisation comes before
   attention and hidden layers, which trains without warm-up: Xiong et al. (2020), arXiv:2002.04745.
.. [5] Brill et al. (2019), "Investigating a deep learning method to analyze images from multiple gamma-ray
   telescopes", arXiv:2001.03602.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import Head
from models.hyper_lstm import HyperLSTMCell
from models.registry import create_model, register_model
from models.tile_model import TileModel

JOINS = ("mean", "lstm", "hyper_lstm", "attention")
NO_TELESCOPE = -1


def telescope_table(n_telescopes: Sequence[int] | Tensor) -> Tensor:
    """Table of showers whose images follow each other in the batch.

    Parameters
    ----------
    n_telescopes
        Number of images of each shower.

    Returns
    -------
    Tensor, shape (N, T), int64
        Positions of the images in the batch; -1 where a shower has fewer than T.
    """
    counts = torch.as_tensor(n_telescopes)
    if counts.ndim != 1 or not len(counts) or counts.min() < 1:
        raise ValueError(f"each shower needs at least one telescope, got the numbers {counts.tolist()}")
    number = torch.arange(int(counts.max()), device=counts.device)
    first = counts.cumsum(0) - counts
    return torch.where(number < counts[:, None], first[:, None] + number, NO_TELESCOPE)


class MeanJoin(nn.Module):
    """Mean over the telescopes, then a hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, vectors: Tensor, padding: Tensor) -> Tensor:
        """Vectors (N, T, width) and padding (N, T), True where a telescope is missing, to (N, width)."""
        keep = (~padding)[..., None].to(vectors.dtype)
        return self.hidden((vectors * keep).sum(1) / keep.sum(1).clamp(min=1))


class RecurrentJoin(nn.Module):
    """Last output of a recurrent cell that reads telescope after telescope, and keeps its state where one is missing.

    Parameters
    ----------
    cell
        Takes an input and a state, gives the new state, the first part of which is its output.
    state_sizes
        Lengths of the parts of the state.
    """

    def __init__(self, cell: nn.Module, state_sizes: Sequence[int]) -> None:
        super().__init__()
        self.cell = cell
        self.state_sizes = tuple(state_sizes)

    def forward(self, vectors: Tensor, padding: Tensor) -> Tensor:
        """Vectors (N, T, width) and padding (N, T), True where a telescope is missing, to (N, units)."""
        state = tuple(vectors.new_zeros(vectors.shape[0], size) for size in self.state_sizes)
        for telescope in range(vectors.shape[1]):
            after = self.cell(vectors[:, telescope], state)
            absent = padding[:, telescope, None]
            state = tuple(torch.where(absent, old, new) for old, new in zip(state, after, strict=True))
        return state[0]


class AttentionLayer(nn.Module):
    """Self-attention of several heads and a hidden layer of four times the width, each added to its input ([4])."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.hidden = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, vectors: Tensor, keep: Tensor) -> Tensor:
        n_showers, n_vectors, width = vectors.shape
        split = self.queries_keys_values(self.norm(vectors)).reshape(n_showers, n_vectors, 3, self.heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=keep[:, None, None, :])
        vectors = vectors + self.mix(seen.transpose(1, 2).reshape(n_showers, n_vectors, width))
        return vectors + self.hidden(vectors)


class AttentionJoin(nn.Module):
    """What a learned token has collected from the telescopes, which look at each other, too.

    Parameters
    ----------
    width
        Length of the vectors.
    heads
        Number of attention heads; divides `width`.
    layers
        Number of attention layers.
    """

    def __init__(self, width: int, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads of the attention must divide its width of {width}, got {heads}")
        if layers < 1:
            raise ValueError(f"layers of the attention must be at least 1, got {layers}")
        self.token = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(AttentionLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor, padding: Tensor) -> Tensor:
        """Vectors (N, T, width) and padding (N, T), True where a telescope is missing, to (N, width)."""
        token = self.token.to(vectors.dtype).expand(vectors.shape[0], 1, -1)
        vectors = torch.cat([token, vectors], 1)
        keep = F.pad(~padding, (1, 0), value=True)
        for layer in self.layers:
            vectors = layer(vectors, keep)
        return self.norm(vectors[:, 0])


class ShowerHead(nn.Module):
    """From the pooled features of all images to one vector of outputs per shower.

    Parameters
    ----------
    num_features, num_outputs
        Length of an image's features, length of a shower's outputs.
    join
        From (N, T, width) and padding (N, T) to (N, width).
    width
        Length of the vector of one telescope.
    n_scalars, scalars_hidden
        Scalars per image, width of their own layers.
    drop_rate
        Probability with which an input of the last layer is dropped in training.
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        join: nn.Module,
        width: int,
        n_scalars: int,
        scalars_hidden: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.telescope = Head(num_features, width, n_scalars, scalars_hidden)
        self.act = nn.ReLU()
        self.join = join
        self.shower = Head(width, num_outputs, drop_rate=drop_rate)

    def forward(self, pooled: Tensor, scalars: Tensor | None = None, members: Tensor | None = None) -> Tensor:
        vectors = self.act(self.telescope(pooled, scalars))
        if members is None:
            members = torch.arange(vectors.shape[0], device=vectors.device)[:, None]
        joined = self.join(vectors[members.clamp(min=0)], members < 0)
        return self.shower(joined)

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer."""
        self.shower.reset(num_outputs)


class ShowerModel(TileModel):
    """One encoder for the images of all telescopes, one vector of outputs per shower.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the images, length of a shower's output vector.
    encoder
        Name of the tile network that reads each image.
    encoder_kwargs
        Its arguments.
    join
        ``mean``, ``lstm``, ``hyper_lstm`` or ``attention``; see the module.
    width
        Length of the vector of one telescope, and of the joined one.
    hyper_units, embedding
        HyperLSTM: units of the smaller cell, length of its embeddings.
    heads, layers
        Attention: heads per layer, layers.
    drop_rate
        Dropout before the last layer.
    n_scalars
        Scalars per image: Hillas parameters, position and pointing of the telescope.
    scalars_hidden
        Width of the scalars' own layers and of the one after they join the features.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        encoder: str = "resnet18",
        encoder_kwargs: Mapping[str, Any] | None = None,
        join: Literal["mean", "lstm", "hyper_lstm", "attention"] = "mean",
        width: int = 64,
        hyper_units: int = 32,
        embedding: int = 4,
        heads: int = 4,
        layers: int = 2,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        for argument, value in (("width", width), ("hyper_units", hyper_units), ("embedding", embedding)):
            if value < 1:
                raise ValueError(f"{argument} of a ShowerModel must be at least 1, got {value}")
        for argument in ("n_scalars", "aux"):
            if encoder_kwargs and encoder_kwargs.get(argument):
                raise ValueError(f"encoder_kwargs name {argument}, which belongs to the head that an encoder lacks")
        self.in_chans = in_chans
        self.encoder = create_model(encoder, in_chans, **(encoder_kwargs or {}))
        if not isinstance(self.encoder, TileModel) or isinstance(self.encoder, ShowerModel):
            raise ValueError(f"encoder of a ShowerModel must be a network for tiles, got {encoder!r}")
        self.encoder.head = nn.Identity()
        self.min_size = self.encoder.min_size
        self.feature_info = [replace(info, module=f"encoder.{info.module}") for info in self.encoder.feature_info]
        num_features = self._num_features()
        if join == "mean":
            joining = MeanJoin(width)
        elif join == "lstm":
            joining = RecurrentJoin(nn.LSTMCell(width, width), (width, width))
        elif join == "hyper_lstm":
            cell = HyperLSTMCell(width, width, hyper_units, embedding)
            joining = RecurrentJoin(cell, cell.state_sizes)
        elif join == "attention":
            joining = AttentionJoin(width, heads, layers)
        else:
            raise ValueError(f"join of a ShowerModel must be one of {', '.join(JOINS)}, got {join!r}")
        self.head = ShowerHead(num_features, num_outputs, joining, width, n_scalars, scalars_hidden, drop_rate)

    def _num_features(self) -> int:
        """Channels of the encoder's last maps."""
        self.encoder.eval()  # neither a statistic nor the random generator must notice the trial
        with torch.no_grad():
            maps = self.encoder.forward_features(torch.zeros(1, self.in_chans, self.min_size, self.min_size))
        self.encoder.train()
        return maps.shape[1]

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (M, C, H, W) of all telescopes of all showers to the encoder's last maps (M, F, h, w)."""
        self.check_tile(x)
        return self.encoder.forward_features(x)

    def forward_head(self, features: Tensor, scalars: Tensor | None = None, members: Tensor | None = None) -> Tensor:
        """Maps (M, F, h, w), and scalars (M, n_scalars) if it takes any, to outputs (N, num_outputs).

        `members` (N, T) lists which images belong to which shower, see `telescope_table`; without, each image is a
        shower of its own. A shower of which no image is named gives finite outputs without meaning.
        """
        return self.head(features.mean((2, 3)), scalars, members)

    def forward(self, x: Tensor, scalars: Tensor | None = None, members: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x), scalars, members)


_REF = {"in_chans": 2, "num_outputs": 1}


def _shower_model(join: str, in_chans: int, num_outputs: int, kwargs: dict[str, Any]) -> ShowerModel:
    return ShowerModel(in_chans, num_outputs, **({"join": join} | kwargs))


@register_model(paper="arXiv:1703.06114", ref=_REF, num_params=11_210_433, takes="telescopes")
def stereo_mean(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ShowerModel:
    """All telescopes of a shower, joined by their mean."""
    return _shower_model("mean", in_chans, num_outputs, kwargs)


@register_model(paper="arXiv:1803.10698", ref=_REF, num_params=11_239_553, takes="telescopes")
def stereo_lstm(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ShowerModel:
    """All telescopes of a shower, joined by an LSTM."""
    return _shower_model("lstm", in_chans, num_outputs, kwargs)


@register_model(paper="arXiv:1609.09106", ref=_REF, num_params=11_265_505, takes="telescopes")
def hyper_lstm(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ShowerModel:
    """All telescopes of a shower, joined by a HyperLSTM, the dynamic hypernetwork."""
    return _shower_model("hyper_lstm", in_chans, num_outputs, kwargs)


@register_model(paper="arXiv:1706.03762", ref=_REF, num_params=11_306_433, takes="telescopes")
def stereo_attention(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ShowerModel:
    """All telescopes of a shower, joined by attention."""
    return _shower_model("attention", in_chans, num_outputs, kwargs)
