"""Megapixels per CPU second of mask and restoration, from file to file, beside astroscrappy and deepCR.

    python benchmarks/bench_sky_speed.py [--bundle BUNDLE] [--side N ...] [--form float int16 fz] [--backend NAME ...]
        [--deepcr FOLDER] [--repeat N] [--quick]

Every row is a process of its own with one thread, which reads a frame and writes the restored one with its mask; its
CPU seconds, the start of Python included, are the least of some runs. Without a bundle, lightpool uses a U-Net of width
24 and depth 2 that was not trained. astroscrappy (L.A.Cosmic) finds cosmic rays and replaces them by medians; deepCR
finds them and paints them over with its networks for HST ACS (pip install --target FOLDER --no-deps deepCR).
"""

import argparse
import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
from astropy.io import fits
from bench_big_frames import make_frame, measured, predict, untrained_bundle
from rich.console import Console
from rich.table import Table

# Of the frame that peers are given: they take minutes for a larger one.
_SIDE_OF_PEERS = 1024
_DEEPCR_MASK, _DEEPCR_PAINT, _DEEPCR_THRESHOLD, _DEEPCR_PATCH_PX = "ACS-WFC", "ACS-WFC-F606W-2-32", 0.5, 256
_FORMS = ("float", "int16", "fz")
PEERS = ("astroscrappy", "deepCR")


# ---- in a process of its own -----------------------------------------------------------------------------------------
def run_peer(name: str, path: Path, out: Path, folder: str | None) -> None:
    """Mask and restore one file as a peer does."""
    with fits.open(path) as hdus:
        sci = next(hdu.data for hdu in hdus if hdu.data is not None).astype(np.float32)
    mask, restored = _astroscrappy(sci) if name == "astroscrappy" else _deepcr(sci, folder)
    parts = [fits.PrimaryHDU(restored.astype(np.float32)), fits.ImageHDU(mask.astype(np.uint8), name="DQ")]
    fits.HDUList(parts).writeto(out, overwrite=True)


def _astroscrappy(sci: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from astroscrappy import detect_cosmics

    return detect_cosmics(sci, gain=1.0, readnoise=6.0)


def _deepcr(sci: np.ndarray, folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    # Only its training writes for tensorboard.
    sys.modules["torch.utils.tensorboard"] = types.ModuleType("tensorboard")
    sys.modules["torch.utils.tensorboard"].SummaryWriter = None
    sys.path.append(folder or "")
    import torch
    from deepCR import deepCR

    torch.set_num_threads(1)
    model = deepCR(mask=_DEEPCR_MASK, inpaint=_DEEPCR_PAINT, device="CPU")
    return model.clean(sci, threshold=_DEEPCR_THRESHOLD, inpaint=True, segment=True, patch=_DEEPCR_PATCH_PX)


# ---- the table -------------------------------------------------------------------------------------------------------
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--side", type=int, nargs="+", default=[2048, 4000])
    parser.add_argument("--form", choices=_FORMS, nargs="+", default=list(_FORMS))
    parser.add_argument("--backend", nargs="+", default=["onnxruntime", "auto"])
    parser.add_argument("--deepcr", metavar="FOLDER", help="where deepCR was installed to; without, it has no row")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small frame: does it run?")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        name, path, out = options.peer
        run_peer(name, Path(path), Path(out), options.deepcr)
        return
    if options.quick:
        options.side, options.form, options.backend, options.repeat = [300], ["float"], ["onnxruntime"], 1
    os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})
    table = Table("method", "form", "pixels", "CPU s", "Mpix per CPU s")

    def add(method: str, form: str, side: int, seconds: list[float]) -> None:
        least = min(seconds)
        table.add_row(method, form, f"{side} x {side}", f"{least:.2f}", f"{side**2 / least / 1e6:.3g}")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out.fits"
        bundle = options.bundle.absolute() if options.bundle else untrained_bundle(folder / "bundle")
        for side in options.side:
            for form in options.form:
                path = make_frame(folder, side, form)
                for backend in options.backend:
                    costs = [predict(bundle, path, out, "--backend", backend) for _ in range(options.repeat)]
                    add(f"lightpool, {backend}", form, side, [cost[2] for cost in costs])
                path.unlink()
        side = min(_SIDE_OF_PEERS, *options.side)
        path = make_frame(folder, side, "float")
        for peer in PEERS if options.deepcr else PEERS[:1]:
            command = [
                __file__,
                "--peer",
                peer,
                str(path),
                str(out),
                *(["--deepcr", options.deepcr] * bool(options.deepcr)),
            ]
            add(peer, "float", side, [measured(command)[2] for _ in range(min(options.repeat, 2))])
    Console().print(table)


if __name__ == "__main__":
    main()
