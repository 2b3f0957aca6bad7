"""`manifest.json`: what training reads. Any number of shards, nothing merged.

It holds the shards' paths (relative to itself), sizes and sha256, counts per split and class, the tables that equalise
the classes, and the digest of the index beside it (`pipeline.tiles.index`).
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config.merge import first_problem
from pipeline.documents import read_json
from pipeline.errors import InputFileError, UserError
from pipeline.provenance import sha256_file
from pipeline.tiles.index import IMAGE_KEYS, TileIndex, index_of
from pipeline.tiles.layout import Channel
from pipeline.tiles.shards import Shard
from pipeline.tiles.splits import SPLITS
from pipeline.tiles.weighting import Weighting

FORMAT_NAME = "lightpool-manifest"
FORMAT_VERSION = 4

#: Facts in a shard's attributes that all shards of a manifest must share.
SHARED_ATTRIBUTES = ("cameras", "recipe", "noise", "unit", "target")

_SHA256 = r"^[0-9a-f]{64}$"
_Count = Annotated[int, Field(ge=0, strict=True)]


class _Part(BaseModel):
    """A part of a manifest; other keys, and numbers that are not finite, are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShardEntry(_Part):
    """One shard: its path as the manifest has it (relative to the manifest's folder), digest and content."""

    path: str = Field(min_length=1)
    sha256: str = Field(pattern=_SHA256)
    n_bytes: _Count
    source: str
    n_tiles: _Count
    n_groups: _Count


class LeftOut(_Part):
    """A shard that a manifest leaves out, because it has no truth and others have it."""

    path: str
    n_tiles: _Count


class _Channel(_Part):
    name: str
    unit: str


class _Content(_Part):
    """All keys of a manifest."""

    format: Literal["lightpool-manifest"]
    format_version: Literal[4]
    wing: Literal["camera", "sky"]
    channels: tuple[_Channel, ...] = Field(min_length=1)
    tile_shape: tuple[Annotated[int, Field(ge=1, strict=True)], Annotated[int, Field(ge=1, strict=True)]]
    attributes: dict[str, Any]
    shards: tuple[ShardEntry, ...] = Field(min_length=1)
    left_out: tuple[LeftOut, ...]
    index_sha256: str = Field(pattern=_SHA256)
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
    left_out : sequence of LeftOut
        Shards that were given and are not in it.
    index_sha256 : str
        Digest of the index that belongs to it.
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
    left_out: Sequence[LeftOut] = ()
    index_sha256: str = ""

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
            If the file is missing, not a manifest, of another version or damaged, or names a shard that is not there,
            has another size or, without `shards_outside`, lies outside the manifest's folder.
        """
        path = Path(path)
        content = _read(path)
        if not shards_outside:
            check_inside(path, [shard.path for shard in content.shards])
        for shard in content.shards:
            _check_size(path, shard)
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
            left_out=content.left_out,
            index_sha256=content.index_sha256,
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Identities of the cameras that tiles may be of, as the event column `camera` counts them."""
        return tuple(self.attributes.get("cameras", ()))

    def shard_path(self, number: int) -> Path:
        """Where shard `number` is."""
        return self.path.parent / self.shards[number].path

    @contextmanager
    def index(self) -> Iterator[TileIndex]:
        """The small columns of all tiles. Made again from the shards, in memory, if the file beside it is not that one.

        Raises
        ------
        InputFileError
            If a shard has to be opened and is not the one that the manifest was made of.
        """
        path = index_of(self.path)
        with contextlib.ExitStack() as stack:
            if path.is_file() and _sha256_once(path) == self.index_sha256:
                index = stack.enter_context(TileIndex.open(path))
            else:
                shards = (self.open_shard(number) for number in range(len(self.shards)))
                index = stack.enter_context(TileIndex.in_memory(shards))
            yield index

    def open_shard(self, number: int) -> Shard:
        """Open shard `number`, which must be the one that the manifest was made of.

        It is looked through once per process, and its digest computed: reading its tiles takes several times as long.

        Raises
        ------
        InputFileError
            If it is damaged, or another one than the manifest says.
        """
        entry, path = self.shards[number], self.shard_path(number)
        seen = _version_of(path)
        if _looked_through.get(seen) == entry.sha256:
            return Shard(path, looked_through=True)
        shard = Shard(path)
        facts = [shard.wing, shard.channels, shard.tile_shape, shared_attributes(shard)]
        facts += [shard.n_tiles, shard.n_groups, shard.source]
        own = [self.wing, self.channels, self.tile_shape, self.attributes]
        own += [entry.n_tiles, entry.n_groups, entry.source]
        if facts != own or _sha256_once(path) != entry.sha256:
            shard.close()
            raise InputFileError(
                f"{path} is not the shard that {self.path} was made of; copy it again, or remake the manifest"
            )
        _looked_through[seen] = entry.sha256
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


def check_no_copies(manifests: Sequence[Manifest]) -> None:
    """Refuse manifests that share images: these would count twice, and may be in the training split of one and in the
    test split of the other.

    Raises
    ------
    UserError
        If two hold the same shard, or shards of one source with the same images.
    """
    if len(manifests) < 2:
        return
    seen: dict[str, Manifest] = {}
    for manifest in manifests:
        for shard in manifest.shards:
            first = seen.setdefault(shard.sha256, manifest)
            if first is not manifest:
                raise UserError(f"{manifest.path} and {first.path} both hold the shard {shard.path}; give each once")
    times = Counter(source for manifest in manifests for source in {shard.source for shard in manifest.shards})
    held: dict[str, tuple[Manifest, set[tuple[int, ...]]]] = {}
    for manifest in manifests:
        with manifest.index() as index:
            shared = np.array([times[shard.source] > 1 for shard in manifest.shards], bool)
            shared &= np.all([index.has(name) for name in IMAGE_KEYS], axis=0)
            for number, rows in zip(np.flatnonzero(shared), index.shards(IMAGE_KEYS, shared), strict=True):
                source = manifest.shards[number].source
                images = set(zip(*(rows.columns[name].tolist() for name in IMAGE_KEYS), strict=True))
                first, others = held.setdefault(source, (manifest, set()))
                if first is not manifest and not images.isdisjoint(others):
                    raise UserError(
                        f"{manifest.path} and {first.path} hold the same images of the source {source}; a split of one "
                        "may be another in the other: make one manifest of all shards"
                    )
                others |= images


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


def _check_size(manifest: Path, shard: ShardEntry) -> None:
    """Refuse a shard that is not there, or cannot be the one that the manifest was made of."""
    path = manifest.parent / shard.path
    try:
        n_bytes = path.stat().st_size if path.is_file() else None
    except OSError:
        n_bytes = None
    if n_bytes is None:
        raise InputFileError(f"{manifest} names the shard {shard.path}, which is not there; remake the manifest")
    if n_bytes != shard.n_bytes:
        raise InputFileError(
            f"{path} is not the shard that {manifest} was made of: it has {n_bytes:,} bytes, not {shard.n_bytes:,}; "
            "copy it again, or remake the manifest"
        )


def check_inside(manifest: Path, shards: Sequence[str]) -> None:
    """Refuse shards whose path, or a symbolic link in it, leads out of the manifest's folder.

    Raises
    ------
    InputFileError
        Naming the first one.
    """
    folder = manifest.parent.resolve()
    parents: dict[Path, Path] = {}  # thousands of shards have few folders
    for shard in shards:
        try:
            if "\0" in shard:
                raise ValueError("it has a null character")
            path = folder / shard
            if path.parent not in parents:
                parents[path.parent] = path.parent.resolve()
            real = parents[path.parent] / path.name
            real = real.resolve() if real.is_symlink() or path.name == ".." else real
            inside = not Path(shard).is_absolute() and real.is_relative_to(folder)
        except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a null character
            raise InputFileError(f"{manifest} names the shard {shard!r}, which is not a path: {error}") from error
        if not inside:
            raise InputFileError(
                f"{manifest} names the shard {shard}, which lies outside the manifest's folder; put the manifest into "
                "a folder above its shards, or give --shards-outside"
            )


#: Files that this process has looked through (`_version_of`), with their digests.
_looked_through: dict[tuple[Path, int, int, int], str] = {}


def _version_of(path: Path) -> tuple[Path, int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputFileError(f"{path} cannot be opened: {error.strerror}") from error
    return path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns


def _sha256_once(path: Path) -> str:
    return _digest(*_version_of(path))


@cache
def _digest(path: Path, inode: int, size: int, changed_ns: int) -> str:
    return sha256_file(path)
