"""A bundle with two heads, made from one with a single head: its answers are known, too."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from tiny_bundles import camera_bundle

from pipeline.bundle.card import CARD_FILE, ONNX_FILE, HeadSection, OutputColumn, bundle_sha256, load_bundle_card
from pipeline.tasks import get_spec


def two_headed_bundle(folder: Path, camera_identity: str, *, name: str = "tiny") -> Path:
    """Energy and gammaness of one network: log10(E / TeV) is log10(size) - 2, and the logit half of that."""
    camera_bundle(folder, "energy", camera_identity, name=name)
    proto = onnx.load(folder / ONNX_FILE)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name == "weights":
            tensor.CopyFrom(numpy_helper.from_array(np.column_stack([array, 0.5 * array[:, :1]]), tensor.name))
        elif tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.append(array, np.float32(0)), tensor.name))
    (output,) = proto.graph.output
    output.type.tensor_type.shape.dim[1].dim_value = 3
    onnx.checker.check_model(proto)
    onnx.save(proto, folder / ONNX_FILE)
    card = load_bundle_card(folder)
    spec = get_spec("gammaness")
    second = HeadSection(
        task=spec.name,
        first=len(card.heads[0].outputs),
        outputs=spec.outputs,
        transform=spec.transform,
        columns=tuple(OutputColumn(name=c.name, unit=c.unit, description=c.description) for c in spec.columns),
    )
    changes = {
        "network": "both",
        "heads": (*card.heads, second),
        "model": card.model.model_copy(update={"num_outputs": 3}),
        "bundle_sha256": bundle_sha256(folder),
    }
    (folder / CARD_FILE).write_text(card.model_copy(update=changes).model_dump_json(indent=2))
    return folder
