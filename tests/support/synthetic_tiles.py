"""Tile sets made in milliseconds, with a truth that a network can learn: for tests of everything after `tiles`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tiny_bundles import camera_recipe

from pipeline.config import SplitsConfig
from pipeline.sky.dq import DQ, DQ_DTYPE, LOST, flag
from pipeline.tiles import Channel, Manifest, ShardWriter, TileBatch, split_of, write_manifest
from pipeline.tiles.layout import TileCamera

CAMERA_IDENTITY = "hexagon-1855-test"
CAMERA_CHANNELS = (Channel("charge", "p.e."), Channel("peak_time", "ns"), Channel("mask", ""))
SKY_CHANNELS = (Channel("sci", "electron"), Channel("err", "electron"))
SHARES = SplitsConfig(train=0.6, validation=0.2, test=0.2)


def camera_batch(n: int, size: int = 24, seed: int = 0, *, gamma: bool | None = None) -> TileBatch:
    """Ellipses: the charge grows with energy; hadrons are rounder. `gamma` None mixes both.

    The source is 0.8 deg from the centre of gravity, at the end with the later times.
    """
    rng = np.random.default_rng(seed)
    is_gamma = np.arange(n) % 2 == 0 if gamma is None else np.full(n, gamma)
    log10_energy = rng.uniform(-1, 1, n)
    length, width = rng.uniform(3.0, 4.0, n), np.where(is_gamma, 1.2, 2.6)
    angle = rng.uniform(0, 2 * np.pi, n)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    u = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    v = -x * np.sin(angle)[:, None, None] + y * np.cos(angle)[:, None, None]
    shape = np.exp(-0.5 * ((u / length[:, None, None]) ** 2 + (v / width[:, None, None]) ** 2))
    size_pe = 10 ** (2.5 + log10_energy + 0.02 * rng.normal(size=n))
    charge = size_pe[:, None, None] * shape / shape.sum((1, 2), keepdims=True)
    charge = charge + rng.normal(0, 1.0, charge.shape)
    mask = (charge > 4).astype(np.float32)
    events = {
        "camera": np.zeros(n, np.int16),
        "obs_id": np.ones(n, np.int32),
        "event_id": np.arange(n, dtype=np.int64),
        "hillas_intensity": size_pe,
        "hillas_length": length,
        "hillas_width": np.full(n, np.nan),  # a parameter that could not be computed
        "hillas_psi": np.degrees(angle),
        "hillas_phi": np.full(n, np.degrees(np.arctan2(-0.2, 0.3))),
        "timing_slope": rng.normal(0, 3, n),
        "hillas_fov_lon": np.full(n, 0.3),
        "hillas_fov_lat": np.full(n, -0.2),
        "pointing_alt_deg": np.full(n, 70.0),
        "pointing_az_deg": np.full(n, 180.0),
        "tel_x_m": np.full(n, 30.0),
        "tel_y_m": np.full(n, -20.0),
        "tel_z_m": np.full(n, 5.0),
        "true_core_x_m": 30.0 + 90 * np.cos(angle),
        "true_core_y_m": -20.0 + 90 * np.sin(angle),
        "true_x_max_g_cm2": 300 + 40 * log10_energy,
        "true_fov_lon_deg": 0.3 + 0.8 * np.cos(angle),
        "true_fov_lat_deg": -0.2 + 0.8 * np.sin(angle),
        "true_energy_tev": 10**log10_energy,
        "true_offset_deg": rng.uniform(0, 2, n),
        "true_primary_id": np.where(is_gamma, 0, 101).astype(np.int16),
    }
    return TileBatch(
        images=np.stack([charge, 0.5 * u * mask, mask], axis=1).astype(np.float16),
        events=events,
        targets={
            "energy": log10_energy.astype(np.float32)[:, None],
            "gammaness": is_gamma.astype(np.float32)[:, None],
            "direction": 0.8 * np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
        },
        group=np.arange(n) // 2,
    )


def array_batch(n_events: int, cameras: Sequence[int] = (0, 0, 1), size: int = 24, seed: int = 0) -> TileBatch:
    """Events of `camera_batch`, each with an image of every entry of `cameras`, a place among those of the shard.

    All images of an event have its truth, but look as those of `camera_batch`; gammas and hadrons alternate, and two
    events are of one group.
    """
    n_images = len(cameras)
    batch = camera_batch(n_events * n_images, size, seed)
    first = np.arange(n_events).repeat(n_images) * n_images
    for name, column in batch.events.items():
        if name.startswith("true_"):
            batch.events[name] = column[first]
    tel_id = np.tile(np.arange(n_images), n_events)
    batch.events |= {
        "camera": np.tile(np.asarray(cameras, np.int16), n_events),
        "event_id": first // n_images,
        "tel_id": tel_id + 1,
        "tel_x_m": 100.0 * tel_id,
        "tel_y_m": 70.0 * tel_id**2,
    }
    batch.events["true_primary_id"] = np.where(batch.events["event_id"] % 2 == 0, 0, 101).astype(np.int16)
    batch.targets["energy"] = np.log10(batch.events["true_energy_tev"]).astype(np.float32)[:, None]
    batch.targets["gammaness"] = (batch.events["true_primary_id"] == 0).astype(np.float32)[:, None]
    batch.group = batch.events["event_id"] // 2
    return batch


def sky_batch(n: int, size: int = 32, seed: int = 0, *, noise2noise: bool = False) -> TileBatch:
    """Gaussian stars on a flat sky [electron], with cosmic-ray pixels, saturated cores and missing pixels."""
    rng = np.random.default_rng(seed)
    level, read_noise = 200.0, 5.0
    y, x = np.mgrid[:size, :size]
    clean = np.full((n, size, size), level)
    for tile in clean:
        for _ in range(6):
            y0, x0, flux = *rng.uniform(0, size, 2), 10 ** rng.uniform(3, 5)
            star = np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 1.5**2)
            tile += flux * star / (2 * np.pi * 1.5**2)

    def expose() -> np.ndarray:
        return rng.poisson(clean) + rng.normal(0, read_noise, clean.shape)

    sci = expose()
    masks = np.zeros(sci.shape, DQ_DTYPE)
    hit = rng.random(sci.shape) < 0.01
    charge = np.zeros(sci.shape)
    charge[hit] = rng.uniform(200, 5000, hit.sum())
    sci += charge
    flag(masks, hit, DQ.COSMIC_RAY)
    full = sci > 5000
    sci[full] = 5000
    masks[full] = DQ.SATURATED
    masks[:, :2, :2] = DQ.MISSING
    sci[:, :2, :2] = np.nan
    err = np.sqrt(np.maximum(sci, 0) + read_noise**2)
    targets = {
        "clean": clean[:, None].astype(np.float32),
        "defect_snr": (charge / np.sqrt(clean + read_noise**2))[:, None].astype(np.float16),
        "defect_bits": np.where(hit, DQ.COSMIC_RAY, 0)[:, None].astype(DQ_DTYPE),
    }
    if noise2noise:
        targets.clear()
        partner = expose()
        partner[rng.random(sci.shape) < 0.01] = np.nan  # bad pixels of the partner
        targets["clean"] = partner[:, None].astype(np.float32)
        targets["clean_err"] = np.sqrt(np.maximum(partner, 0) + read_noise**2)[:, None].astype(np.float32)
        masks &= DQ_DTYPE(LOST)
    events = {
        "field": np.zeros(n, np.int64),
        "level": np.full(n, level),
        "noise": np.full(n, np.sqrt(level + read_noise**2)),
    }
    return TileBatch(
        images=np.stack([sci, err], axis=1).astype(np.float32),
        events=events,
        targets=targets,
        masks=masks,
        group=np.arange(n) // 4,
    )


def camera_entry(identity: str = CAMERA_IDENTITY, name: str = "TestCam", size_type: str = "LST") -> dict:
    """One of the `cameras` among the attributes of a shard."""
    return TileCamera(identity=identity, name=name, type=size_type, focal_length_m=28, tile_pixel_deg=0.08).model_dump()


def write_tiles(
    folder: Path,
    batch: TileBatch,
    name: str = "run",
    *,
    shares: SplitsConfig = SHARES,
    equalised: dict[str, int] | None = None,
    frame: dict | None = None,
    cameras: Sequence[tuple[str, ...]] = (),
) -> Manifest:
    """One shard and its manifest; the number of channels says which wing it is.

    `frame` describes a sky frame; `cameras` are identity, name and type, as the event column `camera` counts them: by
    default of one.
    """
    camera = batch.images.shape[1] == len(CAMERA_CHANNELS)
    size_px = batch.images.shape[-1]
    attributes = (
        {
            "cameras": [camera_entry(*names) for names in cameras or [(CAMERA_IDENTITY,)]],
            "recipe": camera_recipe(size_px).model_dump(mode="json"),
        }
        if camera
        else {
            "unit": "electron",
            "target": "noise2noise" if "clean_err" in batch.targets else "truth",
            "recipe": {"version": 1, "size_px": size_px, "stride_px": size_px},
            **({"frame": frame} if frame else {}),
        }
    )
    batch.split = split_of(name, batch.group, shares)
    shard = folder / f"{name}.tiles.h5"
    with ShardWriter(
        shard,
        channels=CAMERA_CHANNELS if camera else SKY_CHANNELS,
        tile_shape=batch.images.shape[2:],
        dtype="float16" if camera else "float32",
        source=name,
        wing="camera" if camera else "sky",
        attributes=attributes,
        masks=batch.masks is not None,
    ) as writer:
        writer.append(batch)
    return write_manifest(
        [shard],
        folder / f"{name}.manifest.json",
        class_column="true_primary_id" if camera else None,
        equalised=equalised,
    )
