"""What a first stage leaves, and what is learned of it for the second one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..features.feature_set import FeatureSet
from ..utils.files import write_whole

TENSORS = ("group", "weight", "corruption")


@dataclass(frozen=True)
class Reference:
    """What the classifier of a first stage makes of the images, preprocessed as for evaluation.

    Attributes:
        train: of the n training images.
        meta: of the meta set, which has clean labels and, where any are known, groups; None without one.
        label_names: of the C classes.
        group_names: of the groups that are known of; None without any.
        seed: of whatever is drawn.
    """

    train: FeatureSet
    meta: FeatureSet | None
    label_names: Sequence[str]
    group_names: Sequence[str] | None
    seed: int


@dataclass(frozen=True)
class Learned:
    """What the second stage is given of the training images.

    Attributes:
        told: what was learned, in one sentence.
        group: (n,) int64, in the place of known groups.
        weight: (n,) float, 0 or more: how often an image is drawn, in proportion.
        corruption: (C, C), the probability of the given label (column) where the true one is the row. The meta images
            are trained on too, then, as trusted ones.
    """

    told: str
    group: Tensor | None = None
    weight: Tensor | None = None
    corruption: Tensor | None = None

    def save(self, path: str | os.PathLike, fingerprint: str) -> None:
        """Write a safetensors file; it is there complete or not at all."""
        tensors = {name: getattr(self, name) for name in TENSORS if getattr(self, name) is not None}
        with write_whole(path) as part:
            save_file(tensors, part, metadata={"fingerprint": fingerprint, "told": self.told})

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str) -> Learned | None:
        """What `save` wrote with the same fingerprint; None where there is nothing of the kind."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != fingerprint:
                    return None
                return cls(metadata["told"], **{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
