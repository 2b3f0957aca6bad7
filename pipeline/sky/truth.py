"""The truth of a simulated frame: ``NAME.truth.fits`` next to ``NAME.fits``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import InputFileError
from pipeline.files import check_regular, source_name
from pipeline.sky.dq import DQ_DTYPE


def truth_path(frame: str | Path) -> Path:
    """Path of the truth of `frame`: ``sky_run_0001.fits`` has ``sky_run_0001.truth.fits``."""
    return Path(frame).with_name(f"{source_name(frame)}.truth.fits")


@dataclass(frozen=True)
class Truth:
    """What a simulated frame shows without noise and defects.

    Attributes
    ----------
    clean_e : ndarray, shape (H, W), float32
        Scene, sky and mean dark current [electron].
    dq : ndarray, shape (H, W), uint16
        What is wrong with each pixel of the frame: defects from 2 sigma of charge on.
    defect_snr : ndarray, shape (H, W), float32
        Charge of the defects over the noise of the pixel; negative where charge is lost.
    defect_bits : ndarray, shape (H, W), uint16
        Which defects these are, each from 0.3 sigma of its own charge on.
    stars : dict of ndarray
        x, y [px], flux_e [electron], mag.
    parameters : dict
        PSF, sky and detector: the primary header's cards.
    """

    clean_e: np.ndarray
    dq: np.ndarray
    defect_snr: np.ndarray
    defect_bits: np.ndarray
    stars: dict[str, np.ndarray]
    parameters: dict[str, float | int | str]


def read_truth(path: str | Path) -> Truth:
    """Read a truth file.

    Raises
    ------
    InputFileError
        If it is missing, damaged or no truth file.
    """
    from astropy.io import fits

    check_regular(path)
    try:
        with fits.open(path, memmap=False) as hdus:
            table = hdus["STARS"].data
            return Truth(
                clean_e=hdus["CLEAN"].data.astype(np.float32),
                dq=hdus["DQ"].data.astype(DQ_DTYPE),
                defect_snr=hdus["DEFECT_SNR"].data.astype(np.float32),
                defect_bits=hdus["DEFECT_DQ"].data.astype(DQ_DTYPE),
                stars={name: np.asarray(table[name], dtype=float) for name in table.names},
                parameters={
                    key: value for key, value in hdus[0].header.items() if key not in ("PROVENAN", "COMMENT", "HISTORY")
                },
            )
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise InputFileError(f"{path} is not the truth of a simulated frame ({error})") from error
