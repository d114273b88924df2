"""u_z of a whole training set from features of a frozen backbone, each image judged by what was not fitted on it.

The same three kinds of evidence as in training, where the features move; here they stay, and what is fitted is fitted
to the end. Features are standardised, the ridge is in units of their mean squared length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...bilevel.implicit import SoftmaxRegression
from .attribute import FOLDS, probe_of_attribute
from .tell_apart import class_given_attribute, tell_apart

PROBE_RIDGE = 1e-4
BIAS_POWER = 0.7  # q of the generalised cross-entropy (Zhang and Sabuncu 2018), as in LfF (Nam et al. 2020)
BIAS_STEPS = 50
LEAST_SHARE = 1e-4  # of a group in its class
META_WEIGHT = 2.0  # of the meta images beside all training images, by which class and attribute are told apart


@dataclass(frozen=True)
class Material:
    """What evidence is made of.

    Attributes:
        features: (n, d), of the training images.
        labels: (n,).
        num_classes: C.
        weights: (n,), by which all classes count the same.
        fold: (n,), in 0 … K − 1.
        background: (n, d), of the training images without their foreground, where there are masks.
        maskable: bool (n,), which of these are without it.
        meta_features, meta_labels: (m, d) and (m,).
        meta_attributes: (m,), where they are known.
        ridge: of the head.
        meta_groups: (m,), where they are known.
    """

    features: Tensor
    labels: Tensor
    num_classes: int
    weights: Tensor
    fold: Tensor
    background: Tensor | None
    maskable: Tensor | None
    meta_features: Tensor
    meta_labels: Tensor
    meta_attributes: Tensor | None
    ridge: float
    meta_groups: Tensor | None = None

    @property
    def length(self) -> float:
        """The mean squared length of a feature vector."""
        return float(self.features.square().sum(1).mean())

    @property
    def left_out(self) -> Tensor:
        """(K, n): the weights of the training images in the run that judges each fold."""
        folds = torch.arange(int(self.fold.max()) + 1)
        return self.weights * (self.fold != folds[:, None])


def background_evidence(of: Material) -> Tensor:
    """What the background alone says about the label: softmax regression on backgrounds.

    Returns:
        (n, C); 0 for images that cannot be masked.
    """
    regression = SoftmaxRegression(of.background, of.labels, of.num_classes)
    weights = of.left_out * of.maskable
    ridge = PROBE_RIDGE * of.background.square().sum(1).mean()
    heads = regression.solve(
        weights.new_zeros(*weights.shape, of.num_classes), weights, ridge.expand(len(weights)), tolerance=1e-3
    )
    return _out_of_fold(of.background @ heads.weight.mT + heads.bias[:, None], of.fold) * of.maskable[:, None]


def attribute_evidence(of: Material) -> Tensor:
    """What the attribute says about the label, from the meta images' attributes (`tell_apart`) or, of groups that lie
    each in one class only, from how frequent the group is (`group_frequency`).

    It warns where a probe tells these no better than chance.

    Returns:
        (n, C).
    """
    if of.meta_attributes is None:
        return group_frequency(of)
    attributes = int(of.meta_attributes.max()) + 1
    seen = _meta_probe(of, of.meta_attributes, attributes)
    given = class_given_attribute(seen, of.labels, of.num_classes)
    heads = tell_apart(
        of.features, of.labels, of.meta_features, of.meta_labels, of.meta_attributes, given, of.left_out,
        of.ridge * of.length, META_WEIGHT,
    )[:, of.num_classes :]  # fmt: skip
    return _out_of_fold(of.features @ heads[..., :-1].mT + heads[..., -1][:, None], of.fold) @ given.T


def group_frequency(of: Material) -> Tensor:
    """The logarithm of how frequent an image's group is inside a class, were the image of that class.

    It is logit adjustment (Menon et al. 2021) by what varies inside the classes, as in generalised long tails: of a
    class with a frequent and a rare group, images like the frequent one say the class too loudly.

    Returns:
        (n, C).
    """
    groups = int(of.meta_groups.max()) + 1
    owner = torch.zeros(groups, dtype=torch.long).scatter(0, of.meta_groups, of.meta_labels)
    seen = _meta_probe(of, of.meta_groups, groups)
    own = seen * (owner == of.labels[:, None])
    counts = (own / own.sum(1, keepdim=True).clamp(min=1e-12)).sum(0)  # of the training set, as the probe sees it
    belongs = F.one_hot(owner, of.num_classes).to(seen.dtype)
    shares = counts / (counts @ belongs)[owner].clamp(min=1e-12)
    expected = (seen * shares) @ belongs / (seen @ belongs).clamp(min=1e-12)
    return expected.clamp(min=LEAST_SHARE).log()


def _meta_probe(of: Material, targets: Tensor, number: int) -> Tensor:
    """(n, number): what a probe that was trained on the meta images sees in the training images."""
    folds = torch.empty_like(targets)
    folds[targets.argsort(stable=True)] = torch.arange(len(folds)) % FOLDS  # every value in every part
    weight, bias = probe_of_attribute(of.meta_features, targets, number, PROBE_RIDGE * of.length, folds, tolerance=1e-3)
    return (of.features @ weight.T + bias).softmax(-1)


def bias_evidence(of: Material) -> Tensor:
    """What is learned first and most easily: a twin of the head, trained with generalised cross-entropy.

    Returns:
        (n, C).
    """
    left_out = of.left_out
    share = left_out / left_out.sum(1, keepdim=True)
    length = of.length
    inputs = torch.cat([of.features, of.features.new_full((len(of.features), 1), length**0.5)], 1)
    theta = inputs.new_zeros(len(share), of.num_classes, inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=BIAS_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        probabilities = (inputs @ theta.mT).softmax(-1).gather(-1, of.labels[None, :, None].expand(len(share), -1, 1))
        losses = (1 - probabilities[..., 0].clamp(min=1e-12) ** BIAS_POWER) / BIAS_POWER
        loss = (share * losses).sum() + PROBE_RIDGE * length / 2 * theta.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return _out_of_fold(inputs @ theta.detach().mT, of.fold)


ON_FEATURES: dict[str, Callable[[Material], Tensor]] = {
    "background": background_evidence,
    "attribute": attribute_evidence,
    "bias": bias_evidence,
}


def evidence_on_features(kind: str, of: Material) -> Tensor:
    """u_z of one kind, (n, C), with zero mean over the classes."""
    logits = ON_FEATURES[kind](of)
    return logits - logits.mean(-1, keepdim=True)


def agreement(evidence: Tensor, labels: Tensor) -> float:
    """The share of images for which evidence (n, C) favours their own label."""
    return (evidence.argmax(-1) == labels).float().mean().item()


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(n,), of mean 1, by which all classes that occur count the same."""
    counts = F.one_hot(labels, num_classes).sum(0)
    return (len(labels) / ((counts > 0).sum() * counts.clamp(min=1)))[labels]


def _out_of_fold(logits: Tensor, fold: Tensor) -> Tensor:
    """(n, C) of logits (K, n, C): of each image those of the run that left it out."""
    return logits[fold, torch.arange(len(fold))]
