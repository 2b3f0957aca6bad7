"""Write a DL2 file: predictions as they come, then everything else from the DL1 file."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.camera.dl2.combine import TelescopeMean
from pipeline.camera.dl2.layout import (
    Output,
    subarray_attributes,
    subarray_dtype,
    telescope_attributes,
    telescope_rows,
)
from pipeline.camera.dl2.tables import Cursor, FilteredTable, copy_attributes, create_table
from pipeline.errors import InputFileError

_TRIGGER = "dl1/event/subarray/trigger"
_TEL_TRIGGER = "dl1/event/telescope/trigger"
_SHOWER = "simulation/event/subarray/shower"
_IMPACT = "simulation/event/telescope/impact"
_LAYOUT = "configuration/instrument/subarray/layout"

#: Copied whole. What grows with the number of events is filtered row by row instead, or left in the DL1 file.
_COPIED = (
    "configuration",
    "simulation/service",
    "dl0/monitoring",
    "dl1/service",
    "dl1/monitoring/subarray/pointing",
    "dl1/monitoring/telescope/pointing",
)

_BLOCK_EVENTS = 16_384


class DL2Writer:
    """Write predictions, streaming, and the rest of a DL2 file from the DL1 file they were made from.

    Parameters
    ----------
    path : path
        The file to make (under a temporary name: see `pipeline.files.atomic_output`).
    source : path
        The DL1 file (ctapipe's layout).
    outputs : sequence of Output
        Models and their columns; prefixes are distinct.
    provenance : mapping
        What is equal for equal runs; stored in the root attribute ``LIGHTPOOL PROVENANCE`` as JSON.

    Notes
    -----
    Leaving the context without an exception makes the file. Memory is bounded by a block of events, not by the file.
    """

    def __init__(
        self, path: str | Path, source: str | Path, outputs: Sequence[Output], *, provenance: Mapping[str, Any]
    ) -> None:
        prefixes = [output.prefix for output in outputs]
        if not outputs or len(set(prefixes)) != len(prefixes):
            raise ValueError(f"outputs need distinct prefixes, got {prefixes}")
        self.path, self.source = Path(path), Path(source)
        self.outputs = tuple(outputs)
        self.provenance = dict(provenance)
        self.n_events = 0
        self.n_images = 0
        self._rows_path = self.path.with_name(self.path.name + ".rows.part")

    def __enter__(self) -> "DL2Writer":
        import h5py
        import tables

        with h5py.File(self.source) as source:
            for needed in (_TRIGGER, _TEL_TRIGGER, _LAYOUT):
                if needed not in source:
                    raise InputFileError(
                        f"{self.source} has no table /{needed}, which a DL2 file takes over; predict without --out, or "
                        "write the file again with ctapipe-process"
                    )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = tables.open_file(
            str(self._rows_path), "w", filters=tables.Filters(complevel=5, complib="blosc:zstd", fletcher32=True)
        )
        for output in self.outputs:
            self._rows.create_group(f"/dl2/event/telescope/{output.group}", output.prefix, createparents=True)
        self._rows.create_group("/", "weight")
        return self

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

    def append(
        self,
        tel_id: int,
        obs_id: np.ndarray,
        event_id: np.ndarray,
        weight: np.ndarray,
        values: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        """Add images of one telescope, in the order of the DL1 file.

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
        import tables

        n = len(event_id)
        if n == 0:
            return
        name = f"tel_{tel_id:03d}"
        for output in self.outputs:
            rows = telescope_rows(output, tel_id, obs_id, event_id, values[output.prefix])
            group = f"/dl2/event/telescope/{output.group}/{output.prefix}"
            if f"{group}/{name}" in self._rows:
                self._rows.get_node(f"{group}/{name}").append(rows)
            else:
                create_table(self._rows, group, name, rows, telescope_attributes(output))
        if f"/weight/{name}" not in self._rows:
            self._rows.create_earray("/weight", name, atom=tables.Float64Atom(), shape=(0,), track_times=False)
        self._rows.get_node(f"/weight/{name}").append(np.asarray(weight, np.float64))
        self.n_images += n

    # ---- the second pass ---------------------------------------------------------------------------------------------
    def _finish(self) -> None:
        import h5py
        import hdf5plugin  # noqa: F401 (registers blosc, with which ctapipe and PyTables compress)

        self._rows.flush()
        with h5py.File(self.source) as source, h5py.File(self.path, "w") as out:
            copy_attributes(source, out)
            for name in _COPIED:
                if name in source:
                    source.copy(source[name], out, name=name)
            if _SHOWER in source:
                # HDF5EventSource reads this group of simulated files without checking that it exists.
                out.require_group(_IMPACT.rpartition("/")[0])
            self._walk_events(source, out)
            self._rows.close()
            with h5py.File(self._rows_path) as rows:
                rows.copy(rows["dl2"], out, name="dl2")
            self._describe(out)

    def _walk_events(self, source: Any, out: Any) -> None:
        """Cut the tables of the source to the events that are here, and combine telescopes event by event."""
        tel_ids = source[_LAYOUT].fields("tel_id")[:].tolist()
        trigger = FilteredTable(source, _TRIGGER, out)
        tel_trigger = FilteredTable(source, _TEL_TRIGGER, out)
        shower = FilteredTable(source, _SHOWER, out) if _SHOWER in source else None
        impact = {
            tel_id: FilteredTable(source, f"{_IMPACT}/tel_{tel_id:03d}", out)
            for tel_id in tel_ids
            if f"{_IMPACT}/tel_{tel_id:03d}" in source
        }
        images = {tel_id: Cursor(self._read_ids(tel_id), self._n_rows(tel_id)) for tel_id in tel_ids}
        subarray = {output.prefix: self._subarray_table(output, len(tel_ids)) for output in self.outputs}

        for start in range(0, trigger.n_rows, _BLOCK_EVENTS):
            positions, obs_id, event_id = trigger.block(start, start + _BLOCK_EVENTS)
            n_block = len(obs_id)
            mask = np.zeros((n_block, len(tel_ids)), bool)
            rows = {}
            for column, tel_id in enumerate(tel_ids):
                first, index = images[tel_id].take(positions, n_block)
                mask[index, column] = True
                rows[tel_id] = (first, index)
            keep = mask.any(axis=1)

            n_triggers = int(trigger.member("tels_with_trigger").sum())
            trigger.replace("tels_with_trigger", mask)
            trigger.write(keep)
            if shower is not None:
                shower.follow(positions, n_block, lambda table, index: keep[index])  # noqa: B023 (used at once)
            lookup = {tel_id: column for column, tel_id in enumerate(tel_ids)}
            tel_trigger.follow(
                positions,
                n_triggers,
                lambda table, index: mask[index, [lookup[t] for t in table.column("tel_id").tolist()]],  # noqa: B023
            )
            for column, tel_id in enumerate(tel_ids):
                if tel_id in impact:
                    impact[tel_id].follow(positions, n_block, lambda table, index: mask[index, column])  # noqa: B023
            for output in self.outputs:
                subarray[output.prefix].append(
                    self._combine(output, rows, obs_id[keep], event_id[keep], mask[keep], np.cumsum(keep) - 1)
                )
            self.n_events += int(keep.sum())

        cursors = [*images.values(), tel_trigger.cursor, *(table.cursor for table in impact.values())]
        cursors += [shower.cursor] if shower is not None else []
        if not all(cursor.at_end for cursor in cursors):
            raise InputFileError(
                f"{self.source}: its tables do not list the events in the order of {_TRIGGER}, so rows cannot be "
                "matched; write the file again with ctapipe-process or ctapipe-merge"
            )

    def _n_rows(self, tel_id: int) -> int:
        path = f"/weight/tel_{tel_id:03d}"
        return self._rows.get_node(path).nrows if path in self._rows else 0

    def _read_ids(self, tel_id: int) -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
        output = self.outputs[0]
        path = f"/dl2/event/telescope/{output.group}/{output.prefix}/tel_{tel_id:03d}"

        def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self._rows.get_node(path).read(start, stop)
            return rows["obs_id"], rows["event_id"]

        return read

    def _subarray_table(self, output: Output, n_telescopes: int) -> Any:
        rows = np.empty(0, subarray_dtype(output, n_telescopes))
        return create_table(
            self._rows, f"/dl2/event/subarray/{output.group}", output.prefix, rows, subarray_attributes(output)
        )

    def _combine(
        self,
        output: Output,
        rows: Mapping[int, tuple[int, np.ndarray]],
        obs_id: np.ndarray,
        event_id: np.ndarray,
        mask: np.ndarray,
        place: np.ndarray,
    ) -> np.ndarray:
        """Mean over telescopes of one block of events; `place` maps a row of the block to a kept event."""
        n = len(obs_id)
        mean = TelescopeMean(n, logarithmic=output.value.dl2.average == "log_mean")
        serves = np.zeros_like(mask)
        for column, (tel_id, (first, index)) in enumerate(rows.items()):
            if len(index) == 0:
                continue
            path = f"/dl2/event/telescope/{output.group}/{output.prefix}/tel_{tel_id:03d}"
            table = self._rows.get_node(path).read(first, first + len(index))
            weight = self._rows.get_node(f"/weight/tel_{tel_id:03d}").read(first, first + len(index))
            prefix = f"{output.prefix}_tel"
            sigma = table[f"{prefix}_{output.uncertainty.dl2.name}"] if output.uncertainty else None
            valid = mean.add(place[index], table[f"{prefix}_{output.value.dl2.name}"], weight, sigma)
            serves[place[index], column] = valid
        result = np.zeros(n, subarray_dtype(output, mask.shape[1]))
        result["obs_id"], result["event_id"] = obs_id, event_id
        value, uncertainty = mean.result()
        result[f"{output.prefix}_{output.value.dl2.name}"] = value
        if output.uncertainty:
            result[f"{output.prefix}_{output.uncertainty.dl2.name}"] = uncertainty
        result[f"{output.prefix}_is_valid"] = np.isfinite(value)
        result[f"{output.prefix}_goodness_of_fit"] = np.nan
        result[f"{output.prefix}_telescopes"] = serves
        return result

    def _describe(self, out: Any) -> None:
        """Root attributes: what ctapipe's reference metadata requires, and where the file comes from.

        The times stay those of the DL1 file, and the product's id is a digest of what went in, so that equal runs give
        equal bytes; the sidecar records when and where this file was made.
        """
        import h5py

        digest = json.dumps(self.provenance, sort_keys=True, default=str)
        product = uuid.uuid5(uuid.NAMESPACE_URL, f"{digest}{self.n_images}")
        facts = {
            "CTA PRODUCT DATA LEVELS": "DL2",
            "CTA PRODUCT DESCRIPTION": "DL2 predictions by lightpool",
            "CTA PRODUCT ID": str(product),
            "CTA ACTIVITY NAME": "lightpool predict",
            "CTA ACTIVITY SOFTWARE NAME": "lightpool",
            "CTA ACTIVITY SOFTWARE VERSION": __version__,
            "LIGHTPOOL PROVENANCE": digest,
        }
        for name, value in facts.items():  # strings of fixed length in UTF-8, as PyTables writes them
            out.attrs.create(name, value.encode(), dtype=h5py.string_dtype("utf-8", len(value.encode())))
