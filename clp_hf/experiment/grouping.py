"""Groups that a recipe discovers before it trains: the same ones whenever it goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from datasets import DatasetDict

from ..discovery import Backbone, DiscoveredGroups, discover_groups, with_groups
from ..discovery.groups import SMALLEST, divides_nothing
from ..discovery.ways import OTHER
from ..features import CausalFeatures
from ..utils.files import write_whole
from .arguments import DataArguments

FILE = "discovered_groups.json"


def with_discovered_groups(
    splits: DatasetDict, data_args: DataArguments, backbone: Backbone, folder: str | Path, seed: int, writes: bool
) -> tuple[DatasetDict, str]:
    """The splits with a column `group`, and how it was found: from the folder where that run has found it before.

    Args:
        splits: without groups.
        data_args: how groups are found.
        backbone: of the model that will be trained.
        folder: of the run.
        seed: of folds and k-means.
        writes: whether this process is the one that writes.

    Raises:
        ValueError: as `discover_groups`; or every class is one group.
    """
    path, names = Path(folder) / FILE, splits["train"].features["label"].names
    images = {name: backbone.images(split, name) for name, split in splits.items()}
    settings = [names, data_args.groups, data_args.groups_per_class, seed, backbone.model.config.name_or_path]
    key = repr([settings, [dataset.fingerprint for dataset in images.values()]])
    fingerprint = hashlib.sha256(key.encode()).hexdigest()
    found = _read(path, fingerprint)
    if found is None:
        views: dict[str, CausalFeatures] = {name: backbone.views(dataset) for name, dataset in images.items()}
        found = discover_groups(views, names, data_args.groups, data_args.groups_per_class, seed)
        if writes:
            _write(path, fingerprint, found)
    if divides_nothing(found, splits["train"]):
        raise ValueError(
            f"No groups were discovered by {found.by}: every class is one group, but for fewer than {SMALLEST} images. "
            f"Leave --groups out, or find them in another way: --groups {OTHER[found.by]}."
        )
    return with_groups(splits, found).remove_columns("group_confidence"), str(found)


def _write(path: Path, fingerprint: str, found: DiscoveredGroups) -> None:
    content = {"fingerprint": fingerprint, **vars(found)}
    for name in ("groups", "confidence"):
        content[name] = {split: values.tolist() for split, values in content[name].items()}
    with write_whole(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _read(path: Path, fingerprint: str) -> DiscoveredGroups | None:
    """What was found of the same images, labels and settings; None where nothing was."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if content.pop("fingerprint", None) != fingerprint:
        return None
    for name in ("groups", "confidence"):
        content[name] = {split: torch.tensor(values) for split, values in content[name].items()}
    content["silhouettes"] = {int(number): value for number, value in content["silhouettes"].items()}
    return DiscoveredGroups(**content)
