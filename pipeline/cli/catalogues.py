"""Commands that list and describe what lightpool has: architectures and trained models."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import text_tables
from pipeline.cli.framework import app, command, group, models_that_ship
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular
from pipeline.logs import get_logger

if TYPE_CHECKING:
    from models import ModelDescription

log = get_logger(__name__)

models = group("List and describe network architectures.", app, "models")
bundles = group("List and describe the trained models that ship with lightpool.", app, "bundles")

#: In a narrower terminal, too little is left of a summary to be worth its column.
_MIN_COLUMNS_WITH_SUMMARY = 110


@command(models, "list", example="lightpool models list")
def models_list() -> None:
    """List all architectures.

    Parameters are those of the reference configuration of the paper.
    """
    from models import list_models, model_entry

    table = [("name", "family", "parameters", "paper", "summary")]
    for name in list_models():
        entry = model_entry(name)
        table.append((name, entry.family, f"{entry.num_params:,}", entry.paper, entry.summary))
    width = text_tables.terminal_columns()
    if width < _MIN_COLUMNS_WITH_SUMMARY:
        lines = text_tables.format_table([row[:-1] for row in table], "<<><", max_width=width, shrink=0)
    else:
        lines = text_tables.format_table(table, "<<><<", max_width=width, shrink=4)
    for line in lines:
        print(line)


@command(models, "describe", example="lightpool models describe resnet18 --tile 96 --in-chans 2")
def models_describe(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Architecture.")],
    tile: Annotated[int, typer.Option(min=1, metavar="N", help="Width and height of the input [px].")] = 56,
    in_chans: Annotated[int, typer.Option(min=1, metavar="C", help="Channels of the input.")] = 1,
) -> None:
    """Describe an architecture layer by layer.

    Each with its output shape, parameters, operations, receptive field and step; the last two in pixels of the input.
    Layers without parameters that keep shape and receptive field, such as activations, are omitted.
    """
    from models import describe

    try:
        description = describe(name, tile=tile, in_chans=in_chans)
    except (
        ValueError
    ) as error:  # the package models does not use UserError; all of these come from the user's arguments
        raise UserError(str(error)) from error
    print(f"{name}: {description.num_params:,} parameters, {description.flops / 1e6:,.1f} Mflop for a tile of "
          f"{in_chans} x {tile} x {tile}; smallest tile {description.min_size_px} px")  # fmt: skip
    width = text_tables.terminal_columns()
    for line in text_tables.format_table(_layer_rows(description), "<<>>>>>", max_width=width, shrink=0):
        print(line)
    for warning in description.warnings:
        log.warning(warning)


def _layer_rows(description: "ModelDescription") -> list[tuple[str, ...]]:
    """Headings, and a row for each layer that changes something."""
    rows = [("layer", "kind", "output", "parameters", "Mflop", "sees [px]", "step [px]")]
    before = None
    for layer in description.layers:
        shape = "x".join(map(str, layer.output_shape))
        reach = "all" if layer.receptive_field_px is None else str(layer.receptive_field_px)
        step = "" if layer.jump_px is None else f"{layer.jump_px:.3g}"
        if layer.num_params or layer.flops or (shape, reach, step) != before:
            rows.append(
                (layer.name, layer.kind, shape, f"{layer.num_params:,}", f"{layer.flops / 1e6:,.2f}", reach, step)
            )
        before = shape, reach, step
    return rows


@command(bundles, "list", example="lightpool bundles list")
def bundles_list() -> None:
    """List the trained models that ship with lightpool."""
    from pipeline.bundle.card import list_bundles, load_bundle_card, resolve_bundle

    cards = {name: load_bundle_card(name) for name in list_bundles()}
    if not cards:
        print("no trained model ships with this version; train one with `lightpool train`")
        return
    table = [("name", "for", "tasks", "network", "size [MB]", "sha256")]
    for name, card in cards.items():
        size_mb = sum(path.stat().st_size for path in resolve_bundle(name).rglob("*") if path.is_file()) / 1e6
        table.append(
            (name, card.made_for, ", ".join(card.tasks), card.model.name, f"{size_mb:.2f}", card.bundle_sha256[:16])
        )
    for line in text_tables.format_table(table, "<<<<><"):
        print(line)


@command(bundles, "show", example="lightpool bundles show lst-mono")
def bundles_show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="Name of a model that ships, or the directory of a bundle.",
            autocompletion=models_that_ship,
        ),
    ],
) -> None:
    """Print the model card of a trained model.

    The card describes what the model is for, how it was trained and its limits.
    """
    from pipeline.bundle.card import README_FILE, resolve_bundle

    file = resolve_bundle(name) / README_FILE
    try:
        text = check_regular(file).read_text()
    except (OSError, UnicodeError, InputFileError) as error:
        raise InputFileError(
            f"{file.parent} has no readable {README_FILE}; give a directory made by `lightpool train`, or the name of "
            "one that `lightpool bundles list` shows"
        ) from error
    print(text_tables.printable(text.rstrip(), keep="\n\t"))
