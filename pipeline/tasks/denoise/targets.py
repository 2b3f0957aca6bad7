"""Restoring sky frames: from a tile's truth, or its partner, to what the loss compares with.

Everything is in units of the frame's background noise, above its background level.
"""

from typing import ClassVar

import numpy as np
from scipy.ndimage import maximum_filter

from pipeline.inputs.frame import SkyPixels
from pipeline.sky.dq import DEFECTS, DQ, has
from pipeline.tasks.defects.spec import SPEC as DEFECT_SPEC
from pipeline.tasks.defects.targets import TARGETS as DEFECT_TARGETS
from pipeline.tasks.denoise import noise2void
from pipeline.tasks.denoise.sharing import share_of_sources
from pipeline.tasks.interfaces import Motion, Targets
from pipeline.tiles.shards import TileBatch

SOURCE_THRESHOLD = 5.0  # u above which a pixel counts as source
_SCATTER_PIXELS = 30  # fewer source pixels tell no scatter
_PARTNER_OUTLIER = 8.0  # sigma of the difference between two exposures: far beyond noise, so that no noise is selected
_NO_TRAIL = [name != "trail" for name in DEFECT_SPEC.outputs]
_MAPS = (
    "signal", "uncertainty", "missing", "saturated", "usable", "source_share", "clean", "clean_variance", "defect",
    "faint", "good", "core", "charge", "star_flux", "star_fwhm_px",
)  # fmt: skip


class DenoiseTargets(Targets):
    """The truth of a simulated frame (`clean`), or another exposure with its uncertainty (`clean`, `clean_err`).

    Both are targets that every sky tile has: nothing else is stored.
    """

    motions: ClassVar[dict[str, Motion]] = dict.fromkeys(_MAPS, "map")

    def hide(self, batch: TileBatch, rng: np.random.Generator) -> TileBatch:
        """Tiles of single frames as the network is shown them."""
        return noise2void.hide(batch, rng)

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Planes (N, H, W) in units of the background noise, and the photon noise's slope (N,).

        `clean_variance` and `scatter` (N,) are there for a noisy partner, `defect` where it can be known. Of simulated
        frames, what `DefectTargets` tells of their defects, of any kind, and of their stars, at the pixels of their
        centres and 0 elsewhere: `star_flux` and `star_fwhm_px`.
        """
        pixels = SkyPixels.of_batch(batch)
        clean = batch.targets["clean"][:, 0].astype(np.float32)
        usable = np.isfinite(clean)
        signal, uncertainty = (pixels.sci - pixels.level) / pixels.noise, pixels.err / pixels.noise
        arrays = {
            "signal": signal,
            "uncertainty": uncertainty,
            "missing": pixels.missing,
            "saturated": pixels.saturated,
            "source_share": share_of_sources((pixels.sci - pixels.level) / pixels.err),
            "photon_slope": _photon_slope(signal, uncertainty, pixels.missing | pixels.saturated),
        }
        if noise2void.ROLE in batch.targets:
            arrays |= noise2void.arrays(batch, pixels)
            usable &= np.isfinite(batch.targets["clean_err"][:, 0])
        elif "clean_err" in batch.targets:
            clean_err = batch.targets["clean_err"][:, 0].astype(np.float32) / pixels.noise
            usable &= np.isfinite(clean_err)
            arrays["clean_variance"] = np.where(usable, clean_err**2, 1).astype(np.float32)
            partner = np.where(usable, (clean - pixels.level) / pixels.noise, np.nan)
            arrays["scatter"] = _relative_scatter(signal, partner, pixels.missing | pixels.saturated)
            difference = np.where(usable, signal - partner, 0)
            # What stands out of one exposure only, on dark sky: on a star and beside it, changes of its shape do that.
            outlier = difference > _PARTNER_OUTLIER * np.sqrt(uncertainty**2 + arrays["clean_variance"])
            brightest_around = maximum_filter(signal - difference, size=(1, 5, 5))
            arrays["defect"] = outlier & (brightest_around < SOURCE_THRESHOLD) & ~pixels.missing
        elif "defect_snr" in batch.targets:
            arrays |= _of_simulated(batch, pixels)
            usable &= ~has(batch.targets["defect_bits"][:, 0], DQ.TRAIL)
        elif batch.masks is not None:
            arrays["defect"] = has(batch.masks, DEFECTS) & ~pixels.missing
        # A saturated star cannot be restored, a saturated cosmic ray can.
        usable &= ~pixels.saturated | arrays.get("defect", False)
        arrays["clean"] = np.where(usable, (clean - pixels.level) / pixels.noise, 0).astype(np.float32)
        arrays["usable"] = usable
        return arrays


def _of_simulated(batch: TileBatch, pixels: SkyPixels) -> dict[str, np.ndarray]:
    """Which pixels are defects, which are good, and the stars in units of the background noise.

    A trail counts neither way: it is as wide as a star, and a network that paints it over paints over diffraction
    spikes and galaxies seen edge-on, too. It stays as it is; the task `defects` flags it.
    """
    known = DEFECT_TARGETS.arrays(batch)
    defect = known["positive"][:, _NO_TRAIL].any(axis=1) & ~pixels.missing
    found = {name: known[name] for name in ("good", "core", "charge")}
    found |= {"defect": defect, "faint": ~defect & ~known["good"]}
    if "stars" in batch.targets:
        found["star_flux"] = batch.targets["stars"][:, 0] / pixels.noise
        found["star_fwhm_px"] = batch.targets["stars"][:, 1]
    return found


def _photon_slope(signal: np.ndarray, uncertainty: np.ndarray, untrusted: np.ndarray) -> np.ndarray:
    """Slope k of sigma^2 = 1 + k u, per tile, from the frame's own uncertainties; 0 without bright pixels."""
    bright = (signal > 3) & ~untrusted
    excess = np.where(bright, uncertainty**2 - 1, 0).sum((1, 2), dtype=np.float64)
    flux = np.where(bright, signal, 0).sum((1, 2), dtype=np.float64)
    return (np.maximum(excess, 0) / np.maximum(flux, 1)).astype(np.float32)


def _relative_scatter(signal: np.ndarray, partner: np.ndarray, untrusted: np.ndarray) -> np.ndarray:
    """By what part of their brightness sources differ between two exposures, shape (N,).

    Seeing, guiding and the place of a star on its pixels change from one exposure to the next, in proportion to the
    flux: in an undersampled field that is a hundred times the noise. Tiles with too few source pixels take the median
    of the others.
    """
    mean = 0.5 * (signal + partner)
    source = (mean > SOURCE_THRESHOLD) & ~untrusted
    change = np.divide(np.abs(signal - partner), mean, out=np.full_like(mean, np.nan), where=source)
    scatter = np.full(len(signal), np.nan)
    for tile in np.flatnonzero(source.sum((1, 2)) >= _SCATTER_PIXELS):
        scatter[tile] = 1.4826 * np.nanmedian(
            change[tile]
        )  # standard deviation of a Gaussian from its median deviation
    typical = np.median(scatter[np.isfinite(scatter)]) if np.isfinite(scatter).any() else 0.0
    return np.where(np.isfinite(scatter), scatter, typical).astype(np.float32)


TARGETS = DenoiseTargets()
