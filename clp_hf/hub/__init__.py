"""The Hugging Face Hub: the model card, the record of a run, and what goes wrong while pushing."""

from .card import CardDetails, model_card, render
from .history import end_of_training, results_of_weights, selection_of
from .names import hub_id, hub_license, plain_names
from .pushing import PublishingCallback, PushError, clear_push_errors, for_timm, push_failure, repository_name
from .record import RunRecord

__all__ = [
    "CardDetails",
    "PublishingCallback",
    "PushError",
    "RunRecord",
    "clear_push_errors",
    "end_of_training",
    "for_timm",
    "hub_id",
    "hub_license",
    "model_card",
    "plain_names",
    "push_failure",
    "render",
    "repository_name",
    "results_of_weights",
    "selection_of",
]
