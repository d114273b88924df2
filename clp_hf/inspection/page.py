"""An inspection as one self-contained page of HTML, in the look of the report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
from markupsafe import Markup
from PIL import Image

from .. import __version__
from ..data.pixels import to_rgb
from ..utils.text import one_line
from .audit import Inspection
from .findings import CUE_HEAD, LEVELS, Finding, audit_sentence, cue_rows, find, next_commands
from .photos import Photo, read_image
from .text import facts

HERE = Path(__file__).parent
LONGEST = 5000  # characters of a text
THUMBNAIL = 128  # pixels of the longer side


def write_page(inspection: Inspection, output: str | Path) -> Path:
    """Write one HTML file, with examples as small pictures: nothing else is needed to read it, no network.

    Returns:
        `output`.

    Raises:
        ValueError: `output` is a folder.
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{output} is a folder: name the file to write, such as {output / 'inspection.html'}.")
    # The style sheet is the report's own file: its package would import what draws pictures.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE, HERE.parent / "report"]),
        autoescape=True,
        finalize=lambda value: one_line(value, LONGEST) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = find(inspection)
    page = environment.get_template("inspection.html").render(
        title=Path(inspection.source.name).name or inspection.source.name,
        css=environment.loader.get_source(environment, "page.css")[0],
        facts=facts(inspection),
        levels=[
            (level, title, [_shown(inspection, finding) for finding in found if finding.level == level])
            for level, title in LEVELS.items()
        ],
        sentence=audit_sentence(inspection),
        head=CUE_HEAD,
        rows=cue_rows(inspection),
        shortcuts=bool(inspection.audit.shortcuts),
        measured=[(one.cue.title.removeprefix("the "), one.cue.note) for one in inspection.audit.cues],
        columns_left=inspection.audit.columns_left,
        commands=next_commands(inspection),
        version=__version__,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def _shown(inspection: Inspection, finding: Finding) -> dict:
    pictures = [
        {"source": source, "caption": one_line(caption)}
        for photo, caption in zip(finding.photos, finding.captions, strict=True)
        if (source := _thumbnail(inspection, photo))
    ]
    return {"title": finding.title, "text": finding.text, "pictures": pictures}


def _thumbnail(inspection: Inspection, photo: Photo) -> Markup | None:
    image = read_image(inspection.source, photo)
    if image is None:
        return None
    image = to_rgb(image)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Markup(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")
