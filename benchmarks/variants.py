"""What can be compared: scenarios, the methods and their variants, and the settings in which a method may differ."""

import json
from typing import Any

from clp_hf import CLPTrainingArguments
from clp_hf.experiment import METHODS, PAPER, STAGED, DataArguments
from clp_hf.experiment.choosing import CONVERGED
from clp_hf.experiment.methods import settings_of
from clp_hf.hub.record import own_fields
from clp_hf.perturbation import CHARACTERISTICS

LONG_TAIL_METHODS = (
    "erm", "focal", "class_balanced", "class_balanced_focal", "ldam", "ldam_drw", "logit_adjustment",
    "balanced_softmax", "meta_weight_net", "meta_lp", "clp",
)  # fmt: skip
NOISE_METHODS = (
    "erm", "focal", "generalised_cross_entropy", "nce_rce", "nce_mae", "meta_weight_net", "meta_lp", "clp",
)  # fmt: skip
GROUP_METHODS = ("erm", "group_reweighting", "group_dro", "lisa", "meta_lp", "clp")
SUPERCLASS_METHODS = (
    "erm", "focal", "balanced_softmax", "group_reweighting", "group_dro", "lisa", "meta_weight_net", "meta_lp", "clp",
)  # fmt: skip

# The budget of the CIFAR tables: a table in some hours on two cores, where the paper's schedule would take weeks. The
# learning rate falls at the same fractions of training as the recipe's.
CIFAR_BUDGET = {"model_name_or_path": "cifar_resnet20", "per_device_train_batch_size": 128, "meta_every": 2}

# Of Dominoes half of the training images, so that a run takes some minutes on one core.
DOMINOES_BUDGET = {"n_train": 4000, "n_validation": 1000, "num_train_epochs": 3, "meta_every": 2}

# Of each scenario, the methods that are compared by default, and the defaults that are not the recipe's.
SCENARIOS = {
    "cifar_longtail": (LONG_TAIL_METHODS, {**CIFAR_BUDGET, "num_train_epochs": 20}),
    "cifar_noisy": (NOISE_METHODS, {**CIFAR_BUDGET, "num_train_epochs": 8}),  # of four times as many images
    "cifar_superclasses": (SUPERCLASS_METHODS, {**CIFAR_BUDGET, "num_train_epochs": 20}),
    "imagenet_lt": (LONG_TAIL_METHODS, {}),
    "inaturalist": (LONG_TAIL_METHODS, {}),
    "imagenet_glt": (LONG_TAIL_METHODS, {}),
    "coco_glt": (LONG_TAIL_METHODS, {}),
    "waterbirds": (GROUP_METHODS, {}),
    "dominoes": (GROUP_METHODS, DOMINOES_BUDGET),
    "celeba": (GROUP_METHODS, {}),
    "metashift": (GROUP_METHODS, {}),
}


def _infills(counterfactual: list[str], factual: list[str] | None = None) -> dict[str, list[str]]:
    return {"counterfactual_infills": counterfactual, "factual_infills": factual or []}


OWN_CLASS = {"perturbed_logits": "own", "perturbation_bound": 10.0}
VARIANTS = {
    **METHODS,
    **{name: settings_of(name) for name in STAGED},
    "rand_augment": {**METHODS["erm"], "rand_augment": True},
    # the same masks used as data augmentation too: every other training image gets the background of another class
    "clp_background_swap": {"train_infills": ["mix_rand"]},
    # from logit adjustment on: δ starts at the log class proportions
    "meta_lp_class_prior": {**METHODS["meta_lp"], "class_prior": True},
    "clp_class_prior": {"class_prior": True},
    # of the own class alone: what wrong labels need. To silence a hard sample takes a large perturbation.
    "meta_lp_own": {**METHODS["meta_lp"], **OWN_CLASS},
    "clp_own": OWN_CLASS,
    # the paper's method to the letter, on the scenario's own backbone and budget
    "paper": PAPER,
    "clp_without_evidence": {"evidence": []},
    # without masks: what the groups of the meta set, or nothing at all, say of the shortcut
    "meta_lp_attribute": {**METHODS["meta_lp"], "evidence": ["attribute"]},
    # Ω judged at the head that training on the recent features would end with
    "clp_converged": CONVERGED,
    "meta_lp_attribute_converged": {**METHODS["meta_lp"], "evidence": ["attribute"], **CONVERGED},
    "meta_lp_bias": {**METHODS["meta_lp"], "evidence": ["bias"]},
    # the evidence of the background taken as it is, the gate never learned: what does meta-learning add?
    "evidence_not_learned": {"perturbation_learning_rate": 1e-30},
    # one way to make causal images, or one of each kind
    **{f"clp_cf_{name}": _infills([name]) for name in ("grey", "shuffle", "tile", "inpaint")},
    **{f"clp_f_{name}": _infills([], [name]) for name in ("shuffle", "random", "mix_rand")},
    "clp_f_fgsm": {**_infills([], ["fgsm"]), "fgsm_epsilon": PAPER["fgsm_epsilon"]},
    "clp_cf_tile_f_shuffle": _infills(["tile"], ["shuffle"]),
    "clp_cf_inpaint_f_random": _infills(["inpaint"], ["random"]),
    **{
        f"clp_without_{name}": {"characteristics": [other for other in CHARACTERISTICS if other != name]}
        for name in CHARACTERISTICS
    },
}
# Besides CLP as it is, which has one copy, all characteristics, and by default no saliency regularisation.
SWEEPS = {
    "saliency_weight": [f"clp+saliency_weight={value}" for value in (0.2, 0.4, 0.6, 0.8, 1.0)],  # Figures 7 and 8
    "augmented_copies": ["meta_lp", *(f"clp+augmented_copies={value}" for value in (2, 5, 10))],  # Figure 8
    "characteristics": [f"clp_without_{name}" for name in CHARACTERISTICS],  # Figure 9
}

TRAINER_SETTINGS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "optim", "optim_args", "weight_decay", "max_grad_norm",
    "label_smoothing_factor", "metric_for_best_model", "bf16", "fp16",
)  # fmt: skip
OF_DATA = ("rand_augment",)  # of the settings of a method, those that are not of its training
# Settings of the trainer that are not its parent's.
OWN_SETTINGS = own_fields(CLPTrainingArguments)


def variant(method: str) -> dict[str, Any]:
    """The settings that a method changes: those of its name in `VARIANTS`, and those written behind it.

    Raises:
        ValueError: the method or a setting is unknown.
    """
    name, *changes = method.split("+")
    if name not in VARIANTS:
        raise ValueError(f"There is no method {name!r}; choose out of {', '.join(VARIANTS)}.")
    changed = {}
    for change in changes:
        setting, equals, value = change.partition("=")
        if not equals or setting not in (*TRAINER_SETTINGS, *OWN_SETTINGS):
            raise ValueError(
                f"{method!r} changes {change!r}; expected name=value, the name out of "
                f"{', '.join((*TRAINER_SETTINGS, *OWN_SETTINGS))}."
            )
        changed[setting] = _value(value)
    return VARIANTS[name] | changed


def of_training(settings: dict[str, Any]) -> dict[str, Any]:
    """Of the settings of a method those of its training arguments."""
    return {name: value for name, value in settings.items() if name not in OF_DATA}


def needs_pixels(method: str, data: DataArguments, training: CLPTrainingArguments) -> str | None:
    """Why a method cannot be trained on features, not even on those of causal versions; None where it can."""
    settings = {**vars(data), **vars(training), **variant(method)}
    learns = settings["meta_every"]
    infills = [*settings["train_infills"], *(settings["factual_infills"] if learns else [])]
    reasons = {
        "saliency is a gradient in the pixels": learns and settings["saliency_weight"],
        "fgsm attacks pixels by the classifier as it is at that step": "fgsm" in infills,
        "rand_augment changes the pixels anew at every step": settings["rand_augment"],
        "a context lies somewhere in an image, and features have no places": settings["training_loss"]
        == "context_shift",
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds) or None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
