"""Objects whose colour or surface nearly always tells their class: what lies is on the object, and not behind it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from datasets import Image as ImageFeature
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ...causal.appearance import recolour, stripes
from ..groups import add_groups
from ..mask_values import to_grey
from ..pixels import stored_png, to_rgb

SATURATION = 0.6  # of the colours, in HSV, at full value
CONTRAST = 0.2  # of the stripes, as an amplitude
STRIPES = 8  # on the shorter side of an image


def misleading_objects(
    splits: DatasetDict,
    kind: str = "colour",
    *,
    correlation: float = 0.95,
    evaluation_correlation: float | None = None,
    seed: int = 0,
) -> DatasetDict:
    """Give the object of every image one of as many colours, or surfaces, as there are classes.

    Of a fraction `correlation` of every training class, to the nearest image, it is the class's own one; the rest has
    the others in equal numbers. Form, shading and background stay, so that the class can be told by the form alone.

    Args:
        splits: `train` and others, with `image`, `label` (`ClassLabel`) and `mask`, the object, of every image.
        kind: `"colour"`: the mean colour of the object becomes one of evenly spaced hues (`recolour`); `"texture"`:
            stripes over it, of evenly spaced directions.
        correlation: of the training split, in [0, 1].
        evaluation_correlation: of the other splits; by default 1 / number of classes: groups of equal size.
        seed: of which image has which.

    Returns:
        The splits with new images, and `attribute` and `group` (`ClassLabel`s; group = number of classes * label +
        attribute), in the place of any there were.

    Raises:
        ValueError: an unknown kind, a correlation out of range, a missing column or mask, or labels without names.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}.")
    features = splits["train"].features
    if missing := {"image", "label", "mask"} - set(features):
        raise ValueError(f"The data set lacks the columns {sorted(missing)}; it has {list(features)}.")
    if not isinstance(features["label"], ClassLabel):
        raise ValueError(f"The labels need the names of their classes (`ClassLabel`); found {features['label']}.")
    number = features["label"].num_classes
    if evaluation_correlation is None:
        evaluation_correlation = 1 / number
    if not (0 <= correlation <= 1 and 0 <= evaluation_correlation <= 1):
        raise ValueError(f"Correlations are in [0, 1]; found {correlation} and {evaluation_correlation}.")
    rng = np.random.default_rng(seed)
    word, unit, change = KINDS[kind]
    names = [f"{word}_{round(unit * value / number)}" for value in range(number)]

    def changed(role: str, split: Dataset) -> Dataset:
        share = correlation if role == "train" else evaluation_correlation
        attributes = _attributes(np.asarray(split["label"][:]), number, share, rng)
        images = []
        for index, (example, attribute) in enumerate(
            zip(split.select_columns(["image", "mask"]), attributes, strict=True)
        ):
            if example["mask"] is None:
                raise ValueError(f"{role}, index {index}: there is no mask.")
            pixels = pil_to_tensor(to_rgb(example["image"])).float()[None] / 255
            mask = (pil_to_tensor(to_grey(example["mask"])) >= 128).float()[None]
            shown = torch.where(mask > 0, change(pixels, mask, attribute / number), pixels)
            images.append(stored_png(to_pil_image(shown[0])))
        others = split.remove_columns([name for name in ("image", "attribute", "group") if name in split.column_names])
        return others.add_column("image", images, feature=ImageFeature()).add_column(
            "attribute", attributes, feature=ClassLabel(names=names)
        )

    return add_groups(DatasetDict({role: changed(role, split) for role, split in splits.items()}), "attribute", "_")


def _attributes(labels: np.ndarray, number: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Of every class `round(share · n)` its own, the others in equal numbers, as near as it goes."""
    attributes = np.empty_like(labels)
    for label in range(number):
        members = rng.permutation(np.flatnonzero(labels == label))
        own = round(share * len(members))
        attributes[members[:own]] = label
        others = (label + 1 + np.arange(len(members) - own) % max(number - 1, 1)) % number
        attributes[members[own:]] = others
    return attributes


def _in_colour(image: Tensor, mask: Tensor, turn: float) -> Tensor:
    distance = (torch.tensor([0.0, 1 / 3, 2 / 3]) - turn + 0.5) % 1 - 0.5  # of the hue from red, green and blue
    pure = (2 - 6 * distance.abs()).clamp(0, 1)
    return recolour(image, mask, (1 - SATURATION + SATURATION * pure)[None])


def _striped(image: Tensor, mask: Tensor, turn: float) -> Tensor:
    wavelength = torch.tensor([min(image.shape[2:]) / STRIPES])
    return (image + CONTRAST * stripes(image, torch.tensor([math.pi * turn]), wavelength)).clamp(0, 1)


# By kind: what its values are called, their degrees in all, and what gives an object the value at a share of them.
KINDS: dict[str, tuple[str, int, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "colour": ("hue", 360, _in_colour),
    "texture": ("stripes", 180, _striped),
}
