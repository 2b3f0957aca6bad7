"""The examples in the docstrings of the public API run, and give what they say."""

import doctest
import importlib
import inspect

import pytest
from public_files import write_public_files

import lightpool

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_public_files(tmp_path_factory.mktemp("doctests"))


def examples():
    """Doctests of all modules of the package, those of private functions included."""
    modules = [lightpool, *(importlib.import_module(f"lightpool.{name}") for name in ("_model", "_images", "_frames"))]
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for m in modules for test in finder.find(m, extraglobs={"lightpool": lightpool}) if test.examples]


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_example(test, folder, monkeypatch):
    monkeypatch.chdir(folder)
    report = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append, clear_globs=False)
    assert not report, "".join(report)


def test_every_public_name_has_an_example():
    shown = {test.name for test in examples()}
    promised = {
        f"{thing.__module__}.{thing.__qualname__}"
        for thing in (getattr(lightpool, name) for name in lightpool.__all__)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("lightpool")
    }
    promised = {name if "_model.Model" not in name else f"{name}.predict" for name in promised}
    assert promised <= shown
