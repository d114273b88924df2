"""A `datasets.Dataset` of images, as it is, made into what a trainer takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from datasets import (
    Dataset,
    DatasetDict,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset
from transformers import BaseImageProcessor, PreTrainedModel

from ..metrics import GroupMetrics
from ..modeling.identity import label_names
from ..modeling.preprocessing import ImageSettings, image_settings, own_processor
from .boxes import refuse_two_readings
from .columns import Columns
from .dataset import CLEAN_LABEL, ImageClassificationDataset
from .groups import check_groups, counts, group_proportions
from .labels import INTEGER, encode, labels_are_hidden, unused_model_names
from .loading import LABEL_COLUMNS, columns_of, with_labels, with_pixels
from .transforms import ProcessorTransform, TrainTransform

SAY_WHICH = (
    "Say which column is what, columns=clp_hf.data.Columns(image_column=…, label_column=…), or give the data set a "
    "transform of your own that makes `pixel_values` and `labels` (with_transform)."
)


class ImageReader:
    """Makes items for a trainer of one model out of images in a `datasets.Dataset`; leaves other data sets as they are.

    Columns are found, labels joined by name and groups made as by `load_classification_dataset`, in every data set as
    in the first. A model whose classes have no names gets those of the data.

    Args:
        model: whose classes the labels are.
        processor: the preprocessing; by default the model's own.
        columns: their names, where they are not the usual ones. A column `box` holds corners in pixels, as
            `load_classification_dataset` gives them.
    """

    def __init__(
        self, model: PreTrainedModel, processor: BaseImageProcessor | None = None, columns: Columns | None = None
    ):
        self.model, self._processor, self.columns = model, processor, columns or Columns()
        self._examples: list[Dataset] = []  # of what was read: an image of each label, attribute and group

    @cached_property
    def processor(self) -> BaseImageProcessor:
        """That the images go through."""
        return self._processor or own_processor(self.model)

    @cached_property
    def _settings(self) -> ImageSettings:
        return image_settings(self.model, self.processor)

    def __call__(
        self, dataset: TorchDataset | Dataset | None, name: str, *, augmented: bool = False, labelled: bool = True
    ) -> TorchDataset | None:
        """The data set as a trainer takes it.

        Args:
            dataset: its images are read where it is of `datasets`, has no `pixel_values` and no transform of its own.
            name: of it, for messages.
            augmented: random crops and flips, as recipes have it; else what the processor makes of an image.
            labelled: whether there have to be labels.

        Raises:
            ValueError: which column is what cannot be told, a value is not as expected, an image cannot be decoded, or
                the model's preprocessing is not known.
        """
        if isinstance(dataset, Subset) and _has_images(dataset.dataset):
            dataset = dataset.dataset.select(dataset.indices)
        if isinstance(dataset, DatasetDict):
            raise ValueError(f"The {name} is a DatasetDict of the splits {', '.join(dataset)}: give one of them.")
        if not _has_images(dataset):
            return dataset
        with _no_progress_bars():
            split = self._canonical(dataset.with_format(None), name, labelled)
        settings = self._settings
        if augmented:
            transform = TrainTransform((settings.height, settings.width), settings.mean, settings.std)
        else:
            transform = ProcessorTransform(self.processor, settings)
        return ImageClassificationDataset(split, transform, name=name)

    def _canonical(self, dataset: Dataset, name: str, labelled: bool) -> Dataset:
        """With the columns of `load_classification_dataset`."""
        columns, found = self.columns, dataset.column_names
        if not labelled and columns.label_column is None and not {*LABEL_COLUMNS} & {*found}:
            columns = replace(columns, label_column="none")
        try:
            sources, attribute = columns_of(found, columns)
        except ValueError as error:
            raise ValueError(f"The {name}: {error} {SAY_WHICH}") from None
        if not labelled and sources["label"] and labels_are_hidden(dataset, sources["label"]):
            sources["label"] = None
        if sources["label"] is None:
            sources["group"] = attribute = None
        if "box" in found and not sources["box"] and not sources["mask"]:
            boxed = dataset.select_columns([sources["image"], "box"]).rename_columns({sources["image"]: "image"})
            refuse_two_readings(boxed, name)
            columns, sources["box"] = replace(columns, box_format="xyxy"), "box"
        if CLEAN_LABEL in found and sources["label"]:
            sources[CLEAN_LABEL] = CLEAN_LABEL
        split = with_pixels(DatasetDict({name: dataset}), sources, attribute, columns)[name]
        return split if sources["label"] is None else self._labelled(split, name, sources, attribute, columns)

    def _labelled(
        self, split: Dataset, name: str, sources: dict[str, str | None], attribute: str | None, columns: Columns
    ) -> Dataset:
        told = ["label", *filter(None, [attribute, sources["group"] and "group"])]
        example = next((one for one in self._examples if {*told} <= {*one.column_names}), None)
        if example is None:
            example = _one_of_each(split, told)
            self._examples.append(example)
        parts = DatasetDict({"train": example, name: split})
        parts = with_labels(parts, sources, attribute, columns, label_names(self.model))
        if "group" in parts[name].column_names:
            check_groups(parts)
        classes = parts[name].features["label"].names
        self._name_classes(classes)
        if CLEAN_LABEL in split.column_names:
            return encode(DatasetDict(train=parts[name]), CLEAN_LABEL, known=classes)["train"]
        return parts[name]

    def _name_classes(self, names: Sequence[str]) -> None:
        """Those of a model that has none, as cards and pipelines will tell them."""
        config = self.model.config
        if unused_model_names(label_names(self.model)) and not all(map(INTEGER.fullmatch, names)):
            config.id2label = dict(enumerate(names))
            config.label2id = {name: index for index, name in enumerate(names)}
            vars(config).pop("label_names", None)  # of a timm wrapper, which would save these instead


def metrics_of(train: TorchDataset | None, *others: TorchDataset | None) -> GroupMetrics | None:
    """The metrics of data sets that an `ImageReader` has made, by the names of their classes and groups.

    Args:
        train: whose frequencies weight `adjusted_accuracy`, or tell which classes are rare.
        *others: that are evaluated.

    Returns:
        None where there is no such data set.
    """
    read = [one.dataset for one in (train, *others) if isinstance(one, ImageClassificationDataset)]
    read = [split for split in read if "label" in split.features]
    if not read:
        return None
    groups = next((split.features["group"].names for split in read if "group" in split.features), None)
    proportions = class_counts = None
    if isinstance(train, ImageClassificationDataset):
        has_groups = "group" in train.dataset.features
        proportions = group_proportions(train.dataset) if has_groups else None
        class_counts = None if groups else counts(train.dataset, "label")
    return GroupMetrics(read[0].features["label"].names, groups, proportions, class_counts)


def _has_images(dataset: object) -> bool:
    """Whether it is of `datasets`, and nobody has made `pixel_values` of its images yet."""
    return (
        isinstance(dataset, Dataset)
        and dataset.format["type"] != "custom"
        and "pixel_values" not in dataset.column_names
    )


def _one_of_each(split: Dataset, columns: Sequence[str]) -> Dataset:
    """These columns alone, of one row for each combination of their values."""
    values = split.select_columns(columns)
    return Dataset.from_list(list({str(row): row for row in values}.values()), features=values.features)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """A column of labels is added in no time, which needs no bar."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
