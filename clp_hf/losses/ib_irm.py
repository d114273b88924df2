"""IB-IRM: invariant risk minimisation with an information bottleneck on the features."""

from torch import Tensor

from ..utils.options import require
from .irm import IRM


class InformationBottleneckIRM(IRM):
    """IRM plus γ times the mean over environments of the variance of their features (Ahuja et al. 2021, "Invariance
    principle meets information bottleneck for out-of-distribution generalization", section 4).

    The variance in the batch, mean over the d features, stands for their entropy, as in the paper's experiments. It is
    divided by the number of images, not by one less, so that an environment with one image has none. γ is 0 for the
    first tenth of the training; the larger of γ and λ divides the whole. Published: γ and λ are tuned for every
    experiment; DomainBed has both at 100.

    Args:
        cell_counts, penalty_weight, anneal_until: as of `IRM`.
        bottleneck_weight: γ, 0 or more.
    """

    takes_features = True

    def __init__(
        self,
        cell_counts: Tensor,
        penalty_weight: float = 100.0,
        bottleneck_weight: float = 100.0,
        anneal_until: float = 0.1,
    ):
        super().__init__(cell_counts, penalty_weight, anneal_until)
        require(bottleneck_weight >= 0, "bottleneck_weight", bottleneck_weight, "0 or more")
        self.bottleneck_weight = bottleneck_weight

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor, features: Tensor) -> Tensor:
        """As of `TrainingLoss`."""
        members, sizes = self.split(groups)
        risk = self.risks(logits, labels, members, sizes).mean()
        invariance = self.invariance(logits, labels, members, sizes)
        members = members.to(features.dtype)
        centred = features - members.T @ (members @ features / sizes)
        variances = members @ centred.square() / sizes
        bottleneck = self.annealed(self.bottleneck_weight, before=0.0)
        return self.penalised(risk, invariance, (bottleneck, variances.mean()))
