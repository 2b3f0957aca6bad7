"""Whether the test split of a manifest holds what a bundle was trained on."""

from collections.abc import Sequence
from contextlib import closing

from pipeline.bundle.card import Card
from pipeline.errors import UserError
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.trained import Groups


def check_held_out(card: Card, manifests: Sequence[Manifest]) -> None:
    """Refuse a test split with showers or fields that the network was trained on: its figures would be too good.

    Raises
    ------
    UserError
        Saying how many of those that the card remembers.
    """
    remembered = card.training.groups
    own = {manifest.sha256 for manifest in card.training.manifests}
    if remembered is None or {manifest.sha256 for manifest in manifests} <= own:
        return
    with closing(Groups(manifests, "test")) as groups:
        known, n = groups.known(remembered.largest_key, remembered.marks)
    if known:
        names = ", ".join(str(manifest.path) for manifest in manifests)
        raise UserError(
            f"{card.name} was trained on images of the test split of {names}: on {known} of {n} showers or fields that "
            "were looked at. The tiles were divided in another way; make them with the seed and the tiles.splits of "
            "that training, or take other images"
        )
