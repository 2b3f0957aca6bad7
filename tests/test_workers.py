"""Work in several processes: in order, a bounded number at a time, and plain words when one dies."""

import functools
import math
import operator
import os

import pytest

from pipeline.camera.showers.workers import AHEAD, in_order
from pipeline.errors import UserError


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
    with pytest.raises(UserError, match=r"one of 2 processes was ended from outside.*smaller --jobs"):
        list(in_order(functools.partial, (os._exit,), [9, 9], jobs=2))
