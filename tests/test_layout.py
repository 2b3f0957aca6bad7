"""How the house is built: which module imports which, and that the tests see this checkout."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import grimp
import pytest
import yaml

import lightpool
import models
import pipeline
from pipeline.inputs import get_input, input_kinds
from pipeline.tasks import specs_of

# What every stage uses, but no result depends on.
_EVERYWHERE = tuple(
    f"pipeline.{name}"
    for name in (
        "errors",
        "files",
        "numba_cache",
        "output",
        "provenance",
        "config",
        "device",
        "logs",
        "plugins",
        "workers",
    )
)
# What the configuration itself imports.
_OF_THE_CONFIGURATION = {"pipeline.tasks", "pipeline.tasks.spec"}
# The looks of a learning curve must not cost a training.
_ALSO_LEFT_OUT = {"train": ("pipeline.figures",)}


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """Who imports whom, imports inside functions included."""
    cache = tmp_path_factory.mktemp("imports")
    return grimp.build_graph("pipeline", "models", exclude_type_checking_imports=True, cache_dir=str(cache))


@pytest.mark.parametrize("package", [lightpool, pipeline, models])
def test_packages_come_from_this_checkout(checkout, package):
    assert Path(package.__file__).parent == checkout / package.__name__


def test_no_installed_package_hides_the_tests():
    # Scripts import helpers as `tests.support...`; an installed package of that name would come first.
    assert not (Path(sysconfig.get_path("purelib")) / "tests").exists()


def test_no_test_folder_is_a_package(checkout):
    # pytest would import tests/models in place of models.
    assert list((checkout / "tests").rglob("__init__.py")) == []


def test_names_of_test_files_are_unique(checkout):
    names = [path.name for path in (checkout / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_arrows_point_downwards(checkout, tmp_path):
    # In a process of its own: import-linter configures logging so that all loggers there are fall silent.
    code = f"from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir={str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _modules(checkout, patterns):
    """Names of the modules in files that patterns match."""
    paths = [path for pattern in patterns for path in checkout.glob(pattern) if path.suffix == ".py"]
    parts = [path.relative_to(checkout).with_suffix("").parts for path in paths]
    return {".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts}


def _entry(imports, rule):
    """The stage's module whose imports a rule's list must cover: of that name, or for both wings."""
    both = rule.removesuffix("_camera").removesuffix("_sky")
    return next(
        module for module in (f"pipeline.stages.{rule}", f"pipeline.stages.{both}") if module in imports.modules
    )


def _parts(rule):
    """Modules of tasks and inputs that a stage imports by name, which its import statements do not show."""
    stage, _, wing = rule.rpartition("_") if rule.endswith(("_camera", "_sky")) else (rule, "", None)
    parts = {
        "tiles": ("spec", "targets"),
        "train": ("spec", "targets", "objective"),
        "evaluate": ("spec", "decode", "judge"),
        "predict": ("spec", "decode"),
        "compare": ("spec", "decode"),
        "report": ("spec",),
    }.get(stage, ())
    tasks = [spec.name for spec in specs_of(wing)]
    inputs = [f"pipeline.inputs.{kind}" for kind in input_kinds() if wing in (None, get_input(kind).wing)]
    found = {f"pipeline.tasks.{task}.{part}" for task in tasks for part in parts}
    return found | (set(inputs) if stage in ("train", "evaluate", "predict", "compare") else set())


def _other_wing(rule):
    """The wing that a rule of one wing never runs; a name that fits nothing for a rule of both."""
    return {"camera": "pipeline.sky", "sky": "pipeline.camera"}.get(rule.rpartition("_")[2], "none")


def test_sources_of_a_rule_cover_what_its_stage_imports(checkout, imports):
    """An edit of a module that a stage uses must rerun the stage: workflow/sources.yaml against the imports."""
    forgotten = {}
    for rule, patterns in yaml.safe_load((checkout / "workflow" / "sources.yaml").read_text()).items():
        listed = _modules(checkout, patterns)
        ignored = (*_EVERYWHERE, *_ALSO_LEFT_OUT.get(rule, ()), _other_wing(rule))
        entries = {_entry(imports, rule)} | _parts(rule)
        used = entries | {module for entry in entries for module in imports.find_upstream_modules(entry)}
        used = {module for module in used if not module.startswith(ignored)} - _OF_THE_CONFIGURATION
        # A package's __init__ that only says what the package is decides nothing.
        used = {module for module in used if not _is_only_docstring(checkout, module)}
        if missing := used - listed:
            forgotten[rule] = sorted(missing)
    assert forgotten == {}


def _is_only_docstring(checkout, module):
    path = checkout.joinpath(*module.split("."), "__init__.py")
    return path.is_file() and not any(
        line.startswith(("from ", "import ", "def ")) for line in path.read_text().splitlines()
    )


def test_every_pattern_of_sources_matches(checkout):
    for rule, patterns in yaml.safe_load((checkout / "workflow" / "sources.yaml").read_text()).items():
        for pattern in patterns:
            assert list(checkout.glob(pattern)), f"{rule}: {pattern} matches no file"
