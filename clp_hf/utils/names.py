"""Names that a user gave and nobody knows."""

import difflib
from collections.abc import Iterable

FEWEST_LETTERS = 3  # of a word that is looked for inside others


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """` Did you mean …?`, the known name that is closest, to be put behind what is wrong; empty where none is close.

    Capitals, hyphens for underscores and leading dashes make no difference. Where nothing is spelled like it, the
    shortest name is told that has all its words: `worst_class` for `worst_class_accuracy`.
    """
    plain = {_plain(other): other for other in reversed(list(known))}
    close = difflib.get_close_matches(_plain(name), plain, n=1)
    if not close and len(words := _plain(name)) >= FEWEST_LETTERS:
        wanted = set(words.split("_"))
        close = sorted((other for other in plain if wanted <= set(other.split("_"))), key=len)
    return f" Did you mean {str(plain[close[0]])!r}?" if close else ""


def _plain(name: object) -> str:
    return str(name).lower().lstrip("-–—").replace("-", "_")
