"""CLP in feature space, seen from the Trainer: `train` replaces the head; evaluate, save and push are the Trainer's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from ..base.publishing import PublishingTrainer
from ..causal import CausalAugmentation
from ..causal.mask_report import check_masks
from ..data.checks import check_labels, column
from ..data.meta_set import split_meta_set
from ..features import CausalFeatures, FeatureSet, extract_causal_features, extract_features
from ..hub.arguments import PublishedArguments
from ..hub.card import CardDetails
from ..modeling.head import find_classifier_head, set_head
from ..modeling.preprocessing import image_settings
from ..perturbation.evidence import ON_FEATURES, attributes_of
from .learning import CLPHeadResult, CLPHeadSettings, best, clp_head

logger = logging.get_logger(__name__)


@dataclass
class CLPHeadArguments(PublishedArguments):
    """`transformers.TrainingArguments` and the settings of CLP in feature space.

    Of `TrainingArguments` it uses `output_dir`, `seed`, the evaluation batch size, and what saves, logs and pushes.
    """

    evidence: list[str] | None = field(
        default=None,
        metadata={
            "help": "What other than the object says about the label, out of: "
            f"{', '.join(ON_FEATURES)}; by default the first there are data for (masks, groups, nothing)."
        },
    )
    ridges: list[float] = field(
        default_factory=lambda: [CLPHeadSettings.ridge],
        metadata={"help": "λ to try, in units of the mean squared length of a feature vector; validation chooses."},
    )
    meta_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight ρ of the meta images in training, over that of all training images; by default 1, and 0 "
            "where backgrounds are swapped, which do more."
        },
    )
    swapped_copies: int = field(
        default=2,
        metadata={
            "help": "Where there are masks: train on so many draws of every image before the background of another "
            "class too; 0 for none."
        },
    )
    strength_steps: int = field(
        default=CLPHeadSettings.steps, metadata={"help": "Updates of the strength of the evidence; 0 keeps it."}
    )
    meta_samples: int = field(
        default=10,
        metadata={
            "help": "Images of every group (or class) taken out of the training set, when no meta_dataset is given."
        },
    )
    mask_shape: str = field(default="box", metadata={"help": "How the foreground is taken out: by its box, or exact."})
    feature_cache: str | None = field(
        default=None, metadata={"help": "Folder where features are kept; by default features in output_dir."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "As in TrainingArguments."})

    def __post_init__(self):
        super().__post_init__()
        if self.evidence == ["none"]:
            self.evidence = []
        if self.swapped_copies < 0:
            raise ValueError(f"swapped_copies is {self.swapped_copies}; expected 0 or more.")
        if not self.ridges:
            raise ValueError("ridges is empty; give one or more.")
        self.settings(self.evidence or [], swaps=False)  # checks them

    def settings(self, evidence: list[str], swaps: bool) -> list[CLPHeadSettings]:
        """Those to try, of these kinds of evidence."""
        weight = float(not swaps) if self.meta_weight is None else self.meta_weight
        return [
            CLPHeadSettings(tuple(evidence), ridge, weight, self.strength_steps, seed=self.seed)
            for ridge in self.ridges
        ]


class CLPHeadTrainer(PublishingTrainer):
    """Retrains the final linear layer of a classifier by CLP on its features; the backbone stays as it is.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `CLPHeadArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. Items as for `CLPTrainer`;
            of masks come backgrounds and swapped images.
        meta_dataset: small, clean, balanced, not of the training images. By default `args.meta_samples` images of every
            group (or class) are taken out of the training set.
        eval_dataset: the validation set, where there is one. Ω does not learn from it; of several `ridges` it chooses.
        **kwargs: as for `Trainer`; and `card_details`, what the model card tells and the trainer cannot know.

    Attributes:
        result: the chosen `CLPHeadResult`, after `train`.
        results: those of all ridges.

    Raises:
        ValueError: a set is missing or has no labels, or an evidence lacks what it needs; the message names what would
            do.
    """

    def __init__(self, model=None, args: CLPHeadArguments | None = None, *, meta_dataset=None, **kwargs):
        super().__init__(model, args or CLPHeadArguments(), **kwargs)
        if self.train_dataset is None:
            raise ValueError("CLP needs a training set: pass train_dataset.")
        self.meta_dataset = meta_dataset
        if meta_dataset is None:
            self.train_dataset, self.meta_dataset = split_meta_set(
                self.train_dataset, self.args.meta_samples, self.args.seed
            )
        for name, dataset in (("training", self.train_dataset), ("meta", self.meta_dataset)):
            check_labels(column(dataset, "labels"), self.model.config.num_labels, f"{name} set")
        self.attributes = self._attributes()
        self.evidence = self._chosen_evidence()
        self.results: list[CLPHeadResult] = []
        self.result: CLPHeadResult | None = None

    # ---- what the data have ------------------------------------------------------------------------------------------

    def _attributes(self) -> Tensor | None:
        groups = column(self.meta_dataset, "group")
        if groups is None:
            return None
        found = attributes_of(torch.as_tensor(column(self.meta_dataset, "labels")), torch.as_tensor(groups))
        return None if found is None or found[1] == 1 else found[0]

    @property
    def has_masks(self) -> bool:
        """Whether training and meta images have masks."""
        return all("mask" in dataset[0] for dataset in (self.train_dataset, self.meta_dataset))

    def _chosen_evidence(self) -> list[str]:
        able = {"background": self.has_masks, "attribute": self.attributes is not None, "bias": True}
        if self.args.evidence is None:
            return [next(kind for kind, can in able.items() if can)]
        needs = {
            "background": "masks of the training and meta images (clp-hf masks makes them)",
            "attribute": "groups of class × attribute of the meta images, two attributes or more",
        }
        for kind in self.args.evidence:
            if not able[kind]:
                others = ", ".join(other for other, can in able.items() if can)
                raise ValueError(f"The evidence {kind!r} needs {needs[kind]}. With these data there is: {others}.")
        return self.args.evidence

    def features(self, dataset: Dataset) -> FeatureSet:
        """Features of a data set, from the cache where it has them."""
        return extract_features(self.model, dataset, self.args, self._cache, self.data_collator)

    @property
    def _cache(self) -> str:
        return self.args.feature_cache or f"{self.args.output_dir}/features"

    def causal_features(self, dataset: Dataset, copies: int) -> CausalFeatures:
        """The same with those of backgrounds and of swapped images, where there are masks."""
        augmentation = maskable = None
        if self.has_masks:
            settings = image_settings(self.model, self.processing_class)
            augmentation = CausalAugmentation(
                ["tile"], ["mix_rand"], settings.mean, settings.std, self.args.mask_shape, factual_mask_shape="exact"
            )
            masks = (dataset[index]["mask"] for index in range(len(dataset)))
            maskable = check_masks(masks, self.args.mask_shape).maskable
        return extract_causal_features(
            self.model, dataset, self.args, augmentation, maskable, copies, self._cache, self.data_collator
        )

    # ---- training ----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint=None, **kwargs) -> TrainOutput:
        """Learn Ω, and put the head of it into the model."""
        with self._publishing.timed():
            self._replace_head()
        metrics = {"train_runtime": self._publishing.runtime, "selection_score": self.result.score[0]}
        self.log(metrics)
        return TrainOutput(self.state.global_step, 0.0, metrics)

    def _replace_head(self) -> None:
        example = self.train_dataset[0]["pixel_values"][None].to(self.args.device)
        _, layer = find_classifier_head(self.model, example)
        if layer.bias is None:
            raise ValueError("CLP trains weight and bias, and the final linear layer of this model has no bias.")
        copies = self.args.swapped_copies
        train, meta = self.causal_features(self.train_dataset, copies), self.causal_features(self.meta_dataset, 1)
        validation = None if self.eval_dataset is None else self.features(self.eval_dataset)
        settings = self.args.settings(self.evidence, swaps=train.swapped is not None)
        self.results = clp_head(train, meta, settings, self.attributes, validation)
        self.result = best(self.results)
        set_head(layer, self.result.head.weight, self.result.head.bias)
        for step, entry in enumerate(self.result.history):
            self.state.epoch = self.state.global_step = step
            self.log(dict(entry))
        for kind, share in self.result.agreement.items():
            logger.info(f"The evidence {kind!r} favours the label of {100 * share:.1f} % of the training images.")

    @property
    def rule(self) -> str:
        """What the chosen result is best in, in words."""
        if self.eval_dataset is None:
            return "the loss of the meta images, each judged by a head that has not seen it"
        cells = "group" if column(self.eval_dataset, "group") is not None else "class"
        return f"accuracy of the worst {cells} in validation"

    def _training_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Without those of `TrainingArguments`, by which nothing is trained here."""
        return {}, super()._training_settings()[1]

    def _card(self, details: CardDetails) -> tuple[str, dict[str, Any]]:
        if self.result is None:
            raise ValueError("There is no head to tell of yet: call train() first.")
        return "clp-head", {
            "method_settings": dataclasses.asdict(self.result.settings),
            "strengths": self.result.strengths,
            "agreement": self.result.agreement,
            "rule": self.rule,
            "score": self.result.score[0],
            "trials": len(self.results),
            "meta_size": len(self.meta_dataset),
            "swapped_copies": self.args.swapped_copies if self.has_masks else 0,
        }
