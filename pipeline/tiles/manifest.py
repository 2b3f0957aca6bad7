"""`manifest.json`: what training reads. Any number of shards, nothing merged.

It holds the shards' paths (relative to itself), sizes and sha256, counts per split and class, and the table that
equalises the classes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.errors import InputFileError, UserError
from pipeline.files import atomic_output, check_regular
from pipeline.provenance import sha256_file, write_sidecar
from pipeline.tiles.shards import Channel, Shard
from pipeline.tiles.splits import SPLITS
from pipeline.tiles.weighting import Weighting, equalise

FORMAT_NAME = "lightpool-manifest"
FORMAT_VERSION = 2

#: Facts in a shard's attributes that all shards of a manifest must share.
SHARED_ATTRIBUTES = ("camera_identity", "recipe", "unit", "target")


@dataclass(frozen=True)
class Manifest:
    """The tiles of one training set.

    Attributes
    ----------
    path : Path
    shards : list of dict
        `path` (relative to the manifest), `sha256`, `source`, `n_tiles`, `n_groups`.
    counts : dict
        split -> class -> number of tiles ("all" without classes).
    """

    path: Path
    wing: str
    channels: list[Channel]
    tile_shape: tuple[int, int]
    attributes: dict[str, Any]
    shards: list[dict[str, Any]]
    counts: dict[str, dict[str, int]]
    weighting: Weighting | None
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a manifest.

        Raises
        ------
        InputFileError
            If the file is missing, not a manifest, of another version, or names a shard that is not there.
        """
        path = check_regular(path)
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise InputFileError(f"cannot read the manifest {path}: {error.strerror}") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputFileError(
                f"{path} is not a manifest: it is not JSON; make one with `lightpool manifest`"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
            raise InputFileError(f"{path} is not a manifest; make one with `lightpool manifest SHARD... --out {path}`")
        version = content["format_version"]
        if version != FORMAT_VERSION:
            advice = "remake it with `lightpool manifest`" if version < FORMAT_VERSION else "update lightpool"
            raise InputFileError(
                f"{path} has manifest version {version}; this lightpool reads version {FORMAT_VERSION}: {advice}"
            )
        for shard in content["shards"]:
            if not (path.parent / shard["path"]).exists():
                raise InputFileError(f"{path} names the shard {shard['path']}, which is not there; remake the manifest")
        return cls(
            path=path,
            wing=content["wing"],
            channels=[Channel(**channel) for channel in content["channels"]],
            tile_shape=tuple(content["tile_shape"]),
            attributes=content["attributes"],
            shards=content["shards"],
            counts=content["counts"],
            weighting=Weighting.from_json(content["weighting"]) if content["weighting"] else None,
            provenance=content["provenance"],
        )

    @property
    def sha256(self) -> str:
        """Digest of the manifest, and through the shards' digests in it of all tiles."""
        return sha256_file(self.path)

    def shard_paths(self) -> list[Path]:
        """Absolute or working-directory-relative paths of the shards."""
        return [self.path.parent / shard["path"] for shard in self.shards]


def write_manifest(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    class_column: str | None = None,
    equalised: Mapping[str, int] | None = None,
    max_weight: float = 10.0,
    provenance: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Manifest:
    """Describe `shards` in one manifest; only event columns are read, never images.

    Parameters
    ----------
    shards : sequence of path
        Shards with tiles of one wing and shape; empty ones are listed and count nothing.
    out : path
    class_column : str, optional
        Integer event column that tells the classes apart, where the shards have it.
    equalised : mapping, optional
        Column -> number of bins: equalised between the classes (`pipeline.tiles.weighting`).
    max_weight : float
    provenance : mapping, optional
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
    with atomic_output(out, force=force) as temporary:
        common, entries, events = _read_shards(paths, out.resolve().parent)
        if not events:
            raise UserError(f"none of the {len(paths)} shards has a tile; loosen the cuts (tiles.*.cuts) or add runs")
        names = set.intersection(*(set(columns) for columns in events))
        merged = {name: np.concatenate([columns[name] for columns in events]) for name in sorted(names)}
        split = merged.pop("split")
        has_classes = class_column in merged
        weighting = _weighting(merged, class_column, equalised or {}, max_weight) if has_classes else None
        content = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            **common,
            "shards": entries,
            "counts": _counts(split, merged[class_column] if has_classes else None),
            "weighting": weighting.to_json() if weighting else None,
            "provenance": dict(provenance or {}),
        }
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        write_sidecar(temporary, content["provenance"])
    return Manifest.load(out)


def _read_shards(
    paths: Sequence[Path], folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """What all shards have in common, an entry for each of them, and the event columns of those with tiles."""
    entries, events = [], []
    first: Shard | None = None
    for path in paths:
        with Shard(path) as shard:
            first = first or shard
            _check_alike(first, shard)
            entries.append(
                {
                    "path": os.path.relpath(path.resolve(), folder),
                    "sha256": sha256_file(path),
                    "source": shard.source,
                    "n_tiles": shard.n_tiles,
                    "n_groups": shard.n_groups,
                }
            )
            if shard.n_tiles:
                events.append(shard.read_columns([*shard.columns, "split"]))
    common = {
        "wing": first.wing,
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in first.channels],
        "tile_shape": list(first.tile_shape),
        "attributes": {key: value for key, value in first.attributes.items() if key in SHARED_ATTRIBUTES},
    }
    return common, entries, events


def _weighting(
    columns: Mapping[str, np.ndarray], class_column: str, equalised: Mapping[str, int], max_weight: float
) -> Weighting | None:
    """The table that equalises the classes, from those of the columns that the shards have; None without any."""
    n_bins = {name: n for name, n in equalised.items() if name in columns}
    if not equalised or not all(np.isfinite(columns[name]).all() for name in n_bins):
        return None
    return equalise(columns, class_column, n_bins, max_weight)


def _check_alike(first: Shard, other: Shard) -> None:
    facts = [
        ("wing", first.wing, other.wing),
        ("channels", [c.name for c in first.channels], [c.name for c in other.channels]),
        ("tile shape", first.tile_shape, other.tile_shape),
    ]
    facts += [(key, first.attributes.get(key), other.attributes.get(key)) for key in SHARED_ATTRIBUTES]
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
