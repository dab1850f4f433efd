"""How Sphinx builds the site of these documents; ``make docs`` calls it, with every warning an error."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "overproof"
author = copyright = "the overproof authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["ci"]
nitpicky = True
# Links to a heading, as [text](page.md#the-heading); one that does not exist is a warning, so an error.
myst_heading_anchors = 4
# The colours of a dialect that Pygments does not know, such as DuckDB's SQL, are no mistake of a page.
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_title = "overproof"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# Furo takes neither fonts nor scripts from elsewhere; smart quotes would change what is typed.
smartquotes = False


def _generate(app: Sphinx) -> None:
    from generate import write_pages

    write_pages(Path(app.srcdir) / "generated")


def setup(app: Sphinx) -> dict[str, bool]:
    """Have the pages that come from the code written before Sphinx looks for pages."""
    app.connect("builder-inited", _generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
