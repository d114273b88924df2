"""Features of a frozen backbone over a data set: computed once, kept on disk, never stale."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from ..data.contract import column
from ..modeling import find_classifier_head, forward_with_features

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSet:
    """What a frozen backbone and its head make of a data set of n images.

    Attributes:
        features: (n, d) float32, the input of the final linear layer.
        logits: (n, C) float32.
        labels: (n,) int64, in 0 … C − 1.
        groups: (n,) int64, or None where they are not known.

    Raises:
        ValueError: lengths differ, or a feature is not finite (names the first image that has one).
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    groups: Tensor | None = None

    def __post_init__(self):
        lengths = {name: len(tensor) for name, tensor in self._tensors().items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"A feature set needs as many features, logits, labels and groups, found {lengths}.")
        bad = ~torch.isfinite(self.features).all(1)
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} feature vectors are not finite, the first that of image "
                f"{int(bad.nonzero()[0])}: look for non-finite pixels, or a backbone that overflows in half precision."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> FeatureSet:
        """The images at `index`: a slice, or a tensor of indices or of bools."""
        return FeatureSet(**{name: tensor[index] for name, tensor in self._tensors().items()})

    @property
    def num_classes(self) -> int:
        """C."""
        return self.logits.shape[1]

    def save(self, path: str | os.PathLike, fingerprint: str) -> None:
        """Write a safetensors file; it is there complete or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(descriptor)
        try:
            tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
            save_file(tensors, part, metadata={"fingerprint": fingerprint})
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str) -> FeatureSet:
        """Read what `save` wrote.

        Raises:
            ValueError: the file was made by another model, or of other data or transforms.
        """
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("fingerprint")
            if found != fingerprint:
                raise ValueError(
                    f"{path} holds features of another model, data set or transform (fingerprint {found}, expected "
                    f"{fingerprint}); remove it or choose another file."
                )
            return cls(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}
