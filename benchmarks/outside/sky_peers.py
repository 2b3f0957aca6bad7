"""Defect masks of programs that need an environment of their own: deepCR, Cosmic-CoNN and dfcosmic.

    python benchmarks/sky_judgement.py --frames none --write-frames FRAMES
    python -m venv peers && peers/bin/pip install deepCR cosmic-conn dfcosmic matplotlib
    peers/bin/python benchmarks/outside/sky_peers.py FRAMES RESULTS
    python benchmarks/sky_judgement.py --frames independent --outside RESULTS --out FOLDER

Each `NAME.fits` of FRAMES has electrons in its primary HDU and the read noise in RDNOISE. For each frame and program,
RESULTS gets `NAME/PROGRAM.npz` with the mask, the score that ranks the pixels, the restored frame where the program
makes one, and the CPU seconds of one thread, without imports and without reading weights. All programs run with their
own weights and defaults: thresholds of 0.5 for networks, sigclip 4.5 and objlim 2 for L.A.Cosmic.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits

Result = dict[str, np.ndarray]
_THRESHOLD = 0.5
_SIGCLIP, _OBJLIM, _ROUNDS = 4.5, 2.0, 4


def deepcr(mask: str, inpaint: str | None) -> Callable[[np.ndarray, float], Result]:
    """deepCR (Zhang & Bloom 2020, ApJ 889, 24) with one of its trained masks."""
    from deepCR import deepCR

    model = deepCR(mask=mask, inpaint=inpaint)

    def run(sci_e: np.ndarray, read_noise_e: float) -> Result:
        score = model.clean(sci_e, binary=False)
        cleaned = model.inpaint(sci_e, score > _THRESHOLD) if inpaint else None
        return {"score": score, "mask": score > _THRESHOLD} | ({} if cleaned is None else {"sci": cleaned})

    return run


def cosmic_conn(name: str) -> Callable[[np.ndarray, float], Result]:
    """Cosmic-CoNN (Xu et al. 2023, ApJ 942, 73), which makes a mask only."""
    from cosmic_conn import init_model

    model = init_model(name)

    def run(sci_e: np.ndarray, read_noise_e: float) -> Result:
        score = model.detect_cr(sci_e)
        return {"score": score, "mask": score > _THRESHOLD}

    return run


def dfcosmic() -> Callable[[np.ndarray, float], Result]:
    """L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) in torch."""
    from dfcosmic import lacosmic

    def run(sci_e: np.ndarray, read_noise_e: float) -> Result:
        cleaned, mask = lacosmic(
            sci_e, sigclip=_SIGCLIP, objlim=_OBJLIM, niter=_ROUNDS, gain=1.0, readnoise=read_noise_e, cpu_threads=1
        )
        return {"mask": mask, "sci": cleaned}

    return run


PROGRAMS = {
    "deepCR ACS-WFC": lambda: deepcr("ACS-WFC", "ACS-WFC-F606W-2-32"),
    "deepCR decam": lambda: deepcr("decam", None),
    "Cosmic-CoNN ground_imaging": lambda: cosmic_conn("ground_imaging"),
    "Cosmic-CoNN HST_ACS_WFC": lambda: cosmic_conn("HST_ACS_WFC"),
    "dfcosmic": dfcosmic,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(arguments.frames.glob("*.fits"))
    if not paths:
        parser.error(f"{arguments.frames} has no FITS file")
    for program, load in PROGRAMS.items():
        run = load()
        run(np.random.default_rng(1).normal(100, 5, (128, 128)).astype(np.float32), 5.0)  # what is set up once
        for path in paths:
            with fits.open(path) as hdus:
                sci_e, read_noise_e = hdus[0].data.astype(np.float32), float(hdus[0].header["RDNOISE"])
            started = time.process_time()
            found = run(sci_e, read_noise_e)
            cpu_s = time.process_time() - started
            out = arguments.results / path.stem / f"{program}.npz"
            out.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(out, cpu_s=cpu_s, **found)
            print(f"{program}: {path.stem}, {found['mask'].mean():.3%} masked, {cpu_s:.1f} CPU s", flush=True)


if __name__ == "__main__":
    main()
