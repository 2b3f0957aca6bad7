"""Settings of the documentation site: `make docs` builds it in build/docs, with warnings as errors."""

import logging
import os
import sys
from pathlib import Path

from jupyter_client.manager import KernelManager

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]
# The kernels of notebooks are processes of their own, and call `lightpool` as a shell does.
for name, folder in (("PYTHONPATH", HERE.parent), ("PATH", Path(sys.executable).parent)):
    os.environ[name] = os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, which photutils imports
KernelManager.transport_encryption.default_value = "auto"  # without, each kernel warns that anybody can listen
logging.getLogger("traitlets").setLevel(logging.WARNING)

from pipeline import __version__  # noqa: E402

project = "lightpool"
author = "The lightpool developers"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_line", "self_contained"]
exclude_patterns = ["extensions"]
highlight_language = "text"  # of indented blocks; fenced ones name theirs
default_role = "py:obj"  # `name` in docstrings

myst_heading_anchors = 3
myst_links_external_new_tab = False

# Notebooks are stored without outputs and run at every build, in a folder of their own.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600  # of a cell [s]
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "warn"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # from a server of others, and not needed

autodoc_typehints = "none"  # the docstrings say them
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"lightpool {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
