"""The notebooks of docs/ run on less data, and what they show holds. `make docs` runs them in full, in a kernel."""

import json
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

# What is written in the notebook, and what is done here.
QUICK = {
    "spectrum": {"SHOWERS = 300": "SHOWERS = 40"},
    "night": {},
    "architectures": {"SHOWERS = 250": "SHOWERS = 40", "EPOCHS = 6": "EPOCHS = 3"},
}


def notebook(checkout, name):
    return json.loads((checkout / "docs" / "notebooks" / f"{name}.ipynb").read_text())


@pytest.fixture
def run(checkout, tmp_path, monkeypatch):
    """Run the code of a notebook as a script; its names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(checkout))

    def run(name):
        cells = [cell for cell in notebook(checkout, name)["cells"] if cell["cell_type"] == "code"]
        code = "\n\n".join("".join(cell["source"]) for cell in cells)
        for full, quick in QUICK[name].items():
            assert code.count(full) == 1
            code = code.replace(full, quick)
        names = {}
        exec(compile(code, f"{name}.ipynb", "exec"), names)
        return names

    yield run
    plt.close("all")


@pytest.mark.slow
def test_the_fit_gives_the_spectrum_of_the_source(run):
    names = run("spectrum")
    assert abs(names["index"] - names["INDEX"]) < 4 * names["index_error"] < 2
    assert 4e4 < names["area_m2"][1] < np.pi * 250**2  # at 0.1 TeV; the thrown area


def test_restored_frames_have_fewer_spoiled_stars(run):
    names = run("night")
    assert names["outliers"]["after"] < names["outliers"]["before"] / 2
    assert Path("cleaned_frame_1.fits").is_file()


@pytest.mark.slow
def test_networks_learn(run):
    names = run("architectures")
    assert list(names["curves"]) == list(names["NETWORKS"]) == list(names["descriptions"])
    assert min(min(errors) for errors, _ in names["curves"].values()) < names["spread"]


@pytest.mark.parametrize("name", QUICK)
def test_notebooks_are_stored_without_outputs(checkout, name):
    for cell in notebook(checkout, name)["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_notebook_is_run(checkout):
    assert {path.stem for path in (checkout / "docs" / "notebooks").glob("*.ipynb")} == set(QUICK)
