"""The typed configuration: one YAML file per experiment, one module here per group of sections.

Every key has its default and its description here. `configs/default.yaml` and the JSON schema for editors are generated
from them (`python -m pipeline.config.generate`; a test compares them). An experiment's file names only what it changes.
An unknown key is an error that says where it is and which keys are accepted.
"""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.config.base import FOLDER_NAME, Section
from pipeline.config.images import ImagesConfig
from pipeline.config.ingest import CameraIngestConfig, IngestConfig, InputsConfig, SkyIngestConfig
from pipeline.config.irf import HILLAS_RECONSTRUCTOR, IrfConfig, IrfShowers, offset_range_deg
from pipeline.config.merge import first_problem, merge
from pipeline.config.networks import (
    DEFAULT_NETWORKS,
    HILLAS_SCALARS,
    AugmentationConfig,
    ModelConfig,
    NetworkConfig,
)
from pipeline.config.showers import CameraConditions, ShowerClass, ShowersConfig, Star, TelescopePlace
from pipeline.config.sky import SkyDefect, SkySimulationConfig
from pipeline.config.tiles import (
    ALL_CAMERAS,
    CameraTilesConfig,
    CleaningConfig,
    CutsConfig,
    NoiseConfig,
    SkyTilesConfig,
    SplitsConfig,
    TilesConfig,
    WeightingConfig,
)
from pipeline.config.use import EvaluateConfig, PredictConfig, ReportConfig
from pipeline.config.zoo import ZooConfig, ZooEntry
from pipeline.documents import read_yaml
from pipeline.errors import UserError
from pipeline.provenance import sha256_json

__all__ = [
    "ALL_CAMERAS",
    "DEFAULT_NETWORKS",
    "HILLAS_RECONSTRUCTOR",
    "HILLAS_SCALARS",
    "AugmentationConfig",
    "CameraConditions",
    "CameraIngestConfig",
    "CameraTilesConfig",
    "CleaningConfig",
    "Config",
    "CutsConfig",
    "EvaluateConfig",
    "IngestConfig",
    "InputsConfig",
    "IrfConfig",
    "IrfShowers",
    "ModelConfig",
    "NetworkConfig",
    "NoiseConfig",
    "PredictConfig",
    "ReportConfig",
    "Section",
    "ShowerClass",
    "ShowersConfig",
    "SkyDefect",
    "SkyIngestConfig",
    "SkySimulationConfig",
    "SkyTilesConfig",
    "SplitsConfig",
    "Star",
    "TelescopePlace",
    "TilesConfig",
    "WeightingConfig",
    "ZooConfig",
    "ZooEntry",
    "digest_of",
    "load_config",
    "offset_range_deg",
    "parse_config",
    "sections_of",
    "zoo_config",
    "zoo_settings",
]  # fmt: skip


class Config(Section):
    """One experiment."""

    name: str = Field(
        "default", pattern=rf"^{FOLDER_NAME}$", description="Name of the experiment; results go to results/NAME."
    )
    description: str = Field("", description="One or two sentences for the report.")
    seed: int = Field(1, ge=0, description="Seed of all random numbers: simulation, splits, training and bootstrap.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Processor: auto, cpu, mps, cuda or cuda:N. auto: an accelerator, if present.",
    )
    threads: int = Field(
        2,
        ge=1,
        description="CPU threads of one training or evaluation. Another number can change the last bits of a result.",
    )
    checkpoint_minutes: float = Field(
        10.0,
        ge=0,
        description="Training: after how many minutes its state is saved within an epoch, besides after each. A run "
        "that is killed loses no more than that, and no result depends on it.",
    )
    backend: Literal["auto", "onnxruntime", "openvino", "cuda"] = Field(
        "auto",
        description="What computes trained networks. auto: CUDA, if the onnxruntime that is installed has it and finds "
        "a device; for sky frames else OpenVINO, if it is installed, the processor multiplies bfloat16 and the result "
        "is as good; else onnxruntime. Only the latter gives the same bits everywhere.",
    )
    inputs: InputsConfig = Field(
        InputsConfig(),
        description="Your own files, as glob patterns relative to the folder DATA (make run DATA=DIR).",
    )
    showers: ShowersConfig = Field(
        ShowersConfig(), description="Simulation of air showers and of the telescopes that see them."
    )
    sky: SkySimulationConfig = Field(
        SkySimulationConfig(),
        description="Simulation of long-exposure sky frames. From a range [low, high], a value is drawn per frame.",
    )
    ingest: IngestConfig = Field(
        IngestConfig(), description="How raw files become camera events and calibrated frames."
    )
    tiles: TilesConfig = Field(TilesConfig(), description="How events and frames become training tiles.")
    tasks: tuple[str, ...] = Field(
        (),
        description="Short form of the section networks: for each of these tasks its default network, and no others.",
    )
    networks: dict[str, NetworkConfig] = Field(
        DEFAULT_NETWORKS,
        description="The networks to train, by name; each becomes one model bundle. An experiment that has this "
        "section trains only the networks it names; those with the name of a default network start from its settings.",
    )
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="How trained networks are tested.")
    predict: PredictConfig = Field(PredictConfig(), description="How trained networks are applied to whole files.")
    images: ImagesConfig = Field(ImagesConfig(), description="Camera images that a network generates.")
    irf: IrfConfig = Field(IrfConfig(), description="Instrument response functions, by ctapipe's tools.")
    zoo: ZooConfig = Field(
        ZooConfig(),
        description="A comparison of networks, all trained on the same camera tiles for the same number of epochs.",
    )
    report: ReportConfig = Field(ReportConfig(), description="The HTML report.")

    @field_validator("networks")
    @classmethod
    def _names_are_folders(cls, value: dict[str, NetworkConfig]) -> dict[str, NetworkConfig]:
        for name in value:
            if not re.fullmatch(FOLDER_NAME, name):
                raise ValueError(
                    f"a network cannot be called {name!r}; accepted: letters, digits, _ and, not at the start, - and ."
                )
        return value

    @model_validator(mode="after")
    def _run_numbers_differ(self) -> "Config":
        if self.showers.n_runs >= IrfShowers.first_run:
            raise ValueError(
                f"showers.classes has {self.showers.n_runs} runs; runs from {IrfShowers.first_run} on are those of the "
                "section irf: use fewer runs of more showers"
            )
        return self

    def showers_of_run(self, run: int) -> ShowersConfig:
        """The section that run number `run` is simulated by: `showers`, or from 10001 on that of the classes of `irf`.

        The numbers of the two never meet, so that all randomness, which is drawn from (seed, run), differs.
        """
        of_responses = run >= IrfShowers.first_run and self.irf.classes
        return self.irf.showers(self.showers) if of_responses else self.showers

    def network(self, name: str) -> NetworkConfig:
        """The network called `name`.

        Raises
        ------
        UserError
            If the experiment has none of that name.
        """
        if name not in self.networks:
            accepted = ", ".join(self.networks) or "none, because the section networks is empty"
            raise UserError(f"the experiment has no network {name!r}; accepted: {accepted}")
        return self.networks[name]


def sections_of(cfg: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """Content of the named sections (``tiles.camera.cleaning``) or keys (``seed``) of an experiment."""
    chosen = {}
    for name in names:
        value: Any = cfg
        for key in name.split("."):
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        chosen[name] = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return chosen


def digest_of(cfg: Config, names: tuple[str, ...]) -> str:
    """SHA-256 of the named sections: it changes if and only if one of their keys changes."""
    return sha256_json(sections_of(cfg, names))


def zoo_config(cfg: Config, label: str, repeat: int = 0) -> Config:
    """The experiment that trains one entry of `cfg.zoo`: one network per task, named after the task, and no zoo.

    Parameters
    ----------
    cfg : Config
    label : str
        Label of the entry.
    repeat : int
        Number of the training, from 0; it is added to the seed.

    Raises
    ------
    UserError
        If the entry is unknown, or one of its values is not accepted.
    """
    entries = {entry.label: entry for entry in cfg.zoo.entries}
    if label not in entries:
        raise UserError(f"the zoo has no entry {label!r}; it has {', '.join(entries) or 'none'}")
    entry = entries[label]
    content = cfg.model_dump(mode="json", exclude={"zoo", "networks"})
    content |= {"name": f"{cfg.name}_{label}", "seed": cfg.seed + repeat, "networks": {}}
    for task in cfg.zoo.tasks:
        own = {"model": {"name": entry.name, "kwargs": entry.kwargs}, "epochs": cfg.zoo.epochs}
        content["networks"][task] = merge(zoo_settings(cfg, task), own | entry.train)
    try:
        return parse_config(content)
    except UserError as error:
        raise UserError(f"zoo entry {label!r}: {error}") from error


def zoo_settings(cfg: Config, task: str) -> dict[str, Any]:
    """What all entries of `cfg.zoo` share for a task: keys of the network named after it, with the one head."""
    base = cfg.networks.get(task) or DEFAULT_NETWORKS.get(task) or NetworkConfig(heads=[task], model={"name": ""})
    content = base.model_dump(mode="json")
    content["heads"] = {task: content["heads"].get(task, {})}
    return merge(content, cfg.zoo.train)


def load_config(path: str | Path) -> Config:
    """Read and check one configuration file.

    Raises
    ------
    UserError
        If the file cannot be read, is empty or is not YAML, has an unknown key or a value that is not accepted.
    """
    content = read_yaml(path)
    try:
        return parse_config(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse_config(content: dict[str, Any]) -> Config:
    """Check a mapping against the schema; keys that a section does not name keep their defaults.

    The networks are those that `content` names, or the default ones if it names none.

    Raises
    ------
    UserError
        Naming the first wrong key or value, and what is accepted there.
    """
    content = _networks_of_tasks(content)
    merged = merge(Config().model_dump(mode="json"), content)
    networks = content.get("networks")
    if isinstance(networks, dict):
        defaults = {name: network.model_dump(mode="json") for name, network in DEFAULT_NETWORKS.items()}
        merged["networks"] = {
            name: merge(defaults.get(name, {}), {} if value is None else value) for name, value in networks.items()
        }
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(first_problem(error, Config)) from error


def _networks_of_tasks(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with the short form `tasks` written out as networks, so that nothing else has to know of it."""
    tasks = content.get("tasks")
    if not tasks:
        return content
    if "networks" in content:
        raise UserError("tasks: is a short form of the section networks; give one of the two")
    accepted = ", ".join(DEFAULT_NETWORKS)
    if not isinstance(tasks, list | tuple) or (unknown := [task for task in tasks if task not in DEFAULT_NETWORKS]):
        got = tasks if not isinstance(tasks, list | tuple) else unknown[0]
        raise UserError(f"tasks: no default network for {got!r}; accepted: a list of {accepted}")
    return {key: value for key, value in content.items() if key != "tasks"} | {"networks": {task: {} for task in tasks}}
