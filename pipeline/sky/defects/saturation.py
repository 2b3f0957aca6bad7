"""What happens to charge above the full well."""

import numpy as np


def bloom(charge_e: np.ndarray, full_well_e: float) -> np.ndarray:
    """Spill what a full well cannot hold into its column, half upwards and half downwards.

    Charge is conserved except for what leaves the frame at the column's ends.

    Parameters
    ----------
    charge_e : ndarray, shape (H, W)
        Collected charge.
    full_well_e : float
        What one pixel can hold.
    """
    spilled = charge_e.copy()
    for column in np.flatnonzero((charge_e > full_well_e).any(axis=0)):
        line = spilled[:, column]
        excess = np.maximum(line - full_well_e, 0)
        line = np.minimum(line, full_well_e)
        line = _spill(line, excess / 2, full_well_e)
        spilled[:, column] = _spill(line[::-1], excess[::-1] / 2, full_well_e)[::-1]
    return spilled


def _spill(line: np.ndarray, excess: np.ndarray, full_well_e: float) -> np.ndarray:
    """Carry `excess` along increasing index until there is room for it."""
    line, carried = line.copy(), 0.0
    for index in range(int(np.argmax(excess > 0)), line.size):
        carried += excess[index]
        taken = min(carried, full_well_e - line[index])
        line[index] += taken
        carried -= taken
    return line
