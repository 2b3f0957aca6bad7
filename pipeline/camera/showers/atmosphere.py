"""The atmosphere: overburden, height, density and refractive index.

Five layers of the US standard atmosphere, T(h) = a + b exp(-h / c), the last one linear [1]_ [2]_.

References
----------
.. [1] Heck et al. (1998), CORSIKA, FZKA 6019, appendix D, model 1 (J. Linsley).
.. [2] Keilhauer et al. (2004), Astropart. Phys. 22, 249.
"""

import math

import numpy as np

from pipeline.camera.showers.compilation import inner

LAYER_BOTTOM_M = np.array([0.0, 4e3, 10e3, 40e3, 100e3])
A_G_CM2 = np.array([-186.555305, -94.919, 0.61289, 0.0, 0.01128292])
B_G_CM2 = np.array([1222.6562, 1144.9069, 1305.5948, 540.1778, 1.0])
C_M = np.array([9941.8638, 8781.5355, 6361.4304, 7721.7016, 1e7])
TOP_M = 100e3

REFRACTIVITY_SEA_LEVEL = 2.83e-4  # n - 1 at 400 nm and sea level (CORSIKA's value, [1]_ section 2.2.6)


def _layer_bottom_depths():
    """T at the lower edge of each layer [g/cm2]."""
    return A_G_CM2[:4] + B_G_CM2[:4] * np.exp(-LAYER_BOTTOM_M[:4] / C_M[:4])


LAYER_BOTTOM_G_CM2 = np.append(_layer_bottom_depths(), A_G_CM2[4] - B_G_CM2[4] * TOP_M / C_M[4])
SEA_LEVEL_DENSITY_G_CM3 = B_G_CM2[0] / (100 * C_M[0])


@inner
def _layer_of_depth(depth_g_cm2):
    layer = 0
    while layer < 3 and depth_g_cm2 <= LAYER_BOTTOM_G_CM2[layer + 1]:
        layer += 1
    return layer


@inner
def depth_at(height_m):
    """Vertical overburden T(h) [g/cm2]; 0 above the atmosphere (112.8 km)."""
    if height_m >= TOP_M:
        return max(A_G_CM2[4] - B_G_CM2[4] * height_m / C_M[4], 0.0)
    layer = 0
    while layer < 3 and height_m >= LAYER_BOTTOM_M[layer + 1]:
        layer += 1
    return A_G_CM2[layer] + B_G_CM2[layer] * math.exp(-height_m / C_M[layer])


@inner
def height_at(depth_g_cm2):
    """Height [m] with overburden `depth_g_cm2`; at most 100 km."""
    if depth_g_cm2 <= LAYER_BOTTOM_G_CM2[4]:
        return TOP_M
    layer = _layer_of_depth(depth_g_cm2)
    return -C_M[layer] * math.log((depth_g_cm2 - A_G_CM2[layer]) / B_G_CM2[layer])


@inner
def density_at_depth(depth_g_cm2):
    """Air density [g/cm3] where the overburden is `depth_g_cm2`.

    rho = -dT/dh = (b / c) exp(-h / c) = (T - a) / c: the overburden is known all along a track, so that the inner
    loops need no exponential.
    """
    layer = _layer_of_depth(depth_g_cm2)
    return max((depth_g_cm2 - A_G_CM2[layer]) / (100 * C_M[layer]), 1e-9)


@inner
def refractivity_at_depth(depth_g_cm2):
    """N - 1, proportional to the density."""
    return REFRACTIVITY_SEA_LEVEL / SEA_LEVEL_DENSITY_G_CM3 * density_at_depth(depth_g_cm2)


@inner
def mean_refractivity(depth_g_cm2, height_m, end_depth_g_cm2, end_height_m):
    """<n - 1> along a straight line between two heights: the integral of the density is the difference in depth."""
    column = (end_depth_g_cm2 - depth_g_cm2) / max(100 * (height_m - end_height_m), 1.0)
    return REFRACTIVITY_SEA_LEVEL / SEA_LEVEL_DENSITY_G_CM3 * column
