"""The training-tile format: shards, splits, manifests and their streaming reader. Knows arrays, not astronomy."""

from pipeline.tiles.describe import write_manifest
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import Channel, Shard, ShardWriter, TileBatch
from pipeline.tiles.splits import SPLITS, split_of

__all__ = [
    "SPLITS",
    "Channel",
    "Manifest",
    "Shard",
    "ShardWriter",
    "TileBatch",
    "TileReader",
    "split_of",
    "write_manifest",
]
