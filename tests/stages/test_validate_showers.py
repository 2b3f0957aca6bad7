"""`lightpool validate showers` and its part of the report, on made-up outcomes: which files, which words."""

import json

import numpy as np
import pytest
from astropy.table import Table

from pipeline.camera.showers.validation import checks
from pipeline.camera.showers.validation.checks import Outcome
from pipeline.camera.showers.validation.rows import Reference, Row, compared
from pipeline.errors import UserError
from pipeline.stages.report import report
from pipeline.stages.validate_showers import validate_showers

X = [50.0, 100.0, 200.0, 300.0]
BAND = {"x": X, "median": [1.0, 2.0, 3.0, 4.0], "error": [0.1] * 4, "lower": [0.5] * 4, "upper": [5.0] * 4}
LEVELS = {"level_g_cm2": X, "particles": [1.0, 5.0, 4.0, 2.0], "error": [0.2] * 4}
POOL = {"words": "50 GeV", "wavelength_nm": (240.0, 1000.0), "impact_m": X, "density": [9.0, 9.5, 5.0, 2.0],
        "error": [0.1] * 4, "spread": [2.0] * 4}  # fmt: skip
PLACES = {"impact_m": X, "reference": [9.1, 9.4, 5.5, 1.9], "ours": [9.0] * 4}
IMAGE = {"kind": "LST", "energy_gev": 200.0, "impact_m": 70.0, "reference": 900.0, "ours": 950.0, "spread": 120.0}
CURVES = {
    "profile": {"ours_100": LEVELS, "ours_50": LEVELS, "reference_100": LEVELS | {"model": "CORSIKA (EPOS)"}},
    "pool": {"pool_50": POOL | {"places": PLACES}, "pool_vertical": POOL},
    "protons": {"energy_gev": X, "reference": [2e4] * 4, "reference_error": [1e3] * 4, "ours": [2.1e4] * 4,
                "ours_error": [100.0] * 4, "single_energy_gev": X, "single_reference": [2e4] * 4},
    "telescopes": {"images": [IMAGE, IMAGE | {"energy_gev": 1300.0}], "constants": {"LST": 0.95}},
    "muons": {"energy_gev": X, "impact_m": [1.0, 3.0, 5.0, 9.0], "ours_deg": [1.2] * 4, "ours_pe": [2500.0] * 4,
              "reference_deg": [1.18] * 4, "reference_pe": [3000.0] * 4, "constant": 0.8},
    "size": {"energy_tev": [0.2, 0.5, 1.0, 3.0], "size_pe": [500.0, 1300.0, 2700.0, 9000.0], "power": 1.05},
    "hillas": {f"{sample}_{particle}_{column}": BAND for sample in ("ours", "prod3b")
               for particle in ("gamma", "proton") for column in ("width", "length")},
    "gradient": {"ours": BAND, "prod3b": BAND},
    "time": {particle: {"energy_gev": X, "cpu_s": [0.001, 0.002, 0.004, 0.006]} for particle in ("gamma", "proton")},
}  # fmt: skip


def made_up_outcomes(curves=CURVES):
    rows = [
        compared("light", "light of gammas", "", Reference(8.36e6, 9e4, "CORSIKA"), (8.5e6, 2e4)),
        compared("protons", "light of protons", "1/GeV", Reference(1.0, 0.05, "CORSIKA"), (1.3, 0.01),
                 explanation="models & luck", bound_percent=40.0),
        Row("auc", "forest", "", 0.95, 0.01, "everyday life", low=0.75, high=0.9),
    ]  # fmt: skip
    return [Outcome("all", rows, curves, 1.5)]


@pytest.fixture
def outcomes(monkeypatch):
    monkeypatch.setattr(checks, "run_checks", lambda data, quick, jobs: made_up_outcomes())


def test_table_and_figures(outcomes, tmp_path):
    out = validate_showers(tmp_path / "validation", quick=True)
    content = json.loads((out / "validation.json").read_text())
    assert content["counts"] == {"agrees": 1, "bounded": 1, "differs": 1}
    assert (content["with_data"], content["quick"]) == (False, True)
    assert [entry["file"].removesuffix(".png") for entry in content["figures"]] == list(CURVES)
    assert all((out / entry["file"]).stat().st_size > 5000 for entry in content["figures"])
    written = Table.read(out / "validation.ecsv")
    assert written["verdict"].tolist() == ["agrees", "bounded", "differs"]
    assert written["difference_percent"][1] == pytest.approx(30.0)
    assert np.isnan(written["reference"][2])
    lines = (out / "validation.md").read_text().splitlines()
    assert len(lines) == 5
    assert lines[3].startswith("| light of protons [1/GeV] | 1.000 ± 0.050 | 1.300 ± 0.010 | +30.0 %, +5.9 sigma |")
    assert (tmp_path / "validation.provenance.json").is_file()


def test_figures_without_references(monkeypatch, tmp_path):
    alone = {
        "profile": {name: CURVES["profile"][name] for name in ("ours_100", "ours_50")},
        "pool": {"pool_50": POOL},
        "muons": {name: CURVES["muons"][name] for name in ("energy_gev", "impact_m", "ours_deg", "ours_pe")},
        "hillas": {name: band for name, band in CURVES["hillas"].items() if name.startswith("ours")},
        "gradient": {"ours": BAND},
    }
    monkeypatch.setattr(checks, "run_checks", lambda data, quick, jobs: made_up_outcomes(alone))
    out = validate_showers(tmp_path / "validation")
    assert {path.stem for path in out.glob("*.png")} == set(alone)


def test_nothing_is_overwritten_unasked(outcomes, tmp_path):
    out = validate_showers(tmp_path / "validation")
    with pytest.raises(UserError, match=r"validation exists; choose another name or add --force"):
        validate_showers(out)
    validate_showers(out, force=True)


def test_the_report_shows_the_validation(outcomes, tmp_path):
    run = tmp_path / "run"
    validate_showers(run / "validation" / "showers")
    page = report(run, tmp_path / "report.html").read_text()
    assert '<h2 id="showers">Shower simulation</h2>' in page
    assert "1 of 3 quantities agree with their reference, 1 differ within an explained bound, 1 differ." in page
    assert "Only published numbers were compared" in page
    assert "light of protons: models &amp; luck" in page
    assert page.count("data:image/png") == len(CURVES)


def test_a_report_without_validation_says_nothing_of_it(tmp_path):
    (tmp_path / "run" / "tiles").mkdir(parents=True)
    assert "Shower simulation" not in report(tmp_path / "run", tmp_path / "report.html").read_text()
