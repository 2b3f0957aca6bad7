"""Completion in the shell: the script of each, and what it is answered."""

import os
import shutil
import subprocess
import sys

import pytest

from pipeline import cli
from pipeline.bundle.card import list_bundles

ASK = """
ask() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _lightpool_completion lightpool
    echo "${COMPREPLY[*]}"
}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """With `lightpool` in the PATH; a completion that loads something heavy says so."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "lightpool"
    program.write_text(f"""#!{sys.executable}
import sys
from pipeline.cli import main
try:
    code = main()
finally:
    if heavy := {{"numpy", "torch", "ctapipe", "h5py", "astropy", "yaml", "numba"}} & set(sys.modules):
        print("loaded", *heavy)
sys.exit(code)
""")
    program.chmod(0o755)
    root = os.path.dirname(os.path.dirname(cli.__file__))
    path = os.pathsep.join((os.path.dirname(root), os.environ.get("PYTHONPATH", "")))
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}


def script(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(environment, capsys):
    questions = {
        "lightpool pre": "predict",
        "lightpool predict frame.fits --appe": "--append",
        "lightpool predict frame.fits --bundle sky-": " ".join(n for n in list_bundles() if n.startswith("sky-")),
        "lightpool predict fra": "",  # the name of a file, which bash completes by itself
    }
    asked = "".join(f"ask {question}\n" for question in questions)
    done = subprocess.run(
        ["bash", "--norc", "-c", script("bash", capsys) + ASK + asked],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == list(questions.values())
    assert "complete -o default -F _lightpool_completion lightpool" in script("bash", capsys)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_the_shell(shell, capsys):
    text = script(shell, capsys)
    assert f"_LIGHTPOOL_COMPLETE=complete_{shell} " in text
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(("shell", "answer"), [("zsh", '("predict"'), ("fish", "predict\tApply trained models")])
def test_other_shells_are_answered(shell, answer, environment):
    asking = {"_LIGHTPOOL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "lightpool pre"}
    asking["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    done = subprocess.run(["lightpool"], env=environment | asking, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer in done.stdout
    assert "loaded" not in done.stdout


def test_another_shell_is_refused(capsys):
    assert cli.main(["completion", "ksh"]) == 2
    assert "'ksh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err
