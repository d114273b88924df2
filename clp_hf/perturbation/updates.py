"""The steps of Ω by its optimizer, and none by what is not finite."""

from typing import Any

import torch

from ..bilevel import Hypergradient
from ..utils.means import Means
from ..utils.precision import MOST_IN_A_ROW, NonFiniteError
from .base import MetaNetwork
from .optimizers import build_optimizer


class NetworkUpdates:
    """Updates Ω by hypergradients.

    Args:
        network: Ω.
        settings: as of `build_optimizer`, and `perturbation_follows_schedule`.
        means: take in what the log tells of an update.

    Attributes:
        optimizer: that of Ω, which no wrapper may skip between micro-batches; None for Ω of a batch.
    """

    def __init__(self, network: MetaNetwork, settings: Any, means: Means):
        self.network, self.settings, self.means = network, settings, means
        self.optimizer = None if network.OF_BATCH else build_optimizer(network, settings)
        self._failed_in_a_row = 0

    def take(self, gradient: Hypergradient, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """One step of Ω's optimizer.

        Args:
            gradient: dL_meta/dΩ.
            optimizer: of the classifier's weights, whose schedule Ω may follow.
            step: of training.

        Returns:
            Whether it was taken, by Ω of a batch whether it can be: a step that is not finite would poison Ω, and
            through it the classifier, for good.

        Raises:
            NonFiniteError: none of many updates in a row was finite.
        """
        norm = torch.nn.utils.get_total_norm
        skip = not torch.isfinite(gradient.outer_loss + norm(gradient.total))
        self.means.add("meta_updates_skipped", torch.tensor(float(skip)))
        self._failed_in_a_row = self._failed_in_a_row + 1 if skip else 0
        if self._failed_in_a_row >= MOST_IN_A_ROW:
            raise NonFiniteError(
                f"The meta loss, or its gradient, was not finite for {MOST_IN_A_ROW} updates in a row, the last at "
                f"step {step}: the perturbation network no longer learns. Look for meta images with non-finite or "
                "very large pixels, lower learning_rate, or train in float32."
            )
        if skip:
            return False
        if self.optimizer is not None:
            self._step(gradient, optimizer)
        self.means.add("meta_loss", gradient.outer_loss)
        if not self.network.at_rest:  # where Ω is a number of each sample, every process has its own
            self.means.add("hypergradient_direct", norm(gradient.direct))
            self.means.add("hypergradient_indirect", norm(gradient.indirect))
        return True

    def _step(self, gradient: Hypergradient, optimizer: torch.optim.Optimizer) -> None:
        for parameter, part in zip(self.network.parameters(), gradient.total, strict=True):
            parameter.grad = part
        if self.settings.perturbation_follows_schedule:
            schedule = optimizer.param_groups[0]
            share = schedule["lr"] / schedule["initial_lr"]
            self.optimizer.param_groups[0]["lr"] = self.settings.perturbation_learning_rate * share
        self.optimizer.step()
        self.optimizer.zero_grad()
