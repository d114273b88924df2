"""Labels that are probably wrong, told apart from images that are rare in their class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..discovery.groups import is_shortcut
from ..discovery.probe import CrossValidatedHeads, best_other, folds, margin, told_above_chance
from ..features import CausalFeatures

# How much more, in log-odds, has to speak against the label of an image before the background of another class. Objects
# that are cut out by a guess keep some of theirs. Chosen on other flips than those of the results.
WITH_MASKS, WITHOUT_MASKS = 0.25, 1.25


@dataclass(frozen=True)
class SuspectLabels:
    """Of n images.

    Attributes:
        suspicion: (n,), in [0, 1]: above 0.5 the label is taken to be wrong.
        should_be: (n,), the best other class.
        loss: (n,), cross-entropy of the label, cross-validated, by a head that sees the whole image.
        rare: bool (n,), image and background speak against the label, and the object, seen before another background,
            for it: an image that is rare in its class. None is, where the background is no shortcut.
        told: how well background and image tell the class, above chance.
    """

    suspicion: Tensor
    should_be: Tensor
    loss: Tensor
    rare: Tensor
    told: dict[str, float]

    @property
    def flagged(self) -> Tensor:
        """bool (n,)."""
        return self.suspicion > 0.5

    @property
    def ranked(self) -> Tensor:
        """Indices of the flagged images, the most suspect first."""
        order = self.suspicion.argsort(descending=True, stable=True)
        return order[self.flagged[order]]


def suspect_labels(
    images: CausalFeatures,
    num_classes: int,
    swapped: Callable[[Tensor], Tensor],
    caution: float = WITH_MASKS,
    learn_from: Tensor | None = None,
    seed: int = 0,
) -> SuspectLabels:
    """Judge every label by heads that have not seen it.

    Where the background tells the class nearly as well as the image does, an image before an unusual background looks
    mislabelled to any head. So a second one learns from images whose background agrees with their label, where few
    labels are wrong, and from the same objects before backgrounds of other places; an image is flagged only if both
    speak against its label. Elsewhere the second head learns from the images whose label the first one found right, and
    it alone judges.

    Args:
        images: features of the images and of their backgrounds.
        num_classes: C.
        swapped: from places (n,) to features (n, d) of every object before the background of another place.
        caution: by how much, in log-odds, more has to speak against the label of an image whose background is that of
            another class: `WITH_MASKS` or `WITHOUT_MASKS`.
        learn_from: bool (n,), the training images, by default all: a shortcut is theirs, and balanced test images among
            them would hide it. Other images are judged alone.
        seed: of the folds.
    """
    labels, features = images.labels, images.images.features
    learn_from = torch.ones_like(labels, dtype=torch.bool) if learn_from is None else learn_from
    fold = folds(labels, seed)
    first = CrossValidatedHeads([features], labels, num_classes, fold, learn_from).logits
    background = CrossValidatedHeads([images.background], labels, num_classes, fold, learn_from).logits
    told = {
        name: told_above_chance(logits[learn_from], labels[learn_from])
        for name, logits in (("image", first), ("background", background))
    }
    shortcut = is_shortcut(told)
    places = background.argmax(1)
    views = [features, swapped(places)] if shortcut else [features]
    agreed = (places if shortcut else first.argmax(1)) == labels
    trusted = _enough(agreed & learn_from, learn_from, labels, fold)
    second = CrossValidatedHeads(views, labels, num_classes, fold, trusted).logits
    spoken_for = margin(second, labels)
    elsewhere = places != labels
    rare = torch.zeros_like(elsewhere)
    if shortcut:
        by_image = margin(first, labels)
        rare = elsewhere & (by_image < 0) & (spoken_for >= 0)
        spoken_for = torch.maximum(spoken_for + caution * elsewhere, by_image)
    return SuspectLabels(
        torch.sigmoid(-spoken_for),
        best_other(second, labels).indices,
        torch.nn.functional.cross_entropy(first, labels, reduction="none"),
        rare,
        told,
    )


def _enough(trusted: Tensor, learn_from: Tensor, labels: Tensor, fold: Tensor) -> Tensor:
    """With all training images of a class of which too few are trusted to learn from when any fold is left out."""
    found = trusted.clone()
    for label in labels.unique():
        members = labels == label
        if len(fold[members & trusted].unique()) < 2:
            found |= members & learn_from
    return found
