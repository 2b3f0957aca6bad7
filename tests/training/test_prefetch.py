"""Batches that a thread makes: the same ones in the same order, errors where they belong, and no thread left."""

import threading
import time

import pytest
import torch
from synthetic_tiles import array_batch, camera_batch, sky_batch, write_tiles

from pipeline.config import NetworkConfig
from pipeline.inputs import get_input
from pipeline.tiles import TileReader
from pipeline.tiles.events import EventReader
from pipeline.training.data import Feed
from pipeline.training.heads import Heads
from pipeline.training.prefetch import prefetched


def counting(n, made, error=None):
    try:
        for number in range(n):
            made.append(number)
            yield number
        if error:
            raise error
    finally:
        made.append("closed")


def batch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_items_keep_their_order_and_are_made_ahead():
    made = []
    items = prefetched(counting(10, made), ahead=3)
    assert not made  # nothing before the first one is wanted
    assert next(items) == 0
    deadline = time.monotonic() + 30
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2, 3, 4]  # one taken, three waiting, one in the hand of the thread
    assert list(items) == list(range(1, 10))
    assert made[-1] == "closed"
    assert not batch_threads()


def test_an_error_comes_where_its_item_is_missing():
    items = prefetched(counting(2, [], OSError("the disk is gone")))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert not batch_threads()


def test_a_closed_iterator_ends_its_thread():
    made = []
    items = prefetched(counting(1000, made))
    next(items)
    items.close()
    assert not batch_threads()
    assert made[-1] == "closed"
    assert len(made) < 10


def feeds(kind, manifest, reader_class=TileReader, **settings):
    """The same for a processor and for a GPU, without pinned memory, which needs a GPU."""
    config = NetworkConfig(input=kind, model={"name": "by_hand"}, axis_maps=False, **settings)
    reader, heads = reader_class([manifest], "train"), Heads(config)
    fitted = get_input(kind).fit(reader)
    made = [Feed(fitted, heads, config.augmentation, 3, device) for device in ("cpu", "cuda:0")]
    tiles = next(iter(reader.shuffled(0, 0, 12, columns=made[0].columns)))
    return made, tiles


CASES = {
    "image": dict(heads=["gammaness", "direction"], augmentation={"rotation": "sixths", "shift_px": 2, "scale": 0.1}),
    "still": dict(heads=["gammaness"], augmentation=False),
    "shower": dict(heads=["gammaness", "direction"]),
    "frame": dict(heads=["denoise"]),
}


@pytest.mark.parametrize("case", CASES)
def test_images_moved_on_the_device_are_the_same(case, tmp_path, monkeypatch):
    """Here the device is the processor."""
    kind = "image" if case == "still" else case
    batch = {
        "image": lambda: camera_batch(80),
        "shower": lambda: array_batch(40, (0, 0, 0)),
        "frame": lambda: sky_batch(40),
    }
    manifest = write_tiles(tmp_path, batch[kind]())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    (here, there), tiles = feeds(kind, manifest, EventReader if kind == "shower" else TileReader, **CASES[case])
    expected, given = here.training_batch(tiles, 2, 5), there.training_batch(tiles, 2, 5)
    assert ("motion" in given) == (case != "still")
    if case != "still":
        assert not torch.equal(given["inputs"]["images"], expected["inputs"]["images"])
    assert_same(there.on_device(given), expected)
    assert_same(here.on_device(expected), expected)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[name], value)
        else:
            assert torch.equal(found[name], value), name
