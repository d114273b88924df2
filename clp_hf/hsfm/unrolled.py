"""The gradient of an outer loss through T steps of softmax regression, in closed form (HSFM's inner loop).

A head that starts at θ_0 and takes gradient steps on features H stays in θ_0 + span(H). Its logits on H move by the
Gram matrix of H alone, and so do their adjoints: the loops below run on n × C numbers, n the support size, and touch
the d-dimensional features only before, between and after. No autograd graph is kept.
"""

import torch
from torch import Tensor


def unrolled(
    weight: Tensor,
    bias: Tensor,
    support: Tensor,
    support_onehot: Tensor,
    support_weights: Tensor,
    hard: Tensor,
    hard_onehot: Tensor,
    hard_weights: Tensor,
    rates: Tensor,
) -> tuple[Tensor, Tensor]:
    """Adapt a head to support features by T gradient steps, and differentiate its loss on the hard set in them.

    With G = H Hᵀ + 1 (the 1 is the bias), R_t the gradient of the support loss in its logits U_t, λ_t = (Λ_t, μ_t) the
    adjoint of the head, z_t = H Λ_tᵀ + μ_t that of the logits, and S_t = ∂⟨R_t, z_{t+1}⟩/∂U_t:

        forward   U_{t+1} = U_t − a_t G R_t        W_t = W − Σ_{s<t} a_s R_sᵀ H
        backward  z_t = z_{t+1} − a_t G S_t        Λ_t = Λ_T − Σ_{s≥t} a_s S_sᵀ H,   λ_T = ∇L_outer(θ_T)
        gradient  −Σ_t a_t (S_t W_t + R_t Λ_{t+1})

    The cross-entropies are weighted sums over samples. R independent runs lie on the first dimension of every tensor;
    classes come before samples, because products with few rows are several times faster than with few columns.

    Args:
        weight, bias: (R, C, d) and (R, C), θ_0.
        support: H, (R, n, d).
        support_onehot: (R, C, n), its labels.
        support_weights: (R, n), 1 / n each, and 0 for padding.
        hard: (R, m, d).
        hard_onehot, hard_weights: (R, C, m) and (R, m), likewise.
        rates: a_t, (R, T); 0 where a run takes fewer steps.

    Returns:
        The loss of the adapted head on the hard set, (R,), and its gradient in H, (R, n, d).
    """
    gram = support @ support.mT + 1
    logits = linear(support, weight, bias)
    factors = (rates[..., None] * support_weights[:, None])[:, :, None].unbind(1)  # a_t / n, (R, 1, n) each
    probabilities, taken = [], []
    for factor in factors:
        probabilities.append(logits.softmax(1))
        taken.append((probabilities[-1] - support_onehot) * factor)
        logits = torch.baddbmm(logits, taken[-1], gram, alpha=-1)
    taken = torch.stack(taken, 1)
    total = taken.sum(1)

    adapted = linear(hard, torch.baddbmm(weight, total, support, alpha=-1), bias - total.sum(-1)).log_softmax(1)
    loss = -(hard_weights * (hard_onehot * adapted).sum(1)).sum(-1)
    residual = hard_weights[:, None] * (adapted.exp() - hard_onehot)
    weight_adjoint = residual @ hard

    adjoint = linear(support, weight_adjoint, residual.sum(-1))
    curvatures = []
    for factor, probability in zip(reversed(factors), reversed(probabilities), strict=True):
        weighted = probability * adjoint
        curvature = torch.addcmul(weighted, probability, weighted.sum(1, keepdim=True), value=-1) * factor
        adjoint = torch.baddbmm(adjoint, curvature, gram, alpha=-1)
        curvatures.append(curvature)
    curvatures = torch.stack(curvatures[::-1], 1)

    # The double sum of S_t with W_t is Σ_t S_t Σ_{s<t} R_sᵀ; that of R_t with Λ_{t+1} is its transpose.
    before = taken.cumsum(1) - taken
    pairs = curvatures.flatten(1, 2).mT @ before.flatten(1, 2)
    gradient = torch.bmm(pairs + pairs.mT, support)
    outer = torch.cat([curvatures.sum(1), total], 1).mT
    gradient.baddbmm_(outer, torch.cat([weight, weight_adjoint], 1), alpha=-1)
    return loss, gradient


def linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (R, C, n) of features (R, n, d)."""
    return weight @ features.mT + bias[..., None]
