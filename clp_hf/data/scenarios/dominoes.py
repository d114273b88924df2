"""Dominoes: two images on top of each other, the upper one spurious, the lower one the class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image
from transformers.utils import logging

from ..dataset import to_rgb
from ..groups import group_names

logger = logging.get_logger(__name__)

SPLITS = ("train", "validation", "test")


def dominoes(
    top: Dataset | DatasetDict,
    bottom: Dataset | DatasetDict,
    n_train: int,
    n_validation: int,
    n_test: int,
    *,
    correlation: float = 0.95,
    evaluation_correlation: float | None = None,
    width: int = 32,
    repeat_top: bool = False,
    top_classes: Sequence[int | str] | None = None,
    bottom_classes: Sequence[int | str] | None = None,
    top_columns: tuple[str, str] = ("image", "label"),
    bottom_columns: tuple[str, str] = ("image", "label"),
    seed: int = 0,
) -> DatasetDict:
    """Build Dominoes (Shah et al. 2020; Pagliardini et al. 2023) from any two labelled image data sets.

    The label is the class of the bottom image, the attribute that of the top one. Classes are balanced in every split.
    A fraction `correlation` of each class, to the nearest image, has the top class of the same position; the rest
    has the other top classes in equal numbers. No source image is used twice, within a split or between splits, but for
    what `repeat_top` allows.

    Args:
        top, bottom: images with integer or `ClassLabel` labels; for example MNIST and CIFAR-10. Of a `DatasetDict` with
            train, validation and test each split takes its own images, of a `Dataset` all three take other ones.
        n_train, n_validation, n_test: images per split, each at least the number of classes.
        correlation: of the training split, in [0, 1]. At 1 there are groups without training image, which
            `load_classification_dataset` refuses.
        evaluation_correlation: of validation and test; by default 1 / number of classes: groups of equal size.
        width: pixels. Both parts are converted to RGB and resized to `width` x `width`, whatever their shape.
        repeat_top: where there are too few top images, use each as often as needed, always in the same split.
        top_classes, bottom_classes: labels in use, by name or integer, in the order in which they are paired; by
            default all.
        top_columns, bottom_columns: names of the image and of the label column.
        seed: of which images go where, and of their order.

    Returns:
        `DatasetDict(train, validation, test)` with columns `image` (RGB, 2 `width` high and `width` wide), `label`,
        `attribute`, `group` (`ClassLabel`s; group = number of classes * label + attribute) and `mask` (L, 255 on the
        bottom half, the causal part). `load_classification_dataset` takes it as it is.

    Raises:
        ValueError: a split or column is missing, labels are not integers, a class is unknown or has too few images, the
            numbers of classes differ or are below two, or an argument is out of range.
    """
    tops, bottoms = _by_split(top, "top"), _by_split(bottom, "bottom")
    upper = _images_by_class(tops["train"], top_columns, top_classes, "top")
    lower = _images_by_class(bottoms["train"], bottom_columns, bottom_classes, "bottom")
    num_classes = len(lower)
    if len(upper) != num_classes or num_classes < 2:
        raise ValueError(
            f"Top and bottom need the same number of classes, two or more, got {len(upper)} ({list(upper)}) and "
            f"{num_classes} ({list(lower)}). Choose some with `top_classes` and `bottom_classes`."
        )
    if evaluation_correlation is None:
        evaluation_correlation = 1 / num_classes
    sizes = {
        "train": (n_train, correlation),
        "validation": (n_validation, evaluation_correlation),
        "test": (n_test, evaluation_correlation),
    }
    for name, (n, agreement) in sizes.items():
        if n < num_classes or not 0 <= agreement <= 1:
            raise ValueError(
                f"Split {name!r} needs at least one image for each of the {num_classes} classes and a correlation in "
                f"[0, 1], got {n} images and {agreement}."
            )
    if width < 1:
        raise ValueError(f"width must be at least 1 pixel, got {width}.")

    cells = {name: _cells(n, agreement, num_classes) for name, (n, agreement) in sizes.items()}
    rng = np.random.default_rng(seed)
    needed = {name: (table.sum(0), table.sum(1)) for name, table in cells.items()}
    stacks, sources = {}, {}
    for part, (role, splits, columns, classes, repeat) in enumerate(
        [("top", tops, top_columns, upper, repeat_top), ("bottom", bottoms, bottom_columns, lower, False)]
    ):
        wanted = {name: counts[part] for name, counts in needed.items()}
        stacks[role] = _stacks(splits, wanted, columns, list(classes), role, repeat, rng)
        sources[role] = {
            name: split.select_columns(columns[0]).cast_column(columns[0], ImageFeature())
            for name, split in splits.items()
        }
    features = Features(
        image=ImageFeature(),
        label=ClassLabel(names=list(lower)),
        attribute=ClassLabel(names=list(upper)),
        group=ClassLabel(names=group_names(lower, upper, "_")),
        mask=ImageFeature(mode="L"),
    )
    mask = Image.fromarray(np.repeat(np.uint8([0, 255]), width)[:, None].repeat(width, 1))

    def build(split: str, counts: np.ndarray) -> Dataset:
        pairs = [divmod(cell, num_classes) for cell in rng.permutation(np.repeat(np.arange(counts.size), counts.flat))]
        labels, attributes = map(list, zip(*pairs, strict=True))
        images = []
        for label, attribute in pairs:
            image = Image.new("RGB", (width, 2 * width))
            for part, (role, cell) in enumerate([("top", attribute), ("bottom", label)]):
                (picture,) = sources[role][split][stacks[role][split][cell].pop()].values()
                image.paste(to_rgb(picture).resize((width, width)), (0, part * width))
            images.append(image)
        columns = {
            "image": images,
            "label": labels,
            "attribute": attributes,
            "group": np.ravel_multi_index((labels, attributes), counts.shape),
            "mask": [mask] * len(images),
        }
        return Dataset.from_dict(columns, features=features)

    return DatasetDict({name: build(name, counts) for name, counts in cells.items()})


def _by_split(source: Dataset | DatasetDict, role: str) -> dict[str, Dataset]:
    """What each split takes its images from."""
    if not isinstance(source, DatasetDict):
        return dict.fromkeys(SPLITS, source)
    if missing := [name for name in SPLITS if name not in source]:
        raise ValueError(
            f"The {role} data set lacks the splits {missing}; it has {list(source)}. Give them, or one `Dataset`."
        )
    return {name: source[name] for name in SPLITS}


def _images_by_class(dataset: Dataset, columns, classes, role) -> dict[str, np.ndarray]:
    """Class name -> indices of its images, in the order of `classes`."""
    image, label = columns
    if missing := {image, label} - set(dataset.column_names):
        raise ValueError(
            f"The {role} data set lacks the columns {sorted(missing)}; it has {dataset.column_names}. "
            f"Set `{role}_columns`."
        )
    pictures, feature = (dataset.features[column] for column in columns)
    if not isinstance(pictures, ImageFeature) or not str(feature.dtype).startswith(("int", "uint")):
        raise ValueError(
            f"The {role} data set needs images in {image!r} and integers or a ClassLabel in {label!r}; it has "
            f"{pictures} and {feature}. Set `{role}_columns`."
        )
    labels = np.asarray(dataset[label][:])
    if isinstance(feature, ClassLabel):
        known, used = feature.names, range(feature.num_classes)
    else:
        known, used = list(map(str, range(max(labels, default=-1) + 1))), np.unique(labels).tolist()
    classes = used if classes is None else classes
    indices = {}
    for name in classes:
        name = known[name] if not isinstance(name, str) and 0 <= name < len(known) else name
        if name not in known:
            raise ValueError(f"There is no class {name!r} in the {role} data set; it has {known}.")
        indices[name] = np.flatnonzero(labels == known.index(name))
    if len(indices) < len(classes):
        raise ValueError(f"`{role}_classes` names a class twice: {list(classes)}.")
    return indices


def _cells(n: int, correlation: float, num_classes: int) -> np.ndarray:
    """Images per (class, attribute) of a split of `n`: integers that sum to n, as even as they can be."""
    counts = np.zeros((num_classes, num_classes), int)
    for label, size in enumerate(_shares(n, num_classes)):
        agree = round(size * correlation)
        others = (label + 1 + np.arange(num_classes - 1)) % num_classes
        counts[label, label], counts[label, others] = agree, _shares(size - agree, num_classes - 1)
    return counts


def _shares(n: int, parts: int) -> np.ndarray:
    return n // parts + (np.arange(parts) < n % parts)


def _stacks(
    sources: dict[str, Dataset],
    needed: dict[str, np.ndarray],
    columns: tuple[str, str],
    classes: list[str],
    role: str,
    repeat: bool,
    rng: np.random.Generator,
) -> dict[str, list[list[int]]]:
    """By split, the images of each class in random order, each to be taken once; no two splits share one."""
    stacks: dict[str, list[list[int]]] = {name: [] for name in sources}
    one_for_all = sources["train"] is sources["test"]
    short, repeated = {}, {}
    for names in [list(sources)] if one_for_all else [[name] for name in sources]:
        images = _images_by_class(sources[names[0]], columns, classes, role)
        for position, (label, found) in enumerate(images.items()):
            counts = np.array([needed[name][position] for name in names])
            share = min(1.0, len(found) / max(1, counts.sum()))
            ends = np.floor(counts.cumsum() * share).astype(int)
            parts = np.split(rng.permutation(found), ends[:-1])
            where = label if one_for_all else f"{label} ({names[0]})"
            if share < 1:
                enough = repeat and all(len(part) or not count for part, count in zip(parts, counts, strict=True))
                (repeated if enough else short)[where] = f"{len(found)} of {counts.sum()}"
            for name, part, count in zip(names, parts, counts, strict=True):
                stacks[name].append(np.resize(part, count).tolist())
    if short:
        once = "" if repeat else ", each is used once"
        raise ValueError(
            f"Too few {role} images{once}: of the classes {short} needed. Ask for smaller splits, or leave the "
            "class out."
        )
    if repeated:
        logger.warning(f"There are too few {role} images, so they repeat within their split: {repeated} needed.")
    return stacks
