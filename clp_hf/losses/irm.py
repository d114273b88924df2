"""Invariant risk minimisation: one head that is optimal in every environment at once."""

from torch import Tensor

from .environments import EnvironmentLoss


class IRM(EnvironmentLoss):
    """Mean over environments of R_e + λ ‖∇_{w | w = 1} R_e(w · u)‖² (Arjovsky et al. 2019, "Invariant risk
    minimization", IRMv1).

    The gradient by the scale w of the logits is the mean of s = Σ_c p_c u_c − u_y over the images of e. Its square is
    estimated without bias, as in their appendix D, but by the mean of s_i s_j over all pairs of two images, in place of
    one split into halves; an environment with one image in the batch has none. λ is 1 for the first tenth of the
    training; once it is above 1 the whole is divided by it, as in the authors' code. Published: λ and that share differ
    with every experiment; those of DomainBed (Gulrajani & Lopez-Paz 2021) are λ = 100 from step 500 of 5,000 on.
    Environments are as frequent as they are (`train_sampling="random"`).

    Args:
        cell_counts: (C, G), see `EnvironmentLoss`.
        penalty_weight: λ, 0 or more.
        anneal_until: in [0, 1].
    """

    def __init__(self, cell_counts: Tensor, penalty_weight: float = 100.0, anneal_until: float = 0.1):
        super().__init__(cell_counts, penalty_weight, anneal_until)

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        members, sizes = self.split(groups)
        risk = self.risks(logits, labels, members, sizes).mean()
        return self.penalised(risk, self.invariance(logits, labels, members, sizes))

    def invariance(self, logits: Tensor, labels: Tensor, members: Tensor, sizes: Tensor) -> tuple[float, Tensor]:
        """The weight λ as of now, and its penalty; `members` and `sizes` are those of `split`."""
        members = members.to(logits.dtype)
        own = logits.gather(1, labels[:, None])
        slopes = (logits.softmax(-1) * logits).sum(-1, keepdim=True) - own
        pairs = (members @ slopes).square() - members @ slopes.square()
        penalty = pairs / (sizes * (sizes - 1)).clamp(min=1)
        return self.annealed(self.penalty_weight), penalty.mean()
