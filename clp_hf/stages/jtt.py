"""Just Train Twice, the whole network both times: what an early one gets wrong is trained on more."""

from __future__ import annotations

import torch

from .base import Learned, Reference


def jtt(reference: Reference, *, upweight: float = 100.0) -> Learned:
    """The error set is up-weighted (Liu et al. 2021, "Just train twice: improving group robustness without training
    group information", Eq. 3 and Algorithm 1).

    A network that is stopped early is wrong about the set E; a new one is trained on the training images with those of
    E λ times in it. Here images are drawn with replacement, in proportion to λ in E and 1 outside, so that an epoch
    has as many steps as with the other methods. Published: λ 100 on Waterbirds, 50 on CelebA, and the first network
    stopped after 60 of 300 epochs and 1 of 50. Labels are those that are given: of wrong ones E is full.

    (`clp_hf.baselines.jtt` retrains the head alone.)

    Args:
        reference: of the network that was stopped early.
        upweight: λ, 1 or more.

    Raises:
        ValueError: λ is below 1; or the network was wrong nowhere, and there is nothing to weight.
    """
    if upweight < 1:
        raise ValueError(f"upweight is {upweight}; expected 1 or more.")
    train = reference.train
    errors = train.logits.argmax(1) != train.labels
    if not errors.any():
        raise ValueError(
            f"JTT trains more on what its first network gets wrong, and that one is right about all {len(train)} "
            "training images. Stop it earlier: --stage_options '{\"first_share\": 0.05}'."
        )
    told = f"The first network was wrong about {int(errors.sum())} of {len(train)} training images, which came "
    return Learned(f"{told}{upweight:g} times as often in the second.", weight=torch.where(errors, upweight, 1.0))
