"""Every value that ctapipe reads from a DL2 file is the one that stands under its key in the source.

The sources are made of numbers that follow from key and column, so that a row in another's place shows. They are merged
of two runs that use the same event numbers, have two cameras of one name, rows in random order, triggers without image,
images without trigger, and predictions of another reconstructor for a part of the events.
"""

import shutil
import zlib

import numpy as np
import pytest

from pipeline.camera.dl1 import DL1Writer, EventChunk, SimulationRun, Subarray
from pipeline.camera.dl2 import DL2Writer, Output
from pipeline.camera.dl2.checks import check_keys
from pipeline.camera.geometry import Camera
from pipeline.errors import InputFileError
from pipeline.tasks import get_spec

OUTPUTS = (Output("net_e", get_spec("energy").columns), Output("net_g", get_spec("gammaness").columns))
TEL_IDS = (1, 2, 5)
RUNS = (3, 4)
N_EVENTS = 30
KEYS = ("obs_id", "event_id", "tel_id")


def number(column, obs_id, event_id, tel_id=0):
    """A number that only this key has in this column, exact in float32."""
    salt = zlib.crc32(column.encode()) % 512
    return np.float32(1) + (salt * 8192 + np.asarray(obs_id) * 1024 + np.asarray(event_id) * 8 + tel_id) / 4096


def toy_camera(pitch_m):
    """Six by six square pixels; what ctapipe-merge takes for different where it is NaN has a value."""
    x, y = np.meshgrid(np.arange(6) * pitch_m, np.arange(6) * pitch_m)
    return Camera(
        "Toy", x.ravel(), y.ravel(), np.full(36, pitch_m**2), hexagonal=False, focal_length_m=5.0,
        effective_focal_length_m=5.1, mirror_area_m2=20.0, sampling_rate_ghz=1.0,
    )  # fmt: skip


# ---- sources ---------------------------------------------------------------------------------------------------------
def write_run(path, obs_id, rng, *, true_images=True):
    """One run, in which every column of floats of tables of events is `number`."""
    camera, other = toy_camera(0.05), toy_camera(0.1)
    seen = rng.random((N_EVENTS, len(TEL_IDS))) < 0.6
    seen[~seen.any(axis=1), 0] = True
    event, column = np.nonzero(seen)
    n = len(event)
    subarray = Subarray(
        "toy",
        {1: camera, 2: other, 5: camera},
        {tel_id: (100.0 * tel_id, 0.0, 0.0) for tel_id in TEL_IDS},
        altitude_m=2000.0,
    )
    run = SimulationRun(0.1, 5.0, -2.0, n_showers=N_EVENTS, max_scatter_range_m=300.0)
    truth = {name: np.zeros(n) for name in ("true_energy_tev", "true_alt_deg", "true_az_deg")}
    truth |= {name: np.zeros(n) for name in ("true_core_x_m", "true_core_y_m")}
    truth |= {"true_primary_id": np.zeros(n, int), "shower_id": event}
    image = rng.normal(size=(n, 36)).astype(np.float32)
    with DL1Writer(path, subarray, obs_id=obs_id, pointing_alt_rad=1.2, pointing_az_rad=3.0, simulation=run) as writer:
        writer.append(
            EventChunk(
                event_id=event + 100, tel_id=np.array(TEL_IDS)[column], image=image, peak_time=image, truth=truth,
                true_image=np.ones((n, 36), int) if true_images else None,
                parameters={}, true_parameters={},
            )
        )  # fmt: skip
    for node in tables_of_events(path):
        edit(path, node, numbered)


def numbered(rows):
    tel_id = rows["tel_id"] if "tel_id" in rows.dtype.names else 0
    for name in rows.dtype.names:
        if rows.dtype[name].kind == "f":
            rows[name] = number(name, rows["obs_id"], rows["event_id"], tel_id)
    return rows


def tables_of_events(path):
    import tables

    with tables.open_file(path) as file:
        return [table._v_pathname for table in file.walk_nodes("/", "Table") if "event_id" in table.colnames]


def edit(path, node, change, new=None):
    """Replace the rows of a table by change(rows), there or at another place."""
    import tables

    with tables.open_file(path, "a") as file:
        table = file.get_node(node)
        rows = change(table[:])
        group, name = (new or node).rsplit("/", 1)
        attributes = {key: table.attrs[key] for key in table.attrs._f_list("user")}
        if new is None:
            table.remove()
        made = file.create_table(group, name, obj=rows, createparents=True, track_times=False)
        for key, value in attributes.items():
            made.attrs[key] = value


def add_other_reconstructor(path, rng):
    """Predictions of another reconstructor, for some of the events and images; not all telescopes have a table."""
    import tables

    with tables.open_file(path, "a") as file:
        trigger = file.root.dl1.event.subarray.trigger[:]
        trigger = trigger[rng.random(len(trigger)) < 0.8]
        rows = np.zeros(
            len(trigger), [("obs_id", "i4"), ("event_id", "i8"), ("Other_alt", "f8"), ("Other_is_valid", "?")]
        )
        rows["obs_id"], rows["event_id"], rows["Other_is_valid"] = trigger["obs_id"], trigger["event_id"], True
        table = file.create_table("/dl2/event/subarray/geometry", "Other", obj=numbered(rows), createparents=True)
        table.attrs["CTAFIELD_2_UNIT"] = "deg"
        for tel_id in TEL_IDS[:2]:
            ids = file.get_node(f"/dl1/event/telescope/images/tel_{tel_id:03d}")[:]
            rows = np.zeros(
                len(ids), [(name, ids.dtype[name]) for name in KEYS] + [("Other_tel_impact_distance", "f8")]
            )
            for name in KEYS:
                rows[name] = ids[name]
            table = file.create_table(
                "/dl2/event/telescope/impact/Other", f"tel_{tel_id:03d}", obj=numbered(rows), createparents=True
            )
            table.attrs["CTAFIELD_3_NAME"] = "distance"
            table.attrs["CTAFIELD_3_UNIT"] = "m"
        counts = np.array([(b"TOTAL", 60, 60)], [("criteria", "S10"), ("counts", "i8"), ("cumulative_counts", "i8")])
        file.create_table("/dl2/service/tel_event_statistics", "Other", obj=counts, createparents=True)


def disorder(path, rng):
    """Shuffle every table, and take rows away. Returns keys of the images without trigger."""
    import tables

    with tables.open_file(path) as file:
        trigger = file.root.dl1.event.telescope.trigger[:]
    lost = {tuple(row) for row in trigger[list(KEYS)][rng.random(len(trigger)) < 0.1].tolist()}
    for node in tables_of_events(path):

        def change(rows, node=node):
            if node == "/dl1/event/telescope/trigger":
                rows = rows[[tuple(row) not in lost for row in rows[list(KEYS)].tolist()]]
            elif node.startswith("/dl1/event/telescope") and "tel_id" in rows.dtype.names:
                rows = rows[rng.random(len(rows)) < 0.85]
            return rng.permutation(rows)

        edit(path, node, change)
    return lost


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Two runs with the same event numbers in one file, the later one first."""
    pytest.importorskip("ctapipe.io")
    from ctapipe.core import run_tool
    from ctapipe.tools.merge import MergeTool

    folder = tmp_path_factory.mktemp("merged")
    rng = np.random.default_rng(0)
    for obs_id in RUNS:
        write_run(folder / f"{obs_id}.h5", obs_id, rng)
    inputs = [str(folder / f"{obs_id}.h5") for obs_id in reversed(RUNS)]
    assert run_tool(MergeTool(), [*inputs, f"--output={folder / 'merged.h5'}"], cwd=folder) == 0
    add_other_reconstructor(folder / "merged.h5", rng)
    return folder / "merged.h5"


# ---- the DL2 file and what is expected of it -------------------------------------------------------------------------
def predict(source, out, rng, share=0.8):
    """Write `number` for a random part of the images, in any order."""
    import tables

    with tables.open_file(source) as file:
        triggers = {tuple(row) for row in file.root.dl1.event.telescope.trigger[:][list(KEYS)].tolist()}
        images = [table[:] for table in file.get_node("/dl1/event/telescope/images")]
    images = [rows[[tuple(row) in triggers for row in rows[list(KEYS)].tolist()]] for rows in images]
    with DL2Writer(out, source, OUTPUTS, provenance={}) as writer:
        for rows in images:
            rows = rng.permutation(rows[rng.random(len(rows)) < share])
            for part in np.array_split(rows, 3):
                ids = [part[name].astype(np.int64) for name in KEYS]
                values = {
                    "net_e": {name: number(name, *ids) for name in ("reco_energy_tev", "reco_energy_uncert_tev")},
                    "net_g": {"gammaness": number("gammaness", *ids)},
                }
                writer.append(int(rows["tel_id"][0]), ids[0], ids[1], np.ones(len(part)), values)
    return writer


def stored(path):
    """(table, column) -> {key: value} for all columns of floats."""
    import tables

    found = {}
    with tables.open_file(path) as file:
        for table in file.walk_nodes("/", "Table"):
            if "event_id" not in table.colnames:
                continue
            rows = table[:]
            keys = [tuple(key) for key in rows[[name for name in KEYS if name in table.colnames]].tolist()]
            group = table._v_pathname.rsplit("/", 1)[0] if table._v_name.startswith("tel_") else table._v_pathname
            for name in table.colnames:
                if rows.dtype[name].kind in "fb" and rows.dtype[name].shape == ():
                    values = found.setdefault((group, name), {})
                    assert not values.keys() & keys, (group, name)
                    values.update(zip(keys, rows[name].tolist(), strict=True))
    return found


@pytest.fixture(params=range(3))
def made(merged, tmp_path, request):
    """A source in disorder, its DL2 file, and the rows of both."""
    rng = np.random.default_rng(request.param)
    source, out = tmp_path / "source.h5", tmp_path / "out.h5"
    shutil.copyfile(merged, source)
    disorder(source, rng)
    writer = predict(source, out, rng)
    return source, out, writer, stored(source), stored(out)


def close(got, expected):
    return pytest.approx(expected, rel=1e-6, nan_ok=True) == got


def test_values_stand_under_their_keys(made):
    _, _, writer, before, after = made
    images = after["/dl2/event/telescope/energy/net_e", "net_e_tel_energy"]
    assert len(images) == writer.n_images
    carried = [key for key in before if key in after]
    assert {group for group, _ in carried} >= {
        "/dl1/event/telescope/parameters", "/simulation/event/telescope/impact", "/simulation/event/subarray/shower",
        "/simulation/event/telescope/parameters", "/dl2/event/subarray/geometry/Other",
        "/dl2/event/telescope/impact/Other",
    }  # fmt: skip
    for table, column in carried:
        for key, value in after[table, column].items():
            empty = False if isinstance(value, bool) else np.nan
            assert close(value, before[table, column].get(key, empty)), (table, column, key)
    for key, value in images.items():
        assert close(value, number("reco_energy_tev", *key))


def test_event_source_reads_each_value_under_its_key(made):
    from ctapipe.io import EventSource

    _, out, writer, _, after = made
    n_events = n_images = 0
    tables = {
        "hillas": ("/dl1/event/telescope/parameters", "hillas_length"),
        "true": ("/simulation/event/telescope/parameters", "true_hillas_length"),
        "true_impact": ("/simulation/event/telescope/impact", "true_impact_distance"),
        "impact": ("/dl2/event/telescope/impact/Other", "Other_tel_impact_distance"),
        "energy": ("/dl2/event/telescope/energy/net_e", "net_e_tel_energy"),
        "gammaness": ("/dl2/event/telescope/classification/net_g", "net_g_tel_prediction"),
    }
    with EventSource(out, focal_length_choice="EQUIVALENT") as source:
        for event in source:
            n_events += 1
            key = event.index.obs_id, event.index.event_id
            shower, stereo = event.simulation.shower, event.dl2.stereo
            assert close(shower.energy.to_value("TeV"), after["/simulation/event/subarray/shower", "true_energy"][key])
            assert close(
                stereo.geometry["Other"].alt.to_value("deg"),
                after["/dl2/event/subarray/geometry/Other", "Other_alt"][key],
            )
            assert close(
                stereo.energy["net_e"].energy.to_value("TeV"),
                after["/dl2/event/subarray/energy/net_e", "net_e_energy"][key],
            )
            assert event.trigger.tels_with_trigger.tolist() == sorted(event.trigger.tel)
            for tel_id in event.trigger.tel:
                n_images += 1
                simulation, dl2 = event.simulation.tel[tel_id], event.dl2.tel[tel_id]
                values = {
                    "hillas": event.dl1.tel[tel_id].parameters.hillas.length.to_value("deg"),
                    "true": simulation.true_parameters.hillas.length.to_value("deg"),
                    "true_impact": simulation.impact.distance.to_value("m"),
                    "impact": dl2.impact["Other"].distance.to_value("m"),
                    "energy": dl2.energy["net_e"].energy.to_value("TeV"),
                    "gammaness": dl2.classification["net_g"].prediction,
                }
                for name, value in values.items():
                    assert close(value, after[tables[name]][*key, tel_id]), (name, key, tel_id)
    assert (n_events, n_images) == (writer.n_events, writer.n_images)


def test_table_loader_reads_each_value_under_its_key(made):
    from ctapipe.io import TableLoader

    _, out, writer, _, after = made
    everything = {
        "dl1_parameters": True, "dl2": True, "simulated": True, "true_parameters": True, "observation_info": True,
        "instrument": True, "pointing": True,
    }  # fmt: skip
    columns = {
        name: values
        for (table, name), values in after.items()
        if name not in ("time",) and not table.endswith("trigger")
    }
    with TableLoader(out, focal_length_choice="EQUIVALENT") as loader:
        chunks = [chunk.data for chunk in loader.read_telescope_events_chunked(7, **everything)]
        events = loader.read_subarray_events(dl2=True, simulated=True, observation_info=True)
    assert sum(map(len, chunks)) == writer.n_images
    assert len(events) == writer.n_events
    for table in [*chunks, events]:
        assert set(table.colnames) >= {"Other_alt", "net_e_energy", "true_energy"}
        for name in set(table.colnames) & set(columns):
            per_telescope = len(next(iter(columns[name]))) == 3
            keys = zip(*(table[key] for key in KEYS[: 3 if per_telescope else 2]), strict=True)
            for key, value in zip(keys, np.asarray(table[name]).tolist(), strict=True):
                assert close(value, columns[name][tuple(map(int, key))]), (name, key)


# ---- types, order, and what is refused -------------------------------------------------------------------------------
def test_integer_types_and_large_ids_stay(merged, tmp_path):
    import tables
    from ctapipe.io import TableLoader

    source, out = tmp_path / "source.h5", tmp_path / "out.h5"
    shutil.copyfile(merged, source)

    def wide(rows):
        """Ids beyond 32 bit, in types that ctapipe does not use itself."""
        columns = [(name, {"obs_id": "u8", "event_id": "u8"}.get(name, rows.dtype[name])) for name in rows.dtype.names]
        new = np.zeros(len(rows), columns)
        for name in rows.dtype.names:
            new[name] = rows[name]
        new["obs_id"] += np.uint64(2**40)
        new["event_id"] += np.uint64(2**53)
        return new

    for node in tables_of_events(source):
        edit(source, node, wide)
    edit(source, "/configuration/observation/observation_block", lambda rows: _shifted(rows, np.uint64(2**40)))
    writer = predict(source, out, np.random.default_rng(0))
    with tables.open_file(out) as file:
        for path in tables_of_events(out):
            dtype = file.get_node(path).dtype
            assert (dtype["obs_id"], dtype["event_id"]) == (np.uint64, np.uint64), path
        assert file.root.dl1.event.subarray.trigger.col("event_id").min() > 2**53
    with TableLoader(out, focal_length_choice="EQUIVALENT", pointing=False) as loader:
        table = loader.read_telescope_events(true_parameters=False)
    assert len(table) == writer.n_images
    assert table["event_id"].dtype == np.uint64
    assert len(np.unique(table["event_id"])) > N_EVENTS // 2


def _shifted(rows, by):
    rows["obs_id"] += by
    return rows


def test_events_keep_the_order_of_their_source(merged, tmp_path):
    import tables

    predict(merged, tmp_path / "out.h5", np.random.default_rng(0), share=1.0)
    for node in ("/dl1/event/subarray/trigger", "/dl1/event/telescope/trigger"):
        with tables.open_file(merged) as before, tables.open_file(tmp_path / "out.h5") as after:
            np.testing.assert_array_equal(before.get_node(node)[:], after.get_node(node)[:])


@pytest.mark.parametrize(
    "node",
    [
        "/dl1/event/subarray/trigger", "/dl1/event/telescope/trigger", "/dl1/event/telescope/parameters/tel_002",
        "/simulation/event/telescope/impact/tel_005", "/dl2/event/subarray/geometry/Other",
        "/simulation/event/subarray/shower",
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused(merged, tmp_path, node):
    source = tmp_path / "source.h5"
    shutil.copyfile(merged, source)
    edit(source, node, lambda rows: np.concatenate([rows, rows[4:5]]))
    with pytest.raises(InputFileError, match=rf"run 4, event 1\d\d.* stands more than once in {node}"):
        predict(source, tmp_path / "out.h5", np.random.default_rng(0), share=1.0)
    assert [path.name for path in tmp_path.iterdir() if "out" not in path.name] == ["source.h5"]


def test_an_image_given_twice_is_refused(merged, tmp_path):
    values = {
        "net_e": dict.fromkeys(("reco_energy_tev", "reco_energy_uncert_tev"), np.ones(2)),
        "net_g": {"gammaness": np.ones(2)},
    }
    writer = DL2Writer(tmp_path / "out.h5", merged, OUTPUTS, provenance={}).__enter__()
    writer.append(1, np.array([3, 3]), np.array([100, 100]), np.ones(2), values)
    with pytest.raises(InputFileError, match=r"run 3, event 100 stands more than once in .*/images/tel_001"):
        writer.__exit__(None, None, None)


def test_an_image_without_trigger_is_a_fault(merged, tmp_path):
    values = {"net_g": {"gammaness": np.ones(1)}}
    writer = DL2Writer(tmp_path / "out.h5", merged, OUTPUTS[1:], provenance={}).__enter__()
    writer.append(1, np.array([3]), np.array([900]), np.ones(1), values)
    with pytest.raises(ValueError, match="1 predicted images of telescope 1 have no trigger in"):
        writer.__exit__(None, None, None)


@pytest.mark.parametrize("group", ["/dl2/event/subarray/geometry/Other", "/dl2/event/telescope/impact/Other"])
def test_a_prefix_that_the_source_uses_is_refused(merged, tmp_path, group):
    import tables

    source = tmp_path / "source.h5"
    shutil.copyfile(merged, source)
    with tables.open_file(source, "a") as file:
        for other in {"/dl2/event/subarray/geometry/Other", "/dl2/event/telescope/impact/Other"} - {group}:
            file.remove_node(other, recursive=True)
    outputs = [Output("Other", get_spec("energy").columns)]
    with (
        pytest.raises(InputFileError, match=rf"holds predictions of Other already \({group}\)"),
        DL2Writer(tmp_path / "out.h5", source, outputs, provenance={}),
    ):
        pass


def test_a_mask_that_is_not_of_this_array_is_refused(merged, tmp_path):
    source = tmp_path / "source.h5"
    shutil.copyfile(merged, source)
    edit(source, "/configuration/instrument/subarray/layout", lambda rows: rows[:2])
    with (
        pytest.raises(
            InputFileError, match=r"tels_with_trigger in .* has shape \(3,\), but the array has 2 telescopes"
        ),
        DL2Writer(tmp_path / "out.h5", source, OUTPUTS, provenance={}),
    ):
        pass


def test_parameters_without_those_of_true_images_stay_behind(merged, tmp_path):
    import tables
    from ctapipe.io import EventSource

    source, out = tmp_path / "source.h5", tmp_path / "out.h5"
    shutil.copyfile(merged, source)
    with tables.open_file(source, "a") as file:
        file.remove_node("/simulation/event/telescope/parameters", recursive=True)
    writer = predict(source, out, np.random.default_rng(0))
    with EventSource(out, focal_length_choice="EQUIVALENT") as events:
        assert len(list(events)) == writer.n_events
    with tables.open_file(out) as file:
        assert "/dl1/event/telescope/parameters" not in file
        assert file.root._v_attrs["CTA PRODUCT DATA LEVELS"] == "DL2"


def test_what_is_in_the_file_is_what_its_attributes_say(made):
    import tables
    from ctapipe.io.hdf5eventsource import get_hdf5_datalevels

    _, out, _, _, _ = made
    with tables.open_file(out) as file:
        levels = [level.name for level in get_hdf5_datalevels(file)]
        assert file.root._v_attrs["CTA PRODUCT DATA LEVELS"].split(",") == levels == ["DL1_PARAMETERS", "DL2"]
        assert file.get_node("/dl2/service/tel_event_statistics/Other").col("counts") == [60]
        assert "/dl1/event/telescope/images" not in file
        assert "/simulation/event/telescope/images" not in file


# ---- the check of the written file -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("node", "change"),
    [
        ("/dl2/event/telescope/energy/net_e/tel_001", lambda rows: rows[::-1]),
        ("/dl2/event/subarray/energy/net_e", lambda rows: rows[1:]),
        ("/dl1/event/telescope/parameters/tel_005", lambda rows: np.concatenate([rows[:1], rows[:-1]])),
        ("/dl1/event/telescope/trigger", lambda rows: rows[:-1]),
        ("/dl1/event/telescope/trigger", lambda rows: np.concatenate([rows[1:2], rows[1:]])),
        ("/dl1/event/subarray/trigger", lambda rows: np.concatenate([rows[1:2], rows[1:]])),
    ],
)
def test_a_written_file_out_of_step_is_a_fault(merged, tmp_path, node, change):
    out = tmp_path / "out.h5"
    predict(merged, out, np.random.default_rng(0))
    check_keys(out)
    edit(out, node, change)
    with pytest.raises(RuntimeError, match="are not those of the triggers"):
        check_keys(out)
