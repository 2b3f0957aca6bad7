"""Predictions in ctapipe's DL2 layout: one HDF5 file per input file, any number of models in it.

ctapipe reads a DL2 file in two ways that must agree: `TableLoader` requires that all tables of a telescope have the
same rows, and `HDF5EventSource` walks all tables in lock-step without looking at their ids. So one decision holds for
the whole file: an image is in it when at least one model is for its camera, an event when at least one of its images
is, and the trigger, shower and impact tables that come from the DL1 file are cut to exactly those rows. Where a model
has no value, because it is for another camera or the image fails its cuts, ``is_valid`` is false and the value NaN.

Tables of predictions are made with PyTables (h5py's booleans are not PyTables' booleans, and ctapipe then selects the
wrong telescopes); tables of the input are copied byte for byte with h5py (PyTables would unpickle ctapipe's enums in
their attributes, and so import ctapipe). Each library has files of its own open, never the same one.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline import __version__
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


@dataclass(frozen=True)
class Quantity:
    """Where a predicted quantity stands in ctapipe's DL2 layout.

    Attributes
    ----------
    kind : str
        Group below ``/dl2/event/telescope`` and ``/dl2/event/subarray``.
    name : str
        Field of ctapipe's container; the column is ``PREFIX_tel_name`` or ``PREFIX_name``.
    unit : str or None
        Unit as astropy spells it.
    description : str
        Column description.
    """

    kind: str
    name: str
    unit: str | None
    description: str


#: Column of a decoder -> its place. The classification group is not called ``particle_type`` as ctapipe's own constant
#: says: `HDF5EventSource` of ctapipe 0.28 drops a group of that name.
QUANTITIES = {
    "reco_energy_tev": Quantity("energy", "energy", "TeV", "reconstructed energy"),
    "reco_energy_uncert_tev": Quantity("energy", "energy_uncert", "TeV", "reconstructed energy uncertainty"),
    "gammaness": Quantity("classification", "prediction", None, "gammaness: 1 is a gamma ray, 0 a hadron"),
}

#: The quantity of each kind that decides whether a prediction is valid, and is averaged over telescopes.
_VALUE = {"energy": "energy", "classification": "prediction"}


@dataclass(frozen=True)
class Output:
    """One model's predictions of one kind: the columns of the decoder that it fills, under a prefix of its own."""

    prefix: str
    columns: tuple[str, ...]
    quantities: tuple[Quantity, ...] = field(init=False)

    def __post_init__(self) -> None:
        unknown = [column for column in self.columns if column not in QUANTITIES]
        if unknown:
            raise ValueError(f"no place in DL2 for {unknown}; known: {', '.join(QUANTITIES)}")
        if not self.prefix.isidentifier():
            raise ValueError(f"{self.prefix!r} cannot be the prefix of a column; letters, digits and _ can")
        quantities = tuple(QUANTITIES[column] for column in self.columns)
        if len({quantity.kind for quantity in quantities}) != 1:
            raise ValueError(f"columns of one output belong to one kind, got {self.columns}")
        object.__setattr__(self, "quantities", quantities)

    @property
    def kind(self) -> str:
        """Group of ctapipe's layout."""
        return self.quantities[0].kind

    @property
    def value(self) -> str:
        """The decoder's column that decides validity."""
        return next(c for c, q in zip(self.columns, self.quantities, strict=True) if q.name == _VALUE[q.kind])


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
        What is equal for equal runs; stands in the root attribute ``LIGHTPOOL PROVENANCE`` as JSON.

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
            self._rows.create_group(f"/dl2/event/telescope/{output.kind}", output.prefix, createparents=True)
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
            rows = _telescope_rows(output, tel_id, obs_id, event_id, values[output.prefix])
            group = f"/dl2/event/telescope/{output.kind}/{output.prefix}"
            if f"{group}/{name}" in self._rows:
                self._rows.get_node(f"{group}/{name}").append(rows)
            else:
                _create_table(self._rows, group, name, rows, _telescope_attributes(output))
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
            _copy_attributes(source, out)
            for name in _COPIED:
                if name in source:
                    source.copy(source[name], out, name=name)
            if _SHOWER in source:
                # HDF5EventSource looks into this group of simulated files without asking whether it is there.
                out.require_group(_IMPACT.rpartition("/")[0])
            self._walk_events(source, out)
            self._rows.close()
            with h5py.File(self._rows_path) as rows:
                rows.copy(rows["dl2"], out, name="dl2")
            self._describe(out)

    def _walk_events(self, source: Any, out: Any) -> None:
        """Cut the tables of the source to the events that are here, and combine telescopes event by event."""
        tel_ids = source[_LAYOUT].fields("tel_id")[:].tolist()
        trigger = _FilteredTable(source, _TRIGGER, out)
        tel_trigger = _FilteredTable(source, _TEL_TRIGGER, out)
        shower = _FilteredTable(source, _SHOWER, out) if _SHOWER in source else None
        impact = {
            tel_id: _FilteredTable(source, f"{_IMPACT}/tel_{tel_id:03d}", out)
            for tel_id in tel_ids
            if f"{_IMPACT}/tel_{tel_id:03d}" in source
        }
        images = {tel_id: _Cursor(self._read_ids(tel_id), self._n_rows(tel_id)) for tel_id in tel_ids}
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
                f"{self.source}: its tables do not list the events in the order of {_TRIGGER}, so rows cannot be told "
                "apart; write the file again with ctapipe-process or ctapipe-merge"
            )

    def _n_rows(self, tel_id: int) -> int:
        path = f"/weight/tel_{tel_id:03d}"
        return self._rows.get_node(path).nrows if path in self._rows else 0

    def _read_ids(self, tel_id: int) -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
        output = self.outputs[0]
        path = f"/dl2/event/telescope/{output.kind}/{output.prefix}/tel_{tel_id:03d}"

        def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self._rows.get_node(path).read(start, stop)
            return rows["obs_id"], rows["event_id"]

        return read

    def _subarray_table(self, output: Output, n_telescopes: int) -> Any:
        rows = np.empty(0, _subarray_dtype(output, n_telescopes))
        return _create_table(
            self._rows, f"/dl2/event/subarray/{output.kind}", output.prefix, rows, _subarray_attributes(output)
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
        mean = TelescopeMean(n, logarithmic=output.kind == "energy")
        serves = np.zeros_like(mask)
        for column, (tel_id, (first, index)) in enumerate(rows.items()):
            if len(index) == 0:
                continue
            path = f"/dl2/event/telescope/{output.kind}/{output.prefix}/tel_{tel_id:03d}"
            table = self._rows.get_node(path).read(first, first + len(index))
            weight = self._rows.get_node(f"/weight/tel_{tel_id:03d}").read(first, first + len(index))
            named = {q.name: table[f"{output.prefix}_tel_{q.name}"] for q in output.quantities}
            valid = mean.add(place[index], named[_VALUE[output.kind]], weight, named.get("energy_uncert"))
            serves[place[index], column] = valid
        result = np.zeros(n, _subarray_dtype(output, mask.shape[1]))
        result["obs_id"], result["event_id"] = obs_id, event_id
        value, uncertainty = mean.result()
        for quantity in output.quantities:
            result[f"{output.prefix}_{quantity.name}"] = value if quantity.name == _VALUE[output.kind] else uncertainty
        result[f"{output.prefix}_is_valid"] = np.isfinite(value)
        result[f"{output.prefix}_goodness_of_fit"] = np.nan
        result[f"{output.prefix}_telescopes"] = serves
        return result

    def _describe(self, out: Any) -> None:
        """Root attributes: what ctapipe's reference metadata asks for, and where the file comes from.

        The times stay those of the DL1 file, and the product's id is a digest of what went in, so that equal runs give
        equal bytes; when and where this file was made stands in the sidecar.
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


class TelescopeMean:
    """Weighted mean over the telescopes of each event, as ctapipe's `StereoMeanCombiner` (weights "intensity").

    Energies are averaged as logarithms (its ``log_target``). The uncertainty is that of the mean when telescopes err
    independently, so for one telescope it is that telescope's; ctapipe gives the telescopes' scatter, which is
    undefined there.

    Parameters
    ----------
    n_events : int
        Number of events.
    logarithmic : bool
        Average logarithms.
    """

    def __init__(self, n_events: int, *, logarithmic: bool) -> None:
        self.logarithmic = logarithmic
        self._weight = np.zeros(n_events)
        self._value = np.zeros(n_events)
        self._variance = np.zeros(n_events)

    def add(
        self, event: np.ndarray, value: np.ndarray, weight: np.ndarray, uncertainty: np.ndarray | None = None
    ) -> np.ndarray:
        """Add one telescope's images: at most one per event. Returns which of them counted: finite, weight above 0."""
        value, weight = np.asarray(value, np.float64), np.asarray(weight, np.float64)
        valid = np.isfinite(value) & (weight > 0)
        if self.logarithmic:
            valid &= value > 0
        event, value, weight = event[valid], value[valid], weight[valid]
        self._weight[event] += weight
        self._value[event] += weight * (np.log(value) if self.logarithmic else value)
        if uncertainty is not None:
            sigma = np.asarray(uncertainty, np.float64)[valid]
            self._variance[event] += (weight * (sigma / value if self.logarithmic else sigma)) ** 2
        return valid

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and its uncertainty, each of shape (n_events,); NaN where no telescope counted."""
        empty = self._weight == 0
        weight = np.where(empty, 1.0, self._weight)
        mean, sigma = self._value / weight, np.sqrt(self._variance) / weight
        if self.logarithmic:
            mean = np.exp(mean)
            sigma = sigma * mean
        mean[empty] = sigma[empty] = np.nan
        return mean, sigma


# ---- rows and their attributes ---------------------------------------------------------------------------------------
_KEY_COLUMNS = {
    "obs_id": ("i4", "Observation Block ID"),
    "event_id": ("i8", "Array Event ID"),
    "tel_id": ("i2", "Telescope ID"),
}
_GOODNESS = Quantity("", "goodness_of_fit", None, "goodness measure of the algorithm; not given by these models")
_IS_VALID = Quantity("", "is_valid", None, "true if the prediction is valid")
_TELESCOPES = Quantity("", "telescopes", None, "telescopes used for the prediction")


def _telescope_rows(
    output: Output, tel_id: int, obs_id: np.ndarray, event_id: np.ndarray, values: Mapping[str, np.ndarray]
) -> np.ndarray:
    prefix = f"{output.prefix}_tel"
    dtype = [(name, kind) for name, (kind, _) in _KEY_COLUMNS.items()]
    dtype += [(f"{prefix}_{quantity.name}", "f4") for quantity in output.quantities]
    dtype += [(f"{prefix}_is_valid", "?"), (f"{prefix}_goodness_of_fit", "f4")]
    rows = np.zeros(len(event_id), dtype)
    rows["obs_id"], rows["event_id"], rows["tel_id"] = obs_id, event_id, tel_id
    valid = np.isfinite(values[output.value])
    for column, quantity in zip(output.columns, output.quantities, strict=True):
        rows[f"{prefix}_{quantity.name}"] = np.where(valid, values[column], np.nan)
    rows[f"{prefix}_is_valid"] = valid
    rows[f"{prefix}_goodness_of_fit"] = np.nan
    return rows


def _subarray_dtype(output: Output, n_telescopes: int) -> list[tuple[Any, ...]]:
    prefix = output.prefix
    dtype: list[tuple[Any, ...]] = [(name, _KEY_COLUMNS[name][0]) for name in ("obs_id", "event_id")]
    dtype += [(f"{prefix}_{quantity.name}", "f4") for quantity in output.quantities]
    return [
        *dtype,
        (f"{prefix}_is_valid", "?"),
        (f"{prefix}_goodness_of_fit", "f4"),
        (f"{prefix}_telescopes", "?", (n_telescopes,)),
    ]


def _telescope_attributes(output: Output) -> list[dict[str, str]]:
    keys = [{"NAME": name, "DESC": text} for name, (_, text) in _KEY_COLUMNS.items()]
    return keys + [_attributes(q, f"{output.prefix}_tel") for q in (*output.quantities, _IS_VALID, _GOODNESS)]


def _subarray_attributes(output: Output) -> list[dict[str, str]]:
    keys = [{"NAME": name, "DESC": _KEY_COLUMNS[name][1]} for name in ("obs_id", "event_id")]
    columns = (*output.quantities, _IS_VALID, _GOODNESS, _TELESCOPES)
    attributes = keys + [_attributes(quantity, output.prefix) for quantity in columns]
    attributes[-1]["TRANSFORM"] = "tel_list_to_mask"
    return attributes


def _attributes(quantity: Quantity, prefix: str) -> dict[str, str]:
    attributes = {"NAME": quantity.name, "PREFIX": prefix, "DESC": quantity.description}
    if quantity.unit is not None:
        attributes |= {"UNIT": quantity.unit, "TRANSFORM": "quantity"}
    return attributes


def _create_table(file: Any, group: str, name: str, rows: np.ndarray, attributes: Sequence[Mapping[str, str]]) -> Any:
    """Make a table as ctapipe writes it: column attributes are ``CTAFIELD_<position>_<KEY>`` of the table."""
    table = file.create_table(
        group, name, description=np.dtype(rows.dtype), createparents=True, expectedrows=10_000, track_times=False
    )
    for position, entries in enumerate(attributes):
        for key, value in entries.items():
            table.attrs[f"CTAFIELD_{position}_{key}"] = value
    table.append(rows)
    return table


# ---- tables of the source, byte for byte -----------------------------------------------------------------------------
class _Cursor:
    """Walk a table that lists events in the order of the trigger table, some events missing."""

    def __init__(self, read_ids: Callable[[int, int], tuple[np.ndarray, np.ndarray]], n_rows: int) -> None:
        self._read_ids, self._n_rows, self._next = read_ids, n_rows, 0

    @property
    def at_end(self) -> bool:
        return self._next == self._n_rows

    def take(self, positions: Mapping[tuple[int, int], int], n_at_most: int) -> tuple[int, np.ndarray]:
        """The next rows that belong to the events `positions`: the first row, and the place of each in the block."""
        first = self._next
        stop = min(first + n_at_most, self._n_rows)
        if stop == first:
            return first, np.empty(0, np.intp)
        obs_id, event_id = self._read_ids(first, stop)
        index = np.fromiter(
            (positions.get(key, -1) for key in zip(obs_id.tolist(), event_id.tolist(), strict=True)), np.intp
        )
        stop_here = (index < 0) | (np.diff(index, prepend=0) < 0)
        if stop_here.any():
            index = index[: np.argmax(stop_here)]
        self._next = first + len(index)
        return first, index


class _FilteredTable:
    """A table of the source and its copy that keeps chosen rows, moved as bytes and with all attributes.

    Neither types nor pickled enums are interpreted, so what ctapipe wrote is what ctapipe reads.
    """

    def __init__(self, source: Any, path: str, out: Any) -> None:
        import h5py

        self._table = source[path]
        space = h5py.h5s.create_simple((0,), (h5py.h5s.UNLIMITED,))
        creation = self._table.id.get_create_plist().copy()
        creation.set_obj_track_times(False)
        parent = out.require_group(path.rpartition("/")[0])
        name = path.rpartition("/")[2].encode()
        self._copy = h5py.h5d.create(parent.id, name, self._table.id.get_type(), space, dcpl=creation)
        _copy_attributes(self._table, h5py.Dataset(self._copy))
        self._type = self._table.id.get_type()
        self.n_rows = len(self._table)
        self.cursor = _Cursor(self._ids, self.n_rows)
        self._rows = np.empty(0, f"V{self._type.get_size()}")

    def _ids(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self._table.fields(["obs_id", "event_id"])[start:stop]
        return ids["obs_id"], ids["event_id"]

    def block(self, start: int, stop: int) -> tuple[dict[tuple[int, int], int], np.ndarray, np.ndarray]:
        """Read rows by position: (obs_id, event_id) -> place in the block, and the two ids."""
        stop = min(stop, self.n_rows)
        obs_id, event_id = self._ids(start, stop)
        self._read(start, stop)
        keys = zip(obs_id.tolist(), event_id.tolist(), strict=True)
        return {key: place for place, key in enumerate(keys)}, obs_id, event_id

    def follow(
        self,
        positions: Mapping[tuple[int, int], int],
        n_at_most: int,
        keep: Callable[["_FilteredTable", np.ndarray], np.ndarray],
    ) -> None:
        """Read the rows of a block of events and write those for which `keep(self, event index)` is true."""
        first, index = self.cursor.take(positions, n_at_most)
        self._read(first, first + len(index))
        if len(index):
            self.write(np.asarray(keep(self, index), bool))

    def _read(self, start: int, stop: int) -> None:
        self._start, self._stop = start, stop
        self._rows = np.empty(stop - start, f"V{self._type.get_size()}")
        if stop > start:
            memory, disk = _hyperslab(self._table.id, start, stop)
            self._table.id.read(memory, disk, self._rows, mtype=self._type)

    def column(self, name: str) -> np.ndarray:
        """One column of the rows just read."""
        return self._table.fields(name)[self._start : self._stop]

    def member(self, name: str) -> np.ndarray:
        """Bytes (n, size) of a column of the rows just read; a view."""
        place = self._type.get_member_index(name.encode())
        offset = self._type.get_member_offset(place)
        size = self._type.get_member_type(place).get_size()
        return self._rows.view(np.uint8).reshape(len(self._rows), -1)[:, offset : offset + size]

    def replace(self, name: str, values: np.ndarray) -> None:
        """Overwrite a column of one-byte elements in the rows just read."""
        self.member(name)[:] = values

    def write(self, keep: np.ndarray) -> None:
        """Append the rows just read that `keep` selects."""
        rows = np.ascontiguousarray(self._rows[keep])
        start = self._copy.shape[0]
        if len(rows):
            self._copy.set_extent((start + len(rows),))
            memory, disk = _hyperslab(self._copy, start, start + len(rows))
            self._copy.write(memory, disk, rows, mtype=self._type)


def _hyperslab(dataset: Any, start: int, stop: int) -> tuple[Any, Any]:
    import h5py

    disk = dataset.get_space()
    disk.select_hyperslab((start,), (stop - start,))
    return h5py.h5s.create_simple((stop - start,)), disk


def _copy_attributes(source: Any, target: Any) -> None:
    """Copy all attributes as bytes (their values may be pickled objects, which nobody here wants to run)."""
    import h5py

    for name in _attribute_names(source):
        attribute = h5py.h5a.open(source.id, name)
        kind, space = attribute.get_type(), attribute.get_space()
        if h5py.h5a.exists(target.id, name):
            h5py.h5a.delete(target.id, name)
        copy = h5py.h5a.create(target.id, name, kind, space)
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
            value = np.empty(space.get_simple_extent_dims() or (), h5py.special_dtype(vlen=bytes))
            attribute.read(value)
            copy.write(value)
        elif space.get_simple_extent_type() != h5py.h5s.NULL:
            value = np.empty(space.get_simple_extent_dims() or (), f"V{kind.get_size()}")
            attribute.read(value, mtype=kind)
            copy.write(value, mtype=kind)


def _attribute_names(node: Any) -> Iterator[bytes]:
    import h5py

    for place in range(h5py.h5a.get_num_attrs(node.id)):
        yield h5py.h5a.open(node.id, index=place).name
