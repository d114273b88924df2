"""The worst images of every group, as a page shows them: what they are, what was said of them, where it looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..hub.predictions import Picture
from ..utils.text import one_line
from .rows import Row

MOST = 96  # pictures on a page, of all rows together
MOST_OTHERS = 3  # rows whose prediction stands beside


@dataclass
class Tile:
    """An image: the two pictures of it, its name, and what the runs say of it, each whether that is right."""

    picture: Picture
    name: str
    said: list[tuple[str, bool]]


@dataclass
class Wall:
    """The worst images of a group, or class without groups.

    Attributes:
        title: its name.
        told: how many of its images are right.
        tiles: by loss, the largest first.
    """

    title: str
    told: str
    tiles: list[Tile]


def gallery(row: Row, rows: Sequence[Row]) -> list[Wall]:
    """Of the first run of a row, from the lowest accuracy up; nothing where it has no pictures.

    Args:
        row: whose images.
        rows: of the page, this one among them.
    """
    run = row.first
    found = run.predictions
    if found is None or not found.pictures:
        return []
    others = [(other, _by_id(other)) for other in rows if other is not row and other.first.predictions is not None]
    others = [(other, of) for other, of in others if found.ids[next(iter(found.pictures))] in of][:MOST_OTHERS]
    labels = [one_line(name) for name in run.record.label_names]
    cells, names = (found.labels, labels) if found.groups is None else (found.groups, run.record.group_names)
    by_cell: dict[int, list[int]] = {}
    for picture in found.pictures:
        by_cell.setdefault(int(cells[picture]), []).append(picture)
    each = max(1, MOST // len(rows) // len(by_cell))
    walls = []
    for cell in sorted(by_cell, key=lambda cell: found.correct[cells == cell].mean()):
        right, size = int(found.correct[cells == cell].sum()), int((cells == cell).sum())
        tiles = []
        for index in sorted(by_cell[cell], key=lambda index: -found.losses[index])[:each]:
            sure = f"{labels[found.predicted[index]]}, {100 * found.confidence[index]:.0f} %"
            said = [(sure, bool(found.correct[index]))]
            for other, of in others:
                if (there := of.get(found.ids[index])) is not None:
                    predicted = other.first.predictions.predicted[there]
                    said.append(
                        (f"{one_line(other.name)}: {labels[predicted]}", bool(predicted == found.labels[index]))
                    )
            tiles.append(Tile(found.pictures[index], one_line(found.names[index]), said))
        walls.append(Wall(one_line(names[cell]), f"{right:,} of {size:,} right", tiles))
    return walls


def cells_without_pictures(row: Row) -> int:
    """How many groups with images have none in the gallery."""
    found = row.first.predictions
    cells = found.labels if found.groups is None else found.groups
    return len(np.unique(cells)) - len(np.unique(cells[list(found.pictures)]))


def _by_id(row: Row) -> dict[str, int]:
    return {name: index for index, name in enumerate(row.first.predictions.ids)}
