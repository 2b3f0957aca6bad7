"""Folders of plugins: found, and refused where a name would hide another or a folder is none."""

import pytest

from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.plugins import VARIABLE, extend_path, module_names, plugin_files


def test_modules_of_a_plugin_folder_are_found(tmp_path, monkeypatch):
    own, added = tmp_path / "package", tmp_path / "plugins" / "defects"
    for folder, name in ((own, "stars"), (added, "ghosts"), (added, "_private")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "plugins"))
    path = [str(own)]
    extend_path(path, "defects")
    assert module_names(path) == ["ghosts", "stars"]
    assert [file.name for file in plugin_files()] == ["_private.py", "ghosts.py"]


@pytest.mark.parametrize("file", ["stars.py", "stars/spec.py"])
def test_a_name_that_would_hide_another_is_refused(tmp_path, monkeypatch, file):
    own, added = tmp_path / "package", tmp_path / "plugins" / "defects"
    own.mkdir()
    (own / "stars.py").write_text("")
    (added / file).parent.mkdir(parents=True)
    (added / file).write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "plugins"))
    with pytest.raises(
        UserError, match=r"plugins/defects/stars\S* has the name of .*package/stars\.py, which hides it"
    ):
        extend_path([str(own)], "defects")


@pytest.mark.parametrize("file", ["models/resnet.py", "tasks/energy/spec.py", "telescopes/lst.py", "defects/trails.py"])
def test_the_command_line_refuses_it_in_one_line(tmp_path, monkeypatch, capsys, file):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert main(["models", "list"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / file}".removesuffix("/spec.py"))
    assert error.count("\n") == 1
    assert "which hides it; rename it" in error


def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(UserError, match=rf"{VARIABLE} names .*gone, which is not a directory; correct the variable"):
        extend_path([], "tasks")
