"""Which events are showers: one rule for files, events in memory, predictions and tiles."""

import io
import json
from typing import get_args

import h5py
import hdf5plugin  # noqa: F401  (registers the filters of compressed tables)
import numpy as np
import pytest
from tiny_bundles import camera_bundle
from toy_events import toy_camera, write_toy_dl1

from pipeline.camera.dl1 import DL1File
from pipeline.camera.event_types import NUMBERS, combined_types, reasons_of_types, type_name, type_names
from pipeline.config import Config
from pipeline.config.ingest import CameraIngestConfig, EventTypeName
from pipeline.stages.predict import predict
from pipeline.stages.tiles import make_tiles

TRIGGER, TEL_TRIGGER = "/dl1/event/subarray/trigger", "/dl1/event/telescope/trigger"
UNKNOWN = 255


def test_names_and_numbers_are_ctapipes():
    from ctapipe.containers import EventType

    assert {name.replace("flat_field", "flatfield"): number for name, number in NUMBERS.items()} == {
        kind.name.lower(): kind.value for kind in EventType
    }
    assert set(get_args(EventTypeName)) == set(NUMBERS)


@pytest.mark.parametrize(
    ("array_type", "telescope_type", "expected"),
    [
        (32, 32, 32), (32, UNKNOWN, 32), (0, 32, 0), (2, 0, 0), (UNKNOWN, 32, 32), (-1, 0, 0),
        (UNKNOWN, UNKNOWN, UNKNOWN), (32, 0, 0), (32, 2, 2), (32, 15, 15), (32, 16, 32), (32, -1, 32), (16, 32, 16),
        (33, 17, 33),
    ],
)  # fmt: skip
def test_the_array_decides_unless_a_camera_says_calibration(array_type, telescope_type, expected):
    assert combined_types(np.array([array_type]), np.array([telescope_type])).tolist() == [expected]


def test_reasons_by_type():
    types = np.array([32, 0, 2, 16, 17, 18, 24, 33, 255, -1, 99])
    reasons = reasons_of_types(types, CameraIngestConfig().event_types).tolist()
    assert reasons == [
        "", "event type flat field", "event type pedestal", "event type muon", "", "", "event type daq", "", "", "",
        "event type 99",
    ]  # fmt: skip
    assert reasons_of_types(types[:2], ("flat_field",)).tolist() == ["event type subarray", ""]
    assert type_names(np.array([0, 32, 0])).tolist() == ["flat_field", "subarray", "flat_field"]
    assert type_name(-1) == "unknown"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve events of one telescope: 101 and 102 are flat fields, 103 is a pedestal by its camera alone."""
    folder = tmp_path_factory.mktemp("types")
    write_toy_dl1(folder / "run.dl1.h5", tel_ids=(1,), faint_every=100)
    with h5py.File(folder / "run.dl1.h5", "r+") as file:
        for name, events, number in ((TRIGGER, (101, 102), 0), (TEL_TRIGGER, (103,), 2)):
            rows = file[name][:]
            rows["event_type"][np.isin(rows["event_id"], events)] = number
            file[name][:] = rows
    camera_bundle(folder / "energy", "energy", toy_camera().identity)
    return folder


def config(*event_types):
    return Config(
        name="t",
        ingest={"camera": {"event_types": event_types} if event_types else {}},
        tiles={"camera": {"size": 16, "cuts": {"size_min_pe": 0, "n_pixels_min": 1, "leakage_max": 1}}},
    )


def predicted(folder, cfg, **options):
    stream = io.StringIO()
    (status,) = predict(cfg, [folder / "run.dl1.h5"], [folder / "energy"], as_json=True, stream=stream, **options)
    return status, {r["event_id"]: r for r in map(json.loads, stream.getvalue().splitlines())}


def test_events_that_are_no_showers_are_counted_and_not_predicted(folder):
    status, records = predicted(folder, config())
    left_out = {k: v for k, v in status["left_out"].items() if k.startswith("event type")}
    assert left_out == {"event type flat field": 2, "event type pedestal": 1}
    assert [records[n]["event_type"] for n in (101, 103, 104)] == ["flat_field", "pedestal", "subarray"]
    assert (records[101]["valid"], records[101]["reason"]) == (False, "event type flat field")
    assert records[101]["reco_energy_tev"] is None
    assert records[104]["valid"]
    _, single = predicted(folder, config(), event=103)
    assert single[103]["reason"] == "event type pedestal"


def test_types_that_are_asked_for_are_predicted(folder):
    status, records = predicted(folder, config("flat_field", "subarray"))
    assert records[101]["valid"]
    assert records[101]["event_type"] == "flat_field"
    assert [k for k in status["left_out"] if k.startswith("event type")] == ["event type pedestal"]


def test_in_dl2_they_have_a_row_that_is_not_valid(folder, tmp_path):
    from ctapipe.io import TableLoader

    predict(config(), [folder / "run.dl1.h5"], [folder / "energy"], tmp_path / "run.dl2.h5")
    with TableLoader(tmp_path / "run.dl2.h5", focal_length_choice="EQUIVALENT") as loader:
        events = loader.read_subarray_events(dl2=True)
    valid = dict(zip(events["event_id"].tolist(), events["tiny_energy_is_valid"].tolist(), strict=True))
    assert {n for n, is_valid in valid.items() if not is_valid} >= {101, 102, 103}
    assert len(valid) == 12
    assert valid[104]


@pytest.mark.parametrize(("types", "n_others"), [((), 0), (("flat_field", "subarray"), 2)])
def test_they_get_no_tiles(folder, tmp_path, types, n_others):
    (status,) = make_tiles([folder / "run.dl1.h5"], config(*types), tmp_path)
    rejected = status["rejected"]
    assert rejected["event type pedestal"] == 1
    assert rejected.get("event type flat field", 0) == 2 - n_others
    with h5py.File(status["output"]) as shard:
        assert len({101, 102} & set(shard["events/event_id"][:].tolist())) == n_others


def test_counts_by_type(folder):
    with DL1File(folder / "run.dl1.h5") as file:
        assert file.event_types() == {"flat_field": 2, "subarray": 10}


def test_a_file_without_types_has_unknown_ones_which_are_used(folder, tmp_path):
    path = tmp_path / "run.dl1.h5"
    path.write_bytes((folder / "run.dl1.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        for name in (TRIGGER, TEL_TRIGGER):
            rows, attributes = file[name][:], dict(file[name].attrs)
            del file[name]
            file[name] = (
                rows[[n for n in rows.dtype.names if n != "event_type"]]
                .copy()
                .astype([(n, rows.dtype[n]) for n in rows.dtype.names if n != "event_type"])
            )
            file[name].attrs.update(attributes)
    with DL1File(path) as file:
        assert file.event_types() == {"unknown": 12}
        assert set(next(file.chunks()).left_out.tolist()) == {""}
