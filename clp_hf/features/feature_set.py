"""What a frozen backbone makes of a data set, and the linear head on it."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..utils.files import write_whole


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
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        with write_whole(path) as part:
            save_file(tensors, part, metadata={"fingerprint": fingerprint})

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


class Head(NamedTuple):
    """A linear head: `weight` (C, d) and `bias` (C,)."""

    weight: Tensor
    bias: Tensor
