"""Showers of several telescopes: the HyperLSTM against its paper, and what a join must not depend on."""

import numpy as np
import pytest
import torch
from onnx_sessions import onnx_session
from torch import nn

from models import create_model, list_models, model_entry
from models.hyper_lstm import FORGET_BIAS, GATES, START_OF_SCALES, HyperLSTMCell
from models.sequence import NO_TELESCOPE, telescope_table

ENTRIES = list_models("sequence")
ORDER_FREE = {"stereo_mean": True, "stereo_attention": True, "stereo_lstm": False, "hyper_lstm": False}
SMALL_ENCODER = {"encoder": "resnet20", "encoder_kwargs": {"width": 4, "depths": (1, 1)}}

each_entry = pytest.mark.parametrize("name", ENTRIES)


def small(name, **kwargs):
    torch.manual_seed(0)
    return create_model(name, 2, 3, **(SMALL_ENCODER | {"width": 8, "hyper_units": 5} | kwargs))


def n_params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def randomise(module):
    """Weights that are not those of the start, many of which are zero or equal."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)


# ---- HyperLSTM -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("characters", "units", "hyper_units", "embedding", "layer_norm", "paper_m"),
    [
        (50, 1000, 128, 4, False, 4.91),
        (50, 1000, 128, 4, True, 4.92),
        (205, 1800, 256, 64, False, 18.71),
        (205, 2048, 512, 64, True, 26.54),
    ],
)
def test_cell_has_the_parameters_of_the_papers_tables(characters, units, hyper_units, embedding, layer_norm, paper_m):
    """Tables 3 and 4 of arXiv:1609.09106: the cell and a linear layer to the characters."""
    with torch.device("meta"):
        cell = HyperLSTMCell(characters, units, hyper_units, embedding, layer_norm)
    assert round((n_params(cell) + (units + 1) * characters) / 1e6, 2) == paper_m


def test_two_layers_have_the_parameters_of_the_papers_table():
    with torch.device("meta"):
        cells = [HyperLSTMCell(inputs, 1000, 128, 16) for inputs in (50, 1000)]
    assert round((sum(map(n_params, cells)) + 1001 * 50) / 1e6, 2) == 14.41


def test_cell_is_the_papers_equations():
    """Eqs. 10 to 13 written out gate by gate, with layer normalisation."""
    torch.manual_seed(0)
    n_in, n_h, n_hyper, n_z = 3, 4, 5, 2
    cell = HyperLSTMCell(n_in, n_h, n_hyper, n_z).double()
    randomise(cell)
    x = torch.randn(7, n_in, dtype=torch.float64)
    state = tuple(torch.randn(7, size, dtype=torch.float64) for size in cell.state_sizes)
    h, c, hyper_h, hyper_c = state

    def normalise(values, scale, offset):
        centred = values - values.mean(1, keepdim=True)
        return scale * centred / (centred.square().mean(1, keepdim=True) + 1e-3).sqrt() + offset

    def lstm(sums, gates, memory):
        i, g, f, o = (normalise(sums[y], gates.scale[y], gates.offset[y]) for y in range(GATES))
        memory = (f + FORGET_BIAS).sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * normalise(memory, gates.norm.weight, gates.norm.bias).tanh(), memory

    inputs = torch.cat([h, x, hyper_h], 1)
    weights, biases = cell.hyper.weight.chunk(GATES), cell.hyper.bias.chunk(GATES)
    hyper_h, hyper_c = lstm([inputs @ w.T + b for w, b in zip(weights, biases, strict=True)], cell.hyper_gates, hyper_c)
    sums = []
    for y in range(GATES):
        part = slice(y * n_z, (y + 1) * n_z)
        rows = slice(y * n_h, (y + 1) * n_h)
        z_h = hyper_h @ cell.embed_h.weight[part].T + cell.embed_h.bias[part]
        z_x = hyper_h @ cell.embed_x.weight[part].T + cell.embed_x.bias[part]
        z_b = hyper_h @ cell.embed_b.weight[part].T
        scaled_h = (z_h @ cell.scale_h[y]) * (h @ cell.from_h.weight[rows].T)
        scaled_x = (z_x @ cell.scale_x[y]) * (x @ cell.from_x.weight[rows].T)
        sums.append(scaled_h + scaled_x + z_b @ cell.shift[y] + cell.bias[y])
    expected = (*lstm(sums, cell.gates, c), hyper_h, hyper_c)
    for got, part in zip(cell(x, state), expected, strict=True):
        torch.testing.assert_close(got, part)


def test_cell_starts_as_an_lstm_with_small_weights():
    """Whatever the smaller cell says, scales start at 0.1 and the added bias at zero."""
    torch.manual_seed(0)
    cell = HyperLSTMCell(3, 4, 5, layer_norm=False)
    lstm = nn.LSTMCell(3, 4)
    order = [0, 2, 1, 3]  # torch: i, f, g, o
    with torch.no_grad():
        for target, source in ((lstm.weight_ih, cell.from_x.weight), (lstm.weight_hh, cell.from_h.weight)):
            target.copy_(torch.cat([source.chunk(GATES)[gate] for gate in order]) * START_OF_SCALES)
        lstm.bias_ih.zero_()
        lstm.bias_hh.zero_()
        lstm.bias_ih[4:8] = FORGET_BIAS
    x = torch.randn(2, 3)
    state = tuple(torch.randn(2, size) for size in cell.state_sizes)
    for got, expected in zip(cell(x, state)[:2], lstm(x, state[:2]), strict=True):
        torch.testing.assert_close(got, expected)


# ---- tables of showers ----------------------------------------------------------------------------------------------
def test_table_of_showers():
    assert telescope_table([2, 1, 3]).tolist() == [[0, 1, -1], [2, -1, -1], [3, 4, 5]]


@pytest.mark.parametrize("counts", [[], [2, 0], [[1, 2]]])
def test_a_shower_without_telescopes_is_refused(counts):
    with pytest.raises(ValueError, match="each shower needs at least one telescope, got the numbers"):
        telescope_table(counts)


# ---- joins ----------------------------------------------------------------------------------------------------------
@each_entry
def test_padding_changes_nothing(name):
    """Neither how much there is, nor where it stands; nor, in training, the statistics of the encoder."""
    for training in (False, True):
        model = small(name).train(training)
        randomise(model.head)
        images = torch.randn(5, 2, 16, 16)
        tight = torch.tensor([[0, 1, 2], [3, 4, NO_TELESCOPE]])
        loose = torch.tensor([[0, NO_TELESCOPE, 1, 2, NO_TELESCOPE], [NO_TELESCOPE, 3, NO_TELESCOPE, 4, NO_TELESCOPE]])
        expected = model(images, members=tight)
        torch.testing.assert_close(model(images, members=loose), expected)
        assert not torch.allclose(expected[0], expected[1])


@each_entry
def test_telescopes_of_other_showers_change_nothing(name):
    model = small(name).eval()
    randomise(model.head)
    images = torch.randn(5, 2, 16, 16)
    together = model(images, members=telescope_table([3, 2]))
    torch.testing.assert_close(together[:1], model(images[:3], members=telescope_table([3])))
    torch.testing.assert_close(together[1:], model(images[3:], members=telescope_table([2])))


@each_entry
def test_order_of_the_telescopes(name):
    model = small(name).eval()
    randomise(model.head)
    images = torch.randn(3, 2, 16, 16)
    forward = model(images, members=torch.tensor([[0, 1, 2]]))
    backward = model(images, members=torch.tensor([[2, 1, 0]]))
    assert torch.allclose(forward, backward, atol=1e-5) == ORDER_FREE[name]


@each_entry
def test_every_telescope_counts(name):
    model = small(name).eval()
    randomise(model.head)
    images = torch.randn(3, 2, 16, 16, requires_grad=True)
    model(images, members=telescope_table([3])).square().sum().backward()
    assert (images.grad.abs().amax((1, 2, 3)) > 0).all()


@each_entry
def test_without_a_table_each_image_is_a_shower(name):
    model = small(name, n_scalars=2).eval()
    images, scalars = torch.randn(3, 2, 16, 16), torch.randn(3, 2)
    torch.testing.assert_close(model(images, scalars), model(images, scalars, telescope_table([1, 1, 1])))


@each_entry
def test_scalars_belong_to_telescopes(name):
    model = small(name, n_scalars=2).eval()
    randomise(model.head)
    images = torch.randn(4, 2, 16, 16)
    scalars = torch.randn(4, 2, requires_grad=True)
    model(images, scalars, telescope_table([3, 1]))[0].sum().backward()
    assert (scalars.grad[:3] != 0).all()
    assert not scalars.grad[3].any()


@each_entry
def test_every_parameter_learns(name):
    """From the second step on: in the first, the smaller cell of a HyperLSTM stands behind weights of zero."""
    model = small(name, n_scalars=2).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, scalars, members = torch.randn(7, 2, 16, 16), torch.randn(7, 2), telescope_table([3, 4])
    for _ in range(2):
        optimizer.zero_grad()
        model(images, scalars, members).square().sum().backward()
        optimizer.step()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@each_entry
def test_a_shower_without_images_is_finite(name):
    model = small(name).train()
    y = model(torch.randn(2, 2, 16, 16), members=torch.tensor([[0, 1], [NO_TELESCOPE, NO_TELESCOPE]]))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@each_entry
def test_runs_in_onnxruntime(name, tmp_path):
    """With other numbers of images and showers than the export saw; the width of the table is fixed."""
    model = small(name).eval()
    randomise(model.head)
    images, showers = torch.export.Dim("images", min=1, max=4096), torch.export.Dim("showers", min=1, max=4096)
    session = onnx_session(
        model,
        tmp_path / "model.onnx",
        torch.randn(5, 2, 16, 16),
        dynamic_shapes={"x": {0: images}, "members": {0: showers}},
        members=telescope_table([3, 2]),
    )
    x, members = torch.randn(6, 2, 16, 16), telescope_table([1, 3, 2])
    got = session.run(None, {"x": x.numpy(), "members": members.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, model(x, members=members).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("fresh_compiler")
@each_entry
def test_compiles_in_one_piece(name):
    model = small(name).train()
    images, members = torch.randn(5, 2, 16, 16), telescope_table([3, 2])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, members=members), model(images, members=members))


def test_features_are_the_encoders():
    model = small("stereo_mean")
    assert model.min_size == model.encoders[0].min_size
    assert [info.module for info in model.feature_info] == ["encoders.0.stages.0", "encoders.0.stages.1"]
    assert not list(model.encoders[0].head.parameters())


def test_each_camera_has_its_own_encoder():
    model = small("stereo_mean", n_cameras=2, n_scalars=2, n_places=3).train()
    images, scalars, places = torch.randn(5, 2, 16, 16), torch.randn(5, 2), torch.randn(5, 3)
    camera = torch.tensor([1, 0, 1, 0, 0])
    members = torch.tensor([[0, 1, 2], [3, 4, NO_TELESCOPE]])
    model.eval()
    got = model(images, scalars, members, places, camera)
    vectors = torch.empty(5, 8)
    for number in range(2):
        own = camera == number
        vectors[own] = model.encode(images[own], scalars[own], number)
    torch.testing.assert_close(got, model.head(vectors, members, places))
    other = model(images, scalars, members, places, 1 - camera)
    assert not torch.allclose(got, other)
    only_first = model(images, scalars, members, places, torch.zeros_like(camera))
    torch.testing.assert_close(only_first, model(images, scalars, members, places))


def test_places_belong_to_telescopes():
    model = small("stereo_attention", n_places=3).eval()
    randomise(model.head)
    places = torch.randn(4, 3, requires_grad=True)
    model(torch.randn(4, 2, 16, 16), members=telescope_table([3, 1]), places=places)[0].sum().backward()
    assert (places.grad[:3] != 0).any(dim=1).all()
    assert not places.grad[3].any()


@pytest.mark.parametrize(
    ("n_places", "places", "message"),
    [
        (0, torch.zeros(2, 3), "built without places of the telescopes, and they were given"),
        (3, None, "built with places of the telescopes, and none were given"),
    ],
)
def test_places_must_be_given_where_they_are_read(n_places, places, message):
    with pytest.raises(ValueError, match=message):
        small("stereo_mean", n_places=n_places)(torch.randn(2, 2, 16, 16), places=places)


def vector_model(**kwargs):
    """Vectors at the outputs 1 and 2 of four, from two vectors per telescope; its factors are random."""
    model = create_model(
        "stereo_mean", 2, 4, **SMALL_ENCODER, width=8, n_places=6, n_vectors=2, vector_outputs=[1], **kwargs
    ).eval()
    last = model.head.vector_sum.factors[-1]
    nn.init.normal_(last.weight)
    return model


def test_vector_outputs_are_weighted_sums_of_the_telescopes_vectors():
    model = vector_model()
    head = model.head
    vectors, places, members = torch.randn(5, 8), torch.randn(5, 6), telescope_table([3, 2])
    added = head(vectors, members, places) - head.shower(
        head.join(head.places(vectors, places)[members.clamp(min=0)], members < 0)
    )
    torch.testing.assert_close(added[:, [0, 3]], torch.zeros(2, 2), atol=1e-6, rtol=0)
    described = head.places(vectors, places)
    for event, rows in enumerate(([0, 1, 2], [3, 4])):
        joined = head.join(described[rows][None], torch.zeros(1, len(rows), dtype=bool))
        factors = head.vector_sum.factors(torch.cat([described[rows], joined.expand(len(rows), -1)], dim=1))
        weights = torch.softmax(factors[:, 0], dim=0)
        of_each = factors[:, 1:2] * places[rows, 0:2] + factors[:, 2:3] * places[rows, 2:4]
        torch.testing.assert_close(added[event, 1:3], (weights[:, None] * of_each).sum(dim=0), atol=1e-5, rtol=1e-4)


def test_vector_outputs_begin_as_those_of_the_last_layer():
    """Their factors begin at zero, so that training begins at the reference of the event."""
    torch.manual_seed(0)
    model = create_model(
        "stereo_mean", 2, 4, **SMALL_ENCODER, width=8, n_places=6, n_vectors=2, vector_outputs=[1]
    ).eval()
    vectors, places = torch.randn(5, 8), torch.randn(5, 6)
    plain = model.head.shower(
        model.head.join(model.head.places(vectors, places)[:, None], torch.zeros(5, 1, dtype=bool))
    )
    torch.testing.assert_close(model.head(vectors, places=places), plain)


@pytest.mark.parametrize("changes", [{"n_vectors": 4}, {"vector_outputs": [3]}, {"vector_outputs": [-1]}])
def test_vectors_that_are_not_there(changes):
    with pytest.raises(ValueError, match=r"a ShowerModel with 6 places and 4 outputs cannot have [24] vectors and"):
        create_model(
            "stereo_mean",
            2,
            4,
            **SMALL_ENCODER,
            width=8,
            n_places=6,
            **{"n_vectors": 2, "vector_outputs": [1]} | changes,
        )


def test_vector_outputs_are_kept():
    with pytest.raises(ValueError, match="a ShowerModel with vector outputs keeps its outputs"):
        vector_model().reset_head(3)


ENCODERS = {
    "mlp": {"hidden": (16,)},
    "lenet5": {},
    "alexnet": {"width": 8, "stem": "small"},
    "vgg11": {"width": 4},
    "nin_cifar": {"width": 12},
    "googlenet": {"width": 8, "stem": "small"},
    "inception_v3": {"width": 4, "stem": "small", "depths": (1, 1, 1)},
    "preact_resnet110": {"width": 4, "depths": (1, 1, 1)},
    "stochastic_depth_resnet110": {"width": 4, "depths": (1, 1, 1), "last_survival": 1.0},
    "se_resnet18": {"width": 4},
    "fractalnet20": {"width": 4, "local_drop_rate": 0.0, "global_share": 0.0},
    "densenet121": {"growth_rate": 4, "depths": (2, 2, 2, 2)},
    "hypernet": {"width": 4},
    "hypernet_wrn40_2": {"width": 4, "depths": (1, 1, 1)},
}


def test_encoders_are_of_all_families():
    entries = [entry for entry in map(model_entry, list_models()) if (entry.takes, entry.gives) == ("image", "vector")]
    families = {entry.family for entry in entries}
    assert {model_entry(name).family for name in ENCODERS} == families - {"resnet"}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_tile_network_is_an_encoder(encoder):
    """All of it is used: in distributed training, a parameter without gradient is an error."""
    model = small("stereo_mean", encoder=encoder, encoder_kwargs=ENCODERS[encoder]).train()
    y = model(torch.randn(4, 2, 48, 48), members=telescope_table([3, 1]))
    y.square().sum().backward()
    assert y.shape == (2, 3)
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"encoder_kwargs": {"n_scalars": 3}}, "encoder_kwargs name n_scalars, which belongs to the head"),
        ({"encoder": "googlenet", "encoder_kwargs": {"aux": True}}, "encoder_kwargs name aux, which belongs to the"),
        ({"encoder": "unet", "encoder_kwargs": {}}, "encoder of a ShowerModel must be a network for tiles, got 'unet'"),
        ({"encoder": "stereo_mean", "encoder_kwargs": {}}, "must be a network for tiles, got 'stereo_mean'"),
        ({"encoder": "resnet19"}, "unknown model 'resnet19'"),
        ({"encoder_kwargs": {"widht": 3}}, "resnet20 has no argument 'widht'"),
        ({"join": "median"}, "join of a ShowerModel must be one of mean, lstm, hyper_lstm, attention, got 'median'"),
        ({"width": 0}, "width of a ShowerModel must be at least 1, got 0"),
        ({"n_cameras": 0}, "n_cameras of a ShowerModel must be at least 1, got 0"),
        ({"join": "attention", "heads": 3}, "heads of the attention must divide its width of 8, got 3"),
        ({"join": "attention", "layers": 0}, "layers of the attention must be at least 1, got 0"),
    ],
)
def test_shower_models_refuse(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small("stereo_mean", **kwargs)


@each_entry
def test_reference_is_the_encoder_and_the_formulas_of_the_module(name):
    w, f, n, z = 64, 512, 32, 4
    join = {
        "stereo_mean": (w + 1) * w,
        "stereo_lstm": 4 * w * (2 * w + 2),
        "hyper_lstm": (
            4 * n * (w + w + n + 1) + 8 * (n + 1) * z + 4 * n * z + 12 * w * z + 4 * w * (2 * w + 1) + 10 * (w + n)
        ),
        "stereo_attention": 2 * (12 * w + 13) * w + 2 * w + w,
    }
    resnet18 = model_entry("resnet18").num_params - 513 * 1000 - 64 * 49  # without head, two channels instead of three
    assert model_entry(name).num_params == resnet18 + (f + 1) * w + join[name] + w + 1
