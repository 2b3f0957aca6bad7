"""Work in several processes: in order, a bounded number at a time, and plain words when one dies."""

import functools
import logging
import math
import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.errors import UserError
from pipeline.logs import get_logger
from pipeline.workers import AHEAD, in_order


def test_one_process_is_this_one():
    taken = []
    results = in_order(functools.partial, (operator.add, 1), (taken.append(i) or i for i in range(5)), jobs=1)
    assert next(results) == 1
    assert taken == [0]
    assert list(results) == [2, 3, 4, 5]


def test_two_processes_keep_the_order_and_do_not_run_ahead():
    taken = []
    results = in_order(functools.partial, (operator.mul, 2), (taken.append(i) or i for i in range(40)), jobs=2)
    assert next(results) == 0
    assert len(taken) == 2 * AHEAD
    assert list(results) == [2 * i for i in range(1, 40)]


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(ValueError, match="math domain error"):
        list(in_order(functools.partial, (math.sqrt,), [1.0, -1.0], jobs=2))


def test_an_error_in_making_a_worker_is_raised_here():
    with pytest.raises(TypeError, match="the first argument must be callable"):
        list(in_order(functools.partial, (None,), [1, 2], jobs=2))


def test_a_process_that_dies_is_named():
    with pytest.raises(UserError, match=r"one of 2 processes was killed.*smaller --jobs"):
        list(in_order(functools.partial, (os._exit,), [9, 9], jobs=2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_workers_log_is_logged_here(jobs, caplog):
    log = get_logger("pipeline.example")
    with caplog.at_level(logging.INFO, logger="lightpool"):
        list(in_order(functools.partial, (log.info, "item %d"), range(4), jobs=jobs))
        list(in_order(functools.partial, (log.debug, "detail %d"), range(2), jobs=jobs))
    assert caplog.messages == [f"item {i}" for i in range(4)]


# The folder is given; the work takes a minute, and what it leaves half made is removed on the way out.
WAITING = """
import pathlib, sys, time
from pipeline.files import atomic_output

def work(folder, name):
    with atomic_output(pathlib.Path(folder) / name) as temporary:
        temporary.write_text("half")
        time.sleep(60)
"""
PARENT = """
import functools, signal, sys
import waiting
from pipeline.cli.signals import ending_by_signals
from pipeline.workers import in_order

# A shell starts jobs in the background with Ctrl-C switched off.
signal.signal(signal.SIGINT, signal.default_int_handler)
with ending_by_signals():
    list(in_order(functools.partial, (waiting.work, sys.argv[1]), ["a", "b"], 2))
"""


@pytest.fixture
def parent(tmp_path):
    """A process with two workers in the middle of their work; and the folder of their products."""
    (tmp_path / "waiting.py").write_text(WAITING)
    products = tmp_path / "products"
    products.mkdir()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(products)],
        env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(products.glob(".*.part/[ab]"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(products.glob(".*.part/[ab]"))) == 2
    yield process, products
    process.kill()


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "")])
def test_a_signal_ends_the_workers_and_removes_what_is_half_made(parent, number, word):
    process, products = parent
    process.send_signal(number)
    # stderr closes when the last process that holds it has ended.
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert word in stderr
    assert list(products.iterdir()) == []


def test_a_signal_to_all_processes_does_the_same(parent):
    process, products = parent
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Traceback" not in stderr
    assert list(products.iterdir()) == []


def test_workers_end_with_a_parent_that_was_killed_and_clean_up(parent):
    process, products = parent
    process.kill()
    process.communicate(timeout=20)
    assert list(products.iterdir()) == []
