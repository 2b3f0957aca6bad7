"""Images that are larger than memory: read, computed and counted strip by strip.

`LazyImage` is an image whose pixels are computed when they are read. It is read as an array is, by one or two slices,
so that the same functions serve both. What has to know all pixels (counts, extremes, medians, samples) is here, exact,
and independent of how the image is cut into strips.
"""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, TypeAlias

import numpy as np

#: Pixels of a strip, about: 8 MB of float32.
STRIP_PX = 1 << 21
# What is decoded is kept as long as the planes of one file have no more than this.
_KEPT_BYTES = 128 << 20
#: A sample of a large image has at least so many pixels.
SAMPLE_PX = 1_000_000

Window: TypeAlias = tuple[slice, slice]


class LazyImage:
    """An image of two axes, of which any window can be computed.

    Parameters
    ----------
    shape : (int, int)
    dtype : dtype
    window : callable
        Pixels of (rows, columns), two slices with a start and a stop inside the image. What it returns is not changed.
    strip_rows : int, optional
        Height of the strips in which it is best read.

    Examples
    --------
    >>> ramp = LazyImage((3, 4), np.int64, lambda rows, columns: np.add.outer(
    ...     10 * np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)))
    >>> ramp[1:, ::2].tolist()
    [[10, 12], [20, 22]]
    """

    ndim = 2

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: Any,
        window: Callable[[slice, slice], np.ndarray],
        strip_rows: int | None = None,
    ) -> None:
        self.shape, self.dtype = (int(shape[0]), int(shape[1])), np.dtype(dtype)
        self._window = window
        self.strip_rows = strip_rows or strip_rows_of(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Window) -> np.ndarray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        (y, dy), (x, dx) = _bounds(rows, self.shape[0]), _bounds(columns, self.shape[1])
        return self._window(y, x)[::dy, ::dx]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All pixels, in memory."""
        whole = np.empty(self.shape, self.dtype)
        for rows in strips(self):
            whole[rows] = self[rows]
        return whole if dtype is None else whole.astype(dtype, copy=False)


#: Pixels in memory, or computed when they are read.
Image: TypeAlias = np.ndarray | LazyImage


def _bounds(index: slice, length: int) -> tuple[slice, int]:
    if not isinstance(index, slice):
        raise TypeError(f"a lazy image is read by slices, got {index!r}")
    start, stop, step = index.indices(length)
    if step < 1:
        raise TypeError(f"a lazy image is read forwards, got {index!r}")
    return slice(start, max(start, stop)), step


# ---- making them -----------------------------------------------------------------------------------------------------
def strip_rows_of(shape: tuple[int, int], multiple: int = 1) -> int:
    """Height of a strip: whole rows of tiles, where the image is stored in tiles of `multiple` rows."""
    rows = max(1, STRIP_PX // max(1, shape[1]))
    return max(multiple, rows // multiple * multiple)


def computed(function: Callable[..., np.ndarray], *images: Image, dtype: Any, halo: int = 0) -> LazyImage:
    """An image whose pixels follow from those of other images of its shape.

    Parameters
    ----------
    function : callable
        Takes a window of each image. With a halo, the window is larger by so many pixels wherever the images go on,
        and a pixel must not depend on any that is further away; the result has the size of its arguments.
    images : ndarray or LazyImage, shape (H, W)
    dtype : dtype
        Of the result.
    halo : int
    """
    shape = images[0].shape
    height, width = shape

    def window(rows: slice, columns: slice) -> np.ndarray:
        y = slice(max(rows.start - halo, 0), min(rows.stop + halo, height))
        x = slice(max(columns.start - halo, 0), min(columns.stop + halo, width))
        result = function(*(image[y, x] for image in images))
        if not halo:
            return result
        top, left = rows.start - y.start, columns.start - x.start
        return result[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]

    best = max((image.strip_rows for image in images if isinstance(image, LazyImage)), default=None)
    return LazyImage(shape, dtype, window, best)


def constant(shape: tuple[int, int], value: Any, dtype: Any) -> LazyImage:
    """An image of one value."""

    def window(rows: slice, columns: slice) -> np.ndarray:
        return np.full((rows.stop - rows.start, columns.stop - columns.start), value, dtype)

    return LazyImage(shape, dtype, window)


def part_of(image: Image, part: Window) -> Image:
    """A part of an image as an image of its own; nothing is read or copied."""
    if not isinstance(image, LazyImage):
        return image[part]
    (y, dy), (x, dx) = (_bounds(index, length) for index, length in zip(part, image.shape, strict=True))
    shape = tuple(-(-(whole.stop - whole.start) // step) for whole, step in ((y, dy), (x, dx)))
    if part == (slice(None), slice(None)) or shape == image.shape:
        return image

    def window(rows: slice, columns: slice) -> np.ndarray:
        return image[
            y.start + dy * rows.start : y.start + dy * rows.stop : dy,
            x.start + dx * columns.start : x.start + dx * columns.stop : dx,
        ]

    return LazyImage(shape, image.dtype, window, max(1, image.strip_rows // dy))


def nonzero(image: Image) -> LazyImage:
    """Where an image is not 0."""
    return computed(lambda pixels: pixels != 0, image, dtype=bool)


class Strips:
    """Strips that were decoded, of all planes of one file: what is read again soon is decoded once."""

    def __init__(self, n_bytes: int | None = None) -> None:
        self._limit, self._bytes, self._n_images = n_bytes or _KEPT_BYTES, 0, 0
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._files: list[IO[bytes]] = []

    def close(self) -> None:
        """Remove all that was kept."""
        self._kept.clear()
        for file in self._files:
            file.close()

    def cached(self, image: LazyImage) -> LazyImage:
        """The same image, of which whole strips are computed; those that were read last are in memory."""
        own = self._n_images
        self._n_images += 1
        expected = image.strip_rows * image.shape[1] * image.dtype.itemsize

        def strip(number: int, rows: slice) -> np.ndarray:
            key = (own, number)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            # What is not needed any more goes before the new strip comes.
            while self._kept and self._bytes + expected > self._limit:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            pixels = image[rows]
            pixels.flags.writeable = False
            self._kept[key] = pixels
            self._bytes += pixels.nbytes
            return pixels

        return _of_strips(image, strip)

    def spooled(self, image: LazyImage) -> LazyImage:
        """The same image, if it is too large to be kept in memory: decoded once, and then in a file without a name.

        Where there is no room for that in the temporary folder, it is decoded again.
        """
        if image.size * image.dtype.itemsize <= self._limit:
            return image
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._files.append(file)
        row_bytes = image.shape[1] * image.dtype.itemsize
        written: set[int] = set()

        def strip(number: int, rows: slice) -> np.ndarray:
            n_bytes, place = (rows.stop - rows.start) * row_bytes, rows.start * row_bytes
            if number in written:
                stored = np.frombuffer(os.pread(file.fileno(), n_bytes, place), image.dtype)
                return stored.reshape(-1, image.shape[1])
            pixels = np.ascontiguousarray(image[rows], image.dtype)
            with suppress(OSError):
                if os.pwrite(file.fileno(), pixels.data, place) == n_bytes:
                    written.add(number)
            return pixels

        return _of_strips(image, strip)


def _of_strips(image: LazyImage, strip: Callable[[int, slice], np.ndarray]) -> LazyImage:
    """An image whose strips, by number and rows, come from somewhere else."""
    height, step = image.shape[0], image.strip_rows

    def window(rows: slice, columns: slice) -> np.ndarray:
        parts = []
        for number in range(rows.start // step, -(-rows.stop // step)):
            top = number * step
            pixels = strip(number, slice(top, min(top + step, height)))
            parts.append(pixels[max(rows.start - top, 0) : rows.stop - top, columns])
        if not parts:
            return np.empty((0, columns.stop - columns.start), image.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return LazyImage(image.shape, image.dtype, window, step)


class Bits:
    """A mask in memory, eight pixels in a byte: 50 MB for 20,000 x 20,000 pixels."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._bits = np.zeros((shape[0], -(-shape[1] // 8)), np.uint8)

    def add(self, top: int, rows: np.ndarray) -> None:
        """Set pixels from row `top` on, bool, shape (n_rows, W); those that are set stay so."""
        self._bits[top : top + len(rows)] |= np.packbits(rows, axis=1)

    @property
    def image(self) -> LazyImage:
        """The mask, bool."""

        def window(rows: slice, columns: slice) -> np.ndarray:
            first = columns.start // 8
            packed = self._bits[rows, first : -(-columns.stop // 8)]
            shift = columns.start - 8 * first
            return np.unpackbits(packed, axis=1)[:, shift : shift + columns.stop - columns.start].view(bool)

        return LazyImage(self.shape, bool, window)


# ---- what all pixels say ---------------------------------------------------------------------------------------------
def strips(image: Image) -> Iterator[slice]:
    """Rows of the strips of an image."""
    step = image.strip_rows if isinstance(image, LazyImage) else strip_rows_of(image.shape)
    return (slice(top, min(top + step, image.shape[0])) for top in range(0, image.shape[0], step))


def count(where: Image) -> int:
    """Number of pixels that are not 0."""
    return sum(int(np.count_nonzero(where[rows])) for rows in strips(where))


def largest(image: Image) -> float:
    """Largest value; NaN does not count."""
    return float(np.fmax.reduce([np.fmax.reduce(image[rows], axis=None) for rows in strips(image)]))


def distinct(image: Image, keep: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Different values among the pixels that `keep` takes from a strip, in order, and how many pixels have each."""
    values, counts = np.empty(0, image.dtype), np.empty(0, np.int64)
    for rows in strips(image):
        new, times = np.unique(keep(image[rows]), return_counts=True)
        if new.size:
            values, place = np.unique(np.concatenate([values, new]), return_inverse=True)
            counts = np.bincount(place, np.concatenate([counts, times])).astype(np.int64)
    return values, counts


def sample_of(image: Image, least: int = SAMPLE_PX) -> np.ndarray:
    """Every n-th pixel of the rows one after the other, all of a small image: up to 2 * `least` pixels."""
    step = max(1, image.shape[0] * image.shape[1] // least)
    parts = [sampled(image[rows], rows.start * image.shape[1], step) for rows in strips(image)]
    return np.concatenate(parts) if parts else np.empty(0, image.dtype)


def sampled(rows: np.ndarray, n_before: int, step: int) -> np.ndarray:
    """Those pixels of some rows that are in a sample of the image; `n_before` pixels come before them."""
    return rows.ravel()[-n_before % step :: step]


def median(image: Image) -> np.float32:
    """Median of float32 pixels, as numpy's `nanmedian` gives it, in two passes.

    The first counts the upper halves of the numbers' bits, the second the lower halves of those in the middle.
    """
    high = np.zeros(1 << 16, np.int64)
    for rows in strips(image):
        high += np.bincount(_ordered(image[rows]) >> 16, minlength=1 << 16)
    n_pixels = int(high.sum())
    if n_pixels == 0:
        return np.float32(np.nan)
    reached = np.cumsum(high)
    ranks = ((n_pixels - 1) // 2, n_pixels // 2)
    tops = [int(np.searchsorted(reached, rank, side="right")) for rank in ranks]
    low = {top: np.zeros(1 << 16, np.int64) for top in tops}
    for rows in strips(image):
        keys = _ordered(image[rows])
        for top, counts in low.items():
            counts += np.bincount(keys[keys >> 16 == top] & 0xFFFF, minlength=1 << 16)
    middle = [
        top << 16 | int(np.searchsorted(np.cumsum(low[top]), rank - (reached[top] - high[top]), side="right"))
        for top, rank in zip(tops, ranks, strict=True)
    ]
    return np.median(_from_ordered(np.array(middle, np.uint32)))


def _ordered(pixels: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of the pixels that are not NaN: of negative ones all bits are inverted."""
    bits = np.ascontiguousarray(pixels[~np.isnan(pixels)], np.float32).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(0x80000000))


def _from_ordered(keys: np.ndarray) -> np.ndarray:
    return np.where(keys >> 31 == 1, keys & np.uint32(0x7FFFFFFF), ~keys).view(np.float32)
