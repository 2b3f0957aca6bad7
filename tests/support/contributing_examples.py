"""The examples of CONTRIBUTING.md, so that tests can run them."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def example(section: str, n: int = 0, *, language: str = "python") -> str:
    """The n-th fenced block of a language under a heading of the second level.

    Raises
    ------
    LookupError
        If there is no such section or block.
    """
    page = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    if section not in sections:
        raise LookupError(f"{PAGE.name} has no section {section!r}; it has {', '.join(sections)}")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", sections[section], re.MULTILINE | re.DOTALL)
    if n >= len(blocks):
        raise LookupError(f"section {section!r} of {PAGE.name} has {len(blocks)} block(s) of {language}, no number {n}")
    return blocks[n]


def write_examples(section: str, folder: Path) -> list[Path]:
    """Write the Python blocks of a section whose first line is ``# PATH`` to FOLDER/PATH; the paths, in their order."""
    written = []
    for n in range(20):
        try:
            text = example(section, n)
        except LookupError:
            break
        name = text.partition("\n")[0].removeprefix("# ")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written
