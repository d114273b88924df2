"""The settings of the perturbation network and of the evidence, a part of `CLPTrainingArguments`."""

from dataclasses import dataclass, field

from .characteristics import CHARACTERISTICS
from .evidence import NETWORKS
from .network import ACTIVATIONS, PERTURBED_LOGITS
from .optimizers import OPTIMIZERS


@dataclass
class PerturbationArguments:
    """Fields of `CLPTrainingArguments`, which documents and checks them."""

    perturbation_hidden_size: int = field(
        default=100, metadata={"help": "Width of the hidden layer of the perturbation network."}
    )
    perturbation_activation: str = field(
        default="tanh", metadata={"help": f"Of that layer: {', '.join(ACTIVATIONS)}; the paper does not say."}
    )
    perturbation_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate η₂ of the perturbation network."}
    )
    perturbation_optim: str = field(
        default="adamw",
        metadata={
            "help": f"Optimizer of the perturbation network: {', '.join(OPTIMIZERS)} (sgd, plain: paper, Eq. 9)."
        },
    )
    perturbation_weight_decay: float = field(
        default=0.0, metadata={"help": "Decoupled weight decay of the perturbation network."}
    )
    perturbation_bound: float = field(
        default=5.0, metadata={"help": "Keeps every logit perturbation within ± this bound; 0 leaves it free (paper)."}
    )
    perturbation_follows_schedule: bool = field(
        default=False,
        metadata={"help": "Scale the learning rate of the perturbation network as the schedule scales the model's."},
    )
    perturbation_start: float = field(
        default=0.0,
        metadata={
            "help": "Experimental, without gain so far: fraction of training before which there is plain "
            "cross-entropy, and neither perturbation nor look-ahead, as in deferred re-weighting."
        },
    )
    perturbed_logits: str = field(
        default="all",
        metadata={
            "help": "Which logits of a sample the perturbation network changes: all of them (paper), or that of its "
            f"own class alone, which is what wrong labels need; out of: {', '.join(PERTURBED_LOGITS)}.",
        },
    )
    condition_on_label: bool = field(
        default=False, metadata={"help": "Give the perturbation network a learned embedding of the label too."}
    )
    class_prior: bool = field(
        default=False,
        metadata={
            "help": "Start the perturbations at the log class proportions of the training set, which is logit "
            "adjustment; the network learns what to add. Our extension, for long tails."
        },
    )
    characteristics: list[str] = field(
        default_factory=lambda: list(CHARACTERISTICS),
        metadata={"help": f"Inputs of the perturbation network, out of: {', '.join(CHARACTERISTICS)}."},
    )
    evidence: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What else than the object says something about the label, for the perturbation network to "
            "intervene on, one or several of: background (needs masks in the training set, and "
            "counterfactual_infills), attribute (needs groups in the meta set), bias (needs nothing); or none. Ours."
        },
    )
    evidence_every: int = field(
        default=10, metadata={"help": "Fit the attribute evidence anew at every k-th optimizer step."}
    )
    evidence_network: str = field(
        default="current",
        metadata={
            "help": "Whose features the evidence is made of: those of the network in training, or of a frozen copy as "
            f"it was before, which has forgotten nothing of a shortcut if it is pretrained: {', '.join(NETWORKS)}."
        },
    )
    background_evidence: bool | None = field(
        default=None, metadata={"help": "Deprecated: true is evidence background, false is evidence without it."}
    )
