"""Where telescopes pointed: per run, over time, across north, and unknown."""

import math

import h5py
import hdf5plugin  # noqa: F401  (registers the filters of compressed tables)
import numpy as np
import pytest
from toy_events import write_toy_dl1

from pipeline.camera.dl1 import DL1File
from pipeline.camera.dl1.coordinates import high_resolution_time, mjd, wrapped_rad

FIXED, LEGACY, MONITORED = (
    "/configuration/telescope/pointing", "/dl1/monitoring/telescope/pointing", "/dl0/monitoring/telescope/pointing"
)  # fmt: skip
TRIGGER, SHOWER = "/dl1/event/subarray/trigger", "/simulation/event/subarray/shower"
START_S = 1.6e9


@pytest.fixture
def path(tmp_path):
    """Twelve events, one per second, of two telescopes; showers at altitude 69 deg, azimuth 170 deg."""
    path = tmp_path / "run.dl1.h5"
    write_toy_dl1(path)
    with h5py.File(path, "r+") as file:
        rows = file[TRIGGER][:]
        rows["time"] = high_resolution_time(START_S + np.arange(12))
        file[TRIGGER][:] = rows
    return path


def report(path, times_s, az_deg, alt_deg=69.0, *, tel_ids=(1, 2), group=LEGACY, keep=False):
    """Put reports of the drives in the place of the pointings per run."""
    rows = np.zeros(len(times_s), [("time", "f8"), ("azimuth", "f8"), ("altitude", "f8")])
    rows["time"], rows["azimuth"] = [mjd(time) for time in times_s], np.radians(az_deg)
    rows["altitude"] = np.radians(alt_deg)
    with h5py.File(path, "r+") as file:
        if not keep:
            file.pop(FIXED, None)
        for tel_id in tel_ids:
            table = file.create_dataset(f"{group}/tel_{tel_id:03d}", data=rows)
            table.attrs.update({"CTAFIELD_1_UNIT": b"rad", "CTAFIELD_2_UNIT": b"rad"})


def change(path, name, edit):
    with h5py.File(path, "r+") as file:
        rows = file[name][:]
        edit(rows)
        file[name][:] = rows


def set_columns(path, name, **columns):
    change(path, name, lambda rows: [rows.__setitem__(key, value) for key, value in columns.items()])


def read(path, tel_id=1):
    with DL1File(path) as file:
        return np.concatenate([chunk.truth["true_offset_deg"] for chunk in file.chunks(tel_ids=[tel_id])])


@pytest.mark.parametrize("group", [LEGACY, MONITORED])
def test_reports_across_north(path, group):
    report(path, START_S + np.array([-1, 3, 6, 9]), [359.9, 359.95, 0.05, 0.1], group=group)
    set_columns(path, SHOWER, true_az=0.0)
    with DL1File(path) as file:
        alt, az = file.pointing
    assert alt == pytest.approx(69)
    assert wrapped_rad(np.radians(az)) == pytest.approx(0, abs=1e-9)
    expected = np.repeat([0.1, 0.05, 0.05, 0.1], 3) * math.cos(math.radians(69))
    assert read(path) == pytest.approx(expected, rel=1e-3)


def test_reports_that_are_not_finite_are_left_out(path):
    report(path, START_S + np.array([-1, 2, 4, 6]), [170.0, math.nan, 170.0, 171.0], [69.0, 69.0, math.inf, 69.0])
    assert read(path) == pytest.approx(np.repeat([0, math.cos(math.radians(69))], 6), abs=1e-3)
    with DL1File(path) as file:
        assert file.pointing == pytest.approx((69.0, 170.5))
        assert file.unknown_pointings() == []


def test_two_runs_in_one_old_file_have_their_own_pointings(path):
    """Reports have no run number; those of the second run stand before those of the first."""
    for name in (TRIGGER, SHOWER, "/dl1/event/telescope/trigger", "/dl1/event/telescope/images/tel_001",
                 "/dl1/event/telescope/images/tel_002", "/simulation/event/telescope/images/tel_001",
                 "/simulation/event/telescope/images/tel_002", "/simulation/event/telescope/impact/tel_001",
                 "/simulation/event/telescope/impact/tel_002"):  # fmt: skip
        change(path, name, lambda rows: rows["obs_id"].__setitem__(rows["event_id"] >= 106, 8))
    report(path, [START_S + 6, START_S], [350.0, 170.0])
    set_columns(path, SHOWER, true_az=np.repeat([170.0, 350.0], 6))
    assert read(path) == pytest.approx(np.zeros(12), abs=1e-5)
    with DL1File(path) as file:
        assert file.pointing == pytest.approx((69.0, 170.0))


def test_events_before_the_first_report_take_it(path):
    report(path, [START_S + 1000], [170.0])
    assert read(path) == pytest.approx(np.zeros(12), abs=1e-5)


def test_each_telescope_has_its_own_pointing(path):
    for tel_id, alt_deg in ((1, 69), (2, 71)):
        direction = {"telescope_pointing_altitude": np.radians(alt_deg), "telescope_pointing_azimuth": np.radians(170)}
        set_columns(path, f"{FIXED}/tel_{tel_id:03d}", **direction)
    assert read(path, 1) == pytest.approx(np.zeros(12), abs=1e-4)
    assert read(path, 2) == pytest.approx(np.full(12, 2.0), abs=1e-4)
    with DL1File(path) as file:
        assert file.pointing_of(2) == pytest.approx((71, 170), abs=1e-4)


@pytest.mark.parametrize("how", ["no table", "NaN per run", "NaN reports", "another run"])
def test_without_a_pointing_offsets_are_nan(path, how):
    if how == "no table":
        with h5py.File(path, "r+") as file:
            del file["/configuration/telescope"]
    elif how == "NaN per run":
        for tel_id in (1, 2):
            set_columns(path, f"{FIXED}/tel_{tel_id:03d}", telescope_pointing_azimuth=math.nan)
    elif how == "NaN reports":
        report(path, START_S + np.arange(3), np.full(3, math.nan))
    else:
        for tel_id in (1, 2):
            set_columns(path, f"{FIXED}/tel_{tel_id:03d}", obs_id=99)
    assert np.isnan(read(path)).all()
    with DL1File(path) as file:
        assert file.pointing is None
        expected = "run 7 gives no pointing, or several, of telescope 1, 2: angles to the pointing are NaN"
        assert file.unknown_pointings() == [expected]


def test_two_pointings_of_one_run(path):
    """Parts of one observation that were merged: which of them holds is not known, unless the drive has reported."""
    with h5py.File(path, "r+") as file:
        for tel_id, shift_deg in ((1, 1.0), (2, 0.0)):
            name = f"{FIXED}/tel_{tel_id:03d}"
            rows, attributes = file[name][:], dict(file[name].attrs)
            del file[name]
            rows = np.concatenate([rows, rows, rows])
            rows["telescope_pointing_azimuth"][1] += np.radians(shift_deg)
            rows["telescope_pointing_azimuth"][2] = math.nan
            file[name] = rows
            file[name].attrs.update(attributes)
    assert np.isnan(read(path, 1)).all()
    assert np.isfinite(read(path, 2)).all()
    with DL1File(path) as file:
        (text,) = file.unknown_pointings()
    assert text.startswith("run 7 gives no pointing, or several, of telescope 1: ")
    report(path, [START_S], [170.0], tel_ids=(1,), group=MONITORED, keep=True)
    assert read(path, 1) == pytest.approx(np.zeros(12), abs=1e-5)
