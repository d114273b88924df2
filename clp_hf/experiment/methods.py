"""Methods by name: what distinguishes each in the training arguments."""

from typing import Any

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
    "meta_weight_net": {
        "meta_network": "weight",
        "meta_in_training_mode": True,  # as its authors do; otherwise it gives a long tail up
        "perturb_meta_logits": False,
        **NO_CAUSAL_IMAGES,
    },
    "meta_lp": NO_CAUSAL_IMAGES,
    "clp": {},
}
