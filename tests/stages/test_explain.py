"""`lightpool explain`: the picture of one event, and what it refuses."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1
from two_headed_bundles import two_headed_bundle

from models import create_model
from pipeline import cli
from pipeline.bundle.card import CARD_FILE, ONNX_FILE, WEIGHTS_FILE, load_bundle_card
from pipeline.config import Config
from pipeline.errors import InputFileError, UserError
from pipeline.stages.explain import explain

EVENT = FIRST_EVENT + 1


def bundle(folder, task, model="resnet18", **kwargs):
    """A bundle whose network was never trained."""
    if task == "both":
        two_headed_bundle(folder, toy_camera().identity)
    else:
        camera_bundle(folder, task, toy_camera().identity)
    card = load_bundle_card(folder)
    torch.manual_seed(1)
    network = create_model(model, 3, card.model.num_outputs, n_scalars=1, **kwargs)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS_FILE)
    model = card.model.model_copy(update={"name": model, "kwargs": kwargs})
    (folder / CARD_FILE).write_text(card.model_copy(update={"model": model}).model_dump_json())
    (folder / ONNX_FILE).unlink()  # the weights are enough
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    for task in ("energy", "gammaness", "both"):
        bundle(root / task, task, width=4, stem="stride2", depths=[1, 1])
    bundle(root / "mlp", "gammaness", model="mlp", hidden=[8])
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    return root


@pytest.fixture
def drawn(monkeypatch):
    """What the figures are asked to draw, as (positional, keyword) arguments."""
    from pipeline.figures import explanation as figures

    calls = []
    for name in ("explanation", "feature_maps"):
        draw = getattr(figures, name)

        def spy(*args, _draw=draw, **kwargs):
            calls.append((args, kwargs))
            return _draw(*args, **kwargs)

        monkeypatch.setattr(figures, name, spy)
    return calls


def png_size(path):
    content = path.read_bytes()
    assert content[:4] == b"\x89PNG"
    return tuple(int.from_bytes(content[at : at + 4], "big") for at in (16, 20))


def run(folder, task="gammaness", **changes):
    options = {"event": EVENT} | changes
    return explain(Config(threads=1), folder / task, options.pop("file", folder / "run.dl1.h5"), **options)


@pytest.mark.parametrize(
    ("task", "title", "quantity"),
    [
        ("gammaness", r"gammaness 0\.\d+ \(true: gamma of \S+ TeV\)", "the logit of gammaness"),
        (
            "energy",
            r"reco_energy_tev \S+ TeV, reco_energy_uncert_tev \S+ TeV \(true: gamma of \S+ TeV\)",
            "log10(E / TeV)",
        ),
    ],
)
def test_the_picture_shows_channels_parts_and_truth(task, title, quantity, folder, tmp_path, drawn):
    out = run(folder, task, out=tmp_path / "picture.png")
    assert min(png_size(out)) > 1000
    (((said, channels), options),) = drawn
    assert [channel.name for channel in channels] == ["charge", "peak_time", "mask"]
    assert all(channel.tile.shape == channel.attribution.shape == (32, 32) for channel in channels)
    assert re.match(title, said)
    assert f"event {EVENT}, telescope 1 (Toy); resnet18 of tiny_{task}" in said
    assert options["quantity"] == quantity
    assert options["half_width_deg"] > 0
    parts = sum(channel.attribution.sum() for channel in channels) + sum(value for _, value in options["scalars"])
    value, empty = (float(part.replace("−", "-")) for part in _numbers(said.splitlines()[2]))
    assert parts == pytest.approx(value - empty, abs=0.05 * abs(value - empty) + 0.01)


def _numbers(text):
    """The output's two values in "QUANTITY is A, for an empty image B; ..."."""
    first, second = text.split(" is ", 1)[1].split("; ")[0].split(", for an empty image ")
    return first, second


@pytest.mark.parametrize(
    ("head", "title", "quantity"),
    [
        (None, r"reco_energy_tev \S+ TeV, reco", "log10(E / TeV)"),
        ("energy", r"reco_energy_tev \S+ TeV, reco", "log10(E / TeV)"),
        ("gammaness", r"gammaness 0\.\d+ \(true: gamma", "the logit of gammaness"),
    ],
)
def test_the_head_that_is_explained_is_chosen(head, title, quantity, folder, tmp_path, drawn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = run(folder, "both", head=head)
    assert out.name == f"run_event{EVENT}_tel1_{head or 'energy'}_attribution.png"
    (((said, channels), options),) = drawn
    assert re.match(title, said)
    assert options["quantity"] == quantity
    parts = sum(channel.attribution.sum() for channel in channels) + sum(value for _, value in options["scalars"])
    value, empty = (float(part.replace("−", "-")) for part in _numbers(said.splitlines()[2]))
    assert parts == pytest.approx(value - empty, abs=0.05 * abs(value - empty) + 0.01)
    if head == "gammaness":  # its own output, and not that of the first head
        gammaness = float(said.split()[1])
        assert value == pytest.approx(np.log(gammaness / (1 - gammaness)), abs=0.01)


def test_features_are_drawn_by_level(folder, tmp_path, drawn):
    run(folder, show="features", out=tmp_path / "features.png")
    (((_, channels, filters, levels), _),) = drawn
    assert channels == ("charge", "peak_time", "mask")
    assert filters.shape == (4, 3, 3, 3)
    assert [level.layer for level in levels] == ["stem.0", "stages.0", "stages.1"]


def test_two_explanations_are_the_same_bytes(folder, tmp_path):
    first, second = (run(folder, out=tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second


def test_the_name_of_the_picture_says_what_it_is_of(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(folder).name == f"run_event{EVENT}_tel1_gammaness_attribution.png"
    with pytest.raises(UserError, match=r"gammaness_attribution\.png exists; choose another name or add --force"):
        run(folder)
    run(folder, force=True)


def test_the_brightest_of_several_images_is_taken(folder, tmp_path, caplog, drawn):
    write_toy_dl1(tmp_path / "two.dl1.h5", tel_ids=(1, 3))
    with caplog.at_level("INFO"):
        run(folder, file=tmp_path / "two.dl1.h5", out=tmp_path / "a.png")
    assert "has 2 images (telescopes 1, 3); the brightest is telescope" in caplog.text
    run(folder, file=tmp_path / "two.dl1.h5", telescope=3, out=tmp_path / "b.png")
    assert "telescope 3 (Toy)" in drawn[1][0][0]


@pytest.mark.parametrize(
    ("task", "changes", "error", "message"),
    [
        ("gammaness", {"event": 5}, UserError, r"has no event 5; its event ids go from 100 to 111"),
        ("gammaness", {"telescope": 7}, UserError, r"has no images of telescope 7; it has those of 1, 2"),
        ("gammaness", {"telescope": 2}, UserError, "tiny_gammaness does not serve the camera Other"),
        ("gammaness", {"event": FIRST_EVENT}, UserError, rf"does not take event {FIRST_EVENT} of telescope 1: "),
        ("gammaness", {"show": "weights"}, UserError, "unknown picture 'weights'; accepted: attribution, features"),
        ("gammaness", {"out": "a.pdf"}, UserError, r"written as PNG, got --out a\.pdf"),
        ("both", {"head": "denoise"}, UserError, "tiny has no head 'denoise'; it has energy, gammaness"),
        ("mlp", {"show": "features"}, UserError, "Mlp has no feature maps: .*; take --show attribution"),
        ("denoise", {}, UserError, "restores frames; only networks with one answer per camera image are explained"),
        ("nothing", {}, UserError, "there is no bundle"),
    ],
)
def test_what_cannot_be_explained(task, changes, error, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "out" in changes:
        changes = changes | {"out": tmp_path.joinpath(changes["out"]).relative_to(tmp_path)}
    with pytest.raises(error, match=message):
        run(folder, task, **changes)
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_weights(folder, tmp_path):
    copy = bundle(tmp_path / "copy", "energy", width=4)
    (copy / WEIGHTS_FILE).unlink()
    with pytest.raises(InputFileError, match=r"has no weights\.safetensors; copy it again"):
        explain(Config(threads=1), copy, folder / "run.dl1.h5", event=EVENT, out=tmp_path / "a.png")


def test_a_file_that_holds_no_images(folder, tmp_path):
    with pytest.raises(InputFileError, match="is not a file of camera images but bundle"):
        run(folder, file=folder / "energy", out=tmp_path / "a.png")


def test_command(folder, tmp_path, capsys):
    argv = ["explain", folder / "run.dl1.h5", "--bundle", folder / "energy", "--event", EVENT, "--telescope", 1,
            "--out", tmp_path / "a.png", "--threads", 1]  # fmt: skip
    assert cli.main([str(argument) for argument in argv]) == 0
    assert "wrote " in capsys.readouterr().err
    assert np.prod(png_size(tmp_path / "a.png")) > 1e6
    assert cli.main([str(argument) for argument in argv]) == 2
