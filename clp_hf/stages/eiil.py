"""Environment inference: the split of the training images that a reference model is least invariant to."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Learned, Reference

NAMES = ("lower", "higher")


def eiil(reference: Reference) -> Learned:
    """Groups (class, environment) by Environment Inference for Invariant Learning (Creager et al. 2021, "Environment
    inference for invariant learning", Eq. 5 and 6), which GroupDRO is then trained on, as they do on Waterbirds.

    There the reference model is ERM after one epoch; a class of which all images are in one environment is one group.

    Args:
        reference: of a model that has learned the shortcut.

    Raises:
        ValueError: the split is no other than the classes.
    """
    train = reference.train
    environments = infer_environments(train.logits, train.labels)
    groups = 2 * train.labels + environments
    sizes = torch.bincount(groups, minlength=2 * train.num_classes)
    if not (sizes.view(-1, 2).min(1).values > 0).any():
        raise ValueError(
            "EIIL found one environment only in every class: of each its first network gets all images right, or none. "
            "Train it longer where it takes all images for one class, or stop it earlier where it is never wrong: "
            "--stage_options '{\"first_share\": 0.1}'."
        )
    told = ", ".join(
        f"{name} {first} and {second}"
        for name, (first, second) in zip(reference.label_names, sizes.view(-1, 2).tolist(), strict=True)
    )
    return Learned(f"Environments were inferred of the first network (images of each: {told}).", group=groups)


def infer_environments(logits: Tensor, labels: Tensor) -> Tensor:
    """The two environments of largest IRM penalty.

    With soft assignments q_i ∈ [0, 1] to the first of two environments the objective is

        max_q  R_1(q)² + R_2(q)²,    R_1 = ∂/∂w (1/n) Σ_i q_i CE(w z_i, y_i) at w = 1,    R_2 the same of 1 − q,

    with logits z_i. The derivative of a sample is s_i = Σ_c p_ic z_ic − z_iy, so that R_1 = (1/n) Σ q_i s_i and
    R_1 + R_2 does not depend on q. The objective is convex in R_1 and largest where that is: at the end of its range,
    where all samples of s_i > 0 are in one environment and all others in the other. The published program climbs there
    by 20,000 steps of gradient ascent, and takes q_i > 1/2; this is the end of the climb.

    For two classes s_i > 0 says that the reference is wrong about the image; for more, that the own logit is below the
    mean that its probabilities weight.

    Args:
        logits: (n, C), of the reference model.
        labels: (n,).

    Returns:
        (n,), 1 where s_i > 0.
    """
    mean = (logits.softmax(1) * logits).sum(1)
    return (mean - logits.gather(1, labels[:, None])[:, 0] > 0).long()
