"""Images with a caption each, in sections, on one self-contained page of HTML that looks like the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from .. import __version__
from ..utils.files import write_whole
from ..utils.text import one_line

FOLDER = Path(__file__).parent
LONGEST = 1000  # characters of a text


@dataclass
class Section:
    """Of a gallery.

    Attributes:
        title, text: what is shown, and how it came about.
        tiles: thumbnail (a data URI) and lines of a caption.
    """

    title: str
    text: str
    tiles: list[tuple[Markup, list[str]]] = field(default_factory=list)


def write_gallery(
    path: str | Path, kind: str, title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> Path:
    """Write the page; texts are escaped, nothing else is needed to read it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([FOLDER, FOLDER.parent / "report"]),
        autoescape=True,
        finalize=lambda value: one_line(value, LONGEST) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = environment.loader.get_source(environment, "page.css")[0]
    page = environment.get_template("gallery.html").render(
        kind=kind, title=title, facts=facts, sections=sections, css=Markup(css),
        version=__version__,
    )  # fmt: skip
    with write_whole(path) as part:
        part.write_text(page, encoding="utf-8")
    return Path(path)
