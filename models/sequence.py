"""Networks for showers that several telescopes saw: one encoder for all images, then a join over the telescopes.

Each image passes the encoder of its kind of camera, any tile network of the registry without its head. The averaged
features of an image, and the scalars that belong to it, become one vector per telescope, which the places of telescope
and image in the event join; a join makes one vector of a shower's variable number of telescopes, and a linear layer
gives the outputs.

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


class Places(nn.Module):
    """Joins what is known of a telescope's image and place in the event to the vector of the telescope.

    The source lies where the axes of the images meet: products of what a telescope sees and where it stands, which
    two layers can make.

    Parameters
    ----------
    n_places
        Numbers per telescope that depend on the whole event: where it stands, where its image lies.
    width
        Length of the vectors.
    """

    def __init__(self, n_places: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(n_places, width), nn.ReLU())
        self.meet = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, vectors: Tensor, places: Tensor) -> Tensor:
        """Vectors (M, width) and places (M, n_places) to (M, width)."""
        return self.meet(torch.cat([vectors, self.embed(places.to(vectors.dtype))], dim=1))


class VectorSum(nn.Module):
    """Adds to outputs that are vectors a weighted sum of vectors that each telescope has.

    The direction to the source from an image is a length times a unit vector along its axis, and that from an event a
    mean of such: products of what a network sees and of where an image lies. Here, the network gives the factors
    alone, which do not turn with the event, and the weights of the telescopes.

    Parameters
    ----------
    width
        Length of the vectors that describe a telescope, and the event.
    n_vectors
        Vectors (x, y) per telescope: the first 2 `n_vectors` of its places.
    outputs
        Numbers of the outputs that begin a vector.
    num_outputs
        Length of a shower's outputs.
    """

    def __init__(self, width: int, n_vectors: int, outputs: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.n_vectors, self.n_outputs = n_vectors, len(outputs)
        last = nn.Linear(width, self.n_outputs * (1 + n_vectors))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.factors = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), last)
        place = torch.zeros(2 * self.n_outputs, num_outputs)
        for number, first in enumerate(outputs):
            place[2 * number, first] = place[2 * number + 1, first + 1] = 1
        self.register_buffer("place", place, persistent=False)

    def forward(self, telescopes: Tensor, joined: Tensor, places: Tensor, padding: Tensor) -> Tensor:
        """What is added to the outputs, (N, num_outputs).

        Of telescopes (N, T, width), the event (N, width), places (N, T, n_places), and padding (N, T), True where a
        telescope is missing.
        """
        event = joined[:, None].expand(-1, telescopes.shape[1], -1)
        factors = self.factors(torch.cat([telescopes, event], dim=2)).unflatten(2, (self.n_outputs, 1 + self.n_vectors))
        weights = torch.softmax(factors[..., 0].masked_fill(padding[..., None], -1e4), dim=1)
        vectors = places[..., : 2 * self.n_vectors].to(factors.dtype).unflatten(2, (self.n_vectors, 2))
        of_telescope = factors[..., 1:] @ vectors  # (N, T, n_outputs, 2)
        return (weights[..., None] * of_telescope).sum(dim=1).flatten(1) @ self.place.to(factors.dtype)


class ShowerHead(nn.Module):
    """From the pooled features of all images to one vector of outputs per shower.

    Parameters
    ----------
    num_features
        Length of an image's features, of each camera's encoder.
    num_outputs
        Length of a shower's outputs.
    join
        From (N, T, width) and padding (N, T) to (N, width).
    width
        Length of the vector of one telescope.
    n_scalars, scalars_hidden
        Scalars per image, width of their own layers.
    n_places
        See `Places`; without any, that layer is left out.
    n_vectors, vector_outputs
        See `VectorSum`; without vector outputs, it is left out.
    drop_rate
        Probability with which an input of the last layer is dropped in training.
    """

    def __init__(
        self,
        num_features: Sequence[int],
        num_outputs: int,
        join: nn.Module,
        width: int,
        n_scalars: int,
        scalars_hidden: int,
        n_places: int,
        n_vectors: int,
        vector_outputs: Sequence[int],
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.telescopes = nn.ModuleList(Head(length, width, n_scalars, scalars_hidden) for length in num_features)
        self.act = nn.ReLU()
        self.places = Places(n_places, width) if n_places else None
        self.join = join
        self.shower = Head(width, num_outputs, drop_rate=drop_rate)
        self.vector_sum = VectorSum(width, n_vectors, vector_outputs, num_outputs) if vector_outputs else None

    def vectors(self, pooled: Tensor, scalars: Tensor | None = None, camera: int = 0) -> Tensor:
        """Pooled features (M, F) and scalars of the images of one camera to (M, width)."""
        return self.act(self.telescopes[camera](pooled, scalars))

    def forward(self, vectors: Tensor, members: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """Vectors (M, width) of all telescopes to outputs (N, num_outputs) of the showers that `members` names."""
        if (self.places is None) != (places is None):
            raise ValueError(
                f"this network was built {'without' if self.places is None else 'with'} places of the telescopes, and "
                f"{'none were' if places is None else 'they were'} given"
            )
        if self.places is not None:
            vectors = self.places(vectors, places)
        if members is None:
            members = torch.arange(vectors.shape[0], device=vectors.device)[:, None]
        padding, row = members < 0, members.clamp(min=0)
        telescopes = vectors[row]
        joined = self.join(telescopes, padding)
        outputs = self.shower(joined)
        if self.vector_sum is None:
            return outputs
        return outputs + self.vector_sum(telescopes, joined, places[row], padding)

    def reset(self, num_outputs: int) -> None:
        """Draw a new last layer.

        Raises
        ------
        ValueError
            If some outputs are vectors: what they are sums of has learned for them alone.
        """
        if self.vector_sum is not None:
            raise ValueError("a ShowerModel with vector outputs keeps its outputs")
        self.shower.reset(num_outputs)


class ShowerModel(TileModel):
    """Encoders for the images of all telescopes, one vector of outputs per shower.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the images, length of a shower's output vector.
    encoder
        Name of the tile network that reads each image.
    encoder_kwargs
        Its arguments.
    n_cameras
        Number of kinds of cameras; each has an encoder of its own.
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
        Scalars per image: Hillas parameters.
    scalars_hidden
        Width of the scalars' own layers and of the one after they join the features.
    n_places
        Numbers per telescope that depend on the whole event, see `Places`.
    n_vectors, vector_outputs
        How many vectors (x, y) are at the beginning of the places, and numbers of the outputs that begin a vector,
        which is then also a weighted sum of these; see `VectorSum`.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        encoder: str = "resnet18",
        encoder_kwargs: Mapping[str, Any] | None = None,
        n_cameras: int = 1,
        join: Literal["mean", "lstm", "hyper_lstm", "attention"] = "mean",
        width: int = 64,
        hyper_units: int = 32,
        embedding: int = 4,
        heads: int = 4,
        layers: int = 2,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
        n_places: int = 0,
        n_vectors: int = 0,
        vector_outputs: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if 2 * n_vectors > n_places or any(not 0 <= first < num_outputs - 1 for first in vector_outputs):
            raise ValueError(
                f"a ShowerModel with {n_places} places and {num_outputs} outputs cannot have {n_vectors} vectors and "
                f"vector outputs at {', '.join(map(str, vector_outputs)) or 'none'}"
            )
        sizes = {"width": width, "hyper_units": hyper_units, "embedding": embedding, "n_cameras": n_cameras}
        for argument, value in sizes.items():
            if value < 1:
                raise ValueError(f"{argument} of a ShowerModel must be at least 1, got {value}")
        for argument in ("n_scalars", "aux"):
            if encoder_kwargs and encoder_kwargs.get(argument):
                raise ValueError(f"encoder_kwargs name {argument}, which belongs to the head that an encoder lacks")
        self.in_chans = in_chans
        self.encoders = nn.ModuleList(
            create_model(encoder, in_chans, **(encoder_kwargs or {})) for _ in range(n_cameras)
        )
        for network in self.encoders:
            if not isinstance(network, TileModel) or isinstance(network, ShowerModel):
                raise ValueError(f"encoder of a ShowerModel must be a network for tiles, got {encoder!r}")
            network.head = nn.Identity()
        first = self.encoders[0]
        self.min_size = first.min_size
        self.feature_info = [replace(info, module=f"encoders.0.{info.module}") for info in first.feature_info]
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
        num_features = [self._num_features()] * n_cameras
        self.head = ShowerHead(
            num_features, num_outputs, joining, width, n_scalars, scalars_hidden, n_places, n_vectors, vector_outputs,
            drop_rate,
        )  # fmt: skip

    def _num_features(self) -> int:
        """Channels of the encoder's last maps."""
        encoder = self.encoders[0].eval()  # neither a statistic nor the random generator must notice the trial
        with torch.no_grad():
            maps = encoder.forward_features(torch.zeros(1, self.in_chans, self.min_size, self.min_size))
        encoder.train()
        return maps.shape[1]

    @property
    def reads_in_order(self) -> bool:
        """Whether the join takes telescope after telescope, so that an exported graph holds a fixed number of them."""
        return isinstance(self.head.join, RecurrentJoin)

    def forward_features(self, x: Tensor, camera: int = 0) -> Tensor:
        """Images (M, C, H, W) of one kind of camera to its encoder's last maps (M, F, h, w)."""
        self.check_tile(x)
        return self.encoders[camera].forward_features(x)

    def encode(self, x: Tensor, scalars: Tensor | None = None, camera: int = 0) -> Tensor:
        """Images (M, C, H, W) of one kind of camera, and their scalars, to a vector per telescope (M, width)."""
        return self.head.vectors(self.forward_features(x, camera).mean((2, 3)), scalars, camera)

    def forward_head(self, features: Tensor, scalars: Tensor | None = None, members: Tensor | None = None) -> Tensor:
        """Maps (M, F, h, w) of the first kind of camera, and scalars (M, n_scalars) if it takes any, to outputs.

        For networks of one camera and without places; else see `forward`.
        """
        return self.head(self.head.vectors(features.mean((2, 3)), scalars), members)

    def forward(
        self,
        x: Tensor,
        scalars: Tensor | None = None,
        members: Tensor | None = None,
        places: Tensor | None = None,
        camera: Tensor | None = None,
    ) -> Tensor:
        """Images of all telescopes of all showers to outputs (N, num_outputs).

        Parameters
        ----------
        x
            Images (M, C, H, W).
        scalars
            Scalars (M, n_scalars), if it takes any.
        members
            Table (N, T) of which images belong to which shower, see `telescope_table`; without, each image is a shower
            of its own. A shower of which no image is named gives finite outputs without meaning.
        places
            Numbers (M, n_places) per telescope, if it takes any.
        camera
            Kind of camera of each image (M,), int64; without, all are of the first kind.
        """
        if camera is None:
            return self.head(self.encode(x, scalars), members, places)
        parts, rows = [], []
        for number in range(len(self.encoders)):
            own = torch.nonzero(camera == number)[:, 0]
            if len(own):
                parts.append(self.encode(x[own], None if scalars is None else scalars[own], number))
                rows.append(own)
        vectors = torch.cat(parts)[torch.argsort(torch.cat(rows))]
        return self.head(vectors, members, places)


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
