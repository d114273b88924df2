"""An inspection as one self-contained page of HTML, in the look of the report."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup
from PIL import Image

from ..data.pixels import to_rgb
from ..utils.page import data_uri, jpeg, render_page
from ..utils.text import one_line
from .audit import Inspection
from .findings import CUE_HEAD, LEVELS, Finding, audit_sentence, cue_rows, find, next_commands
from .photos import Photo, read_image
from .text import facts

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
    found = find(inspection)
    page = render_page(
        Path(__file__).with_name("inspection.html"),
        title=Path(inspection.source.name).name or inspection.source.name,
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
    return data_uri(jpeg(image, quality=80), "jpeg")
