"""Targeted adversarial attack on the background, the `fgsm` factual infill."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..utils.precision import at_least_float32
from .draws import random_integers

DEFAULT_EPSILON = 0.1


def fgsm(
    images: Tensor,
    region: Tensor,
    generator: Generator,
    *,
    labels: Tensor,
    logits_fn: Callable[[Tensor], Tensor],
    epsilon: float = DEFAULT_EPSILON,
) -> Tensor:
    """One targeted fast-gradient-sign step on the background towards a random other class, in the ℓ∞ norm.

    `x̂ = clip(x − ε sign(∂ CE(logits(x), target) / ∂x), 0, 1)` on `region`, `x` elsewhere (section 3.2.1 of the CLP
    paper, "FGSM"). The factual image keeps its label, so the classifier learns not to follow a background that pleads
    for another class. Parameters receive no gradient. A batch norm in training mode would tie the images of a batch
    together and move its statistics: `logits_fn` decides the mode.

    The paper's Table 3 says ε = 0.5 without a unit. In pixel units that saturates the background to posterised noise;
    taken in units of CIFAR's pixel standard deviation (about 0.25) it is the 0.1 of this default, at which the place
    stays recognisable and the attack visible.

    Args:
        images: `(n, channels, height, width)` in [0, 1].
        region: `(n, 1, height, width)` binary; 1 = background, the pixels under attack.
        generator: draws the target classes.
        labels: `(n,)`.
        logits_fn: images in [0, 1] to logits `(n, classes)`, differentiable; normalisation is inside it.
        epsilon: largest change of a pixel, in units of the pixel range [0, 1].

    Returns:
        Images of the same shape, detached.

    Raises:
        ValueError: fewer than two classes.
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        logits = logits_fn(pixels)
        num_classes = logits.shape[1]
        if num_classes < 2:
            raise ValueError(f"A targeted attack needs two classes or more, found logits for {num_classes}.")
        target = (labels + random_integers(1, num_classes, labels.shape, generator, labels.device)) % num_classes
        (gradient,) = torch.autograd.grad(F.cross_entropy(at_least_float32(logits), target, reduction="sum"), pixels)
    return torch.where(region > 0, (images - epsilon * gradient.sign()).clamp(0, 1), images)
