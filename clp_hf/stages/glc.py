"""How labels go wrong, estimated on images of which the true label is known."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Learned, Reference


def glc(reference: Reference) -> Learned:
    """The corruption matrix of Gold Loss Correction (Hendrycks et al. 2018, "Using trusted data to train deep networks
    on labels corrupted by severe noise", Eq. 1 and 2), for the loss `gold_loss_correction`.

    The second network is trained from the start, on training images by the corrected loss and on the meta images, the
    trusted ones, by the cross-entropy.

    Args:
        reference: of a network trained on the given labels as they are frequent; with a meta set.
    """
    corruption = corruption_matrix(reference.meta.logits, reference.meta.labels, reference.train.num_classes)
    kept = corruption.diagonal().mean()
    told = f"Labels were estimated to be the given ones in {100 * kept:.0f} % of the images, the mean over the classes."
    return Learned(told, corruption=corruption)


def corruption_matrix(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Ĉ_kj = 1/|A_k| Σ_{x in A_k} p̂(ỹ = j | x), A_k the trusted images of class k.

    Args:
        logits: (m, C), on trusted images, of a network trained on given labels.
        labels: (m,), the true ones, of every class.
        num_classes: C.

    Raises:
        ValueError: a class has no trusted image.
    """
    members = torch.nn.functional.one_hot(labels, num_classes).double()
    if missing := (members.sum(0) == 0).nonzero()[:, 0].tolist():
        raise ValueError(f"GLC needs trusted images of every class; the meta set has none of the classes {missing}.")
    return ((members / members.sum(0)).T @ logits.double().softmax(1)).float()
