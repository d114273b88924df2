"""Tables of a report."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..utils.text import one_line


@dataclass
class Cell:
    """Of a table: its text, what it is set in bold for (nothing, or in words), and a note below it."""

    text: str
    mark: str = ""
    note: str = ""


@dataclass
class Table:
    """Columns `head`; the first cell of every row is its title, the others are numbers or short texts."""

    caption: str
    head: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    numbers: bool = True

    def add(self, title: str, texts: Iterable[str]) -> None:
        """A row of texts."""
        self.add_cells(title, map(Cell, texts))

    def add_cells(self, title: str, cells: Iterable[Cell]) -> None:
        """A row."""
        self.rows.append([Cell(one_line(title)), *cells])
