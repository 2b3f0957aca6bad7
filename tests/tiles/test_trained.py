"""What a network was trained on is known again in a manifest that divides it in another way."""

from contextlib import closing

import numpy as np
import pytest
from synthetic_tiles import CAMERA_CHANNELS, CAMERA_IDENTITY, camera_batch

from pipeline.config import SplitsConfig
from pipeline.tiles import ShardWriter, split_of, write_manifest
from pipeline.tiles.layout import TileCamera
from pipeline.tiles.trained import MOST_GROUPS, Groups, _uniform


def manifest_of(folder, seed: int, test: float = 0.2, first_shower: int = 0):
    """Three runs of 400 images each, of which some showers have several."""
    folder.mkdir()
    shards = []
    camera = TileCamera(identity=CAMERA_IDENTITY, name="cam", type="LST", focal_length_m=28, tile_pixel_deg=0.1)
    for number in range(3):
        batch = camera_batch(400, size=8, seed=number + first_shower)
        shares = SplitsConfig(train=0.8 - test, validation=0.2, test=test)
        batch.split = split_of(f"run_{number}", batch.group, shares, seed)
        path = folder / f"run_{number}.tiles.h5"
        with ShardWriter(
            path, channels=CAMERA_CHANNELS, tile_shape=(8, 8), source=f"run_{number}", wing="camera",
            attributes={"cameras": [camera.model_dump()]},
        ) as writer:  # fmt: skip
            writer.append(batch)
        shards.append(path)
    return write_manifest(shards, folder / "m.json", class_column="true_primary_id")


@pytest.fixture
def trained(tmp_path):
    with closing(Groups([manifest_of(tmp_path / "trained", seed=1)], "train")) as groups:
        assert len(groups.key) > 0
        return groups.sample()


def known(manifest, trained, split="test"):
    with closing(Groups([manifest], split)) as groups:
        return groups.known(*trained)


def test_the_test_split_of_the_same_tiles_is_not_known(tmp_path, trained):
    again = manifest_of(tmp_path / "again", seed=1)
    assert known(again, trained)[0] == 0
    n, looked_at = known(again, trained, "train")
    assert n == looked_at == len(set(trained[1]))


@pytest.mark.parametrize(("seed", "test"), [(2, 0.2), (1, 0.5)])
def test_another_division_is_known(tmp_path, trained, seed, test):
    n, looked_at = known(manifest_of(tmp_path / "other", seed, test), trained)
    assert 0 < n <= looked_at


def test_other_showers_of_the_same_names_are_not_known(tmp_path, trained):
    n, looked_at = known(manifest_of(tmp_path / "other", seed=2, first_shower=50), trained)
    assert n == 0 < looked_at


def test_a_sample_is_small_and_everywhere():
    key = np.concatenate([_uniform(source, np.arange(20_000)) for source in ("run_1", "run_2")])
    assert len(np.unique(key)) == len(key)
    counts = np.histogram(key / 2**64, bins=16, range=(0, 1))[0]
    assert abs(counts - 2500).max() < 5 * 2500**0.5
    chosen = np.argsort(key)[:MOST_GROUPS]
    assert 90 < np.count_nonzero(chosen < 20_000) < 166
