"""Bundles made in milliseconds, without torch: their ONNX graphs are written by hand, so their answers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle.card import (
    ENCODER_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    CameraSection,
    Card,
    HeadSection,
    InputSection,
    ModelSection,
    OutputColumn,
    TrainingSection,
    bundle_sha256,
)
from pipeline.bundle.false_alarms import FalseAlarms
from pipeline.bundle.variance import FrameVariance
from pipeline.inputs.frame import FrameInput
from pipeline.inputs.image import ImageInput, ImageRecipe, ScalarStatistics
from pipeline.inputs.population import Population
from pipeline.inputs.shower import N_PLACES, ShowerInput
from pipeline.tasks import get_spec

TILE_PX = 32


def camera_recipe(size_px: int, **changes: float) -> ImageRecipe:
    """How a tile of this size was made: the values are written here, whatever the configuration's defaults are."""
    cleaning = {"picture_pe": 6.0, "boundary_pe": 3.0, "min_picture_neighbors": 1}
    cuts = {"size_min_pe": 50.0, "n_pixels_min": 3, "leakage_max": 1.0}
    return ImageRecipe(**({"version": 1, "size_px": size_px} | cleaning | cuts | changes))


def head_section(task: str, first: int = 0) -> HeadSection:
    """A head with all outputs of its task, the options being the defaults."""
    spec = get_spec(task)
    return HeadSection(
        task=task,
        first=first,
        outputs=spec.outputs,
        options=spec.options().model_dump(mode="json"),
        transform=spec.transform,
        columns=tuple(OutputColumn(name=c.name, unit=c.unit, description=c.description) for c in spec.shown),
    )


def camera_bundle(
    folder: Path,
    task: str,
    camera_identity: str,
    *,
    name: str | None = None,
    size_min_pe: float = 50.0,
    image_weights: tuple[float, float, float] = (0.0, 0.0, 0.0),
    bias: float = 0.0,
) -> Path:
    """A model whose first output is log10(size) - 2 + `bias`, whose second is a constant -3, and whose others are 0.

    `image_weights` times the means of the prepared channels (charge, time, mask) are added to the first.
    """
    scalars = (ScalarStatistics(name="log10_hillas_intensity", mean=2.0, std=1.0),)
    head = head_section(task)
    n_outputs = len(head.outputs)
    weights = np.zeros((4, n_outputs), np.float32)
    weights[:, 0] = *image_weights, 1.0
    biases = np.zeros(n_outputs, np.float32)
    biases[:1] = bias
    biases[1:2] = -3.0
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Concat", ["means", "scalars"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["outputs"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, TILE_PX, TILE_PX]),
        helper.make_tensor_value_info("scalars", TensorProto.FLOAT, ["n", 1]),
    ]
    outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", n_outputs])]
    constants = {"axes": np.array([2, 3]), "weights": weights, "bias": biases}
    return _write(
        folder,
        nodes,
        inputs,
        outputs,
        constants,
        name=name or f"tiny_{task}",
        head=head,
        model=(3, n_outputs, 1),
        **_of_camera(
            camera_identity, camera_recipe(TILE_PX, size_min_pe=size_min_pe), ImageInput(scalar_statistics=scalars)
        ),
    )


def _of_camera(identity: str, recipe: ImageRecipe, preparation: ImageInput | ShowerInput) -> dict[str, Any]:
    """What a card says of the images of one camera."""
    given = InputSection(
        channels=("charge", "peak_time", "mask"),
        units=("p.e.", "ns", ""),
        tile_shape=(TILE_PX, TILE_PX),
        recipe=recipe.model_dump(mode="json"),
        preparation=preparation,
    )
    return {"wing": "camera", "cameras": (CameraSection(identity=identity, name="Toy"),), "input": given}


def event_bundle(folder: Path, task: str, camera_identity: str, *, name: str | None = None) -> Path:
    """A model of whole events, whose first output is the mean of log10(size) - 2 over the telescopes; see above."""
    image_input = ImageInput(scalar_statistics=(ScalarStatistics(name="log10_hillas_intensity", mean=2.0, std=1.0),))
    head = head_section(task)
    n_outputs = len(head.outputs)
    weights, biases = np.zeros((1, n_outputs), np.float32), np.zeros(n_outputs, np.float32)
    weights[0, 0], biases[1:2] = 1.0, -3.0
    folder.mkdir(parents=True)
    encoder_inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, TILE_PX, TILE_PX]),
        helper.make_tensor_value_info("scalars", TensorProto.FLOAT, ["n", 1]),
    ]
    encoder_outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", 1])]
    encode = [helper.make_node("Identity", ["scalars"], ["outputs"])]
    _save(folder / ENCODER_FILE.format(number=0), encode, encoder_inputs, encoder_outputs, {})
    nodes = [
        helper.make_node("Less", ["members", "zero"], ["missing"]),
        helper.make_node("Where", ["missing", "none", "one"], ["counts"]),
        helper.make_node("Max", ["members", "zero"], ["rows"]),
        helper.make_node("Gather", ["vectors", "rows"], ["telescopes"], axis=0),
        helper.make_node("Squeeze", ["telescopes", "last"], ["values"]),
        helper.make_node("Mul", ["values", "counts"], ["known"]),
        helper.make_node("ReduceSum", ["known", "one_axis"], ["total"], keepdims=1),
        helper.make_node("ReduceSum", ["counts", "one_axis"], ["number"], keepdims=1),
        helper.make_node("Div", ["total", "number"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["outputs"]),
    ]
    inputs = [
        helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["m", 1]),
        helper.make_tensor_value_info("members", TensorProto.INT64, ["n", "t"]),
        helper.make_tensor_value_info("places", TensorProto.FLOAT, ["m", N_PLACES]),
    ]
    outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", n_outputs])]
    constants = {
        "zero": np.int64(0), "none": np.float32(0), "one": np.float32(1), "last": np.array([2]),
        "one_axis": np.array([1]), "weights": weights, "bias": biases,
    }  # fmt: skip
    return _write(
        folder,
        nodes,
        inputs,
        outputs,
        constants,
        name=name or f"tiny_{task}_of_events",
        head=head,
        model=(3, n_outputs, 1),
        **_of_camera(
            camera_identity,
            camera_recipe(TILE_PX),
            ShowerInput(cameras={camera_identity: image_input}, max_telescopes=4),
        ),
    )


def sky_bundle(
    folder: Path,
    *,
    name: str = "tiny_denoise",
    population: Population | None = None,
    variance: FrameVariance | None = None,
) -> Path:
    """A model that believes every pixel, halves its uncertainty, and sees no defect."""
    head = head_section("denoise").model_copy(update={"variance": variance})
    constants = np.zeros((1, len(head.outputs), 1, 1), np.float32)
    constants[0, 2:4, 0, 0] = 2 * np.log(0.5), -9.0
    nodes = [
        helper.make_node("Slice", ["images", "start", "end", "axis"], ["one"]),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "planes"], ["outputs"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])]
    outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", len(head.outputs), "h", "w"])]
    values = {
        "start": np.array([0]), "end": np.array([1]), "axis": np.array([1]),
        "zero": np.zeros(1, np.float32), "planes": constants,
    }  # fmt: skip
    return _write(
        folder,
        nodes,
        inputs,
        outputs,
        values,
        name=name,
        wing="sky",
        head=head,
        model=(3, len(head.outputs), 0),
        cameras=(),
        input=_frame_input(population),
    )


def defects_bundle(
    folder: Path, *, name: str = "tiny_defects", false_alarms: FalseAlarms | None = None, denoises: bool = False
) -> Path:
    """A model that takes a pixel for a cosmic ray as its signal exceeds sinh(5) of the noise, and sees nothing else.

    With `denoises`, it also has the head of `sky_bundle`, before this one.
    """
    before = (head_section("denoise"),) if denoises else ()
    first = sum(len(head.outputs) for head in before)
    head = head_section("defects", first).model_copy(update={"false_alarms": false_alarms})
    n_outputs = first + len(head.outputs)
    planes = np.full((1, n_outputs, 1, 1), -9.0, np.float32)
    scale = np.zeros_like(planes)
    planes[0, first], scale[0, first] = 3.0 - 4 * 5.0, 4.0
    if denoises:
        planes[0, :3, 0, 0] = 0.0, 0.0, 2 * np.log(0.5)
    nodes = [
        helper.make_node("Slice", ["images", "start", "end", "axis"], ["signal"]),
        helper.make_node("Mul", ["signal", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "planes"], ["outputs"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])]
    outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", n_outputs, "h", "w"])]
    values = {
        "start": np.array([0]), "end": np.array([1]), "axis": np.array([1]), "scale": scale, "planes": planes,
    }  # fmt: skip
    return _write(
        folder,
        nodes,
        inputs,
        outputs,
        values,
        name=name,
        wing="sky",
        head=(*before, head),
        model=(3, n_outputs, 0),
        cameras=(),
        input=_frame_input(None),
    )


def _frame_input(population: Population | None) -> InputSection:
    return InputSection(
        channels=("sci", "err"),
        units=("electron", "electron"),
        tile_shape=(TILE_PX, TILE_PX),
        recipe={"version": 1, "size_px": TILE_PX, "stride_px": TILE_PX},
        unit="electron",
        preparation=FrameInput(population=population),
        size_multiple=4,
    )


def _save(path, nodes, inputs, outputs, constants) -> None:
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _write(folder, nodes, inputs, outputs, constants, *, name, wing, head, model, cameras, input) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / ONNX_FILE, nodes, inputs, outputs, constants)
    (folder / WEIGHTS_FILE).write_bytes(b"")
    in_chans, num_outputs, n_scalars = model
    heads = head if isinstance(head, tuple) else (head,)
    card = Card(
        name=name,
        network=heads[0].task,
        wing=wing,
        model=ModelSection(
            name="by_hand", kwargs={}, in_chans=in_chans, num_outputs=num_outputs, n_scalars=n_scalars, n_parameters=0
        ),
        cameras=cameras,
        input=input,
        heads=heads,
        training=TrainingSection(
            config={}, manifests=(), seed=0, threads=1, device="cpu", precision="float32", epochs=0, best_epoch=0,
            n_images=0, wall_time_s=0.0, versions={},
        ),
        validation={"rms": 0.5},
        limits=("made by hand",),
        bundle_sha256=bundle_sha256(folder),
    )  # fmt: skip
    (folder / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    return folder
