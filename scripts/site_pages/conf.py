"""Sphinx's configuration for the site."""

project = "Windlass"
author = "The Windlass authors"
extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = "Windlass"
html_show_sourcelink = False
# The address of a heading as the pages themselves write it in links.
myst_heading_anchors = 6
# Pages show `console` and configurations that name files and keys which highlighters of their languages do not know.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
