"""A list of suspect labels, and a page that shows them: `clp-hf labels`."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets

from ..data.columns import Columns
from ..data.loading import load_classification_dataset
from ..discovery.gallery import Section, write_gallery
from ..discovery.images import file_names, named, thumbnail
from ..discovery.views import IMAGE_SIZE, Backbone
from ..utils.files import write_whole
from .suspects import WITH_MASKS, WITHOUT_MASKS, SuspectLabels, suspect_labels

MOST_SHOWN = 120  # suspects on the page
MOST_RARE = 36


@dataclass(frozen=True)
class SuspectsReport:
    """What `write_suspect_labels` made: the list, the page, and what it found of how many images."""

    table: Path
    page: Path
    found: SuspectLabels
    rows: list[dict[str, object]]

    def __str__(self) -> str:
        images, flagged, rare = len(self.found.suspicion), len(self.rows), int(self.found.rare.sum())
        order = ", the most suspect first" * (flagged > 1)
        lines = [f"{flagged:,} of {images:,} labels are suspect{order}: {self.table}, {self.page}"]
        for row in self.rows[:10]:
            where = _from_here(row["file"]) or f"{row['split']}, index {row['index']}"
            lines.append(f"  {row['suspicion']:.2f}  {row['label']} → {row['should_be']}  {where}")
        if rare:
            lines.append(
                f"{rare:,} more look mislabelled only for their background: rare in their class, not suspect. The page "
                "shows some."
            )
        return "\n".join(lines)


def write_suspect_labels(
    data: str,
    output: str | Path = "suspect_labels.csv",
    *,
    model_name_or_path: str = "tf_efficientnet_lite0",
    image_size: int | None = IMAGE_SIZE,
    columns: Columns | None = None,
    config_name: str | None = None,
    seed: int = 0,
    revision: str | None = None,
    token: str | None = None,
) -> SuspectsReport:
    """Judge the labels of all splits; write the suspect ones as CSV, and beside it a page of HTML that shows them.

    Columns of the list: `rank`, `split`, `index`, `file`, `label`, `should_be`, `suspicion` in (0.5, 1], and `loss`:
    the cross-validated cross-entropy of the label.

    Args:
        data, columns, config_name, revision: as for `load_classification_dataset`.
        output: the CSV file; the page has its name with .html.
        model_name_or_path, image_size, seed, token: as for `write_groups`.

    Raises:
        ValueError: as `load_classification_dataset`.
    """
    columns = columns or Columns(group_column="none", attribute_column="none")
    splits = load_classification_dataset(
        data, columns, config_name=config_name, validation_fraction=None, token=token, revision=revision
    )
    where = [(name, index) for name, split in splits.items() for index in range(len(split))]
    together = concatenate_datasets(list(splits.values()))
    backbone = Backbone.load(model_name_or_path, image_size, token=token)
    images = backbone.images(together, "all splits")
    names = together.features["label"].names
    caution = WITH_MASKS if {"mask", "box"} & set(together.column_names) else WITHOUT_MASKS
    views, swapped = backbone.views(images), partial(backbone.swapped, images)
    learn_from = torch.tensor([split == "train" for split, _ in where])
    found = suspect_labels(views, len(names), swapped, caution, learn_from, seed)
    files, labels = file_names(splits), images.labels.tolist()
    rows = [
        {
            "rank": rank,
            "split": where[index][0],
            "index": where[index][1],
            "file": files[index],
            "label": names[labels[index]],
            "should_be": names[found.should_be[index]],
            "suspicion": round(float(found.suspicion[index]), 4),
            "loss": round(float(found.loss[index]), 4),
        }
        for rank, index in enumerate(found.ranked.tolist(), 1)
    ]
    table = Path(output)
    with write_whole(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["rank", "split", "index", "file", "label", "should_be", "suspicion", "loss"])
        writer.writeheader()
        writer.writerows(rows)
    told = ", ".join(f"{name} {value:.2f}" for name, value in found.told.items())
    facts = [
        ("Images", f"{len(together):,}, in {', '.join(splits)}"),
        ("Suspect labels", f"{len(rows):,}"),
        ("What tells the class", f"{told}; 0 is chance, 1 all of them"),
    ]
    captions = [named(file, *place) for file, place in zip(files, where, strict=True)]
    sections = _sections(together, found, rows, captions, [names[label] for label in labels])
    page = write_gallery(table.with_suffix(".html"), "Suspect labels", Path(data).name, facts, sections)
    return SuspectsReport(table, page, found, rows)


def _sections(
    images: Dataset, found: SuspectLabels, rows: list[dict], captions: list[str], labels: list[str]
) -> list[Section]:
    shown = found.ranked[:MOST_SHOWN].tolist()
    more = f" The first {len(shown)} are shown, the list has all." if len(rows) > len(shown) else ""
    text = f"The most suspect first: look at them before you change anything.{more}" if shown else "None."
    suspects = Section("Suspect labels", text)
    for index, row in zip(shown, rows, strict=False):
        caption = [f"{row['label']} → {row['should_be']}", captions[index]]
        suspects.tiles.append((thumbnail(images[index]["image"]), [*caption, f"suspicion {row['suspicion']:.2f}"]))
    rare = found.rare.nonzero()[:, 0]
    if not len(rare):
        return [suspects]
    rare = rare[found.loss[rare].argsort(descending=True)]
    text = (
        f"{len(rare):,} images whose background speaks for another class and whose object speaks for their label. They "
        "are worth the most to training: do not remove them."
    )
    section = Section("Rare, not suspect", text)
    for index in rare[:MOST_RARE].tolist():
        section.tiles.append((thumbnail(images[index]["image"]), [labels[index], captions[index]]))
    return [suspects, section]


def _from_here(file: str) -> str:
    """A path as one would type it here: relative where the file lies below this folder."""
    return os.path.relpath(file) if file and Path(file).is_relative_to(Path.cwd()) else file
