"""Write a manifest and its index: of shards, of other manifests, or of both.

Each shard is opened once. What is in memory is the columns of one shard, and of the parts that the weights are made
from: it does not grow with the number of shards. A manifest among the inputs stands for its shards, whose digests and
columns are taken from it and its index; they are not opened. So new runs are added without reading the old ones again,
and a reader notices by the digest if one of these is not what it was.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.files import atomic_output
from pipeline.output.hdf5 import new_hdf5
from pipeline.provenance import sha256_file, write_sidecar
from pipeline.tiles.index import IMAGE_KEYS, IndexWriter, ShardRows, TileIndex, index_of
from pipeline.tiles.layout import Channel
from pipeline.tiles.manifest import (
    FORMAT_NAME,
    FORMAT_VERSION,
    SHARED_ATTRIBUTES,
    LeftOut,
    Manifest,
    ShardEntry,
    check_inside,
    shared_attributes,
)
from pipeline.tiles.raking import event_weighting_of, weightings_of
from pipeline.tiles.shards import Shard
from pipeline.tiles.splits import SPLITS
from pipeline.tiles.weighting import Weighting

# Images that are compared with all others, at most: 64 MB. Of more, as many are drawn, the copies of each with it.
_MAX_COMPARED = 4_000_000
_MAX_NAMES = 5  # of files in a message


@dataclass(frozen=True)
class _Common:
    """What all shards of a manifest must share, and where it was seen."""

    path: Path
    wing: str
    channels: list[Channel]
    tile_shape: tuple[int, int]
    attributes: dict[str, Any]

    def check_alike(self, other: "_Common") -> None:
        facts = [
            ("wing", self.wing, other.wing),
            ("channels", [c.name for c in self.channels], [c.name for c in other.channels]),
            ("tile shape", tuple(self.tile_shape), tuple(other.tile_shape)),
        ]
        facts += [(key, self.attributes.get(key), other.attributes.get(key)) for key in SHARED_ATTRIBUTES]
        for name, expected, got in facts:
            if expected != got:
                raise UserError(
                    f"{other.path} has {name} {got}, but {self.path} has {expected}; make one manifest for each kind"
                )


def write_manifest(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    class_column: str | None = None,
    equalised: Mapping[str, int] | None = None,
    max_weight: float = 10.0,
    provenance: Mapping[str, Any] | None = None,
    shards_outside: bool = False,
    force: bool = False,
) -> Manifest:
    """Describe `shards` in one manifest; only event columns are read, never images.

    Shards without truth are left out if others have it: their tiles belong to no class, and have no targets. What is
    left out or counts nothing is said in ``provenance["warnings"]``.

    Parameters
    ----------
    shards : sequence of path
        Shards with tiles of one wing and shape; empty ones are listed and count nothing. A manifest stands for its
        shards, which are not opened.
    out : path
    class_column : str, optional
        Integer event column that tells the classes apart, where the shards have it.
    equalised : mapping, optional
        Column -> number of bins: equalised between the classes, in the tiles of each camera and in events of several
        telescopes (`pipeline.tiles.weighting`).
    max_weight : float
    provenance : mapping, optional
    shards_outside : bool
        Accept shards outside the folder of `out`; readers of the manifest must then accept them, too.
    force : bool
        Replace `out`.

    Raises
    ------
    UserError
        If no shard is given, a shard is given twice, shards differ in channels, tile shape or camera, or no shard
        has a tile.
    """
    out = Path(out)
    paths = [Path(shard) for shard in shards]
    if not paths:
        raise UserError("no shard was given; name at least one file made by `lightpool tiles`")
    parts = {path: Manifest.load(path, shards_outside=True) for path in paths if path.suffix == ".json"}
    _check_places(paths, parts, out, shards_outside=shards_outside)
    names = [*([class_column] if class_column else []), *(equalised or {})]
    with atomic_output(out, force=force) as temporary:
        collected = _Collected(out, names)
        with new_hdf5(index_of(temporary)) as file:
            writer = IndexWriter(file, names)
            for path in paths:
                for rows in collected.of_manifest(parts[path]) if path in parts else collected.of_shard(path):
                    writer.add(rows)
            writer.close()
        with TileIndex.open(index_of(temporary)) as index:
            content = _content(
                collected, index, class_column, dict(equalised or {}), max_weight, dict(provenance or {})
            )
            chosen = _with_truth(index, class_column)
        if not chosen.all():
            _leave_out(index_of(temporary), chosen, names)
        content["index_sha256"] = sha256_file(index_of(temporary))
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        write_sidecar(temporary, content["provenance"])
    return Manifest.load(out, shards_outside=shards_outside)


def _check_places(paths: Sequence[Path], parts: Mapping[Path, Manifest], out: Path, *, shards_outside: bool) -> None:
    """Refuse shards that are given twice, and those outside the folder of the manifest."""
    folder = Path(os.path.realpath(out)).parent
    given: list[str] = []
    for path in paths:
        part = parts.get(path)
        given += [str(path)] if part is None else [str(part.shard_path(number)) for number in range(len(part.shards))]
    real = [os.path.realpath(path) for path in given]
    counts = Counter(real)
    if twice := sorted({path for path, place in zip(given, real, strict=True) if counts[place] > 1}):
        shown = ", ".join(twice[:_MAX_NAMES]) + (f" and {len(twice) - _MAX_NAMES} more" if twice[_MAX_NAMES:] else "")
        raise UserError(f"shards are named twice: {shown}")
    if not shards_outside:
        check_inside(out, [os.path.relpath(path, folder) for path in real])


class _Collected:
    """What becomes known of the shards one after another, beside their columns."""

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        self._folder = Path(os.path.realpath(out)).parent
        self._names = tuple(names)
        self.common: _Common | None = None
        self.entries: list[dict[str, Any]] = []
        self.left_out: list[LeftOut] = []

    def of_shard(self, path: Path) -> Iterator[ShardRows]:
        """The columns of one shard."""
        with Shard(path) as shard:
            self._note(_Common(path, shard.wing, shard.channels, shard.tile_shape, shared_attributes(shard)))
            entry = ShardEntry(
                path=path.name, sha256=sha256_file(path), n_bytes=path.stat().st_size, source=shard.source,
                n_tiles=shard.n_tiles, n_groups=shard.n_groups,
            )  # fmt: skip
            self._add(path, entry)
            yield ShardRows.of(shard, self._names)

    def of_manifest(self, manifest: Manifest) -> Iterator[ShardRows]:
        """The columns of the shards of a manifest."""
        self._note(_Common(manifest.path, manifest.wing, manifest.channels, manifest.tile_shape, manifest.attributes))
        self.left_out += manifest.left_out
        with manifest.index() as index:
            if not set(self._names) <= set(index.names):  # made with other settings, or in memory
                for number in range(len(manifest.shards)):
                    with manifest.open_shard(number) as shard:
                        self._add(manifest.shard_path(number), manifest.shards[number])
                        yield ShardRows.of(shard, self._names)
                return
            for number, rows in enumerate(index.shards()):
                self._add(manifest.shard_path(number), manifest.shards[number])
                yield rows

    def _note(self, common: _Common) -> None:
        self.common = self.common or common
        self.common.check_alike(common)

    def _add(self, path: Path, entry: ShardEntry) -> None:
        relative = os.path.relpath(os.path.realpath(path), self._folder)
        self.entries.append(entry.model_dump() | {"path": relative})

    def to_json(self) -> dict[str, Any]:
        """The part of the manifest that all shards share."""
        return {
            "wing": self.common.wing,
            "channels": [{"name": channel.name, "unit": channel.unit} for channel in self.common.channels],
            "tile_shape": list(self.common.tile_shape),
            "attributes": self.common.attributes,
        }


def _content(
    collected: _Collected,
    index: TileIndex,
    class_column: str | None,
    equalised: Mapping[str, int],
    max_weight: float,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """All keys of a manifest but the digest of its index, which still holds the shards that are left out."""
    entries = collected.entries
    if not index.n_tiles.any():
        raise UserError(f"none of the {len(entries)} shards has a tile; loosen the cuts (tiles.*.cuts) or add runs")
    _check_distinct(entries, index)
    _check_no_copies(entries, index, tuple(equalised))
    chosen = _with_truth(index, class_column)
    left_out = collected.left_out + [
        LeftOut(path=entry["path"], n_tiles=entry["n_tiles"])
        for entry, keep in zip(entries, chosen, strict=True)
        if not keep
    ]
    warnings = _said_of(left_out, len(entries) + len(collected.left_out), class_column)
    filled = chosen & (index.n_tiles > 0)
    has_class = class_column is not None and index.has(class_column)[filled].all()
    weightings: list[Weighting | None] = []
    event_weighting: Weighting | None = None
    if has_class and equalised:
        cameras = collected.common.attributes.get("cameras", [])
        weightings, more = weightings_of(index, filled, cameras, class_column, equalised, max_weight)
        event_weighting, of_events = event_weighting_of(index, filled, class_column, equalised, max_weight)
        warnings += more + of_events
    elif equalised and all(index.has(name)[filled].all() for name in equalised):
        warnings.append(
            f"the tiles have {', '.join(equalised)}, but no {class_column}; classes are not known and not equalised"
        )
    if warnings:
        facts["warnings"] = [*facts.get("warnings", ()), *warnings]
    return collected.to_json() | {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "shards": [entry for entry, keep in zip(entries, chosen, strict=True) if keep],
        "left_out": [shard.model_dump() for shard in left_out],
        "counts": _counts(index, filled, class_column if has_class else None),
        "weightings": [table and table.to_json() for table in weightings],
        "event_weighting": event_weighting and event_weighting.to_json(),
        "provenance": facts,
    }


def _check_distinct(entries: Sequence[Mapping[str, Any]], index: TileIndex) -> None:
    """Refuse shards of equally named sources that hold the same image: one would be taken for the other.

    Runs of one number are told apart by the names of their files, by which their showers are split, too.
    """
    times = Counter(entry["source"] for entry in entries)
    with_keys = np.all([index.has(name) for name in IMAGE_KEYS], axis=0)
    suspects = np.array([times[entry["source"]] > 1 for entry in entries]) & with_keys
    numbers = np.flatnonzero(suspects)
    by_source: dict[str, list[tuple[int, np.ndarray]]] = {}
    for number, rows in zip(numbers.tolist(), index.shards(IMAGE_KEYS, suspects), strict=True):
        ids = np.stack([rows.columns[name].astype(np.int64) for name in IMAGE_KEYS], axis=1)
        by_source.setdefault(entries[number]["source"], []).append((number, ids))
    for source, held in by_source.items():
        ids = np.concatenate([own for _, own in held])
        shard = np.repeat([number for number, _ in held], [len(own) for _, own in held])
        order = np.lexsort((shard, *ids.T[::-1]))
        ids, shard = ids[order], shard[order]
        same = (ids[1:] == ids[:-1]).all(1) & (shard[1:] != shard[:-1])
        if same.any():
            place = int(np.argmax(same))
            run, event, telescope = ids[place].tolist()
            first, second = (entries[number]["path"] for number in shard[place : place + 2])
            raise UserError(
                f"{first} and {second} are both of a source named {source}, and both hold run {run}, event "
                f"{event}, telescope {telescope}; leave one out, or rename the file that it was made from"
            )


def _check_no_copies(entries: Sequence[Mapping[str, Any]], index: TileIndex, measured: Sequence[str]) -> None:
    """Refuse shards that hold the same image under two names: a merged file, and one that it was merged from.

    The image would be in training and in test. It is known by its keys and by what was measured of it; files of
    different showers often have the same keys.
    """
    names = (*IMAGE_KEYS, *measured)
    chosen = np.all([index.has(name) for name in names], axis=0)
    if not measured or np.count_nonzero(chosen) < 2:
        return
    part = np.uint64(1 + index.n_tiles[chosen].sum() // _MAX_COMPARED)
    marks = []
    for rows in index.shards(names, chosen):
        own = _marks([rows.columns[name] for name in names])
        marks.append(np.unique(own[own % part == 0]))
    shard = np.repeat(np.flatnonzero(chosen), [len(own) for own in marks])
    every = np.concatenate(marks)
    order = np.argsort(every, kind="stable")
    same = np.flatnonzero(every[order][1:] == every[order][:-1])
    if len(same):
        first, second = (entries[shard[order[same[0] + step]]]["path"] for step in (0, 1))
        raise UserError(
            f"{first} and {second} hold the same images under two names, as a merged file and one of its parts do; "
            "they would be in training and in test: leave one out"
        )


def _marks(columns: Sequence[np.ndarray]) -> np.ndarray:
    """A number of 64 bits for each row, shape (N,): equal for equal rows, and else hardly ever."""
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found = (found ^ column.astype(np.float64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def _with_truth(index: TileIndex, class_column: str | None) -> np.ndarray:
    """Which shards stay in the manifest, shape (n_shards,): if some have truth, those without it do not."""
    filled = index.n_tiles > 0
    without = filled & ~index.has(class_column or "")
    return np.ones(len(filled), bool) if without.sum() == filled.sum() else ~without


def _said_of(left_out: Sequence[LeftOut], n_shards: int, class_column: str | None) -> list[str]:
    if not left_out:
        return []
    names = [Path(shard.path).name for shard in left_out]
    shown = ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")
    return [
        f"{len(left_out)} of {n_shards} shards ({sum(shard.n_tiles for shard in left_out)} tiles) have no "
        f"{class_column} and are left out, because the others have it: {shown}"
    ]


def _leave_out(path: Path, chosen: np.ndarray, names: Sequence[str]) -> None:
    """Make the index at `path` one of the chosen shards only."""
    whole = path.with_suffix(".whole")
    path.rename(whole)
    with TileIndex.open(whole) as index, new_hdf5(path) as file:
        writer = IndexWriter(file, names)
        for rows in index.shards(chosen=chosen):
            writer.add(rows)
        writer.close()
    whole.unlink()


def _counts(index: TileIndex, filled: np.ndarray, class_column: str | None) -> dict[str, dict[str, int]]:
    """Tiles of each class in each split; every class has a number in every split that has tiles of any."""
    found: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    for rows in index.shards([class_column] if class_column else [], filled):
        for name, value in SPLITS.items():
            inside = rows.columns["split"] == value
            if class_column is None:
                found[name]["all"] += int(np.count_nonzero(inside))
                continue
            classes, n = np.unique(rows.columns[class_column], return_counts=True)
            own, n_own = np.unique(rows.columns[class_column][inside], return_counts=True)
            n = np.zeros(len(classes), np.int64)
            n[np.searchsorted(classes, own)] = n_own
            found[name].update(dict(zip(map(str, classes.tolist()), n.tolist(), strict=True)))
    return {name: dict(classes) for name, classes in found.items()}
