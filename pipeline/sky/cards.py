"""The header cards that lightpool writes into FITS files of the sky, and reads again."""

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from pipeline.sky.dq import DQ


class Card(NamedTuple):
    """A keyword and its comment."""

    keyword: str
    comment: str

    def with_value(self, value: bool | float | str) -> tuple[str, bool | float | str, str]:
        """Keyword, value and comment, as the functions that write a header take them."""
        return self.keyword, value, self.comment


# Ingest: the frame as it is in the file. LEVEL marks an image as ingested.
LEVEL = Card("LPLEVEL", "background level")
NOISE = Card("LPNOISE", "background rms")
GAIN = Card("LPGAIN", "[electron/adu] gain applied")
READ_NOISE = Card("LPRDN", "[electron] read noise")
BIAS = Card("LPBIAS", "bias level subtracted, in the unit as it came")
ZERO_KNOWN = Card("LPZERO", "whether zero means no light")
SATURATION = Card("LPSATUR", "saturation level")
SECTION = Card("LPSECT", "exposed section")
SUM = Card("LPSUM", "fingerprint of the pixels that LP cards describe")

# Any product: what changes the meaning of the pixels is in HISTORY, in lines that begin with WARNING_PREFIX.
N_WARNINGS = Card("LPNWARN", "number of warnings, see HISTORY")
WARNING_PREFIX = "lightpool warning: "
_HISTORY_CHARACTERS = 72
_CONTINUATION = "  "

# Prediction: what was measured before anything was restored.
LEVEL_BEFORE = Card("LPBKG", "background level of the frame as it came")
NOISE_BEFORE = Card("LPRMS", "background rms of the frame as it came")

# Prediction: side of a square window of empty sky [px] -> keyword of what its sum varies by (see `aperture_errors`).
CORRELATIONS = {side: f"LPCOR{side}" for side in (3, 5, 9, 17)}

# Prediction: the frame beside those of training.
UNLIKENESS = Card("LPOOD", "distance from training frames, above 1: unlike them")
UNLIKE = Card("LPOODWHY", "")

# Simulation.
TRUTH = Card("LPTRUTH", "truth of this simulated frame")

# DQ extensions. OUR_BITS marks them as lightpool's; where the camera has its own DQ, ours has this name.
OUR_BITS = Card("LPDQ", "bits as follows")


def correlation(side: int, value: float) -> tuple[str, float, str]:
    """The card of one window; the comment has 47 characters at most."""
    return CORRELATIONS[side], value, f"std(sum of {side}x{side} px)/sqrt(sum ERR^2), sky"


def bit_keyword(bit: DQ) -> str:
    """Keyword of the card that explains one bit: LPBIT1 to LPBIT512."""
    return f"LPBIT{int(bit)}"


def warning_lines(text: str) -> list[str]:
    """HISTORY lines of one warning; what does not fit into 72 characters goes on in indented lines."""
    plain = (WARNING_PREFIX + text).encode("ascii", "replace").decode()
    return textwrap.wrap(plain, _HISTORY_CHARACTERS, subsequent_indent=_CONTINUATION, break_on_hyphens=False)


def warnings_in(history: Iterable[str]) -> list[str]:
    """The warnings that `warning_lines` wrote into HISTORY lines, each once."""
    warnings: list[str] = []
    inside = False
    for line in map(str, history):
        if line.startswith(WARNING_PREFIX):
            warnings.append(line.removeprefix(WARNING_PREFIX).strip())
            inside = True
        elif inside and line.startswith(_CONTINUATION):
            warnings[-1] += " " + line.strip()
        else:
            inside = False
    return list(dict.fromkeys(warnings))
