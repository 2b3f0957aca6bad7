"""The cameras of camera tiles: which there are, and the choice of some of them by name, type or identity."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.tiles.layout import CAMERA_COLUMN, TileCamera
from pipeline.tiles.manifest import Manifest, check_alike, load_manifests


@dataclass(frozen=True)
class KnownCamera:
    """A camera as several shards have it: one identity, and the names and types that their files give it."""

    identity: str
    names: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def name(self) -> str:
        """For readers."""
        return ", ".join(self.names)

    @property
    def words(self) -> frozenset[str]:
        """What it may be chosen by."""
        return frozenset((self.identity, *self.names, *self.types))

    def __str__(self) -> str:
        """Everything that it may be chosen by."""
        return ", ".join((*self.names, *self.types, self.identity))


def known_cameras(of_shards: Iterable[Sequence[TileCamera]]) -> tuple[KnownCamera, ...]:
    """The cameras of shards of one kind, in the order that the event column `camera` counts them."""
    columns = zip(*of_shards, strict=True)
    return tuple(
        KnownCamera(
            cameras[0].identity,
            tuple(sorted({camera.name for camera in cameras if camera.name})),
            tuple(sorted({camera.type for camera in cameras})),
        )
        for cameras in columns
    )


def where_camera(manifests: Sequence[str | Path | Manifest], chosen: Collection[str]) -> dict[str, Any]:
    """Selection of the tiles of some cameras, for the `where` of a `TileReader`.

    Parameters
    ----------
    manifests : sequence of path or Manifest
        Of one kind.
    chosen : collection of str
        Cameras by name, type or identity; empty for all.

    Returns
    -------
    dict
        Empty where all tiles are chosen.

    Raises
    ------
    UserError
        If the tiles have no such camera, or a word fits several.
    """
    if not chosen:
        return {}
    loaded = load_manifests(manifests)
    cameras = _cameras_of(loaded)
    places: set[int] = set()
    for word in chosen:
        fitting = [place for place, camera in enumerate(cameras) if word in camera.words]
        if len(fitting) != 1:
            problem = f"{'several cameras' if fitting else 'no camera'} {word!r}"
            raise UserError(f"the tiles of {loaded[0].path} have {problem}; {_listed(cameras)}")
        places.update(fitting)
    return {} if len(places) == len(cameras) else {CAMERA_COLUMN: sorted(places)}


def where_one_camera(manifests: Sequence[str | Path | Manifest], chosen: str | None) -> dict[str, Any]:
    """The same for what takes images of one camera alone: without a choice, the tiles must be of one.

    Raises
    ------
    UserError
        Also if the tiles are of several cameras and none is chosen.
    """
    if chosen is not None:
        return where_camera(manifests, [chosen])
    loaded = load_manifests(manifests)
    cameras = _cameras_of(loaded) if len(loaded[0].cameras) > 1 else ()
    if cameras:
        raise UserError(
            f"the tiles of {loaded[0].path} are of {len(cameras)} cameras, and a network of single images takes one; "
            f"{_listed(cameras)}"
        )
    return {}


def where_served(manifests: Sequence[str | Path | Manifest], served: Collection[str]) -> dict[str, Any]:
    """Selection of the tiles of those cameras that a model serves.

    Parameters
    ----------
    manifests : sequence of path or Manifest
        Of one kind.
    served : collection of str
        Identities; some may have no tiles. Empty for the sky.

    Raises
    ------
    UserError
        If the tiles are of other cameras.
    """
    loaded = load_manifests(manifests)
    check_alike(loaded)
    present = loaded[0].cameras
    places = [place for place, identity in enumerate(present) if identity in served]
    if served and present and not places:
        raise UserError(
            f"{loaded[0].path} holds images of the camera {', '.join(present)}, but the bundle serves "
            f"{', '.join(served)}; evaluate it on tiles of its own camera"
        )
    return {} if len(places) in (0, len(present)) else {CAMERA_COLUMN: places}


def _cameras_of(manifests: Sequence[Manifest]) -> tuple[KnownCamera, ...]:
    check_alike(manifests)
    distinct: list[tuple[TileCamera, ...]] = []
    for manifest in manifests:
        with manifest.index() as index:
            distinct += index.distinct_cameras()
    return known_cameras(distinct)


def _listed(cameras: Sequence[KnownCamera]) -> str:
    choices = "; ".join(map(str, cameras))
    return f"set networks.NAME.camera to the name, type or identity of one: {choices}"
