"""What recipes share: arguments, the data and model these name, and runs of methods that can be compared."""

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, Trainer, set_seed

from .causal import select_meta_indices
from .data import (
    EvalTransform,
    ImageClassificationDataset,
    TrainTransform,
    group_proportions,
    load_classification_dataset,
)
from .data.groups import counts, split_off
from .hub import CardDetails
from .metrics import GroupMetrics, format_group_table
from .modeling import (
    freeze_batch_norm_statistics,
    image_settings,
    load_image_classifier,
    load_image_processor,
    parameter_count,
    resize_bilinearly,
)
from .trainer import CLPTrainer
from .training_args import CLPTrainingArguments

NO_CAUSAL_IMAGES = {
    "counterfactual_infills": [],
    "factual_infills": [],
    "saliency_weight": 0.0,
    "background_evidence": False,
}


def _plain(training_loss: str = "cross_entropy", **settings: Any) -> dict[str, Any]:
    return {"meta_every": 0, "training_loss": training_loss, **settings}


# A method is a change of the training arguments: everything else is the same for all.
METHODS = {
    "erm": _plain(),
    "focal": _plain("focal"),
    "generalised_cross_entropy": _plain("generalised_cross_entropy"),
    "nce_rce": _plain("nce_rce"),
    "nce_mae": _plain("nce_mae"),
    # Balanced sampling would correct the class frequencies twice.
    "class_balanced": _plain("class_balanced", train_sampling="random"),
    "class_balanced_focal": _plain("class_balanced_focal", train_sampling="random"),
    "ldam": _plain("ldam", train_sampling="random"),
    "ldam_drw": _plain("ldam_drw", train_sampling="random"),
    "logit_adjustment": _plain("logit_adjustment", train_sampling="random"),
    "balanced_softmax": _plain("balanced_softmax", train_sampling="random"),
    # These need the group of every training image; the batches are those of their papers.
    "group_reweighting": _plain(train_sampling="group"),
    "group_dro": _plain("group_dro", train_sampling="group"),
    "lisa": _plain("lisa", train_sampling="group"),
    "meta_weight_net": {"meta_network": "weight", "perturb_meta_logits": False, **NO_CAUSAL_IMAGES},
    "meta_lp": NO_CAUSAL_IMAGES,
    "clp": {},
}


@dataclass
class DataArguments:
    """Which data, and which of its columns."""

    dataset_name: str = field(
        default="embedded", metadata={"help": "A Hub name, a folder, a parquet file, or `embedded` (generated birds)."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    image_column: str = field(default="image", metadata={"help": "Column of the images."})
    label_column: str = field(default="label", metadata={"help": "Column of the labels."})
    attribute_column: str | None = field(
        default=None, metadata={"help": "Column of the spurious attribute; by default place, background or attribute."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Column of the groups; by default group, else made of label and attribute."}
    )
    mask_column: str | None = field(default=None, metadata={"help": "Column of the masks; by default mask."})
    box_column: str | None = field(default=None, metadata={"help": "Column of boxes around the object, for masks."})
    box_format: str = field(default="xywh", metadata={"help": "xywh (COCO: left, top, width, height) or xyxy."})
    class_names: list[str] | None = field(default=None, metadata={"help": "Class names, in the order of the labels."})
    image_size: int | None = field(default=None, metadata={"help": "Pixels; by default the size of the model."})
    crop_scale: float = field(default=0.7, metadata={"help": "Smallest share of the area that a random crop keeps."})
    meta_split: str = field(
        default="validation", metadata={"help": "Split the meta set is taken out of: validation or train."}
    )


@dataclass
class ModelArguments:
    """Which model."""

    model_name_or_path: str = field(
        default="tf_efficientnet_lite0", metadata={"help": "A Hub name, `timm/…`, a bare timm name, or a local folder."}
    )
    revision: str = field(default="main", metadata={"help": "Revision on the Hub."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    token: str | None = field(default=None, metadata={"help": "Hub token; by default the one of `hf auth login`."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code from the Hub."})
    freeze_batch_norm: bool = field(
        default=True,
        metadata={"help": "Keep the pretrained batch-norm statistics: batches are small and of one background mostly."},
    )


def parse_arguments(argument_classes: Sequence[type], description: str, defaults: Mapping[str, Any]) -> tuple:
    """Arguments from the command line, or from the one JSON or YAML file that is its only argument.

    Args:
        argument_classes: dataclasses.
        description: for `--help`.
        defaults: of the recipe, by name of the field, where they are not those of the dataclasses.
    """
    parser = HfArgumentParser(argument_classes, description=description)
    parser.set_defaults(**defaults)
    if len(sys.argv) == 2 and sys.argv[1].endswith((".json", ".yaml", ".yml")):
        values = yaml.safe_load(Path(sys.argv[1]).read_text())  # JSON is YAML
        return parser.parse_dict({**defaults, **values})
    return parser.parse_args_into_dataclasses()


class Experiment:
    """Data and model of a recipe, and runs of methods on them that differ in nothing but the method.

    The meta set is taken out of its split before anything else, for all methods alike: no method is selected or trained
    on images that another one learns from.

    Args:
        data_args, model_args, training_args: of the recipe.
    """

    def __init__(self, data_args: DataArguments, model_args: ModelArguments, training_args: CLPTrainingArguments):
        self.model_args, self.args = model_args, training_args
        splits = load_classification_dataset(
            data_args.dataset_name,
            config_name=data_args.dataset_config_name,
            image_column=data_args.image_column,
            label_column=data_args.label_column,
            attribute_column=data_args.attribute_column,
            group_column=data_args.group_column,
            mask_column=data_args.mask_column,
            box_column=data_args.box_column,
            box_format=data_args.box_format,
            label_names=data_args.class_names,
            cache_dir=model_args.cache_dir,
        )
        features = splits["train"].features
        self.label_names = features["label"].names
        self.group_names = features["group"].names if "group" in features else None
        self.hub_kwargs = {
            "revision": model_args.revision,
            "cache_dir": model_args.cache_dir,
            "token": model_args.token,
            "trust_remote_code": model_args.trust_remote_code,
        }
        self.image_size = data_args.image_size
        model = self.build_model()
        self.num_parameters = parameter_count(model)
        self.processor = load_image_processor(
            model_args.model_name_or_path, model, image_size=self.image_size, **self.hub_kwargs
        )
        resize_bilinearly(self.processor)  # as the transforms below do: what is published is what was trained with
        settings = image_settings(model, self.processor)
        size, normalisation = (settings.height, settings.width), (settings.mean, settings.std)
        train_transform = TrainTransform(size, *normalisation, scale=(data_args.crop_scale, 1.0))
        eval_transform = EvalTransform(size, *normalisation, crop_pct=settings.crop_pct)

        pool = splits[data_args.meta_split]
        chosen = select_meta_indices(
            pool["label"][:],
            training_args.meta_samples,
            pool["group"][:] if self.group_names else None,
            num_classes=len(self.label_names),
            num_groups=len(self.group_names) if self.group_names else None,
            seed=training_args.seed,
        )
        meta, splits[data_args.meta_split] = split_off(pool, chosen)
        self.splits = splits
        has_groups = self.group_names is not None
        self.card_details = CardDetails(
            base_model=model.config.name_or_path or model_args.model_name_or_path,
            dataset_name=Path(data_args.dataset_name).name,
            dataset_id=data_args.dataset_name,
            dataset_config=data_args.dataset_config_name,
            meta_source=f"taken out of the {data_args.meta_split} split, {training_args.meta_samples} of every "
            f"{'group' if has_groups else 'class'}",
            group_counts={f"{name} images": counts(split) for name, split in splits.items() if has_groups},
        )
        proportions = group_proportions(splits["train"]) if has_groups else None
        self.compute_metrics = GroupMetrics(self.label_names, self.group_names, proportions)
        self.train = ImageClassificationDataset(splits["train"], train_transform, name="train")
        self.meta = ImageClassificationDataset(meta, train_transform, name="meta set")
        self.validation = ImageClassificationDataset(splits["validation"], eval_transform, name="validation")
        self.test = (
            ImageClassificationDataset(splits["test"], eval_transform, name="test") if "test" in splits else None
        )

    def build_model(self):
        """The pretrained model with a head for these classes, drawn from the seed: the same start for every method."""
        set_seed(self.args.seed)
        model = load_image_classifier(
            self.model_args.model_name_or_path,
            id2label=dict(enumerate(self.label_names)),
            image_size=self.image_size,
            **self.hub_kwargs,
        )
        if self.model_args.freeze_batch_norm:
            freeze_batch_norm_statistics(model)
        return model.to(memory_format=torch.channels_last)  # 1.7 × faster depthwise convolutions on a CPU

    def run(self, method: Mapping[str, Any], output_dir: str) -> dict[str, float]:
        """Train, evaluate the selected checkpoint, save model, card and `all_results.json` in `output_dir`.

        With `push_to_hub` the folder is published too.

        Args:
            method: what distinguishes it, by name of the training argument: one of `METHODS`.
            output_dir: of this run.

        Returns:
            The metrics, with prefixes `train_`, `eval_` and `test_`.
        """
        args = copy.deepcopy(self.args)
        args.hub_token = self.args.hub_token  # which no copy holds
        args.output_dir = output_dir
        for name, value in method.items():
            setattr(args, name, value)
        trainer = CLPTrainer(
            self.build_model(),
            args,
            train_dataset=self.train,
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
        # Last, so that the card has the results.
        if args.push_to_hub:
            trainer.push_to_hub()
        else:
            trainer.save_model()
            trainer.create_model_card()
        return result.metrics | metrics

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        """Metrics on validation (`eval_`) and, where there is one, test (`test_`), also saved in its `output_dir`."""
        metrics = trainer.evaluate(self.validation, metric_key_prefix="eval")
        trainer.save_metrics("eval", metrics)
        if self.test is not None:
            test_metrics = trainer.evaluate(self.test, metric_key_prefix="test")
            trainer.save_metrics("test", test_metrics)
            metrics |= test_metrics
        return metrics

    def table(self, results: Mapping[str, Mapping[str, float]]) -> str:
        """Group accuracies of several methods side by side, on the test split (on validation, where there is none)."""
        prefix = "test" if self.test is not None else "eval"
        sizes = {"train": counts(self.splits["train"])} if self.group_names else None
        return format_group_table(results, sizes, prefix=f"{prefix}_")
