"""Names and texts that users give, made fit to be shown: in tables, cards, pictures and reports."""

import html
import re
import unicodedata
from collections.abc import Iterable

MOST_SHOWN = 100  # characters of a name
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of pairs, and separators of lines
# What Markdown would take for its own; an underscore inside a word it leaves alone.
MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")


def one_line(text: object, limit: int = MOST_SHOWN) -> str:
    """A text on one line, of `limit` characters at most, without those that no page or file can hold."""
    text = str(text)
    seen = "".join(" " if unicodedata.category(letter) in UNSEEN else letter for letter in text[:limit])
    return " ".join(seen.split()) + ("…" if len(text) > limit else "")


def one_line_each(names: Iterable[object]) -> list[str]:
    """Each of several names on one line; those that are the same when cut are numbered."""
    shown: list[str] = []
    for name in map(one_line, names):
        same = sum(other == name or other.startswith(f"{name} (") for other in shown)
        shown.append(f"{name} ({same + 1})" if name in shown else name)
    return shown


def markdown(text: object) -> str:
    """A text as Markdown shows it letter by letter: no markup, no HTML, no cell of a table."""
    return MARKDOWN.sub(r"\\\g<0>", html.escape(str(text), quote=False))
