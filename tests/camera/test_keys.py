"""Keys of events: joins by value, for all integer types; duplicates named."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.camera.keys import KeyIndex, described, unique_index
from pipeline.errors import InputFileError

TOP = 2**64 - 1


def slow_find(reference: list[tuple[int, ...]], wanted: list[tuple[int, ...]]) -> list[int]:
    rows: dict[tuple[int, ...], int] = {}
    for row, key in enumerate(reference):
        rows.setdefault(key, row)
    return [rows.get(key, -1) for key in wanted]


def columns_of(rng: np.random.Generator, n: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high, dtype = {
        "small": (1, 9, np.int32),
        "signed": (-4, 5, np.int64),
        "beyond 32 bit": (2**40, 2**40 + 9, np.int64),
        "beyond 63 bit": (TOP - 9, TOP, np.uint64),
        "all of uint64": (0, TOP, np.uint64),
        "all of int64": (-(2**63), 2**63 - 1, np.int64),
    }[kind]
    values = rng.integers(low, high, 12, dtype=dtype, endpoint=True)
    values[:2] = low, high
    events = rng.choice(values, n)
    return rng.integers(1, 4, n, dtype=np.int32), events, rng.integers(1, 3, n, dtype=np.int16)


KINDS = ("small", "signed", "beyond 32 bit", "beyond 63 bit", "all of uint64", "all of int64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted_kind", KINDS)
def test_joins_agree_with_a_dictionary_of_python_integers(kind: str, wanted_kind: str) -> None:
    rng = np.random.default_rng([KINDS.index(kind), KINDS.index(wanted_kind)])
    for n in (0, 1, 2, 60):
        reference = columns_of(rng, n, kind)
        wanted = [
            np.concatenate([a.astype(object), b.astype(object)])
            for a, b in zip(columns_of(rng, 40, wanted_kind), reference, strict=True)
        ]
        dtype = np.uint64 if max(wanted[1]) > 2**63 - 1 and min(wanted[1]) >= 0 else np.int64
        fits = [i for i in range(len(wanted[1])) if np.iinfo(dtype).min <= wanted[1][i] <= np.iinfo(dtype).max]
        query = [np.array([w[i] for i in fits], dtype if k == 1 else np.int64) for k, w in enumerate(wanted)]
        index = KeyIndex(*reference)
        row, is_known = index.find(*query)
        keys = [c.tolist() for c in query]
        expected = slow_find(list(zip(*(c.tolist() for c in reference), strict=True)), list(zip(*keys, strict=True)))
        assert is_known.tolist() == [place >= 0 for place in expected]
        assert row[is_known].tolist() == [place for place in expected if place >= 0]


@pytest.mark.parametrize("kind", KINDS)
def test_duplicated_rows_are_those_whose_key_came_before(kind: str) -> None:
    rng = np.random.default_rng(3)
    columns = columns_of(rng, 80, kind)
    seen: set[tuple[int, ...]] = set()
    expected = []
    for row, key in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        expected += [row] * (key in seen)
        seen.add(key)
    assert expected
    assert KeyIndex(*columns).duplicated_rows.tolist() == expected


def test_three_columns_over_the_whole_range_at_once() -> None:
    rng = np.random.default_rng(5)
    columns = [rng.integers(0, TOP, 500, dtype=np.uint64, endpoint=True) for _ in range(3)]
    index = KeyIndex(*columns)
    row, is_known = index.find(*(c[::-1] for c in columns))
    assert is_known.all()
    assert row.tolist() == list(range(499, -1, -1))
    assert not index.find(columns[0], columns[1], columns[2] ^ np.uint64(1))[1].any()
    assert not index.find(columns[0] ^ np.uint64(1), columns[1], columns[2])[1].any()


def test_a_negative_id_is_not_the_unsigned_one_with_the_same_bits() -> None:
    index = KeyIndex(np.array([1, 1]), np.array([TOP, 5], np.uint64))
    assert (1, TOP) in index
    assert (1, -1) not in index
    assert (1, 5) in index
    assert (1, -1) in KeyIndex(np.array([1]), np.array([-1], np.int32))


def test_an_event_belongs_to_its_run() -> None:
    index = KeyIndex(np.array([2, 1]), np.array([300, 300]))
    row, is_known = index.find(np.array([1, 2, 3]), np.array([300, 300, 300]))
    assert row.tolist() == [1, 0, 0]
    assert is_known.tolist() == [True, True, False]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need one length, got \[2, 3\]"):
        KeyIndex(np.arange(2), np.arange(3))


def test_a_duplicate_is_named_with_its_run_event_telescope_and_table() -> None:
    columns = {
        "obs_id": np.array([7, 7, 7, 8], np.int32),
        "event_id": np.array([2**40, 5, 2**40, 5]),
        "tel_id": np.array([3, 3, 3, 3], np.int16),
    }
    with pytest.raises(
        InputFileError,
        match=r"x\.h5: run 7, event 1099511627776, telescope 3 stands more than once in /dl1/images/tel_003;",
    ):
        unique_index(columns, Path("x.h5"), "/dl1/images/tel_003")
    columns["tel_id"] = np.array([3, 3, 4, 3], np.int16)
    assert len(unique_index(columns, Path("x.h5"), "t")) == 4
    assert described(("obs_id", "event_id"), (7, 5)) == "run 7, event 5"
