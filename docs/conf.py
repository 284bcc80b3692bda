"""How Sphinx makes the site from docs/: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import docs_reference  # noqa: E402

from vrbench import __version__  # noqa: E402

docs_reference.write(DOCS / "reference")

project = "vrbench"
copyright = "the vrbench authors"
version = release = __version__
extensions = ["myst_parser"]

myst_heading_anchors = 4  # links to headings, as a viewer of the repository has them; a link to none is an error

html_theme = "furo"
html_title = f"vrbench {release}"
html_show_sourcelink = False
html_copy_source = False


def links_out(app: Any, name: str, source: list[str]) -> None:
    """Links to the rest of the repository: of a folder the text alone, a page of Markdown as the file that it is.

    Other files are put beside the pages by MyST itself; what is not there stays as it is, and is an error.
    """

    def sensible(link: re.Match[str]) -> str:
        target = (DOCS / name).parent / link[2]
        if target.is_dir():
            return link[1]
        is_page = target.suffix == ".md" and not target.resolve().is_relative_to(DOCS)
        return f"[{link[1]}](path:{link[2]})" if is_page else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#\s]+)\)", sensible, source[0])


def setup(app: Any) -> None:
    app.connect("source-read", links_out)
