"""A data set with the groups that were found in it: `clp-hf groups`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import DatasetDict

from ..data.columns import Columns
from ..data.groups import counts
from ..data.loading import load_classification_dataset
from ..segmentation.masked_dataset import CARD, DATA, write_splits
from ..utils.locks import only_one
from .gallery import Section, write_gallery
from .groups import SMALLEST, DiscoveredGroups, agreement, discover_groups, divides_nothing, with_groups
from .images import file_names, named, thumbnail
from .views import IMAGE_SIZE, Backbone, views_of
from .ways import OTHER

REPORT, PAGE = "groups.json", "groups.html"
SHOWN = 18  # images of a group on the page


@dataclass(frozen=True)
class GroupsReport:
    """What `write_groups` made.

    Attributes:
        folder: the data set; `groups.html` in it shows images of every group.
        found: the groups.
        images: number of images of every group, by split.
        agreements: with the groups that the data had, by split; empty where they had none.
        next: what to do with it.
    """

    folder: Path
    found: DiscoveredGroups
    images: dict[str, dict[str, int]]
    agreements: dict[str, dict[str, float]]
    next: str

    def __str__(self) -> str:
        width = max(map(len, self.found.names))
        lines = [f"{'group':{width}}" + "".join(f"  {name:>10}" for name in self.images)]
        for group in self.found.names:
            lines.append(f"{group:{width}}" + "".join(f"  {found[group]:>10,}" for found in self.images.values()))
        for split, found in self.agreements.items():
            lines.append(
                f"Agreement with the groups that {split} had: {100 * found['accuracy']:.1f} % of the images, "
                f"{100 * found['balanced']:.1f} % with all groups alike (one group a class: "
                f"{100 * found['majority']:.1f} %)."
            )
        return "\n".join([str(self.found), "", *lines])


def write_groups(
    data: str,
    output_dir: str | Path | None = None,
    *,
    by: str = "discover",
    per_class: int | None = None,
    model_name_or_path: str = "tf_efficientnet_lite0",
    image_size: int | None = IMAGE_SIZE,
    columns: Columns | None = None,
    config_name: str | None = None,
    seed: int = 0,
    revision: str | None = None,
    token: str | None = None,
) -> GroupsReport:
    """Find groups, and write the data set with columns `group` and `group_confidence`, which any recipe reads.

    In `output_dir`: parquet files with the images in them; `groups.json`, how the groups were found; `groups.html`,
    images of every group. Groups that the data had are kept as `true_group`.

    Args:
        data, columns, config_name, revision: as for `load_classification_dataset`.
        output_dir: by default the data's name with -groups.
        by, per_class, seed: as for `discover_groups`.
        model_name_or_path: a pretrained classifier, whose features are looked at.
        image_size: pixels.
        token: of the Hub, for model and data.

    Raises:
        ValueError: as those, or an `output_dir` that holds data not made here.
    """
    path = Path(data)
    output = Path(output_dir or f"{path if path.exists() else path.name}-groups")
    if (output / DATA).exists() and not (output / REPORT).exists():
        raise ValueError(f"{output} holds data that clp-hf groups has not made: choose another --output_dir.")
    splits = load_classification_dataset(
        data, columns, config_name=config_name, validation_fraction=None, token=token, revision=revision
    )
    backbone = Backbone.load(model_name_or_path, image_size, token=token)
    views = views_of(backbone, splits)
    names = splits["train"].features["label"].names
    found = discover_groups(views, names, by, per_class, seed)
    known = splits if "group" in splits["train"].column_names else {}
    agreements = {
        name: agreement(found.groups[name], torch.tensor(split["group"][:]), views[name].labels)
        for name, split in known.items()
    }
    grouped = with_groups(splits, found)
    advice = f"Look at {output / PAGE}, then train with --dataset_name {output}"
    if divides_nothing(found, splits["train"]):
        advice = (
            f"Every class is one group, but for fewer than {SMALLEST} images: nothing divides them by {found.by}. Look "
            f"for it in another way, --by {OTHER[found.by]}, or train without groups."
        )
    report = GroupsReport(output, found, {name: counts(split) for name, split in grouped.items()}, agreements, advice)
    with only_one(output, "clp-hf groups", ".lock"):
        write_splits(grouped, output)
        settings = {"data": str(data), "model": model_name_or_path, "image_size": image_size, "seed": seed}
        told = {"by": found.by, "told": found.told, "silhouettes": found.silhouettes, "groups": found.names}
        content = settings | told | {"images": report.images, "agreement": agreements}
        (output / REPORT).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (output / CARD).write_text(f"# {path.name} with groups\n\n{found}\n", encoding="utf-8")
        write_gallery(output / PAGE, "Groups", path.name, _facts(report), _sections(grouped, report))
    return report


def _facts(report: GroupsReport) -> list[tuple[str, str]]:
    found = report.found
    said = ", ".join(f"{name} {value:.2f}" for name, value in found.told.items())
    silhouettes = ", ".join(f"{number}: {value:.2f}" for number, value in found.silhouettes.items())
    facts = [("Found by", found.by), ("What tells the class", f"{said}; 0 is chance, 1 all of them")]
    facts.append(("Silhouette", f"by number of groups a class, {silhouettes}"))
    for split, values in report.agreements.items():
        facts.append((f"Agreement, {split}", ", ".join(f"{key} {100 * value:.1f} %" for key, value in values.items())))
    return facts


def _sections(splits: DatasetDict, report: GroupsReport) -> list[Section]:
    """Of every group of the training split the images that are surest and those that are least sure."""
    train, confidence = splits["train"], report.found.confidence["train"]
    files = file_names(DatasetDict(train=train))
    sections = []
    for number, name in enumerate(report.found.names):
        members = (report.found.groups["train"] == number).nonzero()[:, 0]
        if not len(members):
            continue
        order = members[confidence[members].argsort(descending=True)].tolist()
        half = SHOWN // 2
        shown = order if len(order) <= SHOWN else [*order[:half], *order[-half:]]
        section = Section(name, f"{len(order):,} training images; the surest first, the least sure last.")
        for index in shown:
            caption = [named(files[index], "train", index), f"silhouette {confidence[index]:.2f}"]
            section.tiles.append((thumbnail(train[index]["image"]), caption))
        sections.append(section)
    return sections
