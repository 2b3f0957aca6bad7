"""What the stages say of images whose keys do not fit: on the screen, in the product and in its sidecar."""

import json
import logging

import h5py
import hdf5plugin  # noqa: F401  (registers the filters of compressed tables)
import numpy as np
import pytest
from tiny_bundles import camera_bundle
from toy_events import toy_camera, write_toy_dl1

from pipeline.config import Config
from pipeline.stages.info import describe_file
from pipeline.stages.predict import predict
from pipeline.stages.tiles import make_tiles

TRIGGER, TEL_TRIGGER = "/dl1/event/subarray/trigger", "/dl1/event/telescope/trigger"
CFG = Config(name="t", tiles={"camera": {"size": 16, "cuts": {"size_min_pe": 0, "n_pixels_min": 1, "leakage_max": 1}}})
N_EVENTS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Event 105 has lost its telescope trigger."""
    folder = tmp_path_factory.mktemp("keys")
    write_toy_dl1(folder / "good.dl1.h5", n_events=N_EVENTS, tel_ids=(1,), faint_every=1000)
    (folder / "run.dl1.h5").write_bytes((folder / "good.dl1.h5").read_bytes())
    with h5py.File(folder / "run.dl1.h5", "r+") as file:
        change(file, TEL_TRIGGER, lambda rows: rows[rows["event_id"] != 105])
    camera_bundle(folder / "energy", "energy", toy_camera().identity)
    return folder


def change(file, name, edit):
    rows, attributes = edit(file[name][:]), dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=rows, maxshape=(None,), chunks=(16,)).attrs.update(attributes)


TEXT = (
    "images left out: 1 of 30 (no telescope trigger in the file); DL2 has no place for them, write the file again with "
    "their triggers if they matter"
)


def sidecar(product):
    return json.loads(product.with_name(product.name + ".provenance.json").read_text())


def test_predict_warns_everywhere_and_leaves_the_image_out(folder, tmp_path, caplog):
    out = tmp_path / "run.dl2.h5"
    with caplog.at_level(logging.WARNING, "lightpool"):
        (status,) = predict(CFG, [folder / "run.dl1.h5"], [folder / "energy"], out)
    assert caplog.text.count(f"run.dl1.h5: {TEXT}") == 1
    assert status["warnings"] == [TEXT]
    assert status["left_out"]["no telescope trigger in the file"] == 1
    assert status["n_images"] == N_EVENTS
    assert sidecar(out)["warnings"] == [TEXT]
    with h5py.File(out) as file:
        assert json.loads(file.attrs["LIGHTPOOL PROVENANCE"])["warnings"] == [TEXT]
        events = file["/dl2/event/telescope/energy/tiny_energy/tel_001"]["event_id"].tolist()
    assert events == [event for event in range(100, 100 + N_EVENTS) if event != 105]


def test_tiles_warn_everywhere(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "lightpool"):
        (status,) = make_tiles([folder / "run.dl1.h5"], CFG, tmp_path)
    assert status["warnings"] == [TEXT]
    assert caplog.text.count(f"run.dl1.h5: {TEXT}") == 1
    assert status["rejected"]["no telescope trigger in the file"] == 1
    assert sidecar(tmp_path / "run.tiles.h5")["warnings"] == [TEXT]


def test_a_good_file_has_no_warnings(folder, tmp_path):
    (status,) = predict(CFG, [folder / "good.dl1.h5"], [folder / "energy"], tmp_path / "good.dl2.h5")
    assert "warnings" not in status
    assert "warnings" not in sidecar(tmp_path / "good.dl2.h5")
    (status,) = make_tiles([folder / "good.dl1.h5"], CFG, tmp_path)
    assert "warnings" not in status


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (104, "event 104 has a trigger, but no image in the file"),
        (999, "has no event 999; its event ids go from 100 to 129"),
    ],
)
def test_an_event_without_image(folder, tmp_path, event, reason):
    path = tmp_path / "run.dl1.h5"
    path.write_bytes((folder / "good.dl1.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file, "/dl1/event/telescope/images/tel_001", lambda rows: rows[rows["event_id"] != 104])
    (status,) = predict(CFG, [path], [folder / "energy"], event=event)
    assert (status["status"], reason in status["reason"]) == ("failed", True), status


def test_info_names_types_and_pointings(folder):
    text = "\n".join(describe_file(folder / "run.dl1.h5"))
    assert "no trigger   1 images or more: left out" in text
    text = "\n".join(describe_file(folder / "good.dl1.h5"))
    assert "no trigger" not in text
    assert "event types  30 subarray" in text
    assert "altitude 68.75 deg, azimuth 171.89 deg" in text


def test_info_names_pointings_that_differ_and_keys_that_are_refused(tmp_path):
    path = tmp_path / "run.dl1.h5"
    write_toy_dl1(path)
    with h5py.File(path, "r+") as file:
        table = file["/configuration/telescope/pointing/tel_002"]
        rows = table[:]
        rows["telescope_pointing_altitude"] += np.radians(1)
        table[:] = rows
    text = "\n".join(describe_file(path))
    assert "altitude 68.75 deg, azimuth 171.89 deg (telescope 1)" in text
    assert "altitude 69.75 deg, azimuth 171.89 deg (telescope 2)" in text
    with h5py.File(path, "r+") as file:
        rows = file[TRIGGER][:]
        rows["event_id"][3] = rows["event_id"][7]
        file[TRIGGER][:] = rows
    assert f"refused     run 7, event 107 stands more than once in {TRIGGER}" in "\n".join(describe_file(path))
