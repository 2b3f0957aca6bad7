"""What every test may count on: one thread, no display, and the fixtures that several areas share."""

import functools
import gc
import os

# Before numpy or torch are imported anywhere: two workers share the processor, and the number of threads changes
# the order of sums, thus the last bits of a result.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

from pipeline.config import Config, load_config

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _no_waiting() -> Iterator[None]:
    """Do once, or not at all, what costs every small test time and none a result.

    The exporter of ONNX graphs makes its table of operators anew for each graph (a quarter of its time), files are
    flushed to a disk that no test pulls the plug of, and what was imported is looked through for garbage (a tenth of
    the time of tests that train).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Root of the checkout under test."""
    return CHECKOUT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real files (camera/, sky/) named by LIGHTPOOL_DATA; tests that need it are skipped without."""
    folder = os.environ.get("LIGHTPOOL_DATA")
    if not folder:
        pytest.skip("LIGHTPOOL_DATA is not set: no real files to test on")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"LIGHTPOOL_DATA={folder} is not a directory")
    return path


@pytest.fixture(scope="session")
def tiny_config_path() -> Path:
    """The smallest experiment that runs through every stage."""
    return CHECKOUT / "tests" / "conf" / "tiny.yaml"


@pytest.fixture(scope="session")
def tiny_config(tiny_config_path) -> Config:
    """`tiny_config_path`, read and checked."""
    return load_config(tiny_config_path)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded random generator, new for every test."""
    return np.random.default_rng(0)
