"""Tables of a report."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..utils.text import one_line


@dataclass
class Cell:
    """Of a table."""

    text: str
    best: bool = False


@dataclass
class Table:
    """Columns `head`; the first cell of every row is its title, the others are numbers or short texts."""

    caption: str
    head: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    numbers: bool = True

    def add(self, title: str, texts: Iterable[str], best: Iterable[bool] | None = None) -> None:
        """A row; `best` marks its cells."""
        title, texts = one_line(title), list(texts)
        marks = [False] * len(texts) if best is None else best
        self.rows.append([Cell(title), *(Cell(text, mark) for text, mark in zip(texts, marks, strict=True))])
