"""Data sets as they were published: images of every class or group, so that another one is not taken for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datasets import DatasetDict

from .groups import counts

LISTED = 4  # cells whose sizes are told one by one


class Sizes(NamedTuple):
    """Of a split: its images, its cells (classes or groups), and how many images the largest and smallest have."""

    images: int
    cells: int
    largest: int
    smallest: int

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Sizes:
        """Of the size of every cell; empty ones do not count."""
        sizes = [size for size in sizes if size]
        return cls(sum(sizes), len(sizes), max(sizes), min(sizes))


@dataclass(frozen=True)
class Published:
    """A data set as published.

    Attributes:
        name: of it.
        cells: what the sizes are of, `"group"` or `"class"`.
        splits: by role (`train`, `validation`, `test`), the size of every cell, in any order, or a summary of these.
        source: the paper that says so.
    """

    name: str
    cells: str
    splits: Mapping[str, tuple[int, ...] | Sizes]
    source: str

    def differences(self, found: DatasetDict) -> list[str]:
        """What is otherwise in these splits, a clause each; empty where they are of the published sizes."""
        column = {"group": "group", "class": "label"}[self.cells]
        told = []
        for role, published in self.splits.items():
            if role not in found:
                told.append(f"there is no {role} split, published {_told(published, self.cells)}")
                continue
            known = column in found[role].column_names
            sizes = tuple(counts(found[role], column).values()) if known else (len(found[role]),)
            summed = isinstance(published, Sizes)
            here = Sizes.of(sizes) if summed else sorted(filter(None, sizes))
            if here != (published if summed else sorted(published)):
                here = _told(sizes, self.cells) if known else f"{len(found[role]):,} images without {self.cells}s"
                told.append(f"the {role} split has {here}, published {_told(published, self.cells)}")
        return told


WATERBIRDS = Published(
    "Waterbirds",
    "group",
    {"train": (3498, 184, 56, 1057), "validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)},
    "Sagawa et al. 2020",
)
CELEBA = Published(
    "CelebA, hair × gender",
    "group",
    {"train": (71629, 66874, 22880, 1387), "validation": (8535, 8276, 2874, 182), "test": (9767, 7535, 2480, 180)},
    "Sagawa et al. 2020",
)
CIFAR = (
    Published("CIFAR-10", "class", {"train": (5000,) * 10, "test": (1000,) * 10}, "Krizhevsky 2009"),
    Published("CIFAR-100", "class", {"train": (500,) * 100, "test": (100,) * 100}, "Krizhevsky 2009"),
)
IMAGENET_LT = Published(
    "ImageNet-LT",
    "class",
    {
        "train": Sizes(115_846, 1000, 1280, 5),
        "validation": Sizes(20_000, 1000, 20, 20),
        "test": Sizes(50_000, 1000, 50, 50),
    },
    "Liu et al. 2019",
)
INATURALIST = Published(
    "iNaturalist 2018",
    "class",
    {"train": Sizes(437_513, 8142, 1000, 2), "test": Sizes(24_426, 8142, 3, 3)},
    "Van Horn et al. 2018",
)


def not_as_published(found: DatasetDict, known: Sequence[Published]) -> str | None:
    """One line that says how splits differ from the published ones; None where they are of the published sizes.

    Args:
        found: splits under canonical names, before anything is taken out of them or done to them.
        known: what they may be; where they are none of these, they are compared with that of as many classes, else with
            the first.
    """
    differences = {one.name: one.differences(found) for one in known}
    if not known or not all(differences.values()):
        return None
    classes = len(found["train"].features["label"].names)
    fitting = [one for one in known if one.cells == "class" and len(_sizes(one)) == classes]
    nearest = (fitting or known)[0]
    return (
        f"Not {nearest.name} as published ({nearest.source}): {'; '.join(differences[nearest.name])}. Published "
        "figures are of other images."
    )


def _sizes(published: Published) -> tuple[int, ...]:
    sizes = published.splits["train"]
    return (sizes.smallest,) * sizes.cells if isinstance(sizes, Sizes) else sizes


def _told(sizes: Sequence[int] | Sizes, cells: str) -> str:
    """`240 images (184, 56)`, `50,000 images (10 classes of 5,000)`, `115,846 images (1,000 classes of 5 to 1,280)`."""
    if not isinstance(sizes, Sizes) and len(sizes) <= LISTED:
        return f"{sum(sizes):,} images ({', '.join(f'{size:,}' for size in sizes)})"
    images, count, largest, smallest = sizes if isinstance(sizes, Sizes) else Sizes.of(sizes)
    each = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    return f"{images:,} images ({count:,} {'classes' if cells == 'class' else 'groups'} of {each})"
