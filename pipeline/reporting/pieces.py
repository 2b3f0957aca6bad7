"""The pieces of a page, made one by one: what cannot be made is left out, and a line of the page says so."""

from collections.abc import Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")
_Piece = TypeVar("_Piece")

# What reading a number or a key raises where a damaged file has something else in its place.
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RecursionError)


class Pieces:
    """Makes pieces of a page, and notes those that cannot be made.

    Parameters
    ----------
    problems : list of str
        Takes a line for each of them.
    """

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def one(self, what: str, make: Callable[[], _Piece], otherwise: _Piece) -> _Piece:
        """What `make` gives; `otherwise` where the files that it is made of are damaged."""
        try:
            return make()
        except _DAMAGED as error:
            self._problems.append(f"{what} cannot be shown: damaged ({type(error).__name__}: {error!s:.100})")
            return otherwise

    def each(
        self, items: Iterable[_Item], make: Callable[[_Item], _Piece], what: Callable[[_Item], str]
    ) -> list[_Piece]:
        """What `make` gives for each of the items, without those that are damaged."""
        pieces = []
        for item in items:
            piece = self.one(what(item), lambda item=item: [make(item)], [])
            pieces += piece
        return pieces
