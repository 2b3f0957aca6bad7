"""Section `networks`: which networks an experiment trains, on what, for which tasks, and how."""

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from pipeline.config.base import Section
from pipeline.config.merge import first_problem
from pipeline.tasks import get_spec
from pipeline.tasks.spec import HeadOptions, TaskSpec

HILLAS_SCALARS = (
    "log10_hillas_intensity", "log10_hillas_density", "hillas_length", "hillas_width", "hillas_width_over_length",
    "hillas_r", "hillas_miss", "hillas_skewness_outward", "hillas_kurtosis", "timing_slope_outward",
    "concentration_cog", "concentration_core", "concentration_pixel", "leakage_intensity_width_2", "n_islands",
    "log10_n_pixels",
)  # fmt: skip


class ModelConfig(Section):
    """A network's architecture by name; `kwargs` reach its constructor unchanged."""

    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class AugmentationConfig(Section):
    """Random changes of a training image. `true` stands for the defaults, `false` for none."""

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
        """Whether anything is changed."""
        return self.turns or self.interpolates or self.shift_px > 0


class NetworkConfig(Section):
    """One network: what it is given, what it is trained for, and how. It becomes one bundle."""

    input: str = ""
    heads: dict[str, SerializeAsAny[HeadOptions]] = Field(min_length=1)
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
    augmentation: AugmentationConfig = AugmentationConfig()
    average_decay: float = Field(
        0.995, ge=0, lt=1, description="of the weights' running average; 0 keeps the last step's"
    )
    early_stopping_patience: int = Field(6, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _input_of_the_heads(cls, value: Any) -> Any:
        """Without `input`, the kind that the first head's task is made for."""
        heads = value.get("heads") if isinstance(value, dict) else None
        if isinstance(heads, list | tuple | dict) and heads and not value.get("input"):
            return value | {"input": get_spec(next(iter(heads))).inputs[0]}
        return value

    @field_validator("heads", mode="before")
    @classmethod
    def _options_of_the_tasks(cls, value: Any) -> Any:
        """A list of tasks, or task -> its options; each task declares the options that it has."""
        if isinstance(value, list | tuple):
            value = dict.fromkeys(value)
        if not isinstance(value, dict):
            raise ValueError("Input should be a list of tasks, or task: {options}")
        heads = {}
        for task, options in value.items():
            schema = get_spec(task).options
            if isinstance(options, schema):
                heads[task] = options
                continue
            try:
                heads[task] = schema.model_validate(options or {})
            except ValidationError as error:
                raise ValueError(f"{task}: {first_problem(error, schema)}") from error
        return heads

    @field_validator("freeze", mode="before")
    @classmethod
    def _levels_or_all(cls, value: Any) -> Any:
        if value == "features" or (type(value) is int and value >= 0):
            return value
        raise ValueError("Input should be a number of levels of features from 0, or features for all of them")

    @model_validator(mode="after")
    def _makes_sense(self) -> "NetworkConfig":
        if self.freeze and self.start_from is None:
            raise ValueError(f"freeze {self.freeze} would keep weights that were never trained; set start_from as well")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        for spec in self.specs:
            if self.input not in spec.inputs:
                raise ValueError(
                    f"the head {spec.name} takes the input {' or '.join(spec.inputs)}, not {self.input}; put it into a "
                    "network of its own"
                )
        if len({spec.gives for spec in self.specs}) > 1:
            kinds = ", ".join(f"{spec.name}: {spec.gives}" for spec in self.specs)
            raise ValueError(f"heads of one network all give vectors or all give maps, got {kinds}")
        return self

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks of the heads, in their order."""
        return tuple(get_spec(task) for task in self.heads)

    @property
    def wing(self) -> str:
        """Camera or sky: whose tiles it is trained on."""
        return self.specs[0].wing


#: Networks of an experiment that names none; one that names some starts from these where it uses their names.
DEFAULT_NETWORKS = {
    "energy": NetworkConfig(
        heads=["energy"],
        model=ModelConfig(name="resnet18", kwargs={"width": 16, "stem": "imagenet"}),
        scalars=HILLAS_SCALARS,
    ),
    "gammaness": NetworkConfig(
        heads=["gammaness"],
        model=ModelConfig(name="resnet18", kwargs={"width": 16, "stem": "imagenet"}),
        scalars=HILLAS_SCALARS,
    ),
    "denoise": NetworkConfig(
        heads=["denoise"],
        model=ModelConfig(name="conv_autoencoder", kwargs={"width": 32, "depth": 1, "skips": True}),
        epochs=25,
        # A tile holds thousands of pixels to learn from: many steps on few tiles beat few steps on many.
        batch_size=4,
        learning_rate=5e-3,
    ),
}
