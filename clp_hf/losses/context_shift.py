"""Context-shift augmentation: images of rare classes in the surroundings of frequent ones."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import Outputs, TrainingLoss, checked_class_counts

PLACES = 8  # a side of the map of where an object is, as many as a CIFAR ResNet's last feature map has


class ContextShift(TrainingLoss):
    """Cross-entropy of images with a borrowed context, on balanced classes (Shi et al. 2023, "How re-sampling helps for
    long-tail learning?", section 4, CSA).

    x̃ = λ M' x' + (1 − λ M') x with λ ~ U(0, 1) for the batch: x' is an image out of a bank and M' = (1 − A')², A' in
    [0, 1] a map of where its object is. The bank holds the last images that the classifier was sure of, p_y ≥
    `confidence`, as frequent as their classes are. Published: 0.8, 128 images, from epoch 10 of 200 on, classes
    equally often (`train_sampling="class"`).

    Taken instead of what is published: one branch in the place of two. There a second head, on images as they are
    frequent, fills the bank; here images of the same balanced batches do, kept with probability n_c / max n. And A is
    the gradient of the own logit in the image, pooled to 8 × 8 places, in the place of Grad-CAM, so that any network
    will do; it is of the pass that trains. Each process has a bank of its own.

    Args:
        class_counts: (C,).
        confidence: in [0, 1].
        bank_size: images, 1 or more.
        start: the share of the training after which contexts are shifted, in [0, 1].

    Attributes:
        bank: images (m, 3, H, W) and masks M (m, 1, H, W), m up to `bank_size`; saved and resumed.
    """

    def __init__(self, class_counts: Tensor, confidence: float = 0.8, bank_size: int = 128, start: float = 0.05):
        super().__init__()
        require(0 <= confidence <= 1, "confidence", confidence, "a probability, in [0, 1]")
        require(bank_size >= 1 and bank_size == int(bank_size), "bank_size", bank_size, "a whole number from 1")
        require(0 <= start <= 1, "start", start, "a share of the training, in [0, 1]")
        self.confidence, self.bank_size, self.start = confidence, int(bank_size), start
        counts = checked_class_counts(class_counts)
        self.register_buffer("frequency", (counts / counts.max()).float())
        self.bank: tuple[Tensor, Tensor] | None = None

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return F.cross_entropy(logits, labels)

    def of_batch(self, classify: Callable[[Tensor], Outputs], batch: Mapping[str, Any]) -> Tensor:
        """As of `TrainingLoss`; in training mode it takes images of the batch into the bank."""
        images, labels = batch["pixel_values"], batch["labels"]
        shown = self.shifted(images).detach().requires_grad_()
        logits = classify(shown).logits
        if self.training:
            self._remember(images, labels, shown, logits)
        return self(logits, labels)

    def shifted(self, images: Tensor) -> Tensor:
        """Each image in the context of one of the bank; as they are where that is empty, and before `start`."""
        if self.bank is None or self.progress < self.start:
            return images
        rows = torch.randint(len(self.bank[0]), (len(images),)).to(images.device)
        others, masks = (part[rows].to(images) for part in self.bank)
        return torch.lerp(images, others, torch.rand(()).item() * masks)

    def _remember(self, images: Tensor, labels: Tensor, shown: Tensor, logits: Tensor) -> None:
        own = logits.gather(1, labels[:, None])[:, 0]
        sure = logits.detach().softmax(-1).gather(1, labels[:, None])[:, 0] >= self.confidence
        kept = sure & (torch.rand(len(labels)).to(labels.device) < self.frequency[labels])
        if not kept.any():
            return
        (gradient,) = torch.autograd.grad(own.sum(), shown, retain_graph=True)
        new = images[kept].detach(), context_mask(gradient[kept])
        joint = new if self.bank is None else tuple(torch.cat(parts) for parts in zip(self.bank, new, strict=True))
        self.bank = tuple(part[-self.bank_size :] for part in joint)

    def get_extra_state(self) -> dict[str, Tensor]:
        """The bank, whose size varies."""
        return {} if self.bank is None else dict(zip(("images", "masks"), self.bank, strict=True))

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `get_extra_state`."""
        device = self.frequency.device
        self.bank = (state["images"].to(device), state["masks"].to(device)) if state else None


def context_mask(gradient: Tensor) -> Tensor:
    """M = (1 − A)², 1 where the object is not.

    Args:
        gradient: (n, 3, H, W), of the own logit in the image.

    Returns:
        (n, 1, H, W) in [0, 1].
    """
    strength = gradient.abs().amax(1, keepdim=True)
    places = F.adaptive_avg_pool2d(strength, tuple(min(PLACES, side) for side in strength.shape[2:]))
    low, high = places.amin((2, 3), keepdim=True), places.amax((2, 3), keepdim=True)
    attention = (places - low) / (high - low).clamp(min=torch.finfo(places.dtype).tiny)
    attention = F.interpolate(attention, strength.shape[2:], mode="bilinear", align_corners=False)
    return (1 - attention.clamp(0, 1)).square()
