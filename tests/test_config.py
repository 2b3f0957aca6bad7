"""The typed configuration: defaults, merging, and the message for every slip that a user can make."""

import math
import re
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from pipeline.config import Config, InputsConfig, ShowersConfig, TrainConfig, load_config, parse_config
from pipeline.errors import UserError


def _keys(content, prefix=""):
    found = set()
    for key, value in content.items():
        found.add(f"{prefix}{key}")
        if isinstance(value, dict):
            found |= _keys(value, f"{prefix}{key}.")
    return found


def test_default_yaml_lists_exactly_the_schema(checkout):
    path = checkout / "configs" / "default.yaml"
    written = yaml.safe_load(path.read_text())
    assert _keys(written) == _keys(Config().model_dump(mode="json"))
    assert load_config(path) == Config()


def test_default_yaml_explains_the_keys_of_a_shower_class(checkout):
    text = (checkout / "configs" / "default.yaml").read_text()
    (entry,) = (part for part in get_args(ShowersConfig.model_fields["classes"].annotation) if part is not ...)
    assert issubclass(entry, BaseModel)
    for key in entry.model_fields:
        assert re.search(rf"#\s+{key}: ", text), f"{key} of showers.classes is not explained"


@pytest.mark.parametrize("name", ["configs/default", "configs/demo", "configs/files", "configs/zoo", "tests/conf/tiny"])
def test_shipped_experiments_are_accepted(checkout, name):
    path = checkout / f"{name}.yaml"
    assert load_config(path).name == path.stem


def test_an_override_keeps_the_rest_of_its_section():
    config = parse_config({"train": {"energy": {"epochs": 3}}})
    assert config.train.energy.epochs == 3
    assert config.train.energy.model == Config().train.energy.model
    assert config.train.gammaness == Config().train.gammaness


def test_kwargs_of_a_model_are_taken_whole():
    config = parse_config({"train": {"energy": {"model": {"name": "lenet5", "kwargs": {}}}}})
    assert config.train.energy.model.kwargs == {}


def test_an_empty_file_is_the_default_experiment(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_config(path) == Config()


def test_sections_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 2


def test_unknown_key_names_the_near_one(checkout):
    with pytest.raises(UserError, match=r"_key\.yaml: unknown key 'train\.energy\.epoch'; did you mean 'epochs'"):
        load_config(checkout / "tests" / "conf" / "unknown_key.yaml")


def test_unknown_key_lists_the_accepted_ones():
    with pytest.raises(UserError, match=rf"accepted: {', '.join(InputsConfig.model_fields)}"):
        parse_config({"inputs": {"zzz": []}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"seed": -1}, r"seed: .*greater than or equal to 0, got -1"),
        ({"showers": {"azimuth_deg": math.nan}}, r"showers\.azimuth_deg: .*finite number, got nan"),
        ({"showers": {"site_altitude_m": 9e4}}, r"showers\.site_altitude_m: .*less than or equal to 10000, got 90000"),
        ({"tiles": {"splits": {"train": 0.9}}}, r"tiles\.splits: train \+ validation \+ test is 1\.3; it must be 1"),
        (
            {"showers": {"classes": [{"particle": "gamma", "energy_min_tev": 5.0, "energy_max_tev": 1.0}]}},
            r"showers\.classes\.0: energy_min_tev 5\.0 is not below energy_max_tev 1\.0",
        ),
        (
            {"showers": {"classes": [{"particle": "neutrino"}]}},
            r"showers\.classes\.0\.particle: .*'gamma'.*got 'neutrino'",
        ),
        ({"device": "gpu"}, r"device: .*got 'gpu'"),
        ({"name": "a b"}, r"name: .*got 'a b'"),
        ({"name": ".."}, r"name: .*got '\.\.'"),
        ({"predict": {"uses": {"radio": []}}}, r"predict\.uses\.radio.*'camera' or 'sky'"),
    ],
)
def test_wrong_values_say_where_what_and_what_is_accepted(content, message):
    with pytest.raises(UserError, match=message):
        parse_config(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "is not valid YAML"), ("- 1\n- 2\n", "must hold a mapping of sections, not list")],
)
def test_files_that_are_no_configuration(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_a_binary_file_is_no_configuration(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(b"\x89HDF\xff\xfe")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the configuration .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_runs_are_numbered_through_the_classes():
    showers = parse_config(
        {"showers": {"classes": [{"particle": "gamma", "runs": 2}, {"particle": "proton", "runs": 3}]}}
    ).showers
    assert [showers.class_of_run(run).particle for run in range(1, 6)] == ["gamma"] * 2 + ["proton"] * 3
    for run in (0, 6):
        with pytest.raises(UserError, match=f"no shower run {run}; the configuration defines runs 1 to 5"):
            showers.class_of_run(run)


def test_unknown_task_lists_the_accepted_ones():
    with pytest.raises(UserError, match="unknown task 'spectra'; accepted: energy, gammaness, denoise"):
        TrainConfig().task("spectra")
