"""A validation split taken out of the training split, where the source has none."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, DatasetDict
from datasets.utils.stratify import stratified_shuffle_split_generate_indices
from transformers.utils import logging

logger = logging.get_logger(__name__)

MOST = 0.4  # of a class or group, that is held out to have enough of it


def split_validation(splits: DatasetDict, fraction: float, seed: int, fewest: int = 0) -> DatasetDict:
    """Hold out `fraction` of the training split, stratified by group, else by label; drawn with `seed`.

    Where classes are too small for that, every one of two images or more gives one at least, and keeps one.

    Args:
        splits: with `train`.
        fraction: in (0, 1).
        seed: of the draw.
        fewest: images of every group or class that are held out at least, as far as two fifths of it go; the others
            give their fraction.

    Raises:
        ValueError: the fraction is out of range, or no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be in (0, 1), got {fraction}.")
    train = splits["train"]
    # Every part needs a member of each stratum, so groups are used only where none is a single image.
    by_group = "group" in train.column_names and np.unique(train["group"][:], return_counts=True)[1].min() > 1
    column = "group" if by_group else "label"
    cells = np.asarray(train[column][:])
    sizes = np.unique(cells, return_counts=True)[1]
    held_out = int(np.ceil(fraction * len(train)))
    enough = fraction * sizes.min() >= fewest
    if enough and sizes.min() > 1 and held_out >= len(sizes) and len(train) - held_out >= len(sizes):
        # what `train_test_split` of `datasets` draws, which reads the column row by row: minutes for a million images
        kept, validation = next(
            stratified_shuffle_split_generate_indices(
                cells, len(train) - held_out, held_out, rng=np.random.default_rng(seed)
            )
        )
        return DatasetDict({**splits, "train": train.select(kept), "validation": train.select(validation)})
    return DatasetDict({**splits, **_some_of_each(train, column, cells, fraction, seed, fewest)})


def _some_of_each(
    train: Dataset, column: str, cells: np.ndarray, fraction: float, seed: int, fewest: int
) -> dict[str, Dataset]:
    rng, chosen, single, too_small = np.random.default_rng(seed), [], [], False
    for cell in np.unique(cells):
        members = np.flatnonzero(cells == cell)
        if len(members) == 1:
            single.append(train.features[column].int2str(int(cell)))
        else:
            wanted = max(round(fraction * len(members)), min(fewest, int(MOST * len(members))))
            count = min(max(1, wanted), len(members) - 1)
            too_small |= count != wanted
            chosen += rng.permutation(members)[:count].tolist()
    if not chosen:
        raise ValueError(
            f"There is no validation split, and none can be held out of {len(train)} training images: no {column} has "
            "two. Add images, or a validation split."
        )
    told = f", and none of {', '.join(single[:10])}, of which there is one image only" if single else ""
    if single or too_small or not fewest:
        logger.warning(
            f"There is no validation split, and {column} sizes are too small to hold out {fraction:g} of each: "
            f"{len(chosen)} of {len(train)} training images are held out, one or more of each {column}{told}."
        )
    rest = np.setdiff1d(np.arange(len(train)), chosen)
    return {"train": train.select(rest), "validation": train.select(sorted(chosen))}
