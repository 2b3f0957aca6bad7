"""Rows of a DL1 file that were lost, repeated, moved or renamed: refused, left out, or still with their own truth."""

import h5py
import hdf5plugin  # noqa: F401  (registers the filters of compressed tables)
import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields
from toy_events import FIRST_EVENT, write_toy_dl1

from pipeline.camera.dl1 import DL1File
from pipeline.camera.tiling import tile_file
from pipeline.config import CameraTilesConfig
from pipeline.errors import InputFileError
from pipeline.inputs.image import ImageRecipe

TRIGGER, TEL_TRIGGER = "/dl1/event/subarray/trigger", "/dl1/event/telescope/trigger"
SHOWER = "/simulation/event/subarray/shower"
PER_TELESCOPE = (
    "/dl1/event/telescope/images",
    "/dl1/event/telescope/parameters",
    "/simulation/event/telescope/images",
    "/simulation/event/telescope/impact",
)
TABLES = (TRIGGER, TEL_TRIGGER, SHOWER, *(f"{group}/tel_{tel_id:03d}" for group in PER_TELESCOPE for tel_id in (1, 2)))
IMAGES = "/dl1/event/telescope/images/tel_001"
N_EVENTS = 40
RECIPE = ImageRecipe.of(CameraTilesConfig(size=16, cuts={"size_min_pe": 0, "n_pixels_min": 1, "leakage_max": 1}))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "run.dl1.h5"
    write_toy_dl1(path, n_events=N_EVENTS, faint_every=1000)
    with h5py.File(path, "r+") as file:  # parameters too, of which only the keys are read
        for tel_id in (1, 2):
            keys = file[f"/dl1/event/telescope/images/tel_{tel_id:03d}"][:][["obs_id", "event_id", "tel_id"]]
            file[f"/dl1/event/telescope/parameters/tel_{tel_id:03d}"] = repack_fields(keys)
    return path


@pytest.fixture
def edited(good, tmp_path):
    """Make a copy whose tables are changed: {table: function of its rows}."""

    def make(changes):
        path = tmp_path / "edited.dl1.h5"
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as file:
            for name, change in changes.items():
                replace_rows(file, name, change(file[name][:]))
        return path

    return make


def replace_rows(file, name, rows):
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=rows, maxshape=(None,), chunks=(16,)).attrs.update(attributes)


@pytest.fixture(scope="module")
def truth(good):
    """Energy of each event, and the charge of each image by event and telescope."""
    with h5py.File(good) as file:
        energies = dict(zip(file[SHOWER]["event_id"].tolist(), file[SHOWER]["true_energy"].tolist(), strict=True))
        charges = {
            (int(row["event_id"]), tel_id): float(row["image"].sum())
            for tel_id in (1, 2)
            for row in file[f"/dl1/event/telescope/images/tel_{tel_id:03d}"][:]
        }
    assert len(set(charges.values())) == len(charges)
    return energies, charges


def renamed(old, new):
    def change(rows):
        rows["event_id"][rows["event_id"] == old] = new
        return rows

    return change


def without(*events):
    return lambda rows: rows[~np.isin(rows["event_id"], events)]


def check_own_truth(path, truth):
    """Every image that is used carries the charge and the energy of its event; returns why others are not used."""
    energies, charges = truth
    reasons = {}
    with DL1File(path) as file:
        for chunk in file.chunks(size=7):
            for place, event in enumerate(chunk.event_id.tolist()):
                if chunk.left_out[place]:
                    reasons[event, chunk.tel_id] = chunk.left_out[place]
                    continue
                assert chunk.image[place].sum() == pytest.approx(charges[event, chunk.tel_id])
                assert chunk.truth["true_energy_tev"][place] == energies[event]
        for batch, _ in tile_file(file, RECIPE, [file.telescopes[1].identity]):
            for event, energy in zip(batch.events["event_id"].tolist(), batch.events["true_energy_tev"], strict=True):
                assert energy == energies[event]
                assert (event, 1) not in reasons
    return reasons


def check_single_events(path, truth):
    """Each event by its number: all its images that are in the file, and no other."""
    with h5py.File(path) as raw:
        stored = {
            tel_id: raw[f"/dl1/event/telescope/images/tel_{tel_id:03d}"]["event_id"].tolist() for tel_id in (1, 2)
        }
    for event in range(FIRST_EVENT, FIRST_EVENT + N_EVENTS, 3):
        with DL1File(path) as file:
            found = [(event_id, c.tel_id) for c in file.chunks(event_ids=[event]) for event_id in c.event_id.tolist()]
        assert found == [(event, tel_id) for tel_id in (1, 2) if event in stored[tel_id]]


# ---- at random -------------------------------------------------------------------------------------------------------
def lose(rng, rows):
    return np.delete(rows, rng.choice(len(rows), rng.integers(1, 4), replace=False))


def lose_half(rng, rows):
    return rows[: len(rows) // 2]


def repeat(rng, rows):
    places = rng.choice(len(rows), 2)
    return np.insert(rows, places, rows[rng.permutation(places)])


def shuffle(rng, rows):
    return rows[rng.permutation(len(rows))]


def rename(rng, rows):
    rows["event_id"][rng.integers(len(rows))] = rng.choice([FIRST_EVENT + 5, 5000, -1])
    return rows


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.slow] if n >= 20 else []) for n in range(60)])
def test_rows_changed_at_random_never_give_another_truth(edited, truth, seed):
    """One to three changes of any tables: a line that names an event, or every image with its own truth."""
    rng = np.random.default_rng(seed)
    changes = {}
    for name in rng.choice(TABLES, rng.integers(1, 4), replace=False).tolist():
        # Renaming the images themselves makes other events of them, which no reader can see.
        steps = [lose, repeat, shuffle, lose_half] if "/images/" in name else [lose, repeat, shuffle, lose_half, rename]
        step = steps[rng.integers(len(steps))]
        changes[name] = lambda rows, step=step: step(rng, rows)
    path = edited(changes)
    messages = []
    for check in (check_own_truth, check_single_events):
        try:
            check(path, truth)
        except InputFileError as error:
            messages.append(str(error))
    assert all("event" in text and "\n" not in text for text in messages)


def test_tables_shuffled_apart_lose_nothing(edited, truth):
    rng = np.random.default_rng(1)
    path = edited({name: lambda rows: rows[rng.permutation(len(rows))] for name in TABLES})
    assert check_own_truth(path, truth) == {}
    check_single_events(path, truth)


# ---- one kind each ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("table", TABLES)
def test_a_key_that_stands_twice_is_named_with_its_table(edited, table):
    path = edited({table: renamed(FIRST_EVENT + 30, FIRST_EVENT + 4)})
    with (
        pytest.raises(InputFileError, match=rf"run 7, event 104.* stands more than once in {table}"),
        DL1File(path) as f,
    ):
        f.check()


def test_equal_rows_are_refused_too(edited):
    path = edited({name: lambda rows: np.insert(rows, 3, rows[3]) for name in TABLES})
    with pytest.raises(InputFileError, match=rf"event 103 stands more than once in {TRIGGER}"), DL1File(path) as file:
        next(file.chunks(event_ids=[103]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({TRIGGER: without(110), SHOWER: without(110)}, "no array trigger in the file"),
        ({TEL_TRIGGER: without(110)}, "no telescope trigger in the file"),
        (
            {TRIGGER: lambda rows: (rows["tels_with_trigger"].__setitem__(slice(10, 11), False), rows)[1]},
            "telescope is not among those that triggered the event",
        ),
    ],
)
def test_images_without_a_trigger_are_left_out_and_told(edited, truth, changes, reason):
    path = edited(changes)
    assert check_own_truth(path, truth) == {(110, 1): reason, (110, 2): reason}
    with DL1File(path) as file:
        (text,) = file.check()
        (first, second) = file.chunks(event_ids=[110])
    assert text.startswith(f"images left out: 2 of 80 ({reason}); ")
    assert [chunk.left_out.tolist() for chunk in (first, second)] == [[reason], [reason]]
    assert not first.is_triggered.any()


def test_a_file_that_lost_half_of_its_triggers_is_refused(edited):
    path = edited({TRIGGER: lambda rows: rows[: N_EVENTS // 2]})
    message = r"40 of 80 images have no trigger \(first: run 7, event 120, telescope 1: no array trigger.*more than 5%"
    for events in (None, [103], [130]):
        with DL1File(path) as file:
            if events == [103]:  # its own trigger is there, and the tables agree on its row
                assert [chunk.event_id.tolist() for chunk in file.chunks(event_ids=events)] == [[103], [103]]
                continue
            with pytest.raises(InputFileError, match=message):
                file.check() if events is None else list(file.chunks(event_ids=[999]))


def test_a_trigger_without_image_and_an_image_without_trigger_do_not_shift_events(edited, truth):
    """As many rows in both tables, and other events between the two: places no longer agree."""
    lost, late = FIRST_EVENT + 10, FIRST_EVENT + 14
    groups = {f"{group}/tel_001": without(lost) for group in PER_TELESCOPE}
    keep = lambda rows: rows[~((rows["event_id"] == late) & (rows["tel_id"] == 1))]  # noqa: E731
    path = edited(groups | {TEL_TRIGGER: keep})
    assert check_own_truth(path, truth) == {(late, 1): "no telescope trigger in the file"}
    with DL1File(path) as file:
        for event in range(FIRST_EVENT, FIRST_EVENT + N_EVENTS):
            found = [c.event_id.tolist() for c in file.chunks(event_ids=[event], tel_ids=[1])]
            assert found == ([] if event == lost else [[event]])


def test_a_simulated_image_without_shower_is_refused(edited):
    path = edited({SHOWER: without(117)})
    message = "run 7, event 117, telescope 1 has an image but no simulated shower"
    with pytest.raises(InputFileError, match=message), DL1File(path) as file:
        file.check()
    with pytest.raises(InputFileError, match=message), DL1File(path) as file:
        list(file.chunks(event_ids=[117]))


def test_a_row_of_another_telescope_is_refused(edited):
    def change(rows):
        rows["tel_id"][2] = 2
        return rows

    path = edited({IMAGES: change})
    message = r"images/tel_001 has a row of another telescope \(run 7, event 102, telescope 2\)"
    with pytest.raises(InputFileError, match=message), DL1File(path) as file:
        list(file.chunks(event_ids=[102]))


def test_one_event_is_found_without_reading_the_ids_of_all_images(good, edited, monkeypatch):
    calls = []
    monkeypatch.setattr("pipeline.camera.dl1.image_keys.telescope_ids", lambda *args: calls.append(args) or 1 / 0)
    with DL1File(good) as file:
        assert [chunk.event_id.tolist() for chunk in file.chunks(event_ids=[103])] == [[103], [103]]
    assert calls == []
    with DL1File(edited({IMAGES: lambda rows: rows[::-1]})) as file, pytest.raises(ZeroDivisionError):
        list(file.chunks(event_ids=[103]))


# ---- numbers of runs and events --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "first"), [("u8", 2**63 + 5), ("u8", 2**40), ("i8", 2**62), ("u4", 2**32 - 50), ("i4", 100)]
)
def test_large_ids_are_kept(edited, dtype, first):
    def change(rows):
        kinds = [(name, dtype if name == "event_id" else rows.dtype[name]) for name in rows.dtype.names]
        result = np.zeros(len(rows), kinds)
        for name in rows.dtype.names:
            result[name] = rows[name]
        result["event_id"] = (rows["event_id"] - FIRST_EVENT).astype(dtype) + np.array(first, dtype)
        return result

    path = edited({name: change for name in TABLES})
    with DL1File(path) as file:
        ids = [event for chunk in file.chunks(tel_ids=[1]) for event in chunk.event_id.tolist()]
        one = [(c.event_id.tolist(), c.truth["true_energy_tev"].tolist()) for c in file.chunks(event_ids=[first + 7])]
        energies = np.concatenate([chunk.truth["true_energy_tev"] for chunk in file.chunks(tel_ids=[1])])
        assert ids == list(range(first, first + N_EVENTS))
        assert one == [([first + 7], [energies[7]])] * 2
        if first > 2**63:
            with pytest.raises(InputFileError, match=r"has ids beyond 2\^63 - 1, which tiles cannot hold"):
                next(tile_file(file, RECIPE, [file.telescopes[1].identity]))


def test_equal_event_numbers_of_two_runs_stay_apart(edited, good):
    def twice(rows):
        second = rows.copy()
        second["obs_id"] = 8
        if "true_energy" in rows.dtype.names:
            second["true_energy"] += 100
        return np.concatenate([second, rows])

    path = edited({name: twice for name in TABLES})
    with DL1File(good) as file:
        (energy,) = next(file.chunks(event_ids=[103])).truth["true_energy_tev"]
    with DL1File(path) as file:
        chunk = next(file.chunks(event_ids=[103], tel_ids=[1]))
    assert chunk.obs_id.tolist() == [8, 7]
    assert chunk.truth["true_energy_tev"] == pytest.approx([energy + 100, energy])


def test_a_key_that_is_no_integer_is_refused(edited):
    def change(rows):
        kinds = [(name, "f8" if name == "event_id" else rows.dtype[name]) for name in rows.dtype.names]
        return rows.astype(kinds)

    with (
        pytest.raises(InputFileError, match="has event_id as float64; needed: integer"),
        DL1File(edited({TRIGGER: change})) as file,
    ):
        file.check()


def test_lost_images_are_named(edited, good):
    def half_of(rows):
        return rows[::2]

    with DL1File(edited({IMAGES: half_of})) as file:
        n_images, n_triggers = file.n_images_of(1), file.events.n_triggers_of(1)
        assert n_triggers == n_images * 2
        text = f"the file has lost images: telescope 1 has {n_images} images for {n_triggers} triggers; make it again"
        assert [warning[: len(text)] for warning in file.check()] == [text]
        assert file.check([2]) == []
    with DL1File(good) as file:
        assert file.check() == []


def test_a_telescope_without_its_table_of_images_is_named(good, tmp_path):
    path = tmp_path / "run.dl1.h5"
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as file:
        del file[IMAGES]
    with DL1File(path) as file:
        assert "telescope 1 has 0 images for 40 triggers" in file.check()[0]
