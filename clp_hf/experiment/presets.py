"""The CLP paper to the letter, by name of the argument: its method, which is the same in all scenarios.

A recipe puts the paper's numbers of its scenario beside it, in its `PRESETS`. What neither of them names is left to the
recipe's `DEFAULTS`, as the paper is silent on it: above all η₂, and the size of a meta batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..perturbation.characteristics import TABLE_1

PAPER = {
    # the perturbation network: two layers, ReLU, unbounded, from Table 1 to the logits of all classes
    "meta_network": "perturbation",
    "perturbation_hidden_size": 100,  # this and the ReLU are Meta-Weight-Net's; the paper says a two-layer MLP
    "perturbation_activation": "relu",
    "characteristics": list(TABLE_1),
    "perturbed_logits": "all",
    "perturbation_bound": 0.0,
    "perturbation_start": 0.0,
    "condition_on_label": False,
    "class_prior": False,
    "evidence": [],
    # Algorithm 1: at every step, W by Eq. 8, Ω by plain SGD on the perturbed meta logits, Eq. 9
    "meta_every": 1,
    "lookahead": "sgd",
    "lookahead_scope": "full",
    "reuse_gradient": False,
    "perturb_meta_logits": True,
    "meta_in_training_mode": True,
    "perturbation_optim": "sgd",
    "perturbation_weight_decay": 0.0,
    "perturbation_follows_schedule": False,
    "train_sampling": "random",
    # section 3.2.1: all its ways to fill a box, 2·M̂ augmented images, and FGSM as in Table 3
    "counterfactual_infills": ["grey", "random", "shuffle", "tile", "inpaint"],
    "factual_infills": ["random", "shuffle", "mix_rand", "fgsm"],
    "mask_shape": "box",
    "factual_mask_shape": None,
    "augmented_copies": 1,
    "fgsm_epsilon": 0.5,
    # Eq. 6, in both losses: the middle of the λ that section 4 selects from
    "saliency_weight": 0.6,
    "saliency_batch_size": None,
}
PRESETS = {"paper": PAPER}


class By(NamedTuple):
    """What a preset has depends on another option: its value where that has this one.

    Attributes:
        option: its name.
        values: of the setting, by value of the option.
    """

    option: str
    values: Mapping[Any, Any]


def settled(preset: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset, by the values of the options that some of them depend on."""
    return {
        name: value.values[options[value.option]] if isinstance(value, By) else value for name, value in preset.items()
    }
