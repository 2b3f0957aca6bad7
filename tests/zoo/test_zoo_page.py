"""docs/zoo.md tells of the zoo as it is."""

import re

import pytest

from models import list_models, model_entry

COLUMNS = ("entry", "parameters", "source", "paper", "shapes", "smallest", "onnx")


@pytest.fixture(scope="module")
def rows(checkout):
    text = (checkout / "docs" / "zoo.md").read_text()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if "| `" in line]
    return {row[0].strip("`"): dict(zip(COLUMNS, row, strict=True)) for row in cells}


def test_page_has_every_entry_in_order(rows):
    assert list(rows) == list_models(), "run docs/zoo_table.py"


def test_page_has_the_numbers_of_the_registry(rows):
    for name, row in rows.items():
        entry = model_entry(name)
        assert int(row["parameters"].replace(",", "")) == entry.num_params
        assert entry.paper.partition(":")[2] in re.findall(r"\[(.+)\]\(https", row["paper"])


def test_onnx_agrees_with_torch(rows):
    assert all(float(row["onnx"]) < 1e-4 for row in rows.values())
