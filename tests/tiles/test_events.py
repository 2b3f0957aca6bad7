import numpy as np
import pytest
from synthetic_tiles import camera_entry

from pipeline.errors import UserError
from pipeline.tiles import Channel, ShardWriter, TileBatch, write_manifest
from pipeline.tiles.event_rows import event_starts
from pipeline.tiles.events import EventReader, starts_of

# Images per event; the pattern repeats, and neither 64 nor 256 tiles end with an event.
SIZES = np.tile([1, 2, 3, 4, 1, 4], 60)


def write_events(path, source, sizes=SIZES, per_shower=3, columns=("obs_id", "event_id")):
    event = np.repeat(np.arange(len(sizes)), sizes)
    n = len(event)
    with ShardWriter(
        path,
        channels=[Channel("charge", "p.e.")],
        tile_shape=(4, 4),
        source=source,
        wing="camera",
        attributes={"cameras": [camera_entry()]},
    ) as writer:
        events = {"obs_id": np.ones(n, np.int64), "event_id": event}
        others = {"tel_id": np.arange(n) % 4, "camera": np.zeros(n, np.int16)}
        writer.append(
            TileBatch(
                images=np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None, None], (n, 1, 4, 4)),
                events={name: events[name] for name in columns} | others,
                group=event // per_shower,
            )
        )
    return path


@pytest.fixture
def manifest(tmp_path):
    shards = [write_events(tmp_path / f"{i}.tiles.h5", f"run{i}") for i in range(2)]
    return write_manifest(shards, tmp_path / "manifest.json")


def test_an_event_begins_where_a_key_or_the_group_changes():
    events = {"obs_id": [1, 1, 1, 2, 2], "event_id": [5, 5, 6, 6, 6], "group": [0, 0, 0, 0, 1]}
    np.testing.assert_array_equal(event_starts({k: np.array(v) for k, v in events.items()}), [0, 2, 3, 4])
    assert len(event_starts({name: np.empty(0, int) for name in events})) == 0


def test_whole_events_of_enough_telescopes_are_read(manifest):
    reader = EventReader([manifest], "all")
    counts = np.tile(SIZES[SIZES >= 2], 2)
    assert (reader.n_events, reader.n_tiles) == (len(counts), counts.sum())
    batches = list(reader.sequential())
    assert len(batches) > 2
    found = np.concatenate([np.diff(starts_of(batch), append=len(batch)) for batch in batches])
    np.testing.assert_array_equal(found, counts)
    np.testing.assert_array_equal(event_starts(reader.events(["obs_id", "event_id"])), np.cumsum(counts) - counts)
    reader.close()
    assert EventReader([manifest], "all", min_telescopes=4).n_events == 2 * np.count_nonzero(SIZES == 4)
    assert EventReader([manifest], "all", min_telescopes=5).n_batches(8) == 0


def keys_of(batch):
    starts = starts_of(batch)
    return np.stack([batch.group[starts], batch.events["event_id"][starts]], axis=1)


def test_shuffled_batches_hold_whole_events(manifest):
    reader = EventReader([manifest], "all")

    def batches(seed, epoch):
        return list(reader.shuffled(seed, epoch, 32, columns=["tel_id"], buffer_blocks=2))

    first = batches(1, 0)
    assert len(first) == reader.n_batches(32) == reader.n_events // 32
    for batch in first:
        starts = starts_of(batch)
        assert len(starts) == 32
        counts = np.diff(starts, append=len(batch))
        np.testing.assert_array_equal(counts, SIZES[batch.events["event_id"][starts]])
        # Images are numbered through the shard: those of an event keep their order.
        steps = np.diff(batch.images[:, 0, 0, 0].astype(int))
        assert set(np.delete(steps, starts[1:] - 1).tolist()) <= {1}
    keys = np.concatenate([keys_of(batch) for batch in first])
    assert len(np.unique(keys, axis=0)) == 32 * len(first)
    np.testing.assert_array_equal(keys, np.concatenate([keys_of(batch) for batch in batches(1, 0)]))
    assert not np.array_equal(keys_of(first[0]), keys_of(batches(1, 1)[0]))


def test_few_events_make_one_partial_batch(manifest):
    reader = EventReader([manifest], "all")
    assert [len(starts_of(b)) for b in reader.shuffled(0, 0, 10_000)] == [reader.n_events]


def test_tiles_without_events_are_refused(tmp_path):
    shard = write_events(tmp_path / "a.tiles.h5", "run", columns=["event_id"])
    manifest = write_manifest([shard], tmp_path / "manifest.json")
    with pytest.raises(UserError, match="has no event column obs_id: its tiles are not of events"):
        EventReader([manifest], "all")
