"""The fields of the sky that judges look at."""

from collections.abc import Sequence
from typing import Any

from pipeline.errors import TooFewEventsError, UserError
from pipeline.tiles.reader import TileReader

FEWEST_FIELDS = 2


def fields_of_test_split(manifests: Sequence[Any], task: str) -> TileReader:
    """The test split of sky tiles, for the judge of `task`.

    Raises
    ------
    UserError
        If the tiles are not of the sky.
    TooFewEventsError
        If there are fewer than two fields.
    """
    reader = TileReader(manifests, "test")
    if reader.wing != "sky":
        raise UserError(f"the manifests hold {reader.wing} tiles, but {task} is judged on sky tiles")
    if reader.n_groups < FEWEST_FIELDS:
        raise TooFewEventsError(
            f"the test split has {reader.n_groups} fields; at least {FEWEST_FIELDS} are needed: add frames or "
            "enlarge tiles.splits.test"
        )
    return reader
