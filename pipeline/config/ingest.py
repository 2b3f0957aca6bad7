"""Sections `inputs` and `ingest`: which files are read, and how."""

from pydantic import Field

from pipeline.config.base import Section


class InputsConfig(Section):
    """The user's own files: glob patterns relative to `DATA` (`make run DATA=DIR`)."""

    camera: tuple[str, ...] = ()
    sky: tuple[str, ...] = ()


class SkyIngestConfig(Section):
    """How a FITS frame is read. What is None is taken from the header, and if it is not there either, said so."""

    science_hdu: str | int | None = None
    gain_e_per_adu: float | None = Field(None, gt=0)
    read_noise_e: float | None = Field(None, ge=0)
    saturation_adu: float | None = None
    bias_level_adu: float | None = None
    bias: tuple[str, ...] = ()
    dark: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()
    mask_suffix: tuple[str, str] | None = None  # ("_ooi_", "_ood_"): the mask file's name beside the science file's
    weight_suffix: tuple[str, str] | None = None  # the same for a file of inverse variances: ("_ooi_", "_oow_")
    dq_bits: dict[int, int] = Field(
        default_factory=dict
    )  # a foreign mask's bit -> ours; bits that are not listed mean 1 (bad pixel)
    background_box_px: int = Field(64, ge=8)


class CameraIngestConfig(Section):
    """How a simtel file is read (through ctapipe)."""

    allowed_telescopes: tuple[int, ...] = ()
    max_events: int | None = Field(None, ge=1)


class IngestConfig(Section):
    """`lightpool ingest`."""

    camera: CameraIngestConfig = CameraIngestConfig()
    sky: SkyIngestConfig = SkyIngestConfig()
