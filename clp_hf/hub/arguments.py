"""What the arguments of every trainer here have over `TrainingArguments`."""

from dataclasses import MISSING, fields
from typing import Any

from transformers import TrainingArguments

from ..metrics import greater_is_better


class PublishedArguments(TrainingArguments):
    """`TrainingArguments` that may be published, and that know which way each metric of clp_hf is good."""

    def __post_init__(self):
        # Trainer takes every metric but a loss for one that should be high.
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = greater_is_better(self.metric_for_best_model)
        super().__post_init__()

    def __getstate__(self) -> dict[str, Any]:
        # `Trainer` pickles the arguments into training_args.bin and publishes that: no place for a token.
        return {name: None if name.endswith("_token") else value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What was pickled before a field was added has its default; those that are lists have none on the class.
        added = [item for item in fields(self) if item.name not in state and item.default_factory is not MISSING]
        vars(self).update(state | {item.name: item.default_factory() for item in added})
