"""Sections `inputs` and `ingest`: which files are read, and how."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import Section


class InputsConfig(Section):
    """The user's own files: glob patterns relative to `DATA` (`make run DATA=DIR`)."""

    camera: tuple[str, ...] = Field(
        (), description='Camera events: simtel, ctapipe DL1 or lstchain DL1 files, such as ["camera/*.simtel.zst"].'
    )
    sky: tuple[str, ...] = Field((), description='Sky frames: FITS files, such as ["sky/*.fits.gz"].')


class SkyIngestConfig(Section):
    """How a FITS frame is read. A value of None is taken from the header, as far as the pixels do not contradict it."""

    science_hdu: str | int | None = Field(
        None,
        description="Name or number of the science HDU. null: all SCI extensions, else all images of a mosaic's chips "
        "or amplifiers, else the primary image, else the first image extension.",
    )
    gain_e_per_adu: float | None = Field(
        None,
        gt=0,
        description="Gain [electrons per ADU]. null: from the header; a frame without a known gain stays in ADU.",
    )
    read_noise_e: float | None = Field(None, ge=0, description="Read noise [electrons]. null: from the header.")
    saturation_adu: float | None = Field(
        None,
        description="Level from which a pixel counts as saturated [ADU]. null: from the header, else the value "
        "at which pixels are clipped.",
    )
    bias_level_adu: float | None = Field(
        None,
        description="Constant bias level to subtract [ADU]. null: from the header, else the median of the overscan, "
        "else nothing is subtracted.",
    )
    bias: tuple[str, ...] = Field((), description="Bias frames; their combination is subtracted.")
    dark: tuple[str, ...] = Field((), description="Dark frames; subtracted, scaled by exposure time.")
    flat: tuple[str, ...] = Field((), description="Flat-field frames to divide by.")
    mask_suffix: tuple[str, str] | None = Field(
        None,
        description='How the name of the mask file is made from that of the frame: ["_ooi_", "_ood_"] replaces _ooi_ '
        "by _ood_. null: no mask file.",
    )
    weight_suffix: tuple[str, str] | None = Field(
        None,
        description='The same for a file of inverse variances or weights: ["_ooi_", "_oow_"]. null: no such file.',
    )
    dq_bits: dict[int, int] = Field(
        default_factory=dict,
        description="Meaning of the bits of the file's own mask, as {its bit: our bit}; our bits are in "
        "pipeline/sky/dq.py. Bits that are not listed: see dq_convention.",
    )
    dq_convention: str | None = Field(
        None,
        description="What the file's own mask means: nonzero_is_bad, zero_is_bad (1 means good), ignore, or a table of "
        "pipeline/sky/frames/mask_tables.py (jwst, hst_acs, noirlab ...). null: names of bits in the header, else the "
        "camera's table, else every bit is bad that does not mark the sources.",
    )
    max_masked_fraction: float = Field(
        0.3,
        gt=0,
        le=1,
        description="A frame is refused if its own mask calls more of its pixels bad than this.",
    )
    background_box_px: int = Field(
        64, ge=8, description="Side of the boxes in which background and noise are measured [px]."
    )


EventTypeName = Literal[
    "flat_field", "single_pe", "pedestal", "dark_pedestal", "electronic_pedestal", "sky_pedestal", "other_calibration",
    "muon", "hardware_stereo", "random_mono", "daq", "subarray", "long_event", "unknown",
]  # fmt: skip


class CameraIngestConfig(Section):
    """Which telescopes and events of camera files are used."""

    allowed_telescopes: tuple[int, ...] = Field(
        (), description="Ids of the telescopes to read from a simtel file. Empty: all."
    )
    max_events: int | None = Field(
        None, ge=1, description="Number of events after which reading of a simtel file stops. null: read all."
    )
    event_types: tuple[EventTypeName, ...] = Field(
        ("hardware_stereo", "random_mono", "subarray", "long_event", "unknown"),
        description="Types of events that are showers. Images of other types are counted, but get no tile and no "
        "prediction.",
    )


class IngestConfig(Section):
    """`lightpool ingest`."""

    camera: CameraIngestConfig = Field(CameraIngestConfig(), description="Camera files.")
    sky: SkyIngestConfig = Field(SkyIngestConfig(), description="FITS frames.")
