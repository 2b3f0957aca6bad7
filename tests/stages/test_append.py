"""`lightpool predict FILE --append DL2`: further predictions in a DL2 file that is there."""

import json
import shutil

import h5py
import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1

from pipeline import cli
from pipeline.camera.dl2 import appending
from pipeline.config import parse_config
from pipeline.errors import OutputError, UserError
from pipeline.stages.predict import predict

CFG = parse_config({"threads": 1})
OURS = "LIGHTPOOL PROVENANCE OF tiny_gammaness"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles, a file with images, its DL2 by one bundle and by two."""
    root = tmp_path_factory.mktemp("append")
    for task in ("energy", "gammaness", "direction"):
        camera_bundle(root / task, task, toy_camera().identity)
    camera_bundle(root / "other", "energy", toy_camera("Other", 0.06).identity, name="other")
    write_toy_dl1(root / "run.dl1.h5", tel_ids=(1, 2, 3))
    add_direction = [root / "energy", root / "direction"]
    predict(CFG, [root / "run.dl1.h5"], add_direction, root / "run.dl2.h5")
    predict(CFG, [root / "run.dl1.h5"], [*add_direction, root / "gammaness"], root / "all.dl2.h5")
    fits.PrimaryHDU(np.zeros((8, 8), np.float32)).writeto(root / "frame.fits")
    return root


@pytest.fixture
def dl2(folder, tmp_path):
    """A copy of the DL2 file, to be changed."""
    for name in ("run.dl2.h5", "run.dl2.h5.provenance.json"):
        shutil.copy(folder / name, tmp_path / name)
    return tmp_path / "run.dl2.h5"


def append(folder, target, bundle="gammaness", source="run.dl1.h5", **options):
    return predict(CFG, [folder / source], [folder / bundle], append=target, **options)


def tables_of(path):
    """Path -> rows of all tables."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
        attributes = {name: dict(file[name].attrs) for name in ("dl2/event/subarray/energy/tiny_energy",)}
    return found, attributes


def test_the_same_as_with_all_models_at_once(folder, dl2):
    (status,) = append(folder, dl2)
    assert (status["status"], status["output"]) == ("ok", str(dl2))
    assert "warnings" not in status
    (got, _), (expected, _) = tables_of(dl2), tables_of(folder / "all.dl2.h5")
    assert got.keys() == expected.keys()
    for name, rows in got.items():
        assert rows.tobytes() == expected[name].tobytes(), name
    assert sorted(path.name for path in dl2.parent.iterdir()) == [dl2.name, f"{dl2.name}.provenance.json"]


def test_what_was_there_stays(folder, dl2):
    append(folder, dl2)
    (got, attributes), (before, earlier) = tables_of(dl2), tables_of(folder / "run.dl2.h5")
    for name, rows in before.items():
        assert got[name].tobytes() == rows.tobytes(), name
    assert attributes.keys() == earlier.keys()
    with h5py.File(dl2) as file, h5py.File(folder / "run.dl2.h5") as old:
        assert {name: file.attrs[name] for name in old.attrs} == dict(old.attrs)
        assert json.loads(file.attrs[OURS])["bundles"].keys() == {"tiny_gammaness"}
    sidecar = json.loads(dl2.with_name(f"{dl2.name}.provenance.json").read_text())
    assert sidecar["bundles"].keys() == {"tiny_gammaness"}
    assert sidecar["added_to"]["bundles"].keys() == {"tiny_energy", "tiny_direction"}


def test_ctapipe_reads_them(folder, dl2):
    ctapipe_io = pytest.importorskip("ctapipe.io")
    append(folder, dl2)
    with ctapipe_io.TableLoader(dl2, focal_length_choice="EQUIVALENT") as loader:
        images, events = loader.read_telescope_events(), loader.read_subarray_events()
    with ctapipe_io.TableLoader(folder / "all.dl2.h5", focal_length_choice="EQUIVALENT") as loader:
        expected = loader.read_telescope_events()
    np.testing.assert_array_equal(images["tiny_gammaness_tel_prediction"], expected["tiny_gammaness_tel_prediction"])
    assert np.isfinite(images["tiny_energy_tel_energy"]).sum() > 0
    assert events["tiny_gammaness_is_valid"].sum() == events["tiny_energy_is_valid"].sum() > 0
    with ctapipe_io.EventSource(dl2, focal_length_choice="EQUIVALENT") as source:
        for event in source:
            for tel_id, values in event.dl2.tel.items():
                row = images[(images["event_id"] == event.index.event_id) & (images["tel_id"] == tel_id)]
                given = values.classification["tiny_gammaness"].prediction
                np.testing.assert_array_equal(given, row["tiny_gammaness_tel_prediction"][0])


def test_events_that_the_file_with_images_lacks_have_no_value(folder, dl2, tmp_path):
    with h5py.File(folder / "run.dl1.h5") as whole, h5py.File(tmp_path / "part.dl1.h5", "w") as part:
        for name in (*whole, *whole.attrs):
            if name in whole:
                whole.copy(name, part)
            else:
                part.attrs[name] = whole.attrs[name]
        _keep(part, lambda rows: rows["event_id"] < FIRST_EVENT + 9)
    (status,) = append(tmp_path, dl2, folder / "gammaness", "part.dl1.h5")
    assert status["warnings"] == ["3 of 12 events of the DL2 file are not in the file with images"]
    (got, _), (expected, _) = tables_of(dl2), tables_of(folder / "all.dl2.h5")
    for name in (
        "dl2/event/telescope/classification/tiny_gammaness/tel_003",
        "dl2/event/subarray/classification/tiny_gammaness",
    ):
        rows, is_given = got[name], got[name]["event_id"] < FIRST_EVENT + 9
        assert rows[is_given].tobytes() == expected[name][is_given].tobytes()
        np.testing.assert_array_equal(rows[["obs_id", "event_id"]], expected[name][["obs_id", "event_id"]])
        (value,) = (column for column in rows.dtype.names if column.endswith("_prediction"))
        (valid,) = (column for column in rows.dtype.names if column.endswith("is_valid"))
        assert np.isnan(rows[~is_given][value]).all()
        assert not rows[~is_given][valid].any()


def _keep(file, choose):
    """Only the chosen rows of all tables of events."""
    names = []
    file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    for name in names:
        if "event_id" in (file[name].dtype.names or ()):
            attributes, rows = dict(file[name].attrs), file[name][()]
            del file[name]
            file[name] = rows[choose(rows)]
            file[name].attrs.update(attributes)


# ---- what is refused -------------------------------------------------------------------------------------------------
@pytest.fixture
def unchanged(dl2):
    """Nothing of what is refused changes the file, or leaves another one."""
    before = {path.name: path.read_bytes() for path in dl2.parent.iterdir()}
    yield dl2
    after = {
        path.name: path.read_bytes() for path in dl2.parent.iterdir() if path.name in before or path.name[0] == "."
    }
    assert after == before


def test_predictions_that_are_there_are_not_replaced(folder, unchanged, capsys):
    argv = ["predict", folder / "run.dl1.h5", "--bundle", folder / "energy", "--append", unchanged, "--force"]
    assert cli.main([*map(str, argv)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{unchanged} holds predictions of tiny_energy already (/dl2/event/telescope/energy/tiny_energy)" in line


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"obs_id": 9}, "has none of the events of the file with images: it has run 7, and the images are of run 9"),
        ({"seed": 3}, r"run 7, event 100 is of [\d.]+ TeV, and in the file with images of [\d.]+ TeV \(12 events"),
    ],
)
def test_events_of_other_runs(folder, unchanged, tmp_path, made, message):
    write_toy_dl1(tmp_path / "other.dl1.h5", **made)
    (status,) = append(tmp_path, unchanged, folder / "gammaness", "other.dl1.h5")
    assert status["status"] == "failed"
    with pytest.raises(UserError, match=message):
        raise UserError(status["reason"])


def test_a_shower_without_an_energy(folder, tmp_path):
    run, dl2 = tmp_path / "run.dl1.h5", tmp_path / "run.dl2.h5"
    shutil.copy(folder / "run.dl1.h5", run)
    with h5py.File(run, "a") as file:
        showers = file["simulation/event/subarray/shower"]
        rows = showers[:]
        rows["true_energy"][1] = np.nan
        showers[:] = rows
    predict(CFG, [run], [folder / "energy"], dl2)
    (status,) = append(tmp_path, dl2, folder / "gammaness")
    assert status["status"] == "ok"
    (status,) = append(folder, dl2, "direction")  # from a file that has the energy
    assert "run 7, event 101 is of nan TeV, and in the file with images of" in status["reason"]


def test_images_that_are_not_in_the_file(folder, unchanged):
    (status,) = append(folder, unchanged, "other")
    assert "has none of the images that the models are for; nothing is added" in status["reason"]


@pytest.mark.parametrize(
    ("files", "target", "options", "message"),
    [
        (["run.dl1.h5"], None, {"out": "a.h5"}, "--append changes .*, and --out writes a file of its own; give one"),
        (["run.dl1.h5"], None, {"event": 101}, "--append adds predictions for whole files; leave --event"),
        (["run.dl1.h5", "all.dl2.h5"], None, {}, "--append adds predictions from one file with images, got 2"),
        (["frame.fits"], None, {}, "--append adds predictions for camera images, and frame.fits is a FITS frame"),
        (["run.dl1.h5"], "run.dl1.h5", {}, "run.dl1.h5 is no DL2 file; --append takes one, and --out writes a new"),
        (["run.dl1.h5"], "nothing.h5", {}, "nothing.h5 does not exist"),
        (["run.dl2.h5"], None, {}, "is a DL2 file without images, which predictions are made from"),
    ],
)
def test_what_cannot_be_appended(folder, unchanged, tmp_path, files, target, options, message):
    options = {name: tmp_path / value if name == "out" else value for name, value in options.items()}
    target = unchanged if target is None else folder / target
    with pytest.raises(UserError, match=message):
        predict(CFG, [folder / name for name in files], [folder / "gammaness"], append=target, **options)


def test_the_input_stays(folder, tmp_path):
    """A file with images and DL2, as `ctapipe-process --write-images` makes it."""
    shutil.copy(folder / "run.dl1.h5", tmp_path / "both.h5")
    with h5py.File(tmp_path / "both.h5", "a") as both, h5py.File(folder / "run.dl2.h5") as dl2:
        dl2.copy("dl2", both)
    with pytest.raises(UserError, match=r"both.h5 is the input, which stays as it is; write predictions to a file of"):
        append(tmp_path, tmp_path / "both.h5", folder / "gammaness", "both.h5")
    (status,) = append(folder, tmp_path / "both.h5")  # from another file
    assert status["status"] == "ok"


def test_whole_or_nothing(folder, unchanged, monkeypatch):
    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(appending.DL2Appender, "_write_predictions", full)
    with pytest.raises(OutputError, match=r"cannot write .*: no space left on device"):
        append(folder, unchanged)


def test_triggers_that_contradict_each_other(folder, dl2):
    with h5py.File(dl2, "a") as file:
        rows = file["dl1/event/subarray/trigger"][()]
        rows["tels_with_trigger"][0] = False
        file["dl1/event/subarray/trigger"][...] = rows
    (status,) = append(folder, dl2)
    assert "do not name the same images; write the file again with ctapipe-process" in status["reason"]


def test_events_that_stand_twice(folder, dl2):
    with h5py.File(dl2, "a") as file:
        rows = file["dl1/event/subarray/trigger"][()]
        rows[1] = rows[0]
        file["dl1/event/subarray/trigger"][...] = rows
    (status,) = append(folder, dl2)
    assert "event 100 stands more than once" in status["reason"]
