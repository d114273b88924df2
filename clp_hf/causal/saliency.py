"""Saliency regularisation: the probability of the true class must not depend on the background."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..utils.precision import at_least_float32
from .masks import maskable


def saliency_penalty(forward: Callable[[Tensor], Tensor], pixel_values: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Eq. 6 without λ, `Σ_pixels (∂p_y/∂x)² (1 − r) / Σ_pixels (1 − r)`, averaged over the images that can be masked.

    `p` is the softmax of the unperturbed logits and `r` the mask. Squares are summed over the channels of a pixel (the
    squared length of the pixel's gradient), then averaged over background pixels. The derivative is with respect to
    `pixel_values` as given, normalised. The result can be differentiated in the parameters of `forward`: a second
    derivative, so attention runs without fused kernels here.

    Images whose mask is empty or full count neither in the sum nor in the mean and are not forwarded; if there are no
    others the penalty is 0, for free.

    Args:
        forward: `pixel_values` to logits `(n, classes)`.
        pixel_values: `(n, channels, height, width)`.
        labels: `(n,)` int64.
        mask: `(n, 1, height, width)` in [0, 1]; 1 = foreground.

    Returns:
        Scalar, at least 0.
    """
    rows = maskable(mask).nonzero().squeeze(1)
    if len(rows) == 0:
        return pixel_values.new_zeros(())
    pixels = pixel_values[rows].detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        logits = forward(pixels)
    probabilities = at_least_float32(logits).softmax(1)
    own = probabilities.gather(1, labels[rows, None]).sum()
    (gradient,) = torch.autograd.grad(own, pixels, create_graph=True)
    background = 1 - mask[rows]
    penalty = (gradient.square() * background).sum((1, 2, 3)) / background.sum((1, 2, 3))
    return penalty.mean()
