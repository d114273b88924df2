"""Ω that is of one batch alone: not a network that learns over the steps, but numbers that are made anew in each."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from .base import MetaNetwork


class BatchHyperparameters(MetaNetwork):
    """Ω with a start in every batch, from which one step is taken by the hypergradient, without an optimizer.

    There is nothing of it beside a published classifier; what it keeps over the batches is in its buffers, which are
    saved in checkpoints.

    Attributes:
        omega: of this batch; None before the hypergradient is asked for, and in batches where it is not.
    """

    FOLDER = None
    OF_BATCH = True
    omega: Tensor | None = None

    def start(self, labels: Tensor) -> Tensor:
        """Ω at which the hypergradient is taken, without graph."""
        raise NotImplementedError

    def without(self, labels: Tensor) -> Tensor:
        """Ω of a batch without a hypergradient."""
        return self.start(labels)

    def begin_batch(self, characteristics: Tensor, labels: Tensor) -> None:
        """As of `MetaNetwork`."""
        self.omega = None

    def hyperparameters(self, labels: Tensor) -> list[Tensor]:
        """As of `MetaNetwork`: Ω is at its start now."""
        self.omega = self.start(labels).requires_grad_()
        return [self.omega]

    def forward(self, characteristics: Tensor, labels: Tensor, extrinsic_logits: Tensor | None = None) -> Tensor:
        """Ω; of the arguments the labels alone say how many there are."""
        return self.without(labels) if self.omega is None else self.omega

    @torch.no_grad()
    def adapt(self, gradient: Tensor | None, derivative: Callable[[], Tensor]) -> None:
        """Take the step; without a gradient, one that was not finite, the batch is one without it.

        Args:
            gradient: dL_meta/dΩ, the mean over processes.
            derivative: n times that of the meta loss in what each sample of this process got, as of
                `bilevel.derivative_in_output`.
        """
        self.omega = None if gradient is None else self.stepped(gradient, derivative)

    def stepped(self, gradient: Tensor, derivative: Callable[[], Tensor]) -> Tensor:
        """Ω after the step, from `omega`; arguments as of `adapt`."""
        raise NotImplementedError

    def save_beside(self, folder: str | os.PathLike) -> None:
        """Nothing."""

    def load_beside(self, folder: str | os.PathLike) -> None:
        """Nothing."""

    def remember(self, characteristics: Tensor, labels: Tensor) -> None:
        """Nothing: it answers to no characteristic."""
