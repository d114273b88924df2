"""HSFM seen from the Trainer: `train` replaces the head; evaluate, predict, save and push are the Trainer's."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..data.checks import check_labels, column
from ..features import Head, HeadArguments, HeadTrainer
from ..hub.card import CardDetails
from ..utils.names import did_you_mean
from .editor import PRESET_CLASSES, PRESETS, SELECTIONS, HSFMResult, HSFMSettings, best, hsfm
from .search import random_settings


@dataclass
class HSFMArguments(HeadArguments):
    """`HeadArguments` and the settings of HSFM; those not given are the preset's."""

    preset: str = field(
        default="waterbirds", metadata={"help": f"Published settings to start from: {', '.join(PRESETS)}."}
    )
    support_size: int | None = field(default=None, metadata={"help": "|S|, support features of every class."})
    inner_steps: int | None = field(default=None, metadata={"help": "T, steps of the head on the support features."})
    inner_rate: float | None = field(default=None, metadata={"help": "α, learning rate of the head."})
    edit_rate: float | None = field(default=None, metadata={"help": "η, learning rate of the support features."})
    edits_per_epoch: int | None = field(default=None, metadata={"help": "K_H, steps of the support features an epoch."})
    hard_size: int | None = field(default=None, metadata={"help": "K_hard, hardest validation images of every class."})
    epochs: int | None = field(default=None, metadata={"help": "Epochs, each with a new hard set."})
    trials: int = field(
        default=1, metadata={"help": "Settings to try at once, these and random ones; validation chooses."}
    )
    selection: str | None = field(
        default=None,
        metadata={"help": f"Of epoch and trial: {', '.join(SELECTIONS)}; by default the first there are labels for."},
    )
    folds: int = field(
        default=2,
        metadata={"help": "2: hard set and selection on different halves of validation, both ways; 1: both on all."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.preset not in PRESETS:
            raise ValueError(
                f"preset is {self.preset!r}; choose one of {', '.join(PRESETS)}.{did_you_mean(self.preset, PRESETS)}"
            )
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, found {self.trials}.")

    @property
    def settings(self) -> HSFMSettings:
        """The preset with what was given in its place."""
        given = {item.name: getattr(self, item.name) for item in dataclasses.fields(HSFMSettings)}
        return dataclasses.replace(
            PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None}
        )


class HSFMTrainer(HeadTrainer):
    """Retrains the final linear layer of a classifier on edited features; the backbone stays as it is.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `HSFMArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. Items as for `CLPTrainer`.
        eval_dataset: the validation set, where hard sets come from and what selects. With groups, by worst group.
        **kwargs: as for `Trainer`; and `card_details`, what the model card tells and the trainer cannot know.

    Attributes:
        result: the chosen `HSFMResult`, after `train`.
        results: those of all trials.

    Raises:
        ValueError: a set is missing or has no labels, or the preset was published for another number of classes.
    """

    NAME, CARD = "HSFM", "hsfm"

    def __init__(self, model=None, args: HSFMArguments | None = None, **kwargs):
        super().__init__(model, args or HSFMArguments(), **kwargs)
        for name, dataset in (("training", self.train_dataset), ("validation", self.eval_dataset)):
            if dataset is None:
                raise ValueError(f"HSFM needs a {name} set: pass train_dataset and eval_dataset.")
            check_labels(column(dataset, "labels"), self.model.config.num_labels, f"{name} set")
        missing = [
            item.name
            for item in dataclasses.fields(HSFMSettings)
            if item.name != "seed" and getattr(self.args, item.name) is None
        ]
        if missing and self.model.config.num_labels != PRESET_CLASSES:
            raise ValueError(
                f"The preset {self.args.preset!r} was published for {PRESET_CLASSES} classes, the model has "
                f"{self.model.config.num_labels}. Give the settings yourself: {', '.join(missing)}."
            )
        self.results: list[HSFMResult] = []

    def _learn(self, head: Head) -> Head:
        train, validation = self.features(self.train_dataset), self.features(self.eval_dataset)
        settings = random_settings(self.args.trials, self.args.settings, self.args.seed)
        self.results = hsfm(train, validation, head, settings, selection=self.args.selection, folds=self.args.folds)
        self.result = best(self.results)
        for entry in self.result.history:
            self.state.epoch = self.state.global_step = entry["epoch"]
            self.log({name: value for name, value in entry.items() if name != "epoch"})
        return self.result.head

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        return {
            "method_settings": dataclasses.asdict(self.result.settings),
            "rule": self.rule,
            "score": self.score,
            "epochs": self.result.epochs,
            "trials": len(self.results),
            "support_size": len(self.result.support_indices),
            "validation_size": len(self.eval_dataset),
        }
