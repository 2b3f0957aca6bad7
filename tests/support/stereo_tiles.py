"""Made-up images of events that several telescopes saw: showers are lines, image axes lead to their sources."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.camera.baselines import FOREST_COLUMNS
from pipeline.camera.stereo.hillas import COLUMNS
from pipeline.directions import fov_of_altaz, offset_deg, unit_vectors
from pipeline.tiles import Channel, ShardWriter, TileBatch, write_manifest
from pipeline.tiles.layout import TileCamera

CAMERA_IDENTITY = "hexagon-1855-test"
OF_ONE_CAMERA = {CAMERA_IDENTITY: 1.0}
POINTING = (70.0, 359.0)  # north is in the field of view
TELESCOPES_M = np.array(
    [[-60.0, -60.0, 3.0], [60.0, -60.0, 0.0], [60.0, 60.0, -2.0], [-60.0, 60.0, 5.0], [0.0, 150.0, 8.0]]
)


def images_of_axis(alt_deg, az_deg, core_m, telescopes_m, pointing=POINTING, height_m=9000.0, **columns):
    """Images without errors of a shower that is a line: their axes lead to the source, their centres to its maximum."""
    axis = unit_vectors(np.array([alt_deg]), -np.array([az_deg]))[0]  # x to the north, y to the west
    sight = np.array([*core_m, 0.0]) + axis * height_m / axis[2] - telescopes_m
    sight /= np.linalg.norm(sight, axis=1)[:, None]
    n = len(telescopes_m)
    pointings = np.full(n, pointing[0]), np.full(n, pointing[1])
    # The tangent of the great circle through the centre and the source: a small step towards the source.
    (lon, lat), towards = (
        fov_of_altaz(np.degrees(np.arcsin(v[:, 2])), np.degrees(np.arctan2(-v[:, 1], v[:, 0])), *pointings)
        for v in (sight, (sight + 1e-5 * axis) / np.linalg.norm(sight + 1e-5 * axis, axis=1)[:, None])
    )
    psi = np.degrees(np.arctan2(towards[1] - lat, towards[0] - lon))
    images = {
        "hillas_fov_lon": lon, "hillas_fov_lat": lat, "hillas_psi": (psi + 90) % 180 - 90,
        "hillas_intensity": np.linspace(100, 400, n), "hillas_length": np.full(n, 0.3), "hillas_width": np.full(n, 0.1),
        "pointing_alt_deg": pointings[0], "pointing_az_deg": pointings[1],
    }  # fmt: skip
    images |= {f"tel_{name}_m": telescopes_m[:, i] for i, name in enumerate("xyz")}
    return images | columns


def joined(*events):
    """Images of several events, and their numbers."""
    event = np.repeat(np.arange(len(events)), [len(images["hillas_psi"]) for images in events])
    return {name: np.concatenate([images[name] for images in events]) for name in COLUMNS}, event


def stereo_batch(n_showers: int, rng: np.random.Generator, *, telescopes: tuple[int, int] = (2, 5)) -> TileBatch:
    """Two events of each gamma or proton shower: charges follow the energy, widths tell the class."""
    parts = []
    for number in range(2 * n_showers):
        shower = np.random.default_rng([number // 2, int(rng.bit_generator.state["state"]["state"] % 2**31)])
        energy, is_gamma = 10 ** shower.uniform(-1, 1), shower.random() < 0.5
        lon, lat = shower.uniform(-1, 1, 2)
        alt, az = POINTING[0] + lat, (POINTING[1] + lon / np.cos(np.radians(POINTING[0]))) % 360
        x_max, core = 300 + 100 * np.log10(energy) + shower.normal(0, 20), rng.uniform(-150, 150, 2)
        seen = np.sort(rng.permutation(5)[: rng.integers(telescopes[0], telescopes[1] + 1)])
        images = images_of_axis(alt, az, core, TELESCOPES_M[seen], height_m=12000 - 15 * x_max)
        n = len(seen)
        own = {name: rng.normal(size=n) for name in FOREST_COLUMNS if name not in images}
        own |= {
            "camera": np.zeros(n, np.int16),
            "hillas_psi": images["hillas_psi"] + rng.normal(0, 2, n),
            "hillas_intensity": 10 ** (2.5 + np.log10(energy) + rng.normal(0, 0.2, n)),
            "hillas_width": (0.09 if is_gamma else 0.12) * rng.lognormal(0, 0.2, n),
            "hillas_phi": np.degrees(np.arctan2(images["hillas_fov_lat"], images["hillas_fov_lon"])),
            "leakage_intensity_width_2": np.zeros(n),
        }
        truth = {
            "true_energy_tev": energy, "true_primary_id": 0 if is_gamma else 101, "true_alt_deg": alt,
            "true_az_deg": az, "true_core_x_m": core[0], "true_core_y_m": core[1], "true_x_max_g_cm2": x_max,
        }  # fmt: skip
        truth["true_offset_deg"] = offset_deg(alt, az, *POINTING)
        truth["true_fov_lon_deg"], truth["true_fov_lat_deg"] = fov_of_altaz(alt, az, *POINTING)
        ids = {"obs_id": 1, "event_id": number, "shower_id": number // 2}
        parts.append(images | own | {"tel_id": seen + 1} | {k: np.full(n, v) for k, v in (truth | ids).items()})
    events = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    group = events["shower_id"]
    return TileBatch(
        images=np.zeros((len(group), 1, 4, 4), np.float16),
        events=events,
        group=group,
        split=rng.choice(3, n_showers, p=(0.4, 0.2, 0.4)).astype(np.uint8)[group],
    )


def write_stereo_tiles(folder: Path, batch: TileBatch, cameras: Mapping[str, float] = OF_ONE_CAMERA) -> Path:
    """One shard and its manifest; `cameras` are the side of a tile pixel [deg] by identity."""
    shard = folder / "run.tiles.h5"
    entries = [
        TileCamera(identity=identity, name="Cam", type="LST", focal_length_m=28, tile_pixel_deg=pixel_deg)
        for identity, pixel_deg in cameras.items()
    ]
    facts = {"cameras": [entry.model_dump() for entry in entries]}
    with ShardWriter(
        shard, channels=[Channel("charge", "p.e.")], tile_shape=(4, 4), source="run", wing="camera", attributes=facts
    ) as writer:
        writer.append(batch)
    write_manifest([shard], folder / "m.json", class_column="true_primary_id", equalised={"true_energy_tev": 3})
    return folder / "m.json"
