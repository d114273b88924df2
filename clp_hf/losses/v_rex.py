"""V-REx: risks that are the same in every environment."""

from torch import Tensor

from .environments import EnvironmentLoss


class VarianceRiskExtrapolation(EnvironmentLoss):
    """Mean of the environments' risks R_e, plus β times their variance (Krueger et al. 2021, "Out-of-distribution
    generalization via risk extrapolation (REx)").

    β is 1 for the first tenth of the training; once it is above 1 the whole is divided by it, as of `IRM`. Published: β
    differs with every experiment; that of DomainBed is 10 from step 500 of 5,000 on. Environments are as frequent as
    they are (`train_sampling="random"`).

    Args:
        cell_counts: (C, G), see `EnvironmentLoss`.
        penalty_weight: β, 0 or more.
        anneal_until: in [0, 1].
    """

    def __init__(self, cell_counts: Tensor, penalty_weight: float = 10.0, anneal_until: float = 0.1):
        super().__init__(cell_counts, penalty_weight, anneal_until)

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        risks = self.risks(logits, labels, *self.split(groups))
        penalty = (risks - risks.mean()).square().mean()
        return self.penalised(risks.mean(), (self.annealed(self.penalty_weight), penalty))
