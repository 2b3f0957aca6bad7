"""Tables in Markdown, and the pages of docs/ that hold them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import UserError


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(page: Path, tables: Mapping[str, str]) -> None:
    """Put the tables between their marks, `<!-- NAME: begin ... -->` and `<!-- NAME: end -->`."""
    text = page.read_text()
    for name, content in tables.items():
        marks = re.compile(rf"(<!-- {name}: begin[^>]*-->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not marks.search(text):
            raise UserError(
                f"{page} has no place for the table {name}: <!-- {name}: begin --> and <!-- {name}: end -->"
            )
        text = marks.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    page.write_text(text)
