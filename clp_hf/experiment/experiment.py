"""Data and model of a recipe, and runs of methods that can be compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import Trainer, set_seed
from transformers.utils import logging

from ..data.checks import column
from ..data.dataset import ImageClassificationDataset
from ..data.groups import counts, group_proportions
from ..data.loading import load_classification_dataset
from ..data.mask_counts import check_usable, counted_masks, mask_sentence, split_masks
from ..data.meta_set import meta_indices
from ..data.published import Published, not_as_published
from ..data.scenarios.pseudo_attributes import add_pseudo_attributes
from ..data.sources import read_splits
from ..data.transforms import PaddedCropTransform, ProcessorTransform, TrainTransform
from ..discovery import Backbone
from ..features.extraction import extract_features
from ..hub.card import CardDetails
from ..hub.history import selection_of, told_selection
from ..hub.record import command_line, plain_settings
from ..metrics import GroupMetrics, format_group_table
from ..modeling.identity import parameter_count
from ..modeling.loading import load_image_classifier, warn_of_random_features
from ..modeling.preprocessing import image_settings, load_image_processor, squash_bilinearly
from ..segmentation.boxes import add_boxes
from ..segmentation.reports import mask_counts
from ..trainer import CLPTrainer
from ..training_args import CLPTrainingArguments
from .arguments import DataArguments, ModelArguments, data_hub_kwargs
from .grouping import with_discovered_groups
from .looking import attribution_of, save_grad_cam
from .methods import configured

logger = logging.get_logger(__name__)

FIND_GROUPS_BEFORE = (
    "Find the groups by a pretrained model before, clp-hf groups {0}, and train without --groups on the folder that it "
    "names."
)
SAME = (
    "Validation and test are the same images, those of the test split that are not in the meta set: no training image "
    "is held out, and what is selected by them is not measured by them."
)


def hub_kwargs(model_args: ModelArguments) -> dict[str, Any]:
    """How the model is fetched, for `load_image_classifier` and its like."""
    return {name: getattr(model_args, name) for name in ("revision", "cache_dir", "token", "trust_remote_code")}


def _boxed(images: Dataset, method: str | None, name: str, model_args: ModelArguments) -> Dataset:
    """The images, with boxes where they have neither mask nor box and a method to find some is given."""
    if not method or {"mask", "box"} & set(images.column_names):
        return images
    given = {key: getattr(model_args, key) for key in ("cache_dir", "token", "trust_remote_code")}
    return add_boxes(images, method, name=name, **given)


def _decode(*parts: ImageClassificationDataset | None) -> None:
    for images in parts:
        if images is not None:
            images.decode()


class Experiment:
    """Data and model of a recipe, and runs of methods on them that differ in nothing but the method.

    The meta set is taken out of its split before anything else, for all methods alike: no method is selected or trained
    on images that another one learns from.

    Args:
        data_args, model_args, training_args: of the recipe.
        splits: the data, where the recipe has loaded them itself.
        scenario: what is done to the training split, once validation and meta set are out of it, which stay balanced
            and clean: a long tail, label noise.
        known_classes: of the model, where it keeps its head: the data's classes are matched to them by name.
        squeezed: whether images are squeezed whole to the model's size, as is fit for training on random crops. Else
            they are preprocessed as the model is published: its backbone stays as it is.
        published: the data sets, as published, that the recipe is about: it is told where the data are none of them.

    Attributes:
        splits: what is trained on and measured, without the meta set.
        meta: the meta set; None where none is taken out, and a trainer that needs one takes it out of its training set.
        validation_pool: the validation split with the meta set, where that was taken out of it.
        selection: which step's weights the last run kept, and by what, as `clp_hf.hub.history.selection_of` has it.

    Raises:
        ValueError: the meta set would leave a training class, or the validation split, without images; or attribution
            is asked for without masks, or of a model without feature map.
    """

    def __init__(
        self,
        data_args: DataArguments,
        model_args: ModelArguments,
        training_args: CLPTrainingArguments,
        *,
        splits: DatasetDict | None = None,
        scenario: Callable[[Dataset], Dataset] | None = None,
        known_classes: Sequence[str] | None = None,
        squeezed: bool = True,
        published: Sequence[Published] = (),
    ):
        self.model_args, self.args = model_args, training_args
        source = splits or read_splits(data_args.dataset_name, **data_hub_kwargs(data_args, model_args))
        splits = load_classification_dataset(
            source,
            replace(data_args, group_column="none", attribute_column="none") if data_args.groups else data_args,
            known_classes=known_classes,
            train_split=data_args.train_split,
            validation_split=data_args.validation_split,
            test_split=data_args.test_split,
            validation_fraction=data_args.validation_fraction,
            validation_images=data_args.validation_images,
        )
        hides_test = (data_args.test_split or "test") in source and "test" not in splits
        same = splits.get("test") is splits["validation"]
        notes = [not_as_published(splits, published), SAME if same else None]
        self.label_names = splits["train"].features["label"].names
        self.hub_kwargs = hub_kwargs(model_args)
        self.image_size = data_args.image_size
        model = self.build_model()
        self.num_parameters = parameter_count(model)
        processor = load_image_processor(
            model_args.model_name_or_path, model, image_size=self.image_size, **self.hub_kwargs
        )
        settings = image_settings(model, processor)
        # what is published sees what was trained
        self.processor = squash_bilinearly(processor, settings) if squeezed else processor
        size, normalisation = (settings.height, settings.width), (settings.mean, settings.std)
        if data_args.crop_padding is None:
            crops = partial(TrainTransform, size, *normalisation, scale=(data_args.crop_scale, 1.0))
        else:
            crops = partial(PaddedCropTransform, size, *normalisation, padding=data_args.crop_padding)
        eval_transform = ProcessorTransform(self.processor, settings)

        found = None
        if data_args.groups:
            warn_of_random_features(
                model_args.model_name_or_path, model_args.pretrained, FIND_GROUPS_BEFORE.format(data_args.dataset_name)
            )
            backbone, args = Backbone(model, eval_transform, training_args), training_args
            splits, found = with_discovered_groups(
                splits, data_args, backbone, args.output_dir, args.seed, args.should_save
            )
        features = splits["train"].features
        self.group_names = features["group"].names if "group" in features else None
        has_groups = self.group_names is not None
        split = data_args.meta_split
        self.validation_pool = splits["validation"]
        if split != "none" and split not in splits:
            raise ValueError(f"meta_split is {split!r}; expected one of {', '.join(splits)}, or none.")
        meta = None
        if split != "none":
            meta, splits[split] = self._split_meta_set(splits[split], data_args)
            meta = _boxed(meta, data_args.meta_boxes, "meta set", model_args)
        if same:
            splits["test"] = splits["validation"]
        if data_args.max_train_samples is not None:
            splits["train"] = self._subset(splits["train"], data_args.max_train_samples)
        if scenario is not None:
            splits["train"] = scenario(splits["train"])
        splits["train"] = _boxed(splits["train"], data_args.train_boxes, "train", model_args)
        self.splits = splits
        cells = "group" if has_groups else "label"
        self.card_details = CardDetails(
            base_model=model.config.name_or_path or model_args.model_name_or_path,
            dataset_name=Path(data_args.dataset_name).name,
            dataset_id=data_args.dataset_name,
            dataset_config=data_args.dataset_config_name,
            meta_source=None
            if meta is None
            else f"taken out of the {split} split, {self._images_per_cell(data_args)} of every "
            f"{self._meta_cells(data_args)[0]}",
            group_counts={f"{name} images": counts(split, cells) for name, split in splits.items()},
            command=command_line({"HUB_TOKEN": training_args.hub_token, "TOKEN": model_args.token}),
            settings=plain_settings((data_args, model_args)),
        )
        proportions = group_proportions(splits["train"]) if has_groups else None
        class_counts = None if has_groups else counts(splits["train"], "label")
        self.compute_metrics = GroupMetrics(self.label_names, self.group_names, proportions, class_counts)
        images = partial(ImageClassificationDataset, decode=False)  # a repair by known features looks at none
        self.train = images(splits["train"], crops(rand_augment=data_args.rand_augment), name="train")
        self.meta = None if meta is None else images(meta, crops(), name="meta set")
        self.validation = images(splits["validation"], eval_transform, name="validation")
        self.test = images(splits["test"], eval_transform, name="test") if "test" in splits else None
        if hides_test:
            notes.append("The test split hides its labels, so nothing was tested on it.")
        masked = [part for part in (self.train, self.validation, self.test, self.meta) if part and part.has_mask]
        if squeezed:
            _decode(*masked)  # what is trained on has its masks read once, with the images
        self._tell_about_data(data_args, masked, [*filter(None, [*notes, found])])
        if model_args.attribution:
            self._check_attribution(model)

    def _tell_about_data(
        self, data_args: DataArguments, masked: Sequence[ImageClassificationDataset], notes: list[str]
    ) -> None:
        """Count the masks of every split, refuse them where none is of use; say it, and these, in log, card, record."""
        reports = {part.name: split_masks(part, self.args.mask_shape) for part in masked}
        notes = [*notes, *filter(None, (mask_sentence(name, report) for name, report in reports.items()))]
        for note in notes:
            logger.warning(note)
        self.card_details.notes = notes
        self.card_details.masks = mask_counts(data_args.dataset_name) or {
            name: counted_masks(report) for name, report in reports.items()
        }
        check_usable(reports)

    def _subset(self, train: Dataset, size: int) -> Dataset:
        if size < 1:
            raise ValueError(f"max_train_samples is {size}; expected 1 or more.")
        return train.shuffle(seed=self.args.seed).select(range(min(size, len(train))))

    def _check_attribution(self, model) -> None:
        """Find out before training what `attribution` would fail for after it."""
        from ..visualization.grad_cam import Attribution, check_has_masks

        check_has_masks(self.validation)
        Attribution(model, self.validation[0]["pixel_values"][None])

    def _meta_cells(self, data_args: DataArguments) -> tuple[str, int]:
        """What the meta set has equally many images of, and how many of these there are."""
        if data_args.meta_clusters:
            return "k-means cluster of a class", data_args.meta_clusters * len(self.label_names)
        return ("group", len(self.group_names)) if self.group_names else ("class", len(self.label_names))

    def _images_per_cell(self, data_args: DataArguments) -> int:
        if data_args.meta_images is None:
            return self.args.meta_samples
        return data_args.meta_images // self._meta_cells(data_args)[1]

    def _split_meta_set(self, pool: Dataset, data_args: DataArguments) -> tuple[Dataset, Dataset]:
        chosen, rest = meta_indices(
            column(pool, "label"),
            self._images_per_cell(data_args),
            column(pool, "group"),
            clusters=self._clusters(pool, data_args) if data_args.meta_clusters else None,
            num_clusters=self._meta_cells(data_args)[1],
            label_names=self.label_names,
            group_names=self.group_names,
            source=f"{data_args.meta_split} split",
            fix="lower meta_samples or meta_images, or take it out of the other split (meta_split)",
            seed=self.args.seed,
        )
        return pool.select(chosen), pool.select(rest)

    def _clusters(self, pool: Dataset, data_args: DataArguments) -> np.ndarray:
        """The k-means cluster of every image, (n,), numbered over all classes."""
        name = data_args.meta_cluster_model
        model = load_image_classifier(name, **self.hub_kwargs)
        processor = load_image_processor(name, model, **self.hub_kwargs)
        transform = ProcessorTransform(processor, image_settings(model, processor))
        images = ImageClassificationDataset(pool, transform, name="meta pool")
        features = extract_features(model, images, self.args).features
        clustered = add_pseudo_attributes(
            pool.select_columns("label"), features, data_args.meta_clusters, seed=self.args.seed
        )
        return column(pool, "label") * data_args.meta_clusters + column(clustered, "attribute")

    def build_model(self):
        """The pretrained model with a head for these classes, drawn from the seed: the same start for every method."""
        set_seed(self.args.seed)
        model = load_image_classifier(
            self.model_args.model_name_or_path,
            id2label=dict(enumerate(self.label_names)),
            image_size=self.image_size,
            pretrained=self.model_args.pretrained,
            freeze_batch_norm=self.model_args.freeze_batch_norm,
            **self.hub_kwargs,
        )
        return model.to(memory_format=torch.channels_last)  # 1.7 × faster depthwise convolutions on a CPU

    def as_evaluated(self, images: ImageClassificationDataset) -> ImageClassificationDataset:
        """The same images, preprocessed as for evaluation."""
        return images.seen_by(self.validation.transform)

    def run(
        self,
        method: Mapping[str, Any],
        output_dir: str,
        *,
        train: ImageClassificationDataset | None = None,
        args: CLPTrainingArguments | None = None,
    ) -> dict[str, float]:
        """Train, evaluate the selected checkpoint, save model, card and `all_results.json` in `output_dir`.

        With `push_to_hub` the folder is published too.

        Args:
            method: what distinguishes it, by name of the training argument: one of `METHODS`.
            output_dir: of this run.
            train: in the place of the training images.
            args: in the place of the recipe's.

        Returns:
            The metrics, with prefixes `train_`, `eval_` and `test_`.

        Raises:
            ValueError: the method's settings contradict the others.
        """
        args = configured(args or self.args, method, output_dir=output_dir)
        train = self.train if train is None else train
        _decode(train, self.meta, self.validation, self.test)
        trainer = CLPTrainer(
            self.build_model(),
            args,
            train_dataset=train,
            eval_dataset=self.validation,
            meta_dataset=self.meta,
            processing_class=self.processor,
            compute_metrics=self.compute_metrics,
            card_details=self.card_details,
        )
        result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
        metrics = self.evaluate(trainer)
        self.selection = selection_of(trainer)
        # Last, so that the card has the results.
        trainer.save_or_push()
        return result.metrics | metrics

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        """Metrics on validation (`eval_`) and, where there is one, test (`test_`), also saved in its `output_dir`."""
        metrics = {}
        for prefix, dataset in (("eval", self.validation), ("test", self.test)):
            if dataset is not None:
                found = trainer.evaluate(dataset, metric_key_prefix=prefix)
                if self.model_args.attribution:
                    found |= attribution_of(trainer, dataset, prefix, self.group_names)
                trainer.save_metrics(prefix, found)
                metrics |= found
        if self.model_args.attribution and trainer.args.should_save:
            save_grad_cam(trainer, self.validation if self.test is None else self.test, self.label_names)
        return metrics

    def table(self, results: Mapping[str, Mapping[str, float]]) -> str:
        """Group accuracies of several methods side by side, on the test split (on validation, where there is none)."""
        prefix, split = ("test", "test") if self.test is not None else ("eval", "validation")
        sizes = {"train": counts(self.splits["train"], "group" if self.group_names else "label")}
        return format_group_table(results, sizes, prefix=f"{prefix}_", title=f"accuracy, % ({split})")

    def summary(self, results: Mapping[str, Mapping[str, float]], selections: Mapping[str, Mapping[str, Any]]) -> str:
        """The table, with the model, its size, what selected the checkpoints, and the error of every method.

        Args:
            results: method -> metrics.
            selections: method -> `selection` after its run.
        """
        prefix, split = ("test", "Test") if self.test is not None else ("eval", "Validation")
        errors = ", ".join(f"{name} {100 * (1 - row[f'{prefix}_accuracy']):.2f} %" for name, row in results.items())
        metrics = {selection["metric"] for selection in selections.values()}
        if metrics == {None}:
            selected = "no checkpoint was selected"
        else:
            names = " or ".join(sorted(filter(None, metrics)))
            selected = f"checkpoint by {names} on {len(self.validation)} validation images"
        kept = "\n".join(f"{name}: {told_selection(selection)}" for name, selection in selections.items())
        return (
            f"{self.model_args.model_name_or_path}, {self.num_parameters:,} parameters; {selected}. "
            f"{split} error: {errors}\n{kept}\n\n{self.table(results)}"
        )
