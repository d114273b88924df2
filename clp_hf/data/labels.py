"""A label is a name, not a number: the one place where the labels of splits, flags and models are brought together.

1. What a split calls its labels are names: those of its `ClassLabel`, strings, and of integers (booleans, whole floats,
   strings of digits) the numbers themselves.
2. Splits are joined by name; the training split says which there are, and their order.
3. Names given by the user (`class_names`) are matched to the data's names by name and give the order. Only bare
   integers are named by them, in their own order: 0 … C − 1, or as many sorted values as names.
4. A model's classes are matched by name too; only bare integers that are none of its names count as the model does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

STRINGS = ("string", "large_string", "string_view")
HIDDEN = -1  # what the Hub stores for a label that is not given away
INTEGER = re.compile(r"0|-?[1-9][0-9]*")
NAMED = 12  # classes in a message


@dataclass
class Labels:
    """The labels of a split.

    Attributes:
        codes: (n,) positions in `names`.
        names: what they are called.
        numbered: whether the names are bare integers.
    """

    codes: np.ndarray
    names: list[str]
    numbered: bool

    @property
    def used(self) -> list[str]:
        """The names that occur."""
        return [self.names[code] for code in np.unique(self.codes)]


def encode(
    splits: DatasetDict, column: str, names: Sequence[str] | None = None, known: Sequence[str] | None = None
) -> DatasetDict:
    """Make `column` a `ClassLabel` with the same names in every split, joined by name.

    Args:
        splits: with `train`.
        column: of integers, strings, whole floats, booleans, or a `ClassLabel`.
        names: given by the user.
        known: what a model calls its classes, in its order; the result has exactly these.

    Raises:
        ValueError: labels that are missing, of another kind, or called what the others are not; shows both.
    """
    names = _checked_names(names, column)
    read = {role: _read(split, column, role) for role, split in splits.items()}
    target, positions = _named(read["train"], column, names, known)
    if known is not None:
        target, positions = _of_model(target, positions, read, list(known))
    return DatasetDict(
        {role: _encoded(split, column, role, read[role], target, positions) for role, split in splits.items()}
    )


def labels_are_hidden(split: Dataset, column: str) -> bool:
    """Whether a split tells none of its labels: there is no such column, or it holds −1 or nothing throughout."""
    if column not in split.column_names:
        return True
    values = set(split.unique(column)) if _is_scalar(split.features[column]) else {0}
    return values <= {None, HIDDEN, str(HIDDEN)}


def unused_model_names(known: Sequence[str]) -> bool:
    """Whether a model has only the names that transformers gives to classes without one."""
    return list(known) == [f"LABEL_{index}" for index in range(len(known))]


def _is_scalar(feature) -> bool:
    return isinstance(feature, ClassLabel) or isinstance(getattr(feature, "dtype", None), str)


def _checked_names(names: Sequence[str] | None, column: str) -> list[str] | None:
    if names is None:
        return None
    option = "class_names" if column == "label" else "attribute_names"
    if wrong := [name for name in names if isinstance(name, bool) or not isinstance(name, (str, int))]:
        raise ValueError(
            f"{option} has {wrong[0]!r}, which is no text: YAML reads no, yes, off, on and null as values of their "
            f"own. Put names in quotes: {option}: ['no', 'yes']."
        )
    names = [str(name) for name in names]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{option} names {repeated} twice: {names}.")
    return names


def _read(split: Dataset, column: str, role: str) -> Labels:
    feature, where = split.features[column], f"Column {column!r}, split {role!r}"
    values = split[column][:]
    kind = "class" if isinstance(feature, ClassLabel) else getattr(feature, "dtype", type(feature).__name__)
    kind = str(kind)
    missing = [index for index, value in enumerate(values) if value is None or value != value]
    if missing:
        raise ValueError(f"{where}, index {missing[0]}: the value is missing ({values[missing[0]]}).")
    if kind == "class":
        codes = np.asarray(values, dtype=np.int64)
        if wrong := np.flatnonzero((codes < 0) | (codes >= feature.num_classes)).tolist():
            raise ValueError(
                f"{where}, index {wrong[0]}: {codes[wrong[0]]} is out of range, expected 0 ... "
                f"{feature.num_classes - 1} ({feature.names}); {len(wrong)} such values. {HIDDEN} is a hidden label."
            )
        return Labels(codes, list(feature.names), all(map(INTEGER.fullmatch, feature.names)))
    if kind in STRINGS:
        found = sorted(set(values))
        if numbered := all(map(INTEGER.fullmatch, found)):
            found.sort(key=int)
    elif kind == "bool" or kind.startswith(("int", "uint", "float", "double")):
        if fractions := [index for index, value in enumerate(values) if not float(value).is_integer()]:
            raise ValueError(
                f"{where}, index {fractions[0]}: {values[fractions[0]]} is a float and no whole number; expected "
                "integers, strings or a ClassLabel."
            )
        values, numbered = [str(int(value)) for value in values], True
        found = sorted(set(values), key=int)
    elif column == "group":
        raise ValueError(
            f"Column {column!r} has type {feature}; expected one integer or string per image. Overlapping groups "
            "(several per image) are not supported: name an `attribute_column` instead, or set `group_column='none'`."
        )
    else:
        raise ValueError(f"Column {column!r} has type {feature}; expected integers, strings or a ClassLabel.")
    if numbered and str(HIDDEN) in found and found != [str(HIDDEN), "1"]:
        raise ValueError(
            f"{where}, index {values.index(str(HIDDEN))}: {HIDDEN} is out of range: beside {found[1:10]} it marks a "
            "hidden label, as on the Hub. Remove those images, or give labels as strings if it is a class."
        )
    position = {name: index for index, name in enumerate(found)}
    return Labels(np.asarray([position[value] for value in values], dtype=np.int64), found, numbered)


def _named(
    train: Labels, column: str, given: list[str] | None, known: Sequence[str] | None
) -> tuple[list[str], dict[str, int]]:
    """The names of the classes, and the position among them of every name by which a split may call one."""
    names = train.names
    if given is None:
        return names, _positions(names)
    by_name = _positions(given)
    if train.numbered and set(names) != set(given):
        numbers = [str(index) for index in range(len(given))]
        if not set(names) <= set(numbers):
            if len(names) != len(given):
                raise ValueError(
                    f"Column {column!r} holds {len(names)} values, {names[:10]}, but {len(given)} names were given: "
                    f"{given}."
                )
            numbers = names
        elif known is None and (gaps := sorted(set(numbers) - set(train.used), key=int)):
            raise ValueError(
                f"Column {column!r} should hold every integer 0 ... {len(given) - 1} in the training split, one for "
                f"each name given, {given}; {gaps[:10]} never occur."
            )
        return given, _positions(numbers) | by_name
    if set(train.used) & set(given):
        return given, by_name  # a value that is not among them is named where it occurs
    if known is not None and len(given) == len(names):
        return given, _positions(names)
    option = "class_names" if column == "label" else "attribute_names"
    raise ValueError(
        f"Column {column!r} has names of its own, {names}, and those given are others: {given}. Names are given to "
        f"bare integers only: leave {option} out, or give the data's own names in the order you want."
    )


def _of_model(
    names: list[str], positions: dict[str, int], read: dict[str, Labels], known: list[str]
) -> tuple[list[str], dict[str, int]]:
    """As `_named`, by the classes of a model."""
    used = {name for labels in read.values() for name in labels.used}
    told = {names[positions[name]] for name in used if name in positions} | (used - set(positions))
    if told <= set(known):
        place = _positions(known)
        return known, place | {name: place[names[index]] for name, index in positions.items() if names[index] in place}
    if unused_model_names(known) and len(names) == len(known):
        return names, positions
    if all(labels.numbered for labels in read.values()) and told <= {str(index) for index in range(len(known))}:
        return known, {str(index): index for index in range(len(known))}
    told, known = (f"{listed[:NAMED]}{' …' if listed[NAMED:] else ''}" for listed in (sorted(told), known))
    raise ValueError(
        f"The data set has the classes {told}, the checkpoint tells {known} apart. If they are the same under "
        "other names, give the checkpoint's names in the order of the data set's labels: class_names. If they are "
        "others, the checkpoint needs a head for them: clp-hf train, or clp-hf repair --new_head true."
    )


def _positions(names: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _encoded(
    split: Dataset, column: str, role: str, labels: Labels, names: list[str], positions: dict[str, int]
) -> Dataset:
    if unknown := [name for name in labels.used if name not in positions]:
        where = f"Column {column!r}, split {role!r}"
        expected = list(positions)
        if labels.numbered and expected == [str(index) for index in range(len(expected))]:
            index = int(np.flatnonzero(labels.codes == labels.names.index(unknown[0]))[0])
            raise ValueError(
                f"{where}, index {index}: {unknown[0]} is out of range, expected 0 ... {len(expected) - 1} ({names})."
            )
        raise ValueError(
            f"{where}: the values {unknown[:10]} are not among the names {names} (given, or found in the training "
            "split); labels are matched by name."
        )
    place = np.asarray([positions.get(name, -1) for name in labels.names], dtype=np.int64)
    encoded = split.add_column("encoded labels", place[labels.codes], feature=ClassLabel(names=names))
    return encoded.remove_columns(column).rename_column("encoded labels", column)
