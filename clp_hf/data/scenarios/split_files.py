"""Data sets published as text files of `path label` lines: ImageNet-LT (Liu et al., CVPR 2019) and its like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, concatenate_datasets
from datasets import Image as ImageFeature

from ..loading import IMAGE_COLUMNS
from .glt import LISTED, found_id, rows_by_id

IMAGENET_LT = {
    "train": "ImageNet_LT_train.txt",
    "validation": "ImageNet_LT_val.txt",
    "test": "ImageNet_LT_test.txt",
}
# The Hub's files are called n01440764_10026_n01440764.JPEG and ILSVRC2012_val_00000001_n01751748.JPEG.
IMAGENET_IDS = r"n\d{8}_\d+|ILSVRC2012_val_\d+"
ORIGIN = "https://github.com/zhmiao/OpenLongTailRecognition-OLTR links to those of ImageNet-LT"


def listed_splits(
    images: str | Path,
    folder: str | Path,
    read: Callable[[str | Path], DatasetDict],
    *,
    files: Mapping[str, str] = IMAGENET_LT,
    id_pattern: str = IMAGENET_IDS,
    id_column: str | None = None,
) -> DatasetDict:
    """The images that split files list, with their labels.

    Args:
        images: a folder in which the files' paths lie (`train/n01440764/n01440764_10026.JPEG`,
            `val/ILSVRC2012_val_00000001.JPEG`), or any data set that `read` reads and whose file names hold the ids.
        folder: with the split files.
        read: reads a data set by name; splits called `test` are not looked into, which hide their labels.
        files: role -> name of the file; each line is a path and, behind the last space, a label from 0 on.
        id_pattern: a regular expression of the ids in paths and file names.
        id_column: of file names in the data set; by default those of the images.

    Returns:
        `DatasetDict` of the roles, in the order of the lines, with columns `image` and `label`. Classes are called as
        the folders of their training images where every class has one of its own, else by number.

    Raises:
        FileNotFoundError: a split file is not there; says what to get from where.
        ValueError: a line of another form; images that are not there (counted, the first named).
    """
    lines = {role: _read(Path(folder) / name, name) for role, name in files.items()}
    label = ClassLabel(names=_names(lines["train"]))
    root = Path(images)
    if root.is_dir() and (root / lines["train"][0][0]).is_file():
        build = _Below(root)
    else:
        build = _ByIds(read(images), id_pattern, id_column)
    return DatasetDict(
        {
            role: build(role, [path for path, _ in listed])
            .add_column("label", [number for _, number in listed])
            .cast_column("label", label)
            for role, listed in lines.items()
        }
    )


class _Below:
    """Images by their paths below a folder."""

    def __init__(self, root: Path):
        self.root = root

    def __call__(self, role: str, paths: list[str]) -> Dataset:
        found = [self.root / path for path in paths]
        if missing := [path for path, file in zip(paths, found, strict=True) if not file.is_file()]:
            raise ValueError(_lacks(f"{str(self.root)!r}", missing, role, paths))
        return Dataset.from_dict({"image": list(map(str, found))}, features=Features(image=ImageFeature()))


class _ByIds:
    """Images of a data set by the ids in their file names."""

    def __init__(self, source: DatasetDict, pattern: str, id_column: str | None):
        column = next((name for name in IMAGE_COLUMNS if name in next(iter(source.values())).column_names), "image")
        kept = [column, *([id_column] if id_column else [])]
        parts = [split.select_columns(kept) for name, split in source.items() if name != "test" or len(source) == 1]
        self.images, self.pattern = concatenate_datasets(parts), pattern
        self.rows = rows_by_id(self.images, pattern, column, id_column)
        self.images = self.images.select_columns(column)
        self.images = self.images if column == "image" else self.images.rename_column(column, "image")

    def __call__(self, role: str, paths: list[str]) -> Dataset:
        ids = [found_id(path, self.pattern) or path for path in paths]
        if missing := [found for found in ids if found not in self.rows]:
            raise ValueError(_lacks("The data set", missing, role, paths))
        return self.images.select([self.rows[found] for found in ids])


def _lacks(where: str, missing: list[str], role: str, paths: list[str]) -> str:
    return (
        f"{where} lacks {len(missing)} of the {len(paths)} images of the {role} split file: "
        f"{', '.join(missing[:LISTED])}{' …' if len(missing) > LISTED else ''}. Give the folder in which the paths of "
        "the file lie, or the whole data set."
    )


def _read(path: Path, name: str) -> list[tuple[str, int]]:
    """Path and label of every line."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no split file {str(path)!r}. Get {name} ({ORIGIN}), and give its folder.")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        image, _, label = line.strip().rpartition(" ")
        if not image or not label.isdecimal():
            raise ValueError(f"{str(path)!r}, line {number}: {line!r} is not `path label`, a label from 0 on.")
        found.append((image, int(label)))
    if not found:
        raise ValueError(f"{str(path)!r} lists no images.")
    return found


def _names(lines: list[tuple[str, int]]) -> list[str]:
    """What the classes are called."""
    folders: dict[int, set[str]] = {}
    for path, label in lines:
        folders.setdefault(label, set()).add(Path(path).parent.name)
    numbers = range(max(folders) + 1)
    names = [next(iter(folders[label])) if len(folders.get(label, ())) == 1 else "" for label in numbers]
    return names if all(names) and len(set(names)) == len(names) else list(map(str, numbers))
