"""Keys of events and images, (obs_id, event_id) and (obs_id, event_id, tel_id): joined by value, never by place.

A run number or an event id alone says nothing: both come back in merged files. Ids are compared as the integers that
they are, of whatever type: signed and unsigned ids of 64 bit never pass through a float or a narrower integer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import InputFileError

#: Names of the columns of a key, and what a message calls them.
COLUMNS = {"obs_id": "run", "event_id": "event", "tel_id": "telescope"}
_MODULUS = 1 << 64
_MOST_CODES = 1 << 62


class _Step(NamedTuple):
    """How one more column continues the code of a key."""

    low: int
    high: int
    ranks: np.ndarray | None  # sorted distances from `low` that occur; None: the distance itself is the digit
    prefixes: np.ndarray | None  # sorted codes of the columns before that occur; None: the code itself goes on
    n_digits: int


class KeyIndex:
    """Rows of a table by their key.

    Parameters
    ----------
    *columns : ndarray of int, shape (n,)
        The columns of the key, such as obs_id, event_id and tel_id; any integer types.

    Notes
    -----
    A key becomes one integer, its code, in a number system with a base for each column. Codes rise with the keys, so a
    table in the order of its keys needs no sorting, and look-ups are binary searches: 10^6 keys take a fraction of a
    second.
    """

    def __init__(self, *columns: np.ndarray) -> None:
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise ValueError(f"the columns of a key need one length, got {[len(column) for column in columns]}")
        self._columns = columns
        self._steps, codes = _code_system(columns)
        self._order = None
        if len(codes) > 1 and not (codes[1:] >= codes[:-1]).all():
            self._order = np.argsort(codes, kind="stable")
            codes = codes[self._order]
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes)

    def find(self, *columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row of each key, and whether it exists.

        Parameters
        ----------
        *columns : ndarray of int, shape (m,)
            As those of the table, but of any integer types.

        Returns
        -------
        row : ndarray of int64, shape (m,)
            The first row with this key; 0 where there is none.
        is_known : ndarray of bool, shape (m,)
        """
        n = len(columns[0])
        if not len(self):
            return np.zeros(n, np.int64), np.zeros(n, bool)
        codes, is_known = self._encode(columns)
        place = np.minimum(np.searchsorted(self._codes, codes), len(self) - 1)
        is_known &= self._codes[place] == codes
        row = place if self._order is None else self._order[place]
        return np.where(is_known, row, 0), is_known

    def __contains__(self, key: tuple[int, ...]) -> bool:
        return bool(self.find(*(np.array([value]) for value in key))[1][0])

    @property
    def duplicated_rows(self) -> np.ndarray:
        """Rows whose key stands in an earlier row too, rising."""
        again = np.flatnonzero(self._codes[1:] == self._codes[:-1]) + 1
        return again if self._order is None else np.sort(self._order[again])

    def key(self, row: int) -> tuple[int, ...]:
        """The key in a row, as Python's integers."""
        return tuple(int(column[row]) for column in self._columns)

    def _encode(self, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        codes, is_known = np.zeros(len(columns[0]), np.int64), np.ones(len(columns[0]), bool)
        for step, column in zip(self._steps, columns, strict=True):
            is_known &= (column >= step.low) & (column <= step.high)
            digits = _distances(column, step.low)
            if step.ranks is not None:
                digits = _ranked(digits, step.ranks, is_known)
            if step.prefixes is not None:
                codes = _ranked(codes, step.prefixes, is_known)
            digits = np.where(is_known, digits, 0).astype(np.int64)
            codes = codes * step.n_digits + digits
        return codes, is_known


def _code_system(columns: Sequence[np.ndarray]) -> tuple[list[_Step], np.ndarray]:
    """The steps that make codes of these keys, and the codes."""
    codes, n_codes = np.zeros(len(columns[0]), np.int64), 1
    steps: list[_Step] = []
    for column in columns:
        if not len(column):
            steps.append(_Step(0, 0, None, None, 1))
            continue
        low, high = int(column.min()), int(column.max())
        digits, n_digits = _distances(column, low), high - low + 1
        ranks = prefixes = None
        if n_codes * n_digits > _MOST_CODES:  # ids far apart: number those that occur
            ranks = np.unique(digits)
            digits, n_digits = np.searchsorted(ranks, digits), len(ranks)
        if n_codes * n_digits > _MOST_CODES:
            prefixes = np.unique(codes)
            codes, n_codes = np.searchsorted(prefixes, codes), len(prefixes)
        steps.append(_Step(low, high, ranks, prefixes, n_digits))
        codes = codes * n_digits + digits.astype(np.int64)
        n_codes *= n_digits
    return steps, codes


def _distances(column: np.ndarray, low: int) -> np.ndarray:
    """``column - low`` as uint64, exact for values from `low` on: modulo 2^64 the sign of the type plays no role."""
    return column.astype(np.uint64) - np.uint64(low % _MODULUS)


def _ranked(values: np.ndarray, sorted_values: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Place of each value among those that occur; `is_known` becomes False for the others."""
    place = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    is_known &= sorted_values[place] == values
    return place


# ---- checks with a message -------------------------------------------------------------------------------------------
def described(names: Sequence[str], key: Sequence[int]) -> str:
    """A key in words: ``run 1, event 302, telescope 4``."""
    return ", ".join(f"{COLUMNS[name]} {value}" for name, value in zip(names, key, strict=True))


def unique_index(columns: dict[str, np.ndarray], path: Path, table: str) -> KeyIndex:
    """Index of a table whose keys are unique.

    Parameters
    ----------
    columns : dict of ndarray, shape (n,)
        Name of a column of the key (one of `COLUMNS`) to its values.
    path : path
    table : str
        Path and name of the table within the file, for the message.

    Raises
    ------
    InputFileError
        If a key stands in two rows, naming the first such key. Rows that are equal altogether are refused too: which
        of the other tables' rows belong to which of them cannot be known.
    """
    index = KeyIndex(*columns.values())
    if len(again := index.duplicated_rows):
        key = index.key(int(again[0]))
        more = f" ({len(again)} rows repeat a key)" if len(again) > 1 else ""
        raise InputFileError(
            f"{path}: {described(tuple(columns), key)} stands more than once in {table}{more}; rows of other tables "
            "cannot be matched to it. Merge each run once, or write the file again"
        )
    return index
