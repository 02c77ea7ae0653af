"""How Sphinx builds the pages of this folder: ``make docs``. Nothing is fetched, and every warning is an error."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "drloss-harness"
author = "The drloss-harness authors"
copyright = author
release = version = installed_version("drloss-harness")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
highlight_language = "text"  # what commands print; code is marked as such
nitpicky = True
# Types of other projects: their pages are not fetched, so their names cannot become links.
nitpick_ignore_regex = [("py:.*", ".*")]

myst_fence_as_directive = ["math"]
myst_heading_anchors = 3

autodoc_default_options = {"exclude-members": "extra_repr"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "DR Loss, reproduced"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sourcelink = False


def _quote_trailing_underscores(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """An argument such as ``lambda_`` would be read as a link. What is quoted already stays."""
    name_or_quoted = re.compile(r"``.*?``|(?<![`\w])\w+_(?![`\w])")
    lines[:] = [name_or_quoted.sub(lambda found: f"``{found[0].strip('`')}``", line) for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _quote_trailing_underscores)
