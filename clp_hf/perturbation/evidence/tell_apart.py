"""What a linear head sees of the attribute, told apart from what it sees of the class, by a few images of known group.

Trained on biased images, a head adds both up: the label is explained by the object and by what goes along with it. Two
heads take the sum apart, U for the class and V for the attribute, which are trained together:

    min_{U, V}  mean CE(U(x_i) + B V(x_i), y_i) + ρ/2 mean_meta [CE(U(x_j), y_j) + CE(V(x_j), a_j)] + λ/2 (‖U‖² + ‖V‖²).

On the training images only their sum is seen; the balanced meta images say which is which. B is what the attribute
tells of the class in the training set. The problem is convex. A probe of the attribute that is trained on the meta
images alone finds the attribute nearly as often, but not what a head trained on the labels confuses with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_STEPS = 100
LEAST_LIKELY = 1e-2  # of a class given an attribute, so that one that never occurs has a finite logit


def class_given_attribute(attribute_probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """B: log p(y | a) of a training set in which all classes count the same, over the spread of the widest attribute.

    Args:
        attribute_probabilities: (n, A).
        labels: (n,).
        num_classes: C.

    Returns:
        (C, A), each column with zero mean; 0 where the attribute tells nothing of the class.
    """
    counts = F.one_hot(labels, num_classes).to(attribute_probabilities.dtype).T @ attribute_probabilities
    # one image more of every class, of average attribute: what has hardly been seen says hardly anything
    counts = counts + counts.sum(0) / counts.sum().clamp(min=1e-12)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1e-12)  # p(a | y)
    given = (shares / shares.sum(0).clamp(min=1e-12)).clamp(min=LEAST_LIKELY).log()
    given = given - given.mean(0)
    spread = (given.amax(0) - given.amin(0)).max()
    return given / spread if spread > 0 else given


def tell_apart(
    features: Tensor,
    labels: Tensor,
    meta_features: Tensor,
    meta_labels: Tensor,
    meta_attributes: Tensor,
    given: Tensor,
    weights: Tensor,
    ridge: float,
    meta_weight: float = 1.0,
    start: Tensor | None = None,
) -> Tensor:
    """Solve for U and V, of any number of runs side by side, by L-BFGS.

    Args:
        features: (n, d), of training images, standardised.
        labels: (n,).
        meta_features, meta_labels, meta_attributes: (m, d), (m,) and (m,).
        given: B, (C, A), of `class_given_attribute`.
        weights: (R, n), of the training images in each run, such as 0 for those of a fold that is left out.
        ridge: λ, above 0.
        meta_weight: ρ.
        start: of an earlier solution near by.

    Returns:
        (R, C + A, d + 1): U, then V; the last column is the bias, of a constant feature of 1.
    """
    classes, attributes = given.shape
    runs, wide = len(weights), features.shape[1] ** 0.5  # the bias: shrunk as little as of a feature as long as all
    inputs, meta_inputs = (torch.cat([x, x.new_full((len(x), 1), wide)], 1) for x in (features, meta_features))
    share = (weights / weights.sum(1, keepdim=True))[..., None]
    targets = F.one_hot(labels, classes).to(features.dtype)
    theta = features.new_zeros(runs, classes + attributes, inputs.shape[1]) if start is None else start.clone()
    if start is not None:
        theta[..., -1] /= wide
    theta.requires_grad_()
    optimizer = torch.optim.LBFGS([theta], max_iter=MOST_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        both = (inputs @ theta.flatten(0, 1).T).unflatten(1, (runs, -1)).transpose(0, 1)
        own, other = both.split([classes, attributes], -1)
        loss = -(share * targets * (own + other @ given.T).log_softmax(-1)).sum()
        meta = (meta_inputs @ theta.flatten(0, 1).T).unflatten(1, (runs, -1)).transpose(0, 1)
        own, other = (part.flatten(0, 1) for part in meta.split([classes, attributes], -1))
        for logits, wanted in ((own, meta_labels), (other, meta_attributes)):
            loss = loss + meta_weight / 2 * runs * F.cross_entropy(logits, wanted.repeat(runs))
        loss = loss + ridge / 2 * theta.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    heads = theta.detach().clone()
    heads[..., -1] *= wide
    return heads
