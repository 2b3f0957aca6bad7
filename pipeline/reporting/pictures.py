"""Figures as part of the page: those made by the stages, and frames before and after restoring."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.files import check_regular
from pipeline.reporting.collect import PredictedFile, Run

if TYPE_CHECKING:
    from pipeline.figures.denoise import Cutout

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_SHOWN_SCALE = 0.625  # figures have 160 px per inch: shown at 100, with detail to spare for sharp screens
_WIDE_PX = 480  # figures shown wider than this are scrolled on a phone instead of shrunk
_SHOWN_FRAMES = 4
_SHOWN_PX = 256  # of a frame's middle: enough to see stars and tracks


@dataclass(frozen=True)
class Picture:
    """A figure inside the page."""

    title: str
    caption: str
    data: str
    width: int
    height: int

    @property
    def wide(self) -> bool:
        """Whether it is too wide for a phone."""
        return self.width > _WIDE_PX


def picture(source: Path | bytes, title: str, caption: str) -> Picture:
    """A PNG file, or its content, as part of the page.

    Raises
    ------
    ValueError
        If it is no PNG, or cut.
    """
    content = source if isinstance(source, bytes) else check_regular(source).read_bytes()
    if not (content.startswith(_PNG_START) and content.endswith(_PNG_END)):
        raise ValueError(f"{title} is no PNG, or cut")
    # Width and height stand at a fixed place of a PNG's first chunk: the page does not jump while it is drawn.
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    encoded = base64.b64encode(content).decode("ascii")
    return Picture(
        title, caption, f"data:image/png;base64,{encoded}", round(width * _SHOWN_SCALE), round(height * _SHOWN_SCALE)
    )


def restored_frames(run: Run) -> list[Picture]:
    """The centre of some frames before and after restoring; none if the originals no longer exist."""
    rows = []
    for entry in run.predicted:
        if entry.ok and entry.wing == "sky" and len(rows) < _SHOWN_FRAMES:
            row = _middle(entry)
            if row is not None:
                rows.append(row)
    if not rows:
        return []
    from pipeline.figures.denoise import before_and_after
    from pipeline.figures.style import PIXELS_PER_INCH

    stream = io.BytesIO()
    before_and_after(rows).savefig(stream, dpi=PIXELS_PER_INCH, metadata={"Software": None})
    caption = (
        "The centre of each frame as recorded, as restored, and the difference, in units of the background "
        "noise. The last column should show noise, cosmic rays and bad pixels, but no stars."
    )
    return [picture(stream.getvalue(), "Restored frames", caption)]


def _middle(entry: PredictedFile) -> "Cutout | None":
    from pipeline.figures.denoise import Cutout
    from pipeline.sky.background import robust_background
    from pipeline.sky.frames import read_frame

    if not (Path(entry.source).is_file() and Path(entry.output).is_file()):
        return None
    try:
        before, after = read_frame(entry.source), read_frame(entry.output)
    except UserError:
        return None
    if before.shape != after.shape:
        return None
    rows, columns = (_central(length) for length in before.shape)
    # In the unit of the pixels: a restored frame keeps the unit of the original.
    image, restored = (frame.to_stored(frame.sci)[rows, columns] for frame in (before, after))
    level, noise = robust_background(image)
    if not noise > 0:
        return None
    return Cutout(entry.name, image, restored, None, level, noise, before.stored_unit)


def _central(length: int) -> slice:
    start = max((length - _SHOWN_PX) // 2, 0)
    return slice(start, start + _SHOWN_PX)
