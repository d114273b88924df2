"""Causal images in training: images of a training batch before another background, or with another object's look."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from .augmentation import CausalAugmentation
from .infills import has_donor
from .masks import Masks, maskable
from .sampling import Role


class TrainingImages:
    """Puts a random share of the images of a training batch before another background; their labels stay.

    With `colour`, `texture` and `shape` the background stays, and the object has another one. With `mix_rand` the
    background is that of an image of another class in the batch. Images whose mask is empty or full, and with
    `mix_rand` those for which the batch has no such donor, stay as they are.

    Args:
        augmentation: has factual infills.
        share: of the images that can be changed, in (0, 1]; each is drawn by itself.
        generator: of this process, on the CPU; all that is drawn comes from it.
        rank, world_size: of this process, and how many there are.
    """

    STATE_FILE = "training_images.pt"  # in a checkpoint

    def __init__(
        self,
        augmentation: CausalAugmentation,
        share: float,
        generator: Generator,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.augmentation, self.share, self.generator = augmentation, share, generator
        self.rank, self.world_size = rank, world_size

    def __call__(self, batch: Mapping[str, Any], logits_fn: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The batch with changed images.

        Args:
            batch: on any device, `pixel_values` (n, 3, H, W), `labels` (n,) and `mask` (n, 1, H, W); one without masks
                stays as it is.
            logits_fn: the current classifier, from images to logits; for `fgsm`.

        Returns:
            The columns of the batch, `mask` as `Masks`, which are those of the new images too; and `swapped`, bool
            (n,): which were changed.
        """
        labels = batch["labels"]
        if "mask" not in batch:
            return {**batch, "swapped": torch.zeros_like(labels, dtype=torch.bool)}
        mask = Masks.of(batch["mask"])
        drawn = (torch.rand(len(labels), generator=self.generator) < self.share).to(labels.device)
        if "mix_rand" in self.augmentation.infills[Role.FACTUAL]:
            drawn &= has_donor(labels, maskable(mask.shaped("box")))
        pixel_values, role = self.augmentation(
            batch["pixel_values"],
            labels,
            mask,
            torch.where(drawn, int(Role.FACTUAL), int(Role.ORIGINAL)),
            generator=self.generator,
            logits_fn=logits_fn,
        )
        return {**batch, "pixel_values": pixel_values, "mask": mask, "swapped": role == Role.FACTUAL}

    def check(self, folder: str) -> None:
        """Refuse to go on from a checkpoint of a run without changed images.

        Raises:
            ValueError: names what is missing, and the fix.
        """
        if not os.path.isfile(os.path.join(folder, self.STATE_FILE)):
            raise ValueError(
                f"{folder} has no {self.STATE_FILE}: it was not written with train_infills. Resume one that was, leave "
                "train_infills empty, or start anew."
            )

    def state_dict(self, gather: Callable[[list], list]) -> dict[str, Any]:
        """The random state of every process; called on each.

        Args:
            gather: joins the lists of all processes.
        """
        return {"generators": gather([self.generator.get_state()])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; with another number of processes all is drawn anew."""
        if len(state["generators"]) == self.world_size:
            self.generator.set_state(state["generators"][self.rank])
