"""An image of a shower, to look at."""

from typing import NamedTuple

import numpy as np


class ShowerImage(NamedTuple):
    """One simulated image and what it shows.

    Attributes
    ----------
    charge_pe : ndarray, shape (n_pixels,)
    size_pe : float
        Charge of the cleaned image.
    energy_tev, impact_m : float
        True energy and impact distance.
    source_deg : tuple of 2 floats
        Where the shower comes from, relative to the pointing: towards larger azimuth and larger altitude.
    """

    charge_pe: np.ndarray
    size_pe: float
    energy_tev: float
    impact_m: float
    source_deg: tuple[float, float]
