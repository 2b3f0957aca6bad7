"""The telescope types by name."""

import difflib
from collections.abc import Callable
from functools import cache

from pipeline.camera.telescopes.telescope import Telescope
from pipeline.errors import UserError

_BUILDERS: dict[str, Callable[[], Telescope]] = {}


def register_telescope(name: str) -> Callable[[Callable[[], Telescope]], Callable[[], Telescope]]:
    """Decorator: make the telescope that a function builds available under `name`.

    Raises
    ------
    UserError
        If the name is taken.
    """

    def register(builder: Callable[[], Telescope]) -> Callable[[], Telescope]:
        if name in _BUILDERS:
            first = _BUILDERS[name].__module__
            raise UserError(
                f"two modules register a telescope named {name!r}: {first} and {builder.__module__}; rename one of them"
            )
        _BUILDERS[name] = cache(builder)
        return builder

    return register


def list_telescopes() -> list[str]:
    """Names of all telescope types."""
    return sorted(_BUILDERS)


def build_telescope(name: str) -> Telescope:
    """The telescope type called `name`, with the camera that its module generates.

    Raises
    ------
    UserError
        If no type has this name; the message lists the nearest, or all.
    """
    if name not in _BUILDERS:
        known = {known.casefold(): known for known in list_telescopes()}
        near = difflib.get_close_matches(name.casefold(), known, n=1)
        hint = f"; did you mean {known[near[0]]!r}?" if near else ""
        raise UserError(f"unknown telescope {name!r}{hint} (accepted: {', '.join(list_telescopes())})")
    return _BUILDERS[name]()
