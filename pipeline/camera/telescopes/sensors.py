"""Photo-sensors: probability that a photon on a pixel becomes a photo-electron, against wavelength.

Tables are plain numbers read off published curves; the accuracy is that of the reading (some per cent), and a telescope
has one `throughput` for what they omit.
"""

import numpy as np

PMT_WAVELENGTH_NM = np.array([260, 280, 300, 320, 340, 360, 380, 400, 420, 450, 500, 550, 600, 650, 700], float)

# Super-bialkali photomultipliers of the CTAO cameras (Hamamatsu R11920, R12992): Kobayashi et al. (2021),
# PoS(ICRC2021) 720.
SUPER_BIALKALI = np.array([0.0, 0.02, 0.18, 0.29, 0.36, 0.38, 0.39, 0.39, 0.38, 0.345, 0.25, 0.15, 0.08, 0.035, 0.015])

# Super-bialkali photomultiplier Hamamatsu R10560-100-20, window that lets ultraviolet pass: the curve of the VERITAS
# detector simulation (VTS-SimPipe, CARE configuration V6), measured by Otte et al. (2011), ICRC 9, 247.
VERITAS_PMT = np.array(
    [0.231, 0.276, 0.312, 0.338, 0.347, 0.338, 0.344, 0.335, 0.319, 0.282, 0.197, 0.081, 0.030, 0.004, 0.0]
)

# Bialkali photomultiplier Photonis XP1911 with a lime glass window. Estimate: the shape that data sheets give for
# bialkali cathodes behind lime glass, scaled to a peak of 0.25.
BIALKALI = np.array([0.0, 0.0, 0.03, 0.13, 0.20, 0.23, 0.245, 0.25, 0.245, 0.225, 0.165, 0.09, 0.04, 0.015, 0.005])

SIPM_WAVELENGTH_NM = np.array(
    [280, 300, 320, 340, 360, 380, 400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900], float
)

# Silicon photomultiplier of 50 um cells, uncoated, with little cross-talk, at the overvoltage where cameras work. Read
# off Otte et al. (2017), NIM A 846, 106, Hamamatsu LCT5; includes the share of the chip that is cells.
SILICON = np.array(
    [0.03, 0.10, 0.18, 0.26, 0.34, 0.40, 0.45, 0.50, 0.48, 0.42, 0.35, 0.28, 0.22, 0.17, 0.13, 0.09, 0.06]
)
