"""What tasks are, as data, and how they are found."""

import pytest

from pipeline.errors import UserError
from pipeline.inputs import get_input
from pipeline.tasks import (
    get_decoder,
    get_judge,
    get_objective,
    get_spec,
    get_targets,
    specs_of,
    task_names,
)
from pipeline.tasks.spec import Monitor


def test_tasks_are_those_of_the_folders(checkout):
    folders = {path.parent.name for path in (checkout / "pipeline" / "tasks").glob("*/spec.py")}
    assert set(task_names()) >= folders
    assert task_names()[:6] == ("gammaness", "energy", "direction", "core", "x_max", "denoise")  # as reports show them
    assert [spec.name for spec in specs_of()] == list(task_names())
    assert all(spec.wing == "sky" for spec in specs_of("sky"))


@pytest.mark.parametrize("name", task_names())
def test_specifications_fit_their_parts(name):
    spec, objective = get_spec(name), get_objective(name)
    assert spec.name == name
    assert objective.spec is spec
    assert objective.targets is get_targets(name)
    assert objective(spec.options()).outputs == spec.outputs
    assert get_input(spec.input).wing == spec.wing
    assert set(spec.headline) <= spec.metrics.keys()
    assert set(spec.where) <= set(spec.needs)
    assert callable(get_judge(name))


@pytest.mark.parametrize("get", [get_spec, get_targets, get_decoder, get_objective, get_judge])
def test_unknown_task(get):
    with pytest.raises(
        UserError, match=r"unknown task 'gamma'; did you mean 'gammaness'\? accepted: gammaness, energy"
    ):
        get("gamma")
    with pytest.raises(UserError, match=r"unknown task 'position'; accepted: gammaness, energy"):
        get("position")


@pytest.mark.parametrize(("better", "improves"), [("higher", [True, True, False]), ("lower", [True, False, True])])
def test_monitor(better, improves):
    monitor = Monitor("auc", better)
    assert [monitor.improves(0.5, None), monitor.improves(0.6, 0.5), monitor.improves(0.4, 0.5)] == improves
    assert not monitor.improves(0.5, 0.5)  # the first of equal epochs is the best


def test_energy_without_uncertainty_has_one_output():
    spec = get_spec("energy")
    assert get_objective("energy")(spec.options(uncertainty=False)).outputs == ("log10_energy_tev",)
