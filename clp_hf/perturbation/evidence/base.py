"""The interface of evidence: what something other than the object says about the label."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from ...causal import CausalAugmentation


class Evidence:
    """The extrinsic logits u_z of CLP's causal graph (Fig. 2) for the images of a batch.

    An evidence is a file with a subclass, and a line in `EVIDENCES`.

    Attributes:
        SETTING: the field of `CLPTrainingArguments` that asks for it.
        STATE: under which name a checkpoint keeps `state_dict`.
    """

    SETTING: str
    STATE: str

    @classmethod
    def of(
        cls, num_features: int, num_labels: int, augmentation: CausalAugmentation, generator: Generator
    ) -> "Evidence":
        """The evidence for a classifier.

        Args:
            num_features: d, of its penultimate features.
            num_labels: C.
            augmentation: of the run's meta images.
            generator: of all that is drawn, on the CPU.
        """
        raise NotImplementedError

    def __call__(self, batch: Mapping[str, Any], features_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Predict a batch, then learn from it.

        Args:
            batch: `pixel_values` (n, 3, H, W), `labels` (n,), and `mask`, the `Masks`, where there are any; with
                `train_infills` also `swapped`, bool (n,): which images are before another background than their own.
            features_of: the classifier's penultimate features (n, d) of images, without graph.

        Returns:
            u_z, (n, C), with zero mean over the classes; 0 for images of which nothing is known.
        """
        raise NotImplementedError

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Evidence":
        """Move what is learned."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What is learned."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        raise NotImplementedError
