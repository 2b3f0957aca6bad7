"""The typed configuration: defaults, merging, and the message for every slip that a user can make."""

import math
import re
from collections import Counter
from functools import cache
from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from pipeline.config import (
    DEFAULT_NETWORKS,
    HILLAS_SCALARS,
    Config,
    InputsConfig,
    NetworkConfig,
    load_config,
    parse_config,
)
from pipeline.config.generate import SCHEMA_LINE, default_yaml, generate, json_schema
from pipeline.errors import UserError
from pipeline.tasks import get_spec, specs_of, task_names

# ---- generated files -------------------------------------------------------------------------------------------------
HEADS = [(task, other) for task in task_names() for other in task_names() if task != other]
#: The smallest valid entry of each list of sections, and the place of the list.
ENTRIES = {
    "showers.array": {"type": "LST"},
    "showers.classes": {"particle": "gamma"},
    "showers.camera.stars": {"fov_lon_deg": 0.5, "fov_lat_deg": 0.0, "magnitude": 3.0},
    "sky.defects": {"name": "hot_pixels", "bit": "hot"},
    "irf.classes": {"particle": "gamma"},
    "zoo.entries": {"name": "lenet5"},
}
#: Sections that are off until a configuration names them.
OPTIONAL_SECTIONS = ("tiles.camera.noise",)


def _sections(model, prefix=()):
    """Places of all sections that are not entries of a list or mapping."""
    yield prefix
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _sections(field.annotation, (*prefix, name))


def _nested(place, content):
    for key in reversed(place):
        content = {key: content}
    return content


def _models(kind):
    """A section and all sections in it, those of entries included."""
    parts = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        parts = [field.annotation for field in kind.model_fields.values()]
    for part in parts:
        yield from _models(part)


@cache
def _validator():
    Draft202012Validator.check_schema(json_schema())
    return Draft202012Validator(json_schema())


def _refuses(content):
    """Messages of the schema for content that the configuration refuses as well."""
    with pytest.raises(UserError):
        parse_config(content)
    return [error.message for error in _validator().iter_errors(content)]


def _experiments(folder):
    return sorted(folder.glob("*.yaml"))


def test_committed_files_are_the_generated_ones(checkout, tmp_path):
    for path in generate(tmp_path):
        committed = checkout / "configs" / path.name
        assert committed.read_text() == path.read_text(), (
            f"{committed} is out of date; run `python -m pipeline.config.generate` from the checkout"
        )


@pytest.mark.parametrize(
    "model",
    dict.fromkeys([*_models(Config), *(spec.options for spec in specs_of())]),
    ids=lambda model: model.__name__,
)
def test_every_field_is_described_in_sentences(model):
    for name, field in model.model_fields.items():
        assert field.description, f"{name} of {model.__name__} has no description"
        assert field.description.endswith("."), f"the description of {name} of {model.__name__} is no sentence"


def test_default_yaml_is_the_default_experiment(checkout):
    assert load_config(checkout / "configs" / "default.yaml") == Config()


def test_default_yaml_lists_every_key():
    def keys(content):
        return {key: keys(value) if isinstance(value, dict) else None for key, value in content.items()}

    written, schema = (keys(content) for content in (yaml.safe_load(default_yaml()), Config().model_dump(mode="json")))
    first = next(iter(DEFAULT_NETWORKS))
    assert list(written["networks"]) == list(DEFAULT_NETWORKS)
    assert written.pop("networks")[first] == schema.pop("networks")[first]
    assert written == schema


@pytest.mark.parametrize("name", DEFAULT_NETWORKS)
def test_networks_in_default_yaml_are_whole(name):
    # Loading would fill the gaps from the default network of this name.
    assert NetworkConfig.model_validate(yaml.safe_load(default_yaml())["networks"][name]) == DEFAULT_NETWORKS[name]


def test_entries_in_comments_are_examples_that_work():
    text = re.sub(r"^( *)# (- |  )", r"\1\2", default_yaml(), flags=re.MULTILINE)
    times = Counter(place.rpartition(".")[2] for place in ENTRIES)
    for name, expected in times.items():
        text, n_replaced = re.subn(rf"^( *{name}:) \[\]", r"\1", text, flags=re.MULTILINE)
        assert n_replaced == expected
    for place in OPTIONAL_SECTIONS:
        text, n_replaced = re.subn(rf"^( *{place.rpartition('.')[2]}:) null", r"\1", text, flags=re.MULTILINE)
        assert n_replaced == 1
    content = yaml.safe_load(text)
    config = parse_config(content)
    for place in (*ENTRIES, *OPTIONAL_SECTIONS):
        value = config
        for key in place.split("."):
            value = getattr(value, key)
        (entry,) = (value,) if place in OPTIONAL_SECTIONS else value
        assert entry.model_fields_set == set(type(entry).model_fields)
    assert not list(_validator().iter_errors(content))


def test_default_yaml_fits_its_lines():
    assert max(map(len, default_yaml().splitlines())) <= 120


def test_shipped_experiments_name_their_schema(checkout):
    for path in _experiments(checkout / "configs"):
        assert path.read_text().startswith(f"{SCHEMA_LINE}\n"), f"{path} must begin with {SCHEMA_LINE!r}"


def test_shipped_experiments_are_accepted(checkout):
    paths = [*_experiments(checkout / "configs"), checkout / "tests" / "conf" / "tiny.yaml"]
    for path in paths:
        assert load_config(path).name == path.stem
        assert not [error.message for error in _validator().iter_errors(yaml.safe_load(path.read_text()))], path


@pytest.mark.parametrize("place", list(_sections(Config)), ids=lambda place: ".".join(place) or "top")
def test_schema_refuses_an_unknown_key_in_a_section(place):
    (message,) = _refuses(_nested(place, {"zzz": 1}))
    assert "'zzz' was unexpected" in message


@pytest.mark.parametrize("place", ENTRIES)
def test_schema_refuses_an_unknown_key_in_an_entry(place):
    content = _nested(place.split("."), [ENTRIES[place]])
    assert not list(_validator().iter_errors(content))
    (message,) = _refuses(_nested(place.split("."), [ENTRIES[place] | {"zzz": 1}]))
    assert "'zzz' was unexpected" in message


@pytest.mark.parametrize("task", task_names())
def test_schema_accepts_the_options_of_a_head(task):
    options = get_spec(task).options().model_dump()
    for heads in ([task], {task: options}, {task: None}):
        content = {"networks": {"own": {"heads": heads, "model": {"name": "lenet5"}}}}
        parse_config(content)
        assert not list(_validator().iter_errors(content))


@pytest.mark.parametrize(("task", "other"), HEADS)
def test_schema_refuses_a_head_option_of_another_task(task, other):
    foreign = set(get_spec(other).options.model_fields) - set(get_spec(task).options.model_fields)
    for option in foreign | {"zzz"}:
        value = getattr(get_spec(other).options(), option, 1)
        assert _refuses({"networks": {"own": {"heads": {task: {option: value}}, "model": {"name": "lenet5"}}}})


@pytest.mark.parametrize("augmentation", [True, False, {"shift_px": 2}])
def test_schema_accepts_a_switch_for_the_augmentation(augmentation):
    content = {"networks": {"energy": {"augmentation": augmentation}}}
    parse_config(content)
    assert not list(_validator().iter_errors(content))


@pytest.mark.parametrize(
    "content",
    [
        {"networks": {"energy": {"zzz": 1}}},
        {"networks": {"energy": {"model": {"zzz": 1}}}},
        {"networks": {"energy": {"augmentation": {"zzz": 1}}}},
        {"networks": {"energy": {"augmentation": 1}}},
        {"networks": {"energy": {"heads": ["spectra"]}}},
        {"networks": {"energy": {"heads": []}}},
        {"networks": {"energy": {"heads": {}}}},
        {"networks": {"energy": {"freeze": "head"}}},
        {"networks": {"own": {"heads": ["energy"]}}},
        {"networks": {"own": {"heads": ["energy"], "model": {"kwargs": {}}}}},
        {"networks": {"own": {"model": {"name": "lenet5"}}}},
        {"networks": {"own": None}},
        {"networks": {"a/b": {"heads": ["energy"], "model": {"name": "lenet5"}}}},
        {"zoo": {"tasks": ["denoise"]}},
        {"zoo": {"entries": [{"name": "lenet5", "train": {"epochs": 2}}]}},
        {"zoo": {"entries": [{"name": "lenet5", "train": {"model": {"name": "vgg11"}}}]}},
        {"predict": {"uses": {"radio": []}}},
    ],
)
def test_schema_refuses_what_the_configuration_refuses(content):
    assert _refuses(content)


def test_generating_replaces_the_files_of_a_folder(tmp_path):
    (tmp_path / "default.yaml").write_text("old\n")
    paths = generate(tmp_path)
    assert [path.name for path in paths] == ["default.yaml", "schema.json"]
    assert paths[0].read_text() == default_yaml()


# ---- reading ---------------------------------------------------------------------------------------------------------
def test_an_override_keeps_the_rest_of_its_section():
    config = parse_config({"networks": {"energy": {"epochs": 3}}, "tiles": {"camera": {"size": 32}}})
    assert config.networks == {"energy": DEFAULT_NETWORKS["energy"].model_copy(update={"epochs": 3})}
    assert config.tiles.camera == Config().tiles.camera.model_copy(update={"size": 32})
    assert config.tiles.sky == Config().tiles.sky


def test_kwargs_of_a_model_are_taken_whole():
    config = parse_config({"networks": {"energy": {"model": {"name": "resnet18", "kwargs": {"width": 4}}}}})
    assert config.networks["energy"].model.kwargs == {"width": 4}


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_is_not_taken_for_the_default_experiment(tmp_path, text):
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"empty\.yaml is empty"):
        load_config(path)


def test_sections_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 2


def test_unknown_key_names_the_near_one(checkout):
    with pytest.raises(UserError, match=r"_key\.yaml: unknown key 'networks\.energy\.epoch'; did you mean 'epochs'"):
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
        (
            {"networks": {".a": DEFAULT_NETWORKS["energy"].model_dump()}},
            r"networks: a network cannot be called '\.a'; accepted: letters, digits, _ and, not at the start, - and \.",
        ),
        (
            {"networks": {"energy": {"heads": "energy"}}},
            r"networks\.energy\.heads: .*a list of tasks, or a mapping of tasks to their options, got 'energy'",
        ),
        (
            {"networks": {"energy": {"heads": {"energy": {"label_smoothing": 0.1}}}}},
            r"networks\.energy\.heads: energy: unknown key 'label_smoothing'; accepted: weight, uncertainty",
        ),
        (
            {"networks": {"energy": {"freeze": -1}}},
            r"networks\.energy\.freeze: .*levels of features, 0 or more, or 'features' for all of them, got -1",
        ),
        (
            {"networks": {"own": {"heads": ["energy", "denoise"], "model": {"name": "lenet5"}}}},
            r"networks\.own: heads of one network share the wing and give all vectors or all maps, got energy: a ",
        ),
        (
            {"networks": {"denoise": {"camera": "LST"}}},
            r"networks\.denoise: camera 'LST' chooses among camera tiles, and the heads are of the sky",
        ),
        (
            {"networks": {"energy": {"heads": {"energy": 3}}}},
            r"networks\.energy\.heads: energy: Input should be a mapping of options$",
        ),
        ({"zoo": {"tasks": ["denoise"]}}, r"zoo\.tasks: only camera tasks can be compared, and denoise is a sky task"),
        ({"tiles": {"camera": {"size": 100_000}}}, r"tiles\.camera\.size: .*less than or equal to 8192, got 100000"),
        ({"showers": {"camera": {"night_sky_factor": 1e12}}}, r"night_sky_factor: .*less than or equal to 1000, got"),
        ({"sky": {"sky_gradient": 50}}, r"sky\.sky_gradient: Input should be less than 2, got 50"),
        ({"sky": {"cosmic_rays_per_mpix": 1e9}}, r"cosmic_rays_per_mpix: .*less than or equal to 100000, got"),
        ({"sky": {"shape": [0, 96]}}, r"sky\.shape\.0: .*greater than or equal to 16, got 0"),
        ({"sky": {"shape": [96, 30_000]}}, r"sky\.shape\.1: .*less than or equal to 20000, got 30000"),
    ],
)
def test_wrong_values_say_where_what_and_what_is_accepted(content, message):
    with pytest.raises(UserError, match=message):
        parse_config(content)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("energy_edges_tev", [3, 1, 0.2], r": .*increase from each number to the next, got \[3, 1, 0\.2\]"),
        ("energy_edges_tev", [1, 1], r": .*increase from each number to the next, got \[1, 1\]"),
        ("energy_edges_tev", [], r": .*at least 2 items .*, got \[\]"),
        ("energy_edges_tev", [0.5], r": .*at least 2 items .*, got \[0\.5\]"),
        ("energy_edges_tev", [0, 1], r"\.0: .*greater than 0, got 0"),
        ("energy_edges_tev", [1, math.inf], r"\.1: .*finite number, got inf"),
        ("offset_edges_deg", [2, 0], r": .*increase from each number to the next, got \[2, 0\]"),
        ("offset_edges_deg", [-1, 1, 5], r"\.0: .*greater than or equal to 0, got -1"),
        ("size_cuts_pe", [], r": .*at least 1 item .*, got \[\]"),
        ("size_cuts_pe", [100, 50], r": .*increase from each number to the next, got \[100, 50\]"),
        ("size_cuts_pe", [-50, 50], r"\.0: .*greater than or equal to 0, got -50"),
    ],
)
def test_edges_increase_and_are_in_range(key, value, message):
    with pytest.raises(UserError, match=rf"evaluate\.{key}{message}"):
        parse_config({"evaluate": {key: value}})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fwhm_px", [4, 2], r": .*\[low, high\], with low not above high, got \[4, 2\]"),
        ("fwhm_px", [0.01, 2], r"\.0: .*greater than or equal to 0\.3, got 0\.01"),
        ("sky_e_per_s", [1, 0.1], r": .*\[low, high\], with low not above high, got \[1, 0\.1\]"),
        ("sky_e_per_s", [-1, 1], r"\.0: .*greater than 0, got -1"),
        ("gain_e_per_adu", [0, 0], r"\.0: .*greater than or equal to 0\.001, got 0"),
        ("read_noise_e", [-5, -3], r"\.0: .*greater than or equal to 0, got -5"),
        ("star_flux_e", [0, 10], r"\.0: .*greater than 0, got 0"),
        ("star_flux_e", [1000, 10], r": .*\[low, high\], with low not above high, got \[1000, 10\]"),
        ("silicon_um", [0, 0], r"\.0: .*greater than or equal to 0\.1, got 0"),
        ("diffusion_um", [0, 5], r"\.0: .*greater than 0, got 0"),
        ("track_charge", [0, 1], r"\.0: .*greater than 0, got 0"),
    ],
)
def test_ranges_are_ordered_and_can_be_drawn_from(key, value, message):
    with pytest.raises(UserError, match=rf"sky\.{key}{message}"):
        parse_config({"sky": {key: value}})
    assert parse_config({"sky": {key: [2, 2]}})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("seed: yes", "seed"),
        ("threads: on", "threads"),
        ("networks: {energy: {epochs: true}}", "networks.energy.epochs"),
        ("networks: {energy: {heads: {energy: {weight: true}}}}", "networks.energy.heads: energy: weight"),
        ("ingest: {sky: {gain_e_per_adu: true}}", "ingest.sky.gain_e_per_adu"),
        ("ingest: {sky: {dq_bits: {1: true}}}", "ingest.sky.dq_bits"),
        ("sky: {gain_e_per_adu: [true, 2]}", "sky.gain_e_per_adu"),
    ],
)
def test_a_switch_is_not_taken_for_a_number(text, where):
    with pytest.raises(UserError, match=f"^{re.escape(where)}: Input should be a number; YAML reads yes, no, on and"):
        parse_config(yaml.safe_load(text))


def test_numbers_may_be_written_in_several_ways():
    # YAML 1.1 reads 1e-3, without a point, as text.
    config = parse_config(yaml.safe_load("{sky: {exposure_s: 100, sky_gradient: 1e-3}, showers: {waveforms: yes}}"))
    assert (config.sky.exposure_s, config.sky.sky_gradient, config.showers.waveforms) == (100, 1e-3, True)


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
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")


def test_runs_are_numbered_through_the_classes():
    showers = parse_config(
        {"showers": {"classes": [{"particle": "gamma", "runs": 2}, {"particle": "proton", "runs": 3}]}}
    ).showers
    assert [showers.class_of_run(run).particle for run in range(1, 6)] == ["gamma"] * 2 + ["proton"] * 3
    for run in (0, 6):
        with pytest.raises(UserError, match=f"unknown shower run {run}; the configuration defines runs 1 to 5"):
            showers.class_of_run(run)


def test_a_scale_passes_through_the_classes_again():
    classes = [{"particle": "gamma", "runs": 2}, {"particle": "muon", "runs": 0}, {"particle": "proton", "runs": 3}]
    showers = parse_config({"showers": {"classes": classes, "scale": 3}}).showers
    assert showers.n_runs == 15
    expected = (["gamma"] * 2 + ["proton"] * 3) * 3
    assert [showers.class_of_run(run).particle for run in range(1, 16)] == expected
    for run in (0, 16):
        with pytest.raises(UserError, match=f"unknown shower run {run}; the configuration defines runs 1 to 15"):
            showers.class_of_run(run)
    with pytest.raises(UserError, match="unknown shower run 1; the configuration defines runs 1 to 0"):
        parse_config({}).showers.class_of_run(1)
    with pytest.raises(UserError, match=r"showers\.scale"):
        parse_config({"showers": {"scale": 0}})
    with pytest.raises(UserError, match="has 10002 runs; runs from 10001 on are those of the section irf"):
        parse_config({"showers": {"classes": classes[:1], "scale": 5001}})


GAMMAS = {"particle": "gamma", "runs": 2, "energy_min_tev": 0.05, "energy_max_tev": 10.0, "viewcone_deg": 2.5}
PROTONS = GAMMAS | {"particle": "proton", "runs": 3, "viewcone_deg": 4.0}


def test_runs_of_responses_have_numbers_of_their_own():
    cfg = parse_config({"showers": {"zenith_deg": 40, "classes": [GAMMAS]}, "irf": {"classes": [GAMMAS, PROTONS]}})
    assert list(cfg.irf.runs) == [10_001, 10_002, 10_003, 10_004, 10_005]
    assert cfg.showers_of_run(2) is cfg.showers
    showers = cfg.showers_of_run(10_003)
    assert (showers.zenith_deg, showers.class_of_run(10_003).particle) == (40, "proton")
    for run in (10_000, 10_006):
        with pytest.raises(UserError, match=f"unknown shower run {run}; the configuration defines runs"):
            cfg.showers_of_run(run).class_of_run(run)
    twice = parse_config({"showers": {"scale": 9}, "irf": {"classes": [GAMMAS, PROTONS], "scale": 2}})
    assert list(twice.irf.runs) == list(range(10_001, 10_011))
    particles = [twice.showers_of_run(run).class_of_run(run).particle for run in twice.irf.runs]
    assert particles == (["gamma"] * 2 + ["proton"] * 3) * 2
    with pytest.raises(
        UserError, match=r"showers\.classes has 10001 runs; runs from 10001 on are those of the section irf"
    ):
        parse_config({"showers": {"classes": [GAMMAS | {"runs": 10_001}]}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"classes": [PROTONS]}, "classes has no gammas; add a class with particle: gamma"),
        ({"classes": [GAMMAS, GAMMAS]}, r"several entries of gammas \(diffuse\); give one, with more runs"),
        ({"classes": [GAMMAS | {"particle": "muon"}]}, "particle 'muon'; accepted: gamma, proton, electron"),
        ({"classes": [GAMMAS, PROTONS | {"viewcone_deg": 0}]}, "protons come from all directions"),
        ({"classes": [GAMMAS | {"offset_deg": 1.0}]}, "offset_deg is for the gammas of a point source"),
        ({"classes": [GAMMAS | {"start_height_m": 1000}]}, "start_height_m is for muon rings"),
        ({"classes": [GAMMAS], "energy_min_tev": 0.01}, r"0\.01 is outside the gammas' spectrum, 0\.05 to 10 TeV"),
        (
            {"classes": [GAMMAS, PROTONS | {"viewcone_deg": 2.0}]},
            r"viewcone_deg 2, and the offset bins end at 2\.5 deg",
        ),
        ({"energy_min_tev": 3, "energy_max_tev": 1}, r"energy_min_tev 3\.0 is not below energy_max_tev 1\.0"),
    ],
)
def test_showers_that_cannot_become_responses(section, message):
    with pytest.raises(UserError, match=message):
        parse_config({"irf": section})


def test_unknown_task_lists_the_accepted_ones():
    with pytest.raises(UserError, match=r"networks\.own.*unknown task 'spectra'; accepted: gammaness, energy"):
        parse_config({"networks": {"own": {"heads": ["spectra"], "model": {"name": "lenet5"}}}})


def test_unknown_network_lists_those_of_the_experiment():
    with pytest.raises(UserError, match=r"no network 'mono'; accepted: energy, gammaness, direction, denoise$"):
        Config().network("mono")
    with pytest.raises(UserError, match=r"no network 'mono'; accepted: none, because the section networks is empty$"):
        parse_config({"networks": {}}).network("mono")


def test_hillas_stands_for_the_usual_image_parameters():
    network = {"heads": ["energy", "gammaness"], "model": {"name": "resnet18"}, "scalars": "hillas"}
    config = parse_config({"networks": {"mono": network}})
    assert config.networks["mono"].scalars == HILLAS_SCALARS


def test_tasks_are_a_short_form_of_networks():
    short = parse_config({"tasks": ["gammaness"], "seed": 3})
    assert short == parse_config({"networks": {"gammaness": {}}, "seed": 3})
    assert parse_config({"tasks": []}) == Config()


def test_refuses_tasks_without_a_default_network_or_beside_networks():
    with pytest.raises(UserError, match=r"tasks: no default network for 'spectra'; accepted: a list of energy"):
        parse_config({"tasks": ["energy", "spectra"]})
    with pytest.raises(UserError, match="tasks: no default network for 'energy'; accepted: a list of energy"):
        parse_config({"tasks": "energy"})
    with pytest.raises(UserError, match="tasks: is a short form of the section networks; give one of the two"):
        parse_config({"tasks": ["energy"], "networks": {"energy": {}}})
