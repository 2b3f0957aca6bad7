"""`manifest.json`: what training reads. Any number of shards, nothing merged.

It holds the shards' paths (relative to itself), sizes and sha256, counts per split and class, and the table that
equalises the classes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config.merge import first_problem
from pipeline.documents import read_json
from pipeline.errors import InputFileError, UserError
from pipeline.files import atomic_output
from pipeline.provenance import sha256_file, write_sidecar
from pipeline.tiles.layout import Channel
from pipeline.tiles.shards import Shard
from pipeline.tiles.splits import SPLITS
from pipeline.tiles.weighting import Weighting, event_weighting_of, joined_column, weightings_of

FORMAT_NAME = "lightpool-manifest"
FORMAT_VERSION = 3

_MAX_NAMES = 5  # of files in a message
#: Facts in a shard's attributes that all shards of a manifest must share.
SHARED_ATTRIBUTES = ("cameras", "recipe", "noise", "unit", "target")

_Count = Annotated[int, Field(ge=0, strict=True)]


class _Part(BaseModel):
    """A part of a manifest; other keys, and numbers that are not finite, are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShardEntry(_Part):
    """One shard: its path as the manifest has it (relative to the manifest's folder), digest and content."""

    path: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    source: str
    n_tiles: _Count
    n_groups: _Count


class _Channel(_Part):
    name: str
    unit: str


class _Content(_Part):
    """All keys of a manifest."""

    format: Literal["lightpool-manifest"]
    format_version: Literal[3]
    wing: Literal["camera", "sky"]
    channels: tuple[_Channel, ...] = Field(min_length=1)
    tile_shape: tuple[Annotated[int, Field(ge=1, strict=True)], Annotated[int, Field(ge=1, strict=True)]]
    attributes: dict[str, Any]
    shards: tuple[ShardEntry, ...] = Field(min_length=1)
    counts: dict[Literal["train", "validation", "test"], dict[str, _Count]]
    weightings: tuple[Weighting | None, ...]
    event_weighting: Weighting | None
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        counted = sum(sum(classes.values()) for classes in self.counts.values())
        n_tiles = sum(shard.n_tiles for shard in self.shards)
        if set(self.counts) != set(SPLITS) or counted != n_tiles:
            raise ValueError(f"its counts add up to {counted} tiles, its shards to {n_tiles}")
        cameras = self.attributes.get("cameras", [])
        if not isinstance(cameras, list) or not all(isinstance(identity, str) for identity in cameras):
            raise ValueError(f"its cameras are {cameras!r:.60}, no list of identities")
        if (self.wing == "camera") != bool(cameras):
            raise ValueError(f"tiles of the {self.wing} are of {len(cameras)} cameras")
        if len(self.weightings) not in (0, len(cameras) or 1):
            raise ValueError(f"it has {len(self.weightings)} weightings for {len(cameras)} cameras")
        for weighting in filter(None, (*self.weightings, self.event_weighting)):
            weighting.check()
        return self


@dataclass(frozen=True)
class Manifest:
    """The tiles of one training set.

    Attributes
    ----------
    path : Path
    shards : sequence of ShardEntry
    counts : dict
        split -> class -> number of tiles ("all" without classes).
    weightings : sequence of Weighting or None
        What equalises the classes of single images, for each camera, or for all tiles of the sky; empty if nothing
        does.
    event_weighting : Weighting or None
        The same for events of several telescopes.
    """

    path: Path
    wing: str
    channels: list[Channel]
    tile_shape: tuple[int, int]
    attributes: dict[str, Any]
    shards: Sequence[ShardEntry]
    counts: dict[str, dict[str, int]]
    weightings: Sequence[Weighting | None]
    event_weighting: Weighting | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path, *, shards_outside: bool = False) -> Self:
        """Read a manifest.

        Parameters
        ----------
        path : path
        shards_outside : bool
            Accept shards outside the folder of the manifest: without it, a manifest made by others could name any file.

        Raises
        ------
        InputFileError
            If the file is missing, not a manifest, of another version or damaged, or names a shard that is not there
            or, without `shards_outside`, lies outside the manifest's folder.
        """
        path = Path(path)
        content = _read(path)
        for shard in content.shards:
            if not shards_outside:
                _check_inside(path, shard.path)
            if not (path.parent / shard.path).is_file():
                raise InputFileError(f"{path} names the shard {shard.path}, which is not there; remake the manifest")
        return cls(
            path=path,
            wing=content.wing,
            channels=[Channel(channel.name, channel.unit) for channel in content.channels],
            tile_shape=content.tile_shape,
            attributes=content.attributes,
            shards=content.shards,
            counts=content.counts,
            weightings=content.weightings,
            event_weighting=content.event_weighting,
            provenance=content.provenance,
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Identities of the cameras that tiles may be of, as the event column `camera` counts them."""
        return tuple(self.attributes.get("cameras", ()))

    def open_shard(self, number: int) -> Shard:
        """Open shard `number`, which must be the one that the manifest was made of.

        Its digest is computed once per process: reading its tiles takes several times as long.

        Raises
        ------
        InputFileError
            If it is damaged, or another one than the manifest says.
        """
        entry = self.shards[number]
        shard = Shard(self.path.parent / entry.path)
        facts = [shard.wing, shard.channels, shard.tile_shape, shared_attributes(shard)]
        facts += [shard.n_tiles, shard.n_groups, shard.source]
        own = [self.wing, self.channels, self.tile_shape, self.attributes]
        own += [entry.n_tiles, entry.n_groups, entry.source]
        if facts != own or _sha256_once(shard.path) != entry.sha256:
            shard.close()
            raise InputFileError(
                f"{shard.path} is not the shard that {self.path} was made of; copy it again, or remake the manifest"
            )
        return shard

    @property
    def sha256(self) -> str:
        """Digest of the manifest, and through the shards' digests in it of all tiles."""
        return sha256_file(self.path)


def load_manifests(manifests: Sequence[str | Path | Manifest], *, shards_outside: bool = False) -> list[Manifest]:
    """Manifests, where some may be loaded already; see `Manifest.load`."""
    return [
        entry if isinstance(entry, Manifest) else Manifest.load(entry, shards_outside=shards_outside)
        for entry in manifests
    ]


def check_alike(manifests: Sequence[Manifest]) -> None:
    """Refuse manifests of different kinds of tiles.

    Raises
    ------
    UserError
        Naming the first two that differ, and in what.
    """
    first = manifests[0]
    for manifest in manifests:
        for name in ("wing", "channels", "tile_shape", "attributes"):
            if getattr(manifest, name) != getattr(first, name):
                got, expected = getattr(manifest, name), getattr(first, name)
                raise UserError(
                    f"{manifest.path} has {name} {got}, but {first.path} has {expected}; train on manifests of one kind"
                )


def _read(path: Path) -> _Content:
    content = read_json(path, "a manifest")
    if content.get("format") != FORMAT_NAME:
        raise InputFileError(f"{path} is not a manifest; make one with `lightpool manifest SHARD... --out {path}`")
    version = content.get("format_version")
    if type(version) is int and version != FORMAT_VERSION:
        advice = "remake it with `lightpool manifest`" if version < FORMAT_VERSION else "update lightpool"
        raise InputFileError(
            f"{path} has manifest version {version}; this lightpool reads version {FORMAT_VERSION}: {advice}"
        )
    try:
        return _Content.model_validate(content)
    except ValidationError as error:
        raise InputFileError(f"{path} is a damaged manifest: {first_problem(error, _Content)}; remake it") from error


def shared_attributes(shard: Shard) -> dict[str, Any]:
    """Facts of a shard that all shards of its manifest must share; of `cameras` the identities, for names vary."""
    shared = {key: value for key, value in shard.attributes.items() if key in SHARED_ATTRIBUTES}
    return shared | ({"cameras": [camera.identity for camera in shard.cameras]} if shard.cameras else {})


def _check_inside(manifest: Path, shard: str) -> None:
    """Refuse a shard whose path, or a symbolic link in it, leads out of the manifest's folder."""
    folder = manifest.parent.resolve()
    try:
        inside = not Path(shard).is_absolute() and (folder / shard).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a null character
        raise InputFileError(f"{manifest} names the shard {shard!r}, which is not a path: {error}") from error
    if not inside:
        raise InputFileError(
            f"{manifest} names the shard {shard}, which lies outside the manifest's folder; put the manifest into a "
            "folder above its shards, or give --shards-outside"
        )


def _sha256_once(path: Path) -> str:
    status = path.stat()
    return _digest(path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, inode: int, size: int, changed_ns: int) -> str:
    return sha256_file(path)


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
        Shards with tiles of one wing and shape; empty ones are listed and count nothing.
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
    twice = {str(path) for path in paths if paths.count(path) > 1}
    if twice:
        raise UserError(f"shards are named twice: {', '.join(sorted(twice))}")
    folder = Path(os.path.realpath(out)).parent
    relative = [os.path.relpath(os.path.realpath(path), folder) for path in paths]
    if not shards_outside:
        for path in relative:
            _check_inside(out, path)
    with atomic_output(out, force=force) as temporary:
        common, entries, events = _read_shards(paths, relative)
        if not any(len(columns["split"]) for columns in events):
            raise UserError(f"none of the {len(paths)} shards has a tile; loosen the cuts (tiles.*.cuts) or add runs")
        kept, warnings = _with_truth(entries, events, class_column)
        entries, events = [entries[place] for place in kept], [events[place] for place in kept]
        filled = [columns for columns in events if len(columns["split"])]
        split = np.concatenate([columns["split"] for columns in filled])
        classes = joined_column(filled, class_column) if class_column in filled[0] else None
        weightings: list[Weighting | None] = []
        event_weighting: Weighting | None = None
        if classes is not None and equalised:
            cameras = common["attributes"].get("cameras", [])
            weightings, more = weightings_of(filled, cameras, class_column, equalised, max_weight)
            event_weighting, of_events = event_weighting_of(filled, class_column, equalised, max_weight)
            warnings += more + of_events
        elif equalised and all(name in columns for columns in filled for name in equalised):
            warnings.append(
                f"the tiles have {', '.join(equalised)}, but no {class_column}; classes are not known and not equalised"
            )
        facts = dict(provenance or {})
        if warnings:
            facts["warnings"] = [*facts.get("warnings", ()), *warnings]
        content = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            **common,
            "shards": entries,
            "counts": _counts(split, classes),
            "weightings": [table and table.to_json() for table in weightings],
            "event_weighting": event_weighting and event_weighting.to_json(),
            "provenance": facts,
        }
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        write_sidecar(temporary, content["provenance"])
    return Manifest.load(out, shards_outside=shards_outside)


def _read_shards(
    paths: Sequence[Path], relative: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """What all shards have in common, and for each of them an entry and the event columns."""
    entries, events = [], []
    first: Shard | None = None
    for path, entry in zip(paths, relative, strict=True):
        with Shard(path) as shard:
            first = first or shard
            _check_alike(first, shard)
            entries.append(
                {
                    "path": entry,
                    "sha256": sha256_file(path),
                    "source": shard.source,
                    "n_tiles": shard.n_tiles,
                    "n_groups": shard.n_groups,
                }
            )
            events.append(shard.read_columns([*shard.columns, "split"]) | {"group": shard.group})
    _check_distinct(paths, entries, events)
    common = {
        "wing": first.wing,
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in first.channels],
        "tile_shape": list(first.tile_shape),
        "attributes": shared_attributes(first),
    }
    return common, entries, events


def _check_distinct(
    paths: Sequence[Path], entries: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """Refuse shards of equally named sources that hold the same image: one would be taken for the other.

    Runs of one number are told apart by the names of their files, by which their showers are split, too.
    """
    key = ("obs_id", "event_id", "tel_id")
    held: dict[str, list[tuple[Path, np.ndarray]]] = {}
    for path, entry, columns in zip(paths, entries, events, strict=True):
        if not set(key) <= columns.keys():
            continue
        ids = np.stack([columns[name].astype(np.int64) for name in key], axis=1)
        for other, others in held.setdefault(entry["source"], []):
            both, times = np.unique(np.concatenate([ids, others]), axis=0, return_counts=True)
            if (times > 1).any():
                run, event, telescope = both[np.argmax(times > 1)].tolist()
                raise UserError(
                    f"{other} and {path} are both of a source named {entry['source']}, and both hold run {run}, event "
                    f"{event}, telescope {telescope}; leave one out, or rename the file that it was made from"
                )
        held[entry["source"]].append((path, ids))


def _with_truth(
    entries: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, np.ndarray]], class_column: str | None
) -> tuple[list[int], list[str]]:
    """Shards that stay in the manifest, and a sentence about the others, if there are any."""
    filled = [place for place, columns in enumerate(events) if len(columns["split"])]
    without = [place for place in filled if class_column not in events[place]]
    if not without or len(without) == len(filled):
        return list(range(len(entries))), []
    names = [Path(entries[place]["path"]).name for place in without]
    shown = ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")
    n_tiles = sum(entries[place]["n_tiles"] for place in without)
    return [place for place in range(len(entries)) if place not in without], [
        f"{len(without)} of {len(entries)} shards ({n_tiles} tiles) have no {class_column} and are left out, because "
        f"the others have it: {shown}"
    ]


def _check_alike(first: Shard, other: Shard) -> None:
    facts = [
        ("wing", first.wing, other.wing),
        ("channels", [c.name for c in first.channels], [c.name for c in other.channels]),
        ("tile shape", first.tile_shape, other.tile_shape),
    ]
    of_first, of_other = shared_attributes(first), shared_attributes(other)
    facts += [(key, of_first.get(key), of_other.get(key)) for key in SHARED_ATTRIBUTES]
    for name, expected, got in facts:
        if expected != got:
            raise UserError(
                f"{other.path} has {name} {got}, but {first.path} has {expected}; make one manifest for each kind"
            )


def _counts(split: np.ndarray, classes: np.ndarray | None) -> dict[str, dict[str, int]]:
    counts = {}
    for name, value in SPLITS.items():
        inside = split == value
        if classes is None:
            counts[name] = {"all": int(inside.sum())}
            continue
        counts[name] = {str(c): int((classes[inside] == c).sum()) for c in np.unique(classes).tolist()}
    return counts
