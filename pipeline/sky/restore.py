"""Apply a network to a frame of any size, strip by strip, and say what is known of the result."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.sky import cards
from pipeline.sky.dq import DQ, DQ_DTYPE, flag
from pipeline.sky.frame_results import FrameResult, as_stored, cards_of
from pipeline.sky.frame_statistics import FrameStatistics
from pipeline.sky.frames import Frame, StreamedProduct, Strip
from pipeline.sky.joined_strips import PackedMasks, Rows
from pipeline.sky.lines import BinnedLogits, Line, flag_lines
from pipeline.sky.mosaic import AUTO, NO_MOSAIC, Mosaic, mosaic_of, phases_of
from pipeline.sky.strips import LazyImage, part_of, strip_rows_of
from pipeline.sky.tile_rows import PAINTED, FramePredictor, check_overlap, restore_rows, seam_warnings, told_sources
from pipeline.sky.training_range import Choice, Comparison, compare, mosaic_taken_apart

#: In a frame further than this from those of training, whatever the network has changed is of low confidence.
DOUBTFUL_SCORE = 3.0


def restore_frame(
    frame: Frame,
    predictor: FramePredictor,
    tile_px: int = 1024,
    overlap_px: int = 176,
    outside_range: Choice = "keep_sources",
    bayer: str = AUTO,
) -> FrameResult:
    """Apply a network to all pixels of a frame, with the result in memory: all strips of a `Restoration`."""
    return Restoration.of(frame, predictor, tile_px, overlap_px, outside_range, bayer).whole()


@dataclass(frozen=True)
class Restoration:
    """A network about to be applied to a frame; with a denoising task, its defects and holes are replaced.

    Attributes
    ----------
    frame : Frame
    predictor : FramePredictor
    tile_px, overlap_px : int
    compared : Comparison
        The frame beside those of training.
    sources : LazyImage of bool, shape (H, W), optional
        Pixels that may belong to sources of the frame, see `pipeline.sky.tile_rows.told_sources`.
    phases : tuple
        Of a mosaic of colours, its kinds of pixels: their place in the frame, and the restoration of each.
    lines : list of (int, list of Line)
        DQ bits, and the lines that they are for: known when all strips have been computed. None in a mosaic.

    Notes
    -----
    A mosaic of colours (a raw frame of a colour camera) is taken apart into its four kinds of pixels, each is restored
    as a frame of its own, and they are put together again: no colour is mixed into another.
    """

    frame: Frame
    predictor: FramePredictor
    tile_px: int
    overlap_px: int
    compared: Comparison
    sources: LazyImage | None = None
    phases: "tuple[tuple[tuple[slice, slice], Restoration], ...]" = ()
    lines: list[tuple[int, list[Line]]] = field(default_factory=list, compare=False)

    @classmethod
    def of(
        cls,
        frame: Frame,
        predictor: FramePredictor,
        tile_px: int = 1024,
        overlap_px: int = 176,
        outside_range: Choice = "keep_sources",
        bayer: str = AUTO,
    ) -> "Restoration":
        """Compare a frame with those of training; nothing is restored yet.

        Parameters
        ----------
        frame : Frame
            Of any size; the exposed part is restored, an overscan is kept as it is.
        predictor : FramePredictor
        tile_px : int
            Side of the tiles, about: as many of one size as cover the frame, in steps of what the model takes.
        overlap_px : int
            Overlap of neighbouring tiles, rounded up likewise. Three eighths at either side are discarded, across the
            quarter between them the tiles are blended: from 1.4 times the model's receptive field on, no pixel that is
            used has seen a tile's edge.
        outside_range : {"keep_sources", "apply", "refuse"}
            What is done with a frame unlike those of training, see `pipeline.sky.training_range.compare`.
        bayer : str
            Pattern of a mosaic of colours, see `pipeline.sky.mosaic.mosaic_of`.

        Raises
        ------
        ValueError
            If `overlap_px` is negative or not smaller than `tile_px`.
        InputFileError
            If the frame is unlike those of training and that is to be refused, or its pattern of colours is unknown.
        """
        check_overlap(overlap_px, tile_px)
        mosaic = mosaic_of(frame, bayer)
        if mosaic is not None:
            compared = mosaic_taken_apart(mosaic.source)
        else:
            compared = compare(frame, predictor.population, outside_range, may_be_mosaic=bayer != NO_MOSAIC)
        how = tile_px, overlap_px, outside_range, NO_MOSAIC
        phases = phases_of(frame) if compared.is_mosaic else ()
        parts = tuple((place, cls.of(phase, predictor, *how)._named(mosaic, place)) for place, phase in phases)
        sources = told_sources(frame, predictor, compared.psf)
        return cls(frame, predictor, tile_px, overlap_px, compared, sources, parts)

    def _named(self, mosaic: Mosaic | None, place: tuple[slice, slice]) -> "Restoration":
        """The same with the colour of its pixels before its warnings."""
        if mosaic is None:
            return self
        colour = mosaic.colour(place[0].start, place[1].start)
        warnings = tuple(f"{colour} pixels: {text}" for text in self.compared.warnings)
        return replace(self, compared=replace(self.compared, warnings=warnings))

    @property
    def statistics(self) -> FrameStatistics | None:
        """What was compared with the frames of training, where the model knows these."""
        return self.compared.statistics

    @property
    def unlikeness(self) -> tuple[float | None, str]:
        """How far the frame is from those of training, and why; of a mosaic, what its worst colour says."""
        own = self.compared.score, self.compared.why
        return max((phase.unlikeness for _, phase in self.phases), default=own, key=lambda found: found[0] or 0.0)

    @property
    def cards(self) -> list[tuple[str, bool | float | str, str]]:
        """What is known of the result before it is computed, for the header."""
        score, why = self.unlikeness
        # Neighbours in a mosaic are restored apart: nothing was measured of their sums.
        known = {} if self.phases else self.predictor.correlations
        found = [cards.correlation(side, value) for side, value in known.items()]
        if score is not None:
            found.append(cards.UNLIKENESS.with_value(float(f"{score:.3g}")))
        return [*found, cards.UNLIKE.with_value(why)] if why else found

    @property
    def n_kept(self) -> int:
        """Pixels that look like sources and keep their value."""
        return self.compared.n_kept + sum(phase.n_kept for _, phase in self.phases)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The frame's, how it differs from those of training, and the predictor's."""
        of_phases = [text for _, phase in self.phases for text in phase.warnings]
        shape = part_of(self.frame.sci, self.frame.exposed).shape
        seams = () if self.phases else seam_warnings(shape, self.predictor, self.tile_px, self.overlap_px)
        every = (*self.frame.warnings, *self.compared.warnings, *self.predictor.warnings, *seams, *of_phases)
        return tuple(dict.fromkeys(every))

    @property
    def only_flags(self) -> bool:
        """Whether the network has no plane to write, but the mask."""
        return not any(column.hdu for column in self.predictor.columns)

    @property
    def units(self) -> dict[str, str]:
        """Extension name of each plane beside SCI and ERR -> its unit; "sci" is the frame's."""
        return {c.hdu: c.unit for c in self.predictor.columns if c.hdu and c.hdu not in ("SCI", "ERR")}

    def strips(self) -> Iterator[Strip]:
        """The result in the frame's unit, from its first row to the last; memory is that of one row of tiles."""
        height = self.frame.shape[0]
        first, last, _ = self.frame.exposed[0].indices(height)
        yield from self._untouched(0, first)
        yield from self._interleaved(first, last) if self.phases else self._restored(first)
        yield from self._untouched(last, height)

    def whole(self) -> FrameResult:
        """The result in memory."""
        shape = self.frame.shape
        sci, err, dq = (np.empty(shape, dtype) for dtype in (np.float32, np.float32, DQ_DTYPE))
        planes = {name: (np.empty(shape, np.float32), unit) for name, unit in self.units.items()}
        for strip in self.strips():
            rows = slice(strip.top, strip.top + len(strip.sci))
            sci[rows], err[rows], dq[rows] = strip.sci, strip.err, strip.dq
            for name, (plane, _) in planes.items():
                plane[rows] = strip.planes[name]
        self.add_lines(0, dq)
        return FrameResult(
            sci, err, dq, planes, self.statistics, self.n_kept, self.warnings, self.only_flags, self.cards
        )

    def product(self, strips: Callable[[], Iterator[Strip]] | None = None) -> StreamedProduct:
        """The result as it is written, computed when it is; `strips` may look at its own on the way."""
        frame, compute = self.frame, strips or self.strips
        masks = PackedMasks()
        units = {name: frame.stored_unit if unit == "sci" else unit for name, unit in self.units.items()}

        def kept() -> Iterator[Strip]:
            """With their masks set aside, where lines may have to be added to them."""
            for strip in compute():
                if self.predictor.lines:
                    masks.append(strip.top, strip.dq)
                yield strip

        return StreamedProduct(
            frame.science_hdu,
            frame.shape,
            units,
            lambda: (as_stored(frame, strip, self.units) for strip in kept()),
            [*cards_of(frame), *self.cards],
            warnings=self.warnings,
            only_flags=self.only_flags,
            amend=lambda: ((top, dq) for top, dq in masks if self.add_lines(top, dq)),
        )

    def _as_it_came(self, rows: slice, but: Collection[str] = ()) -> Strip:
        """Rows of the frame, as arrays that may be changed; not those of planes that are written over."""
        frame = self.frame
        shape = (rows.stop - rows.start, frame.shape[1])
        dq = np.array(frame.dq[rows])
        sci, err = (
            np.empty(shape, np.float32) if name in but else np.array(image[rows])
            for name, image in (("SCI", frame.sci), ("ERR", frame.err))
        )
        return Strip(rows.start, sci, err, dq, {name: np.full(shape, np.nan, np.float32) for name in self.units})

    def _untouched(self, first: int, last: int) -> Iterator[Strip]:
        """Rows that were not exposed."""
        step = strip_rows_of(self.frame.shape)
        return (self._as_it_came(slice(top, min(top + step, last))) for top in range(first, last, step))

    def _restored(self, first: int) -> Iterator[Strip]:
        kept, columns = self.compared.kept, self.frame.exposed[1]
        written = {column.name: column.hdu for column in self.predictor.columns if column.hdu}
        is_whole = kept is None and columns in (slice(None), slice(0, self.frame.shape[1]))
        over = tuple(written.values()) if is_whole else ()
        binned = {
            name: BinnedLogits(part_of(self.frame.sci, self.frame.exposed).shape) for name in self.predictor.lines
        }
        for start, planes in restore_rows(self.frame, self.predictor, self.tile_px, self.overlap_px, self.sources):
            n_rows = len(next(iter(planes.values())))
            rows = slice(first + start, first + start + n_rows)
            strip = self._as_it_came(rows, over)
            whole = {"SCI": strip.sci, "ERR": strip.err, **strip.planes}
            keep = None if kept is None else kept[rows, columns]
            spared = keep
            if keep is not None and self.compared.is_like and PAINTED in planes:
                spared = keep & (planes[PAINTED] >= 0.5)
            for name, hdu in written.items():
                exposed = whole[hdu][:, columns]
                of_pixels = spared is not None and hdu in ("SCI", "ERR")
                exposed[...] = np.where(spared, exposed, planes[name]) if of_pixels else planes[name]
            dq = strip.dq[:, columns]
            added = self.predictor.flags(planes, dq, self.frame.noise, keep, unless_sure=self.compared.is_like)
            if (self.compared.score or 0.0) > DOUBTFUL_SCORE:
                # All that the network has changed: the mask alone, or every pixel that does not keep its value.
                changed = added != 0 if self.only_flags else (added != 0) | (True if spared is None else ~spared)
                flag(added, changed, DQ.LOW_CONFIDENCE)
            dq |= added
            for name, plane in binned.items():
                light = np.asarray(self.frame.sci[rows])[:, columns] - np.float32(self.frame.level)
                plane.add(start, planes[name], light)
            yield strip
        self.lines[:] = [(self.predictor.lines[name], plane.lines()) for name, plane in binned.items()]

    def add_lines(self, top: int, dq: np.ndarray) -> bool:
        """Flag lines in rows of the frame from `top` on (changed in place); whether there is any."""
        if not any(lines for _, lines in self.lines):
            return False
        rows, columns = self.frame.exposed
        first, last, _ = rows.indices(self.frame.shape[0])
        start = max(first - top, 0)
        part = dq[start : max(last - top, 0), columns]
        for bit, lines in self.lines:
            flag_lines(part, lines, bit, top + start - first)
        return True

    def _interleaved(self, first: int, last: int) -> Iterator[Strip]:
        """The results for the kinds of pixels of a mosaic, as one of the whole frame."""
        streams = [(place, Rows(phase.strips())) for place, phase in self.phases]
        step = 2 * max(1, strip_rows_of(self.frame.shape) // 2)
        for top in range(first, last, step):
            strip = self._as_it_came(slice(top, min(top + step, last)))
            for (rows, columns), stream in streams:
                place = (slice(rows.start - first, None, 2), columns)
                part = stream.take(len(strip.sci[place]))
                strip.sci[place], strip.err[place], strip.dq[place] = part.sci, part.err, part.dq
                for name, plane in strip.planes.items():
                    plane[place] = part.planes[name]
            yield strip
