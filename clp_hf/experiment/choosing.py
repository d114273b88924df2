"""Which method is for which data: what a data set has, the method that follows, and what would add to it.

The table "Which one for what you have" is of heads on frozen features; here networks are trained end to end, and the
figures are those of the tables of `benchmarks/results`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import DatasetDict

from ..data.groups import counts
from .methods import check_given, needs_meta_set, settings_of

FEWEST = 10  # images of a class or group by which it can be measured
HELD_OUT = 20  # images of every class or group for validation, where a split of them has to be made
META_SAMPLES = 10  # of every class or group: what was measured with
LONG_TAIL = 10  # largest over smallest class, from which on a loss for long tails was measured to be better
NAMED = 6
# Without masks there are no causal images.
NO_INFILLS = {"counterfactual_infills": [], "factual_infills": []}
CONVERGED = {"lookahead": "converged", "lookahead_scope": "full", "meta_every": 5}


@dataclass(frozen=True)
class Found:
    """What a data set has, before a meta set is taken out of it.

    Attributes:
        images: class -> its training images.
        groups: group -> its training images; None where no groups are known.
        validation: class or group -> its validation images.
        masks: whether images have masks or boxes.
        suspect: whether labels are suspected to be wrong.
        test: whether there is a test split.
        looked_for: how groups will be found before training, in the place of known ones; None where they will not.
    """

    images: dict[str, int]
    groups: dict[str, int] | None
    validation: dict[str, int]
    masks: bool = False
    suspect: bool = False
    test: bool = False
    looked_for: str | None = None

    @classmethod
    def of(cls, splits: DatasetDict, suspect: bool = False, looked_for: str | None = None) -> Found:
        """Of the splits of `load_classification_dataset`."""
        train, columns = splits["train"], splits["train"].column_names
        grouped = "group" in columns and looked_for is None
        return cls(
            counts(train, "label"),
            counts(train) if grouped else None,
            counts(splits["validation"], "group" if grouped else "label"),
            masks=bool({"mask", "box"} & set(columns)),
            suspect=suspect,
            test="test" in splits,
            looked_for=looked_for,
        )

    @property
    def ratio(self) -> float:
        """Of the largest to the smallest class, at least 1; of classes that training has images of."""
        sizes = list(filter(None, self.images.values()))
        return max(sizes) / min(sizes)

    @property
    def fitting(self) -> int:
        """Meta images of every class or group that leave validation `FEWEST` of each, at most `META_SAMPLES`; or 0."""
        smallest = min(filter(None, self.validation.values()))
        return int(np.clip(smallest - FEWEST, 0, META_SAMPLES))

    def __str__(self):
        parts = [f"{sum(self.images.values())} training images, {_listed(self.images)}"]
        known = []
        if self.masks:
            known.append("masks")
        if self.groups is not None:
            known.append(f"the groups of all images ({_listed(self.groups)})")
        parts.append("with " + " and ".join(known) if known else "labels only")
        if self.looked_for:
            parts.append(f"groups to be found (--groups {self.looked_for})")
        if self.suspect:
            parts.append("wrong labels suspected")
        if self.ratio >= LONG_TAIL:
            parts.append(f"a long tail ({self.ratio:.0f}:1)")
        return ", ".join(parts)


@dataclass(frozen=True)
class Choice:
    """A method, the training arguments that go with it beside its own, and why, in one clause."""

    method: str
    settings: Mapping[str, Any]
    reason: str

    def flags(self, given: Mapping[str, Any]) -> str:
        """As on the command line, without what was given there."""
        told = {name: value for name, value in self.settings.items() if name not in given}
        return " ".join([f"--method {self.method}", *(f"--{name} {_value(value)}" for name, value in told.items())])


def choices(found: Found) -> list[Choice]:
    """The methods that data are enough for, the best first; the last one, plain training, always is."""
    swap = {"train_infills": ["mix_rand"]} if found.masks else {}
    swapped = " before swapped backgrounds" if found.masks else ""
    known = []
    if found.suspect:
        reason = f"a loss that wrong labels pull less at{swapped}; nothing clean is needed"
        known.append(Choice("generalised_cross_entropy", swap, reason))
    if found.groups is not None or found.looked_for:
        known.append(Choice("group_reweighting", swap, f"every group equally often{swapped}"))
    elif found.ratio >= LONG_TAIL:
        reason = f"the loss takes the class frequencies into account{swapped}"
        known.append(Choice("logit_adjustment", swap, reason))
    if found.masks:
        known.append(Choice("background_swap", {}, "the background says nothing when it is swapped"))
    known.append(clp(found))
    known.append(Choice("erm", {}, "plain training, every class equally often"))
    return known


def clp(found: Found) -> Choice:
    """CLP by what the data have: masks, else groups, else labels only."""
    if found.masks:
        return Choice("clp", {"evidence": ["background"]}, "what the background says of the label is taken out")
    if found.groups is not None:
        settings = {"evidence": ["attribute"], **NO_INFILLS, **CONVERGED}
        return Choice("clp", settings, "what the attribute says of the label is taken out")
    return Choice("clp", {"evidence": ["bias"], **NO_INFILLS}, "what is learned most easily is taken out")


def choose(found: Found, method: str | None, given: Mapping[str, Any]) -> Choice:
    """The method for data, or the settings by which a method that was asked for uses them.

    Args:
        found: what the data have.
        method: asked for, one of `METHODS` or `STAGED`; None where it follows from the data.
        given: by name, the training arguments that the user gave: no method is chosen that has no use for them.
    """
    if method is not None:
        return next((one for one in choices(found) if one.method == method), Choice(method, {}, "as asked for"))
    return next(choice for choice in choices(found) if _goes_with(choice, found, given))


def learns_from_meta_set(choice: Choice, given: Mapping[str, Any]) -> bool:
    """Whether a method has use for a meta set."""
    if "meta_every" in given and "meta_every" not in settings_of(choice.method):
        return bool(given["meta_every"])
    return needs_meta_set(choice.method)


def more(found: Found, dataset_name: str) -> str:
    """What would add to the data, and how to get it, in one line."""
    known, dataset_name = [], shlex.quote(dataset_name)
    if not found.masks:
        known.append(f"masks, to swap backgrounds (clp-hf masks --dataset_name {dataset_name})")
    if found.groups is None and not found.looked_for:
        known.append(
            "groups, what goes along with the class such as place or camera (a column named by --attribute_column, or "
            f"clp-hf groups {dataset_name})"
        )
    if found.suspect:
        known.append("a validation split whose labels you have checked, as it selects the checkpoint")
    if found.fitting == 0:
        known.append(f"{FEWEST} validation images or more of every {_cell(found)}, the smallest has {_smallest(found)}")
    if not found.test:
        known.append("a test split: what selected the checkpoint does not measure it")
    return f"More would help: {'; '.join(known)}." if known else "More would help: nothing that you could add."


def check_meta_set(found: Found, choice: Choice, given: Mapping[str, Any]) -> None:
    """Refuse a meta set that leaves a class or group of validation with fewer than `FEWEST` images.

    Raises:
        ValueError: says how many images of each fit.
    """
    names, cells = ("meta_samples", "meta_images"), found.validation
    asked = next((name for name in names if name in given), None)
    if asked is None and (found.fitting or not learns_from_meta_set(choice, given)):
        return
    number = {"meta_samples": given.get("meta_samples"), "meta_images": given.get("meta_images", 0) // len(cells)}
    wanted = META_SAMPLES if asked is None else number[asked]
    short = {name: size for name, size in cells.items() if size and size - wanted < FEWEST}
    if not short:
        return
    largest = min(filter(None, cells.values())) - FEWEST
    fits = largest if asked != "meta_images" else largest * len(cells)
    fix = (
        f"{fits} fit: --{asked or 'meta_samples'} {fits}."
        if largest > 0
        else "None fits: give more validation images, take the meta set out of the training split (--meta_split "
        "train), or leave --method out."
    )
    raise ValueError(
        f"A meta set with {wanted} images of every {_cell(found)} leaves fewer than {FEWEST} validation images of "
        f"{_listed(short)} to select checkpoints by. {fix}"
    )


def _goes_with(choice: Choice, found: Found, given: Mapping[str, Any]) -> bool:
    if learns_from_meta_set(choice, given) and not found.fitting and not {"meta_samples", "meta_images"} & set(given):
        return False
    try:
        check_given([choice.method], given)
    except ValueError:
        return False
    return True


def _cell(found: Found) -> str:
    return "class" if found.groups is None else "group"


def _smallest(found: Found) -> str:
    name = min(filter(found.validation.get, found.validation), key=found.validation.get)
    return f"{found.validation[name]} ({name})"


def _listed(sizes: Mapping[str, int]) -> str:
    """`cat 100, dog 98`; of many, how many there are, with the largest and the smallest."""
    told: Sequence[str] = list(sizes)
    if len(told) > NAMED:
        ordered = sorted(told, key=lambda name: -sizes[name])
        ends = [f"{name} {sizes[name]}" for name in (ordered[0], ordered[-1])]
        return f"{len(told)} from {ends[0]} to {ends[1]}"
    return ", ".join(f"{name} {sizes[name]}" for name in told)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)
