"""Generalised long tails: ImageNet-GLT and MSCOCO-GLT (Tang et al., ECCV 2022), from their split files.

Both classes and, within every class, attributes are long-tailed. Three protocols ask what a classifier does when, from
training to testing, the classes (CLT), the attributes (ALT) or both (GLT) become balanced.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from datasets import ClassLabel, Dataset, DatasetDict
from datasets import Image as ImageFeature

REPOSITORY = "https://github.com/KaihuaTang/Generalized-Long-Tailed-Benchmarks.pytorch"
LISTED = 10  # ids shown in an error


class Protocol(NamedTuple):
    """Which split file, and which of its test sets."""

    balanced_training_classes: bool
    test: str


PROTOCOLS = {
    "clt": Protocol(False, "test_bl"),
    "glt": Protocol(False, "test_bbl"),
    "alt": Protocol(True, "test_bbl"),
}


class Benchmark(NamedTuple):
    """Its split files (training classes long-tailed; balanced), the form of an id, and where the files come from."""

    files: tuple[str, str]
    id_pattern: str
    origin: str


BENCHMARKS = {
    "imagenet": Benchmark(
        ("imagenet_sup_intra_lt_inter_lt.json", "imagenet_sup_intra_lt_inter_bl.json"),
        r"n\d{8}_\d+",  # the Hub's files are called n01440764_10026_n01440764.JPEG
        "_ImageNetGeneration/imagenet_glt_generation.py writes them",
    ),
    "coco": Benchmark(
        ("coco_glt/annotation.json", "coco_cbl/annotation.json"),
        r"[^/\\]+(?=\.[^.]+$)|[^/\\]+$",
        "_COCOGeneration/mscoco_glt_generation.py and mscoco_glt_crop.py write them, and the cropped images",
    ),
}


def generalised_long_tail(
    dataset: Dataset,
    benchmark: str,
    protocol: str,
    folder: str | Path,
    *,
    image_column: str = "image",
    id_column: str | None = None,
) -> DatasetDict:
    """The splits of a protocol: rows of one data set, chosen by the ids in the published split files.

    Args:
        dataset: all images: ImageNet-1k's training images, or the objects cropped from MSCOCO.
        benchmark: `"imagenet"` or `"coco"`.
        protocol: `"clt"` (train: classes and attributes long-tailed; test: classes balanced), `"glt"` (the same
            training images; test: both balanced) or `"alt"` (train: classes balanced; test: both balanced).
        folder: with the split files (`BENCHMARKS[benchmark].files`), as published. Each is JSON: class names under
            `id2cat`, and for `train`, `val`, `test_lt`, `test_bl` and `test_bbl` the `label` and `attribute` of every
            image by its path or key.
        image_column: of the images.
        id_column: of file names or keys that hold the ids; by default the file names of the images.

    Returns:
        `DatasetDict(train, validation, test)` in the order of the files, with columns `image`, `label` (the files'
        classes, the most frequent first) and `attribute` (cluster, the most frequent first, for ImageNet; tercile of
        how common the attributes are, for MSCOCO).

    Raises:
        FileNotFoundError: a split file is not there; says what to get from where.
        ValueError: an unknown benchmark or protocol; a file of another form; ids that the data set lacks (counted, the
            first listed); rows of the data set that share an id or have none.
    """
    for name, value, valid in (("benchmark", benchmark, BENCHMARKS), ("protocol", protocol, PROTOCOLS)):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(valid)}.")
    rule, source = PROTOCOLS[protocol], BENCHMARKS[benchmark]
    path = Path(folder) / source.files[rule.balanced_training_classes]
    content = _read(path, benchmark, protocol)
    rows = rows_by_id(dataset, source.id_pattern, image_column, id_column)
    split_names = {"train": "train", "validation": "val", "test": rule.test}
    names = [content["id2cat"][str(label)] for label in range(len(content["id2cat"]))]
    num_clusters = 1 + max(
        int(value) for split in split_names.values() for value in content[split]["attribute"].values()
    )
    features = {
        "label": ClassLabel(names=names),
        "attribute": ClassLabel(names=[f"cluster_{number}" for number in range(num_clusters)]),
    }

    def build(split: str) -> Dataset:
        ids = {key: found_id(key, source.id_pattern) for key in content[split]["label"]}
        if missing := [found or key for key, found in ids.items() if found not in rows]:
            raise ValueError(
                f"The data set lacks {len(missing)} of the {len(ids)} images of {split!r} in {path}: "
                f"{', '.join(missing[:LISTED])}{' …' if len(missing) > LISTED else ''}. Give the whole data set, and "
                "the column of its file names as id_column if they are not the images' own."
            )
        images = dataset.select([rows[found] for found in ids.values()]).select_columns(image_column)
        if image_column != "image":
            images = images.rename_column(image_column, "image")
        for column, feature in features.items():
            values = content[split][column]
            images = images.add_column(column, [int(values[key]) for key in ids], feature=feature)
        return images

    return DatasetDict({role: build(split) for role, split in split_names.items()})


def _read(path: Path, benchmark: str, protocol: str) -> dict:
    source = BENCHMARKS[benchmark]
    if not path.is_file():
        raise FileNotFoundError(
            f"The {protocol.upper()} protocol of {benchmark} needs the split file {path}, which is not there. Get "
            f"{' and '.join(source.files)} by the code in {REPOSITORY}: {source.origin}. Then give their folder."
        )
    content = json.loads(path.read_text())
    needed = {"id2cat", "train", "val", PROTOCOLS[protocol].test}
    wrong = sorted(needed - set(content)) or [
        f"{split}/{key}"
        for split in sorted(needed - {"id2cat"})
        for key in ("label", "attribute")
        if key not in content[split]
    ]
    if wrong:
        raise ValueError(f"{path} is not a split file of {REPOSITORY}: it lacks {wrong}; it has {sorted(content)}.")
    return content


def rows_by_id(dataset: Dataset, pattern: str, image_column: str, id_column: str | None) -> dict[str, int]:
    """The row of every image by its id.

    Args:
        dataset: images.
        pattern: a regular expression of ids, which is looked for in file names.
        image_column: of the images.
        id_column: of the file names; by default they are the images' own.

    Raises:
        ValueError: there is no such column, or rows share an id or have none.
    """
    if missing := {image_column, id_column or image_column} - set(dataset.column_names):
        raise ValueError(f"There is no column {sorted(missing)}; the columns are {dataset.column_names}.")
    if id_column:
        names = dataset.with_format(None)[id_column][:]
    else:
        encoded = (
            dataset.with_format(None).select_columns(image_column).cast_column(image_column, ImageFeature(decode=False))
        )
        names = [image["path"] for image in encoded[image_column]]
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        found = found_id(str(name or ""), pattern)
        if found is None or found in rows:
            problem = "has no id" if found is None else f"has the same id as row {rows[found]}"
            raise ValueError(
                f"Row {row} of the data set, file name {name!r}, {problem}. Ids are read from the images' file names, "
                "which must be unique, or from a column given as id_column."
            )
        rows[found] = row
    return rows


def found_id(name: str, pattern: str) -> str | None:
    """The id in a file name; None where there is none."""
    found = re.search(pattern, name)
    return found.group() if found else None
