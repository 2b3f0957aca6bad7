"""After a build: pages load nothing from other servers, so that they work without a network."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)

# What a browser fetches by itself; links that a reader follows are `a` elements.
_TAGS = re.compile(r"<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*>", re.IGNORECASE)
_ADDRESS = re.compile(r"""(?:src|href|data|srcset)\s*=\s*["']?\s*((?:https?:)?//[^"'\s>]+)""", re.IGNORECASE)
_IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


def foreign_loads(text: str) -> list[str]:
    """Addresses on other servers that a browser would fetch for a page or a style sheet."""
    return [found for tag in _TAGS.findall(text) for found in _ADDRESS.findall(tag)] + _IN_STYLES.findall(text)


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    pages = [path for path in Path(app.outdir).rglob("*") if path.suffix in (".html", ".css")]
    for path in pages:
        for address in foreign_loads(path.read_text()):
            log.warning("%s loads %s", path.relative_to(app.outdir), address)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check at the end of a build."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}
