"""Configuration of the site: ``.venv/bin/poe docs`` builds it into docs/_build/html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

project = "melanoma_lab"
author = "The melanoma_lab maintainers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "kept_studies", "reference"]
exclude_patterns = ["_build"]

# Tutorials are stored with their outputs; the slow tests run them.
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

# Types of other packages have no page here.
nitpick_ignore_regex = [("py:class", ".*")]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_rtype = False

html_title = "melanoma_lab"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "footer_start": ["notice"],
    "footer_end": [],
    "show_prev_next": False,
}
templates_path = ["_templates"]
