"""Methods by name: what distinguishes each in the training arguments, and whether it goes with the others."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, replace
from typing import Any

from ..perturbation import evidence_names
from ..stages import cnc, eiil, george, glc, ifl, jtt, logit_correction, ssa
from ..training_args import CLPTrainingArguments
from .two_stages import Stages

NO_CAUSAL_IMAGES = {
    "counterfactual_infills": [],
    "factual_infills": [],
    "saliency_weight": 0.0,
    "evidence": [],
}
# What else than the logits is meta-learned; the meta pass as its authors have it: otherwise it gives a long tail up.
NO_PERTURBATION = {**NO_CAUSAL_IMAGES, "perturb_meta_logits": False, "meta_in_training_mode": True}
# What changes the method itself, and not only how large or how often something is.
WAYS = (
    "class_prior", "condition_on_label", "evidence", "meta_every", "meta_network", "perturb_meta_logits",
    "perturbed_logits", "saliency_weight", "train_infills", "training_loss",
)  # fmt: skip
OF_EVERY_METHOD = ("train_infills",)  # the other ways are about what is learned from a meta set


def _plain(training_loss: str = "cross_entropy", **settings: Any) -> dict[str, Any]:
    return {"meta_every": 0, "training_loss": training_loss, **settings}


# A method is a change of the training arguments: everything else is the same for all.
METHODS = {
    "erm": _plain(),
    "focal": _plain("focal"),
    "generalised_cross_entropy": _plain("generalised_cross_entropy"),
    "nce_rce": _plain("nce_rce"),
    "nce_mae": _plain("nce_mae"),
    "l_dmi": _plain("l_dmi"),
    "mentor_net": _plain("mentor_net"),
    "co_teaching": _plain("co_teaching"),
    "jocor": _plain("jocor"),
    "lff": _plain("lff", train_sampling="random"),
    "isda": _plain("isda"),
    # Balanced sampling would correct the class frequencies twice.
    "class_balanced": _plain("class_balanced", train_sampling="random"),
    "class_balanced_focal": _plain("class_balanced_focal", train_sampling="random"),
    "ldam": _plain("ldam", train_sampling="random"),
    "ldam_drw": _plain("ldam_drw", train_sampling="random"),
    "logit_adjustment": _plain("logit_adjustment", train_sampling="random"),
    "balanced_softmax": _plain("balanced_softmax", train_sampling="random"),
    "cosine": _plain("cosine", train_sampling="random"),
    "class_balanced_fine_tuning": _plain(train_sampling="class_late"),
    "ala": _plain("ala", train_sampling="random"),
    "lpl": _plain("lpl", train_sampling="random"),
    "risda": _plain("risda", train_sampling="random"),
    "csa": _plain("context_shift", train_sampling="class"),
    # These need the group of every training image; the batches are those of their papers.
    "group_reweighting": _plain(train_sampling="group"),
    "group_dro": _plain("group_dro", train_sampling="group"),
    "lisa": _plain("lisa", train_sampling="group"),
    "pde": _plain(train_sampling="expanding"),
    # Environments differ in what goes with what: balanced groups would make them alike.
    "irm": _plain("irm", train_sampling="random"),
    "ib_irm": _plain("ib_irm", train_sampling="random"),
    "v_rex": _plain("v_rex", train_sampling="random"),
    "coral": _plain("coral", train_sampling="random"),
    "domain_mix": _plain("domain_mix", train_sampling="random"),
    "subg": _plain(train_sampling="group_subset"),
    "meta_weight_net": {"meta_network": "weight", **NO_PERTURBATION},
    "l2rw": {"meta_network": "l2rw", **NO_PERTURBATION},
    "meta_saug": {
        "meta_network": "meta_saug",
        "perturbation_start": 0.8,  # before, cross-entropy: 160 of 200 epochs
        "perturbation_learning_rate": 0.1,
        "train_sampling": "random",
        **NO_PERTURBATION,
    },
    "mfrw_mes": {"meta_network": "mfrw_mes", **NO_PERTURBATION},
    "meta_lp": NO_CAUSAL_IMAGES,
    "clp": {},
    # This one needs the mask of every training image, and no meta set.
    "background_swap": _plain(train_infills=["mix_rand"]),
}

EARLY = 0.2  # of the training: JTT's first network on Waterbirds, 60 of 300 epochs
NATURAL = METHODS["erm"] | {"train_sampling": "random"}
STAGED = {
    # Kang 2020, Tang 2020: the backbone learns from images as they are frequent.
    "crt": Stages(NATURAL, repair="crt"),
    "lws": Stages(NATURAL, repair="lws"),
    "tde": Stages(METHODS["cosine"], repair="tde"),
    "self": Stages(METHODS["erm"], repair="self"),
    "jtt": Stages(NATURAL, jtt, METHODS["erm"] | {"train_sampling": "weight"}, share=EARLY),
    # As in their papers the groups that these find are GroupDRO's. EIIL's first network has one epoch.
    "eiil": Stages(NATURAL, eiil, METHODS["group_dro"], share=EARLY),
    "george": Stages(METHODS["erm"], george, METHODS["group_dro"]),
    # So that a batch has positives and negatives; Liu et al. draw images as they are, and correct for that.
    "cnc": Stages(
        NATURAL, cnc, METHODS["erm"] | {"training_loss": "correct_n_contrast", "train_sampling": "group"}, share=EARLY
    ),
    "logit_correction": Stages(
        METHODS["generalised_cross_entropy"] | {"train_sampling": "random"},
        logit_correction,
        METHODS["erm"] | {"training_loss": "logit_correction", "train_sampling": "random"},
        share=EARLY,
    ),
    "ifl": Stages(
        NATURAL,
        ifl,
        METHODS["erm"] | {"training_loss": "invariant_features", "train_sampling": "environments"},
        share=0.6,  # as of its authors
    ),
    "ssa": Stages(METHODS["erm"], ssa, METHODS["group_dro"], needs="meta groups"),
    "glc": Stages(
        NATURAL,
        glc,
        METHODS["erm"] | {"training_loss": "gold_loss_correction", "train_sampling": "random"},
        needs="meta",
    ),
}


def settings_of(name: str) -> Mapping[str, Any]:
    """The training arguments that a method sets, of one stage or of two."""
    return METHODS[name] if name in METHODS else STAGED[name].settings


def needs_meta_set(name: str) -> bool:
    """Whether a method learns from a meta set, by itself."""
    return STAGED[name].needs is not None if name in STAGED else bool(METHODS[name].get("meta_every", 1))


def configured(args: CLPTrainingArguments, settings: Mapping[str, Any], **changes: Any) -> CLPTrainingArguments:
    """The training arguments of a method, checked as a user's are.

    Args:
        args: of all methods alike.
        settings: of the method, such as `METHODS["clp"]`.
        **changes: of this run.

    Raises:
        ValueError: a value is not valid, or contradicts another; the message names both.
    """
    return replace(args, **settings, **changes)


def check_given(names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse a way of training that was asked for and that no method of a run goes: it would be ignored.

    Args:
        names: of the methods that run.
        given: by name, the arguments that the user gave.

    Raises:
        ValueError: names the setting and what the method does instead.
    """
    given = dict(given)
    if given.get("background_evidence"):  # its name of before
        given["evidence"] = ["background"]
    if "evidence" in given:
        given["evidence"] = evidence_names(given["evidence"])
    for setting in WAYS:
        if setting not in given:
            continue
        reasons = {name: _refusal(settings_of(name), setting, given[setting]) for name in names}
        if all(reasons.values()):
            told = "; ".join(f"--method {name} {reason}" for name, reason in reasons.items())
            raise ValueError(
                f"--{setting} {given[setting]} was given, but {told}. Leave one of them out, or choose --method clp."
            )


def _refusal(settings: Mapping[str, Any], setting: str, value: Any) -> str | None:
    """Why a method does not go with a setting; None where it does."""
    if setting in settings:
        return None if settings[setting] == value else f"sets {setting}={settings[setting]!r}"
    item = CLPTrainingArguments.__dataclass_fields__[setting]
    off = item.default if item.default_factory is MISSING else item.default_factory()
    if settings.get("meta_every", 1) or setting in OF_EVERY_METHOD or value == off:
        return None
    return "learns nothing from a meta set, which that is about"
