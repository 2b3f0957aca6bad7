"""Defects of sky frames: from the charge of a tile's defects to what is positive, what negative, and what neither."""

from typing import ClassVar

import numpy as np

from pipeline.inputs.frame import SkyPixels
from pipeline.sky.dq import DEFECTS, DQ, has
from pipeline.tasks.defects.spec import FLAGS, SPEC
from pipeline.tasks.interfaces import Motion, Targets
from pipeline.tiles.shards import TileBatch

#: Charge over noise from which a pixel is to be found; those with less than a tenth of it are good, and what lies
#: between is not counted: who flags it is not wrong, and who does not either.
FOUND_SNR = 3.0
#: Signal-to-noise ratio of the sky's own light from which a pixel belongs to the core of a star.
CORE_SNR = 20.0
_BITS = tuple(DQ[FLAGS[name]] for name in SPEC.outputs)
_MAPS = ("signal", "missing", "saturated", "charge", "positive", "faint", "good", "own", "core")


class DefectTargets(Targets):
    """The charge of the defects of a simulated frame over the noise, and which defects they are."""

    motions: ClassVar[dict[str, Motion]] = dict.fromkeys(_MAPS, "map")

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Planes (N, H, W); `positive` and `faint` have one for each kind of defect, (N, K, H, W).

        `signal` is the observed pixel above the background in units of its noise, `charge` that of the defects over the
        pixel's own noise. `good` has no defect, `own` is flagged in the frame's own mask (2 sigma, dead pixels
        always), and `core` is a good pixel of a star's core.
        """
        pixels = SkyPixels.of_batch(batch)
        snr = np.abs(batch.targets["defect_snr"][:, 0].astype(np.float32))
        bits = batch.targets["defect_bits"][:, 0]
        named = np.stack([has(bits, bit) for bit in _BITS], axis=1)
        positive = named & (snr >= FOUND_SNR)[:, None]
        own = np.zeros(snr.shape, bool) if batch.masks is None else has(batch.masks, DEFECTS)
        good = ~(has(bits, DEFECTS) | own | pixels.missing | pixels.saturated)
        return {
            "signal": (pixels.sci - pixels.level) / pixels.noise,
            "missing": pixels.missing,
            "saturated": pixels.saturated,
            "charge": snr,
            "positive": positive,
            # A ghost has no class of its own: no output is told what it is.
            "faint": (named & ~positive) | has(bits, DQ.GHOST)[:, None],
            "good": good,
            "own": own & ~pixels.missing & ~pixels.saturated,
            "core": good & (_true_snr(batch, pixels) > CORE_SNR),
        }


def _true_snr(batch: TileBatch, pixels: SkyPixels) -> np.ndarray:
    """Of the sky's own light: where a defect lies, the stated uncertainty has the defect's noise too."""
    clean = batch.targets["clean"][:, 0].astype(np.float32) - pixels.level
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(clean) / pixels.err


TARGETS = DefectTargets()
