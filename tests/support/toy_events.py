"""A DL1 file of a toy camera: Gaussian spots whose size is known, seen by two telescopes."""

from pathlib import Path

import numpy as np

from pipeline.camera.dl1 import DL1Writer, EventChunk, SimulationRun, Subarray
from pipeline.camera.geometry import Camera

SIDE = 16
FIRST_EVENT = 100


def toy_camera(name: str = "Toy", pitch_m: float = 0.05) -> Camera:
    """Square pixels on a square grid."""
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * pitch_m
    x, y = np.meshgrid(axis, axis)
    return Camera(
        name, x.ravel(), y.ravel(), np.full(SIDE**2, pitch_m**2), hexagonal=False, focal_length_m=5.0,
        effective_focal_length_m=5.1, mirror_area_m2=20.0, sampling_rate_ghz=1.0, optics_name="ToyDish",
    )  # fmt: skip


def write_toy_dl1(
    path: Path, *, n_events: int = 12, obs_id: int = 7, seed: int = 0, faint_every: int = 4, tel_ids: tuple = (1, 2)
) -> None:
    """Every event in the telescopes `tel_ids`; of each `faint_every` events the first has an image below all cuts.

    Telescope 1 has the toy camera, and so has 3; telescope 2 has one of another pitch: a camera that no bundle serves.
    """
    rng = np.random.default_rng(seed)
    cameras = {1: toy_camera(), 2: toy_camera("Other", 0.06)}
    if 3 in tel_ids:
        cameras[3] = cameras[1]
    positions_m = {tel_id: (100.0 * (tel_id - 1), 0.0, 0.0) for tel_id in cameras}
    subarray = Subarray("toy", cameras, positions_m, altitude_m=2000.0)
    event = np.repeat(np.arange(n_events), len(tel_ids))
    n = len(event)
    y, x = np.mgrid[:SIDE, :SIDE]
    center = rng.uniform(6, 10, (2, n, 1, 1))
    spot = np.exp(-0.5 * (((x - center[0]) / 1.8) ** 2 + ((y - center[1]) / 1.1) ** 2)).reshape(n, -1)
    size_pe = np.where(event % faint_every == 0, 5.0, rng.uniform(200, 2000, n))
    image = size_pe[:, None] * spot / spot.sum(axis=1, keepdims=True) + rng.normal(0, 0.4, spot.shape)
    run = SimulationRun(0.1, 5.0, -2.0, n_showers=n_events, max_scatter_range_m=300.0)
    with DL1Writer(path, subarray, obs_id=obs_id, pointing_alt_rad=1.2, pointing_az_rad=3.0, simulation=run) as writer:
        writer.append(
            EventChunk(
                event_id=event + FIRST_EVENT,
                tel_id=np.tile(tel_ids, n_events),
                image=image.astype(np.float32),
                peak_time=rng.normal(20, 1, image.shape).astype(np.float32),
                truth={
                    "true_energy_tev": rng.uniform(0.1, 5, n_events)[event],
                    "true_alt_deg": np.full(n, 69.0),
                    "true_az_deg": np.full(n, 170.0),
                    "true_core_x_m": np.zeros(n),
                    "true_core_y_m": np.zeros(n),
                    "true_primary_id": np.zeros(n, int),
                    "shower_id": event,
                },
                true_image=np.ones(image.shape, int),
            )
        )
