"""DL2 files: what ctapipe reads back is what was predicted, for exactly the images that are in the file."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1Writer, EventChunk, SimulationRun, Subarray
from pipeline.camera.dl2 import DL2Writer, Output, outputs_of
from pipeline.camera.dl2.combine import TelescopeMean
from pipeline.camera.dl2.contents import TRIGGER
from pipeline.camera.dl2.tables import take_whole
from pipeline.camera.geometry import Camera
from pipeline.errors import InputFileError
from pipeline.tasks import get_spec
from pipeline.tasks.spec import Column

ENERGY, GAMMANESS = (get_spec(task).columns for task in ("energy", "gammaness"))
OUTPUTS = (Output("net_e", ENERGY), Output("net_g", GAMMANESS))
TEL_IDS = (1, 2, 5)


def toy_camera() -> Camera:
    """Six by six square pixels."""
    x, y = np.meshgrid(np.arange(6) * 0.05, np.arange(6) * 0.05)
    return Camera(
        "Toy",
        x.ravel(),
        y.ravel(),
        np.full(36, 0.05**2),
        hexagonal=False,
        focal_length_m=5.0,
        # ctapipe-merge takes two cameras with NaN in these for different ones
        effective_focal_length_m=5.1,
        mirror_area_m2=20.0,
        sampling_rate_ghz=1.0,
    )


def write_dl1(path, *, obs_id=3, n_events=40, seed=0, true_images=True):
    """Events seen by random telescopes; returns {tel_id: event ids}."""
    rng = np.random.default_rng(seed)
    camera = toy_camera()
    seen = rng.random((n_events, len(TEL_IDS))) < 0.6
    seen[~seen.any(axis=1), 0] = True
    event, column = np.nonzero(seen)
    n = len(event)
    energy = rng.uniform(0.1, 5, n_events)
    subarray = Subarray(
        "toy",
        dict.fromkeys(TEL_IDS, camera),
        {tel_id: (100.0 * tel_id, 0.0, 0.0) for tel_id in TEL_IDS},
        altitude_m=2000.0,
    )
    run = SimulationRun(0.1, 5.0, -2.0, n_showers=n_events, max_scatter_range_m=300.0)
    with DL1Writer(path, subarray, obs_id=obs_id, pointing_alt_rad=1.2, pointing_az_rad=3.0, simulation=run) as writer:
        writer.append(
            EventChunk(
                event_id=event + 100,
                tel_id=np.array(TEL_IDS)[column],
                image=rng.normal(size=(n, 36)).astype(np.float32),
                peak_time=np.zeros((n, 36), np.float32),
                true_image=np.ones((n, 36), int) if true_images else None,
                truth={
                    "true_energy_tev": energy[event],
                    "true_alt_deg": np.full(n, 69.0),
                    "true_az_deg": np.full(n, 170.0),
                    "true_core_x_m": np.zeros(n),
                    "true_core_y_m": np.zeros(n),
                    "true_primary_id": np.zeros(n, int),
                    "shower_id": event,
                },
            )
        )
    return {tel_id: event[column == place] + 100 for place, tel_id in enumerate(TEL_IDS)}


def write_dl2(path, source, events, *, obs_id=3, seed=1):
    """Predict random numbers for a random part of the images; returns what was written, by telescope."""
    rng = np.random.default_rng(seed)
    written = {}
    with DL2Writer(path, source, OUTPUTS, provenance={"stage": "predict"}) as writer:
        for tel_id, event_id in events.items():
            event_id = event_id[rng.random(len(event_id)) < 0.7]
            n = len(event_id)
            energy = rng.uniform(0.1, 5, n)
            energy[rng.random(n) < 0.2] = np.nan
            gammaness, size = rng.random(n), rng.uniform(50, 500, n)
            values = {
                "net_e": {"reco_energy_tev": energy, "reco_energy_uncert_tev": 0.1 * energy},
                "net_g": {"gammaness": gammaness},
            }
            # two pieces: telescopes are written chunk by chunk
            for part in (slice(0, n // 2), slice(n // 2, n)):
                part_values = {p: {c: v[part] for c, v in d.items()} for p, d in values.items()}
                writer.append(tel_id, np.full(n, obs_id)[part], event_id[part], size[part], part_values)
            written[tel_id] = {"event_id": event_id, "energy": energy, "gammaness": gammaness, "size": size}
    return written


@pytest.fixture(scope="module")
def dl2(tmp_path_factory):
    """A DL2 file, and what was written into it."""
    folder = tmp_path_factory.mktemp("dl2")
    events = write_dl1(folder / "run.dl1.h5")
    written = write_dl2(folder / "run.dl2.h5", folder / "run.dl1.h5", events)
    return folder / "run.dl2.h5", written


@pytest.fixture(scope="module")
def ctapipe_io():
    """ctapipe's readers, imported once (4 s)."""
    return pytest.importorskip("ctapipe.io")


def test_table_loader_reads_telescope_predictions(dl2, ctapipe_io):
    path, written = dl2
    with ctapipe_io.TableLoader(path, focal_length_choice="EQUIVALENT") as loader:
        tables = loader.read_telescope_events_by_id()
    assert set(tables) == set(TEL_IDS)
    for tel_id, table in tables.items():
        expected = written[tel_id]
        np.testing.assert_array_equal(table["event_id"], expected["event_id"])
        np.testing.assert_allclose(table["net_e_tel_energy"].quantity.to_value("TeV"), expected["energy"], rtol=1e-6)
        np.testing.assert_array_equal(table["net_e_tel_is_valid"], np.isfinite(expected["energy"]))
        np.testing.assert_allclose(table["net_g_tel_prediction"], expected["gammaness"], rtol=1e-6)
        assert np.all(np.isfinite(table["true_energy"]))
        assert np.all(table["true_impact_distance"] > 0)


def test_subarray_events_are_those_with_an_image(dl2, ctapipe_io):
    path, written = dl2
    with ctapipe_io.TableLoader(path, focal_length_choice="EQUIVALENT") as loader:
        table = loader.read_subarray_events()
        layout = loader.subarray
    expected = sorted(set(np.concatenate([w["event_id"] for w in written.values()]).tolist()))
    assert table["event_id"].tolist() == expected
    for row in table:
        triggered = layout.tel_mask_to_tel_ids(row["tels_with_trigger"]).tolist()
        assert triggered == [t for t in TEL_IDS if row["event_id"] in written[t]["event_id"]]


def test_event_source_stays_in_step(dl2, ctapipe_io):
    path, written = dl2
    n_seen = 0
    with ctapipe_io.EventSource(path, focal_length_choice="EQUIVALENT") as source:
        for event in source:
            for tel_id, tel in event.dl2.tel.items():
                place = np.flatnonzero(written[tel_id]["event_id"] == event.index.event_id)
                assert len(place) == 1
                energy = written[tel_id]["energy"][place[0]]
                assert tel.energy["net_e"].energy.to_value("TeV") == pytest.approx(energy, rel=1e-6, nan_ok=True)
                assert tel.energy["net_e"].is_valid == np.isfinite(energy)
                expected = written[tel_id]["gammaness"][place[0]]
                assert tel.classification["net_g"].prediction == pytest.approx(expected, rel=1e-6)
                n_seen += 1
    assert n_seen == sum(len(w["event_id"]) for w in written.values())


def test_event_source_reads_a_file_without_true_images(tmp_path, ctapipe_io):
    events = write_dl1(tmp_path / "run.dl1.h5", n_events=5, true_images=False)
    write_dl2(tmp_path / "run.dl2.h5", tmp_path / "run.dl1.h5", events)
    with ctapipe_io.EventSource(tmp_path / "run.dl2.h5", focal_length_choice="EQUIVALENT") as source:
        energies = [event.simulation.shower.energy.to_value("TeV") for event in source]
    assert energies
    assert np.all(np.array(energies) > 0)


def test_mean_over_telescopes_is_that_of_ctapipe(dl2, ctapipe_io):
    from ctapipe.reco.reconstructor import ReconstructionProperty
    from ctapipe.reco.stereo_combination import StereoMeanCombiner

    path, written = dl2
    with ctapipe_io.TableLoader(path, focal_length_choice="EQUIVALENT") as loader:
        mono = loader.read_telescope_events()
        stereo = loader.read_subarray_events()
    sizes = {(t, e): s for t, w in written.items() for e, s in zip(w["event_id"], w["size"], strict=True)}
    mono["hillas_intensity"] = [sizes[row["tel_id"], row["event_id"]] for row in mono]
    energy = StereoMeanCombiner(
        prefix="net_e", property=ReconstructionProperty.ENERGY, weights="intensity", log_target=True
    ).predict_table(mono)
    gammaness = StereoMeanCombiner(
        prefix="net_g", property=ReconstructionProperty.PARTICLE_TYPE, weights="intensity"
    ).predict_table(mono)
    np.testing.assert_allclose(stereo["net_e_energy"], energy["net_e_energy"], rtol=1e-5)
    np.testing.assert_array_equal(stereo["net_e_is_valid"], energy["net_e_is_valid"])
    np.testing.assert_allclose(stereo["net_g_prediction"], gammaness["net_g_prediction"], rtol=1e-5)


def test_merges_with_another_file(dl2, ctapipe_io, tmp_path):
    from ctapipe.core import run_tool
    from ctapipe.tools.merge import MergeTool

    path, written = dl2
    events = write_dl1(tmp_path / "other.dl1.h5", obs_id=4, seed=5)
    other = write_dl2(tmp_path / "other.dl2.h5", tmp_path / "other.dl1.h5", events, obs_id=4, seed=6)
    merged = tmp_path / "merged.dl2.h5"
    tool = MergeTool()
    assert run_tool(tool, [str(path), str(tmp_path / "other.dl2.h5"), f"--output={merged}"], cwd=tmp_path) == 0
    with ctapipe_io.TableLoader(merged, focal_length_choice="EQUIVALENT") as loader:
        table = loader.read_telescope_events()
    n = sum(len(w["event_id"]) for part in (written, other) for w in part.values())
    assert len(table) == n
    assert np.isfinite(table["net_g_tel_prediction"]).all()


def test_no_image_left_still_makes_a_file(tmp_path, ctapipe_io):
    write_dl1(tmp_path / "run.dl1.h5", n_events=5)
    with DL2Writer(tmp_path / "run.dl2.h5", tmp_path / "run.dl1.h5", OUTPUTS, provenance={}) as writer:
        pass
    assert (writer.n_events, writer.n_images) == (0, 0)
    with ctapipe_io.TableLoader(tmp_path / "run.dl2.h5", focal_length_choice="EQUIVALENT") as loader:
        assert len(loader.read_subarray_events()) == 0


def test_blocks_of_events_do_not_show(dl2, tmp_path, monkeypatch):
    path, _ = dl2
    monkeypatch.setattr("pipeline.camera.dl2.writer._BLOCK_EVENTS", 7)
    events = write_dl1(tmp_path / "run.dl1.h5")
    write_dl2(tmp_path / "run.dl2.h5", tmp_path / "run.dl1.h5", events)
    assert _rows(tmp_path / "run.dl2.h5") == _rows(path)


def _rows(path):
    import h5py
    import hdf5plugin  # noqa: F401

    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()].tobytes()} if hasattr(item, "dtype") else {}))
    return found


def test_equal_runs_give_equal_bytes(dl2, tmp_path):
    path, _ = dl2
    events = write_dl1(tmp_path / "run.dl1.h5")
    write_dl2(tmp_path / "run.dl2.h5", path.with_name("run.dl1.h5"), events)
    assert (tmp_path / "run.dl2.h5").read_bytes() == path.read_bytes()


def test_a_failure_leaves_nothing(tmp_path):
    write_dl1(tmp_path / "run.dl1.h5", n_events=5)
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        DL2Writer(tmp_path / "out.h5", tmp_path / "run.dl1.h5", OUTPUTS, provenance={}),
    ):
        raise RuntimeError("on purpose")
    assert [path.name for path in tmp_path.iterdir()] == ["run.dl1.h5"]


def test_predictions_may_come_in_any_order(dl2, tmp_path):
    path, written = dl2
    with DL2Writer(
        tmp_path / "run.dl2.h5", path.with_name("run.dl1.h5"), OUTPUTS, provenance={"stage": "predict"}
    ) as writer:
        for tel_id, rows in reversed(written.items()):
            order = np.random.default_rng(tel_id).permutation(len(rows["event_id"]))
            energy = rows["energy"][order]
            values = {
                "net_e": {"reco_energy_tev": energy, "reco_energy_uncert_tev": 0.1 * energy},
                "net_g": {"gammaness": rows["gammaness"][order]},
            }
            writer.append(tel_id, np.full(len(order), 3), rows["event_id"][order], rows["size"][order], values)
    assert _rows(tmp_path / "run.dl2.h5") == _rows(path)


def test_a_file_without_triggers_is_refused_at_once(tmp_path):
    import h5py

    write_dl1(tmp_path / "run.dl1.h5", n_events=2)
    with h5py.File(tmp_path / "run.dl1.h5", "r+") as file:
        del file["dl1/event/telescope/trigger"]
    with (
        pytest.raises(InputFileError, match="has no table /dl1/event/telescope/trigger"),
        DL2Writer(tmp_path / "out.h5", tmp_path / "run.dl1.h5", OUTPUTS, provenance={}),
    ):
        pass


@pytest.mark.parametrize(
    ("prefix", "columns", "message"),
    [
        ("net-e", GAMMANESS, "'net-e' cannot be the prefix of a column"),
        ("net", GAMMANESS + ENERGY, r"columns of one group of DL2, got \['gammaness', 'reco_energy_tev'"),
        ("net", ENERGY[:1] * 2, r"one column with an average, got \['reco_energy_tev', 'reco_energy_tev'\]"),
    ],
)
def test_outputs_are_checked(prefix, columns, message):
    with pytest.raises(ValueError, match=message):
        Output(prefix, columns)


def test_prefixes_are_distinct(tmp_path):
    with pytest.raises(ValueError, match="distinct prefixes"):
        DL2Writer(tmp_path / "x.h5", tmp_path / "y.h5", [OUTPUTS[1], OUTPUTS[1]], provenance={})


def test_uncertainty_of_the_mean():
    mean = TelescopeMean(2, "energy", "energy_uncert")
    for value in (1.0, 3.0):
        mean.add(np.array([0]), {"energy": np.array([value]), "energy_uncert": np.array([0.5])}, np.array([2.0]))
    result = mean.result()
    np.testing.assert_allclose(result["energy"], [2.0, np.nan])
    np.testing.assert_allclose(result["energy_uncert"], [0.5 / np.sqrt(2), np.nan])


def test_one_telescope_keeps_its_own_values():
    mean = TelescopeMean(1, "energy", "energy_uncert", logarithmic=True)
    mean.add(np.array([0]), {"energy": np.array([2.5]), "energy_uncert": np.array([0.4])}, np.array([70.0]))
    np.testing.assert_allclose([v[0] for v in mean.result().values()], [2.5, 0.4], rtol=1e-12)


def test_a_head_writes_one_output_per_group():
    columns = get_spec("direction").columns
    geometry, disp = outputs_of("net", columns)
    assert (geometry.group, disp.group) == ("geometry", "disp")
    assert [q.name for q in geometry.quantities] == ["alt", "az", "alt_uncert", "az_uncert", "ang_distance_uncert"]
    assert (geometry.is_averaged, disp.is_averaged) == (True, False)
    assert outputs_of("net", (Column("colour", "", "without a place"),)) == ()


@pytest.fixture
def run(tmp_path):
    """A DL1 file to be changed, and its events by telescope."""
    return tmp_path / "run.dl1.h5", write_dl1(tmp_path / "run.dl1.h5")


def test_tables_behind_links_are_taken_over(dl2, run):
    path, events = run
    with h5py.File(path, "a") as file:
        for name in ("simulation/event/subarray/shower", "simulation/event/telescope/impact"):
            file.move(name, f"g/{name}")
            file[name] = h5py.SoftLink(f"/g/{name}")
        file["a/again"] = file["configuration/simulation/run"]  # the name that h5py's visititems gives
        file.move("dl1/event/telescope/images", "g/pixels")
        file["dl1/event/telescope/images"] = h5py.SoftLink("/g/pixels")
        file["g/circle"] = file["g"]
        file["g/all"], file["g/nothing"] = h5py.SoftLink("/"), h5py.SoftLink("/none")
    write_dl2(path.with_name("linked.h5"), path, events)
    expected, found = _rows(dl2[0]), _rows(path.with_name("linked.h5"))
    assert {name: found[name] for name in expected} == expected
    assert "configuration/simulation/run" in expected
    assert "g/simulation/event/subarray/shower" in found
    assert not [name for name in found if "pixels" in name]


def test_links_that_multiply_the_names_are_refused(run, monkeypatch):
    path, events = run
    monkeypatch.setattr("pipeline.camera.dl2.contents._MAX_NAMES", 1000)
    with h5py.File(path, "a") as file:
        file.create_group("n/0")
        for level in range(1, 60):
            for side in "ab":
                file[f"n/{level}/{side}"] = h5py.SoftLink(f"/n/{level - 1}")
    with pytest.raises(InputFileError, match=r"has more than 1,000 names of tables; remove its links"):
        write_dl2(path.with_name("out.h5"), path, events)


def test_a_link_to_itself_is_refused(run):
    path, events = run
    with h5py.File(path, "a") as file:
        file["itself"] = h5py.SoftLink("/itself")
    with pytest.raises(InputFileError, match=r"run.dl1.h5 is damaged: .*too many links"):
        write_dl2(path.with_name("out.h5"), path, events)


def test_tables_of_a_user_in_the_root_group_are_taken_over(dl2, run):
    path, events = run
    rows = np.zeros(3, [("obs_id", "i4"), ("event_id", "i8"), ("note", "f4")])
    rows["obs_id"], rows["event_id"], rows["note"] = 3, events[1][:3], [1, 2, 3]
    with h5py.File(path, "a") as file:
        file["notes"], file["tel_001"], file["version"] = rows, rows, 5
    written = write_dl2(path.with_name("out.h5"), path, events)
    of_event = dict(rows[["event_id", "note"]].tolist())
    with h5py.File(path.with_name("out.h5")) as file:
        assert file["version"][()] == 5
        for name, event_id in (("notes", file[TRIGGER]["event_id"]), ("tel_001", written[1]["event_id"])):
            np.testing.assert_array_equal(file[name]["event_id"], np.sort(event_id))
            np.testing.assert_array_equal(file[name]["note"], [of_event.get(n, np.nan) for n in np.sort(event_id)])


def test_writing_needs_no_ctapipe(dl2):
    code = "import pipeline.camera.dl2, sys; assert not {'ctapipe', 'torch', 'astropy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_datasets_of_many_checked_pieces_are_copied(tmp_path):
    """HDF5 2.0 loses the process where such a dataset was read before; so this runs in another one."""
    rows = np.zeros(40_000, [("pix_id", "i8"), ("pix_x", "f8"), ("pix_y", "f8"), ("pix_area", "f8")])
    rows["pix_x"] = np.random.default_rng(0).normal(size=len(rows))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("a/geometry", data=rows, chunks=(2048,), compression="gzip", fletcher32=True)
    code = (
        "import sys, h5py\n"
        "from pipeline.camera.dl2.tables import take_whole\n"
        "with h5py.File(sys.argv[1]) as source, h5py.File(sys.argv[2], 'w') as out:\n"
        "    take_whole(source['a/geometry'], out, 'a/geometry')\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "in.h5"), str(tmp_path / "out.h5")]
    assert subprocess.run(arguments, check=False).returncode == 0
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["a/geometry"][:], rows)


def test_a_damaged_piece_of_a_copied_dataset_is_noticed(tmp_path):
    values = np.random.default_rng(0).normal(size=(4096,))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(1024,), fletcher32=True)
        place = file["x"].id.get_chunk_info(2).byte_offset
    content = bytearray((tmp_path / "in.h5").read_bytes())
    content[place + 100] ^= 0xFF
    (tmp_path / "in.h5").write_bytes(content)
    with (
        h5py.File(tmp_path / "in.h5") as source,
        h5py.File(tmp_path / "out.h5", "w") as out,
        pytest.raises(InputFileError, match=r"in\.h5"),
    ):
        take_whole(source["x"], out, "x")
