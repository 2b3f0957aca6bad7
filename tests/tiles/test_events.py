import numpy as np
import pytest
from synthetic_tiles import array_batch, camera_entry, write_tiles

from pipeline.errors import UserError
from pipeline.tiles import Channel, ShardWriter, TileBatch, write_manifest
from pipeline.tiles.event_rows import event_starts
from pipeline.tiles.events import EventReader, starts_of
from pipeline.tiles.reader import TileReader

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


CAMERAS = (("hexagon-a", "NectarCam", "MST"), ("hexagon-b", "LSTCam", "LST"), ("hexagon-c", "SSTCam", "SST"))


def test_events_are_equalised_event_by_event(tmp_path):
    """Whatever number of telescopes sees gammas and protons, and however their energies differ."""
    gammas, protons = array_batch(80, (0, 0, 1, 1, 1)), array_batch(60, (0, 1), seed=1)
    gammas.events["true_primary_id"][:], protons.events["true_primary_id"][:] = 0, 101
    gammas.events["true_energy_tev"] **= 1.5
    protons.group, protons.events["event_id"] = protons.group + 40, protons.events["event_id"] + 80
    manifest = write_tiles(
        tmp_path,
        TileBatch.concatenate([gammas, protons]),
        cameras=CAMERAS[:2],
        equalised={"true_energy_tev": 3, "hillas_intensity": 2},
    )
    reader = EventReader([manifest], "all")
    images = reader.events(["obs_id", "event_id", "true_primary_id"])
    starts = event_starts(images)
    weights = images["weights"][starts]
    np.testing.assert_array_equal(images["weights"], np.repeat(weights, np.diff(starts, append=len(images["group"]))))
    is_gamma = images["true_primary_id"][starts] == 0
    assert np.ptp(weights[is_gamma]) > 0.1
    assert weights[is_gamma].sum() == pytest.approx(weights[~is_gamma].sum(), rel=1e-3) == pytest.approx(70, rel=1e-3)
    np.testing.assert_array_equal(np.concatenate([b.weights for b in reader.sequential(["tel_id"])]), images["weights"])
    (batch,) = reader.shuffled(0, 0, 1000, columns=["tel_id"])
    assert sorted(batch.weights) == sorted(images["weights"])
    np.testing.assert_array_equal(batch.base_weights, 1)
    np.testing.assert_array_equal(EventReader([manifest], "all", equalise=False).events([])["weights"], 1)
    # Chosen images of one camera have the weight of their event, too.
    of_lst = EventReader([manifest], "all", where={"camera": 1}).events(["event_id"])
    of_event = dict(zip(images["event_id"].tolist(), images["weights"], strict=True))
    assert of_lst["weights"].tolist() == [of_event[event] for event in of_lst["event_id"].tolist()]
    # Single images have weights of their own.
    assert not np.array_equal(TileReader([manifest], "all").events([])["weights"], images["weights"])


def test_manifests_without_events_of_several_telescopes_have_no_table_for_them(tmp_path):
    manifest = write_tiles(tmp_path, array_batch(80, (0,)), equalised={"true_energy_tev": 3})
    assert manifest.event_weighting is None
    assert manifest.weightings[0] is not None


def test_a_class_that_sees_no_events_of_the_other_kind_is_told_of(tmp_path):
    batch = array_batch(100, (0, 1))
    high = batch.events["true_primary_id"] != 0
    batch.events["true_energy_tev"][high] += 100
    manifest = write_tiles(tmp_path, batch, cameras=CAMERAS[:2], equalised={"true_energy_tev": 4})
    told = [text for text in manifest.provenance["warnings"] if text.startswith("events of several telescopes: ")]
    assert told
    assert "events of class 101 have weight 0, because another class has none with such values of true_en" in told[-1]


def test_cameras_are_counted_among_those_that_are_read(tmp_path):
    manifest = write_tiles(tmp_path, array_batch(20, (0, 1, 2, 2)), cameras=CAMERAS)
    reader = EventReader([manifest], "all", where={"camera": [0, 2]})
    assert [camera.identity for camera in reader.cameras] == ["hexagon-a", "hexagon-c"]
    assert [[camera.name for camera in cameras] for cameras in reader.shard_cameras()] == [["NectarCam", "SSTCam"]]
    columns = reader.events(["camera", "tel_id"])
    np.testing.assert_array_equal(columns["tel_id"], np.tile([1, 3, 4], 20))
    np.testing.assert_array_equal(columns["camera"], np.tile([0, 1, 1], 20))
    assert columns["camera"].dtype == np.int16
    (batch,) = reader.shuffled(1, 0, 20)
    np.testing.assert_array_equal(batch.events["camera"], np.where(batch.events["tel_id"] == 1, 0, 1))
    assert [c.identity for c in TileReader([manifest], "all").cameras] == [camera[0] for camera in CAMERAS]


def test_few_events_make_one_partial_batch(manifest):
    reader = EventReader([manifest], "all")
    assert [len(starts_of(b)) for b in reader.shuffled(0, 0, 10_000)] == [reader.n_events]


def test_tiles_without_events_are_refused(tmp_path):
    shard = write_events(tmp_path / "a.tiles.h5", "run", columns=["event_id"])
    manifest = write_manifest([shard], tmp_path / "manifest.json")
    with pytest.raises(UserError, match="has no event column obs_id: its tiles are not of events"):
        EventReader([manifest], "all")
