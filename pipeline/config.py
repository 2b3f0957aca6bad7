"""The typed configuration: one YAML file per experiment, one section per stage.

Every key has its default here; `configs/default.yaml` lists and explains all of them (a test holds the two
together), and an experiment's file names only what it changes. An unknown key is an error that says where it
stands and which keys are accepted.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UserError

CAMERA_TASKS = ("energy", "gammaness")
SKY_TASKS = ("denoise",)
TASKS = CAMERA_TASKS + SKY_TASKS
_FOLDER_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # neither . nor .., nor taken for an option


class Section(BaseModel):
    """A section of the configuration: immutable; unknown keys are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ---- where the events and frames come from ---------------------------------------------------------------------------
class ShowerClass(Section):
    """One kind of primary particle and the runs simulated of it."""

    particle: Literal["gamma", "electron", "muon", "proton", "helium"]
    runs: int = Field(8, ge=0)
    showers_per_run: int = Field(150, ge=1)
    energy_min_tev: float = Field(0.05, gt=0)
    energy_max_tev: float = Field(10.0, gt=0, le=300)
    spectral_index: float = -2.0
    scatter_radius_m: float = Field(300.0, gt=0)
    viewcone_deg: float = Field(2.0, ge=0, le=30, description="0: a point source")
    offset_deg: float = Field(0.0, ge=0, le=30, description="centre of the view cone, above the pointing")
    start_height_m: float | None = Field(None, gt=0, le=80e3, description="where it begins, above the site")

    @model_validator(mode="after")
    def _ordered(self) -> "ShowerClass":
        if self.energy_min_tev >= self.energy_max_tev:
            raise ValueError(f"energy_min_tev {self.energy_min_tev} is not below energy_max_tev {self.energy_max_tev}")
        return self


class TelescopePlace(Section):
    """One telescope of an array: its type and where its foot stands [m]."""

    type: str
    x_m: float = 0.0  # to the north
    y_m: float = 0.0  # to the west
    z_m: float = 0.0  # above the site's altitude


class Star(Section):
    """A star in the field of view: brighter night sky in the pixels that it lights."""

    fov_lon_deg: float  # towards larger azimuth
    fov_lat_deg: float  # towards larger altitude
    magnitude: float  # in B, where photomultipliers are sensitive


class CameraConditions(Section):
    """What is not perfect about the cameras, alike for all telescopes."""

    night_sky_factor: float = Field(1.0, ge=0, description="times the dark sky's rate of the telescope type")
    dead_pixel_fraction: float = Field(0.0, ge=0, lt=1)
    flat_field_rms: float = Field(0.0, ge=0, lt=1, description="spread of the gains that calibration has left")
    saturation: bool = True
    stars: tuple[Star, ...] = ()


class ShowersConfig(Section):
    """`lightpool simulate showers`: runs are numbered from 1 through `classes` in their order."""

    telescope: str = "LST"  # one of this type, unless there is an array
    array: tuple[TelescopePlace, ...] = ()
    min_telescopes: int = Field(1, ge=1, description="triggered telescopes that make an event (2: stereo)")
    geometry_files: dict[str, str] = {}  # telescope type: simtel or DL1 file with the camera to use for it
    camera: CameraConditions = CameraConditions()
    waveforms: bool = False  # write the calibrated waveforms of triggered telescopes, too (R1)
    positions_per_shower: int = Field(
        12, ge=1, le=100, description="places of the array thrown for each shower (shower reuse)"
    )
    zenith_deg: float = Field(20.0, ge=0, le=60)
    azimuth_deg: float = 180.0
    site_altitude_m: float = Field(2158.0, ge=0, le=10_000)
    magnetic_field_ut: tuple[float, float] = (30.6, 23.6)  # horizontal (north), vertical (down): La Palma
    min_true_pe: int = Field(
        30, ge=1, description="fewer photo-electrons in the camera are not worth a trigger decision"
    )
    classes: tuple[ShowerClass, ...] = ()

    @model_validator(mode="after")
    def _fits_the_array(self) -> "ShowersConfig":
        if self.min_telescopes > len(self.places):
            raise ValueError(f"min_telescopes is {self.min_telescopes}, the array has {len(self.places)}")
        types = {place.type for place in self.places}
        if unused := sorted(set(self.geometry_files) - types):
            raise ValueError(f"geometry_files names {unused[0]}; the array has {', '.join(sorted(types))}")
        return self

    @property
    def places(self) -> tuple[TelescopePlace, ...]:
        """The telescopes; number 1 is the first."""
        return self.array or (TelescopePlace(type=self.telescope),)

    @property
    def n_runs(self) -> int:
        """Total number of runs over all classes."""
        return sum(entry.runs for entry in self.classes)

    def class_of_run(self, run: int) -> ShowerClass:
        """The class that run number `run` (1-based) belongs to."""
        left = run
        for entry in self.classes:
            if 1 <= left <= entry.runs:
                return entry
            left -= entry.runs
        raise UserError(f"there is no shower run {run}; the configuration defines runs 1 to {self.n_runs}")


class SkyDefect(Section):
    """A further defect of simulated frames: a class that `pipeline.sky.defects` knows by its name."""

    name: str
    bit: Literal["bad", "hot", "cosmic_ray", "trail", "bleed", "ghost"]  # of the truth mask
    kwargs: dict[str, Any] = {}


class SkySimulationConfig(Section):
    """`lightpool simulate sky`: one long-exposure frame per run, with its truth beside it."""

    runs: int = Field(0, ge=0)
    shape: tuple[int, int] = (384, 384)  # (rows, columns)
    exposure_s: float = Field(600.0, gt=0)
    pixel_scale_arcsec: float = Field(0.4, gt=0)
    fwhm_px: tuple[float, float] = (2.0, 4.5)  # drawn uniformly per frame
    sky_e_per_s: tuple[float, float] = (0.1, 2.0)  # per pixel, log-uniform per frame
    sky_gradient: float = Field(0.1, ge=0, description="relative change of the sky across the frame")
    gain_e_per_adu: tuple[float, float] = (1.0, 3.0)
    read_noise_e: tuple[float, float] = (3.0, 10.0)
    dark_e_per_s: float = Field(0.01, ge=0)
    bias_adu: float = 1000.0
    full_well_e: float = Field(120_000.0, gt=0)
    adc_max_adu: int = 65_535
    stars_per_frame: int = Field(150, ge=0)
    galaxies_per_frame: int = Field(40, ge=0)
    star_flux_e: tuple[float, float] = (300.0, 1.5e6)
    star_flux_slope: float = -1.6  # dN/dF ~ F^slope
    hot_pixel_fraction: float = Field(5e-4, ge=0, le=1)
    dead_pixel_fraction: float = Field(1e-4, ge=0, le=1)
    bad_columns: int = Field(1, ge=0)
    pixel_um: float = Field(15.0, gt=0)
    silicon_um: tuple[float, float] = (
        15.0,
        250.0,
    )  # detector thickness, log-uniform per frame: long tracks in thick ones
    cosmic_rays_per_mpix: float = Field(1500.0, ge=0, description="tracks per million pixels of the whole exposure")
    trails_per_frame: float = Field(0.3, ge=0)
    gap_fraction: float = Field(0.01, ge=0, lt=1)
    defects: tuple[SkyDefect, ...] = ()


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
    dq_bits: dict[int, int] = {}  # a foreign mask's bit -> ours; bits that are not listed mean 1 (bad pixel)
    background_box_px: int = Field(64, ge=8)


class CameraIngestConfig(Section):
    """How a simtel file is read (through ctapipe)."""

    allowed_telescopes: tuple[int, ...] = ()
    max_events: int | None = Field(None, ge=1)


class IngestConfig(Section):
    """`lightpool ingest`."""

    camera: CameraIngestConfig = CameraIngestConfig()
    sky: SkyIngestConfig = SkyIngestConfig()


# ---- tiles -----------------------------------------------------------------------------------------------------------
class SplitsConfig(Section):
    """Shares of the groups (showers or fields); chosen by hash, so that a group never changes sides."""

    train: float = Field(0.6, ge=0, le=1)
    validation: float = Field(0.15, ge=0, le=1)
    test: float = Field(0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "SplitsConfig":
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(f"train + validation + test is {self.train + self.validation + self.test:g}; it must be 1")
        return self


class CleaningConfig(Section):
    """Two-level tail-cut cleaning [p.e.]."""

    picture_pe: float = 6.0
    boundary_pe: float = 3.0
    min_picture_neighbors: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "CleaningConfig":
        if self.boundary_pe > self.picture_pe:
            raise ValueError(f"boundary_pe {self.boundary_pe} is above picture_pe {self.picture_pe}")
        return self


class CutsConfig(Section):
    """Quality cuts on the cleaned image; an image that fails is left out and counted."""

    size_min_pe: float = 50.0
    n_pixels_min: int = 5
    leakage_max: float = Field(0.2, description="largest share of the charge in the outermost pixel ring")


class CameraTilesConfig(Section):
    """Camera images to square tiles."""

    camera: str | None = Field(
        None,
        description="which camera of a file with several: its name, telescope type or identity; None: the commonest",
    )
    size: int = Field(56, ge=16)
    cleaning: CleaningConfig = CleaningConfig()
    cuts: CutsConfig = CutsConfig()


class SkyTilesConfig(Section):
    """Sky frames to tiles. `target`: truth (simulated frames), or pairs of one drifting field (Noise2Noise)."""

    size: int = Field(64, ge=32)
    stride: int = Field(64, ge=8)
    target: Literal["truth", "noise2noise"] = "truth"
    pair_max_residual_shift_px: float = Field(0.15, gt=0, description="pairs whose drift is this near to whole pixels")
    pairs_per_frame: int = Field(4, ge=1)


class WeightingConfig(Section):
    """Bins in which energy, offset and size are made alike between the classes."""

    energy_bins: int = Field(12, ge=1)
    offset_bins: int = Field(5, ge=1)
    size_bins: int = Field(12, ge=1)
    max_weight: float = Field(10.0, gt=1)


class TilesConfig(Section):
    """`lightpool tiles` and `lightpool manifest`."""

    splits: SplitsConfig = SplitsConfig()
    camera: CameraTilesConfig = CameraTilesConfig()
    sky: SkyTilesConfig = SkyTilesConfig()
    weighting: WeightingConfig = WeightingConfig()


# ---- training and use ------------------------------------------------------------------------------------------------
class ModelConfig(Section):
    """A network by name; `kwargs` reach its constructor unchanged."""

    name: str
    kwargs: dict[str, Any] = {}


HILLAS_SCALARS = (
    "log10_hillas_intensity", "log10_hillas_density", "hillas_length", "hillas_width", "hillas_width_over_length",
    "hillas_r", "hillas_miss", "hillas_skewness_outward", "hillas_kurtosis", "timing_slope_outward",
    "concentration_cog", "concentration_core", "concentration_pixel", "leakage_intensity_width_2", "n_islands",
    "log10_n_pixels",
)  # fmt: skip


class AugmentationConfig(Section):
    """What is done to a training image at random. `true` stands for the defaults, `false` for nothing."""

    mirror: bool = True
    rotation: Literal["none", "quarters", "sixths"] = "quarters"
    shift_px: int = Field(0, ge=0, description="largest shift in each direction, in whole tile pixels")
    scale: float = Field(0.0, ge=0, lt=1, description="largest relative change of the image's size")

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else {"mirror": False, "rotation": "none"}
        return value

    @property
    def turns(self) -> bool:
        """Whether images change their orientation."""
        return self.mirror or self.rotation != "none"

    @property
    def interpolates(self) -> bool:
        """Whether pixels are mixed with their neighbours."""
        return self.rotation == "sixths" or self.scale > 0

    @property
    def active(self) -> bool:
        """Whether anything is done."""
        return self.turns or self.interpolates or self.shift_px > 0


class TaskConfig(Section):
    """How one task is trained."""

    model: ModelConfig
    scalars: tuple[str, ...] = ()
    start_from: str | None = Field(None, description="bundle whose weights the training starts from")
    freeze: int | str = Field(0, description="levels of features that keep their weights, or `features`: all of them")
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(32, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(False, description="of sgd")
    learning_rate: float = Field(4e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    gradient_clip: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of gammaness")
    augmentation: AugmentationConfig = AugmentationConfig()
    average_decay: float = Field(
        0.995, ge=0, lt=1, description="of the weights' running average; 0 keeps the last step's"
    )
    early_stopping_patience: int = Field(6, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    predict_uncertainty: bool = True

    @field_validator("freeze", mode="before")
    @classmethod
    def _levels_or_all(cls, value: Any) -> Any:
        if value == "features" or (type(value) is int and value >= 0):
            return value
        raise ValueError("Input should be a number of levels of features from 0, or features for all of them")

    @model_validator(mode="after")
    def _makes_sense(self) -> "TaskConfig":
        if self.freeze and self.start_from is None:
            raise ValueError(f"freeze {self.freeze} would keep weights that were never trained; set start_from, too")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class TrainConfig(Section):
    """`lightpool train --task TASK`."""

    energy: TaskConfig = TaskConfig(
        model=ModelConfig(name="resnet18", kwargs={"width": 16, "stem": "imagenet"}), scalars=HILLAS_SCALARS
    )
    gammaness: TaskConfig = TaskConfig(
        model=ModelConfig(name="resnet18", kwargs={"width": 16, "stem": "imagenet"}), scalars=HILLAS_SCALARS
    )
    denoise: TaskConfig = TaskConfig(
        model=ModelConfig(name="conv_autoencoder", kwargs={"width": 32, "depth": 1, "skips": True}),
        epochs=25,
        # A tile holds thousands of pixels to learn from: many steps on few tiles beat few steps on many.
        batch_size=4,
        learning_rate=5e-3,
    )

    def task(self, name: str) -> TaskConfig:
        """The section of task `name`."""
        if name not in TASKS:
            raise UserError(f"unknown task {name!r}; accepted: {', '.join(TASKS)}")
        return getattr(self, name)


class EvaluateConfig(Section):
    """`lightpool evaluate`."""

    bootstrap: int = Field(500, ge=50)
    energy_edges_tev: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0)
    size_cuts_pe: tuple[float, ...] = (50.0, 100.0, 200.0, 500.0)  # gammaness is also judged above each of them
    forest_trees: int = Field(200, ge=10)
    max_baseline_images: int = Field(100_000, ge=100)


class PredictConfig(Section):
    """`lightpool predict` (in a workflow; on the command line the options speak)."""

    batch_size: int = Field(256, ge=1)
    tile_px: int = Field(512, ge=64)
    overlap_px: int = Field(96, ge=0)
    # Bundles that the workflow applies to the files of each wing: a task of this experiment, a path, or a name.
    uses: dict[Literal["camera", "sky"], tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _overlap_fits(self) -> "PredictConfig":
        if self.overlap_px >= self.tile_px:
            raise ValueError(f"overlap_px {self.overlap_px} is not below tile_px {self.tile_px}")
        return self


class ZooEntry(Section):
    """One network of a comparison.

    `label` names its row and its folder; by default the model's name. `train` sets keys of the task's section otherwise
    than for the rest (a network without normalisation wants another learning rate).
    """

    name: str
    label: str = Field("", pattern=rf"^({_FOLDER_NAME})?$")
    kwargs: dict[str, Any] = {}
    train: dict[str, Any] = {}

    @field_validator("train")
    @classmethod
    def _comparable(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "epochs" in value:
            raise ValueError("epochs are the same for all entries, zoo.epochs; leave them out")
        if "model" in value:
            raise ValueError("model is the entry's own name and kwargs; leave it out")
        return value

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("label"):
            return value | {"label": value.get("name", "")}
        return value


class ZooConfig(Section):
    """A comparison of networks, all trained on the same tiles for as long. Without entries there is none."""

    tasks: tuple[Literal["energy", "gammaness"], ...] = CAMERA_TASKS
    epochs: int = Field(4, ge=1)
    best: int = Field(3, ge=0, description="networks of each task, by validation, that are trained with further seeds")
    seeds: int = Field(3, ge=1, description="trainings of each of those, the first one included")
    entries: tuple[ZooEntry, ...] = ()

    @model_validator(mode="after")
    def _labels_differ(self) -> "ZooConfig":
        labels = [entry.label for entry in self.entries]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"{labels.count(label)} entries are labelled {label!r}; give each a label of its own")
        return self


class ReportConfig(Section):
    """`lightpool report`."""

    title: str = "lightpool report"
    validate_showers: bool = Field(False, description="compare the shower simulation with its references, too")


class Config(Section):
    """One experiment."""

    name: str = Field("default", pattern=rf"^{_FOLDER_NAME}$")
    description: str = ""
    seed: int = Field(1, ge=0)
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int = Field(2, ge=1)
    tasks: tuple[Literal["energy", "gammaness", "denoise"], ...] = TASKS
    inputs: InputsConfig = InputsConfig()
    showers: ShowersConfig = ShowersConfig()
    sky: SkySimulationConfig = SkySimulationConfig()
    ingest: IngestConfig = IngestConfig()
    tiles: TilesConfig = TilesConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    predict: PredictConfig = PredictConfig()
    zoo: ZooConfig = ZooConfig()
    report: ReportConfig = ReportConfig()


def zoo_config(cfg: Config, label: str, repeat: int = 0) -> Config:
    """The experiment that trains one entry of `cfg.zoo`: its network in the tasks' sections, and no zoo.

    Parameters
    ----------
    cfg : Config
    label : str
        Of the entry.
    repeat : int
        Which of its trainings, from 0: it is added to the seed.

    Raises
    ------
    UserError
        If there is no such entry, or it sets what is not accepted.
    """
    entries = {entry.label: entry for entry in cfg.zoo.entries}
    if label not in entries:
        raise UserError(f"the zoo has no entry {label!r}; it has {', '.join(entries) or 'none'}")
    entry = entries[label]
    content = cfg.model_dump(mode="json", exclude={"zoo"})
    content |= {"name": f"{cfg.name}_{label}", "seed": cfg.seed + repeat, "tasks": list(cfg.zoo.tasks)}
    for task in cfg.zoo.tasks:
        own = {"model": {"name": entry.name, "kwargs": entry.kwargs}, "epochs": cfg.zoo.epochs}
        content["train"][task] = _merge(content["train"][task], own | entry.train)
    try:
        return parse_config(content)
    except UserError as error:
        raise UserError(f"zoo entry {label!r}: {error}") from error


def load_config(path: str | Path) -> Config:
    """Read and check one configuration file.

    Raises
    ------
    UserError
        If the file cannot be read, is not YAML, has an unknown key or a value that is not accepted.
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of sections, not {type(content).__name__}")
    try:
        return parse_config(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse_config(content: dict[str, Any]) -> Config:
    """Check a mapping against the schema; sections that override part of a default keep the rest of it.

    Raises
    ------
    UserError
        Naming the first wrong key or value, and what is accepted there.
    """
    try:
        return Config.model_validate(_merge(Config().model_dump(mode="json"), content))
    except ValidationError as error:
        raise UserError(_first_problem(error)) from error


def _merge(default: Any, override: Any) -> Any:
    """Override mappings key by key. `kwargs` and `uses` are values of the user's, not sections: taken whole."""
    if not (isinstance(default, dict) and isinstance(override, dict)):
        return override
    merged = dict(default)
    for key, value in override.items():
        # Another model does not inherit the arguments of the default one.
        renamed = key == "model" and isinstance(value, dict) and "name" in value
        whole = renamed or key in ("kwargs", "uses") or key not in default
        merged[key] = value if whole else _merge(default[key], value)
    return merged


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        keys = list(_accepted_keys(problem["loc"][:-1]))
        near = difflib.get_close_matches(str(problem["loc"][-1]), keys, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key {where!r}{hint} accepted: {', '.join(keys)}" if keys else f"unknown key {where!r}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict) and problem["type"] == "value_error":
        return f"{where}: {message}"  # of a whole section: its own message says which values
    return f"{where}: {message}, got {problem['input']!r}" if where else message


def _accepted_keys(location: tuple[Any, ...]) -> Iterator[str]:
    model: Any = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next(
            (a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")),
            None,
        )
        if model is None:
            return
    yield from model.model_fields
