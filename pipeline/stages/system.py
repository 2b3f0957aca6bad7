"""What this machine has, what lightpool will use of it, and what is missing: `lightpool info --system`."""

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline import __version__
from pipeline.text_tables import format_table

Row = tuple[str, str]

_GIB = 2**30
# Where a job's limit of memory stands: version 2 of Linux's control groups, and version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PROGRAMS = {
    "Slurm": ("sbatch", "srun"),
    "HTCondor": ("condor_submit",),
    "Kubernetes": ("kubectl",),
    "Apptainer": ("apptainer",),
}
_PACKAGES = ("torch", "lightning", "onnxruntime", "onnxruntime-gpu", "openvino", "snakemake")
_PROVIDERS = {
    "CPUExecutionProvider": "processor",
    "CUDAExecutionProvider": "CUDA",
    "TensorrtExecutionProvider": "TensorRT",
}


def describe_system() -> list[str]:
    """Lines in three parts. It loads torch and onnxruntime, and computes nothing."""
    there, used, missing = _there(), _used(), _missing()
    lines = []
    for title, rows in (("This machine has", there), ("Used with the default configuration", used)):
        lines += [f"{title}:", *format_table(rows, "<<", indent="  "), ""]
    return [*lines, "Missing:", *([f"  {text}" for text in missing] or ["  nothing"])]


# ---- what is there ---------------------------------------------------------------------------------------------------
def _there() -> list[Row]:
    rows = [
        (
            "system",
            f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}",
        ),
        ("processor", f"{_processor_name()}: {usable_cores()} of {os.cpu_count()} cores may be used"),
        ("memory", _memory()),
        *_gpus(),
        ("packages", ", ".join([f"lightpool {__version__}", *_versions()])),
        ("onnxruntime", f"computes on {', '.join(_providers())}"),
        ("ranks of a training", _collectives()),
    ]
    programs = [name for name, commands in _PROGRAMS.items() if all(map(shutil.which, commands))]
    return [*rows, ("batch systems", ", ".join(programs) or "none found")]


def usable_cores() -> int:
    """Cores that this process may run on: a batch system gives a job some of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.total / _GIB:.1f} GiB, {memory.available / _GIB:.1f} GiB available"
    limit = memory_limit()
    return text if limit is None or limit >= memory.total else f"{text}; this job may use {limit / _GIB:.1f} GiB"


def memory_limit(files: tuple[str, ...] = _LIMITS) -> int | None:
    """Bytes that the control group of this process may use, if that is limited."""
    for file in files:
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _gpus() -> list[Row]:
    import torch

    if torch.backends.mps.is_available():
        return [("GPU", "Apple (mps)")]
    if not torch.cuda.is_available():
        return [("GPU", "none that torch can use")]
    rows = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        rows.append(
            (
                f"GPU {number}",
                f"{facts.name}, {facts.total_memory / _GIB:.0f} GiB, compute capability {facts.major}.{facts.minor}",
            )
        )
    return rows


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _providers() -> list[str]:
    import onnxruntime

    return [_PROVIDERS[name] for name in onnxruntime.get_available_providers() if name in _PROVIDERS]


def _collectives() -> str:
    from torch import distributed

    if not distributed.is_available():
        return "not possible with this torch"
    gloo = "Gloo (processors)" if distributed.is_gloo_available() else "no Gloo"
    return f"{gloo}, {'NCCL (GPUs)' if distributed.is_nccl_available() else 'no NCCL'}"


# ---- what will be used -----------------------------------------------------------------------------------------------
def _used() -> list[Row]:
    from pipeline.config import Config
    from pipeline.device import choose_device, choose_precision
    from pipeline.training.ranks import Ranks

    device = choose_device("auto")
    n_threads = Config().threads
    ranks = Ranks.of_environment()
    shared = f"{ranks.n_ranks} ranks, as torchrun says" if ranks.together else "1 rank; torchrun starts more"
    return [
        ("device of train", device),
        ("precision of train", choose_precision("auto", device)),
        ("ranks of train", shared),
        ("threads of train, evaluate", f"{n_threads} (key threads, option --threads)"),
    ]


# ---- what is missing -------------------------------------------------------------------------------------------------
def _missing(environment: Mapping[str, str] = os.environ) -> list[str]:
    """One line for each thing that would make something possible or faster, with what to do."""
    import torch

    missing = []
    has_cuda = torch.cuda.is_available()
    if shutil.which("nvidia-smi") and not has_cuda:
        if torch.version.cuda is None:
            missing.append(
                f"torch {torch.__version__} is built without CUDA: install one for CUDA (pytorch.org) to use the GPU"
            )
        elif environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            missing.append("CUDA_VISIBLE_DEVICES hides the GPU: unset it, or ask the batch system for a GPU")
        else:
            missing.append("torch finds no GPU: ask the batch system for one, or look at nvidia-smi for the driver")
    elif not has_cuda and not torch.backends.mps.is_available():
        missing.append("a GPU: everything runs on the processor, and a training takes longer")
    if has_cuda and "CUDA" not in _providers():
        missing.append("onnxruntime-gpu: evaluate and predict run on the processor; replace onnxruntime by it")
    if has_cuda and not torch.distributed.is_nccl_available():
        missing.append("NCCL: several GPUs cannot train together")
    if not any(shutil.which(name) for name in (environment.get("CXX", ""), "c++", "g++", "clang++") if name):
        missing.append("a C++ compiler (g++), which networks.NAME.compile: true needs")
    n_threads, cores = _default_threads(), usable_cores()
    if cores < n_threads:
        missing.append(f"cores: {cores} may be used, and a training has {n_threads} threads; set threads: {cores}")
    if shutil.which("sbatch") and not _installed("snakemake-executor-plugin-slurm"):
        missing.append("the Slurm plug-in of Snakemake: pip install 'lightpool[cluster]' for make run PROFILE=slurm")
    return missing


def _default_threads() -> int:
    from pipeline.config import Config

    return Config().threads


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
