"""What all tasks have in common: names that do not collide, texts for what is shown, places for what is written."""

from collections import Counter

import pytest

from pipeline.inputs import get_input, input_kinds
from pipeline.tasks import get_decoder, get_objective, get_targets, specs_of
from pipeline.tasks.direction.spec import VECTOR_OUTPUTS
from pipeline.tasks.spec import HeadOptions

SPECS = pytest.mark.parametrize("spec", specs_of(), ids=lambda spec: spec.name)
CAMERA = pytest.mark.parametrize("spec", specs_of("camera"), ids=lambda spec: spec.name)
SKY = pytest.mark.parametrize("spec", specs_of("sky"), ids=lambda spec: spec.name)


def repeated(names):
    return [name for name, times in Counter(names).items() if times > 1]


def test_no_two_tasks_share_a_column():
    assert repeated(column.name for spec in specs_of() for column in spec.columns) == []


def test_no_two_tasks_share_a_stored_target():
    assert repeated(target.name for spec in specs_of() for target in get_targets(spec.name).stored) == []


def test_a_metric_of_two_tasks_is_called_the_same():
    texts = {}
    for spec in specs_of():
        for name, text in spec.metrics.items():
            assert texts.setdefault(name, text) == text, name


def test_no_two_planes_of_frames_are_written_to_the_same_extension():
    written = [column.hdu for spec in specs_of("sky") for column in spec.columns if column.hdu]
    assert repeated(written) == []
    assert [name for name in written if name != name.upper()] == []  # astropy compares names in capitals


def test_no_two_camera_tasks_share_a_place_in_dl2():
    # ctapipe's containers hold one value of a name, under the prefix of its head.
    places = [(c.dl2.group, c.dl2.name) for spec in specs_of("camera") for c in spec.columns if c.dl2]
    assert repeated(places) == []


@SPECS
def test_headline_metrics_are_in_words(spec):
    assert spec.headline
    assert repeated(spec.headline) == []
    for name in spec.headline:
        assert spec.metrics[name].label, name
        assert spec.metrics[name].meaning, name


@SPECS
def test_columns_are_described(spec):
    assert bool(spec.columns) == (spec.gives != "image")
    assert all(column.name.isidentifier() and column.description for column in spec.columns)


@SPECS
def test_units_are_those_of_astropy_or_of_the_frame(spec):
    from astropy.units import Unit

    for column in spec.columns:
        assert column.unit == "sci" or Unit(column.unit).to_string() == column.unit


@SPECS
def test_the_input_is_of_the_wing(spec):
    assert spec.input in input_kinds()
    assert get_input(spec.input).wing == spec.wing


@CAMERA
def test_a_column_with_an_average_has_a_place_in_dl2(spec):
    from pipeline.camera.dl2 import outputs_of

    outputs = outputs_of("net", spec.columns)
    averages = [output.value.dl2.average for output in outputs if output.is_averaged]
    assert len(averages) == min(len(outputs), 1)  # one group of a head is that of events, if it has any
    assert set(averages) <= {"mean", "log_mean", "direction", "position"}
    assert [column for column in spec.columns if column.hdu] == []


@SKY
def test_a_column_of_a_frame_has_no_place_in_dl2(spec):
    assert [column.name for column in spec.columns if column.dl2] == []
    assert [column.name for column in spec.columns if column.hdu] or get_decoder(spec.name).rates  # it flags pixels


@SPECS
def test_outputs_of_a_head_are_those_of_its_task(spec):
    """They are its first ones, whatever is switched off; only a direction without ends has outputs of its own."""
    options = [spec.options()]
    switches = [name for name, field in spec.options.model_fields.items() if field.annotation is bool]
    options += [spec.options(**{name: value}) for name in switches for value in (True, False)]
    assert repeated(spec.outputs) == []
    for chosen in options:
        names = chosen.outputs(spec.outputs)
        assert names
        if getattr(chosen, "ends", True):
            assert names == spec.outputs[: len(names)]
        else:
            assert names == VECTOR_OUTPUTS[: len(names)]
        assert get_objective(spec.name)(chosen).outputs == names


def test_the_uncertainty_of_an_energy_can_be_left_out():
    (spec,) = (spec for spec in specs_of() if spec.name == "energy")
    assert spec.options(uncertainty=False).outputs(spec.outputs) == ("log10_energy_tev",)
    assert spec.options().outputs(spec.outputs) == ("log10_energy_tev", "log_variance")
    assert HeadOptions().outputs(spec.outputs) == spec.outputs
