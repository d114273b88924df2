"""The inspection of a data set before any training: files, duplicates, classes, and the shortcut audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from datasets import DatasetDict
from datasets import Image as ImageFeature

from ..data.boxes import corner_boxes
from ..data.columns import Columns
from .cues import Cue, column_cues, file_cues, pixel_cues
from .duplicates import duplicate_clusters, find_duplicates
from .features import Backbone
from .photos import Photo, add_boxes, add_masks, open_photos
from .probe import FEWEST, Comparison, Estimate, compare, compare_classes, predict_by
from .source import Source, read_source

# Of what the whole image tells beyond chance: what a shortcut tells by itself, at the low end of its interval.
SHORTCUT = 0.5


@dataclass
class Measured:
    """A cue and how well it tells the class.

    Attributes:
        cue, comparison: what, and how well.
        photos: positions in `Inspection.sample` of the images that have it.
        predicted: (n,) the class that the cue alone gives them, cross-validated.
        wrong: (n,) bool, where that is not their class.
        followed: share of the images with a wrong cue that the whole image gives the class of the cue; None where there
            are none.
        right: shares of the images that the whole image tells, where the cue is right, and where it is wrong.
        classes: label -> F1, of single classes that the cue tells nearly as well as the whole image does.
        is_tied: whether it is a column each of whose values belongs to one class.
    """

    cue: Cue
    comparison: Comparison
    photos: np.ndarray
    predicted: np.ndarray
    wrong: np.ndarray
    followed: float | None
    right: tuple[float | None, float | None]
    classes: dict[int, Estimate]
    is_tied: bool

    @property
    def tells_all(self) -> bool:
        """Whether a classifier that learns the cue alone is more than halfway to what the image has to tell."""
        return self.comparison.share.low >= SHORTCUT

    @property
    def is_shortcut(self) -> bool:
        """Whether it tells the classes, or one of them, and there are images that say otherwise or may come."""
        return not self.is_tied and (self.tells_all or bool(self.classes))


@dataclass
class Audit:
    """The shortcut audit of a training split.

    Attributes:
        sample: the images that it looks at.
        labels: (n,) of them, 0 … C − 1 over `classes`.
        classes: names.
        left_out: names of classes with too few images.
        features: what the whole images and backgrounds were seen by.
        image: balanced accuracy of the whole image.
        cues: what was measured, the best first.
        columns_left: column -> why it was left out.
        impossible: why there is no audit, None where there is one.
    """

    sample: list[Photo] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    classes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    features: str = ""
    image: Estimate | None = None
    cues: list[Measured] = field(default_factory=list)
    columns_left: dict[str, str] = field(default_factory=dict)
    impossible: str | None = None

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / max(1, len(self.classes))

    @property
    def shortcuts(self) -> list[Measured]:
        """The cues that are one, the best first."""
        return [found for found in self.cues if found.is_shortcut]


@dataclass
class Inspection:
    """What was found.

    Attributes:
        source: the data set as it was read.
        columns: as they were asked for.
        photos: role of a split -> the images opened.
        exact, near: sets of positions in `opened` that show the same: one file, or one picture in several files.
        audit: of the training split.
    """

    source: Source
    columns: Columns
    photos: dict[str, list[Photo]]
    exact: list[list[int]]
    near: list[list[int]]
    audit: Audit

    @property
    def opened(self) -> list[Photo]:
        """The images of all splits."""
        return [photo for photos in self.photos.values() for photo in photos]

    def label(self, photo: Photo) -> str | None:
        """The name of its class; None where it is not known."""
        labels = self.source.labels.get(photo.split)
        return None if labels is None else self.source.class_names[labels[photo.row]]


def inspect_dataset(
    name: str | DatasetDict,
    columns: Columns | None = None,
    *,
    model: str = "tf_efficientnet_lite0",
    max_images: int = 2000,
    max_opened: int = 20_000,
    seed: int = 0,
    token: str | None = None,
    tell: Callable[[str], object] = lambda text: None,
    **reading,
) -> Inspection:
    """Look through a data set before anything is trained on it.

    Args:
        name: as for `load_classification_dataset`.
        columns: their names in the source.
        model: pretrained, whose features tell what images and backgrounds say of the class.
        max_images: training images that the shortcut audit looks at, as many of each class as there are, up to a
            share that is the same for all.
        max_opened: images of all splits that are opened, drawn at random.
        seed: of what is drawn, of folds and intervals.
        token: of the Hub, for model and data.
        tell: is called with what is being done, which may take a minute.
        **reading: names of splits, configuration, revision and cache, as for `read_source`.

    Raises:
        ConnectionError: the Hub cannot be reached. ValueError: no data set, or a column or split that was asked for is
            not there, or a limit below 1. All else that is wrong with the data is told in what is returned.
    """
    if min(max_images, max_opened) < 1:
        raise ValueError(f"max_images and max_opened must be 1 or more, got {max_images} and {max_opened}.")
    columns, rng = columns or Columns(), np.random.default_rng(seed)
    source = read_source(name, columns, token=token, **reading)
    total = sum(map(len, source.splits.values()))
    share = min(1.0, max_opened / total)
    rows = {
        role: np.sort(rng.permutation(len(split))[: int(np.ceil(share * len(split)))])
        for role, split in source.splits.items()
    }
    tell(f"Opening {sum(map(len, rows.values())):,} of {total:,} images …")
    closely = _draw(source.labels["train"][rows["train"]], max_images, rng) if source.labels else []
    photos = {
        role: open_photos(source, role, rows[role].tolist(), rows[role][closely].tolist() if role == "train" else ())
        for role in source.splits
    }
    inspection = Inspection(
        source, columns, photos, *find_duplicates([p for part in photos.values() for p in part]), Audit()
    )
    _read_objects(inspection)
    if len(closely):
        tell(f"Asking what tells the class in {len(closely):,} training images …")
    inspection.audit = _audit(inspection, model, seed, token)
    return inspection


def _draw(labels: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of at most `limit` images: of every class all, or as many as of the others.

    Where that would be too few of each to measure anything, classes are drawn.
    """
    found = rng.permutation(np.unique(labels))[: max(2, limit // (2 * FEWEST))]
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in found]
    each = limit // max(1, len(found))
    while each < max(map(len, members)) and sum(min(each + 1, len(own)) for own in members) <= limit:
        each += 1
    return np.sort(np.concatenate([own[:each] for own in members]))


def _read_objects(inspection: Inspection) -> None:
    """Masks or boxes of the images that are looked at closely; a problem of boxes is one of the data set."""
    source, chosen = inspection.source, [photo for photo in inspection.photos["train"] if photo.pixels is not None]
    if not chosen:
        return
    if "mask" in source.roles:
        add_masks(chosen, source, inspection.columns.mask_value)
    elif "box" in source.roles:
        names = {source.roles["image"]: "image", source.roles["box"]: "box"}
        part = source.splits["train"].select_columns(list(names)).rename_columns(names)
        part = part.select([photo.row for photo in chosen]).cast_column("image", ImageFeature())
        try:
            boxes = corner_boxes(DatasetDict(train=part), inspection.columns.box_format)["train"]["box"][:]
        except ValueError as error:
            source.problem = str(error)
        else:
            add_boxes(chosen, boxes)


def _audit(inspection: Inspection, model: str, seed: int, token: str | None) -> Audit:
    source = inspection.source
    opened = inspection.opened
    same = duplicate_clusters(opened, [*inspection.exact, *inspection.near])
    positions = [index for index, photo in enumerate(opened) if photo.split == "train" and photo.pixels is not None]
    if not source.labels:
        known = "label" in source.roles
        return Audit(impossible="the labels cannot be trained on as they are" if known else "the labels are not known")
    labels = source.labels["train"][[opened[index].row for index in positions]].astype(int)
    counts = _pictures(labels, same[positions], len(source.class_names))
    kept = np.flatnonzero(counts >= FEWEST)
    left_out = [name for name, count in zip(source.class_names, counts, strict=True) if 0 < count < FEWEST]
    if len(kept) < 2:
        return Audit(
            left_out=left_out, impossible=f"fewer than two classes have {FEWEST} different images that can be read"
        )
    keep = np.isin(labels, kept)
    positions = np.asarray(positions)[keep]
    labels = np.searchsorted(kept, labels[keep])
    sample = [opened[index] for index in positions]
    eyes = Backbone(model, token=token)
    clusters = same[positions]
    whole = predict_by(eyes.whole(np.stack([photo.pixels for photo in sample])), labels, clusters, deep=True, seed=seed)
    columns, columns_left = column_cues(source, sample)
    found = [*columns, *pixel_cues(sample, eyes), *file_cues(sample)]  # what has a name, and what is simple, first
    measured = [_measure(cue, labels, whole, clusters, seed) for cue in found]
    return Audit(
        sample,
        labels,
        [source.class_names[label] for label in kept],
        left_out,
        eyes.title,
        compare(whole, whole, labels, seed).accuracy,
        sorted(filter(None, measured), key=_rank),
        columns_left,
    )


def _rank(measured: Measured) -> tuple:
    """Shortcuts first, the strongest before others; of about equals the first that was measured."""
    low = measured.comparison.share.low
    return measured.is_tied, not measured.is_shortcut, -round(low, 1)


def _measure(cue: Cue, labels: np.ndarray, whole: np.ndarray, clusters: np.ndarray, seed: int) -> Measured | None:
    """None for a cue that too few images have."""
    rows = np.arange(len(labels)) if cue.rows is None else cue.rows
    own, whole = labels[rows], whole[rows]
    if _pictures(own, clusters[rows], labels.max() + 1).min() < FEWEST:
        return None
    predicted = predict_by(cue.values, own, clusters[rows], cue.deep, seed)
    wrong, right = predicted != own, whole == own
    return Measured(
        cue,
        compare(predicted, whole, own, seed),
        rows,
        predicted,
        wrong,
        float((whole == predicted)[wrong].mean()) if wrong.any() else None,
        tuple(float(right[part].mean()) if part.any() else None for part in (~wrong, wrong)),
        compare_classes(predicted, whole, own, seed) if labels.max() > 1 else {},
        cue.kind == "column" and _is_tied(cue.values[:, 0], own),
    )


def _pictures(labels: np.ndarray, clusters: np.ndarray, classes: int) -> np.ndarray:
    """How many different ones every class has."""
    pairs = np.unique(np.stack([labels, clusters], 1), axis=0)
    return np.bincount(pairs[:, 0], minlength=classes)


def _is_tied(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether every value belongs to one class, and there are fewer values than images by far."""
    pairs = np.unique(np.stack([np.nan_to_num(values), labels], 1), axis=0)
    return len(pairs) == len(np.unique(pairs[:, 0])) <= len(values) / FEWEST


def class_recalls(measured: Measured, audit: Audit) -> dict[str, float]:
    """The share of every class's images that the cue tells, the best first."""
    labels = audit.labels[measured.photos]
    shares = {name: float((~measured.wrong)[labels == label].mean()) for label, name in enumerate(audit.classes)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def same_shortcut(found: Measured, leading: Measured) -> float | None:
    """Where the leading cue misleads, the share of images that the other cue gives the same wrong class.

    Well above the errors that it makes elsewhere it is the same shortcut, seen in something else. None where the
    leading cue misleads nowhere.
    """
    misled = dict(zip(leading.photos[leading.wrong].tolist(), leading.predicted[leading.wrong].tolist(), strict=True))
    given = [
        misled[photo] == label
        for photo, label in zip(found.photos.tolist(), found.predicted.tolist(), strict=True)
        if photo in misled
    ]
    return float(np.mean(given)) if given else None
