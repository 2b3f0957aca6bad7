"""The typed configuration: one YAML file per experiment, one module here per group of sections.

Every key has its default here; `configs/default.yaml` lists and explains all of them (a test holds the two
together), and an experiment's file names only what it changes. An unknown key is an error that says where it
stands and which keys are accepted.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from pipeline.config.base import FOLDER_NAME, Section
from pipeline.config.ingest import CameraIngestConfig, IngestConfig, InputsConfig, SkyIngestConfig
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
    CameraTilesConfig,
    CleaningConfig,
    CutsConfig,
    SkyTilesConfig,
    SplitsConfig,
    TilesConfig,
    WeightingConfig,
)
from pipeline.config.use import EvaluateConfig, PredictConfig, ReportConfig
from pipeline.config.zoo import ZooConfig, ZooEntry
from pipeline.errors import UserError
from pipeline.provenance import sha256_json

__all__ = [
    "DEFAULT_NETWORKS", "HILLAS_SCALARS", "AugmentationConfig", "CameraConditions", "CameraIngestConfig",
    "CameraTilesConfig", "CleaningConfig", "Config", "CutsConfig", "EvaluateConfig", "IngestConfig", "InputsConfig",
    "ModelConfig", "NetworkConfig", "PredictConfig", "ReportConfig", "Section", "ShowerClass", "ShowersConfig",
    "SkyDefect", "SkyIngestConfig", "SkySimulationConfig", "SkyTilesConfig", "SplitsConfig", "Star", "TelescopePlace",
    "TilesConfig", "WeightingConfig", "ZooConfig", "ZooEntry", "digest_of", "load_config", "parse_config",
    "sections_of", "zoo_config", "zoo_settings",
]  # fmt: skip


class Config(Section):
    """One experiment."""

    name: str = Field("default", pattern=rf"^{FOLDER_NAME}$")
    description: str = ""
    seed: int = Field(1, ge=0)
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int = Field(2, ge=1)
    inputs: InputsConfig = InputsConfig()
    showers: ShowersConfig = ShowersConfig()
    sky: SkySimulationConfig = SkySimulationConfig()
    ingest: IngestConfig = IngestConfig()
    tiles: TilesConfig = TilesConfig()
    networks: dict[str, NetworkConfig] = DEFAULT_NETWORKS
    evaluate: EvaluateConfig = EvaluateConfig()
    predict: PredictConfig = PredictConfig()
    zoo: ZooConfig = ZooConfig()
    report: ReportConfig = ReportConfig()

    @field_validator("networks")
    @classmethod
    def _names_are_folders(cls, value: dict[str, NetworkConfig]) -> dict[str, NetworkConfig]:
        for name in value:
            if not re.fullmatch(FOLDER_NAME, name):
                raise ValueError(f"{name!r} cannot name a network: letters, digits, _, - and . can, not first - or .")
        return value

    def network(self, name: str) -> NetworkConfig:
        """The network called `name`.

        Raises
        ------
        UserError
            If the experiment has none of that name.
        """
        if name not in self.networks:
            accepted = ", ".join(self.networks) or "none; the section networks is empty"
            raise UserError(f"the experiment has no network {name!r}; accepted: {accepted}")
        return self.networks[name]


def sections_of(cfg: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """Content of some sections (``tiles.camera.cleaning``) or keys (``seed``) of an experiment, by their names."""
    chosen = {}
    for name in names:
        value: Any = cfg
        for key in name.split("."):
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        chosen[name] = value.model_dump(mode="json") if isinstance(value, Section) else value
    return chosen


def digest_of(cfg: Config, names: tuple[str, ...]) -> str:
    """SHA-256 of some sections: it changes when one of their keys does, and with no other key."""
    return sha256_json(sections_of(cfg, names))


def zoo_config(cfg: Config, label: str, repeat: int = 0) -> Config:
    """The experiment that trains one entry of `cfg.zoo`: one network per task, named as the task, and no zoo.

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

    The networks are those that `content` names, the default ones where it names none.

    Raises
    ------
    UserError
        Naming the first wrong key or value, and what is accepted there.
    """
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
