"""`models` imports torch and itself, and never `pipeline`."""

import ast
import sys
from pathlib import Path

import models

PACKAGE = Path(models.__file__).parent


def imported_packages(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "models")
    return {name.partition(".")[0] for name in names}


def test_models_imports_torch_only():
    sources = list(PACKAGE.glob("*.py"))
    assert sources
    outside = set().union(*map(imported_packages, sources)) - set(sys.stdlib_module_names)
    assert outside <= {"models", "torch"}


def test_models_comes_from_this_checkout():
    assert Path(__file__).parents[2] / "models" == PACKAGE
