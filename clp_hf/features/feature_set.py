"""What a frozen backbone makes of a data set, and the linear head on it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..modeling.head import ComposedHead
from ..utils.files import write_whole


class DamagedFile(ValueError):
    """A file that is not as it was written."""


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
            save_file(tensors, part, metadata={"fingerprint": fingerprint, "sha256": _digest(tensors)})

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str) -> FeatureSet:
        """Read what `save` wrote.

        Raises:
            ValueError: the file was made by another model, or of other data or transforms.
            DamagedFile: it is not what was written.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DamagedFile(f"{path} is damaged ({error}); remove it.") from error
        if metadata.get("sha256", digest := _digest(tensors)) != digest:  # which earlier versions did not write
            raise DamagedFile(f"{path} is damaged: its values are not those that were written; remove it.")
        if (found := metadata.get("fingerprint")) != fingerprint:
            raise ValueError(
                f"{path} holds features of another model, data set or transform (fingerprint {found}, expected "
                f"{fingerprint}); remove it or choose another file."
            )
        return cls(**tensors)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


class Head(NamedTuple):
    """A linear head: `weight` (C, d) and `bias` (C,)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear | ComposedHead) -> Head:
        """A copy of a model's final linear layer, on the CPU in float32; without a bias it is 0."""
        weight, bias = layer.weight.detach(), layer.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        return cls(weight.cpu().float().clone(), bias.cpu().float().clone())

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) features to (n, C) logits."""
        return features @ self.weight.T + self.bias

    def accuracy(self, on: FeatureSet) -> tuple[float, float]:
        """As `worst_and_average`, of what it makes of these features."""
        return worst_and_average(self.logits(on.features), on.labels, on.groups)


def worst_and_average(logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> tuple[float, float]:
    """Accuracy of the worst group, or of the worst class where `groups` is None, and of all samples, in [0, 1].

    Args:
        logits: (n, C).
        labels: (n,).
        groups: (n,) or None. Groups and classes without samples do not count.
    """
    correct = (logits.argmax(1) == labels).double()
    cells = labels if groups is None else groups
    return min(correct[cells == cell].mean().item() for cell in cells.unique()), correct.mean().item()
