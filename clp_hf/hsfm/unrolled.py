"""The gradient of an outer loss through T steps of softmax regression, in closed form (HSFM's inner loop).

A head that starts at θ_0 and takes gradient steps on features H stays in θ_0 + span(H). Its logits on H move by the
Gram matrix of H alone, and so do their adjoints: the loops below run on n × C numbers, n the support size, and touch
the d-dimensional features only before, between and after. No autograd graph is kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def unrolled(
    weight: Tensor,
    bias: Tensor,
    support: Tensor,
    support_onehot: Tensor,
    hard: Tensor,
    hard_onehot: Tensor,
    hard_weights: Tensor,
    rate: Tensor,
    steps: int,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Adapt a head to support features by T gradient steps, and differentiate its loss on the hard set in them.

    The support loss is a mean of cross-entropies over n samples, the outer loss a weighted sum. With a = rate / n,
    K = a (H Hᵀ + 1) (the 1 is the bias), R_t = softmax(U_t) − Y, Λ_t the adjoint of the head, z_t that of the logits
    through the head, and S_t = ∂⟨R_t, z_{t+1}⟩/∂U_t:

        forward   U_{t+1} = U_t − K R_t        W_t = W − a Σ_{s<t} R_sᵀ H
        backward  z_t = z_{t+1} − K S_t        Λ_t = Λ_T − a Σ_{s≥t} S_sᵀ H,   Λ_T = ∇L_outer(W_T)
        gradient  −a Σ_t (S_t W_t + R_t Λ_{t+1})

    R independent runs lie on the first dimension of every tensor but the hard images, which are the same for all: the
    hard sets of runs overlap, and one product with all of theirs reads less than one for each. Samples come last:
    products with few rows are several times faster than with few columns, and the Gram matrix is three times faster
    from features that lie as columns.

    Args:
        weight, bias: (R, C, d) and (R, C), where the head starts.
        support: Hᵀ, (R, d, n).
        support_onehot: Y, (R, C, n), its labels.
        hard: (m, d), the images of all hard sets.
        hard_onehot: (C, m), their labels.
        hard_weights: (R, m); those of a run sum to 1, and are 0 for what is not in its own hard set.
        rate: of the steps, (R,).
        steps: T.
        out: where to write the gradient; memory that the system must clear first costs as much as the products.

    Returns:
        The loss of the adapted head on the hard set, (R,), and its gradient in Hᵀ, (R, d, n).
    """
    scale = (rate / support.shape[-1])[:, None, None]
    kernel = scale * (support.mT @ support + 1)
    logits = linear(support, weight, bias)
    probabilities, residuals = [], []
    for _ in range(steps):
        probabilities.append(logits.softmax(1))
        residuals.append(probabilities[-1] - support_onehot)
        logits = torch.baddbmm(logits, residuals[-1], kernel, alpha=-1)
    residuals = _shrink(torch.stack(residuals, 1))
    moved = scale * residuals.sum(1)

    adapted = torch.baddbmm(weight, moved, support.mT, alpha=-1)
    hard_logits = (adapted.flatten(0, 1) @ hard.T).unflatten(0, bias.shape) + (bias - moved.sum(-1))[..., None]
    log_probabilities = hard_logits.log_softmax(1)
    loss = -(hard_weights * (hard_onehot * log_probabilities).sum(1)).sum(-1)
    hard_residual = hard_weights[:, None] * (log_probabilities.exp() - hard_onehot)
    weight_adjoint = (hard_residual.flatten(0, 1) @ hard).unflatten(0, bias.shape)

    adjoint = linear(support, weight_adjoint, hard_residual.sum(-1))
    curvatures = []
    for probability in reversed(probabilities):
        curvatures.append(torch._softmax_backward_data(adjoint, probability, 1, adjoint.dtype))
        adjoint = torch.baddbmm(adjoint, curvatures[-1], kernel, alpha=-1)
    curvatures = _shrink(torch.stack(curvatures[::-1], 1))

    # The double sum of S_t with W_t is Σ_t S_t Σ_{s<t} R_sᵀ; that of R_t with Λ_{t+1} is its transpose.
    before = residuals.cumsum(1) - residuals
    pairs = scale**2 * (curvatures.flatten(1, 2).mT @ before.flatten(1, 2))
    gradient = torch.bmm(support, pairs + pairs.mT, out=out)
    outer = torch.cat([scale * curvatures.sum(1), moved], 1)
    gradient.baddbmm_(torch.cat([weight, weight_adjoint], 1).mT, outer, alpha=-1)
    return loss, gradient


def linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (R, C, n) of features (R, d, n)."""
    return torch.baddbmm(bias[..., None], weight, features)


def _shrink(values: Tensor) -> Tensor:
    """0 for what is too small to matter: products of samples fitted that well underflow, and cost ten times as much."""
    return F.hardshrink(values, torch.finfo(values.dtype).tiny ** (1 / 3))
