"""CLP in feature space, seen from the Trainer: `train` replaces the head; evaluate, save and push are the Trainer's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.utils import logging

from ..causal import CausalAugmentation
from ..causal.mask_report import check_masks
from ..data.checks import check_labels, column, shared_images
from ..data.mask_counts import check_usable, every_mask
from ..data.meta_set import split_meta_set
from ..features import CausalFeatures, Head, HeadArguments, HeadTrainer, extract_causal_features
from ..hub.card import CardDetails
from ..modeling.preprocessing import image_settings
from ..perturbation.evidence import ON_FEATURES, attributes_of, meta_attributes, missing_attributes
from .learning import CLPHeadResult, CLPHeadSettings, best, check_two_of_each, clp_head

logger = logging.get_logger(__name__)


@dataclass
class CLPHeadArguments(HeadArguments):
    """`HeadArguments` and the settings of CLP in feature space."""

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

    def __post_init__(self):
        super().__post_init__()
        if self.evidence == ["none"]:
            self.evidence = []
        if self.swapped_copies < 0:
            raise ValueError(f"swapped_copies is {self.swapped_copies}; expected 0 or more.")
        if not self.ridges:
            raise ValueError("ridges is empty; give one or more.")
        self.settings(self.evidence or [])  # checks them

    def settings(self, evidence: list[str]) -> list[CLPHeadSettings]:
        """Those to try, of these kinds of evidence."""
        return [
            CLPHeadSettings(tuple(evidence), ridge, steps=self.strength_steps, seed=self.seed) for ridge in self.ridges
        ]


class CLPHeadTrainer(HeadTrainer):
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
        ValueError: a set is missing, has no labels or too few images of a class, or shares images with another one; or
            an evidence lacks what it needs: the message names what would do.
    """

    NAME, CARD = "CLP", "clp-head"

    def __init__(self, model=None, args: CLPHeadArguments | None = None, *, meta_dataset=None, **kwargs):
        super().__init__(model, args or CLPHeadArguments(), **kwargs)
        if self.train_dataset is None:
            raise ValueError("CLP needs a training set: pass train_dataset.")
        self.meta_dataset, self.meta_source = self._read(meta_dataset, "meta set"), "given"
        if meta_dataset is None:
            self.train_dataset, self.meta_dataset = split_meta_set(
                self.train_dataset, self.args.meta_samples, self.args.seed
            )
            self.meta_source = "taken out of the training set"
        sets = {"training": self.train_dataset, "meta": self.meta_dataset, "validation": self.eval_dataset}
        self.sets = {name: dataset for name, dataset in sets.items() if dataset is not None}
        labels = self._checked_labels()
        self.attributes, self.no_attributes = self._attributes(*labels)
        self.has_masks = all(dataset[0].get("mask") is not None for dataset in (self.train_dataset, self.meta_dataset))
        self.evidence = self._chosen_evidence()
        self.results: list[CLPHeadResult] = []

    # ---- what the data have ------------------------------------------------------------------------------------------

    def _checked_labels(self) -> tuple[Tensor, Tensor]:
        """Of the training and the meta images."""
        classes, found = self.model.config.num_labels, {}
        for name, dataset in self.sets.items():
            labels = check_labels(column(dataset, "labels"), classes, f"{name} set")
            found[name] = torch.from_numpy(labels).long()
        for name in ("training", "meta"):
            check_two_of_each(found[name], classes, f"{name} set")
        for name in found.keys() - {"meta"}:
            if len(rows := shared_images(self.meta_dataset, self.sets[name])):
                raise ValueError(
                    f"{len(rows)} of the {len(self.meta_dataset)} meta images are {name} images too, the first is meta "
                    f"image {rows[0]}: what is learned from them would be judged by them. Take them out of the {name} "
                    "set; without meta_dataset the trainer takes some of the training images and leaves the rest."
                )
        return found["training"], found["meta"]

    def _attributes(self, train_labels: Tensor, labels: Tensor) -> tuple[Tensor | None, str | None]:
        """Of the meta images, None where groups lie inside classes; and why the evidence cannot be had."""
        train_groups, groups = (
            None if values is None else torch.from_numpy(values).long()
            for values in (column(self.train_dataset, "group"), column(self.meta_dataset, "group"))
        )
        if groups is not None and attributes_of(labels, groups) is None and _inside_classes(labels, groups):
            return None, None  # of such groups the evidence is how frequent each is
        pairs = None if train_groups is None else (train_labels, train_groups)
        missing = missing_attributes(labels, groups, self.model.config.num_labels, pairs)
        return (None if missing else meta_attributes(labels, groups, pairs)[0]), missing

    def _chosen_evidence(self) -> list[str]:
        missing = {
            "background": None
            if self.has_masks
            else "a `mask` for every training and meta image, and they have none. Make masks (clp-hf masks), or give "
            "the data set a mask or box column (--mask_column, --box_column).",
            "attribute": self.no_attributes,
            "bias": None,
        }
        able = [kind for kind, reason in missing.items() if reason is None]
        for kind in self.args.evidence or []:
            if missing[kind]:
                raise ValueError(
                    f"evidence {kind!r} needs {missing[kind]} With the data at hand goes {', '.join(able)}."
                )
        return able[:1] if self.args.evidence is None else self.args.evidence

    def _maskable(self) -> dict[str, Tensor | None]:
        """Which masks of the training and the meta images are of use; None where there are none."""
        if not self.has_masks:
            return {"training": None, "meta": None}
        reports = {
            name: check_masks(every_mask(self.sets[name], name), self.args.mask_shape) for name in ("training", "meta")
        }
        check_usable({f"{name} set": report for name, report in reports.items()})
        return {name: report.maskable for name, report in reports.items()}

    def causal_features(self, dataset: Dataset, maskable: Tensor | None, copies: int) -> CausalFeatures:
        """Features, and with masks those of backgrounds and of `copies` draws of swapped images."""
        augmentation = None
        if maskable is not None:
            settings = image_settings(self.model, self.processing_class)
            augmentation = CausalAugmentation(
                ["tile"], ["mix_rand"], settings.mean, settings.std, self.args.mask_shape, factual_mask_shape="exact"
            )
        return extract_causal_features(
            self.model, dataset, self.args, augmentation, maskable, copies, self._cache, self.data_collator
        )

    # ---- training ----------------------------------------------------------------------------------------------------

    def _learn(self, head: Head) -> Head:
        maskable, copies = self._maskable(), self.args.swapped_copies
        train = self.causal_features(self.train_dataset, maskable["training"], copies)
        meta = self.causal_features(self.meta_dataset, maskable["meta"], 1)
        validation = None if self.eval_dataset is None else self.features(self.eval_dataset)
        settings = self.args.settings(self.evidence)
        self.results = clp_head(train, meta, settings, self.attributes, validation)
        self.result = best(self.results)
        for step, entry in enumerate(self.result.history):
            self.state.epoch = self.state.global_step = step
            self.log(dict(entry))
        for kind, share in self.result.agreement.items():
            logger.info(f"The evidence {kind!r} favours the label of {100 * share:.1f} % of the training images.")
        self.meta_unmaskable = 0 if maskable["meta"] is None else int((~maskable["meta"]).sum())
        return self.result.head

    @property
    def score(self) -> float:
        """As of `HeadTrainer`."""
        return self.result.score[0]

    @property
    def rule(self) -> str:
        """As of `HeadTrainer`."""
        if self.eval_dataset is None:
            return "minus the loss of the meta images, each judged by a head that has not seen it"
        cells = "group" if column(self.eval_dataset, "group") is not None else "class"
        return f"accuracy of the worst {cells} in validation"

    def summary(self) -> str:
        """As of `HeadTrainer`; with the strengths that were learned."""
        learned = ", ".join(f"{kind} {strength:.2f}" for kind, strength in self.result.strengths.items())
        return super().summary() + (f"; strength of the evidence: {learned}" if learned else "")

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        return {
            "method_settings": dataclasses.asdict(self.result.settings),
            "strengths": self.result.strengths,
            "agreement": self.result.agreement,
            "rule": self.rule,
            "score": self.score,
            "trials": len(self.results),
            "meta_size": len(self.meta_dataset),
            "meta_unmaskable": self.meta_unmaskable,
            "meta_source": details.meta_source or self.meta_source,
            "swapped_copies": self.args.swapped_copies if self.has_masks else 0,
        }


def _inside_classes(labels: Tensor, groups: Tensor) -> bool:
    """Whether every group is of one class, and a class has several."""
    pairs = torch.stack([groups, labels], 1).unique(dim=0)
    return len(pairs) == len(groups.unique()) > len(labels.unique())
