"""The index of a manifest, manifests of manifests, and quantiles in parts."""

import json

import numpy as np
import pytest
from synthetic_tiles import CAMERA_CHANNELS, CAMERA_IDENTITY, camera_batch

from pipeline.config import SplitsConfig
from pipeline.errors import UserError
from pipeline.tiles import Manifest, Shard, ShardWriter, TileReader, describe, split_of, write_manifest
from pipeline.tiles.events import EventReader
from pipeline.tiles.index import TileIndex, index_of
from pipeline.tiles.layout import TileCamera
from pipeline.tiles.quantiles import quantile_edges

SETTINGS = {
    "class_column": "true_primary_id",
    "equalised": {"true_energy_tev": 4, "true_offset_deg": 2, "hillas_intensity": 4},
}


def _shard(folder, number, drop=(), source="", seed=0):
    batch = camera_batch(150, size=8, seed=number)
    batch.events["event_id"] //= 2  # events of two images
    batch.events["tel_id"] = (np.arange(150) % 2).astype(np.int16)
    for name in drop:
        del batch.events[name]
    source = source or f"run_{number}"
    batch.split = split_of(source, batch.group, SplitsConfig(), seed)
    camera = TileCamera(identity=CAMERA_IDENTITY, name="cam", type="LST", focal_length_m=28, tile_pixel_deg=0.1)
    path = folder / f"{source}.tiles.h5"
    with ShardWriter(
        path, channels=CAMERA_CHANNELS, tile_shape=(8, 8), source=source, wing="camera",
        attributes={"cameras": [camera.model_dump()]},
    ) as writer:  # fmt: skip
        writer.append(batch)
    return path


@pytest.fixture
def shards(tmp_path):
    return [_shard(tmp_path, number) for number in range(5)]


def _read(reader):
    """Everything that a training sees, in its order."""
    batches = list(reader.shuffled(1, 2, 16))
    return [np.concatenate([getattr(batch, name) for batch in batches]) for name in ("images", "group", "weights")]


@pytest.mark.parametrize("kind", [TileReader, EventReader])
@pytest.mark.parametrize("where", [{}, {"true_primary_id": [0, 101]}])
def test_without_its_index_a_manifest_is_read_in_the_same_way(shards, tmp_path, kind, where):
    out = tmp_path / "m.json"
    made = write_manifest(shards, out, **SETTINGS)
    expected = _read(kind([made], "train", where=where))
    for damage in (lambda path: path.write_bytes(b"no index"), lambda path: path.unlink()):
        damage(index_of(out))
        for got, wanted in zip(_read(kind([Manifest.load(out)], "train", where=where)), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_reader_opens_no_shard_before_it_reads_one(shards, tmp_path, monkeypatch):
    made = write_manifest(shards, tmp_path / "m.json", **SETTINGS)
    monkeypatch.setattr(Manifest, "open_shard", lambda self, number: pytest.fail("a shard was opened"))
    reader = TileReader([made], "train", where={"true_primary_id": 0})
    assert 0 < len(reader) < 750
    assert len(EventReader([made], "train")) > 0


@pytest.mark.parametrize("where", [{}, {"tel_id": 0}])
def test_a_reader_knows_how_many_items_each_block_has(shards, tmp_path, where):
    made = write_manifest(shards, tmp_path / "m.json", **SETTINGS)
    reader = TileReader([made], "train", where=where)
    assert reader.block_items.tolist() == [len(block) for block in reader.sequential()]
    events = EventReader([made], "train", where=where, min_telescopes=1)
    assert events.block_items.sum() == events.n_events > 0


def test_the_index_has_the_columns_of_the_shards(shards, tmp_path):
    made = write_manifest(shards, tmp_path / "m.json", **SETTINGS)
    with made.index() as index:
        rows = list(index.shards())
    for path, found in zip(shards, rows, strict=True):
        with Shard(path) as shard:
            np.testing.assert_array_equal(found.columns["split"], shard.split)
            np.testing.assert_array_equal(found.group, shard.group)
            assert found.cameras == shard.cameras
            for name in ("obs_id", "event_id", "tel_id", "camera", *SETTINGS["equalised"]):
                np.testing.assert_array_equal(found.columns[name], shard.read_columns([name])[name])


def test_equal_manifests_have_equal_indices(shards, tmp_path):
    for name in ("a", "b"):
        write_manifest(shards, tmp_path / f"{name}.json", **SETTINGS)
    assert index_of(tmp_path / "a.json").read_bytes() == index_of(tmp_path / "b.json").read_bytes()


def test_a_manifest_of_manifests_is_that_of_all_their_shards(shards, tmp_path, monkeypatch):
    """Nothing of the shards in the parts is read again."""
    whole = write_manifest(shards, tmp_path / "whole.json", **SETTINGS)
    write_manifest(shards[:2], tmp_path / "first.json", **SETTINGS)
    write_manifest(shards[2:4], tmp_path / "second.json", **SETTINGS)
    monkeypatch.setattr(Manifest, "open_shard", lambda self, number: pytest.fail("a shard was opened"))
    joined = write_manifest(
        [tmp_path / "first.json", tmp_path / "second.json", shards[4]], tmp_path / "joined.json", **SETTINGS
    )
    for name in ("shards", "counts", "weightings", "event_weighting", "attributes", "index_sha256"):
        assert getattr(joined, name) == getattr(whole, name), name


def test_a_part_that_was_made_with_other_settings_is_read_again(shards, tmp_path):
    whole = write_manifest(shards, tmp_path / "whole.json", **SETTINGS)
    write_manifest(shards[:3], tmp_path / "part.json")
    joined = write_manifest([tmp_path / "part.json", *shards[3:]], tmp_path / "joined.json", **SETTINGS)
    assert (joined.weightings, joined.index_sha256) == (whole.weightings, whole.index_sha256)


def test_images_are_not_taken_twice_under_two_names(tmp_path, shards, monkeypatch):
    """A merged file holds the images of its parts; files of other showers may have the same keys."""
    (tmp_path / "merged").mkdir()
    merged = _shard(tmp_path / "merged", 1, source="merged")
    message = r"run_1\.tiles\.h5 and merged/merged\.tiles\.h5 hold the same images under two names"
    with pytest.raises(UserError, match=message):
        write_manifest([*shards, merged], tmp_path / "m.json", **SETTINGS)
    write_manifest([shards[0], *shards[2:]], tmp_path / "part.json", **SETTINGS)
    monkeypatch.setattr(describe, "_MAX_COMPARED", 100)  # a ninth of the images is looked at
    with pytest.raises(UserError, match=message):
        write_manifest([shards[1], tmp_path / "part.json", merged], tmp_path / "m.json", **SETTINGS)
    assert not (tmp_path / "m.json").exists()


def test_manifests_that_share_images_are_not_read_together(tmp_path, shards):
    """A shower could be in the training split of one and in the test split of the other."""
    first = write_manifest(shards[:3], tmp_path / "first.json", **SETTINGS)
    write_manifest(shards[3:], tmp_path / "second.json", **SETTINGS)
    assert len(TileReader([first, tmp_path / "second.json"], "all")) == 5 * 150
    (tmp_path / "copy.json").write_bytes((tmp_path / "first.json").read_bytes())
    write_manifest(shards[2:], tmp_path / "third.json", **SETTINGS)
    for again in ("first.json", "copy.json", "third.json"):
        with pytest.raises(UserError, match=rf"{again} and .*first.json both hold the shard .*; give each once"):
            TileReader([first, tmp_path / again], "train")
    (tmp_path / "other").mkdir()
    write_manifest([_shard(tmp_path / "other", 1, seed=3)], tmp_path / "other" / "m.json", **SETTINGS)
    with pytest.raises(UserError, match=r"hold the same images of the source run_1; .* one manifest of all shards"):
        TileReader([first, tmp_path / "other" / "m.json"], "test")


def test_a_shard_in_a_part_and_beside_it_is_given_twice(shards, tmp_path):
    write_manifest(shards[:2], tmp_path / "part.json", **SETTINGS)
    with pytest.raises(UserError, match=r"shards are named twice: .*run_1\.tiles\.h5"):
        write_manifest([tmp_path / "part.json", shards[1]], tmp_path / "m.json", **SETTINGS)


def test_shards_that_a_part_left_out_are_still_spoken_of(tmp_path):
    paths = [_shard(tmp_path, 0), _shard(tmp_path, 1, drop=["true_primary_id"]), _shard(tmp_path, 2)]
    write_manifest(paths[:2], tmp_path / "part.json", **SETTINGS)
    joined = write_manifest([tmp_path / "part.json", paths[2]], tmp_path / "m.json", **SETTINGS)
    assert joined.provenance["warnings"] == [
        "1 of 3 shards (150 tiles) have no true_primary_id and are left out, because the others have it: run_1.tiles.h5"
    ]
    assert [shard.source for shard in joined.shards] == ["run_0", "run_2"]
    with joined.index() as index:
        assert index.n_tiles.tolist() == [150, 150]


def test_a_column_that_only_some_shards_have(tmp_path):
    """Filled with nothing, and known to be missing; whole numbers and fractions may come in any order."""
    paths = [_shard(tmp_path, 0, drop=["true_energy_tev"]), _shard(tmp_path, 1)]
    made = write_manifest(paths, tmp_path / "m.json", **SETTINGS)
    with made.index() as index:
        assert index.has("true_energy_tev").tolist() == [False, True]
        first, second = index.shards(["true_energy_tev"])
    assert "true_energy_tev" not in first.columns
    with Shard(paths[1]) as shard:
        np.testing.assert_array_equal(
            second.columns["true_energy_tev"], shard.read_columns(["true_energy_tev"])["true_energy_tev"]
        )


def test_an_index_in_another_format_is_refused(shards, tmp_path):
    write_manifest(shards, tmp_path / "m.json")
    with pytest.raises(UserError, match="is not an index of tiles"):
        TileIndex.open(shards[0])


def test_a_manifest_says_the_size_and_digest_of_each_shard(shards, tmp_path):
    write_manifest(shards, tmp_path / "m.json")
    entries = json.loads((tmp_path / "m.json").read_text())["shards"]
    assert [entry["n_bytes"] for entry in entries] == [path.stat().st_size for path in shards]


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=1000),
        10 ** np.random.default_rng(1).normal(size=30_001),
        np.random.default_rng(2).integers(-2, 3, 999).astype(float),
        np.full(50, 0.4),
        np.array([1.0, 2.0]),
        np.array([-0.0, 0.0, 5e-324, -5e-324]),
    ],
)
@pytest.mark.parametrize("n_bins", [1, 3, 20])
def test_quantiles_in_parts_are_those_of_numpy(values, n_bins):
    parts = np.array_split(values, 7)
    (edges,) = quantile_edges(lambda: iter([{"a": part} for part in parts]), {"a": n_bins}).values()
    wanted = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1))).tolist()
    assert edges == (wanted if len(wanted) > 1 else [wanted[0], np.nextafter(wanted[0], np.inf)])
