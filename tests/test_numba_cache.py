"""A place for compiled functions where nothing else can be written to."""

import os
import subprocess
import sys

import pytest

from pipeline import numba_cache


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """An installation and a home that nobody may write to; the folder for temporary files."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/proc/nonexistent")  # where nothing can be made, not even by root
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.access", lambda path, mode: str(path).startswith(str(tmp_path)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.modules", {})
    return tmp_path


def test_a_writable_installation_is_left_alone(monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    numba_cache.ensure_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_the_cache_of_the_user_is_left_alone(read_only, monkeypatch):
    monkeypatch.setenv("HOME", str(read_only))
    numba_cache.ensure_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_the_folder_below_the_temporary_one_is_used_again(read_only, monkeypatch):
    for _ in range(2):
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
        numba_cache.ensure_cache()
        assert os.environ["NUMBA_CACHE_DIR"] == str(read_only / f"lightpool-numba-{os.getuid()}")
    assert (read_only / f"lightpool-numba-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_not_used(read_only):
    name = f"lightpool-numba-{os.getuid()}"
    (read_only / name).mkdir()
    (read_only / name).chmod(0o777)
    numba_cache.ensure_cache()
    assert os.environ.pop("NUMBA_CACHE_DIR") != str(read_only / name)


def test_numba_starts_without_linear_algebra():
    """And whoever needs it later, gets it."""
    code = """
import sys
import pipeline.camera.tiling
assert "numba.np.arraymath" in sys.modules
assert not {name for name in sys.modules if name.startswith("scipy.linalg")}
import scipy.linalg.cython_blas
import pipeline.numba_cache
pipeline.numba_cache.load_numba()
assert sys.modules["scipy.linalg.cython_blas"] is scipy.linalg.cython_blas
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
