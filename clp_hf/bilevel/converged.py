"""The look-ahead to the end of training: Ω is judged at the head that recent features lead to.

The whole network follows with ordinary steps, and what it makes of images changes slowly. So the features of recent
batches stand for those of the training set, and the head that training would end with on them is found, and
differentiated, as on a frozen backbone (`implicit`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .distributed import all_reduce_mean, all_reduce_sum
from .hypergradient import Hypergradient
from .implicit import SoftmaxRegression, Solution, implicit_hypergradient
from .memory import FeatureMemory

LEAST_SHARE = 0.25  # of the memory, by which Ω is judged


class ConvergedHead:
    """The head at which training on remembered features converges, and the hypergradient there.

    The last solution is where the next one starts. So is its basis, which changes no result and is costly to find.

    Args:
        size: how many images this process remembers.
        num_classes: C.
        ridge: λ > 0, of features whose root-mean-square length is 1, so that it means the same for every backbone.

    Attributes:
        memory: its columns `features` (n, d) and `labels` (n,) are the inner problem's.
    """

    def __init__(self, size: int, num_classes: int, ridge: float):
        self.memory, self.num_classes, self.ridge = FeatureMemory(size), num_classes, ridge
        self._solution: Solution | None = None
        self._basis: Tensor | None = None

    def is_ready(self) -> bool:
        """Whether every process remembers a quarter of what it can, and images of every class."""
        labels = self.memory.read()["labels"]
        enough = len(labels) >= LEAST_SHARE * self.memory.size
        enough &= bool((torch.bincount(labels, minlength=self.num_classes) > 0).all())
        (missing,) = all_reduce_sum([labels.new_tensor(int(not enough))])
        return not missing

    def hypergradient(
        self,
        inner: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]],
        outer_loss: Callable[[Tensor, Tensor], Tensor],
        hyperparameters: Sequence[Tensor],
    ) -> tuple[Hypergradient, bool]:
        """The gradient in Ω of `outer_loss` at the converged head.

        Args:
            inner: from what is remembered, by name, to the offsets of the logits (n, C) and the sample weights (n,),
                with their graph in Ω.
            outer_loss: the meta loss, a scalar, from weight (C, d) and bias (C,) of the head for features as they are.
            hyperparameters: the tensors Ω.

        Returns:
            The hypergradient, averaged over processes, of which each has a head of its own (`logit_tangent`, (1, n, C),
            is of this one alone); and whether this one has converged. Offsets or weights that are not finite make NaN
            of it.
        """
        hyperparameters, columns = list(hyperparameters), self.memory.read()
        offsets, weights = inner(columns)
        if torch.isfinite(offsets).all() and torch.isfinite(weights).all():
            result, converged = self._solve(columns, offsets, weights, outer_loss, hyperparameters)
        else:
            nothing = [torch.full_like(parameter, torch.nan) for parameter in hyperparameters]
            result, converged = Hypergradient(nothing, nothing, nothing, offsets.new_tensor(torch.nan), None), False
        outer, *parts = all_reduce_mean([result.outer_loss, *result.direct, *result.indirect])
        direct, indirect = parts[: len(hyperparameters)], parts[len(hyperparameters) :]
        total = [a + b for a, b in zip(direct, indirect, strict=True)]
        return Hypergradient(total, direct, indirect, outer, result.logit_tangent), converged

    def _solve(
        self,
        columns: dict[str, Tensor],
        offsets: Tensor,
        weights: Tensor,
        outer_loss: Callable[[Tensor, Tensor], Tensor],
        hyperparameters: list[Tensor],
    ) -> tuple[Hypergradient, bool]:
        """Of this process."""
        length = columns["features"].square().sum(1).mean().sqrt().clamp(min=1e-12)
        regression = SoftmaxRegression(columns["features"] / length, columns["labels"], self.num_classes, self._basis)
        ridge = length.new_tensor([self.ridge])
        result, solution = implicit_hypergradient(
            regression,
            lambda: (offsets[None], weights[None], ridge),
            lambda weight, bias: outer_loss(weight[0] / length, bias[0]),
            hyperparameters,
            self._solution,
        )
        self._basis = regression.basis
        self._solution = solution if torch.isfinite(solution.weight).all() else None
        return result, bool(solution.converged)

    def keep(self) -> Callable[[], None]:
        """What it returns brings back what is remembered, and the solution, as they are now."""
        kept = self.memory.batches, self._solution, self._basis

        def bring_back():
            self.memory.batches, self._solution, self._basis = kept

        return bring_back

    def state_dict(self) -> dict[str, Any]:
        """Of this process, on the CPU."""
        solution = self._solution and {"weight": self._solution.weight.cpu(), "bias": self._solution.bias.cpu()}
        basis = None if self._basis is None else self._basis.cpu()
        return {"memory": self.memory.state_dict(), "solution": solution, "basis": basis}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Go on from `state_dict`, on a device."""
        self.memory.load_state_dict(state["memory"], device)
        self._basis = None if state["basis"] is None else state["basis"].to(device)
        self._solution = None
        if state["solution"] is not None:
            weight, bias = (state["solution"][name].to(device) for name in ("weight", "bias"))
            self._solution = Solution(weight, bias, torch.ones(1, dtype=torch.bool, device=device), 0)
