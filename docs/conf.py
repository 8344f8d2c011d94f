"""Configuration of Sphinx for the site of `make docs`; tools/docs_site.py lays out its pages."""

project = "ssltransfer"
copyright = "the ssltransfer authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "ssltransfer"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
add_module_names = False
autodoc_member_order = "bysource"
default_role = "code"  # single backticks in docstrings
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
suppress_warnings = ["misc.highlighting_failure"]  # commands and configurations are not marked as such
