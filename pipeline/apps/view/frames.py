"""A FITS frame and its restoration as tiles: planes of one shape, their statistics, and masks that go out."""

import base64
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.apps.view.scenes import Scene, read_scenes
from pipeline.apps.view.server import Answer
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import source_name
from pipeline.sky import cards
from pipeline.sky.dq import DESCRIPTIONS, DQ, DQ_DTYPE
from pipeline.sky.previews import add_bits, add_blocks
from pipeline.sky.strips import Image, sample_of

if TYPE_CHECKING:
    from pipeline.bundle.runtime import Predictor
    from pipeline.stages.shelf import Shelf

TILE_PX = 256
_KEPT_BYTES = 96 << 20
_FITS_BLOCK = 2880


class FrameSite:
    """A `Site` of the science images of a FITS file.

    Parameters
    ----------
    path : path
        The frame as it came, or as `lightpool predict` has written it.
    predictor : Predictor, optional
        Restores a frame that came so, into a temporary folder.
    cfg : Config
    stack : ExitStack
        Closes files and removes the folder.
    shelf : Shelf, optional
        Has the model for it where no other is given.
    """

    def __init__(
        self, path: Path, predictor: "Predictor | None", cfg: Config, stack: ExitStack, shelf: "Shelf | None" = None
    ) -> None:
        self._path = path
        self.scenes, self.notes = read_scenes(path, predictor, cfg, stack, shelf)
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._limits: dict[tuple[int, str], dict[str, Any]] = {}

    # ---- answering ---------------------------------------------------------------------------------------------------
    def get(self, path: Sequence[str], query: Mapping[str, str]) -> Answer | None:
        """info.json, limits/IMAGE/PLANE, tile/IMAGE/PLANE/LEVEL/ROW/COLUMN, at/IMAGE?x=&y=."""
        match list(path):
            case ["info.json"]:
                return Answer.of_json(self.info())
            case ["limits", number, plane]:
                return Answer.of_json(self.limits(_number(number), plane))
            case ["tile", number, plane, level, row, column]:
                return self.tile(_number(number), plane, _number(level), _number(row), _number(column))
            case ["at", number]:
                return Answer.of_json(self.at(_number(number), query))
        return None

    def post(self, path: Sequence[str], body: bytes) -> Answer | None:
        """mask/IMAGE: the mask with the edits of the page, as a FITS file for the browser to save."""
        match list(path):
            case ["mask", number]:
                return self.mask(_number(number), body)
        return None

    def info(self) -> dict[str, Any]:
        """What there is, for the page."""
        return {
            "kind": "frames",
            "file": self._path.name,
            "notes": self.notes,
            "tile_px": TILE_PX,
            "bits": [{"bit": int(bit), "name": text} for bit, text in DESCRIPTIONS.items()],
            "images": [
                {
                    "name": f"HDU {scene.frame.science_hdu}",
                    "height": scene.frame.shape[0],
                    "width": scene.frame.shape[1],
                    "unit": scene.frame.stored_unit,
                    "planes": list(scene.planes),
                    "noise": _finite(scene.noise),
                    "has_wcs": scene.wcs is not None,
                    "score": {"label": scene.score.label, "low": scene.score.low, "high": scene.score.high,
                              "start": scene.score.start},
                    "warnings": list(scene.frame.warnings),
                }
                for scene in self.scenes
            ],
        }  # fmt: skip

    def _scene(self, number: int) -> Scene:
        if number >= len(self.scenes):
            raise UserError(f"there is no image {number}; there are {len(self.scenes)}")
        return self.scenes[number]

    def _plane(self, number: int, name: str) -> Image:
        scene = self._scene(number)
        planes = {**scene.planes, "dq": scene.dq, "score": scene.score.plane}
        if name not in planes:
            raise UserError(f"there is no plane {name}; there are {', '.join(planes)}")
        return planes[name]

    def limits(self, number: int, name: str) -> dict[str, Any]:
        """Limits of the grey scale: zscale's, those of nearly all pixels, and of all that were sampled."""
        from pipeline.figures.frames import zscale_limits

        if (number, name) not in self._limits:
            sample = np.asarray(sample_of(self._plane(number, name)), np.float64)
            known = sample[np.isfinite(sample)]
            found = {
                "zscale": zscale_limits(known),
                "percentile": tuple(np.percentile(known, (0.5, 99.8))) if known.size else (0.0, 1.0),
                "all": (known.min(), known.max()) if known.size else (0.0, 1.0),
            }
            self._limits[number, name] = {key: [float(v) for v in values] for key, values in found.items()}
        return self._limits[number, name]

    def tile(self, number: int, name: str, level: int, row: int, column: int) -> Answer:
        """Little-endian pixels of a tile, float32 or uint16 for `dq`, rows upwards; of level n each is 2^n wide.

        Pixels of higher levels are means of those with a value, of masks all bits, of scores the largest.
        """
        key = number, name, level, row, column
        if key not in self._kept:
            body = _tile(self._plane(number, name), name, level, row, column).tobytes()
            self._kept[key] = body
            while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return Answer.of_bytes(self._kept[key])

    def at(self, number: int, query: Mapping[str, str]) -> dict[str, Any]:
        """Values of all planes in a pixel, and where it is on the sky."""
        scene = self._scene(number)
        x, y = _number(query.get("x", "")), _number(query.get("y", ""))
        height, width = scene.frame.shape
        if x >= width or y >= height:
            raise UserError(f"pixel ({x}, {y}) is outside the image of {width} x {height} px")
        found: dict[str, Any] = {"x": x, "y": y}
        for name, plane in {**scene.planes, "score": scene.score.plane}.items():
            found[name] = _finite(float(np.asarray(plane[y : y + 1, x : x + 1])[0, 0]))
        found["dq"] = int(np.asarray(scene.dq[y : y + 1, x : x + 1])[0, 0])
        found["sky"] = _on_sky(scene.wcs, x, y)
        return found

    def mask(self, number: int, body: bytes) -> Answer:
        """The mask as FITS, with edits: JSON with `edits`, `bit`, and `threshold` or null.

        Each edit is [row, column, base64] of a tile of level 0: a byte per pixel, 1 sets the bit and 2 makes the pixel
        good. Where the score reaches the threshold, the bit is set as well.
        """
        scene = self._scene(number)
        bit, threshold, edits = _edits(body, scene.frame.shape)
        header = _mask_header(scene, self._path.name)
        height, width = scene.frame.shape
        n_bytes = 2 * height * width
        padding = -n_bytes % _FITS_BLOCK

        def parts() -> Iterator[bytes]:
            yield header
            for rows in _bands(height):
                dq = _edited(scene, rows, bit, threshold, edits)
                # FITS has no unsigned integers: 32768 is subtracted, and stands in BZERO.
                yield (dq.astype(np.int32) - 32768).astype(">i2").tobytes()
            yield bytes(padding)

        name = f"{source_name(self._path)}.mask.fits"
        return Answer("application/fits", len(header) + n_bytes + padding, parts(), _plain(name))


# ---- tiles -----------------------------------------------------------------------------------------------------------
def _tile(image: Image, name: str, level: int, row: int, column: int) -> np.ndarray:
    height, width = image.shape
    step = 1 << level
    if level > 30 or row * TILE_PX * step >= height or column * TILE_PX * step >= width:
        raise UserError(f"there is no tile ({row}, {column}) of level {level}")
    top, left = row * TILE_PX * step, column * TILE_PX * step
    bottom, right = min(top + TILE_PX * step, height), min(left + TILE_PX * step, width)
    if step == 1:
        return _little_endian(np.asarray(image[top:bottom, left:right]))
    shape = -(-(bottom - top) // step), -(-(right - left) // step)
    result = np.zeros(shape, DQ_DTYPE if name == "dq" else np.float32)
    if name == "score":
        result[...] = np.nan
    sums, counts = np.zeros(shape), np.zeros(shape, np.int32)
    # A few hundred rows at a time: the tile of the whole frame must not need its memory.
    n_rows = max(step, TILE_PX)
    for start in range(top, bottom, n_rows):
        part = np.asarray(image[start : min(start + n_rows, bottom), left:right])
        if name == "dq":
            add_bits(result, part, start - top, step)
        elif name == "score":
            first, line = np.arange(0, part.shape[1], step), (start - top + np.arange(len(part))) // step
            np.fmax.at(result, line, np.fmax.reduceat(part, first, axis=1))
        else:
            add_blocks(sums, counts, part, start - top, step)
    if name not in ("dq", "score"):
        with np.errstate(invalid="ignore"):
            result = (sums / np.where(counts, counts, np.nan)).astype(np.float32)
    return _little_endian(result)


def _little_endian(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))


# ---- masks -----------------------------------------------------------------------------------------------------------
def _edits(body: bytes, shape: tuple[int, int]) -> tuple[DQ, float | None, dict[tuple[int, int], np.ndarray]]:
    try:
        asked = json.loads(body)
        bit = DQ(int(asked["bit"]))
        threshold = None if asked["threshold"] is None else float(asked["threshold"])
        edits = {}
        for row, column, text in asked["edits"]:
            top, left = int(row) * TILE_PX, int(column) * TILE_PX
            size = min(TILE_PX, shape[0] - top), min(TILE_PX, shape[1] - left)
            edits[int(row), int(column)] = np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("the edits of the mask cannot be read; load the page again") from error
    if bit not in tuple(DQ):
        raise UserError(f"{int(bit)} is no bit of a mask; accepted: {', '.join(str(int(b)) for b in DQ)}")
    return bit, threshold, edits


def _bands(height: int) -> Iterator[slice]:
    """Rows of tiles."""
    return (slice(top, min(top + TILE_PX, height)) for top in range(0, height, TILE_PX))


def _edited(
    scene: Scene, rows: slice, bit: DQ, threshold: float | None, edits: Mapping[tuple[int, int], np.ndarray]
) -> np.ndarray:
    dq = np.array(scene.dq[rows], DQ_DTYPE)
    if threshold is not None:
        dq[np.asarray(scene.score.plane[rows]) >= threshold] |= DQ_DTYPE(bit)
    for (row, column), edit in edits.items():
        if row == rows.start // TILE_PX:
            part = dq[:, column * TILE_PX : column * TILE_PX + edit.shape[1]]
            part[edit == 1] |= DQ_DTYPE(bit)
            part[edit == 2] &= DQ_DTYPE(DQ.MISSING)  # what is missing cannot be made good
    return dq


def _mask_header(scene: Scene, file: str) -> bytes:
    """Primary header of a file that is the mask alone, with the WCS of the frame."""
    from astropy.io import fits

    header = fits.Header()
    height, width = scene.frame.shape
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, 16, 2
    header["NAXIS1"], header["NAXIS2"] = width, height
    header["BSCALE"], header["BZERO"] = 1, 32768
    header["EXTNAME"] = "DQ"
    if scene.wcs is not None:
        header.update(scene.wcs.to_header(relax=True))
    header[cards.OUR_BITS.keyword] = True, cards.OUR_BITS.comment
    for bit, text in DESCRIPTIONS.items():
        header[cards.bit_keyword(bit)] = text
    header["HISTORY"] = f"lightpool view: mask of {_plain(file)}, HDU {scene.frame.science_hdu}"
    return header.tostring().encode("ascii")


# ---- small things ----------------------------------------------------------------------------------------------------
def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(f"{text!r} is not a number of a pixel, tile or image")
    return int(text)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores, as it may stand in a header."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)


def _on_sky(wcs: Any, x: int, y: int) -> dict[str, Any] | None:
    """RA and Dec (or the coordinates that the WCS has), in degrees and as text."""
    if wcs is None:
        return None
    from astropy.coordinates import SkyCoord

    try:
        place = wcs.pixel_to_world(x, y)
    except Exception:  # no solution far away from the reference
        return None
    if not isinstance(place, SkyCoord):
        return None
    lon, lat = place.spherical.lon.deg, place.spherical.lat.deg
    if not np.isfinite([lon, lat]).all():
        return None
    is_equatorial = hasattr(place, "ra")
    text = place.to_string("hmsdms", precision=2) if is_equatorial else f"{lon:.6f} {lat:+.6f}"
    return {"names": ["RA", "Dec"] if is_equatorial else ["lon", "lat"], "deg": [float(lon), float(lat)], "text": text}
