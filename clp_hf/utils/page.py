"""What all pages of HTML have in common: one look, and one file that needs no network, with its pictures inside."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from .. import __version__
from .text import one_line

HERE = Path(__file__).parent
LONGEST = 5000  # characters of a text


def render_page(template: Path, longest: int = LONGEST, **variables: Any) -> str:
    """The page of a template that extends `page.html`.

    Args:
        template: its file.
        longest: characters of a text; what is longer is cut.
        **variables: of the template; texts are escaped, each made one line.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        finalize=lambda value: one_line(value, longest) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template.name).render(css=css, version=__version__, **variables)


def data_uri(content: bytes, kind: str) -> Markup:
    """A picture as it stands in a page: `kind` is `jpeg`, `svg+xml` …"""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def jpeg(image: Image.Image, quality: int) -> bytes:
    """An RGB image as a file of JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
