"""What the background alone says about the label (CLP, Fig. 2)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from ...bilevel import Classifier
from ...causal import CausalAugmentation, Role
from .base import Sources
from .probe import OnlineProbe, ProbeEvidence


class BackgroundEvidence(ProbeEvidence):
    """u_z of the background: an `OnlineProbe` on the batch's images without their foreground.

    Args:
        probe: learns along.
        augmentation: takes the foreground out; it has counterfactual infills.
        generator: of its random fillings.
    """

    NAME = "background"
    NEEDS = "masks of the training images"
    STATE = "background_probe"

    def __init__(self, probe: OnlineProbe, augmentation: CausalAugmentation, generator: Generator):
        super().__init__(probe)
        self.augmentation, self.generator = augmentation, generator

    @classmethod
    def missing(cls, sources: Sources) -> str | None:
        """As of `Evidence`."""
        if not sources.training_masks:
            return (
                "a `mask` for every training image, and they have none. Give the data set a mask or box column "
                "(--mask_column, --box_column)."
            )
        if not sources.augmentation.infills[Role.COUNTERFACTUAL]:
            return "counterfactual_infills, to take the foreground out of images."
        return None

    @classmethod
    def of(cls, sources: Sources) -> "BackgroundEvidence":
        """As of `Evidence`."""
        probe = OnlineProbe(sources.num_features, sources.num_labels)
        return cls(probe, sources.augmentation, sources.generator)

    def __call__(self, batch: Mapping[str, Any], features: Tensor, classifier: Classifier) -> Tensor:
        """As of `Evidence`; 0 for images that cannot be masked, which teach nothing either."""
        pixel_values, role = self.augmentation(
            batch["pixel_values"],
            batch["labels"],
            batch["mask"],
            torch.full((len(batch["labels"]),), int(Role.COUNTERFACTUAL)),
            generator=self.generator,
        )
        masked = role == Role.COUNTERFACTUAL
        logits = self.probe(classifier.features(pixel_values), batch["labels"], learn_from=masked)
        return logits * masked[:, None]
