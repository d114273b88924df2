"""Hooks of MkDocs."""

import html
import re

from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **kwargs) -> str:
    """Formulas as MathML, which browsers show without a script."""
    return FORMULA.sub(_mathml, content)


@event_priority(-100)  # after literate-nav has read them
def on_files(files: Files, **kwargs) -> Files:
    """Leave out the lists of pages that the navigation is made of: they are no pages themselves."""
    for file in [file for file in files if file.name == "SUMMARY"]:
        files.remove(file)
    return files


def _mathml(formula: re.Match) -> str:
    element, latex = formula.groups()
    return convert(html.unescape(latex), display="block" if element == "div" else "inline")
