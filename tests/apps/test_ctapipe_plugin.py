"""Models inside ctapipe-process: the values of `lightpool predict`, and one line for what cannot be."""

import json
import pickle
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import tables
import yaml
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1
from two_headed_bundles import two_headed_bundle

from pipeline.camera.dl2 import Output
from pipeline.config import Config
from pipeline.stages.predict import predict
from pipeline.tasks.spec import Column, DL2Place

pytest.importorskip("ctapipe")

from ctapipe.containers import EventType
from ctapipe.core import run_tool
from ctapipe.core.traits import TraitError
from ctapipe.io import EventSource, TableLoader
from ctapipe.tools.merge import MergeTool
from ctapipe.tools.process import ProcessorTool

from pipeline.apps.ctapipe_plugin import LightpoolReconstructor

FOCAL = {"focal_length_choice": "EQUIVALENT"}
IMAGE_WEIGHTS = (0.02, 0.1, 0.5)  # so that charge, time and mask of each pixel count


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles, and a run of three telescopes: 1 and 3 are served by energy and gammaness, 2 is not."""
    root = tmp_path_factory.mktemp("plugin")
    identity = toy_camera().identity
    camera_bundle(root / "energy", "energy", identity, image_weights=IMAGE_WEIGHTS)
    camera_bundle(root / "gammaness", "gammaness", identity, image_weights=IMAGE_WEIGHTS, size_min_pe=800)
    for task in ("direction", "core", "x_max"):
        camera_bundle(root / task, task, identity, image_weights=IMAGE_WEIGHTS)
    two_headed_bundle(root / "both", identity)
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5", tel_ids=(1, 2, 3))
    return root


@pytest.fixture(scope="module")
def subarray(folder):
    with EventSource(folder / "run.dl1.h5", **FOCAL) as source:
        return source.subarray


def process(source, out, *options, raises=True, **settings):
    """ctapipe-process; its exit code."""
    sections = {
        "EventSource": FOCAL,
        "DataWriter": {"write_dl2": True},
        "ShowerProcessor": {"reconstructor_types": ["LightpoolReconstructor"]},
        "LightpoolReconstructor": settings,
    }
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(sections))
    argv = [f"--config={config}", f"--input={source}", f"--output={out}", "--overwrite", *options]
    return run_tool(ProcessorTool(), argv, cwd=out.parent, raises=raises)


def paths(folder, *names):
    return [str(folder / name) for name in names]


def check_same(theirs, ours):
    """Every value of the predictions in `ours`, of telescopes and of events, is in `theirs`; number of finite ones."""
    n_finite = 0
    with tables.open_file(theirs) as first, tables.open_file(ours) as second:
        for table in second.walk_nodes("/dl2/event", "Table"):
            expected, got = table[:], first.get_node(table._v_pathname)[:]
            for name in expected.dtype.names:
                values = got[name.replace("_tels_used", "_telescopes")]
                np.testing.assert_allclose(values, expected[name], rtol=1e-5, err_msg=f"{table._v_pathname} {name}")
                n_finite += np.isfinite(values).sum() if values.dtype.kind == "f" else 0
    return n_finite


# ---- the same values -------------------------------------------------------------------------------------------------
def test_a_dl1_file_gives_what_predict_gives(folder, tmp_path):
    bundles = paths(folder, "energy", "gammaness", "direction", "core", "x_max", "both")
    assert process(folder / "run.dl1.h5", tmp_path / "theirs.dl2.h5", bundles=bundles) == 0
    predict(Config(), [folder / "run.dl1.h5"], bundles, tmp_path / "ours.dl2.h5")
    assert check_same(tmp_path / "theirs.dl2.h5", tmp_path / "ours.dl2.h5") > 100
    with TableLoader(tmp_path / "theirs.dl2.h5", **FOCAL) as loader:
        events, images = loader.read_subarray_events(), loader.read_telescope_events()
    assert len(events) == 12
    assert len(images) == 36
    two = events["tiny_energy_telescopes"].sum(axis=1) == 2
    assert two.sum() == 9  # telescope 2 has no value, and of four events the first is faint
    assert not events["tiny_energy_is_valid"][~two].any()
    assert not events["tiny_energy_telescopes"][:, 1].any()
    # Cuts are those of the bundle.
    assert 0 < images["tiny_gammaness_tel_is_valid"].sum() < images["tiny_energy_tel_is_valid"].sum() == 18
    assert np.isnan(images["tiny_energy_tel_energy"][~images["tiny_energy_tel_is_valid"]]).all()
    assert images["tiny_energy_tel_energy"].unit == "TeV"
    with TableLoader(tmp_path / "ours.dl2.h5", **FOCAL) as loader:
        ours = {name for name in loader.read_telescope_events().colnames if name.startswith("tiny_")}
    assert ours - set(images.colnames) == {name for name in ours if name.endswith("_tels_used")}


def test_images_stored_as_integers_give_what_predict_gives(folder, tmp_path):
    stored = tmp_path / "stored.dl1.h5"
    integers = ["--DataWriter.transform_image=True", "--DataWriter.transform_peak_time=True", "--write-images"]
    process(folder / "run.dl1.h5", stored, *integers, "--no-write-showers", bundles=paths(folder, "energy"))
    with tables.open_file(stored) as file:
        assert file.root.dl1.event.telescope.images.tel_001.coldtypes["image"].base == np.int32
    process(stored, tmp_path / "theirs.dl2.h5", bundles=paths(folder, "energy"))
    predict(Config(), [stored], paths(folder, "energy"), tmp_path / "ours.dl2.h5")
    assert check_same(tmp_path / "theirs.dl2.h5", tmp_path / "ours.dl2.h5") > 50


def test_a_simtel_file_gives_what_predict_gives(data_dir, tmp_path):
    from pipeline.camera.simtel import simtel_cameras

    source = data_dir / "camera" / "simtel" / "sth_proton_run202_za20_North_600_a.simtel.zst"
    identities = dict.fromkeys(camera.identity for camera in simtel_cameras(source).values())
    bundles = [
        str(camera_bundle(tmp_path / f"{task}_{n}", task, identity, name=f"{task}_{n}", image_weights=IMAGE_WEIGHTS))
        for n, identity in enumerate(identities)
        for task in ("energy", "gammaness", "direction", "core")
    ]
    assert len(bundles) == 8
    # ctapipe's default, where ingest takes the equivalent focal length: images do not depend on it.
    process(source, tmp_path / "theirs.dl2.h5", "--EventSource.focal_length_choice=EFFECTIVE", bundles=bundles)
    predict(Config(), [source], bundles, tmp_path / "ours.dl2.h5")
    assert check_same(tmp_path / "theirs.dl2.h5", tmp_path / "ours.dl2.h5") > 50


def test_an_event_in_memory_is_filled(folder, subarray):
    reconstruct = LightpoolReconstructor(subarray, bundles=paths(folder, "energy"), n_jobs=2)
    with EventSource(folder / "run.dl1.h5", **FOCAL) as source:
        faint, event = (event for event, _ in zip(source, range(2), strict=False))
    reconstruct(event)
    of_event, of_image = event.dl2.stereo.energy["tiny_energy"], event.dl2.tel[1].energy["tiny_energy"]
    assert (of_event.telescopes, of_event.is_valid) == ([1, 3], True)
    assert (of_event.prefix, of_image.prefix) == ("tiny_energy", "tiny_energy_tel")
    assert of_image.energy.unit == "TeV"
    assert 0 < of_event.energy_uncert / of_event.energy < of_image.energy_uncert / of_image.energy
    assert not event.dl2.tel[2].energy["tiny_energy"].is_valid
    reconstruct(faint)
    assert faint.dl2.stereo.energy["tiny_energy"].telescopes == []
    assert np.isnan(faint.dl2.tel[1].energy["tiny_energy"].energy)


def test_directions_need_the_pointing_of_the_telescope(folder, subarray):
    reconstruct = LightpoolReconstructor(subarray, bundles=paths(folder, "direction"))
    with EventSource(folder / "run.dl1.h5", **FOCAL) as source:
        _, event = (event for event, _ in zip(source, range(2), strict=False))
    reconstruct(event)
    of_event, of_image = event.dl2.stereo.geometry["tiny_direction"], event.dl2.tel[1].geometry["tiny_direction"]
    for found in (of_event, of_image):
        assert abs(found.alt.to_value("rad") - 1.2) < np.radians(5)
        assert abs(found.az.to_value("rad") - 3.0) < np.radians(15)
        assert found.is_valid
    assert of_event.ang_distance_uncert < of_image.ang_distance_uncert
    assert np.isnan(of_event.core_x)
    disp = event.dl2.tel[1].disp["tiny_direction"]
    assert (disp.prefix, disp.parameter.unit) == ("tiny_direction_tel", "deg")
    assert np.isfinite(disp.parameter)
    event.monitoring.tel.clear()
    reconstruct(event)
    assert not event.dl2.stereo.geometry["tiny_direction"].is_valid
    assert not event.dl2.tel[1].geometry["tiny_direction"].is_valid
    assert np.isfinite(event.dl2.tel[1].disp["tiny_direction"].parameter)
    assert len(event.monitoring.tel) == 0  # ctapipe would write a pointing that is there, if NaN


def test_events_that_are_no_showers_get_no_value(folder, subarray):
    reconstruct = LightpoolReconstructor(subarray, bundles=paths(folder, "energy"))
    with EventSource(folder / "run.dl1.h5", **FOCAL) as source:
        _, event = (event for event, _ in zip(source, range(2), strict=False))
    event.trigger.tel[1].event_type = EventType.PEDESTAL
    reconstruct(event)
    assert event.dl2.stereo.energy["tiny_energy"].telescopes == [3]
    event.trigger.event_type = EventType.FLATFIELD
    reconstruct(event)
    energy = event.dl2.stereo.energy["tiny_energy"]
    assert (energy.telescopes, energy.is_valid, np.isnan(energy.energy)) == ([], False, True)
    assert not event.dl2.tel[1].energy["tiny_energy"].is_valid


def test_the_documented_configuration_works(checkout, folder, tmp_path):
    text = (checkout / "docs" / "ctapipe.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "process.yaml").write_text(text.replace("results/demo/bundles/mono", str(folder / "both")))
    argv = ["--config=process.yaml", f"--input={folder / 'run.dl1.h5'}", "--output=run.dl2.h5"]
    assert run_tool(ProcessorTool(), argv, cwd=tmp_path, raises=True) == 0
    with TableLoader(tmp_path / "run.dl2.h5", **FOCAL) as loader:
        events = loader.read_subarray_events()
    assert np.isfinite(events["HillasReconstructor_alt"]).sum() > 5
    assert (
        np.isfinite(events["tiny_energy_energy"]).sum() == np.isfinite(events["tiny_gammaness_prediction"]).sum() == 9
    )
    with EventSource(tmp_path / "run.dl2.h5", **FOCAL) as source:
        energies = [event.dl2.stereo.energy["tiny_energy"].energy.to_value("TeV") for event in source]
    np.testing.assert_array_equal(energies, events["tiny_energy_energy"])


# ---- the file --------------------------------------------------------------------------------------------------------
def test_files_are_merged(folder, tmp_path):
    write_toy_dl1(tmp_path / "other.dl1.h5", tel_ids=(1, 2, 3), obs_id=8, seed=1)
    for source in (folder / "run.dl1.h5", tmp_path / "other.dl1.h5"):
        process(source, tmp_path / source.name.replace("dl1", "dl2"), bundles=paths(folder, "energy"))
    parts = paths(tmp_path, "run.dl2.h5", "other.dl2.h5")
    assert run_tool(MergeTool(), [*parts, f"--output={tmp_path / 'merged.h5'}"], cwd=tmp_path) == 0
    with TableLoader(tmp_path / "merged.h5", **FOCAL) as loader:
        assert np.isfinite(loader.read_subarray_events()["tiny_energy_energy"]).sum() == 18
    with tables.open_file(tmp_path / "merged.h5") as file:
        statistics = file.root.dl2.service.tel_event_statistics.LightpoolReconstructor[:]
    counted = dict(zip(statistics["criteria"].tolist(), statistics["counts"].tolist(), strict=True))
    assert counted == {b"TOTAL": 72, b"tiny_energy has a value": 36}


@pytest.mark.parametrize(
    ("bundles", "prefix", "energies", "classifications"),
    [
        (("energy",), "lp", {"lp"}, set()),
        (("energy", "gammaness"), "lp", {"lp_energy"}, {"lp_gammaness"}),
        (("both",), "lp", {"lp_energy"}, {"lp_gammaness"}),
        (("both", "energy"), "lp", {"lp_energy", "lp_energy_2"}, {"lp_gammaness"}),
        (("both", "energy"), None, {"tiny_energy", "tiny_energy_2"}, {"tiny_gammaness"}),
    ],
)
def test_names_of_predictions(folder, subarray, bundles, prefix, energies, classifications):
    reconstruct = LightpoolReconstructor(subarray, bundles=paths(folder, *bundles), prefix=prefix)
    with EventSource(folder / "run.dl1.h5", **FOCAL) as source:
        event = next(iter(source))
        reconstruct(event)
    assert set(event.dl2.stereo.energy) == set(event.dl2.tel[1].energy) == energies
    assert set(event.dl2.stereo.classification) == set(event.dl2.tel[1].classification) == classifications


# ---- what is refused -------------------------------------------------------------------------------------------------
def _of_other_camera(folder):
    return [str(camera_bundle(folder / "elsewhere", "energy", "no-such-camera", name="elsewhere"))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "LightpoolReconstructor: bundles is empty; give directories made by `lightpool train`"),
        ({"bundles": ["nowhere"]}, "LightpoolReconstructor: there is no bundle 'nowhere': give a directory made by"),
        ({"bundles": ["energy", "denoise"]}, r"denoise is a model for FITS frames \(denoise\); give models for camera"),
        ({"bundles": ["energy"], "prefix": "a-b"}, "'a-b' cannot be the prefix of a column; letters, digits and _ can"),
        ({"bundles": ["energy"], "n_jobs": 0}, "n_jobs is 0; it must be at least 1"),
        (
            {"bundles": ["elsewhere"]},
            r"no bundle is for a camera of this array: it has Other .*they are for Toy \(no-s",
        ),
        ({"bundles": ["x_max"]}, "ctapipe has no place for x_max; use `lightpool predict --json` for these models"),
        ({"bundels": ["energy"]}, "Config option `bundels` not recognized by `LightpoolReconstructor`"),
    ],
)
def test_wrong_settings_are_named_before_a_file_is_made(folder, tmp_path, settings, message):
    if not (folder / "elsewhere").exists():
        _of_other_camera(folder)
    known = [str(folder / name) if (folder / name).exists() else name for name in settings.get("bundles", [])]
    settings = settings | ({"bundles": known} if known else {})
    with pytest.raises(TraitError, match=message):
        process(folder / "run.dl1.h5", tmp_path / "out.dl2.h5", **settings)
    assert not (tmp_path / "out.dl2.h5").exists()


def test_what_has_no_place_is_named(folder, subarray, monkeypatch, caplog):
    LightpoolReconstructor(subarray, bundles=paths(folder, "energy", "x_max"))
    assert caplog.messages == ["ctapipe has no place for tiny_x_max; `lightpool predict --json` gives them"]
    strange = Output("tiny_energy", (Column("offset", "deg", "", dl2=DL2Place("offset", "offset", average="mean")),))
    monkeypatch.setattr("pipeline.camera.dl2.outputs_of", lambda prefix, columns, of_events: (strange,))
    with pytest.raises(TraitError, match="ctapipe has no place for energy"):
        LightpoolReconstructor(subarray, bundles=paths(folder, "energy"))


def test_an_error_is_one_line(folder, tmp_path, capfd):
    assert process(folder / "run.dl1.h5", tmp_path / "out.dl2.h5", raises=False, bundles=["nowhere"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [("there is no bundle" in line, "Use --help" in line) for line in lines] == [(True, False), (False, True)]


def test_a_file_without_images_is_refused(folder, tmp_path):
    process(folder / "run.dl1.h5", tmp_path / "run.dl1.h5", "--no-write-showers", bundles=paths(folder, "energy"))
    message = f"event {FIRST_EVENT} has no DL1 images: give a file that has them, as ctapipe-process --write-images"
    with pytest.raises(TraitError, match=message):
        process(tmp_path / "run.dl1.h5", tmp_path / "out.dl2.h5", bundles=paths(folder, "energy"))


def test_apply_models_is_refused(folder, subarray):
    reconstruct = LightpoolReconstructor(subarray, bundles=paths(folder, "energy"))
    message = "works on camera images, and ctapipe-apply-models on tables .* run `lightpool predict` on the DL1 file"
    with pytest.raises(TypeError, match=message):
        pickle.dumps(reconstruct)
    with pytest.raises(TraitError, match=message):
        reconstruct.predict_table(subarray.tel[1], None)


# ---- the entry point -------------------------------------------------------------------------------------------------
def test_ctapipe_finds_it_and_loads_little(checkout, tmp_path):
    """By the entry points of pyproject.toml, whatever version is installed here."""
    groups = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["entry-points"]
    distribution = tmp_path / "lightpool-0.dist-info"
    distribution.mkdir()
    lines = [line for g, points in groups.items() for line in (f"[{g}]", *(f"{n} = {v}" for n, v in points.items()))]
    (distribution / "entry_points.txt").write_text("\n".join(lines))
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: lightpool\nVersion: 0\n")
    code = (
        f"import sys, json; sys.path[:0] = [{str(tmp_path)!r}, {str(checkout)!r}]\n"
        "from ctapipe.reco import Reconstructor\n"
        "before = set(sys.modules)\n"
        "known = Reconstructor.non_abstract_subclasses()\n"
        "print(json.dumps([known['LightpoolReconstructor'].__module__, sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    module, loaded = json.loads(done.stdout)
    assert module == LightpoolReconstructor.__module__
    ours = [name for name in loaded if name.startswith(("pipeline", "lightpool", "onnxruntime", "pydantic", "numba"))]
    assert ours == ["pipeline", "pipeline.apps", "pipeline.apps.ctapipe_plugin", "pipeline.errors"]
