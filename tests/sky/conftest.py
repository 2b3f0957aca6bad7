import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import Config, parse_config
from pipeline.sky.ingest import ingest_frame
from pipeline.stages.simulate_sky import simulate_sky


@pytest.fixture(scope="session")
def sky_config() -> Config:
    """Small frames with every kind of defect."""
    return parse_config(
        {
            "sky": {
                "shape": [160, 192],
                "stars_per_frame": 40,
                "galaxies_per_frame": 6,
                "hot_pixel_fraction": 0.002,
                "trails_per_frame": 1.0,
                "gap_fraction": 0.02,
            },
            "tiles": {"sky": {"size": 64, "stride": 64}},
        }
    )


@pytest.fixture(scope="session")
def simulated(sky_config, tmp_path_factory):
    """One raw simulated frame, with its truth beside it."""
    return simulate_sky(sky_config, 1, tmp_path_factory.mktemp("raw") / "sky_run_0001.fits")


@pytest.fixture(scope="session")
def ingested(sky_config, simulated, tmp_path_factory):
    """The same, ingested."""
    out = tmp_path_factory.mktemp("ingested") / "sky_run_0001.fits"
    ingest_frame(simulated, out, sky_config.ingest.sky)
    return out


@pytest.fixture
def write_fits(tmp_path, rng):
    """Write a small FITS file: `write_fits("name.fits", header cards ..., pixels=...)`."""

    def write(name="frame.fits", *, pixels=None, extra=(), **cards):
        if pixels is None:
            pixels = rng.normal(1000, 10, (80, 100)).astype(np.float32)
        primary = fits.PrimaryHDU(pixels)
        for key, value in cards.items():
            primary.header[key.replace("_", "-")] = value
        path = tmp_path / name
        fits.HDUList([primary, *extra]).writeto(path)
        return path

    return write
