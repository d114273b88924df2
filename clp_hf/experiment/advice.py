"""What a user's data are enough for, and what would add to them, in one line before training."""

from __future__ import annotations

from typing import Literal

from ..data.dataset import ImageClassificationDataset

ROWS = {
    (False, "none"): ["labels only"],
    (False, "meta"): ["ten images a group"],
    (True, "none"): ["masks"],
    (True, "meta"): ["masks and ten images a group"],
    (False, "all"): ["every group label"],
    (True, "all"): ["every group label", "masks and ten images a group"],
}
MASKS = "masks of the images (clp-hf masks makes them)"
GROUPS = "ten images of every group, class × what goes along with it (--attribute_column names it)"
DISCOVERED = ", with groups that were discovered and may be others than those that matter"


def advice(masks: bool, groups: Literal["none", "meta", "all"], discovered: bool = False) -> str:
    """The rows of the table "Which one for what you have" that data are in, and what could be added to them.

    Args:
        masks: whether training and meta images have masks.
        groups: whose are known: nobody's, those of the meta images, or those of all images.
        discovered: whether there are groups that nobody knew, and that were found in the images.
    """
    told = " and ".join(f"'{row}'" for row in ROWS[masks, groups]) + DISCOVERED * discovered
    more = [*([] if masks else [MASKS]), *([GROUPS] if groups == "none" else [])]
    return f"Which one for what you have: {told}. " + (
        f"What would add to it: {'; '.join(more)}." if more else "Nothing that you could add is of more use."
    )


def advice_on(train: ImageClassificationDataset, meta: ImageClassificationDataset | None, discovered: bool) -> str:
    """`advice` on the data of a run, by what their images have; `discovered`: whether their groups were."""
    known = {"meta": meta is not None and meta.group is not None, "all": train.group is not None}
    groups = next((name for name in ("all", "meta") if known[name] and not discovered), "none")
    return advice(train.has_mask and (meta is None or meta.has_mask), groups, discovered)
