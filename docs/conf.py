"""The documentation as a site: `make docs` writes it to build/site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from handful import __version__  # noqa: E402

project = "handful"
copyright = "the handful developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "handful"
html_theme_options = {
    "source_repository": "",
}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# Links out of docs/, such as those to benchmarks/log, lead to files of the repository.
suppress_warnings = ["myst.xref_missing"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
exclude_patterns = ["_build"]
