"""The way to instrument response functions: directions of ctapipe, energies and gammaness of lightpool, in one file.

Either program may come first; both ways give the same file of responses.
"""

import shutil

import h5py
import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle

from pipeline.config import Config, ShowerClass, ShowersConfig, TelescopePlace, parse_config
from pipeline.errors import UserError
from pipeline.stages.info import describe_file
from pipeline.stages.ingest import ingest
from pipeline.stages.predict import predict
from pipeline.stages.simulate_showers import simulate_showers
from pipeline.stages.tiles import make_tiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Could not read reference metadata"),  # of FITS files, by ctapipe's provenance
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),  # energies never thrown
]
TOOLS = {
    "process": "ProcessorTool", "optimize-event-selection": "EventSelectionOptimizer", "compute-irf": "IrfTool",
    "apply-models": "ApplyModels",
}  # fmt: skip
CFG = parse_config({"threads": 1})
IDENTITY = "hexagon-1855-6.14arcmin-41deg-r24"
FOCAL = "focal_length_choice=EQUIVALENT"
SETTINGS = """
DL2EventPreprocessor:
  energy_reconstructor: tiny_energy
  geometry_reconstructor: HillasReconstructor
  gammaness_classifier: tiny_gammaness
DL2EventQualityQuery:
  quality_criteria:
    - ["multiplicity", "np.count_nonzero(HillasReconstructor_telescopes, axis=1) >= 2"]
    - ["valid directions", "HillasReconstructor_is_valid"]
    - ["valid energies", "tiny_energy_is_valid"]
    - ["valid gammaness", "tiny_gammaness_is_valid"]
EventSelectionOptimizer:
  optimization_algorithm: PercentileCuts
"""


def run(name, *arguments):
    """One of ctapipe's tools, in this process."""
    from importlib import import_module

    from ctapipe.core import run_tool

    module = import_module(f"ctapipe.tools.{name.replace('-', '_')}")
    tool = getattr(module, TOOLS[name])()
    assert run_tool(tool, list(map(str, arguments)), raises=True) == 0


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Bundles, a simulated run, and the DL2 files of both ways."""
    pytest.importorskip("pyirf")
    folder = tmp_path_factory.mktemp("chain")
    array = tuple(TelescopePlace(type="LST", x_m=x, y_m=y) for x in (-60, 60) for y in (-60, 60))
    thrown = ShowerClass(
        particle="gamma", runs=1, showers_per_run=25, energy_min_tev=0.2, energy_max_tev=5.0, scatter_radius_m=200.0
    )
    showers = ShowersConfig(array=array, min_telescopes=2, positions_per_shower=2, classes=(thrown,))
    raw = simulate_showers(Config(seed=11, showers=showers), 1, folder / "raw.dl1.h5")
    bundles = [camera_bundle(folder / task, task, IDENTITY) for task in ("energy", "gammaness")]
    options = ("--write-showers", f"--HDF5EventSource.{FOCAL}")
    run("process", "-i", raw, "-o", folder / "directions.h5", "--write-images", *options)
    predict(CFG, [folder / "directions.h5"], bundles, folder / "ctapipe_first.dl2.h5")
    predict(CFG, [raw], bundles, folder / "energies.dl2.h5")
    run("process", "-i", folder / "energies.dl2.h5", "-o", folder / "lightpool_first.dl2.h5", *options)
    (folder / "irf.yaml").write_text(SETTINGS)
    return folder


def responses(folder, name):
    """FITS file of responses, from a DL2 file with directions, energies and gammaness."""
    out = folder / f"{name}.fits"
    common = ("-c", folder / "irf.yaml", "--overwrite", f"--TableLoader.{FOCAL}")
    source = folder / f"{name}.dl2.h5"
    run("optimize-event-selection", *common, "-g", source, "-o", folder / f"{name}.cuts.fits")
    run(
        "compute-irf", *common, "--cuts", folder / f"{name}.cuts.fits", "--gamma-file", source, "--output", out,
        "--no-do-background",
    )  # fmt: skip
    return out


def events(path, **options):
    from ctapipe.io import TableLoader

    with TableLoader(path, focal_length_choice="EQUIVALENT") as loader:
        return loader.read_subarray_events(**options), loader.read_telescope_events(**options)


def test_both_ways_give_the_same_responses(chain):
    paths = [responses(chain, name) for name in ("ctapipe_first", "lightpool_first")]
    with fits.open(paths[0]) as first, fits.open(paths[1]) as second:
        assert [hdu.name for hdu in first] == ["PRIMARY", "EFFECTIVE AREA", "ENERGY DISPERSION", "PSF"]
        area_m2 = first["EFFECTIVE AREA"].data["EFFAREA"]
        assert 1e3 < np.nanmax(area_m2) < np.pi * 200**2
        for hdu in first[1:]:
            for column in hdu.columns.names:
                np.testing.assert_array_equal(hdu.data[column], second[hdu.name].data[column])


def test_both_ways_hold_the_same_events(chain):
    first, second = events(chain / "ctapipe_first.dl2.h5"), events(chain / "lightpool_first.dl2.h5")
    names = {"HillasReconstructor_alt", "HillasReconstructor_core_x", "tiny_energy_energy", "tiny_gammaness_prediction"}
    images = {"hillas_length", "tiny_energy_tel_energy", "true_impact_distance"}
    for tables, needed in zip(zip(first, second, strict=True), (names, images), strict=True):
        common = set(tables[0].colnames) & set(tables[1].colnames)
        assert common >= needed
        for name in common - {"time"}:
            types = [getattr(table[name], "dtype", None) for table in tables]  # times have none
            assert types[0] == types[1], name
            np.testing.assert_array_equal(tables[0][name], tables[1][name], err_msg=name)
    assert np.isfinite(first[0]["HillasReconstructor_alt"]).sum() > 10
    assert np.isfinite(first[0]["tiny_energy_energy"]).sum() > 10


def test_a_file_with_images_and_directions_is_taken_everywhere(chain, tmp_path):
    text = "\n".join(describe_file(chain / "directions.h5"))
    assert "ctapipe DL1" in text
    assert "HillasReconstructor: " in text
    assert "telescopes combined" in text
    (status,) = ingest([chain / "directions.h5"], CFG, tmp_path / "dl1")
    assert (status["status"], status["kind"]) == ("ok", "dl1")
    made = tmp_path / "dl1" / "directions.dl1.h5"
    (status,) = make_tiles([made], CFG, tmp_path / "tiles")
    assert status["n_tiles"] > 0
    (status,) = predict(CFG, [made], [chain / "energy", chain / "gammaness"], tmp_path / "again.dl2.h5")
    assert status["status"] == "ok"
    for ours, same in zip(events(tmp_path / "again.dl2.h5"), events(chain / "ctapipe_first.dl2.h5"), strict=True):
        for name in set(same.colnames) - {"time"}:
            np.testing.assert_array_equal(ours[name], same[name])


def test_a_file_without_images_is_named(chain, tmp_path):
    path = chain / "ctapipe_first.dl2.h5"
    assert "images          none: give predict the file that they are in" in "\n".join(describe_file(path))
    (status,) = predict(CFG, [path], [chain / "energy"], tmp_path / "out.dl2.h5")
    assert "is a DL2 file without images" in status["reason"]
    (status,) = ingest([path], CFG, tmp_path / "dl1")
    assert "is DL2 without camera images; give the DL1 file that it was made from" in status["reason"]


def test_predictions_are_not_made_twice(chain, tmp_path):
    both = tmp_path / "both.h5"
    shutil.copyfile(chain / "directions.h5", both)
    with h5py.File(both, "r+") as file, h5py.File(chain / "energies.dl2.h5") as predicted:
        predicted.copy("dl2/event/telescope/energy", file["dl2/event/telescope"])
    (status,) = predict(CFG, [both], [chain / "energy"], tmp_path / "out.dl2.h5")
    assert "holds predictions of tiny_energy already (/dl2/event/telescope/energy/tiny_energy)" in status["reason"]
    assert not (tmp_path / "out.dl2.h5").exists()
    (status,) = predict(CFG, [both], [chain / "gammaness"], tmp_path / "out.dl2.h5")
    assert status["status"] == "ok"
    for ours, same in zip(events(tmp_path / "out.dl2.h5"), events(chain / "ctapipe_first.dl2.h5"), strict=True):
        assert {"tiny_gammaness_tel_prediction", "tiny_energy_tel_energy"} & set(same.colnames) <= set(ours.colnames)
        for name in set(ours.colnames) - {"time"}:
            np.testing.assert_array_equal(ours[name], same[name])


def test_predictions_are_added_to_files_of_ctapipe(chain, tmp_path):
    """With images, and without."""
    for name in ("directions.h5", "lightpool_first.dl2.h5"):
        shutil.copyfile(chain / name, tmp_path / name)
    for target, bundles in (
        ("directions.h5", [chain / "energy", chain / "gammaness"]),
        ("lightpool_first.dl2.h5", [camera_bundle(tmp_path / "b", "energy", IDENTITY, name="second")]),
    ):
        (status,) = predict(CFG, [chain / "raw.dl1.h5"], bundles, append=tmp_path / target)
        assert (status["status"], "warnings" in status) == ("ok", False)
    for ours, same in zip(events(tmp_path / "directions.h5"), events(chain / "ctapipe_first.dl2.h5"), strict=True):
        assert set(same.colnames) <= set(ours.colnames)
        for name in set(same.colnames) - {"time"}:
            np.testing.assert_array_equal(ours[name], same[name])
    for table, infix in zip(events(tmp_path / "lightpool_first.dl2.h5"), ("", "tel_"), strict=True):
        np.testing.assert_array_equal(table[f"second_{infix}energy"], table[f"tiny_energy_{infix}energy"])
        assert np.isfinite(table[f"second_{infix}energy"]).sum() > 10


def test_the_input_is_never_replaced(chain):
    before = (chain / "directions.h5").read_bytes()
    with pytest.raises(UserError, match="is an input, which stays as it is"):
        predict(CFG, [chain / "directions.h5"], [chain / "energy"], chain / "directions.h5", force=True)
    assert (chain / "directions.h5").read_bytes() == before


def test_models_of_ctapipe_are_applied_to_our_file(chain, tmp_path):
    from ctapipe.io import TableLoader
    from ctapipe.reco import EnergyRegressor

    source, out = chain / "ctapipe_first.dl2.h5", tmp_path / "forest.dl2.h5"
    with TableLoader(source, focal_length_choice="EQUIVALENT") as loader:
        table = loader.read_telescope_events()
        regressor = EnergyRegressor(
            loader.subarray, prefix="Forest", model_cls="RandomForestRegressor", log_target=True,
            model_config={"n_estimators": 3, "random_state": 0},
            features=["hillas_intensity", "hillas_length", "tiny_energy_tel_energy"],
        )  # fmt: skip
        regressor.fit(loader.subarray.tel[1], table[np.isfinite(table["tiny_energy_tel_energy"])])
    regressor.write(tmp_path / "forest.pkl")
    run("apply-models", "-i", source, "-o", out, "-r", tmp_path / "forest.pkl", f"--TableLoader.{FOCAL}")
    before, after = events(source), events(out)
    for old, new in zip(before, after, strict=True):
        for name in set(old.colnames) - {"time"}:
            np.testing.assert_array_equal(old[name], new[name])
    assert np.isfinite(after[0]["Forest_energy"]).sum() > 10
