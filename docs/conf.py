"""Sphinx settings of the documentation; build with `python -m sphinx -W --keep-going -b html docs docs/_build/html`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]
# The notebooks' kernels import this checkout too, and small networks gain nothing from more threads.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from sparseflows import __version__  # noqa: E402

project = "Sparse Flows"
author = "The Sparse Flows developers"
project_copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "from_the_code"]
exclude_patterns = ["_build", "figures", "**/.ipynb_checkpoints"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sparseflows\.|analysis\.).*"),  # what other packages document
    (r"py:class", r".*\.(S|T|Network|Time|AnyFlow)"),  # type variables and aliases
]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"  # a cache would not notice that the package has changed
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # seconds a cell: a busy machine is no error, a hang is
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"Sparse Flows {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
