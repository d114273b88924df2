"""The gradient of an outer loss through T steps of softmax regression, in closed form (HSFM's inner loop).

Weights that start at θ_0 and take gradient steps on features H stay in θ_0 + span(H): the logits of H move by the Gram
matrix G = H Hᵀ + 1 alone, and so do the adjoints. The loops below therefore run on n × C numbers, n the support size;
the d-dimensional work is done once, before and after them. No autograd graph is kept.

Every tensor has a leading dimension of R independent runs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """Linear heads of R runs: `weight` (R, C, d) and `bias` (R, C)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (R, n, C) of features (R, n, d), or of (n, d) shared by all runs."""
        if features.dim() == 2:  # one product for all runs
            runs, classes, _ = self.weight.shape
            logits = (features @ self.weight.flatten(0, 1).T).unflatten(1, (runs, classes)).movedim(1, 0)
        else:
            logits = features @ self.weight.mT
        return logits + self.bias[:, None]


@dataclass(frozen=True)
class Unrolled:
    """What `unrolled` returns.

    Attributes:
        loss: (R,), the outer loss of the adapted heads.
        gradient: (R, n, d), of that loss in the support features.
        head: the adapted heads.
    """

    loss: Tensor
    gradient: Tensor
    head: Head


def residuals(logits: Tensor, onehot: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy, (R,), and its gradient in the logits, (R, n, C).

    Args:
        logits: (R, n, C).
        onehot: (R, n, C), the labels.
        weights: (R, n), each run's sum to 1; 0 marks padding.
    """
    log_probabilities = logits.log_softmax(-1)
    loss = -(weights * (onehot * log_probabilities).sum(-1)).sum(-1)
    return loss, weights[..., None] * (log_probabilities.exp() - onehot)


def unrolled(
    head: Head,
    support: Tensor,
    support_onehot: Tensor,
    support_weights: Tensor,
    hard: Tensor,
    hard_onehot: Tensor,
    hard_weights: Tensor,
    rates: Tensor,
) -> Unrolled:
    """Adapt a head to the support features by T gradient steps, and differentiate its loss on the hard set.

    With R_t the gradient of the support loss in its logits, z_t = H λ_t the adjoint on the support, and S_t = ∂⟨R_t,
    z⟩/∂U_t:

        forward   U_{t+1} = U_t − a_t G R_t,             θ_T = θ_0 − Σ_t a_t R_tᵀ H
        backward  z_t = z_{t+1} − a_t G S_t,             λ_T = ∇L_outer(θ_T)
        gradient  −Σ_t a_t [S_t W_t + R_t Λ_{t+1}]

    Args:
        head: θ_0.
        support: H, (R, n, d), with labels (R, n, C) and weights (R, n) as of `residuals`.
        hard: (R, m, d), with labels and weights likewise.
        rates: a_t, (R, T); 0 where a run takes fewer steps.

    Returns:
        Loss, gradient and adapted head.
    """
    gram = support @ support.mT + 1  # the 1 is the bias
    logits = head(support)
    steps = rates.shape[1]
    rates = rates[..., None, None]
    total = torch.zeros_like(logits)  # Σ_{s<t} a_s R_s
    probabilities, before, taken = [], [], []
    for t in range(steps):
        _, residual = residuals(logits, support_onehot, support_weights)
        probabilities.append(residual / support_weights[..., None].clamp_min(torch.finfo(logits.dtype).tiny))
        before.append(total)
        taken.append(rates[:, t] * residual)
        total = total + taken[-1]
        logits = logits - gram @ taken[-1]
    adapted = Head(head.weight - total.mT @ support, head.bias - total.sum(1))

    loss, outer_residual = residuals(adapted(hard), hard_onehot, hard_weights)
    weight_adjoint, bias_adjoint = outer_residual.mT @ hard, outer_residual.sum(1)  # λ_T
    adjoint = Head(weight_adjoint, bias_adjoint)(support)
    curvatures = [torch.empty(0)] * steps
    for t in reversed(range(steps)):
        p = probabilities[t] + support_onehot
        centred = adjoint - (p * adjoint).sum(-1, keepdim=True)
        curvatures[t] = rates[:, t] * support_weights[..., None] * p * centred
        adjoint = adjoint - gram @ curvatures[t]

    # W_t = W_0 − (Σ_{s<t} a_s R_s)ᵀ H and Λ_{t+1} = Λ_T − (Σ_{s>t} a_s S_s)ᵀ H: the two double sums are transposes.
    pairs = torch.cat(curvatures, -1) @ torch.cat(before, -1).mT
    gradient = (pairs + pairs.mT) @ support - sum(curvatures) @ head.weight - total @ weight_adjoint
    return Unrolled(loss, gradient, adapted)
