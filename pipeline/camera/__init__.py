"""Everything that knows what an air shower is: simulation, event files, cleaning, Hillas parameters, camera tiles."""

from pipeline.numba_cache import ensure_cache

ensure_cache()
