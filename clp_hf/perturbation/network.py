"""The perturbation network Ω, from the training characteristics of a sample to its δ."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bilevel.distributed import all_reduce_mean
from ..utils.precision import at_least_float32
from .base import MetaNetwork
from .characteristics import CHARACTERISTICS, check_characteristics, evidence_margins, margin_of, own_margin

LABEL_EMBEDDING_SIZE = 8
MAX_GATE = 3.0
PERTURBED_LOGITS = "all", "own"
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
MAX_COUNTED_WEIGHT = 10.0


class PerturbationNetwork(MetaNetwork):
    """A two-layer perceptron δ = Ω(characteristics), used during training only (CLP, section 3.2).

    The inputs are standardised with running statistics, kept as buffers. The last layer starts at zero, so training
    starts as plain cross-entropy.

    With margins of evidence among its inputs, such as `"background_margin"` (our extension), it also intervenes on the
    extrinsic logits u_z of each: δ = τ tanh(Ω(g)/τ) + Σ_e a_e(g) u_z,e, with learned gates a_e in (0, 3). Where the
    evidence already explains the label, the sample then teaches the classifier nothing more about it. Gates start at 1
    over the number of evidences, 1 of a single one: several see the same shortcut, which would count several times.

    Args:
        num_labels: C, the number of classes.
        characteristics: names of the inputs, in their order.
        hidden_size: width of the hidden layer.
        bound: τ > 0 keeps the output in (−τ, τ) by τ tanh(Ω/τ); 0 leaves it free, as in the paper.
        condition_on_label: add a learned embedding of the label to the inputs (our extension).
        class_proportions: (C,), the share of every class in the training set, all above 0. With them their logarithms
            are added to δ, so that training starts as logit adjustment (Menon et al., 2021) and Ω learns what is to be
            added to that (our extension).
        perturbed_logits: "all", Ω gives a value for the logit of every class (paper); or "own", it gives one value m,
            and δ = m e_y raises or lowers the logit of the sample's own class, whichever that is (our extension). The
            inputs hardly name the class, so that with "all" samples of different classes get much the same δ, which
            cannot make those with a wrong label count less; m can: the larger it is, the less is there to learn.
        activation: of the hidden layer, "tanh" or "relu". The paper does not say; tanh keeps a sample that is far from
            all others from the largest δ.

    Raises:
        ValueError: for unknown characteristics, `perturbed_logits` or `activation`, a negative `bound`, or a class of
            no images among the proportions.
    """

    NAME = "perturbation"
    FOLDER = "perturbation_network"
    CARD = "clp"
    LEVEL = "δ of the own class, logits"
    TITLE = "Perturbation by {}"
    CAPTION = (
        "Mean δ of a sample's own class over the mean of the others. Above 0, δ makes the sample count less; below 0, "
        "more."
    )

    def __init__(
        self,
        num_labels: int,
        characteristics: Sequence[str] = CHARACTERISTICS,
        hidden_size: int = 100,
        bound: float = 0.0,
        condition_on_label: bool = False,
        class_proportions: Sequence[float] | None = None,
        perturbed_logits: str = "all",
        activation: str = "tanh",
    ):
        super().__init__()
        check_characteristics(characteristics)
        if perturbed_logits not in PERTURBED_LOGITS:
            raise ValueError(f"perturbed_logits is {perturbed_logits!r}; choose one of {', '.join(PERTURBED_LOGITS)}.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}.")
        if bound < 0:
            raise ValueError(f"bound is {bound}; expected a positive bound on the perturbations, or 0 for none.")
        self.config = {
            "num_labels": num_labels,
            "characteristics": list(characteristics),
            "hidden_size": hidden_size,
            "bound": bound,
            "condition_on_label": condition_on_label,
            "class_proportions": class_proportions,
            "perturbed_logits": perturbed_logits,
            "activation": activation,
        }
        self.characteristics = tuple(characteristics)
        self.bound = bound
        num_inputs = len(self.characteristics)
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("variance", torch.ones(num_inputs))
        self.register_buffer("num_updates", torch.zeros(()))
        if empty := [label for label, share in enumerate(class_proportions or ()) if not share > 0]:
            raise ValueError(f"class_prior needs images of every class; the training set has none of {empty}.")
        self.register_buffer("log_prior", class_proportions and torch.tensor(class_proportions).log())
        self.label_embedding = nn.Embedding(num_labels, LABEL_EMBEDDING_SIZE) if condition_on_label else None
        self.activation = ACTIVATIONS[activation]
        self.hidden = nn.Linear(num_inputs + (LABEL_EMBEDDING_SIZE if condition_on_label else 0), hidden_size)
        self.num_labels = num_labels
        self.perturbs_own = perturbed_logits == "own"
        self.num_evidences = len(evidence_margins(self.characteristics))
        self.output = nn.Linear(hidden_size, (1 if self.perturbs_own else num_labels) + self.num_evidences)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @classmethod
    def of(cls, settings: Any, num_labels: int, class_proportions: Tensor, **facts: Any) -> "PerturbationNetwork":
        """As of `MetaNetwork`; the margin of every evidence is an input."""
        return cls(
            num_labels,
            characteristics=[*settings.characteristics, *map(margin_of, settings.evidence)],
            hidden_size=settings.perturbation_hidden_size,
            bound=settings.perturbation_bound,
            condition_on_label=settings.condition_on_label,
            class_proportions=class_proportions.tolist() if settings.class_prior else None,
            perturbed_logits=settings.perturbed_logits,
            activation=settings.perturbation_activation,
        )

    @torch.no_grad()
    def update_statistics(self, characteristics: Tensor, momentum: float = 0.99) -> None:
        """Take a batch (n, k), of all processes, into running mean and variance: plain at first, then exponential."""
        share = (1 / (1 + self.num_updates)).clamp(min=1 - momentum)
        shifted = characteristics - self.mean
        difference, square = all_reduce_mean([shifted.mean(0), shifted.square().mean(0)])
        spread = square - difference.square()
        self.mean.add_(share * difference)
        # The between-batch part keeps the variance right when the mean itself drifts. The first batch's share is 1.
        self.variance.mul_(1 - share).add_(share * (spread + (1 - share) * difference.square()))
        self.num_updates += 1

    def forward(self, characteristics: Tensor, labels: Tensor, extrinsic_logits: Tensor | None = None) -> Tensor:
        """Logit perturbations.

        Args:
            characteristics: (n, k), in the order of `self.characteristics`.
            labels: (n,), used where the network is conditioned on the label or perturbs that of the own class alone.
            extrinsic_logits: u_z, (n, E, C), of the E evidences whose margins are inputs, in their order; of one also
                (n, C).

        Returns:
            δ, (n, C).
        """
        inputs = (characteristics - self.mean) / (self.variance + 1e-6).sqrt()
        if self.label_embedding is not None:
            inputs = torch.cat([inputs, self.label_embedding(labels)], dim=-1)
        perturbation = self.output(self.activation(self.hidden(inputs)))
        perturbation, gates = perturbation.tensor_split([perturbation.shape[1] - self.num_evidences], dim=1)
        if self.bound:
            perturbation = self.bound * torch.tanh(perturbation / self.bound)
        if self.perturbs_own:
            perturbation = perturbation * F.one_hot(labels, self.num_labels)
        if self.num_evidences:
            start = -math.log(MAX_GATE * self.num_evidences - 1)
            u_z = extrinsic_logits.reshape(len(gates), self.num_evidences, -1)
            perturbation = perturbation + (MAX_GATE * torch.sigmoid(gates + start)[..., None] * u_z).sum(1)
        if self.log_prior is not None:
            perturbation = perturbation + self.log_prior
        return perturbation

    def training_loss(self, logits: Tensor, output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of the perturbed logits (CLP, Eq. 10); with `perturbed_logits="own"` over the mean weight.

        To add m to the logit of the own class is to weigh the sample's gradient by w = (1 − p'_y)/(1 − p_y), p' the
        perturbed probability. As in Meta-Weight-Net the weights decide between samples, not how large the step is: a
        look-ahead of one step would always like a smaller one while the learning rate is high (Wu et al. 2018,
        "Understanding short-horizon bias in stochastic meta-optimization").
        """
        logits = at_least_float32(logits)
        loss = F.cross_entropy(logits + output, labels, label_smoothing=label_smoothing)
        return loss / self._mean_weight(logits.detach(), output, labels) if self.perturbs_own else loss

    def _mean_weight(self, logits: Tensor, output: Tensor, labels: Tensor) -> Tensor:
        """Of the batch, over the gradients without what Ω adds; a learned sample counts as ten, not as thousands."""
        start = 0 if self.log_prior is None else self.log_prior
        left, before = (
            -torch.expm1(-F.cross_entropy(values, labels, reduction="none"))
            for values in (logits + output, logits + start)
        )
        mean = (left / before.clamp(min=1e-6)).clamp(max=MAX_COUNTED_WEIGHT).mean()
        return mean.clamp(min=1e-8)  # all weights may come near zero together

    def inner_problem(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """δ; to divide the loss by a mean weight, as with `perturbed_logits="own"`, does not move its minimum."""
        return output, output.new_ones(len(output))

    def level(self, output: Tensor, labels: Tensor) -> Tensor:
        """δ of the own class over the mean of the others."""
        return own_margin(output, labels)

    def raises_loss(self, logits: Tensor, output: Tensor, labels: Tensor) -> Tensor:
        """Whether the cross-entropy of the perturbed logits is above that of the logits (CLP, Figure 5)."""
        logits = at_least_float32(logits)
        perturbed = F.cross_entropy(logits + output, labels, reduction="none")
        return perturbed > F.cross_entropy(logits, labels, reduction="none")

    def signal(self, derivative: Tensor, labels: Tensor) -> Tensor:
        """The derivative in the own-class δ: lowering that makes a sample weigh more."""
        return derivative.gather(1, labels[:, None])[:, 0]
