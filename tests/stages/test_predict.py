"""Prediction from camera files and frames: values, selections, outputs, and what is refused."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from astropy.io import fits
from populations import population
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1
from two_headed_bundles import two_headed_bundle

from pipeline.camera.dl1 import DL1File
from pipeline.camera.dl1.coordinates import high_resolution_time
from pipeline.camera.event_predictions import predict_file
from pipeline.camera.prediction_tables import with_uncertainty
from pipeline.camera.predictions import CameraModel, column_prefix, distinct
from pipeline.camera.tiling import camera_tile_chunk
from pipeline.config import Config, parse_config
from pipeline.directions import altaz_of_fov, radec_of_altaz
from pipeline.errors import UserError
from pipeline.sky.cards import warnings_in
from pipeline.sky.frames import read_frame
from pipeline.sky.ingest import ingest_frame
from pipeline.stages.predict import predict

HEAD_OF_RECORD = ["file", "obs_id", "event_id", "tel_id", "event_type", "camera", "valid"]
OTHER = f"Other ({toy_camera('Other', 0.06).identity})"  # what telescope 2 has
CFG = parse_config({"threads": 1, "predict": {"tile_px": 64, "overlap_px": 16}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles and inputs."""
    root = tmp_path_factory.mktemp("predict")
    identity = toy_camera().identity
    camera_bundle(root / "energy", "energy", identity)
    camera_bundle(root / "gammaness", "gammaness", identity)
    for task in ("direction", "core", "x_max"):
        camera_bundle(root / task, task, identity)
    camera_bundle(root / "strict", "energy", identity, name="strict", size_min_pe=800.0)
    two_headed_bundle(root / "both", identity)
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    rng = np.random.default_rng(1)
    header = fits.Header({"BUNIT": "electron", "GAIN": 1.0, "RDNOISE": 5.0, "OBJECT": "toy"})
    fits.PrimaryHDU(rng.normal(200, 15, (90, 110)).astype(np.float32), header).writeto(root / "frame.fits")
    return root


def records(files, bundles, cfg=CFG, **options):
    """Statuses and parsed JSON lines."""
    stream = io.StringIO()
    statuses = predict(cfg, files, bundles, as_json=True, stream=stream, **options)
    return statuses, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_record_per_image(folder):
    statuses, found = records([folder / "run.dl1.h5"], [folder / "energy", folder / "gammaness"])
    assert [status["status"] for status in statuses] == ["ok"]
    assert len(found) == 24
    assert {(r["event_id"], r["tel_id"]) for r in found} == {(FIRST_EVENT + e, t) for e in range(12) for t in (1, 2)}
    expected = [*HEAD_OF_RECORD, "reco_energy_tev", "reco_energy_uncert_tev"]
    for record in found:
        assert [key for key in record if key != "reason"] == [*expected, "gammaness"]
        assert record["valid"] == ("reason" not in record)
        assert record["valid"] == (record["reco_energy_tev"] is not None)


def test_values_are_those_of_the_network(folder):
    _, found = records([folder / "run.dl1.h5"], [folder / "energy"], telescope=1)
    with DL1File(folder / "run.dl1.h5") as file:
        model = CameraModel.of(_predictor(folder / "energy"))
        (chunk,) = file.chunks(100, tel_ids=[1])
        size_pe = camera_tile_chunk(chunk, model.recipe).batch.events["hillas_intensity"]
    valid = [record for record in found if record["valid"]]
    # the tiny network answers log10(size) - 2
    np.testing.assert_allclose([r["reco_energy_tev"] for r in valid], size_pe / 100, rtol=1e-5)
    sigma = size_pe / 100 * np.log(10) * np.exp(-1.5)
    np.testing.assert_allclose([r["reco_energy_uncert_tev"] for r in valid], sigma, rtol=1e-5)


def _predictor(path):
    from pipeline.bundle.runtime import Predictor

    return Predictor.load(path, threads=1)


def test_reasons_are_said(folder):
    statuses, found = records([folder / "run.dl1.h5"], [folder / "energy", folder / "strict"])
    by_telescope = {t: [r for r in found if r["tel_id"] == t] for t in (1, 2)}
    assert {r["reason"] for r in by_telescope[2]} == {
        f"strict does not serve the camera {OTHER}; tiny_energy does not serve the camera {OTHER}"
    }
    faint = [r for r in by_telescope[1] if (r["event_id"] - FIRST_EVENT) % 4 == 0]
    assert {r["reason"] for r in faint} == {"nothing left by the cleaning"}
    # one bundle's cut leaves the other's value standing; two energies are told apart by their bundles
    partly = [r for r in by_telescope[1] if r.get("reason") == "less charge than size_min_pe"]
    assert partly
    for record in partly:
        assert record["tiny_energy_reco_energy_tev"] > 0
        assert record["strict_reco_energy_tev"] is None
    assert statuses[0]["left_out"]["less charge than size_min_pe"] == len(partly)


def test_one_event_of_one_telescope(folder):
    _, found = records([folder / "run.dl1.h5"], [folder / "energy"], event=FIRST_EVENT + 5, telescope=1)
    assert [(r["event_id"], r["tel_id"], r["valid"]) for r in found] == [(FIRST_EVENT + 5, 1, True)]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"event": 5}, "has no event 5; its event ids go from 100 to 111"),
        ({"telescope": 9}, "has no images of telescope 9; it has those of 1, 2"),
    ],
)
def test_what_is_not_there_is_refused(folder, selection, message, caplog):
    statuses, found = records([folder / "run.dl1.h5"], [folder / "energy"], **selection)
    assert found == []
    assert statuses[0]["status"] == "failed"
    assert message in statuses[0]["reason"]
    assert message in caplog.text


def test_event_of_another_telescope(folder, tmp_path):
    write_toy_dl1(tmp_path / "one.h5", n_events=2, tel_ids=(1,))
    write_toy_dl1(tmp_path / "two.h5", n_events=5, tel_ids=(2,))
    models = [CameraModel.of(_predictor(folder / "energy"))]
    with DL1File(tmp_path / "one.h5") as one, DL1File(tmp_path / "two.h5") as two:
        both = SimpleNamespace(
            path=one.path,
            tel_ids=[1, 2],
            telescopes=one.telescopes,
            index=lambda tel_id: (one if tel_id == 1 else two).index(tel_id),
            chunks=lambda *args, **kwargs: (one.chunks if kwargs["tel_ids"] == [1] else two.chunks)(*args, **kwargs),
        )
        with pytest.raises(UserError, match="event 104 has no image of telescope 1; it has 2"):
            list(predict_file(both, models, tel_ids=[1], event_ids=[104]))


def test_chunks_do_not_show(folder):
    whole = records([folder / "run.dl1.h5"], [folder / "energy"])
    cfg = parse_config({"threads": 1, "predict": {"batch_size": 5}})
    assert records([folder / "run.dl1.h5"], [folder / "energy"], cfg) == whole


def test_images_are_prepared_once_for_equal_settings(folder, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "pipeline.camera.predictions.camera_tile_chunk", lambda c, t: calls.append(t) or camera_tile_chunk(c, t)
    )
    records([folder / "run.dl1.h5"], [folder / "energy", folder / "gammaness", folder / "strict"], telescope=1)
    assert len(calls) == 2


def test_dl2_holds_every_image_of_a_served_camera(folder, tmp_path):
    import tables

    out = tmp_path / "run.dl2.h5"
    statuses, found = records([folder / "run.dl1.h5"], [folder / "energy", folder / "gammaness"], out=out)
    valid = [r for r in found if r["valid"]]
    assert statuses[0]["output"] == str(out)
    assert (statuses[0]["n_images"], statuses[0]["n_valid"]) == (24, len(valid)) == (24, 9)
    assert statuses[0]["left_out"] == {
        "nothing left by the cleaning": 3,
        f"tiny_energy does not serve the camera {OTHER}": 12,
        f"tiny_gammaness does not serve the camera {OTHER}": 12,
    }
    with tables.open_file(out) as file:
        rows = file.get_node("/dl2/event/telescope/energy/tiny_energy/tel_001").read()
        classes = file.get_node("/dl2/event/telescope/classification/tiny_gammaness/tel_001").read()
        provenance = json.loads(file.root._v_attrs["LIGHTPOOL PROVENANCE"])
        assert "tel_002" not in file.get_node("/dl2/event/telescope/energy/tiny_energy")
    images = [r for r in found if r["tel_id"] == 1]
    assert rows["event_id"].tolist() == [r["event_id"] for r in images]
    is_valid = rows["tiny_energy_tel_is_valid"]
    assert is_valid.tolist() == classes["tiny_gammaness_tel_is_valid"].tolist() == [r["valid"] for r in images]
    energy, gammaness = rows["tiny_energy_tel_energy"], classes["tiny_gammaness_tel_prediction"]
    np.testing.assert_allclose(energy[is_valid], [r["reco_energy_tev"] for r in valid], rtol=1e-6)
    np.testing.assert_allclose(gammaness[is_valid], [r["gammaness"] for r in valid], rtol=1e-6)
    assert np.isnan(energy[~is_valid]).all()
    assert np.isnan(gammaness[~is_valid]).all()
    assert set(provenance["bundles"]) == {"tiny_energy", "tiny_gammaness"}
    assert provenance["n_valid"] == 9
    assert json.loads((tmp_path / "run.dl2.h5.provenance.json").read_text())["input"] == "run.dl1.h5"


def test_heads_of_one_bundle_answer_together(folder):
    _, found = records([folder / "run.dl1.h5"], [folder / "both"])
    _, alone = records([folder / "run.dl1.h5"], [folder / "energy"])
    expected = [*HEAD_OF_RECORD, "reco_energy_tev", "reco_energy_uncert_tev"]
    for record, same in zip(found, alone, strict=True):
        assert [key for key in record if key != "reason"] == [*expected, "gammaness"]
        assert {key: record[key] for key in expected} == {key: same[key] for key in expected}
        assert record.get("reason") == (same["reason"].replace("tiny_energy", "tiny") if "reason" in same else None)
        if record["valid"]:
            # half of log10(size) - 2 is the logit
            logit = 0.5 * np.log10(record["reco_energy_tev"])
            assert record["gammaness"] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
        else:
            assert record["gammaness"] is None


def test_columns_of_a_further_bundle_are_told_apart_by_the_prefix_of_the_head(folder):
    _, found = records([folder / "run.dl1.h5"], [folder / "both", folder / "gammaness"], telescope=1)
    names = [key for key in found[0] if "gammaness" in key or "reco" in key]
    assert names == [
        "reco_energy_tev", "reco_energy_uncert_tev", "tiny_gammaness_gammaness", "tiny_gammaness_2_gammaness",
    ]  # fmt: skip


def test_dl2_has_a_group_for_each_head(folder, tmp_path):
    ctapipe_io = pytest.importorskip("ctapipe.io")
    out = tmp_path / "run.dl2.h5"
    statuses, found = records([folder / "run.dl1.h5"], [folder / "both"], telescope=1, out=out)
    assert statuses[0]["n_valid"] == 9
    with ctapipe_io.TableLoader(out, focal_length_choice="EQUIVALENT") as loader:
        table = loader.read_telescope_events()
        events = loader.read_subarray_events()
    assert table["event_id"].tolist() == [record["event_id"] for record in found]
    valid = [record["valid"] for record in found]
    assert 0 < sum(valid) < len(valid)
    heads = {"tiny_energy": ("energy", "reco_energy_tev"), "tiny_gammaness": ("prediction", "gammaness")}
    for prefix, (quantity, column) in heads.items():
        assert table[f"{prefix}_tel_is_valid"].tolist() == valid
        expected = [np.nan if record[column] is None else record[column] for record in found]
        np.testing.assert_allclose(table[f"{prefix}_tel_{quantity}"], expected, rtol=1e-6)
        # one telescope: the event's value is that of its image
        np.testing.assert_allclose(events[f"{prefix}_{quantity}"], expected, rtol=1e-6)
        assert events[f"{prefix}_is_valid"].tolist() == valid
    assert str(table["tiny_energy_tel_energy"].unit) == "TeV"
    sigma = [np.nan if r["reco_energy_uncert_tev"] is None else r["reco_energy_uncert_tev"] for r in found]
    np.testing.assert_allclose(table["tiny_energy_tel_energy_uncert"], sigma, rtol=1e-6)


def test_directions_in_dl2_are_what_ctapipe_reads(folder, tmp_path):
    ctapipe_io = pytest.importorskip("ctapipe.io")
    out = tmp_path / "run.dl2.h5"
    _, found = records([folder / "run.dl1.h5"], [folder / "direction"], out=out)
    found = [record for record in found if record["tel_id"] == 1]  # the other is not served
    valid = [record["valid"] for record in found]
    assert 0 < sum(valid) < len(valid)
    columns = {
        "geometry": {
            "alt": "reco_alt_deg", "az": "reco_az_deg", "alt_uncert": "reco_alt_uncert_deg",
            "az_uncert": "reco_az_uncert_deg", "ang_distance_uncert": "reco_ang_distance_uncert_deg",
        },
        "disp": {"parameter": "reco_disp_deg", "sign_score": "reco_sign_score"},
    }  # fmt: skip
    expected = {
        name: np.array([np.nan if record[column] is None else record[column] for record in found])
        for group in columns.values()
        for name, column in group.items()
    }
    with ctapipe_io.TableLoader(out, focal_length_choice="EQUIVALENT") as loader:
        table = loader.read_telescope_events([1])
        events = loader.read_subarray_events()
    for name, values in expected.items():
        np.testing.assert_allclose(table[f"tiny_direction_tel_{name}"], values, rtol=1e-5, err_msg=name)
    for name in columns["geometry"]:  # one telescope: the event's direction is that of its image
        np.testing.assert_allclose(events[f"tiny_direction_{name}"], expected[name], rtol=1e-5, err_msg=name)
    assert events["tiny_direction_is_valid"].tolist() == valid
    assert str(events["tiny_direction_alt"].unit) == "deg"
    assert "tiny_direction_parameter" not in events.colnames
    with ctapipe_io.EventSource(out, focal_length_choice="EQUIVALENT") as source:
        for event, alt, score in zip(source, expected["alt"], expected["sign_score"], strict=True):
            geometry = event.dl2.stereo.geometry["tiny_direction"]
            np.testing.assert_allclose(geometry.alt.to_value("deg"), alt, rtol=1e-5)
            disp = event.dl2.tel[1].disp["tiny_direction"]
            np.testing.assert_allclose(disp.sign_score, score, rtol=1e-5)


def test_cores_and_depths(folder, tmp_path):
    bundles = [folder / "core", folder / "x_max"]
    out = tmp_path / "run.dl2.h5"
    _, found = records([folder / "run.dl1.h5"], bundles, telescope=1, out=out)
    valid = [record for record in found if record["valid"]]
    with h5py.File(out) as file:
        impact = file["dl2/event/telescope/impact/tiny_core/tel_001"][:]
        core = file["dl2/event/subarray/geometry/tiny_core"][:]
        assert list(file["dl2/event/telescope"]) == ["geometry", "impact"]  # of X_max, DL2 has none
    expected = [record["reco_impact_m"] for record in valid]
    distance = impact["tiny_core_tel_impact_distance"]
    np.testing.assert_allclose(distance[np.isfinite(distance)], expected, rtol=1e-5)
    assert "tiny_core_tel_is_valid" not in impact.dtype.names  # ctapipe's container of impact distances has none
    assert np.count_nonzero(core["tiny_core_is_valid"]) == len(valid)
    for name in ("x", "y"):
        np.testing.assert_allclose(
            core[f"tiny_core_core_{name}"][core["tiny_core_is_valid"] > 0],
            [record[f"reco_core_{name}_m"] for record in valid],
            rtol=1e-5,
        )
    # the tiny network answers log10(size) - 2, in units of 100 g / cm2 beyond 300 g / cm2 and of 100 m
    size_pe = 10 ** (2 + (np.array([record["reco_x_max_g_cm2"] for record in valid]) - 300) / 100)
    np.testing.assert_allclose(expected, 100 * np.hypot(np.log10(size_pe) - 2, -3), rtol=1e-4)


def test_a_bundle_without_a_place_in_dl2_is_refused(folder, tmp_path):
    statuses, _ = records([folder / "run.dl1.h5"], [folder / "x_max"], out=tmp_path / "x.dl2.h5")
    assert statuses[0]["reason"] == "DL2 has no place for x_max; predict without --out, with --json for all values"
    assert list(tmp_path.iterdir()) == []


def test_the_direction_is_seen_from_where_the_telescope_points(folder):
    _, found = records([folder / "run.dl1.h5"], [folder / "direction"], telescope=1)
    valid = [record for record in found if record["valid"]]
    for record in valid:
        alt, az = altaz_of_fov(
            record["reco_fov_lon_deg"], record["reco_fov_lat_deg"], np.degrees(1.2), np.degrees(3.0)
        )  # where the toy telescopes point
        assert record["reco_alt_deg"] == pytest.approx(alt, abs=1e-4)
        assert record["reco_az_deg"] == pytest.approx(az, abs=1e-4)


def test_equal_runs_give_equal_bytes(folder, tmp_path):
    for name in ("a", "b"):
        predict(CFG, [folder / "run.dl1.h5"], [folder / "energy"], tmp_path / f"{name}.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_frame_out_is_the_frame_in_where_the_model_changes_nothing(folder, tmp_path):
    out = tmp_path / "out.fits"
    statuses, found = records([folder / "frame.fits"], [folder / "denoise"], out=out)
    assert statuses[0]["status"] == "ok"
    with fits.open(out) as hdus, fits.open(folder / "frame.fits") as before:
        np.testing.assert_allclose(hdus[0].data, before[0].data, rtol=1e-5)
        assert hdus[0].header["OBJECT"] == "toy"
        assert hdus[0].header["BUNIT"] == "electron"
        assert {hdu.name for hdu in hdus} >= {"ERR", "DQ"}
        assert any("tiny_denoise" in line for line in hdus[0].header["HISTORY"])
    (record,) = found
    assert record["median_err_after"] == pytest.approx(record["median_err_before"] / 2, rel=0.02)
    assert (record["height_px"], record["width_px"], record["n_restored"]) == (90, 110, 0)


def test_warnings_about_a_frame_reach_record_status_product_and_sidecar(folder, tmp_path, caplog):
    pixels = fits.getdata(folder / "frame.fits") - 200
    header = fits.Header({"BUNIT": "electron", "RDNOISE": 5.0, "EXPTIME": "60,0"})
    fits.PrimaryHDU(pixels, header).writeto(tmp_path / "flat.fits")
    with caplog.at_level("WARNING"):
        (status,), (record,) = records([tmp_path / "flat.fits"], [folder / "denoise"], out=tmp_path / "out.fits")
    assert record["median_err_before"] == pytest.approx(15, rel=0.03)
    (text,) = record["warnings"]
    assert "the sky was subtracted, or the gain is wrong" in text
    assert status["warnings"] == [text]
    assert [entry.getMessage() for entry in caplog.records] == [f"flat.fits: {text}"]
    assert json.loads((tmp_path / "out.fits.provenance.json").read_text())["warnings"] == [text]
    with fits.open(tmp_path / "out.fits") as hdus:
        assert hdus[0].header["LPNWARN"] == 1
        assert warnings_in(hdus[0].header["HISTORY"]) == [text]


def test_a_product_of_an_ingested_frame_is_no_changed_frame(folder, tmp_path):
    pixels = np.round(np.random.default_rng(0).normal(1100, 15, (90, 110))).astype(np.uint16)
    header = fits.Header({"GAIN": 1.0, "RDNOISE": 5.0, "BIASLVL": 900.0})
    fits.PrimaryHDU(pixels, header).writeto(tmp_path / "raw.fits")
    ingest_frame(tmp_path / "raw.fits", tmp_path / "ingested.fits", CFG.ingest.sky)
    predict(CFG, [tmp_path / "ingested.fits"], [folder / "denoise"], tmp_path / "out.fits")
    again = read_frame(tmp_path / "out.fits")
    assert (again.unit, again.gain_e_per_adu) == ("electron", None)
    assert not any("are not those that lightpool ingested" in text for text in again.warnings)


def test_a_frame_unlike_those_of_training_is_named_everywhere(folder, tmp_path, caplog):
    """On the screen, in the record, in the status, in the header and beside the product."""
    bundle = sky_bundle(tmp_path / "dim", population=population(dynamic_range=(-0.7, -0.6)))
    [status], [record] = records([folder / "frame.fits"], [bundle], out=tmp_path / "o.fits")
    text = record["warnings"][0]
    assert text.startswith("unlike the frames that the model was trained on: log10 of the brightest pixels over the no")
    assert status["warnings"] == [text]
    assert record["dynamic_range"] > 0
    assert record["n_kept"] == 0  # nothing but noise
    assert f"frame.fits: {text}" in [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    header = fits.getheader(tmp_path / "o.fits")
    assert header["LPOOD"] == pytest.approx(record["unlikeness"], rel=0.01)
    assert header["LPOOD"] > 1
    assert header["LPOODWHY"].startswith("log peak/noise 0.")
    assert header["LPOODWHY"].endswith(", trained < -0.6")
    assert header["LPNWARN"] == 1
    assert "unlike the frames" in str(header["HISTORY"])
    assert json.loads((tmp_path / "o.fits.provenance.json").read_text())["warnings"] == [text]
    refusing = parse_config({"threads": 1, "predict": {"outside_range": "refuse"}})
    [status], _ = records([folder / "frame.fits"], [bundle], cfg=refusing)
    assert (status["status"], "unlike the frames" in status["reason"]) == ("failed", True)


def test_table_of_images(folder):
    stream = io.StringIO()
    bundles = [folder / name for name in ("energy", "gammaness", "direction", "core", "x_max")]
    predict(CFG, [folder / "run.dl1.h5"], bundles, stream=stream, telescope=1)
    _, found = records([folder / "run.dl1.h5"], bundles, telescope=1)
    title, headings, *rows = stream.getvalue().splitlines()
    assert (title, len(rows)) == ("run.dl1.h5", 12)
    assert [text.strip() for text in headings.split("  ") if text] == [
        "run", "event", "telescope", "energy [TeV]", "gammaness", "offset lon, lat [deg]", "alt, az [deg]",
        "impact [m]", "core north, west [m]", "X_max [g/cm2]", "size [p.e.]", "length, width [deg]", "leakage",
        "reason",
    ]  # fmt: skip
    assert rows[0].endswith("nothing left by the cleaning")
    cells = [text.strip() for text in rows[1].split("  ") if text]
    record = found[1]
    assert cells[:3] == ["7", "101", "1 Toy"]
    assert cells[3] == f"{record['reco_energy_tev']:.1f} ± {record['reco_energy_uncert_tev']:.1f}"
    assert cells[4] == f"{record['gammaness']:.3f}"
    assert cells[5] == f"{record['reco_fov_lon_deg']:.2f}, {record['reco_fov_lat_deg']:.2f}"
    assert cells[10] == f"{100 * record['reco_energy_tev']:.0f}"  # the tiny network answers log10(size) - 2


def test_table_of_an_observation_has_right_ascension(folder, tmp_path):
    path = tmp_path / "observed.h5"
    path.write_bytes((folder / "run.dl1.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["simulation"]
        place = file["configuration/instrument/subarray/layout"].attrs
        place.update({"reference_itrs_x": 5326851.0, "reference_itrs_y": -1719589.6, "reference_itrs_z": 3051820.8})
        rows = file["dl1/event/subarray/trigger"][:]
        rows["time"] = high_resolution_time(np.full(12, 1.58205979e9))
        file["dl1/event/subarray/trigger"][:] = rows
    stream = io.StringIO()
    predict(CFG, [path], [folder / "direction"], stream=stream, event=101, telescope=1)
    _, headings, row = stream.getvalue().splitlines()
    assert "alt, az [deg]" in headings
    _, [record] = records([path], [folder / "direction"], event=101, telescope=1)
    altaz = np.array([[record["reco_alt_deg"]], [record["reco_az_deg"]]])
    ra, dec = radec_of_altaz(*altaz, np.array([1.58205979e9]), -17.8915, 28.7616)
    start = headings.index("RA, Dec [deg]") + len("RA, Dec [deg]")
    assert row[:start].split("  ")[-1].strip() == f"{ra[0]:.2f}, {dec[0]:.2f}"
    stream = io.StringIO()
    predict(CFG, [folder / "run.dl1.h5"], [folder / "direction"], stream=stream, event=101)
    assert "RA" not in stream.getvalue()  # a simulated sky has none


def test_table_of_two_models_for_one_quantity(folder):
    stream = io.StringIO()
    predict(CFG, [folder / "run.dl1.h5"], [folder / "energy", folder / "strict"], stream=stream, event=101)
    assert "tiny_energy energy [TeV]  strict energy [TeV]" in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (1.2345, 0.178, "1.23 ± 0.18"),
        (1.2345, np.nan, "1.23"),
        (843.2, 95.1, "843 ± 95"),
        (0.012, 0.0031, "0.0120 ± 0.0031"),
        (1234.5, np.nan, "1234"),
        (0.0, np.nan, "0.00"),
        (np.nan, 1.0, "-"),
    ],
)
def test_values_with_uncertainties(value, uncertainty, text):
    assert with_uncertainty(value, uncertainty) == text


def test_a_frame_on_one_screen(folder, monkeypatch):
    def shown():
        stream = io.StringIO()
        predict(CFG, [folder / "frame.fits"], [folder / "denoise"], stream=stream)
        return stream.getvalue().splitlines()

    _, [record] = records([folder / "frame.fits"], [folder / "denoise"])
    lines = shown()
    assert lines[:2] == ["frame.fits", "  HDU 0, 110 x 90 px, in electron, by tiny_denoise"]
    before, after = (f"{record[f'median_err_{when}']:.4g}" for when in ("before", "after"))
    assert f"  stated error        {before} -> {after} electron (median)" in lines
    assert f"  replaced            {record['n_restored']} px" in [line.partition(" (")[0] for line in lines]
    monkeypatch.setattr("pipeline.stages.predict.terminal_columns", lambda: 30)
    assert max(map(len, shown())) <= 30


def test_a_bad_file_is_named_and_skipped(folder, tmp_path, caplog):
    bad = tmp_path / "broken.h5"
    bad.write_bytes((folder / "run.dl1.h5").read_bytes()[:4000])
    empty = tmp_path / "empty.fits"
    empty.touch()
    out = tmp_path / "out"
    statuses = predict(
        CFG, [bad, folder / "run.dl1.h5", empty, folder / "frame.fits"], [folder / "energy", folder / "denoise"], out
    )
    assert [status["status"] for status in statuses] == ["failed", "ok", "failed", "ok"]
    assert "broken.h5" in caplog.text
    assert f"{empty} is empty" in caplog.text
    assert sorted(p.name for p in out.iterdir() if not p.name.endswith(".provenance.json")) == [
        "frame.fits",
        "run.dl2.h5",
        "status.json",
    ]
    status = json.loads((out / "status.json").read_text())
    assert set(status) == {"broken.h5", "run.dl1.h5", "empty.fits", "frame.fits"}
    assert status["run.dl1.h5"]["output"] == str(out / "run.dl2.h5")
    assert "reason" in status["broken.h5"]


@pytest.mark.parametrize("name", ["o.fts", "o.FIT", "o.fits.fz", "o.fits.bz2", "o.fits.gz"])
def test_every_ending_of_fits_is_a_file(folder, tmp_path, name):
    (status,) = predict(CFG, [folder / "frame.fits"], [folder / "denoise"], tmp_path / name)
    assert status["output"] == str(tmp_path / name)
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("name", ["o.fits.zip", "o.fits.xz", "o.xisf", "o.tif", "o.h5"])
def test_names_of_other_files_are_refused(folder, tmp_path, name):
    with pytest.raises(UserError, match=rf"cannot be written as {name}; end the name in .fits or .fits.gz or"):
        predict(CFG, [folder / "frame.fits"], [folder / "denoise"], tmp_path / name)
    assert not (tmp_path / name).exists()


def test_several_inputs_need_a_directory(folder, tmp_path):
    with pytest.raises(UserError, match=r"o\.fits is a file, but 2 inputs need a directory"):
        predict(CFG, [folder / "frame.fits", folder / "run.dl1.h5"], [folder / "denoise"], tmp_path / "o.fits")


def test_files_side_by_side(folder, tmp_path):
    inputs = [folder / "run.dl1.h5", tmp_path / "missing.h5", folder / "frame.fits"]
    bundles = [folder / "energy", folder / "denoise"]
    one = predict(CFG, inputs, bundles, tmp_path / "one")
    two = predict(CFG, inputs, bundles, tmp_path / "two", jobs=2)
    strip = [[{k: v for k, v in status.items() if k != "output"} for status in statuses] for statuses in (one, two)]
    assert strip[0] == strip[1]
    assert [status["status"] for status in two] == ["ok", "failed", "ok"]
    for name in ("run.dl2.h5", "frame.fits"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_existing_outputs_are_kept_without_force(folder, tmp_path):
    out = tmp_path / "out.h5"
    out.write_text("mine")
    with pytest.raises(UserError, match="exists; choose another name or add --force"):
        predict(CFG, [folder / "run.dl1.h5"], [folder / "energy"], out)
    assert out.read_text() == "mine"
    predict(CFG, [folder / "run.dl1.h5"], [folder / "energy"], out, force=True)
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("files", "bundles", "message"),
    [
        (["run.dl1.h5"], ["denoise"], "none of the bundles takes these: tiny_denoise \\(for FITS frames\\)"),
        (["frame.fits"], ["energy"], "none of the bundles takes these: tiny_energy \\(for camera files\\)"),
        (["energy"], ["energy"], "is a model bundle; predict takes simtel, DL1 and FITS"),
        (["nowhere.h5"], ["energy"], "nowhere.h5 does not exist"),
    ],
)
def test_files_that_do_not_fit(folder, files, bundles, message):
    statuses = predict(CFG, [folder / name for name in files], [folder / name for name in bundles])
    assert statuses[0]["status"] == "failed"
    with pytest.raises(UserError, match=message):
        raise UserError(statuses[0]["reason"])


def test_frame_and_camera_options_do_not_mix(folder, tmp_path):
    (status,) = predict(CFG, [folder / "frame.fits"], [folder / "denoise"], event=3)
    assert "--event and --telescope select camera images" in status["reason"]
    (status,) = predict(CFG, [folder / "frame.fits"], [folder / "denoise", folder / "denoise"], tmp_path / "o.fits")
    assert "only one bundle can be applied to a frame" in status["reason"]


def test_arguments_that_cannot_work(folder, tmp_path):
    run = folder / "run.dl1.h5"
    with pytest.raises(UserError, match="there is no bundle 'nothing'"):
        predict(CFG, [run], ["nothing"])
    with pytest.raises(UserError, match=r"cannot be written as out\.fits; end the name in \.h5"):
        predict(CFG, [run], [folder / "energy"], tmp_path / "out.fits")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, but 2 inputs need a directory"):
        predict(CFG, [run, folder / "frame.fits"], [folder / "energy"], tmp_path / "file")
    twin = tmp_path / "run.h5"
    write_toy_dl1(twin, n_events=1)
    with pytest.raises(UserError, match="2 inputs would be written to"):
        predict(CFG, [run, twin], [folder / "energy"], tmp_path / "out")


def test_another_device_is_not_used(folder, caplog):
    (status,) = predict(parse_config({"device": "cuda:1"}), [folder / "run.dl1.h5"], [folder / "energy"])
    assert status["status"] == "ok"
    assert "does not use the device cuda:1" in caplog.text


def test_overlap_must_fit_into_a_tile():
    with pytest.raises(UserError, match="overlap_px 64 is not below tile_px 64"):
        parse_config({"predict": {"tile_px": 64, "overlap_px": 64}})


def test_prefixes_of_columns():
    assert column_prefix("demo-energy.v2") == "demo_energy_v2"
    assert column_prefix("3d") == "m_3d"


def test_models_of_one_name_are_told_apart(folder):
    model = CameraModel.of(_predictor(folder / "energy"))
    assert [head.prefix for m in distinct([model, model, model]) for head in m.heads] == [
        "tiny_energy", "tiny_energy_2", "tiny_energy_3",
    ]  # fmt: skip


def test_predicting_loads_neither_torch_nor_ctapipe(folder):
    code = f"""
import sys
from pipeline.cli import main
assert main(["predict", {str(folder / "run.dl1.h5")!r}, {str(folder / "frame.fits")!r}, "--json", "--threads", "1",
             "--bundle", {str(folder / "energy")!r}, "--bundle", {str(folder / "denoise")!r}]) == 0
slow = {{"torch", "ctapipe", "lightning", "sklearn", "matplotlib", "tables", "pandas", "models"}}
assert not slow & set(sys.modules), slow & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 25


def test_simtel_goes_through_ctapipe(data_dir, folder, tmp_path, caplog):
    caplog.set_level("INFO")
    path = data_dir / "camera" / "simtel" / "pe_history_meta_75.simtel.zst"
    out = tmp_path / "out.h5"
    statuses, found = records([path], [folder / "energy"], out=out)
    assert statuses[0]["status"] == "ok", statuses
    assert "calibrating simtel with ctapipe" in caplog.text
    assert len(found) == statuses[0]["n_images"] > 0
    assert all(r["reason"].startswith("tiny_energy does not serve the camera ") for r in found)


def test_default_configuration_predicts(folder):
    (status,) = predict(Config(), [folder / "run.dl1.h5"], [folder / "energy"])
    assert status == {
        "file": str(folder / "run.dl1.h5"), "status": "ok", "kind": "dl1", "n_images": 24, "n_valid": 9,
        "left_out": {"nothing left by the cleaning": 3, f"tiny_energy does not serve the camera {OTHER}": 12},
    }  # fmt: skip
