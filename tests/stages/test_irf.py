"""Instrument response functions from a tiny simulation: products, their numbers, and what goes wrong by a factor."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import tables
from astropy.io import fits
from astropy.table import QTable
from tiny_bundles import camera_bundle

from pipeline.camera.irf import fits_files, inputs, settings, tools
from pipeline.camera.irf.events import columns_of, read_events
from pipeline.camera.irf.models import load_models
from pipeline.config import parse_config
from pipeline.errors import InputFileError, TooFewEventsError, UserError
from pipeline.reporting.collect import collect
from pipeline.reporting.page import render
from pipeline.stages.irf import irf
from pipeline.stages.irf_runs import _run_maker, irf_from_runs

IDENTITY = "hexagon-1855-6.14arcmin-41deg-r24"
DIFFUSE = {
    "particle": "gamma", "runs": 1, "showers_per_run": 20, "energy_min_tev": 0.3, "energy_max_tev": 3.0,
    "scatter_radius_m": 150.0, "viewcone_deg": 1.5,
}  # fmt: skip
POINT = DIFFUSE | {"viewcone_deg": 0.0, "offset_deg": 0.5}
PROTON = DIFFUSE | {
    "particle": "proton", "runs": 2, "showers_per_run": 12, "energy_min_tev": 0.5, "energy_max_tev": 10.0,
    "viewcone_deg": 1.6,
}  # fmt: skip
DIFFUSE_RUN, POINT_RUN, PROTON_RUNS = 10_001, 10_002, (10_003, 10_004)
USES = 6
PREFIXES = inputs.Prefixes("tiny_energy", "tiny_gammaness", "HillasReconstructor")


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A function that makes the experiment, with changes of its section `irf`; the bundles are made once."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles = {
        "energy": camera_bundle(folder / "energy", "energy", IDENTITY, bias=-1.6),
        "gammaness": camera_bundle(folder / "gammaness", "gammaness", IDENTITY),
    }
    camera_bundle(folder / "direction", "direction", IDENTITY)

    def config(**changes):
        places = [{"type": "LST", "x_m": x, "y_m": y} for x in (-60, 60) for y in (-60, 60)]
        section = {"classes": [DIFFUSE, POINT, PROTON], "true_bins_per_decade": 4, "reco_bins_per_decade": 3}
        section |= {"offset_bins": 2, "optimiser": "percentile"} | {key: str(path) for key, path in bundles.items()}
        return parse_config(
            {
                "name": "tiny", "seed": 3, "threads": 1, "networks": {}, "evaluate": {"bootstrap": 50},
                "showers": {"array": places, "min_telescopes": 2, "positions_per_shower": USES},
                "irf": section | changes,
            }
        )  # fmt: skip

    return config


@pytest.fixture(scope="module")
def runs(configured, tmp_path_factory):
    """Run -> DL2 file made as `lightpool irf` makes it, with directions of a network; and with ctapipe's, too."""
    folder = tmp_path_factory.mktemp("runs")
    cfg = configured()
    network = str(Path(cfg.irf.energy).with_name("direction"))
    make = _run_maker(cfg, load_models(configured(direction=network), folder), folder)
    complete = folder / "complete"
    complete.mkdir()
    files = {}
    for run in cfg.irf.runs:
        files[run] = make(run)
        tools.add_directions(files[run], complete / files[run].name, complete)
    return files, {run: complete / path.name for run, path in files.items()}


@pytest.fixture(scope="module")
def complete(runs):
    """Run -> DL2 file with directions."""
    return runs[1]


@pytest.fixture(scope="module")
def product(configured, complete, tmp_path_factory):
    """Responses of point source and diffuse gammas, in the folder of a run."""
    folder = tmp_path_factory.mktemp("product") / "tiny"
    return irf(configured(), folder / "irf", list(complete.values()))


def summary(folder):
    return json.loads((folder / "irf.json").read_text())


def bins(folder, kind, by):
    return [entry for entry in summary(folder)["kinds"][kind]["bins"] if entry["by"] == by]


# ---- products --------------------------------------------------------------------------------------------------------
def test_all_products_are_there(product):
    names = {"cuts.fits", "irf.fits", "irf_point_like.fits", "benchmarks.fits", "ctapipe.yaml"}
    for kind in ("point_source", "diffuse"):
        assert {path.name for path in (product / kind).iterdir()} == names
    figures = {
        f"{name}.png" for name in ("effective_area", "energy", "angular_resolution", "background", "sensitivity")
    }
    assert {path.name for path in product.iterdir()} == figures | {"irf.json", "point_source", "diffuse"}
    content = summary(product)
    assert {entry["file"] for entry in content["figures"]} == figures
    assert content["kinds"]["diffuse"]["tables"] == ["AEFF_2D", "EDISP_2D", "PSF_TABLE", "BKG_2D", "AEFF_2D"]
    sidecar = json.loads((product.parent / "irf.provenance.json").read_text())
    assert sidecar["inputs"].keys() == {f"run_{run}.dl2.h5" for run in (DIFFUSE_RUN, POINT_RUN, *PROTON_RUNS)}
    assert sidecar["bundles"].keys() == {"tiny_energy", "tiny_gammaness"}


@pytest.mark.slow
def test_equal_events_give_equal_bytes(product, configured, runs, tmp_path, monkeypatch):
    """Also where the runs are simulated by the command itself, and directions are added to a file that has none."""
    without, complete = runs
    files = complete | {DIFFUSE_RUN: without[DIFFUSE_RUN]}
    monkeypatch.setattr("pipeline.stages.irf_runs._run_maker", lambda *_: files.get)
    again = irf_from_runs(configured(), tmp_path / "irf")
    for path in product.rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(product)).read_bytes(), path.name


def test_directions_of_a_network(configured, runs, product, tmp_path):
    network = str(Path(configured().irf.energy).with_name("direction"))
    made = irf(configured(direction=network), tmp_path / "irf", [runs[0][POINT_RUN]])
    text = (made / "point_source" / "ctapipe.yaml").read_text()
    assert "geometry_reconstructor: tiny_direction" in text
    assert "np.count_nonzero(tiny_direction_tels_used, axis=1) >= 2" in text
    assert "Hillas" not in text
    (first, *_), (other, *_) = (bins(folder, "point_source", "true_energy_tev") for folder in (made, product))
    assert first["angular_resolution_deg"]["value"] > other["angular_resolution_deg"]["value"]  # it is made by hand


def test_the_summary_agrees_with_the_tables(product):
    table = fits.getdata(product / "diffuse" / "irf.fits", "EFFECTIVE AREA")
    areas = [entry["effective_area_m2"]["value"] for entry in bins(product, "diffuse", "true_energy_tev")]
    np.testing.assert_allclose(areas, table["EFFAREA"][0].ravel(), rtol=1e-5)
    table = fits.getdata(product / "diffuse" / "benchmarks.fits", "SENSITIVITY")
    crab = [entry["sensitivity_crab"]["value"] for entry in bins(product, "diffuse", "sensitivity")]
    np.testing.assert_allclose(np.array(crab, float), table["RELATIVE_SENSITIVITY"][0].ravel(), rtol=1e-5)
    table = fits.getdata(product / "point_source" / "benchmarks.fits", "ANGULAR RESOLUTION")
    entries = bins(product, "point_source", "true_energy_tev")
    counts = [entry["angular_resolution_deg"]["n"] for entry in entries]
    np.testing.assert_array_equal(counts, table["N_EVENTS"][0].ravel())


def test_the_effective_area_is_the_area_of_the_thrown_times_the_share_that_is_left(product):
    (entry, *_) = [e for e in bins(product, "point_source", "true_energy_tev") if e["effective_area_m2"]["n"]]
    thrown = 20 * USES * (1 / entry["low"] - 1 / entry["high"]) / (1 / 0.3 - 1 / 3.0)
    expected = np.pi * 150**2 * entry["effective_area_m2"]["n"] / thrown
    assert entry["effective_area_m2"]["value"] == pytest.approx(expected, rel=1e-4)


def test_warnings_stand_in_the_product(product):
    (first, second) = summary(product)["warnings"]
    assert first.startswith("the sensitivity to a point source is not known in 3 of 3 bins")
    assert second.startswith("the sensitivity to diffuse gammas is not known in 6 of 6 bins")
    header = fits.getheader(product / "point_source" / "irf.fits")
    assert header["LPNWARN"] == 2
    text = "\n".join(map(str, header["HISTORY"]))
    assert "lightpool warning: the sensitivity to a point source is not known" in text
    assert "DATE" not in fits.getheader(product / "point_source" / "irf.fits", "PSF")


def test_the_report_shows_them(product):
    page = render(collect(product.parent))
    assert '<h2 id="irf">Instrument response</h2>' in page
    assert page.count("Diffuse gammas: in bands of true energy") == 1
    assert "CTAO requirement, four LSTs: https://github.com/cta-observatory/ctaplot" in page
    assert "cannot be shown" not in page


# ---- traps -----------------------------------------------------------------------------------------------------------
def loaded(path, particle, configuration, edges):
    return read_events(path, particle, configuration, 50.0, np.array(edges))


@pytest.fixture(scope="module")
def prepared(configured, complete):
    """Bins and ctapipe's configuration for the diffuse gammas."""
    cfg = configured().irf
    thrown = inputs.read_event_file(complete[DIFFUSE_RUN], {}).thrown
    criteria = inputs.quality_criteria(columns_of(complete[DIFFUSE_RUN]), PREFIXES, 2)
    made = settings.bins_of(cfg, thrown, [])
    return made, settings.ctapipe_configuration(cfg, PREFIXES, criteria, made, optimise=True)


def test_weights_of_diffuse_gammas_are_those_of_their_view_cone(prepared, complete):
    """Traps 3 and 4: wider bins spread the gammas over more solid angle, narrower ones leave weights of 1."""
    made, configuration = prepared
    assert made.offset_edges_deg.tolist() == [0.0, 0.75, 1.5]
    assert configuration["DefaultFoVOffsetBins"]["fov_offset_max"] == "1.5 deg"
    assert configuration["PointSourceSensitivityOptimizer"]["max_background_fov_offset"] == "1.5 deg"
    events = loaded(complete[DIFFUSE_RUN], "gamma", configuration, [0.0, 1.5])
    energy = events.true_energy_tev
    crab = 2.83e-11 * energy**-2.62 * 1e4  # per m2, s and TeV (HEGRA)
    thrown = events.n_thrown * energy**-2 / (1 / 0.3 - 1 / 3.0)
    np.testing.assert_allclose(events.weight, crab * np.pi * 150**2 * 50 * 3600 / thrown, rtol=1e-4)
    wider = loaded(complete[DIFFUSE_RUN], "gamma", configuration, [0.0, 3.0])
    np.testing.assert_allclose(events.weight / wider.weight, 4, rtol=1e-3)
    narrower = loaded(complete[DIFFUSE_RUN], "gamma", configuration, [0.0, 0.75])
    assert np.all(narrower.weight[narrower.true_offset_deg >= 0.75] == 1)


def test_uses_of_a_shower_are_counted(runs, complete, tmp_path):
    """Trap 5: the table that says so goes from the simulation through prediction, directions and merging."""
    for files in runs:
        with h5py.File(files[DIFFUSE_RUN]) as file:
            assert file["simulation/service/shower_distribution"]["n_entries"].tolist() == [20 * USES]
    merged = tools.merge([complete[run] for run in PROTON_RUNS], tmp_path / "merged.h5", tmp_path)
    found = inputs.read_event_file(merged, {})
    assert found.n_thrown == 2 * 12 * USES
    assert found.obs_ids == PROTON_RUNS


def test_a_run_without_its_number_of_thrown_showers_is_refused(complete, tmp_path):
    """The end of a simulation has it: if it is missing, the run was cut, though its header counts all showers."""
    table = "simulation/service/shower_distribution"
    poor = changed(complete[DIFFUSE_RUN], tmp_path / "poor.h5", RUN, "shower_reuse", 1)
    with h5py.File(poor, "r+") as file:
        del file[table]
    with pytest.raises(InputFileError, match=rf"showers thrown .* for run {DIFFUSE_RUN}: the simulation was cut"):
        inputs.read_event_file(poor, {})
    merged = tools.merge([complete[run] for run in PROTON_RUNS], tmp_path / "merged.h5", tmp_path)
    with tables.open_file(merged, "r+") as file:
        file.get_node(f"/{table}").remove_rows(0, 1)
    with pytest.raises(InputFileError, match=rf"showers thrown .* for run {PROTON_RUNS[0]}: the simulation was cut"):
        inputs.read_event_file(merged, {})


def test_a_point_source_has_one_offset_bin_around_it(product):
    """Trap 6."""
    table = fits.getdata(product / "point_source" / "irf.fits", "EFFECTIVE AREA")
    assert (table["THETA_LO"].tolist(), table["THETA_HI"].tolist()) == ([[0.0]], [[1.0]])
    assert fits.getdata(product / "diffuse" / "irf.fits", "PSF")["THETA_HI"].tolist() == [[0.75, 1.5]]


def test_the_point_spread_holds_the_tails(product):
    """The table is normalised to what it holds: its containment is that of all gammas only if it is wide enough."""
    table = fits.getdata(product / "point_source" / "irf.fits", "PSF")[0]
    low, high = np.radians(table["RAD_LO"]), np.radians(table["RAD_HI"])
    assert table["RAD_HI"][-1] == 3.0
    cumulative = np.cumsum(table["RPSF"][:, 0].T * 2 * np.pi * (np.cos(low) - np.cos(high)), axis=1)
    radius = [np.interp(0.68, row, table["RAD_HI"]) for row in cumulative]
    told = [entry["angular_resolution_deg"]["value"] for entry in bins(product, "point_source", "true_energy_tev")]
    assert [abs(a - b) < 0.02 for a, b in zip(radius, told, strict=True) if b is not None].count(True) >= 2


def test_one_prefix_for_several_quantities(complete, configured, prepared, tmp_path):
    """Trap 7: ctapipe then names the columns P_is_valid_1 and P_is_valid_2; both are demanded."""
    path = tmp_path / "one_prefix.h5"
    shutil.copyfile(complete[DIFFUSE_RUN], path)
    with tables.open_file(path, "r+") as file:
        old = file.root.dl2.event.subarray.classification.tiny_gammaness
        names = [name.replace("tiny_gammaness", "tiny_energy") for name in old.dtype.names]
        rows = old[:].view(np.dtype([(name, old.dtype[i]) for i, name in enumerate(names)]))
        rows["tiny_energy_is_valid"][:5] = 0
        new = file.create_table(old._v_parent, "tiny_energy", obj=rows)
        for key in old.attrs._v_attrnamesuser:
            new.attrs[key] = old.attrs[key]
        file.remove_node(old)
    prefixes = inputs.Prefixes("tiny_energy", "tiny_energy", "HillasReconstructor")
    inputs.check_predicted(inputs.read_event_file(path, {}), prefixes)
    criteria = inputs.quality_criteria(columns_of(path), prefixes, 2)
    assert {"tiny_energy_is_valid_1", "tiny_energy_is_valid_2"} <= {expression for _, expression in criteria}
    made, _ = prepared
    configuration = settings.ctapipe_configuration(configured().irf, prefixes, criteria, made, optimise=False)
    assert len(loaded(path, "gamma", configuration, [0.0, 1.5])) == 20 * USES - 5


def test_bins_without_events_between_others_are_named(configured, complete, tmp_path):
    """Trap 13: ctapipe stops with "internal NaN bins"."""
    cfg = configured(optimiser="sensitivity", reco_bins_per_decade=12)
    with pytest.raises(TooFewEventsError, match=r"the emptiest bins before cuts are .* TeV: \d+ gammas, \d protons; "):
        irf(cfg, tmp_path / "irf", list(complete.values()))
    assert not (tmp_path / "irf").exists()


def test_without_protons_all_else_is_made(configured, complete, tmp_path):
    """Trap 14."""
    made = irf(configured(optimiser="sensitivity"), tmp_path / "irf", [complete[POINT_RUN]])
    (warning,) = summary(made)["warnings"]
    assert warning.startswith("there are no protons: the cuts keep 80 % of the gammas in each energy bin")
    assert fits_files.tables_of(made / "point_source" / "irf.fits") == ["AEFF_2D", "EDISP_2D", "PSF_TABLE"]
    assert fits_files.tables_of(made / "point_source" / "irf_point_like.fits")[-1] == "RAD_MAX_2D"
    assert not (made / "sensitivity.png").exists()
    assert {entry["by"] for entry in summary(made)["kinds"]["point_source"]["bins"]} == {"true_energy_tev"}


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_responses_are_checked_where_the_schema_is_installed(product):
    is_installed = find_spec("ogadf_schema") is not None
    assert {part["is_checked_by_ogadf_schema"] for part in summary(product)["kinds"].values()} == {is_installed}


def test_a_table_of_no_type_is_a_fault_of_ours(product, tmp_path):
    shutil.copy(product / "diffuse" / "irf.fits", tmp_path)
    fits.setval(tmp_path / "irf.fits", "HDUCLAS4", value="PSF_4D", ext=1)
    with pytest.raises(RuntimeError, match=r"irf\.fits: .* is of no type of the GADF format \('PSF_4D'\)"):
        fits_files.tables_of(tmp_path / "irf.fits")


def test_a_violation_of_the_format_is_a_fault_of_ours(product, tmp_path):
    pytest.importorskip("ogadf_schema")
    path = tmp_path / "irf.fits"
    table = QTable.read(product / "diffuse" / "irf.fits", hdu="EFFECTIVE AREA")
    header = fits.getheader(product / "diffuse" / "irf.fits", "EFFECTIVE AREA")
    table.rename_column("EFFAREA", "AREA")
    hdu = fits.BinTableHDU(table, name="EFFECTIVE AREA")
    hdu.header["HDUCLAS4"] = header["HDUCLAS4"]
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    with pytest.raises(RuntimeError, match="EFFECTIVE AREA violates the GADF format"):
        fits_files.check_schema(path)


def changed(source, target, table, column, value):
    """A copy of a DL2 file with another value in the first row of a table."""
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        rows = file[table][:]
        rows[column] = value
        file[table][:] = rows
    return target


RUN = "configuration/simulation/run"
PRIMARIES = "simulation/event/subarray/shower"


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        (RUN, "max_alt", 0.9, r"the view cone is 18\.\d+ deg from the pointing"),
        (RUN, "min_viewcone_radius", 0.5, "several pointings, or a hollow view cone"),
        (PRIMARIES, "true_shower_primary_id", 402, "particles number 402 of CORSIKA; .*gamma.*proton"),
    ],
)
def test_files_that_are_not_for_responses(complete, tmp_path, table, column, value, message):
    path = changed(complete[DIFFUSE_RUN], tmp_path / "a.h5", table, column, value)
    with pytest.raises(InputFileError, match=message):
        inputs.read_event_file(path, {})


def test_files_must_fit_together(configured, complete, tmp_path):
    files = [complete[run] for run in PROTON_RUNS]
    other = changed(files[1], tmp_path / "b.h5", RUN, "spectral_index", -2.7)
    with pytest.raises(UserError, match=r"protons of different spectral_index \(-2\.0, -2\.7\)"):
        irf(configured(), tmp_path / "irf", [files[0], other])
    with pytest.raises(UserError, match="both hold run 10003; give each run once"):
        inputs.by_kind([inputs.read_event_file(files[0], {})] * 2)
    with pytest.raises(UserError, match="there are no gammas among the files"):
        irf(configured(), tmp_path / "irf", files)


def test_a_run_without_events_counts_as_thrown(complete, tmp_path):
    path = tmp_path / "empty.h5"
    shutil.copyfile(complete[DIFFUSE_RUN], path)
    with h5py.File(path, "r+") as file:
        rows = file[PRIMARIES][:0]
        attributes = dict(file[PRIMARIES].attrs)
        del file[PRIMARIES]
        file.create_dataset(PRIMARIES, data=rows, maxshape=(None,), chunks=True).attrs.update(attributes)
    found = inputs.read_event_file(path, {DIFFUSE_RUN: "gamma"})
    assert (found.thrown.particle, found.n_thrown, found.n_events) == ("gamma", 20 * USES, 0)
    with pytest.raises(InputFileError, match="has no event, so its particle is not known"):
        inputs.read_event_file(path, {})


def test_a_file_without_the_predictions_is_named(configured, complete, tmp_path):
    cfg = configured(energy=str(camera_bundle(tmp_path / "other", "energy", IDENTITY, name="other")))
    with pytest.raises(InputFileError, match="has no energy by other; it has tiny_energy: predict it with the bundles"):
        irf(cfg, tmp_path / "irf", list(complete.values()))


def test_directions_need_image_parameters(configured, runs, tmp_path):
    path = tmp_path / "poor.h5"
    shutil.copyfile(runs[0][DIFFUSE_RUN], path)
    with h5py.File(path, "r+") as file:
        del file["dl1/event/telescope/parameters"]
    with pytest.raises(InputFileError, match="no directions by HillasReconstructor and no image parameters"):
        irf(configured(), tmp_path / "irf", [path])


def test_runs_that_may_have_been_trained_on_are_named(configured, complete, tmp_path):
    path = tmp_path / "trained.h5"
    shutil.copyfile(complete[POINT_RUN], path)
    with h5py.File(path, "r+") as file:
        found = []
        file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        for table in found:
            if table.dtype.names and "obs_id" in table.dtype.names:
                rows = table[:]
                rows["obs_id"] = 1
                table[:] = rows
    cfg = configured()
    cfg = cfg.model_copy(update={"showers": cfg.showers.model_copy(update={"classes": cfg.irf.classes})})
    made = irf(cfg, tmp_path / "irf", [path])
    assert summary(made)["warnings"][0].startswith(
        "the events are of runs 1, which have numbers of the section showers"
    )


def test_the_section_must_say_what_to_make(configured, tmp_path):
    for changes, message in (
        ({"classes": []}, "the section irf has no runs of showers"),
        ({"energy": ""}, r"irf\.energy is empty; name the network or the bundle"),
        ({"energy": "no/such"}, r"there is no results/tiny/bundles/no/such, .* and there is no bundle 'no/such'"),
        ({"energy": configured().irf.gammaness}, r"irf\.energy: .*gammaness has no head energy; it has gammaness"),
    ):
        with pytest.raises(UserError, match=message):
            irf_from_runs(configured(**changes), tmp_path / "irf")
    cfg = configured()
    one = cfg.model_copy(update={"showers": cfg.showers.model_copy(update={"array": ()})})
    with pytest.raises(UserError, match="HillasReconstructor needs two telescopes, and the array has one"):
        irf_from_runs(one, tmp_path / "irf")


def test_an_existing_folder_is_kept(product, configured, complete):
    with pytest.raises(UserError, match="irf exists; choose another name or add --force"):
        irf(configured(), product, list(complete.values()))
