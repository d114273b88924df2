"""What the attribute says about the label, as a few images of known group let it be seen: no mask is needed."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...bilevel import Classifier, FeatureMemory, SoftmaxRegression
from ...bilevel.distributed import all_reduce_mean
from ...modeling.modes import evaluation_layers
from ...utils.precision import at_least_float32
from .base import Evidence, Sources
from .tell_apart import class_given_attribute, tell_apart

MEMORY = 2048  # training images of each process
MOST_META_IMAGES = 256
CHUNK = 64  # images of a pass
FOLDS = 5
RIDGE = 8e-4  # times d, of standardised features: of more of them smaller weights make the same logits
SIGNIFICANCE = 0.05


def attributes_of(labels: Tensor, groups: Tensor) -> tuple[Tensor, int] | None:
    """The attribute of every image, and the number A of its values: group = class · A + attribute, with the smallest A.

    Args:
        labels, groups: (m,).

    Returns:
        (m,), and A; None where the groups are no such pairs.
    """
    for number in range(1, int(groups.max()) + 2):
        if torch.equal(torch.div(groups, number, rounding_mode="floor"), labels):
            return groups % number, number
    return None


def meta_attributes(
    labels: Tensor, groups: Tensor, training_pairs: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, int] | None:
    """As `attributes_of` the meta images, (m,); with values that training images alone have counted in A.

    Args:
        labels, groups: (m,), of the meta images.
        training_pairs: labels and groups of the training images, (n,) each, where they are known.
    """
    pairs = [(labels, groups), *([] if training_pairs is None else [training_pairs])]
    found = attributes_of(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))
    return None if found is None else (found[0][: len(labels)], found[1])


def missing_attributes(
    labels: Tensor, groups: Tensor | None, num_labels: int, training_pairs: tuple[Tensor, Tensor] | None = None
) -> str | None:
    """Why the attribute cannot be learned from these meta images, as of `Evidence.missing`.

    Args:
        labels: (m,).
        groups: (m,), or None where they are not known.
        num_labels: C.
        training_pairs: as of `meta_attributes`.
    """
    if groups is None:
        return "the `group` of every meta image, its class and attribute, and they have none."
    found = meta_attributes(labels, groups, training_pairs)
    if found is None:
        pairs = [
            torch.stack([labels, groups], 1),
            *([] if training_pairs is None else [torch.stack(training_pairs, 1)]),
        ]
        pairs = torch.cat(pairs).unique(dim=0).tolist()
        told = ", ".join(f"{group} of class {label}" for label, group in pairs[:8]) + (" …" if pairs[8:] else "")
        return (
            "groups that are pairs of class and attribute, group = class · number of attribute values + attribute; "
            f"found {told}. Recipes make them of --attribute_column."
        )
    attributes, number = found
    if number == 1:
        return "an attribute of two values or more, and every class is one group: there is nothing to tell apart."
    counts = torch.bincount(attributes, minlength=number)
    if rare := (counts < 2).nonzero()[:, 0].tolist():
        told = "; ".join(
            f"of value {value} (group {', '.join(map(str, range(value, num_labels * number, number)))}) "
            f"there is {'one' if counts[value] else 'none'}"
            for value in rare
        )
        return (
            f"two meta images of every value of the attribute, and {told}. Give the meta set images of it, or raise "
            "meta_samples."
        )
    return None


class AttributeEvidence(Evidence):
    """u_z of the attribute, B V(features): V tells the attribute of an image, B what that says of the class.

    V begins as a probe of the attribute on the meta images alone. From then on it is told apart from what the class
    looks like (`tell_apart`), by the meta images and a memory of training features, and fitted anew every few steps, as
    the features move. Processes fit it to memories of their own, and take the mean.

    Args:
        meta_images: from indices of meta images to their pixels.
        meta_labels, meta_attributes: (m,).
        num_labels: C.
        num_values: A.
    """

    NAME = "attribute"
    NEEDS = "groups of the meta images"
    STATE = "attribute_heads"

    def __init__(
        self,
        meta_images: Callable[[Sequence[int]], Tensor],
        meta_labels: Tensor,
        meta_attributes: Tensor,
        num_labels: int,
        num_values: int,
    ):
        # of every value as many, as far as there are so many; always the same ones
        order = torch.randperm(len(meta_labels), generator=torch.Generator().manual_seed(0))
        rank = torch.empty_like(order)
        for value in range(num_values):
            members = order[meta_attributes[order] == value]
            rank[members] = torch.arange(len(members))
        self.rows = rank.argsort(stable=True)[:MOST_META_IMAGES]
        self.folds = rank[self.rows] % FOLDS
        self.meta_labels, self.meta_attributes = meta_labels[self.rows], meta_attributes[self.rows]
        self.meta_images, self.num_labels, self.num_values = meta_images, num_labels, num_values
        self.memory = FeatureMemory(MEMORY)
        self.heads: Tensor | None = None  # (C + A, d + 1): U, then V; the last column is the bias. Never written to
        self.given: Tensor | None = None  # B, (C, A), likewise

    @classmethod
    def missing(cls, sources: Sources) -> str | None:
        """As of `Evidence`."""
        return missing_attributes(sources.meta_labels, sources.meta_groups, sources.num_labels, sources.training_pairs)

    @classmethod
    def of(cls, sources: Sources) -> "AttributeEvidence":
        """As of `Evidence`."""
        labels = sources.meta_labels
        attributes, number = meta_attributes(labels, sources.meta_groups, sources.training_pairs)
        return cls(sources.meta_images, labels, attributes, sources.num_labels, number)

    def __call__(self, batch: Mapping[str, Any], features: Tensor, classifier: Classifier) -> Tensor:
        """As of `Evidence`; the heads have been fitted before this batch came."""
        features = at_least_float32(features.detach())
        self.memory.add(features=features, labels=batch["labels"])
        with torch.autocast(features.device.type, enabled=False):
            if self.heads is None:
                self._begin(self._meta_features(classifier))
            u_z = self._attribute_logits(features) @ self.given.T
        return u_z - u_z.mean(-1, keepdim=True)

    def refit(self, classifier: Classifier) -> None:
        """As of `Evidence`: B and V, by what is remembered."""
        meta = self._meta_features(classifier)
        with torch.autocast(meta.device.type, enabled=False):
            self._fit_given()
            self._fit_heads(meta)

    @torch.no_grad()
    def _meta_features(self, classifier: Classifier) -> Tensor:
        """(m, d), of the classifier as it will be used."""
        with evaluation_layers(classifier.module):
            parts = [classifier.features(self.meta_images(rows.tolist())) for rows in self.rows.split(CHUNK)]
        return at_least_float32(torch.cat(parts))

    def _attribute_logits(self, features: Tensor) -> Tensor:
        """V, (n, A)."""
        head = self.heads[self.num_labels :]
        return features @ head[:, :-1].T + head[:, -1]

    def _begin(self, meta: Tensor) -> None:
        """A probe of the attribute on the meta images, and how good it is for those that it has not seen."""
        scale = _Scale(meta)
        weight, bias = probe_of_attribute(
            scale(meta), self.meta_attributes, self.num_values, RIDGE * meta.shape[1], self.folds
        )
        head = scale.undone(torch.cat([weight, bias[:, None]], 1))
        (self.heads,) = all_reduce_mean([torch.cat([head.new_zeros(self.num_labels, head.shape[1]), head])])
        self.given = head.new_zeros(self.num_labels, self.num_values)
        self._fit_given()

    def _fit_given(self) -> None:
        """B, by what V says of what is remembered."""
        given, recent = self.given, self.memory.read()
        if len(recent["labels"]):
            attributes = self._attribute_logits(recent["features"]).softmax(-1)
            given = class_given_attribute(attributes, recent["labels"], self.num_labels)
        (self.given,) = all_reduce_mean([given])

    def _fit_heads(self, meta: Tensor) -> None:
        """U and V, by what is remembered and the meta images."""
        heads, recent = self.heads, self.memory.read()
        if len(recent["labels"]) and torch.isfinite(meta).all():
            scale = _Scale(torch.cat([recent["features"], meta]))
            found = tell_apart(
                scale(recent["features"]),
                recent["labels"],
                scale(meta),
                self.meta_labels,
                self.meta_attributes,
                self.given,
                meta.new_ones(1, len(recent["labels"])),
                RIDGE * meta.shape[1],
                start=scale.done(heads)[None],
            )
            found = scale.undone(found[0])
            heads = torch.where(torch.isfinite(found).all(), found, heads)
        (self.heads,) = all_reduce_mean([heads])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "AttributeEvidence":
        """As of `Evidence`."""
        self.folds, self.meta_labels, self.meta_attributes = (
            part.to(device) for part in (self.folds, self.meta_labels, self.meta_attributes)
        )
        return self

    def state_dict(self) -> dict[str, Any]:
        """The heads and B; empty before the first batch."""
        return {} if self.heads is None else {"heads": self.heads, "given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As of `Evidence`."""
        device = self.meta_labels.device
        self.heads, self.given = (state[name].to(device) if name in state else None for name in ("heads", "given"))

    def keep(self) -> Callable[[], None]:
        """As of `Evidence`; nothing is copied."""
        kept = self.heads, self.given, self.memory.batches

        def bring_back():
            self.heads, self.given, self.memory.batches = kept

        return bring_back


class _Scale:
    """Standardises features (n, d) as these; heads (K, d + 1) of standardised features, and of features as they are."""

    def __init__(self, features: Tensor):
        self.mean, std = features.mean(0), features.std(0)
        # features that hardly vary stay small; where none does, there is nothing to scale
        self.std = std + (1e-3 * std.mean()).clamp(min=torch.finfo(std.dtype).tiny ** 0.5)

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std

    def undone(self, heads: Tensor) -> Tensor:
        weight = heads[:, :-1] / self.std
        return torch.cat([weight, (heads[:, -1] - weight @ self.mean)[:, None]], 1)

    def done(self, heads: Tensor) -> Tensor:
        weight, bias = heads[:, :-1], heads[:, -1]
        return torch.cat([weight * self.std, (bias + weight @ self.mean)[:, None]], 1)


def probe_of_attribute(
    features: Tensor, attributes: Tensor, number: int, ridge: float, folds: Tensor, tolerance: float | None = None
) -> tuple[Tensor, Tensor]:
    """What tells the attribute of the meta images: softmax regression on all of them.

    It warns where probes that have not seen an image tell its attribute no better than chance.

    Args:
        features: (m, d).
        attributes: (m,) in 0 … A − 1.
        number: A.
        ridge: λ.
        folds: (m,) in 0 … FOLDS − 1, of the probes that are compared with chance.
        tolerance: of the solution.

    Returns:
        Weight (A, d) and bias (A,).
    """
    left_out = torch.arange(FOLDS, device=folds.device)[:, None] != folds
    weights = torch.cat([torch.ones_like(left_out[:1]), left_out]).to(features.dtype)
    regression = SoftmaxRegression(features, attributes, number)
    offsets = features.new_zeros(*weights.shape, number)
    heads = regression.solve(offsets, weights, features.new_full((len(weights),), ridge), tolerance=tolerance)
    logits = features @ heads.weight[1:].mT + heads.bias[1:, None]  # (folds, m, A)
    found = logits[folds, torch.arange(len(folds), device=folds.device)].argmax(-1)
    _warn_of_chance(int((found == attributes).sum()), attributes)
    return heads.weight[0], heads.bias[0]


def _warn_of_chance(right: int, attributes: Tensor) -> None:
    """Where as many would be right by always naming the most frequent value, with a probability above 0.05.

    Args:
        right: of how many meta images a probe that has not seen them tells the attribute.
        attributes: (m,), of all.
    """
    count = len(attributes)
    chance = torch.bincount(attributes).max().item() / count
    tail = sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(right, count + 1))
    if tail > SIGNIFICANCE:
        warnings.warn(
            f"evidence='attribute': of the {count} meta images a probe tells the attribute of {right / count:.0%} "
            f"(cross-validated), no better than chance ({chance:.0%}). What it says of the training images is then "
            "noise. Look at the groups of the meta set, give it more images of every group (meta_samples), or begin "
            "with a pretrained network; evidence 'background' takes masks instead, and 'bias' nothing.",
            stacklevel=2,
        )
