"""How the features of every class are distributed, estimated while the classifier trains."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bilevel.distributed import all_gather_rows

FULL_COVARIANCES = 2**26  # numbers, in all classes together, of 256 MB in float32


class ClassMoments(nn.Module):
    """Mean and covariance of the features of every class, over all batches so far (Wang et al. 2019, supplement A).

    Batches are merged as parts of one sample: n ← n + m, μ ← (n μ + m μ') / (n + m), Σ ← (n Σ + m Σ') / (n + m) +
    n m (μ − μ')(μ − μ')ᵀ / (n + m)², with μ' and Σ' of the m images of the class in the batch. With several processes
    the batch is the joint one. Of very many features and classes (ResNet-50 on ImageNet) the diagonals are kept, as
    the paper does there.

    Args:
        num_labels: C.
        num_features: d.

    Attributes:
        counts, means: (C,) and (C, d).
        covariances: (C, d, d); where these were more than `FULL_COVARIANCES` numbers, their diagonals (C, d).
    """

    def __init__(self, num_labels: int, num_features: int):
        super().__init__()
        self.full = num_labels * num_features**2 <= FULL_COVARIANCES
        self.register_buffer("counts", torch.zeros(num_labels))
        self.register_buffer("means", torch.zeros(num_labels, num_features))
        self.register_buffer("covariances", self._squares(torch.zeros(num_labels, num_features)))

    def _squares(self, vectors: Tensor) -> Tensor:
        """v vᵀ of every vector (…, d), or its diagonal."""
        return vectors[..., :, None] * vectors[..., None, :] if self.full else vectors.square()

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in a batch: features (n, d) and labels (n,)."""
        features, labels = all_gather_rows([features.detach(), labels])
        features = features.to(self.means.dtype)
        classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
        members = F.one_hot(place, len(classes)).T.to(features.dtype)
        means = members @ features / sizes[:, None]
        centred = features - means[place]
        if self.full:
            covariances = (members[:, :, None] * centred).mT @ centred / sizes[:, None, None]
        else:
            covariances = members @ centred.square() / sizes[:, None]
        share = (sizes / (self.counts[classes] + sizes)).to(features.dtype)[:, None]
        shift = means - self.means[classes]
        wide = share[:, :, None] if self.full else share
        between = wide * (1 - wide) * self._squares(shift)
        self.covariances[classes] = torch.lerp(self.covariances[classes], covariances, wide) + between
        self.means[classes] += share * shift
        self.counts[classes] += sizes

    def spreads(self, weight: Tensor, classes: Tensor, covariances: Tensor) -> Tensor:
        """(w_j − w_y)ᵀ Σ (w_j − w_y) of every y in `classes` and every class j.

        Args:
            weight: (C, d), the rows w.
            classes: (k,) integers.
            covariances: Σ of each of them, (k, d, d) or diagonals (k, d).

        Returns:
            (k, C).
        """
        covariances = covariances.to(weight.dtype)
        if self.full:
            moved = weight @ covariances
            squares = (moved * weight).sum(-1)
            moved = moved[torch.arange(len(classes), device=classes.device), classes]
        else:
            squares = covariances @ weight.square().T
            moved = covariances * weight[classes]
        return squares - 2 * moved @ weight.T + squares.gather(1, classes[:, None])
