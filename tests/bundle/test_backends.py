"""What computes a bundle: which one is chosen, that all give the same, and what is said where one is missing."""

import json
import re

import numpy as np
import onnxruntime
import pytest
from astropy.io import fits
from bench_big_frames import untrained_bundle
from synthetic_tiles import sky_batch

from pipeline.bundle import agreement, backends, runtime
from pipeline.bundle.agreement import disagreement
from pipeline.bundle.backends import candidates, open_graph
from pipeline.bundle.runtime import Predictor
from pipeline.cli import main
from pipeline.errors import InputFileError, UserError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of a denoiser whose outputs differ from pixel to pixel."""
    return untrained_bundle(tmp_path_factory.mktemp("bundles") / "untrained")


@pytest.fixture
def machine(monkeypatch):
    """A machine with what is named: openvino, bfloat16, cuda."""

    def has(*parts: str) -> None:
        monkeypatch.setattr(backends, "has_openvino", lambda: "openvino" in parts)
        for module in (backends, runtime):
            monkeypatch.setattr(module, "multiplies_bfloat16", lambda: "bfloat16" in parts)
        providers = ["CUDAExecutionProvider"] * ("cuda" in parts) + ["CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)

    return has


@pytest.mark.parametrize(
    ("parts", "wing", "choice", "expected"),
    [
        ((), "sky", "auto", ("onnxruntime",)),
        (("openvino",), "sky", "auto", ("onnxruntime",)),
        (("bfloat16",), "sky", "auto", ("onnxruntime",)),
        (("openvino", "bfloat16"), "sky", "auto", ("openvino", "onnxruntime")),
        (("openvino", "bfloat16"), "camera", "auto", ("onnxruntime",)),
        (("openvino", "bfloat16", "cuda"), "sky", "auto", ("cuda", "openvino", "onnxruntime")),
        (("cuda",), "camera", "auto", ("cuda", "onnxruntime")),
        (("openvino", "bfloat16", "cuda"), "sky", "onnxruntime", ("onnxruntime",)),
        (("openvino",), "sky", "openvino", ("openvino",)),
        (("openvino",), "camera", "openvino", ("onnxruntime",)),
        (("cuda",), "camera", "cuda", ("cuda",)),
    ],
)
def test_which_backend_is_chosen(machine, parts, wing, choice, expected):
    machine(*parts)
    assert candidates(choice, wing) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            "openvino",
            r"backend openvino is not installed; install it \(pip install 'lightpool\[openvino\]'\), or choose",
        ),
        ("cuda", "backend cuda: the onnxruntime that is installed has no CUDA; replace it .*onnxruntime-gpu"),
        ("tensorrt", "backend is 'tensorrt'; accepted: auto, onnxruntime, openvino, cuda"),
    ],
)
def test_a_backend_that_is_not_there(machine, bundle, choice, message):
    machine()
    with pytest.raises(UserError, match=message) as caught:
        Predictor.load(bundle, backend=choice)
    assert "\n" not in str(caught.value)


def test_cuda_without_a_device(machine, monkeypatch, bundle):
    """onnxruntime then computes on the processor, and does not say so."""
    machine("cuda")
    open_session = backends._session
    monkeypatch.setattr(
        backends, "_session", lambda path, threads, _: open_session(path, threads, ["CPUExecutionProvider"])
    )
    with pytest.raises(UserError, match="backend cuda: onnxruntime finds no device; choose auto or onnxruntime"):
        Predictor.load(bundle, backend="cuda")
    found = Predictor.load(bundle, backend="auto")
    assert (found.backend.name, found.asked_for) == ("onnxruntime", "auto")


def test_native_bfloat16_is_read_from_the_processor(monkeypatch, tmp_path):
    for flags, expected in (("fpu avx512f avx512_bf16 amx_tile", True), ("fpu avx512f", False)):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        monkeypatch.setattr("builtins.open", lambda *_, file=tmp_path / "cpuinfo", **__: file.open())
        backends.multiplies_bfloat16.cache_clear()
        found = backends.multiplies_bfloat16()
        monkeypatch.undo()
        backends.multiplies_bfloat16.cache_clear()
        assert found == expected


# ---- OpenVINO --------------------------------------------------------------------------------------------------------
def test_openvino_in_float32_gives_the_same(bundle):
    pytest.importorskip("openvino")
    graph = bundle / "model.onnx"
    one, other = (open_graph(graph, 1, name) for name in ("onnxruntime", "openvino"))
    assert other.inputs == one.inputs == {"images": (None, 3, None, None)}
    assert list(other.outputs) == list(one.outputs) == ["outputs"]
    rng = np.random.default_rng(0)
    feeds = [
        {"images": rng.normal(size=(n, 3, size, 32)).astype(np.float32)} for n, size in ((1, 64), (2, 32), (1, 64))
    ]
    found = [other.run(feed) for feed in feeds]  # none is written over by the next
    for feed, outputs in zip(feeds, found, strict=True):
        expected = one.run(feed)
        np.testing.assert_allclose(outputs, expected, atol=1e-4 * np.abs(expected).max())


def test_openvino_in_bfloat16_is_accepted(machine, bundle):
    pytest.importorskip("openvino")
    if not backends.multiplies_bfloat16():
        pytest.skip("the processor does not multiply bfloat16")
    machine("openvino", "bfloat16")
    for choice in ("auto", "openvino"):
        found = Predictor.load(bundle, 1, choice)
        assert (found.backend.name, found.backend.precision) == ("openvino", "bfloat16")
    batch = sky_batch(1, size=64)
    expected = Predictor.load(bundle, 1).predict(batch)["restored"]
    difference = (found.predict(batch)["restored"] - expected) / batch.images[:, 1]
    assert 0 < np.nanstd(difference) < 0.05


@pytest.mark.parametrize(("choice", "expected"), [("auto", "onnxruntime"), ("openvino", "openvino")])
def test_bfloat16_that_is_not_accurate_is_not_used(machine, monkeypatch, bundle, caplog, choice, expected):
    pytest.importorskip("openvino")
    machine("openvino", "bfloat16")
    monkeypatch.setattr(runtime, "disagreement", lambda *_: "values differ by 2 sigma")
    with caplog.at_level("INFO"):
        found = Predictor.load(bundle, 1, choice).backend
    assert (found.name, found.precision) == (expected, "float32")
    assert caplog.messages == ["untrained is not computed in bfloat16: values differ by 2 sigma"]


def test_a_damaged_graph(tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(
        InputFileError, match=r"model\.onnx is no network that OpenVINO can load \(.*copy the bundle"
    ) as e:
        open_graph(tmp_path / "model.onnx", 1, "openvino")
    assert "\n" not in str(e.value)


def test_what_the_library_says_is_one_line(bundle):
    pytest.importorskip("openvino")
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(backends.GraphError) as caught:
            open_graph(bundle / "model.onnx", 1, name).run({"images": np.zeros((1, 2, 32, 32), np.float32)})
        assert "\n" not in str(caught.value)


# ---- whether it is the same ------------------------------------------------------------------------------------------
class _Changed:
    """The predictions of another, changed."""

    def __init__(self, predictor, change):
        self._predictor, self._change = predictor, change

    def __getattr__(self, name):
        return getattr(self._predictor, name)

    def predict(self, batch):
        planes = self._predictor.predict(batch)
        self._change(planes, batch)
        return planes


def _shifted(planes, batch):
    planes["restored"] += 0.06 * batch.images[:, 1]


def _fainter(planes, batch):
    planes["restored"] -= 0.001 * (planes["restored"] - 400)


def _surer(planes, batch):
    planes["restored_err"] *= 0.9


def _flagged(planes, batch):
    planes["defect_probability"][:, ::16] = 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda *_: None, None),
        (_shifted, r"values differ by 0\.06 sigma"),
        (_fainter, r"the flux of stars differs by 0\.1 %"),
        (_surer, r"uncertainties differ by 10 %"),
        (_flagged, r"4\d+ pixels have other flags, of \d+ flagged ones"),
    ],
)
def test_what_counts_as_different(bundle, change, expected):
    predictor = Predictor.load(bundle, 1)
    found = disagreement(predictor, _Changed(predictor, change))
    assert found is None if expected is None else re.search(expected, found)


def test_the_scene_has_stars_to_measure():
    batch, stars = agreement._scene(4, ("sci", "err"))
    assert batch.images.shape == (1, 2, 256, 256)
    assert len(stars) == 36
    row, column = stars[-1]
    assert batch.images[0, 0, row - 4 : row + 5, column - 4 : column + 5].sum() - 81 * 400 == pytest.approx(
        3e5, rel=0.05
    )


# ---- on the command line ---------------------------------------------------------------------------------------------
def test_the_choice_is_recorded(machine, bundle, tmp_path, capsys):
    machine()
    frame = np.random.default_rng(0).normal(400, 20, (40, 48)).astype(np.float32)
    fits.PrimaryHDU(frame, fits.Header({"BUNIT": "electron"})).writeto(tmp_path / "frame.fits")
    arguments = ["predict", str(tmp_path / "frame.fits"), "--bundle", str(bundle)]
    assert main([*arguments, "--backend", "onnxruntime", "--out", str(tmp_path / "out.fits")]) == 0
    with fits.open(tmp_path / "out.fits") as hdus:
        assert f"computed by onnxruntime {onnxruntime.__version__} in float32" in list(hdus[0].header["HISTORY"])
    stamp = json.loads((tmp_path / "out.fits.provenance.json").read_text())
    version = onnxruntime.__version__
    expected = {"untrained": {"name": "onnxruntime", "version": version, "precision": "float32"}}
    assert (stamp["config"]["backend"], stamp["backends"]) == ("onnxruntime", expected)
    capsys.readouterr()
    assert main([*arguments, "--backend", "openvino", "--out", str(tmp_path / "o.fits")]) == 2
    assert "backend openvino is not installed" in capsys.readouterr().err
    assert main([*arguments, "--backend", "tpu", "--out", str(tmp_path / "o.fits")]) == 2
    assert "backend: Input should be 'auto', 'onnxruntime', 'openvino' or 'cuda'" in capsys.readouterr().err
