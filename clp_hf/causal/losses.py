"""Meta losses. Labels of a counterfactual image are its original ones, read as "not y"."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.precision import at_least_float32


def counterfactual_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`−log(1 − P(y))` (Eq. 3): the image shows anything but its former class.

    With `S` the log-sum-exp over the other classes it is `softplus(logit_y − S)`: exact where `P(y)` is near 0, where
    the difference of two log-sum-exps would cancel, and finite where `P(y)` rounds to 1.

    Args:
        logits: `(n, classes)`, two classes or more; half precision is computed in float32.
        labels: `(n,)` int64.

    Returns:
        Losses `(n,)`, at least 0.
    """
    logits = at_least_float32(logits)
    own = F.one_hot(labels, logits.shape[1]).bool()
    # Centred first: at 10³ and beyond, the log-sum-exp itself would round away the differences its gradient lives on.
    logits = logits - logits.masked_fill(own, -torch.inf).amax(1, keepdim=True).detach()
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    own_logit = logits.gather(1, labels[:, None]).squeeze(1)
    return F.softplus(own_logit - others, threshold=40)  # beyond 40, softplus(x) = x to float64 precision


def meta_loss(logits: Tensor, labels: Tensor, counterfactual: Tensor) -> Tensor:
    """Mean of `counterfactual_loss` where `counterfactual` `(n,)` bool is set and of the cross-entropy elsewhere."""
    logits = at_least_float32(logits)
    ordinary = F.cross_entropy(logits, labels, reduction="none")
    return torch.where(counterfactual, counterfactual_loss(logits, labels), ordinary).mean()
