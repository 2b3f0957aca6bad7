"""Widths of pulls, measured with a network whose answers are known."""

import numpy as np
import pytest
import torch
from synthetic_tiles import camera_batch, write_tiles

from pipeline.config import parse_config
from pipeline.inputs.image import ImageInput
from pipeline.tasks import get_targets
from pipeline.tiles.reader import TileReader
from pipeline.training.calibrate import calibrations
from pipeline.training.heads import Heads


class Constant(torch.nn.Module):
    """The same outputs for every image."""

    def __init__(self, outputs):
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(outputs))

    def forward(self, images):
        return self.values.expand(len(images), -1)


def heads_of(*tasks):
    networks = {"net": {"heads": list(tasks), "model": {"name": "resnet18"}}}
    return Heads(parse_config({"networks": networks}).network("net"))


@pytest.fixture
def reader(tmp_path):
    tiles = camera_batch(800)
    for task in ("core", "x_max"):
        tiles.targets |= get_targets(task).of_truth(tiles)
    return TileReader([write_tiles(tmp_path, tiles, equalised={"true_energy_tev": 3})], "all")


def test_each_head_has_its_own_factors_from_the_tiles_that_count(reader):
    # Energies are spread evenly over two decades: 68 % about the median are 1.37 decades wide.
    outputs = [0.0, 2 * np.log(0.1), 0.0, 0.0, 2 * np.log(0.2)]
    found = calibrations(Constant(outputs), heads_of("energy", "gammaness", "x_max"), ImageInput(), reader, "cpu")
    assert set(found) == {"energy", "x_max"}  # gammaness states no uncertainty
    events = reader.events(["hillas_intensity", "true_primary_id", "true_energy_tev"])
    gamma = events["true_primary_id"] == 0
    error = np.log10(1.0 / events["true_energy_tev"][gamma]) / 0.1
    assert len(found["energy"].factors) == gamma.sum() // 100
    scaled = error / found["energy"].of({"hillas_intensity": events["hillas_intensity"][gamma]})
    bins = np.searchsorted(found["energy"].edges, events["hillas_intensity"][gamma], side="right")
    for number in range(len(found["energy"].factors)):
        low, high = np.quantile(scaled[bins == number], [0.158655, 0.841345])
        assert (high - low) / 2 == pytest.approx(1, rel=1e-3)


def test_directions_are_calibrated_at_the_right_end(reader):
    # The truth is 0.8 deg from the centre of gravity; the network answers 0.8 deg along fov_lon, whatever the image.
    found = calibrations(
        Constant([0.8, 0, 1, 0, 0, 0, 2 * np.log(0.4)]), heads_of("direction"), ImageInput(), reader, "cpu"
    )
    events = reader.events(["true_fov_lon_deg", "true_fov_lat_deg", "true_primary_id"])
    lon, lat = (events[f"true_fov_{axis}_deg"][events["true_primary_id"] == 0] for axis in ("lon", "lat"))
    nearer = np.sign(lon - 0.3) * 0.8
    pulls = np.concatenate([0.3 + nearer - lon, -0.2 - lat]) / 0.4
    low, high = np.quantile(pulls, [0.158655, 0.841345])
    assert np.mean(found["direction"].factors) == pytest.approx((high - low) / 2, rel=0.1)


def test_heads_without_uncertainties_have_none(reader):
    assert calibrations(Constant([0.0]), heads_of("gammaness"), ImageInput(), reader, "cpu") == {}
