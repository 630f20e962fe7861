"""How Sphinx builds the site.

    sphinx-build -W --keep-going docs site

tests/run.sh builds it so: a warning (a link that leads nowhere, a page in no table of contents) is an error. Nothing is
fetched while it is built, and the pages ask for no font or script from elsewhere.
"""

import tomllib
from pathlib import Path

with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
    _PROJECT = tomllib.load(file)["project"]

project = _PROJECT["name"]
version = release = _PROJECT["version"]
extensions = ["myst_parser"]
nitpicky = True
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3  # a link may end in the name of a heading, as on GitHub
