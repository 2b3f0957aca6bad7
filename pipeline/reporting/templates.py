"""Templates of the pages and their common style."""

from importlib import resources
from typing import Any

from pipeline import __version__


def render_page(template: str, content: dict[str, Any]) -> str:
    """Fill a template of `pipeline/data/report`; everything that comes from a run (names, reasons) is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("pipeline") / "data" / "report"
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    page = environment.get_template(template).render(style=style, version=__version__, **content) + "\n"
    return page.encode("utf-8", "replace").decode()  # the name of a file need not be UTF-8
