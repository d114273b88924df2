"""Images with a caption each, in sections, on one self-contained page of HTML that looks like the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from ..utils.files import write_whole
from ..utils.page import render_page

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
    template = Path(__file__).with_name("gallery.html")
    page = render_page(template, LONGEST, kind=kind, title=title, facts=facts, sections=sections)
    with write_whole(path) as part:
        part.write_text(page, encoding="utf-8")
    return Path(path)
