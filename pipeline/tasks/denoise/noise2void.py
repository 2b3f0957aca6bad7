"""Learning from single frames: from pixels that the network is not shown, and from the frame's own noise.

- Noise2Void [1]_: about one pixel in a hundred is hidden, on a grid whose points are moved at random, and the network
  is told so. From what is around it, it learns what to put there, and how sure that is.
- All other pixels are shown with more noise than they have, ``y + sigma z``, and compared with what the same noise
  makes of them on the other side, ``y - sigma z``. Where the noise is Gaussian with the stated sigma, that of the
  two is independent, as of two exposures of half the time [2]_: how much a pixel is corrected is learned with its own
  value.

Hidden pixels that are shown with the median of the ring around them [3]_ teach no correction of a pixel by its own
value: measured on a simulated frame, they left the sky as it was and moved the pixels of stars by 1.5 sigma.

References
----------
.. [1] Krull, Buchholz & Jug (2019), "Noise2Void", arXiv:1811.10980.
.. [2] Pang et al. (2021), "Recorrupted-to-Recorrupted", CVPR, Eq. 6 with D the identity.
.. [3] Hoeck et al. (2022), "N2V2", arXiv:2211.08512, sect. 3.2.
"""

from dataclasses import replace

import numpy as np

from pipeline.inputs.frame import SkyPixels
from pipeline.sky.dq import DEFECTS, has
from pipeline.tiles.shards import TileBatch

#: Target of tiles of single frames: `pipeline.sky.single_frames.Role` of each pixel, uint8, shape (N, 1, H, W).
ROLE = "role"
_MASKED, _LEARNED = 0, 1
# One pixel is hidden in each cell of this side [px].
_CELL_PX = 10
# Noise that is added, in units of the pixel's own.
ADDED_NOISE = 1.0


def hide(batch: TileBatch, rng: np.random.Generator) -> TileBatch:
    """Tiles of single frames as the network is shown them; other tiles as they are.

    Returns
    -------
    TileBatch
        `clean` is what is compared with, `clean_err` its uncertainty.
    """
    if ROLE not in batch.targets:
        return batch
    sci, err = (batch.images[:, channel] for channel in (0, 1))
    clean, clean_err = (batch.targets[name][:, 0] for name in ("clean", "clean_err"))
    # Of the sky's own light: charge of a track that lies over it has brought no noise into `clean`.
    sigma = np.where(np.isfinite(clean_err), clean_err, err)
    added = np.float32(ADDED_NOISE) * sigma * rng.standard_normal(sci.shape).astype(np.float32)
    louder, partner = np.hypot(1, ADDED_NOISE), np.hypot(1, 1 / ADDED_NOISE)
    role = batch.targets[ROLE][:, 0]
    hidden = (_chosen(sci.shape, rng) & (role == _LEARNED)) | (role == _MASKED)
    images = np.stack([np.where(hidden, np.nan, sci + added), err * louder], axis=1, dtype=np.float32)
    clean, clean_err = clean - added / np.float32(ADDED_NOISE**2), clean_err * np.float32(partner)
    return replace(
        batch,
        images=images,
        events=batch.events | {"noise": batch.events["noise"] * louder},
        targets=batch.targets | {"clean": clean[:, None], "clean_err": clean_err[:, None]},
    )


def arrays(batch: TileBatch, pixels: SkyPixels) -> dict[str, np.ndarray]:
    """What `pipeline.tasks.denoise.targets` has of a noisy partner, of tiles that `hide` has made."""
    variance = np.square(batch.targets["clean_err"][:, 0].astype(np.float32) / pixels.noise)
    return {
        "clean_variance": np.where(np.isfinite(variance), variance, 1).astype(np.float32),
        # Both are the same exposure: no star changes between them.
        "scatter": np.zeros(len(pixels.sci), np.float32),
        "defect": has(batch.masks, DEFECTS) & ~pixels.missing,
    }


def _chosen(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """One pixel of each cell of the tiles: bool, shape (N, H, W)."""
    n_tiles, height, width = shape
    rows, columns = -(-height // _CELL_PX), -(-width // _CELL_PX)
    whole = np.zeros((n_tiles, rows * _CELL_PX, columns * _CELL_PX), bool)
    tile, row, column = np.indices((n_tiles, rows, columns))
    jitter_y, jitter_x = rng.integers(0, _CELL_PX, (2, n_tiles, rows, columns))
    whole[tile, row * _CELL_PX + jitter_y, column * _CELL_PX + jitter_x] = True
    return whole[:, :height, :width]
