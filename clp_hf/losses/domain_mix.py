"""DomainMix: mixup between environments."""

from torch import Tensor

from .environments import environments_of_groups
from .mixing import Mixing, draw_suitable


class DomainMix(Mixing):
    """Mixup of every image with one of another environment, of whatever class (Xu et al. 2020, "Adversarial domain
    adaptation with domain mixup").

    Theirs adapts to an unlabelled domain: beside the mixture it has a domain discriminator and a decoder, which are
    left out, and labels of one domain alone. What is left, with the labels of both mixed alike, is what LISA (Yao et
    al. 2022) compares with under this name. Partners are drawn from the same batch; an image without one stays as it
    is. Published: α = 2. Environments are as frequent as they are (`train_sampling="random"`).

    Args:
        cell_counts: (C, G), from which `environments_of_groups` tells the environment of an image.
        alpha: more than 0.
    """

    def __init__(self, cell_counts: Tensor, alpha: float = 2.0):
        super().__init__(len(cell_counts), alpha)
        self.register_buffer("environments", environments_of_groups(cell_counts))

    def partners(self, labels: Tensor, groups: Tensor) -> Tensor:
        """As of `Mixing`."""
        environments = self.environments[groups]
        return draw_suitable(environments[:, None] != environments)
