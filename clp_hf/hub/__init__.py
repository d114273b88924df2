"""The Hugging Face Hub: the model card, the record of a run, and what goes wrong while pushing."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
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

# arguments are read without what writes cards
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CardDetails": ".card",
        "PublishingCallback": ".pushing",
        "PushError": ".pushing",
        "RunRecord": ".record",
        "clear_push_errors": ".pushing",
        "end_of_training": ".history",
        "for_timm": ".pushing",
        "hub_id": ".names",
        "hub_license": ".names",
        "model_card": ".card",
        "plain_names": ".names",
        "push_failure": ".pushing",
        "render": ".card",
        "repository_name": ".pushing",
        "results_of_weights": ".history",
        "selection_of": ".history",
    },
)
