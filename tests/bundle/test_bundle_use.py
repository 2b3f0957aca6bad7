"""A bundle on disk: its card, its ONNX graph against torch, and its use without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from synthetic_tiles import CAMERA_IDENTITY, camera_batch, sky_batch
from tiny_bundles import camera_recipe, defects_bundle, head_section

from models import create_model
from pipeline.bundle.card import (
    Card,
    InputSection,
    ModelSection,
    TrainingSection,
    bundle_sha256,
    list_bundles,
    load_bundle_card,
    resolve_bundle,
)
from pipeline.bundle.export import check_graphs, create_network, export_bundle, load_network
from pipeline.bundle.model_card import card_markdown
from pipeline.bundle.runtime import Predictor
from pipeline.bundle.variance import FrameVariance, StratumFactor
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.frame import FrameInput, row_blocks
from pipeline.inputs.image import ImageInput, ScalarStatistics
from pipeline.tasks import get_decoder
from pipeline.tiles.shards import TileBatch

SCALARS = (ScalarStatistics(name="log10_hillas_intensity", mean=2.5, std=0.5),)
KWARGS = {
    "energy": ("resnet18", {"width": 4, "stem": "stride2", "depths": [1, 1]}),
    "denoise": ("conv_autoencoder", {"width": 4, "depth": 1, "skips": True}),
}


def make_card(task: str) -> Card:
    sky = task == "denoise"
    channels, units = (
        (("sci", "err"), ("electron",) * 2) if sky else (("charge", "peak_time", "mask"), ("p.e.", "ns", ""))
    )
    head = head_section(task)
    name, kwargs = KWARGS[task]
    return Card(
        name=f"test_{task}",
        network=task,
        wing="sky" if sky else "camera",
        cameras=() if sky else ({"identity": CAMERA_IDENTITY, "name": "TestCam"},),
        model=ModelSection(
            name=name, kwargs=kwargs, in_chans=3, num_outputs=len(head.outputs),
            n_scalars=0 if sky else 1, n_parameters=1000,
        ),
        input=InputSection(
            channels=channels, units=units, tile_shape=(32, 32) if sky else (24, 24),
            recipe=None if sky else camera_recipe(24).model_dump(mode="json"),
            preparation=FrameInput() if sky else ImageInput(scalar_statistics=SCALARS),
            size_multiple=4 if sky else None,
        ),
        heads=(head,),
        training=TrainingSection(
            config={}, manifests=(), seed=1, threads=1, device="cpu", precision="float32", epochs=2, best_epoch=1,
            n_images=10, wall_time_s=1.0, versions={},
        ),
        validation={"loss": 0.5, "defect_rmse": None},
        limits=("made for a test",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for task in KWARGS:
        card = make_card(task)
        torch.manual_seed(0)
        network = create_model(
            card.model.name, 3, card.model.num_outputs, n_scalars=card.model.n_scalars, **card.model.kwargs
        )
        if task == "denoise":  # the correction starts at zero: draw it, so that outputs can be compared
            torch.nn.init.normal_(network.head[0].weight, std=0.1)
        made[task] = folder / task
        export_bundle(network, card, made[task])
    return made


def test_onnx_equals_torch(bundles):
    batch = camera_batch(300)  # more than one call of the network
    network, card = load_network(bundles["energy"])
    arrays = card.input.preparation.arrays(batch)
    assert list(arrays) == ["images", "scalars"]
    with torch.no_grad():
        expected = network(*map(torch.from_numpy, arrays.values())).numpy()
    got = Predictor.load(bundles["energy"], threads=1).outputs(batch)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected[:, 0]) > 1e-3


@pytest.mark.parametrize("size", [32, 48])
def test_frames_of_other_sizes(bundles, size):
    batch = sky_batch(2, size=size)
    batch = batch.select(slice(None))
    batch.images, batch.masks = batch.images[..., : size - 8], batch.masks[..., : size - 8]
    predictor = Predictor.load(bundles["denoise"], threads=1)
    found = predictor.predict(batch)
    assert found["restored"].shape == (2, size, size - 8)
    assert all(np.isfinite(values).all() for values in found.values())


def test_predictor_says_what_it_serves(bundles):
    predictor = Predictor.load(bundles["energy"], threads=1)
    assert [spec.name for spec in predictor.specs] == ["energy"]
    assert [column.name for column in predictor.columns] == ["reco_energy_tev", "reco_energy_uncert_tev"]
    assert predictor.cameras == (CAMERA_IDENTITY,)
    assert predictor.serves(CAMERA_IDENTITY)
    assert not predictor.serves("hexagon-1855-other")


def test_no_image_is_no_mistake(bundles):
    predictor = Predictor.load(bundles["energy"], threads=1)
    assert all(len(values) == 0 for values in predictor.predict(camera_batch(2).select(slice(0, 0))).values())


def test_images_with_holes_give_numbers(bundles):
    batch = camera_batch(2)
    batch.images[:, :, :8] = np.nan
    batch.events["hillas_intensity"][:] = np.nan
    found = Predictor.load(bundles["energy"], threads=1).predict(batch)
    assert np.isfinite(found["reco_energy_tev"]).all()


def test_equal_networks_give_equal_files(bundles, tmp_path):
    network, card = load_network(bundles["energy"])
    export_bundle(network, card, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (bundles["energy"] / path.name).read_bytes(), path.name
    assert card.bundle_sha256 == bundle_sha256(tmp_path)
    assert str(tmp_path).encode() not in (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in (tmp_path / "model.onnx").read_bytes()  # no source lines of whoever exported it


def test_prediction_imports_no_torch(bundles):
    code = (
        "import sys; from pipeline.bundle.runtime import Predictor; Predictor.load(sys.argv[1]); "
        "sys.exit(', '.join({'torch', 'lightning', 'ctapipe', 'sklearn', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, bundles["energy"]], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_card_is_readable():
    text = card_markdown(make_card("energy"))
    for expected in (
        "`resnet18`",
        "TestCam",
        "log10_hillas_intensity",
        "reco_energy_tev",
        "made for a test",
        "not defined",
    ):
        assert expected in text


def test_export_that_does_not_match_is_noticed(bundles):
    network, card = load_network(bundles["energy"])
    torch.nn.init.normal_(network.head.output.weight)
    with pytest.raises(RuntimeError, match="onnxruntime differs from torch by"):
        check_graphs(network, card, bundles["energy"])


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_unknown_bundle():
    with pytest.raises(UserError, match=r"there is no bundle 'nowhere'.*that ships with lightpool"):
        resolve_bundle("nowhere")


def test_shipped_bundles_are_found_by_name():
    for name in list_bundles():
        assert load_bundle_card(resolve_bundle(name)).tasks


def test_directory_that_is_no_bundle(tmp_path):
    with pytest.raises(InputFileError, match=r"is not a bundle: it has no readable card\.json"):
        load_bundle_card(tmp_path)


@pytest.mark.parametrize(
    ("version", "advice"),
    [(1, "train it again with `lightpool train`"), (3, "install a newer lightpool")],
)
def test_card_of_another_version(version, advice, bundles, tmp_path):
    """Its keys are not looked at: they may mean something else."""
    content = json.loads((bundles["energy"] / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({"format_version": version, "renamed": content["heads"]}))
    message = rf"card\.json has bundle format {version}, and this version reads 2; {advice}$"
    for load in (load_bundle_card, Predictor.load):
        with pytest.raises(InputFileError, match=message) as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["two", None, 2.5, [2]])
def test_card_whose_version_is_no_number(version, bundles, tmp_path):
    content = json.loads((bundles["energy"] / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(content | {"format_version": version}))
    with pytest.raises(
        InputFileError, match=r"card\.json cannot be read by this version .* \(format_version: Input should be 2"
    ):
        load_bundle_card(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format_version": 2}'])
def test_file_that_is_no_card(content, tmp_path):
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(InputFileError, match=r"card\.json cannot be read by this version of lightpool \("):
        load_bundle_card(tmp_path)


def test_unknown_key_of_a_card(bundles, tmp_path):
    card = json.loads((bundles["energy"] / "card.json").read_text())
    card["input"]["sizes"] = [24, 24]
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputFileError, match=r"cannot be read .* \(input\.sizes: Extra inputs are not permitted\)"):
        load_bundle_card(tmp_path)


def test_unknown_kind_of_input(bundles, tmp_path):
    card = json.loads((bundles["energy"] / "card.json").read_text())
    card["input"]["preparation"]["kind"] = "spectrum"
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"unknown kind of input 'spectrum'; accepted: frame, image"):
        load_bundle_card(tmp_path)


def test_head_that_is_not_there(bundles):
    card = load_bundle_card(bundles["energy"])
    assert card.head() == card.head("energy")
    with pytest.raises(UserError, match="test_energy has no head 'gammaness'; it has energy"):
        card.head("gammaness")


def test_bundle_that_is_not_whole(bundles, tmp_path):
    copy = shutil.copytree(bundles["energy"], tmp_path / "copy")
    (copy / "model.onnx").unlink()
    with pytest.raises(InputFileError, match=r"is incomplete: it has no model\.onnx"):
        Predictor.load(copy)


def test_weights_of_another_card(bundles, tmp_path):
    copy = shutil.copytree(bundles["energy"], tmp_path / "copy")
    (copy / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(InputFileError, match="are not those that its card was written for"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    ("task", "batch", "message"),
    [
        ("energy", camera_batch(2, size=32), "takes tiles of 24 x 24 px, got 32 x 32"),
        ("energy", sky_batch(2, size=24), r"takes tiles of 3 channels \(charge, peak_time, mask\), got 2"),
        ("denoise", sky_batch(1, size=34), "multiples of 4 px, got 34 x 34; pad the frame"),
    ],
)
def test_tiles_that_do_not_fit(task, batch, message, bundles):
    with pytest.raises(UserError, match=message):
        Predictor.load(bundles[task], threads=1).predict(batch)


def test_large_maps_are_decoded_in_parts(rng, tmp_path):
    predictor = Predictor.load(defects_bundle(tmp_path / "both", denoises=True), threads=1)
    denoise, defects = predictor.heads
    factors = {
        name: StratumFactor(ranges=((-3, 3),) * n, coefficients=np.linspace(-0.3, 0.3, 1 + n + n * (n + 1) // 2))
        for name, n in get_decoder("denoise").strata.items()
    }
    predictor.heads = (denoise.model_copy(update={"variance": FrameVariance(factors=factors)}), defects)
    tile = sky_batch(1, size=64)
    repeats = (1, 1, 6, 11)
    batch = TileBatch(
        images=np.tile(tile.images, repeats) + rng.normal(0, 5, (1, 1, 384, 704)).astype(np.float32),
        events=tile.events,
        group=tile.group,
        masks=np.tile(tile.masks, repeats[1:]),
    )
    assert len(list(row_blocks(384, 704))) == 3
    arrays = predictor.card.input.preparation.arrays(batch)
    parts = [predictor.card.input.preparation.arrays(batch.rows(slice(y, y + 7)))["images"] for y in range(0, 384, 7)]
    np.testing.assert_array_equal(arrays["images"], np.concatenate(parts, axis=2))
    outputs = rng.normal(0, 3, (1, predictor.card.model.num_outputs, 384, 704)).astype(np.float32)
    found, expected = predictor.decode(outputs, batch), predictor._decoded(outputs, batch)
    assert list(found) == list(expected)
    for name, plane in found.items():
        np.testing.assert_array_equal(plane, expected[name])


def test_model_without_scalars():
    with pytest.raises(UserError, match="the model 'unet' takes no scalars"):
        create_network("unet", {}, 3, 4, n_scalars=2)


# ---- damaged bundles -------------------------------------------------------------------------------------------------
def _set(content, place, value):
    *path, last = place.split(".")
    for key in path:
        content = content[int(key) if key.isdecimal() else key]
    content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        ("heads", [], "heads: .*at least 1 item"),
        ("heads", 3, "heads: .*valid tuple"),
        ("heads.0.first", 1, "the outputs of the head energy do not follow those of the heads before"),
        ("heads.0.outputs", ["a"], "outputs of the heads and of the network differ: 1 and 2"),
        ("model.num_outputs", 3, "outputs of the heads and of the network differ: 2 and 3"),
        ("model.in_chans", 4, "channels of the input and of the network differ: 3 and 4"),
        ("model.n_scalars", 0, "scalars of the input and of the network differ: 1 and 0"),
        ("input.units", ["ns"], "names and units of channels differ: 3 and 1"),
        ("input.channels", ["charge", "time", "mask"], "the input lacks the channel peak_time"),
        ("input.tile_shape", [10**9, 10**9], r"input\.tile_shape\.0: .*less than or equal to 8192"),
        ("input.tile_shape", [32, 24], "the recipe makes tiles of 24 px, and the input takes"),
        ("input.recipe", None, "valid dictionary"),
        ("input.recipe.size_px", "x", "size_px"),
        ("input.recipe.picture_pe", True, "picture_pe"),
        ("input.recipe.picture_pe", 1.0, r"boundary_pe 3\.0 is above picture_pe 1\.0"),
        ("input.preparation.charge_scale_pe", 0.0, "charge_scale_pe: .*greater than 0"),
        ("input.preparation.scalar_statistics.0.std", 0.0, "greater than 0"),
        ("wing", "sky", "wing of the input and of the card differ: camera and sky"),
        ("validation", {"loss": "NaN"}, r"validation\.loss: .*finite number"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(place, value, match, bundles, tmp_path):
    card = json.loads((bundles["energy"] / "card.json").read_text())
    _set(card, place, value)
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputFileError, match=rf"card\.json cannot be read by this version .*{match}") as caught:
        load_bundle_card(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_heads_of_one_task_are_refused(bundles, tmp_path):
    card = json.loads((bundles["energy"] / "card.json").read_text())
    card["heads"].append(card["heads"][0] | {"first": 2})
    card["model"]["num_outputs"] = 4
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputFileError, match="two heads have the same task"):
        load_bundle_card(tmp_path)


def _changed_graph(bundle, target, change):
    """A copy of a bundle with another graph, and a card that was written for it."""
    copy = shutil.copytree(bundle, target)
    change(copy / "model.onnx")
    card = json.loads((copy / "card.json").read_text())
    card["bundle_sha256"] = bundle_sha256(copy)
    (copy / "card.json").write_text(json.dumps(card))
    return copy


def _weights_outside(path):
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def _other_input(path):
    model = onnx.load(path)
    for part in (*model.graph.input, *model.graph.node):
        if isinstance(part, onnx.NodeProto):
            part.input[:] = ["numbers" if name == "scalars" else name for name in part.input]
        elif part.name == "scalars":
            part.name = "numbers"
    onnx.save(model, path)


def _renamed_output(path):
    path.write_bytes(path.read_bytes().replace(b"outputs", b"outpots"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_weights_outside, r"model\.onnx takes weights from another file, which the bundle's digest does not cover"),
        (_other_input, r"model\.onnx takes .*'numbers': .*, and its card says"),
        (_renamed_output, r"model\.onnx takes .*, and its card says"),
        (lambda path: path.write_bytes(b""), r"model\.onnx is empty"),
        (lambda path: path.write_bytes(b"no graph"), r"model\.onnx is no network that onnxruntime can load"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), r"model\.onnx is no network that onnxruntime can"),
    ],
)
def test_a_graph_that_is_not_that_of_the_card_is_refused(change, match, bundles, tmp_path):
    copy = _changed_graph(bundles["energy"], tmp_path / "copy", change)
    with pytest.raises(InputFileError, match=match) as caught:
        Predictor.load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "weights.safetensors"])
def test_a_link_out_of_the_bundle_is_refused(name, bundles, tmp_path):
    copy = shutil.copytree(bundles["energy"], tmp_path / "copy")
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    match = "no readable card" if name == "card.json" else rf"{name} is a link out of the bundle"
    with pytest.raises(InputFileError, match=match):
        Predictor.load(copy)
    (copy / name).unlink()
    (copy / f"real_{name}").write_bytes((tmp_path / name).read_bytes())
    (copy / name).symlink_to(f"real_{name}")
    assert Predictor.load(copy).card.name == "test_energy"


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, (10**12).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"]
)
def test_weights_that_are_no_safetensors_are_refused(content, bundles, tmp_path):
    copy = _changed_graph(
        bundles["energy"], tmp_path / "copy", lambda path: path.with_name("weights.safetensors").write_bytes(content)
    )
    with pytest.raises(InputFileError, match=r"weights\.safetensors (is damaged|does not fit)") as caught:
        load_network(copy)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(bundles, tmp_path):
    other = bundles["denoise"] / "weights.safetensors"
    copy = _changed_graph(
        bundles["energy"],
        tmp_path / "copy",
        lambda path: path.with_name("weights.safetensors").write_bytes(other.read_bytes()),
    )
    with pytest.raises(InputFileError, match=r"weights\.safetensors does not fit the network of its card"):
        load_network(copy)
