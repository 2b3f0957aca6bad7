"""Write a DL2 file: predictions as they come, then everything else from the file that they were made from."""

import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.camera.dl2 import contents
from pipeline.camera.dl2.checks import check_keys
from pipeline.camera.dl2.layout import (
    Output,
    subarray_attributes,
    subarray_dtype,
    telescope_attributes,
    telescope_rows,
)
from pipeline.camera.dl2.selection import Selection, select
from pipeline.camera.dl2.tables import copy_attributes, create_table, make_groups, take_rows, take_whole
from pipeline.camera.keys import KeyIndex
from pipeline.errors import InputFileError
from pipeline.hdf5 import dataset, hdf5_errors, open_file, open_hdf5

_BLOCK_EVENTS = 16_384


class DL2Writer:
    """Write predictions, streaming, and the rest of a DL2 file from the file they were made from.

    Parameters
    ----------
    path : path
        The file to make (under a temporary name: see `pipeline.files.atomic_output`).
    source : path
        The file with the images (ctapipe's layout); predictions of others in it go along.
    outputs : sequence of Output
        Columns by head and group; no two of a group have the same prefix.
    provenance : mapping
        What is equal for equal runs; stored in the root attribute ``LIGHTPOOL PROVENANCE`` as JSON.

    Attributes
    ----------
    n_images, n_events : int
        Images appended, and events to which they belong.

    Notes
    -----
    Leaving the context without an exception makes the file. In memory are the keys of all events and images and a
    block of rows.
    """

    def __init__(
        self, path: str | Path, source: str | Path, outputs: Sequence[Output], *, provenance: Mapping[str, Any]
    ) -> None:
        places = [(output.group, output.prefix) for output in outputs]
        if len(set(places)) != len(places):
            raise ValueError(f"outputs of a group need distinct prefixes, got {places}")
        self.path, self.source = Path(path), Path(source)
        self.outputs = tuple(outputs)
        self.provenance = dict(provenance)
        self.n_events = self.n_images = 0
        self._rows_path = self.path.with_name(self.path.name + ".rows.h5")
        self._ids: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        self._weights: dict[int, list[np.ndarray]] = defaultdict(list)
        # (prefix, column) -> telescope -> values of internal columns, which no table holds.
        self._internal: dict[tuple[str, str], dict[int, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
        self._of_events: list[tuple[np.ndarray, np.ndarray, Sequence[int], Mapping, Mapping]] = []

    def __enter__(self) -> "DL2Writer":
        import tables

        with open_hdf5(self.source) as source:
            self._check_source(source)
            keys = contents.keys_of(source, contents.TEL_TRIGGER, with_telescope=True)
            self._types = {name: column.dtype for name, column in keys.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = tables.open_file(
            str(self._rows_path), "w", filters=tables.Filters(complevel=5, complib="blosc:zstd", fletcher32=True)
        )
        for output in self._of_telescopes:
            self._rows.create_group(*f"/{telescopes_group(output)}".rsplit("/", 1), createparents=True)
        return self

    def _check_source(self, source: Any) -> None:
        for needed in (contents.TRIGGER, contents.TEL_TRIGGER, contents.LAYOUT):
            if needed not in source:
                raise InputFileError(
                    f"{self.source} has no table /{needed}, which a DL2 file takes over; predict without --out, or "
                    "write the file again with ctapipe-process"
                )
        n_telescopes = len(dataset(source, contents.LAYOUT, ("tel_id",)))
        mask = dataset(source, contents.TRIGGER, ("tels_with_trigger",)).dtype["tels_with_trigger"].shape
        if mask != (n_telescopes,):
            raise InputFileError(
                f"{self.source}: tels_with_trigger in /{contents.TRIGGER} has shape {mask}, but the array has "
                f"{n_telescopes} telescopes; write the file again with ctapipe-process"
            )
        held = contents.predictions_of(source)
        for output in self.outputs:
            if output.prefix in held:
                raise InputFileError(
                    f"{self.source} holds predictions of {output.prefix} already ({held[output.prefix][0]}); give the "
                    "file without them, or a bundle of another name"
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            if self._rows.isopen:
                self._rows.close()
            self._rows_path.unlink(missing_ok=True)

    @property
    def _of_telescopes(self) -> list[Output]:
        return [output for output in self.outputs if not output.of_events]

    def append_events(
        self,
        obs_id: np.ndarray,
        event_id: np.ndarray,
        tel_ids: Sequence[int],
        used: Mapping[str, np.ndarray],
        values: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        """Add predictions for whole events, once; events of which no image was appended are left out.

        Parameters
        ----------
        obs_id, event_id : ndarray, shape (n,)
        tel_ids : sequence of int
        used : mapping
            Prefix -> (n, n_telescopes) bool: the telescopes, in the order of `tel_ids`, of which the value was made.
        values : mapping
            Prefix -> decoder's column -> (n,) values; NaN where the model has none.
        """
        self._of_events.append((obs_id, event_id, tel_ids, used, values))

    def append(
        self,
        tel_id: int,
        obs_id: np.ndarray,
        event_id: np.ndarray,
        weight: np.ndarray,
        values: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        """Add images of one telescope, in any order; each must have its trigger in the source.

        Parameters
        ----------
        tel_id : int
            Telescope.
        obs_id, event_id : ndarray, shape (n,)
            Which images.
        weight : ndarray, shape (n,)
            Weight of the image in the mean over telescopes (the image's size [p.e.]).
        values : mapping
            Prefix -> decoder's column -> (n,) values; NaN where the model has none.
        """
        n = len(event_id)
        if n == 0:
            return
        name = f"tel_{tel_id:03d}"
        for output in self._of_telescopes:
            rows = telescope_rows(output, self._types, tel_id, obs_id, event_id, values[output.prefix])
            group = f"/{telescopes_group(output)}"
            if f"{group}/{name}" in self._rows:
                self._rows.get_node(f"{group}/{name}").append(rows)
            else:
                create_table(self._rows, group, name, rows, telescope_attributes(output))
            for column in output.internal:
                part = np.asarray(values[output.prefix][column.name], np.float32)
                self._internal[output.prefix, column.dl2.name][tel_id].append(part)
        self._ids[tel_id].append((np.asarray(obs_id), np.asarray(event_id)))
        self._weights[tel_id].append(np.asarray(weight, np.float64))
        self.n_images += n

    # ---- the second pass ---------------------------------------------------------------------------------------------
    def _finish(self) -> None:
        from pipeline.output.hdf5 import new_hdf5
        from pipeline.output.whole import check_whole

        with open_file(self.source) as source, new_hdf5(self.path, rdcc_nbytes=0) as out:
            selection = select(source, self._predicted())
            self.n_events = selection.n_events
            tel_ids = contents.telescopes_of(source)
            self._write_means(selection, tel_ids)
            self._rows.close()
            check_whole(self._rows_path)
            with hdf5_errors(self.source):
                copy_attributes(source, out)
            self._write_predictions(out, selection)
            _take_over(source, out, selection, tel_ids)
            self._describe(out)
        check_keys(self.path)

    def _predicted(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Telescope -> obs_id and event_id of the images that were appended."""
        parts = ((tel_id, zip(*self._ids[tel_id], strict=True)) for tel_id in sorted(self._ids))
        return {tel_id: tuple(map(np.concatenate, columns)) for tel_id, columns in parts}

    def _write_means(self, selection: Selection, tel_ids: np.ndarray) -> None:
        """Tables of events, beside those of telescopes."""
        for output in self.outputs:
            if output.of_events:
                self._write_events(output, selection, tel_ids)
            elif output.is_averaged:
                self._combine(output, selection, tel_ids)

    def _combine(self, output: Output, selection: Selection, tel_ids: np.ndarray) -> None:
        """Mean over the telescopes of each event, as a table beside those of telescopes."""
        mean = output.combiner(selection.n_events)
        events, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        prefix = f"{output.prefix}_tel"
        for tel_id, images in selection.telescopes.items():
            table = self._rows.get_node(f"/{telescopes_group(output)}/tel_{tel_id:03d}")
            values = {q.name: table.col(f"{prefix}_{q.name}")[images.rows] for q in output.quantities}
            for name in (column.dl2.name for column in output.internal):
                values[name] = np.concatenate(self._internal[output.prefix, name][tel_id])[images.rows]
            weight = np.concatenate(self._weights[tel_id])[images.rows]
            used = images.event[mean.add(images.event, values, weight)]
            events.append(used)
            columns.append(np.full(len(used), np.flatnonzero(tel_ids == tel_id)[0]))
        event, column = np.concatenate(events), np.concatenate(columns)
        order = np.argsort(event, kind="stable")
        self._write_table(output, selection, tel_ids, mean.result(), event[order], column[order])

    def _write_events(self, output: Output, selection: Selection, tel_ids: np.ndarray) -> None:
        """Values that were predicted for events, in the order of the file; NaN for those without."""
        found = {quantity.name: np.full(selection.n_events, np.nan) for quantity in output.quantities}
        events, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for obs_id, event_id, tels, used, values in self._of_events:
            row, is_known = KeyIndex(obs_id, event_id).find(selection.obs_id, selection.event_id)
            own = values[output.prefix]
            valid = is_known & np.isfinite(own[output.value.name][row])
            for column, quantity in zip(output.stored, output.quantities, strict=True):
                found[quantity.name][valid] = own[column.name][row[valid]]
            event, number = np.nonzero(used[output.prefix][row] & valid[:, None])
            place = np.argsort(tel_ids)[np.searchsorted(tel_ids, np.asarray(tels), sorter=np.argsort(tel_ids))]
            events.append(event)
            columns.append(place[number])
        self._write_table(output, selection, tel_ids, found, np.concatenate(events), np.concatenate(columns))

    def _write_table(
        self,
        output: Output,
        selection: Selection,
        tel_ids: np.ndarray,
        averaged: Mapping[str, np.ndarray],
        event: np.ndarray,
        column: np.ndarray,
    ) -> None:
        """A table of events; `event` (rising) and `column` are the pairs of event and telescope that counted."""
        dtype = subarray_dtype(output, self._types, len(tel_ids))
        attributes = subarray_attributes(output)
        group = f"/{contents.DL2_OF_EVENTS}/{output.group}"
        written = create_table(self._rows, group, output.prefix, np.empty(0, dtype), attributes)
        for start in range(0, selection.n_events, _BLOCK_EVENTS):
            here = slice(start, min(start + _BLOCK_EVENTS, selection.n_events))
            rows = np.zeros(here.stop - here.start, dtype)
            rows["obs_id"], rows["event_id"] = selection.obs_id[here], selection.event_id[here]
            for quantity in output.quantities:
                rows[f"{output.prefix}_{quantity.name}"] = averaged[quantity.name][here]
            rows[f"{output.prefix}_is_valid"] = np.isfinite(averaged[output.value.dl2.name][here])
            rows[f"{output.prefix}_goodness_of_fit"] = np.nan
            _set_mask(rows[f"{output.prefix}_tels_used"], here, event, column)
            written.append(rows)

    def _write_predictions(self, out: Any, selection: Selection) -> None:
        import h5py

        with h5py.File(self._rows_path) as rows:
            for output in self.outputs:
                group = telescopes_group(output)
                if not output.of_events:
                    make_groups(rows, out, group)
                for tel_id, images in selection.telescopes.items() if not output.of_events else ():
                    path = f"{group}/tel_{tel_id:03d}"
                    keys = {"obs_id": selection.obs_id[images.event], "event_id": selection.event_id[images.event]}
                    keys["tel_id"] = np.full(len(images.event), tel_id)
                    take_rows(rows[path], out, path, images.rows, keys=keys)
                if output.is_averaged:
                    path = f"{contents.DL2_OF_EVENTS}/{output.group}/{output.prefix}"
                    take_rows(rows[path], out, path, np.arange(selection.n_events))

    def _describe(self, out: Any) -> None:
        """Root attributes: what ctapipe's reference metadata requires, and where the file comes from.

        The times stay those of the DL1 file, and the product's id is a digest of what went in, so that equal runs give
        equal bytes; the sidecar records when and where this file was made.
        """
        import h5py

        digest = json.dumps(self.provenance, sort_keys=True, default=str)
        product = uuid.uuid5(uuid.NAMESPACE_URL, f"{digest}{self.n_images}")
        facts = {
            "CTA PRODUCT DATA LEVELS": ",".join(contents.data_levels(out)),
            "CTA PRODUCT DESCRIPTION": "DL2 predictions by lightpool",
            "CTA PRODUCT ID": str(product),
            "CTA ACTIVITY NAME": "lightpool predict",
            "CTA ACTIVITY SOFTWARE NAME": "lightpool",
            "CTA ACTIVITY SOFTWARE VERSION": __version__,
            "LIGHTPOOL PROVENANCE": digest,
        }
        for name, value in facts.items():  # strings of fixed length in UTF-8, as PyTables writes them
            out.attrs.create(name, value.encode(), dtype=h5py.string_dtype("utf-8", len(value.encode())))


def telescopes_group(output: Output) -> str:
    """Group with the tables of telescopes."""
    return f"{contents.DL2_OF_TELESCOPES}/{output.group}/{output.prefix}"


def _set_mask(mask: np.ndarray, here: slice, event: np.ndarray, column: np.ndarray) -> None:
    """Fill the mask (n, n_telescopes) of a block of events from the pairs of event, which rises, and telescope."""
    first, last = np.searchsorted(event, (here.start, here.stop))
    mask[:] = False
    mask[event[first:last] - here.start, column[first:last]] = True


def _take_over(source: Any, out: Any, selection: Selection, tel_ids: np.ndarray) -> None:
    """Everything but pixels: what belongs to the file as it is, what belongs to events and images by their keys."""
    held = contents.contents_of(source)
    for path in held.of_file:
        take_whole(source[path], out, path)
    column = np.searchsorted(tel_ids, selection.image_tel_id, sorter=np.argsort(tel_ids))
    column = np.argsort(tel_ids)[column]

    def tels_with_trigger(rows: np.ndarray, here: slice) -> None:
        _set_mask(rows["tels_with_trigger"], here, selection.image_event, column)

    take_rows(source[contents.TRIGGER], out, contents.TRIGGER, selection.trigger_rows, change=tels_with_trigger)
    take_rows(source[contents.TEL_TRIGGER], out, contents.TEL_TRIGGER, selection.tel_trigger_rows)
    keys = {"obs_id": selection.obs_id, "event_id": selection.event_id}
    for path in held.of_events:
        row, is_known = contents.index_of(source, path).find(*keys.values())
        take_rows(source[path], out, path, np.where(is_known, row, -1), keys=keys)
    for group, paths in held.of_telescopes.items():
        for tel_id in sorted({*paths, *selection.telescopes}):
            _take_over_telescope(source, out, selection, group, paths, tel_id)
    if contents.SHOWER in source:
        # HDF5EventSource reads this group of simulated files without checking that it exists.
        make_groups(source, out, contents.SIMULATED_TELESCOPES)


def _take_over_telescope(
    source: Any, out: Any, selection: Selection, group: str, paths: Mapping[int, str], tel_id: int
) -> None:
    """Rows of the chosen images of a telescope.

    ctapipe's readers want a row for each of them, so an image that the table does not know gets one without values;
    where the telescope has no table, one is made like those of the others.
    """
    images = selection.telescopes.get(tel_id)
    event = images.event if images is not None else np.empty(0, np.int64)
    keys = {"obs_id": selection.obs_id[event], "event_id": selection.event_id[event]}
    rows = np.full(len(event), -1)
    if tel_id in paths:
        row, is_known = contents.index_of(source, paths[tel_id]).find(*keys.values())
        rows = np.where(is_known, row, -1)
    table = source[paths.get(tel_id) or next(iter(paths.values()))]
    if "tel_id" in table.dtype.names:
        keys["tel_id"] = np.full(len(event), tel_id)
    take_rows(table, out, f"{group}/tel_{tel_id:03d}", rows, keys=keys)
