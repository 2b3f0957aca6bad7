"""Device, precision and number of threads of a computation.

torch is imported inside the functions: prediction only sets its threads and never loads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import UserError


def choose_device(requested: str) -> str:
    """Name of the device to compute on, as torch writes it.

    Parameters
    ----------
    requested : str
        `auto` (CUDA if there is one, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises
    ------
    UserError
        If the device is not available.
    """
    import torch

    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if requested == "auto":
        return "cuda:0" if n_cuda else "mps" if has_mps else "cpu"
    available = ["cpu", *(f"cuda:{index}" for index in range(n_cuda)), *(["mps"] if has_mps else [])]
    name = "cuda:0" if requested == "cuda" else requested
    if name not in available:
        raise UserError(
            f"device {requested!r} is not available to torch {torch.__version__}; "
            f"accepted here: auto, {', '.join(available)}"
        )
    return name


def bfloat16_is_fast(device: str) -> bool:
    """Whether matrix products in bfloat16 run in hardware on `device`.

    Without AMX or AVX-512 BF16 a processor emulates them, several times slower than float32.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


def choose_precision(requested: str, device: str) -> str:
    """`bfloat16` or `float32`: the requested one, or with `auto` the faster one on `device`."""
    if requested != "auto":
        return requested
    return "bfloat16" if bfloat16_is_fast(device) else "float32"


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use `n_threads` inside the block: sums depend on their number in the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
