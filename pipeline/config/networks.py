"""Section `networks`: which networks an experiment trains, on which input, for which tasks, and how."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.config.base import Section, refuse_switch
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
    """A network's architecture, by name."""

    name: str = Field(description="Name of the architecture; `lightpool models list` shows all.")
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the architecture's constructor, passed on unchanged."
    )


class AugmentationConfig(Section):
    """Random changes of training images. `true` stands for the defaults, `false` for no changes."""

    mirror: bool = Field(True, description="Mirror images in x.")
    rotation: Literal["none", "quarters", "sixths"] = Field(
        "quarters",
        description="Rotate by multiples of a quarter turn (quarters) or of 60 degrees (sixths, for hexagonal "
        "cameras; it blurs the image), or not at all (none).",
    )
    shift_px: int = Field(0, ge=0, description="Largest shift in each direction, in whole tile pixels.")
    scale: float = Field(
        0.0, ge=0, lt=1, description="Largest relative change of the image size; charge is kept, the image is blurred."
    )

    drop_telescopes: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Input shower: probability with which a telescope is left out of an event; two remain.",
    )

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else {"mirror": False, "rotation": "none", "drop_telescopes": 0}
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
    """One network: its input, its tasks, and how it is trained. It becomes one bundle."""

    input: str = Field("", description="Kind of input. Empty: the kind that the task of the first head is made for.")
    camera: str | None = Field(
        None,
        description="Camera whose tiles it is trained on, where these are of several: its name, telescope type (LST, "
        "MST, SST) or identity. null: all tiles; a network of single images then needs tiles of one camera.",
    )
    heads: dict[str, SerializeAsAny[HeadOptions]] = Field(
        min_length=1,
        description="Tasks of the network, one head each: a list, or {task: {options}}.",
    )
    model: ModelConfig = Field(description="The architecture.")
    scalars: tuple[str, ...] = Field(
        (),
        description="Numbers per image that join the features before the heads; hillas: the usual image parameters.",
    )
    axis_maps: bool = Field(
        True,
        description="Camera images: whether the network is also told where each pixel lies along the long axis of the "
        "image, as two more channels.",
    )
    start_from: tuple[str, ...] = Field(
        (),
        description="Bundle whose weights the training starts from (fine-tuning), by path or name; input shower: one "
        "of single images for each camera, whose encoders are taken over. Empty: random weights.",
    )
    freeze: Annotated[int, Field(ge=0)] | Literal["features"] = Field(
        0,
        description="With start_from: number of feature levels that keep their weights, or features: everything but "
        "the heads keeps them.",
    )
    epochs: int = Field(12, ge=1, description="Number of passes through the training tiles.")
    batch_size: int = Field(32, ge=1, description="Number of tiles per step; input shower: of events.")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="adamw, or sgd, which needs learning rates of 0.01 to 0.1."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    nesterov: bool = Field(False, description="Whether sgd uses Nesterov momentum.")
    learning_rate: float = Field(4e-3, gt=0, description="Highest learning rate; linear warm-up, then cosine decay.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of the optimizer.")
    warmup_fraction: float = Field(
        0.05, ge=0, lt=1, description="Fraction of the steps for the warm-up of the learning rate."
    )
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of the gradient; larger ones are scaled down.")
    augmentation: AugmentationConfig = Field(
        AugmentationConfig(),
        description="Random changes of training images. true: the defaults below; false: no changes.",
    )
    average_decay: float = Field(
        0.995,
        ge=0,
        lt=1,
        description="Decay per step of the running average of the weights, which is what is saved. 0: the weights of "
        "the last step are saved.",
    )
    early_stopping_patience: int = Field(
        6, ge=1, description="Number of epochs without a better validation metric after which training stops."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="float32, bfloat16, or auto: bfloat16 if the processor is faster with it."
    )
    compile: bool = Field(
        False,
        description="Whether torch compiles the network for its training: a minute or more at the start, fewer and "
        "larger GPU kernels after it. Needs a C++ compiler. The last bits of the weights change.",
    )

    @model_validator(mode="before")
    @classmethod
    def _input_of_the_heads(cls, value: Any) -> Any:
        """An empty `input` becomes the kind that the task of the first head is made for."""
        heads = value.get("heads") if isinstance(value, dict) else None
        if isinstance(heads, list | tuple | dict) and heads and not value.get("input"):
            return value | {"input": get_spec(next(iter(heads))).input}
        return value

    @field_validator("heads", mode="before")
    @classmethod
    def _options_of_the_tasks(cls, value: Any, info: ValidationInfo) -> Any:
        """A list of tasks, or a mapping of tasks to options; each task declares the options that it has."""
        if isinstance(value, list | tuple):
            value = dict.fromkeys(value)
        if not isinstance(value, dict):
            raise ValueError("Input should be a list of tasks, or a mapping of tasks to their options")
        heads = {}
        for task, options in value.items():
            schema = get_spec(task).options
            if isinstance(options, schema):
                heads[task] = options
                continue
            if not isinstance(options, dict | None):
                raise ValueError(f"{task}: Input should be a mapping of options")
            for name, option in (options or {}).items():
                if name in schema.model_fields:
                    refuse_switch(schema.model_fields[name].annotation, option, f"{task}: {name}: ")
            try:
                heads[task] = schema.model_validate(schema.defaults(info.data.get("input", "")) | (options or {}))
            except ValidationError as error:
                raise ValueError(f"{task}: {first_problem(error, schema)}") from error
        return heads

    @field_validator("scalars", mode="before")
    @classmethod
    def _named_set(cls, value: Any) -> Any:
        """`hillas` stands for the usual image parameters."""
        return HILLAS_SCALARS if value == "hillas" else value

    @field_validator("start_from", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """A name alone, or none."""
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("freeze", mode="before")
    @classmethod
    def _levels_or_all(cls, value: Any) -> Any:
        if value == "features" or (type(value) is int and value >= 0):
            return value
        raise ValueError("Input should be a number of levels of features, 0 or more, or 'features' for all of them")

    @model_validator(mode="after")
    def _makes_sense(self) -> "NetworkConfig":
        if len(self.start_from) > 1 and self.input != "shower":
            raise ValueError(f"start_from names {len(self.start_from)} bundles, and the input {self.input} takes one")
        if self.freeze and not self.start_from:
            raise ValueError(f"freeze {self.freeze} would keep weights that were never trained; set start_from as well")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if len({(spec.wing, spec.gives) for spec in self.specs}) > 1:
            kinds = ", ".join(f"{spec.name}: a {spec.gives} of the {spec.wing}" for spec in self.specs)
            raise ValueError(f"heads of one network share the wing and give all vectors or all maps, got {kinds}")
        if self.camera is not None and self.wing != "camera":
            raise ValueError(f"camera {self.camera!r} chooses among camera tiles, and the heads are of the {self.wing}")
        return self

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks of the heads, in their order."""
        return tuple(get_spec(task) for task in self.heads)

    @property
    def wing(self) -> str:
        """Camera or sky: the tiles that it is trained on."""
        return self.specs[0].wing


#: Networks of an experiment that names none. A network that an experiment gives one of these names starts from them.
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
    "direction": NetworkConfig(
        heads=["direction"],
        model=ModelConfig(name="resnet18", kwargs={"width": 16, "stem": "imagenet"}),
        scalars=HILLAS_SCALARS,
    ),
    "denoise": NetworkConfig(
        heads=["denoise"],
        model=ModelConfig(name="conv_autoencoder", kwargs={"width": 32, "depth": 1, "skips": True}),
        epochs=25,
        # A tile has thousands of pixels to learn from: many steps on few tiles are better than few steps on many.
        batch_size=4,
        learning_rate=5e-3,
    ),
}
