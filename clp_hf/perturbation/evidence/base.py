"""The interface of evidence: what something other than the object says about the label."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from ...bilevel import Classifier, FeatureMemory
from ...causal import CausalAugmentation


@dataclass(frozen=True)
class Sources:
    """What there is to make evidence of.

    Attributes:
        num_features: d, of the classifier's penultimate features.
        num_labels: C.
        training_masks: whether training images have a `mask`.
        augmentation: of the run's meta images.
        meta_labels: (m,).
        meta_groups: (m,), class × attribute; None where they are not known.
        training_pairs: labels and groups of the training images, (n,) each, where they are known; for the number of
            attribute values alone.
        meta_images: from indices of meta images to their pixels, (k, 3, H, W), not augmented causally.
        generator: of all that is drawn, on the CPU.
    """

    num_features: int
    num_labels: int
    training_masks: bool
    augmentation: CausalAugmentation
    meta_labels: Tensor
    meta_groups: Tensor | None
    training_pairs: tuple[Tensor, Tensor] | None
    meta_images: Callable[[Sequence[int]], Tensor]
    generator: Generator


class Evidence:
    """The extrinsic logits u_z of CLP's causal graph (Fig. 2) for the images of a batch.

    An evidence is a file with a subclass, and a line in `EVIDENCES`.

    Attributes:
        NAME: by which the arguments ask for it.
        NEEDS: what data it needs, in words.
        STATE: under which name a checkpoint keeps `state_dict`.
        memory: of recent batches, which each process has for itself; None where nothing is remembered.
    """

    NAME: str
    NEEDS: str
    STATE: str
    memory: FeatureMemory | None = None

    @classmethod
    def missing(cls, sources: Sources) -> str | None:
        """Why it cannot be made of these data, a sentence that goes on after "needs"; None where it can."""
        return None

    @classmethod
    def of(cls, sources: Sources) -> "Evidence":
        """The evidence for a classifier, where nothing is `missing`."""
        raise NotImplementedError

    def __call__(self, batch: Mapping[str, Any], features: Tensor, classifier: Classifier) -> Tensor:
        """Predict a batch, then learn from it.

        Args:
            batch: `pixel_values` (n, 3, H, W), `labels` (n,), and `mask`, the `Masks`, where there are any. Images that
                `train_infills` put before another background count like others: u_z is what the background says of the
                label in the images that are trained on, little where half of them are swapped.
            features: of the batch, (n, d), as the training pass has them.
            classifier: for the features of other images.

        Returns:
            u_z, (n, C), without graph, with zero mean over the classes; 0 for images of which nothing is known.
        """
        raise NotImplementedError

    def refit(self, classifier: Classifier) -> None:
        """Fit anew what is too costly to fit at every step; called at every `evidence_every`-th, after the batch."""

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Evidence":
        """Move what is learned."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What is learned, the same in all processes."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        raise NotImplementedError

    def keep(self) -> Callable[[], None]:
        """What it returns brings back what is learned, and remembered, as it is now."""
        state = copy.deepcopy(self.state_dict())
        return lambda: self.load_state_dict(state)
