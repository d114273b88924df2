"""Meta batches: meta images in their roles, augmented."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from .augmentation import CausalAugmentation
from .masks import Masks
from .sampling import MetaSampler, Role


class MetaBatches:
    """Draws batches of the meta set; everything random in them comes from one generator.

    Args:
        meta_set: its `fetch` makes a batch (`pixel_values`, `labels`, maybe `mask`) of the indices of its images.
        prepare: brings a batch to the run's device.
        sampler: says which images come in which role, for all processes.
        augmentation: makes counterfactual and factual images.
        generator: of this process, on the CPU.
        rank, world_size: of this process, and how many there are: each takes every `world_size`-th row.
    """

    def __init__(
        self,
        meta_set: Any,
        prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        sampler: MetaSampler,
        augmentation: CausalAugmentation,
        generator: Generator,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.meta_set, self.prepare = meta_set, prepare
        self.sampler, self.augmentation, self.generator = sampler, augmentation, generator
        self.rank, self.world_size = rank, world_size
        self._batches = iter(sampler)

    def images(self, indices: Sequence[int]) -> dict[str, Any]:
        """The meta images of these indices as they are, on the run's device; their crops are drawn."""
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            return dict(self.prepare(self.meta_set.fetch(indices)))

    def draw(self, logits_fn: Callable[[Tensor], Tensor], donors: Mapping[str, Any] | None) -> dict[str, Any]:
        """The next batch (Eq. 2 and 4).

        Args:
            logits_fn: the current classifier, from images to logits; for `fgsm`.
            donors: the training batch where it has masks, from which backgrounds are borrowed.

        Returns:
            What the meta set gives, with augmented `pixel_values`, `mask` as `Masks`, and `counterfactual`, bool (n,).
        """
        rows = next(self._batches)[self.rank :: self.world_size]
        batch = self.images([index for index, _ in rows])
        if "mask" in batch:
            batch["mask"] = Masks.of(batch["mask"])
        role = torch.tensor([role for _, role in rows])
        batch["pixel_values"], role = self.augmentation(
            batch["pixel_values"],
            batch["labels"],
            batch.get("mask"),
            role,
            generator=self.generator,
            logits_fn=logits_fn,
            donors=donors,
        )
        batch["counterfactual"] = role == Role.COUNTERFACTUAL
        return batch
