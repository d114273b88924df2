"""The arguments of `CLPTrainer`."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from .argument_checks import LOSS_NAMES, check_arguments, normalise_names
from .causal import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS
from .hub.arguments import PublishedArguments
from .perturbation import PerturbationArguments


@dataclass
class CLPTrainingArguments(PerturbationArguments, PublishedArguments):
    """`transformers.TrainingArguments` and the settings of CLP.

    One default of `TrainingArguments` differs: `remove_unused_columns` is False, since images are usually decoded and
    transformed on access, and the columns `mask` and `group` are used though no model takes them.

    Parameters that control the perturbation network:
        perturbation_hidden_size, perturbation_activation, perturbation_learning_rate, perturbation_optim,
        perturbation_weight_decay, perturbation_bound, perturbation_follows_schedule, perturbation_start,
        perturbed_logits, condition_on_label, class_prior, characteristics, evidence, evidence_every,
        evidence_network, background_evidence (deprecated).

    Parameters that control the meta set and its causal augmentation:
        meta_batch_size, meta_samples, meta_in_training_mode, counterfactual_infills, factual_infills, mask_shape,
        factual_mask_shape, augmented_copies, fgsm_epsilon, inpainting_model.

    Parameters that control the training batches and the learning rate with or without CLP:
        train_sampling, train_sampling_options, train_infills, train_infill_share, lr_decay_at, on_nonfinite,
        remove_unused_columns.

    Parameters of the methods CLP is compared with:
        training_loss, training_loss_options, meta_network.

    Parameters that control the look-ahead and its cost:
        meta_every, lookahead, lookahead_scope, lookahead_memory, lookahead_ridge, hypergradient, reuse_gradient,
        recompute_training_forward, perturb_meta_logits.

    Parameters that control the saliency regularisation:
        saliency_weight, saliency_batch_size.
    """

    DEPRECATED = ("background_evidence",)  # no part of what a card or record tells
    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "training_loss_options", "train_sampling_options"]  # noqa: RUF012

    # the meta set and its causal augmentation

    meta_batch_size: int | None = field(
        default=None, metadata={"help": "Meta images per device and update; by default per_device_train_batch_size."}
    )
    meta_samples: int = field(
        default=10,
        metadata={
            "help": "Images per group (per class without groups) that are taken out of the training set for the meta "
            "set, when no meta_dataset is given."
        },
    )
    meta_in_training_mode: bool = field(
        default=False,
        metadata={
            "help": "Normalise meta images by the statistics of their own batch, with dropout, as Meta-Weight-Net's "
            "authors do, and not as the classifier will be used."
        },
    )
    counterfactual_infills: list[str] = field(
        default_factory=lambda: ["tile"],
        metadata={
            "help": "How the foreground of counterfactual meta images is filled, each image by one of: "
            f"{', '.join(COUNTERFACTUAL_INFILLS)}; the last three keep that of the object alone. Empty "
            "together with factual_infills: Meta-LP, which needs no masks."
        },
    )
    factual_infills: list[str] = field(
        default_factory=lambda: ["mix_rand"],
        metadata={
            "help": "How the background of factual meta images is filled, each image by one of: "
            f"{', '.join(FACTUAL_INFILLS)}; the last three change the object instead, at random."
        },
    )
    mask_shape: str = field(
        default="box",
        metadata={"help": "Use masks as their smallest enclosing box (paper: shapes must not leak) or as exact shape."},
    )
    factual_mask_shape: str | None = field(
        default=None,
        metadata={
            "help": "The same for factual images, by default mask_shape. A box keeps a frame of the old background "
            "around the object: exact is better where masks are good."
        },
    )
    augmented_copies: int = field(
        default=1,
        metadata={
            "help": "How often a meta image comes as a counterfactual, and as a factual one, for each time it comes as "
            "it is; with both kinds, 1 gives twice as many augmented images as original ones (paper)."
        },
    )
    fgsm_epsilon: float = field(
        default=0.1,
        metadata={"help": "Largest change of a background pixel by the fgsm infill, pixels in [0, 1]; 0.5 (paper)."},
    )
    inpainting_model: str = field(
        default="telea", metadata={"help": "For the inpaint infill: telea (OpenCV) or a diffusers inpainting pipeline."}
    )

    # the training batches and the learning rate, with or without CLP

    train_sampling: str = field(
        default="random",
        metadata={
            "help": "How training images are drawn: random (each once an epoch), class or group (with replacement, all "
            "classes or groups equally often), group_subset (with replacement, out of as many images of every group as "
            "the smallest has), weight (with replacement, as the weights of the images are, which a first stage has "
            "learned), class_late (class in the end), expanding (as many of every group, then more and more) or "
            "environments (random and weight in turn). Holds for the plain Trainer (meta_every=0) too."
        },
    )
    train_sampling_options: dict | str | None = field(
        default=None,
        metadata={
            "help": "Options of class_late or expanding in place of the published ones, as JSON: "
            '{"warm_up": 0.3, "added": 50}.'
        },
    )
    train_infills: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Put training images before another background, or change the object's colour, texture or shape, "
            f"each by one of: {', '.join(FACTUAL_INFILLS)}; mix_rand is the background of an image of another class in "
            "the batch. Needs masks in the training set; holds for every method, the plain Trainer (meta_every=0) too."
        },
    )
    train_infill_share: float = field(
        default=0.5, metadata={"help": "Share of the training images with a mask to which train_infills do that."}
    )
    lr_decay_at: list[float] = field(
        default_factory=list,
        metadata={
            "help": "Divide the learning rate by ten at these fractions of training (0.6 0.8), besides what "
            "lr_scheduler_type does."
        },
    )
    on_nonfinite: str = field(
        default="stop",
        metadata={
            "help": "At a step whose loss or gradient is not finite: stop, and say what was seen, or skip, which "
            "leaves the step out and counts it in the log; 20 in a row stop too. A loss scaler skips its overflows by "
            "itself."
        },
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Drop the columns that neither the model nor CLP uses."}
    )

    # the methods CLP is compared with

    training_loss: str = field(
        default="cross_entropy",
        metadata={
            "help": f"Training loss of the plain Trainer (meta_every=0): {', '.join(LOSS_NAMES)}. Evaluation keeps the "
            "cross-entropy."
        },
    )
    training_loss_options: dict | str | None = field(
        default=None,
        metadata={"help": 'Options of the training loss in place of the published ones, as JSON: {"gamma": 1.0}.'},
    )
    meta_network: str = field(
        default="perturbation",
        metadata={
            "help": "What is meta-learned: perturbation, of the logits (CLP), weight, of the samples "
            "(Meta-Weight-Net), l2rw, the same of each batch alone, meta_saug, covariances by which features are "
            "augmented, or mfrw_mes, weights of features and classes."
        },
    )

    # the look-ahead and its cost

    meta_every: int = field(
        default=1,
        metadata={"help": "Update the perturbation network on every k-th optimizer step; 0 is the plain Trainer."},
    )
    lookahead: str = field(
        default="match",
        metadata={
            "help": "Step of the look-ahead: match (what the optimizer really does) or sgd (paper). Or converged: the "
            "perturbation network is judged at the head that training would end with on the features of recent "
            "batches, while the classifier follows with ordinary steps. Saliency is then in the training loss alone."
        },
    )
    lookahead_scope: str = field(
        default="full",
        metadata={
            "help": "What takes the step of the look-ahead: the full network, or the head only, at a fraction of the "
            "cost. Stays full with lookahead='converged', which takes no step."
        },
    )
    lookahead_memory: int = field(
        default=2048,
        metadata={
            "help": "For lookahead='converged': how many recent training images each process remembers, at most as "
            "many as an epoch has for it. Updates begin at a quarter of them, and wait while a class is missing."
        },
    )
    lookahead_ridge: float = field(
        default=1e-4,
        metadata={
            "help": "For lookahead='converged': the ridge λ of the head, above 0, for features divided by their "
            "root-mean-square length."
        },
    )
    hypergradient: str = field(
        default="forward",
        metadata={
            "help": "How the hypergradient is computed: forward (exact, one dual-number pass), finite_difference "
            "(works with every operator) or double_backward (the textbook way, slow)."
        },
    )
    reuse_gradient: bool = field(
        default=False,
        metadata={
            "help": "Take the gradient by which the look-ahead steps for the step itself too: two of nine passes less "
            "than Algorithm 1 as printed, and perturbations act one step later."
        },
    )
    recompute_training_forward: bool = field(
        default=False,
        metadata={
            "help": "Run the training forward pass twice (with reuse_gradient, compute its values again), so that its "
            "graph need not outlive the meta pass."
        },
    )
    perturb_meta_logits: bool = field(
        default=False,
        metadata={
            "help": "Experimental: add perturbations to the meta logits too, Eq. 9 literally. It made things worse "
            "here."
        },
    )

    # the saliency regularisation

    saliency_weight: float = field(
        default=0.0, metadata={"help": "Weight λ of the saliency regularisation (Eq. 6); 0 switches it off."}
    )
    saliency_batch_size: int | None = field(
        default=None,
        metadata={"help": "Images of each batch on which saliency is computed; by default all that have a mask."},
    )

    def __post_init__(self):
        super().__post_init__()
        normalise_names(self)
        check_arguments(self)

    def __setstate__(self, state):
        before = {"evidence": ["background"]} if state.get("background_evidence") else {}
        super().__setstate__({**before, **state})

    @property
    def needs_masks(self) -> bool:
        """Whether meta images are augmented causally; False for Meta-LP."""
        return bool(self.counterfactual_infills or self.factual_infills)
