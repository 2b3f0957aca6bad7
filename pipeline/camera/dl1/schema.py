"""Tables and columns of ctapipe's DL1 data model v7.1.0, and how they are described to PyTables.

Names, order, types and units were taken from what ``ctapipe.io.DataWriter`` 0.28 writes; a test compares them column by
column with a file that it made.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

DATA_MODEL_VERSION = "v7.1.0"
READABLE_VERSIONS = ("v4.0.0", "v5.0.0", "v5.1.0", "v6.0.0", "v7.0.0", "v7.1.0")  # what ctapipe 0.28 reads

SIMTEL_USES = 100  # sim_telarray numbers the uses of shower n from 100 n

TRIGGER = "/dl1/event/subarray/trigger"
TEL_TRIGGER = "/dl1/event/telescope/trigger"
IMAGES = "/dl1/event/telescope/images"
PARAMETERS = "/dl1/event/telescope/parameters"
WAVEFORMS = "/r1/event/telescope"
SHOWER = "/simulation/event/subarray/shower"
TRUE_IMAGES = "/simulation/event/telescope/images"
TRUE_IMPACT = "/simulation/event/telescope/impact"
TRUE_PARAMETERS = "/simulation/event/telescope/parameters"
SHOWER_DISTRIBUTION = "/simulation/service/shower_distribution"
SIMULATION_RUN = "/configuration/simulation/run"
FIXED_POINTING = "/configuration/telescope/pointing"
LEGACY_POINTING = "/dl1/monitoring/telescope/pointing"  # up to v4
MONITORED_POINTING = "/dl0/monitoring/telescope/pointing"
LAYOUT = "/configuration/instrument/subarray/layout"
OPTICS = "/configuration/instrument/telescope/optics"
CAMERA = "/configuration/instrument/telescope/camera"
SCHEDULING_BLOCK = "/configuration/observation/scheduling_block"
OBSERVATION_BLOCK = "/configuration/observation/observation_block"


class Column(NamedTuple):
    """One column of a table.

    `field` is the name of the container field in ctapipe, where a prefix makes the column's name longer; `enum` the
    class in ``ctapipe.containers`` whose values an integer column holds.
    """

    name: str
    dtype: str
    unit: str = ""
    description: str = ""
    field: str = ""
    enum: str = ""
    shape: tuple[int, ...] = ()


def _time(name: str, description: str) -> Column:
    return Column(name, "u4", "ctao_high_res", description, shape=(2,))


OBS_EVENT = (Column("obs_id", "i4", "", "Observation Block ID"), Column("event_id", "i8", "", "Array Event ID"))
OBS_EVENT_TEL = (*OBS_EVENT, Column("tel_id", "i2", "", "Telescope ID"))
EVENT_TYPE = Column("event_type", "i8", "", "Event type", enum="EventType")


def trigger_columns(n_telescopes: int) -> tuple[Column, ...]:
    """/dl1/event/subarray/trigger."""
    mask = Column("tels_with_trigger", "?", "tel_list_to_mask", "Telescopes that triggered", shape=(n_telescopes,))
    return (*OBS_EVENT, _time("time", "central average time stamp"), mask, EVENT_TYPE)


TEL_TRIGGER_COLUMNS = (
    *OBS_EVENT_TEL,
    _time("time", "Telescope trigger time"),
    EVENT_TYPE,
    Column("n_trigger_pixels", "i8", "", "Number of trigger groups (sectors) listed"),
)


def image_columns(n_pixels: int) -> tuple[Column, ...]:
    """/dl1/event/telescope/images/tel_NNN."""
    shape = (n_pixels,)
    return (
        *OBS_EVENT_TEL,
        Column("image", "f4", "", "Charge per pixel [p.e.]", shape=shape),
        Column("peak_time", "f4", "", "Time of the pulse per pixel [ns]", shape=shape),
        Column("image_mask", "?", "", "True where the pixel has passed cleaning", shape=shape),
        Column("is_valid", "?", "", "True if image extraction succeeded"),
    )


def waveform_columns(n_pixels: int, n_samples: int) -> tuple[Column, ...]:
    """/r1/event/telescope/tel_NNN, of the one gain channel that is kept."""
    return (
        *OBS_EVENT_TEL,
        Column("event_type", "i8", "", "type of event", enum="EventType"),
        _time("event_time", "event timestamp"),
        Column("waveform", "f4", "", "Calibrated samples [p.e.]", shape=(1, n_pixels, n_samples)),
        Column("pixel_status", "u1", "", "ctapipe's PixelStatus: 4 high gain stored, 0 broken", shape=(n_pixels,)),
        Column("selected_gain_channel", "i1", "", "0: high gain", shape=(n_pixels,)),
    )


def shower_distribution_columns(n_energies: int, n_distances: int) -> tuple[Column, ...]:
    """/simulation/service/shower_distribution."""
    return (
        Column("obs_id", "i4", "", "Observation Block ID"),
        Column("hist_id", "i8", "", "Histogram ID"),
        Column("n_entries", "i8", "", "Number of entries in the histogram"),
        Column("bins_energy", "f8", "TeV", "edges of the energy bins", shape=(n_energies + 1,)),
        Column("bins_core_dist", "f8", "m", "edges of the core distance bins", shape=(n_distances + 1,)),
        Column("histogram", "f8", "", "showers thrown", shape=(n_energies, n_distances)),
    )


def true_image_columns(n_pixels: int) -> tuple[Column, ...]:
    """/simulation/event/telescope/images/tel_NNN."""
    return (
        *OBS_EVENT_TEL,
        Column("true_image_sum", "i4", "", "Total number of detected Cherenkov photons in the camera"),
        Column("true_image", "i4", "", "Photo-electrons per pixel before noise", shape=(n_pixels,)),
    )


IMPACT_COLUMNS = (
    *OBS_EVENT_TEL,
    Column("true_impact_distance", "f8", "m", "distance of the telescope to the shower axis", "distance"),
    Column("true_impact_distance_uncert", "f8", "m", "uncertainty in impact_parameter", "distance_uncert"),
)

SHOWER_COLUMNS = (
    *OBS_EVENT,
    Column("true_energy", "f8", "TeV", "Simulated Energy", "energy"),
    Column("true_alt", "f8", "deg", "Simulated altitude", "alt"),
    Column("true_az", "f8", "deg", "Simulated azimuth", "az"),
    Column("true_core_x", "f8", "m", "Simulated core position (x)", "core_x"),
    Column("true_core_y", "f8", "m", "Simulated core position (y)", "core_y"),
    Column("true_h_first_int", "f8", "m", "Height of first interaction", "h_first_int"),
    Column("true_x_max", "f8", "g.cm**-2", "Simulated Xmax value", "x_max"),
    Column("true_starting_grammage", "f8", "g.cm**-2", "Grammage where the particle started", "starting_grammage"),
    Column(
        "true_shower_primary_id",
        "i8",
        "",
        "0 (gamma), 1(e-), 2(mu-), 100*A+Z for nuclei, negative for antimatter",
        "shower_primary_id",
    ),
    # Ours: which events are uses of one shower. ctapipe's readers pass over it, its merge tool keeps it.
    Column("shower_id", "i8", "", "Number of the shower within the run; reused showers have several events"),
)

#: `EventChunk.truth` and `ImageChunk.truth` names of the shower table's columns.
TRUTH_COLUMNS = {
    "true_energy": "true_energy_tev",
    "true_alt": "true_alt_deg",
    "true_az": "true_az_deg",
    "true_core_x": "true_core_x_m",
    "true_core_y": "true_core_y_m",
    "true_h_first_int": "true_h_first_int_m",
    "true_x_max": "true_x_max_g_cm2",
    "true_starting_grammage": "true_starting_grammage_g_cm2",
    "true_shower_primary_id": "true_primary_id",
}


def _parameter(prefix: str, fields: Sequence[tuple[str, str, str]]) -> list[Column]:
    return [Column(f"{prefix}_{name}", dtype, unit, "", name) for name, dtype, unit in fields]


_HILLAS = (
    ("intensity", "f8", ""), ("skewness", "f8", ""), ("kurtosis", "f8", ""), ("fov_lon", "f8", "deg"),
    ("fov_lat", "f8", "deg"), ("r", "f8", "deg"), ("phi", "f8", "deg"), ("length", "f8", "deg"),
    ("length_uncertainty", "f8", "deg"), ("width", "f8", "deg"), ("width_uncertainty", "f8", "deg"),
    ("psi", "f8", "deg"), ("psi_uncertainty", "f8", "deg"), ("transverse_cog_uncertainty", "f8", "deg"),
)  # fmt: skip
_TIMING = (("intercept", "f8", ""), ("deviation", "f8", ""), ("slope", "f8", "deg**-1"))
_LEAKAGE = ("pixels_width_1", "pixels_width_2", "intensity_width_1", "intensity_width_2")
_CONCENTRATION = (("cog", "f8", ""), ("core", "f8", ""), ("pixel", "f8", ""))
_MORPHOLOGY = tuple(
    (name, "i8", "") for name in ("n_pixels", "n_islands", "n_small_islands", "n_medium_islands", "n_large_islands")
)
_STATISTICS = ("max", "min", "mean", "std")


def _image_parameters(measured: bool) -> tuple[Column, ...]:
    # Of a measured image some are float32 because its charges are; of a true one they follow from integers.
    leakage = zip(_LEAKAGE, ("f8", "f8", "f4", "f4") if measured else ("f8",) * 4, ("",) * 4, strict=True)
    types = ("f4",) * 4 if measured else ("i4", "i4", "f8", "f8")
    moments = (("skewness", "f8", ""), ("kurtosis", "f8", ""))
    statistics = (*zip(_STATISTICS, types, ("",) * 4, strict=True), *moments)
    prefix = "" if measured else "true_"
    columns = _parameter(f"{prefix}hillas", _HILLAS)
    if measured:
        columns += _parameter("timing", _TIMING)
    columns += _parameter(f"{prefix}leakage", tuple(leakage))
    columns += _parameter(f"{prefix}concentration", _CONCENTRATION)
    columns += _parameter(f"{prefix}morphology", _MORPHOLOGY)
    columns += _parameter(f"{prefix}intensity", statistics)
    if measured:
        columns += _parameter("peak_time", statistics)
        columns += _parameter("core", (("psi", "f8", "deg"),))
    return (*OBS_EVENT_TEL, *columns)


PARAMETER_COLUMNS = _image_parameters(measured=True)
TRUE_PARAMETER_COLUMNS = _image_parameters(measured=False)

POINTING_COLUMNS = (
    Column("obs_id", "i4", "", "Observation Block ID"),
    Column("tel_id", "i8", "", "Telescope ID"),
    Column("telescope_pointing_azimuth", "f4", "rad", "Azimuth, measured N->E", "azimuth"),
    Column("telescope_pointing_altitude", "f4", "rad", "Altitude", "altitude"),
)
MONITORED_POINTING_COLUMNS = (
    _time("time", "Time of the drive's report"),
    Column("azimuth", "f8", "rad", "Azimuth, measured N->E"),
    Column("altitude", "f8", "rad", "Altitude"),
)

SCHEDULING_COLUMNS = (
    Column("sb_id", "u8", "", "Scheduling block ID"),
    Column("sb_type", "i8", "", "Type of scheduling block", enum="SchedulingBlockType"),
    Column("producer_id", "S10", "", "Origin of the sb_id, i.e. name of the telescope site or 'simulation'"),
    Column("observing_mode", "i8", "", "How observations are distributed in space", enum="ObservingMode"),
    Column("pointing_mode", "i8", "", "How the telescope drives move", enum="PointingMode"),
)
OBSERVATION_COLUMNS = (
    Column("obs_id", "u8", "", "Observation Block ID"),
    Column("sb_id", "u8", "", "ID of the parent SchedulingBlock"),
    Column("producer_id", "S10", "", "Origin of the obs_id, i.e. name of the telescope site or 'simulation'"),
    Column("state", "i8", "", "State of this OB", enum="ObservationBlockState"),
    Column("subarray_pointing_lat", "f4", "deg", "latitude of the nominal center coordinate of this observation"),
    Column("subarray_pointing_lon", "f4", "deg", "longitude of the nominal center coordinate of this observation"),
    Column("subarray_pointing_frame", "i8", "", "Frame of the subarray pointing", enum="CoordinateFrameType"),
    Column("scheduled_duration", "f8", "min", "expected duration from scheduler"),
    Column("scheduled_start_time", "f8", "mjd", "expected start time from scheduler"),
    Column("actual_start_time", "f8", "mjd", "true start time"),
    Column("actual_duration", "f8", "min", "true duration"),
)

SIMULATION_RUN_COLUMNS = (
    Column("obs_id", "i4", "", "Simulation Run Identifier"),
    Column("run_number", "i4", "", "Original run number"),
    Column("corsika_version", "i8", "", "CORSIKA version * 1000"),
    Column("simtel_version", "i8", "", "sim_telarray version * 1000"),
    Column("energy_range_min", "f4", "TeV", "Lower limit of energy range of primary particle"),
    Column("energy_range_max", "f4", "TeV", "Upper limit of energy range of primary particle"),
    Column("prod_site_B_total", "f8", "uT", "total geomagnetic field"),
    Column("prod_site_B_declination", "f8", "rad", "magnetic declination"),
    Column("prod_site_B_inclination", "f8", "rad", "magnetic inclination"),
    Column("prod_site_alt", "f8", "m", "height of observation level"),
    Column("spectral_index", "f8", "", "Power-law spectral index of spectrum"),
    Column("shower_prog_start", "i8", "", "Time when shower simulation started, CORSIKA: only date"),
    Column("shower_prog_id", "i8", "", "CORSIKA=1, ALTAI=2, KASCADE=3, MOCCA=4"),
    Column("detector_prog_start", "i8", "", "Time when detector simulation started"),
    Column("detector_prog_id", "i8", "", "simtelarray=1"),
    Column("n_showers", "i8", "", "Number of showers simulated"),
    Column("shower_reuse", "i8", "", "Numbers of uses of each shower"),
    Column("max_alt", "f4", "rad", "Maximum shower altitude"),
    Column("min_alt", "f4", "rad", "Minimum shower altitude"),
    Column("max_az", "f4", "rad", "Maximum shower azimuth"),
    Column("min_az", "f4", "rad", "Minimum shower azimuth"),
    Column("diffuse", "i8", "", "Diffuse Mode On/Off"),
    Column("max_viewcone_radius", "f4", "deg", "Maximum viewcone radius"),
    Column("min_viewcone_radius", "f4", "deg", "Minimum viewcone radius"),
    Column("max_scatter_range", "f4", "m", "Maximum scatter range"),
    Column("min_scatter_range", "f4", "m", "Minimum scatter range"),
    Column("core_pos_mode", "i8", "", "Core Position Mode (0=Circular, 1=Rectangular)"),
    Column("atmosphere", "i8", "", "Atmospheric model number"),
    Column("corsika_iact_options", "i8", "", "CORSIKA simulation options for IACTs"),
    Column("corsika_low_E_model", "i8", "", "CORSIKA low-energy simulation physics model"),
    Column("corsika_high_E_model", "i8", "", "CORSIKA physics model ID for high energies"),
    Column("corsika_bunchsize", "f8", "", "Number of Cherenkov photons per bunch"),
    Column("corsika_wlen_min", "f8", "nm", "Minimum wavelength of cherenkov light"),
    Column("corsika_wlen_max", "f8", "nm", "Maximum wavelength of cherenkov light"),
    Column("corsika_low_E_detail", "i8", "", "More details on low E interaction model (version etc.)"),
    Column("corsika_high_E_detail", "i8", "", "More details on high E interaction model (version etc.)"),
)

GEOMETRY_COLUMNS = (
    Column("pix_id", "i8"),
    Column("pix_x", "f8", "m"),
    Column("pix_y", "f8", "m"),
    Column("pix_area", "f8", "m**2"),
)


def layout_columns(width: int) -> tuple[Column, ...]:
    """/configuration/instrument/subarray/layout; `width` is that of the longest name."""
    text = f"S{width}"
    return (
        Column("tel_id", "u2"), Column("name", text), Column("type", "S3"), Column("pos_x", "f4", "m"),
        Column("pos_y", "f4", "m"), Column("pos_z", "f4", "m"), Column("camera_name", text),
        Column("optics_name", text), Column("camera_index", "i8"), Column("optics_index", "i8"),
        Column("tel_description", f"S{2 * width + 5}"),
    )  # fmt: skip


def optics_columns(width: int) -> tuple[Column, ...]:
    """/configuration/instrument/telescope/optics; `width` is that of the longest name."""
    text = f"S{width}"
    return (
        Column("optics_name", text), Column("size_type", "S3"), Column("reflector_shape", "S20"),
        Column("mirror_area", "f8", "m**2"), Column("n_mirrors", "i8"), Column("n_mirror_tiles", "i8"),
        Column("equivalent_focal_length", "f8", "m"), Column("effective_focal_length", "f8", "m"),
    )  # fmt: skip


def readout_columns(n_channels: int) -> tuple[Column, ...]:
    """/configuration/instrument/telescope/camera/readout_N."""
    shapes = [Column(f"reference_pulse_shape_channel{channel}", "f8") for channel in range(n_channels)]
    return (*shapes, Column("reference_pulse_sample_time", "f8", "ns"))


def row_dtype(columns: Sequence[Column], obs_id_type: str = "i4") -> np.dtype:
    """Structured type of a table's rows; `obs_id_type` of the columns with the number of a run."""
    types = dict.fromkeys(("obs_id", "run_number"), obs_id_type)
    return np.dtype(
        [
            (column.name, types.get(column.name, column.dtype) if column.dtype == "i4" else column.dtype, column.shape)
            for column in columns
        ]
    )


def column_attributes(columns: Sequence[Column]) -> dict[str, Any]:
    """HDF5 attributes with units, times, enumerations and strings for ctapipe's reader."""
    attributes: dict[str, Any] = {}
    for position, column in enumerate(columns):
        prefix = f"CTAFIELD_{position}_"
        attributes |= {prefix + key: value for key, value in _transform(column).items()}
        attributes[prefix + "NAME"] = column.field or column.name
        if column.description:
            attributes[prefix + "DESC"] = column.description
    return attributes


def _transform(column: Column) -> dict[str, Any]:
    if column.enum:
        # PyTables keeps a class as its pickled name. Written as bytes, so that ctapipe need not be imported here.
        return {"TRANSFORM": "enum", "ENUM": np.bytes_(f"cctapipe.containers\n{column.enum}\np0\n.")}
    if column.unit == "tel_list_to_mask":
        return {"TRANSFORM": "tel_list_to_mask"}
    if column.unit in ("ctao_high_res", "mjd"):
        return {"TRANSFORM": "time", "TIME_FORMAT": column.unit, "TIME_SCALE": "tai"}
    if column.unit:
        return {"TRANSFORM": "quantity", "UNIT": column.unit}
    if column.dtype.startswith("S"):
        return {"TRANSFORM": "string", "MAXLEN": int(column.dtype[1:])}
    return {}
