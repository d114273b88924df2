"""The hypergradient at a converged linear head: how the head that training ends with changes with Ω.

The look-ahead of one step judges Ω by what it does at once, and learns perturbations that are too weak (Wu et al. 2018,
"Understanding short-horizon bias in stochastic meta-optimization"). On features of a frozen backbone the end of
training is a strictly convex problem,

    θ*(Ω) = argmin_θ  Σ_i w_i(Ω) CE(x_i θ + o_i(Ω), y_i) / n + λ(Ω) ‖θ‖² / 2,

and by the implicit function theorem

    dL_meta/dΩ = ∂L_meta/∂Ω − ∂/∂Ω ⟨X v, q(Ω)⟩ − ∂λ/∂Ω ⟨v, θ*⟩,      v = H⁻¹ ∇L_meta(θ*),

with the Hessian H in θ and q = ∂L_train/∂U: the same form as one step ahead, where v is η ∇L_meta (`hypergradient`).
The solution of a linear system takes the place of the step; nothing is unrolled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .hypergradient import Hypergradient

NEWTON_STEPS = 100
CONJUGATE_GRADIENT_STEPS = 500
MANY_STEPS = 12  # of conjugate gradients, more than which a basis for this neighbourhood pays
SMALLEST_STEP = 2.0**-30
SUFFICIENT_DECREASE = 1e-4


@dataclass(frozen=True)
class Solution:
    """The head that minimises an inner problem, for each of R runs.

    Attributes:
        weight: (R, C, d) and
        bias: (R, C); logits are `features @ weight.mT + bias`.
        converged: bool (R,): whether the gradient became as small as asked.
        steps: Newton steps, of the slowest run.
    """

    weight: Tensor
    bias: Tensor
    converged: Tensor
    steps: int


class SoftmaxRegression:
    """Softmax regression on fixed features, with offsets and sample weights, of any number of runs side by side.

    Everything is held in the eigenbasis of the features' second moment, each sample weighted by its curvature
    p_y (1 − p_y) at a solution that was found before (`adapt`). There the Hessian of all runs is nearly diagonal,
    whatever their ridge, and conjugate gradients need a few steps. The bias is the weight of a constant feature as long
    as the others together, root mean square r: it adds λ b² / (2 r²), which hardly shrinks it, and keeps the minimum
    unique. Shrunk like a weight it could not follow where features are far from the origin, or many.

    Args:
        features: (n, d), finite, in the precision of the computation.
        labels: (n,) in 0 … C − 1.
        num_classes: C, at least 2.
        basis: that of a problem with similar features, (d + 1, d + 1): it changes no result, and is at hand.

    Raises:
        ValueError: features that are not finite, labels out of range, or other shapes.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, basis: Tensor | None = None):
        if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise ValueError(
                f"Expected features (n, d) and labels (n,), n > 0, found {tuple(features.shape)} and "
                f"{tuple(labels.shape)}."
            )
        if len(bad := (~torch.isfinite(features).all(1)).nonzero()):
            raise ValueError(f"{len(bad)} of {len(features)} features are not finite, the first that of {int(bad[0])}.")
        if num_classes < 2 or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"Expected labels of two classes or more, in 0 … {num_classes - 1}, found {int(labels.min())} … "
                f"{int(labels.max())}."
            )
        self.labels, self.num_classes = labels, num_classes
        self.last_steps = 0  # of conjugate gradients
        self.targets = F.one_hot(labels, num_classes).to(features.dtype)
        length = features.square().sum(1).mean().sqrt()
        self.constant = torch.where(length > 0, length, 1)
        self._features = torch.cat([features, self.constant.expand(len(features), 1)], 1)
        if basis is None:
            self._set_basis(features.new_ones(len(features)))
        else:
            self.basis, self.inputs = basis, self._features @ basis
            self.moments = self.inputs.square().mean(0)

    def _set_basis(self, curvature: Tensor) -> None:
        """The eigenbasis for samples of this curvature (n,), of which only the proportions matter."""
        weighted = self._features * (curvature / curvature.sum())[:, None]
        self.moments, self.basis = _eigenbasis(self._features.T @ weighted)
        self.inputs = self._features @ self.basis

    def adapt(self, solution: Solution, offsets: Tensor, weights: Tensor) -> None:
        """Make problems near a solution quick to solve; it changes no result."""
        logits = self._logits(self._rotated(solution)) + offsets
        probabilities = logits.softmax(-1)
        self._set_basis((weights[..., None] * probabilities * (1 - probabilities)).mean((0, 2)).clamp(min=1e-12))

    # ---- the inner problem -------------------------------------------------------------------------------------------

    def solve(
        self,
        offsets: Tensor,
        weights: Tensor,
        ridge: Tensor,
        start: Solution | None = None,
        tolerance: float | None = None,
    ) -> Solution:
        """Minimise by Newton's method, each step by conjugate gradients.

        Args:
            offsets: o, (R, n, C); 0 for none.
            weights: w, (R, n), 0 or more.
            ridge: λ, (R,), above 0: without it separable classes have no minimum.
            start: of an earlier solution near by.
            tolerance: of the gradient's length over that at θ = 0; by default 1e-5 in float32, 1e-11 in float64.

        Returns:
            The solution. Where a run has not converged it says so, and a warning does.

        Raises:
            ValueError: a ridge that is not above 0, negative weights, or values that are not finite.
        """
        _check(offsets, weights, ridge)
        tolerance = tolerance or (1e-5 if self.inputs.dtype == torch.float32 else 1e-11)
        problem = _Problem(self, offsets, weights, ridge)
        theta = problem.zero if start is None else self._rotated(start)
        scale = problem.gradient(problem.probabilities(problem.zero), problem.zero).norm(dim=(1, 2))
        logits, step = self._logits(theta), 0
        for step in range(NEWTON_STEPS + 1):
            probabilities = (logits + offsets).softmax(-1)
            gradient = problem.gradient(probabilities, theta)
            lengths = gradient.norm(dim=(1, 2))
            converged = lengths <= tolerance * scale.clamp(min=torch.finfo(scale.dtype).tiny)
            if converged.all() or step == NEWTON_STEPS:
                break
            forcing = (lengths / scale).sqrt().clamp(tolerance, 0.1)
            direction = problem.conjugate_gradients(probabilities, -gradient, forcing)
            length, change = problem.line_search(logits, theta, direction, gradient)
            if not length.any():  # rounding leaves nothing to gain
                break
            theta, logits = theta + length * direction, logits + length * change
        if not converged.all():
            warnings.warn(
                f"{int((~converged).sum())} of {len(converged)} heads have not converged after {step} Newton steps: "
                f"the gradient is {float((lengths / scale).max()):.1e} of that at zero, asked for was {tolerance:.0e}. "
                "A stronger ridge, or float64, helps.",
                stacklevel=2,
            )
        weight, bias = (self.basis @ theta).mT.split([len(self.basis) - 1, 1], dim=-1)
        return Solution(weight, self.constant * bias[..., 0], converged, step)

    def adjoint(self, solution: Solution, offsets, weights, ridge, gradient: Sequence[Tensor]) -> Sequence[Tensor]:
        """v = H⁻¹ g at a solution.

        Args:
            solution, offsets, weights, ridge: the solved problem.
            gradient: g, of weight (R, C, d) and bias (R, C).

        Returns:
            X v, (R, n, C), and ⟨v, θ*⟩, (R,).
        """
        problem, theta = _Problem(self, offsets, weights, ridge), self._rotated(solution)
        tolerance = gradient[0].new_full((len(ridge),), 1e-6 if self.inputs.dtype == torch.float32 else 1e-13)
        direction = self.basis.T @ torch.cat([gradient[0], self.constant * gradient[1][..., None]], -1).mT
        v = problem.conjugate_gradients(problem.probabilities(theta), direction, tolerance)
        return self._logits(v), (v * theta).sum((1, 2))

    def _rotated(self, solution: Solution) -> Tensor:
        return self.basis.T @ torch.cat([solution.weight, solution.bias[..., None] / self.constant], -1).mT

    def _logits(self, theta: Tensor) -> Tensor:
        """(R, n, C), of all runs in one product: the inputs are read once."""
        runs = len(theta)
        return (self.inputs @ theta.permute(1, 0, 2).flatten(1)).unflatten(1, (runs, -1)).permute(1, 0, 2)

    def _transposed(self, values: Tensor) -> Tensor:
        """Xᵀ values, (R, D, C) from (R, n, C)."""
        runs = len(values)
        return (self.inputs.T @ values.permute(1, 0, 2).flatten(1)).unflatten(1, (runs, -1)).permute(1, 0, 2)


class _Problem:
    """An inner problem in the eigenbasis; θ is (R, D, C)."""

    def __init__(self, regression: SoftmaxRegression, offsets: Tensor, weights: Tensor, ridge: Tensor):
        self.regression, self.offsets, self.ridge = regression, offsets, ridge[:, None, None]
        self.weights = weights[..., None] / len(regression.labels)
        self.zero = offsets.new_zeros(len(ridge), len(regression.moments), regression.num_classes)

    def probabilities(self, theta: Tensor) -> Tensor:
        return (self.regression._logits(theta) + self.offsets).softmax(-1)

    def gradient(self, probabilities: Tensor, theta: Tensor) -> Tensor:
        residuals = self.weights * (probabilities - self.regression.targets)
        return self.regression._transposed(residuals) + self.ridge * theta

    def conjugate_gradients(self, probabilities: Tensor, right: Tensor, tolerance: Tensor) -> Tensor:
        """H⁻¹ right, to a residual of `tolerance` (R,) of the right-hand side's length."""
        regression, scaled = self.regression, self.weights * probabilities
        # Changes of the logits sum to zero over the classes, where the curvature of a softmax is C / (C − 1) of its
        # diagonal: exactly so for two classes, or equally probable ones.
        classes = regression.num_classes
        curvature = (scaled * (1 - probabilities)).sum(1, keepdim=True) * classes / (classes - 1)  # (R, 1, C)
        preconditioner = curvature * regression.moments[:, None] + self.ridge
        goal = tolerance * right.norm(dim=(1, 2))
        solution, residual = torch.zeros_like(right), right
        z = residual / preconditioner
        direction, product = z, (residual * z).sum((1, 2))
        for step in range(CONJUGATE_GRADIENT_STEPS):
            regression.last_steps = step
            if (residual.norm(dim=(1, 2)) <= goal).all():
                break
            change = scaled * regression._logits(direction)
            change = change - probabilities * change.sum(-1, keepdim=True)
            image = regression._transposed(change) + self.ridge * direction
            length = _divided(product, (direction * image).sum((1, 2)))
            solution = solution + length * direction
            residual = residual - length * image
            z = residual / preconditioner
            product, before = (residual * z).sum((1, 2)), product
            direction = z + _divided(product, before) * direction
        return solution

    def line_search(self, logits, theta, direction, gradient) -> tuple[Tensor, Tensor]:
        """The longest step 1, 1/2 … that decreases the loss of each run, (R, 1, 1), and the change of the logits."""
        change = self.regression._logits(direction)
        slope = (gradient * direction).sum((1, 2))
        here, length = self._loss(logits, theta), torch.ones_like(slope)
        # a loss near 0 is rounded as the logits that it is the difference of
        largest = (self.weights[..., 0] * (logits + self.offsets).abs().amax(-1)).sum(1)
        rounding = 10 * torch.finfo(here.dtype).eps * (here.abs() + largest)
        while True:
            stretched = length[:, None, None]
            there = self._loss(logits + stretched * change, theta + stretched * direction)
            fails = there > here + SUFFICIENT_DECREASE * length * slope + rounding
            if not (fails & (length > 0)).any():
                return stretched, change
            length = torch.where(fails, length / 2, length)
            length = torch.where(length < SMALLEST_STEP, 0, length)

    def _loss(self, logits: Tensor, theta: Tensor) -> Tensor:
        losses = -(logits + self.offsets).log_softmax(-1).gather(-1, self._own(len(theta)))
        return (self.weights * losses).sum((1, 2)) + self.ridge[:, 0, 0] / 2 * theta.square().sum((1, 2))

    def _own(self, runs: int) -> Tensor:
        return self.regression.labels[None, :, None].expand(runs, -1, 1)


def implicit_hypergradient(
    regression: SoftmaxRegression,
    inner: Callable[[], tuple[Tensor, Tensor, Tensor]],
    outer_loss: Callable[[Tensor, Tensor], Tensor],
    hyperparameters: Sequence[Tensor],
    start: Solution | None = None,
) -> tuple[Hypergradient, Solution]:
    """The gradient in Ω of `outer_loss` at the head θ*(Ω) to which training converges.

    It is exact as far as the solution is: for any softmax regression, with any offsets, weights and ridge that depend
    on Ω. Runs are independent where their hyper-parameters are.

    Args:
        regression: features and labels.
        inner: computes offsets (R, n, C), weights (R, n) and ridge (R,) from Ω, with their graph.
        outer_loss: the meta loss, a scalar, from weight (R, C, d) and bias (R, C); of several runs the sum. May also
            see Ω directly.
        hyperparameters: the tensors Ω; they require a gradient.
        start: the solution at a nearby Ω.

    Returns:
        The hypergradient (`logit_tangent` is X v, (R, n, C)), and the solution.
    """
    hyperparameters = list(hyperparameters)
    values = inner()
    offsets, weights, ridge = (value.detach() for value in values)
    solution = regression.solve(offsets, weights, ridge, start)
    if regression.last_steps > MANY_STEPS:
        regression.adapt(solution, offsets, weights)
    head = [part.detach().requires_grad_() for part in (solution.weight, solution.bias)]
    outer = outer_loss(*head)
    gradients = torch.autograd.grad(outer, [*head, *hyperparameters], materialize_grads=True)
    direct = gradients[2:]
    tangent, product = regression.adjoint(solution, offsets, weights, ridge, gradients[:2])
    with torch.enable_grad():
        logits = regression._logits(regression._rotated(solution))
        q = values[1][..., None] * ((logits + values[0]).softmax(-1) - regression.targets) / len(regression.labels)
        surrogate = -(tangent * q).sum() - (values[2] * product).sum()
        indirect = torch.autograd.grad(surrogate, hyperparameters, allow_unused=True, materialize_grads=True)
    total = [a + b for a, b in zip(direct, indirect, strict=True)]
    return Hypergradient(total, list(direct), list(indirect), outer.detach(), tangent), solution


def _eigenbasis(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, 0 or more, and eigenvectors of a second moment (D, D).

    Where the iteration fails in single precision, as with eigenvalues of very different size, double is tried; then the
    axes do: any basis gives the same solutions, only more slowly.
    """
    for dtype in dict.fromkeys((moment.dtype, torch.float64)):
        try:
            values, vectors = torch.linalg.eigh(moment.to(dtype))
        except torch.linalg.LinAlgError:
            continue
        return values.clamp(min=0).to(moment.dtype), vectors.to(moment.dtype)
    return moment.diagonal().clamp(min=0), torch.eye(len(moment), dtype=moment.dtype, device=moment.device)


def _check(offsets: Tensor, weights: Tensor, ridge: Tensor) -> None:
    if not (ridge > 0).all():
        raise ValueError(
            f"The ridge λ is {ridge.tolist()}; expected above 0: without it separable classes have no minimum, and the "
            "inner problem is singular."
        )
    if not (weights >= 0).all():
        raise ValueError(f"Sample weights go down to {float(weights.min())}; expected 0 or more.")
    if not all(torch.isfinite(value).all() for value in (offsets, weights, ridge)):
        raise ValueError("Offsets, weights and ridge of the inner problem must be finite.")


def _divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    """(R, 1, 1); 0 where a run has nothing left to divide."""
    quotient = numerator / torch.where(denominator > 0, denominator, 1)
    return torch.where(denominator > 0, quotient, 0)[:, None, None]
