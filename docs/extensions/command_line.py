"""The directive ``command-line``: the help of every command, as `lightpool COMMAND --help` prints it."""

from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pipeline.cli import app as commands

WIDTH = 88  # characters of a line


class CommandLine(SphinxDirective):
    """One section for each command, with an anchor such as ``lightpool-predict``."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        root = typer.main.get_command(commands)
        return [self._section(path, text) for path, text in _helps(root, ("lightpool",), None)]

    def _section(self, path: tuple[str, ...], text: str) -> nodes.section:
        section = nodes.section(ids=["-".join(path)], names=[" ".join(path)])
        section += nodes.title("", " ".join(path))
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        section += block
        return section


def _helps(command: Any, path: tuple[str, ...], parent: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path and help of a command and of those below it."""
    context = command.make_context(
        path[-1], [], parent=parent, resilient_parsing=True, max_content_width=WIDTH, terminal_width=WIDTH
    )
    yield path, command.get_help(context)
    for name in getattr(command, "list_commands", lambda _: [])(context):
        yield from _helps(command.get_command(context, name), (*path, name), context)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
