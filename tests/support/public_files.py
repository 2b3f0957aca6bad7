"""Bundles and data files as a user of the Python API has them, made in milliseconds."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from tiny_bundles import camera_bundle, event_bundle, sky_bundle
from toy_events import toy_camera, write_toy_dl1


def write_public_files(root: Path) -> Path:
    """Fill `root` with bundles (energy, gammaness, stereo, denoise), run.dl1.h5, array.dl1.h5, frame.fits."""
    identity = toy_camera().identity
    camera_bundle(root / "bundles" / "energy", "energy", identity)
    camera_bundle(root / "bundles" / "gammaness", "gammaness", identity)
    event_bundle(root / "bundles" / "stereo", "energy", identity, name="tiny_stereo")
    sky_bundle(root / "bundles" / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    write_toy_dl1(root / "array.dl1.h5", tel_ids=(1, 2, 3))
    pixels = np.random.default_rng(1).normal(200, 15, (64, 70)).astype(np.float32)
    header = fits.Header({"BUNIT": "electron", "OBJECT": "toy", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 35.0, "CRPIX2": 32.0, "CDELT1": -1e-4, "CDELT2": 1e-4})
    fits.PrimaryHDU(pixels, header).writeto(root / "frame.fits")
    return root
