"""What computes the graph of a bundle: onnxruntime on the processor, onnxruntime through CUDA, or OpenVINO.

Only onnxruntime on the processor is always there, and gives the same bits on every processor of a kind. OpenVINO is
chosen where the processor multiplies bfloat16 natively: it takes half of the time and rounds to three digits, which
`pipeline.bundle.agreement` has to accept. The libraries are imported when a graph is opened.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from pipeline.errors import InputFileError, UserError

if TYPE_CHECKING:
    import onnxruntime
    import openvino

Name = Literal["onnxruntime", "openvino", "cuda"]
Choice = Literal["auto", "onnxruntime", "openvino", "cuda"]
Precision = Literal["float32", "bfloat16"]

_OUTPUT = "outputs"
_PROCESSOR, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# By default, it rounds to 10 bits in convolutions (TF32).
_CUDA_IN_FLOAT32 = (_CUDA, {"use_tf32": "0"})
# Instructions that multiply bfloat16: AVX-512 BF16 and AMX, as Linux names them.
_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
_OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class GraphError(Exception):
    """What a library says of a graph that it cannot compute, in one line."""


class Backend(Protocol):
    """A graph, ready to compute.

    Attributes
    ----------
    name : str
    version : str
        Of the library.
    precision : str
        In which it multiplies.
    inputs : mapping
        Name -> sizes, None where any is taken.
    outputs : sequence of str
    """

    name: Name
    version: str
    precision: Precision
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: Sequence[str]

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """The array `outputs` for arrays by name.

        Raises
        ------
        GraphError
            If the library cannot compute it.
        """


def facts_of(backend: Backend) -> dict[str, str]:
    """What is recorded of a backend."""
    return {"name": backend.name, "version": backend.version, "precision": backend.precision}


# ---- which one -------------------------------------------------------------------------------------------------------
class NoDeviceError(UserError):
    """CUDA has no device to compute on."""


def candidates(choice: Choice, wing: str) -> tuple[Name, ...]:
    """Backends for models of a wing, the best one first; each but the last may turn out to have no device.

    `auto` is CUDA, where onnxruntime has it and finds a device; for the sky else OpenVINO, where it is installed and
    the processor multiplies bfloat16 natively; else onnxruntime on the processor. Networks of camera images are small
    and stay with onnxruntime.

    Raises
    ------
    UserError
        If a backend is asked for that is not there.
    """
    if choice not in get_args(Choice):
        raise UserError(f"backend is {choice!r}; accepted: {', '.join(get_args(Choice))}")
    if choice == "auto":
        faster: list[Name] = ["cuda"] if _has_cuda() else []
        if wing == "sky" and has_openvino() and multiplies_bfloat16():
            faster.append("openvino")
        return (*faster, "onnxruntime")
    if choice == "openvino" and not has_openvino():
        raise UserError(
            "backend openvino is not installed; install it (pip install 'lightpool[openvino]'), or choose auto or "
            "onnxruntime"
        )
    if choice == "cuda" and not _has_cuda():
        raise UserError(
            "backend cuda: the onnxruntime that is installed has no CUDA; replace it (pip uninstall onnxruntime, then "
            "pip install onnxruntime-gpu), or choose auto or onnxruntime"
        )
    return ("onnxruntime",) if choice == "openvino" and wing != "sky" else (choice,)


def has_openvino() -> bool:
    """Whether it is installed."""
    return find_spec("openvino") is not None


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor does, in hardware; OpenVINO itself also counts emulation, which is slow."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        flags = next((line for line in lines if line.startswith("flags")), "")
        return not _NATIVE_BFLOAT16.isdisjoint(flags.split())
    return False  # other systems do not say


def _has_cuda() -> bool:
    """Whether onnxruntime was built with it; machines without a device may have that, too."""
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


def open_graph(graph: Path, threads: int, name: Name = "onnxruntime", precision: Precision = "float32") -> Backend:
    """A graph in one of the backends.

    Parameters
    ----------
    graph : path
        ONNX.
    threads : int
        Of the processor.
    name : str
    precision : str
        Only OpenVINO has another than float32.

    Raises
    ------
    InputFileError
        If it cannot be loaded.
    NoDeviceError
        If CUDA has no device.
    """
    openers: dict[Name, Callable[[], Backend]] = {
        "onnxruntime": lambda: _OnnxRuntime(graph, threads, "onnxruntime"),
        "cuda": lambda: _OnnxRuntime(graph, threads, "cuda"),
        "openvino": lambda: _OpenVino(graph, threads, precision),
    }
    return openers[name]()


# ---- onnxruntime -----------------------------------------------------------------------------------------------------
class _OnnxRuntime:
    precision: Precision = "float32"

    def __init__(self, graph: Path, threads: int, name: Name) -> None:
        import onnxruntime

        self.name, self.version = name, onnxruntime.__version__
        self._session = _session(graph, threads, [_CUDA_IN_FLOAT32, _PROCESSOR] if name == "cuda" else [_PROCESSOR])
        if name == "cuda" and _CUDA not in self._session.get_providers():  # it falls back without a word
            raise NoDeviceError("backend cuda: onnxruntime finds no device; choose auto or onnxruntime")
        self.inputs = {
            entry.name: tuple(size if isinstance(size, int) else None for size in entry.shape)
            for entry in self._session.get_inputs()
        }
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            return self._session.run([_OUTPUT], dict(feed))[0]
        except Exception as error:
            if not _is_of_onnxruntime(error):
                raise
            raise GraphError(_in_one_line(error)) from error


def _session(graph: Path, threads: int, providers: Sequence[Any]) -> "onnxruntime.InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads sleep instead of spinning: other jobs share the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=list(providers))
    except Exception as error:
        if not _is_of_onnxruntime(error):
            raise
        raise _no_network(graph, "onnxruntime", error) from error


def _is_of_onnxruntime(error: Exception) -> bool:
    """Whether the library raised it: it has exceptions of its own for each of its error codes."""
    return type(error).__module__.partition(".")[0] == "onnxruntime"


# ---- OpenVINO --------------------------------------------------------------------------------------------------------
@cache
def _openvino_core() -> "openvino.Core":
    """One for the life of the process.

    Its plug-in for processors sets a stack of its own for handlers of signals. When the last core goes, the memory of
    that stack is given back, but not the stack: the next signal (Ctrl-C, SIGTERM) then ends Python by a segmentation
    fault.
    """
    import openvino

    return openvino.Core()


class _OpenVino:
    name: Name = "openvino"

    def __init__(self, graph: Path, threads: int, precision: Precision) -> None:
        import openvino

        self.version, self.precision = openvino.__version__.partition("-")[0], precision
        settings = {
            # It takes bfloat16 unasked where there is any.
            "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISION[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # other jobs share the cores
        }
        try:
            compiled = _openvino_core().compile_model(str(graph), "CPU", settings)
        except RuntimeError as error:
            raise _no_network(graph, "OpenVINO", error) from error
        self._request, self._tensor = compiled.create_infer_request(), openvino.Tensor
        self.inputs = {
            port.any_name: tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
            for port in compiled.inputs
        }
        self.outputs = [port.any_name for port in compiled.outputs]

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            for name, array in feed.items():
                self._request.set_tensor(name, self._tensor(np.ascontiguousarray(array), shared_memory=True))
            self._request.infer()
        except RuntimeError as error:
            raise GraphError(_in_one_line(error)) from error
        return np.array(self._request.get_tensor(_OUTPUT).data)  # the next call writes into the same memory


# ---- messages --------------------------------------------------------------------------------------------------------
def _no_network(graph: Path, library: str, error: Exception) -> InputFileError:
    return InputFileError(
        f"{graph} is no network that {library} can load ({_in_one_line(error)}); copy the bundle again, or train it "
        "again"
    )


def _in_one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.200}"
