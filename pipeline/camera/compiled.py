"""numba's decorator for functions that every prediction needs: imported from here, numba starts in half the time."""

from pipeline.numba_cache import load_numba

load_numba()

from numba import njit  # noqa: E402

__all__ = ["njit"]
