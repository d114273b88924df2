"""What each part of CLP on frozen features adds: every one taken away by itself, the rest as it is.

    python benchmarks/ablation.py --scenario waterbirds --results benchmarks/results/ablation/waterbirds_like \\
        --features FOLDER --dataset_name PATH/TO/waterbirds_like --seeds 0 1 2 3 4

Meta sets, selection by validation among four settings, and the one look at the test split are those of
`information.py`.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from information import RIDGES, Knowledge, clp, run
from strength import learned_one_step_ahead

from clp_hf.features import Head


def rows(masks: bool) -> dict[str, tuple[str, Callable[[Knowledge], Knowledge], Callable]]:
    """As of `information.rows`."""
    ten = "ten images a group"
    bare = lambda of: of.without_masks()  # noqa: E731
    found = {
        "whole": (ten, bare, clp(["attribute"])),
        "no evidence": (ten, bare, clp([], steps=0)),
        "strength not learned": (ten, bare, clp(["attribute"], steps=0)),
        "one step ahead": (ten, bare, one_step(("attribute",))),
        "meta images trained on": (ten, bare, clp(["attribute"], meta_weight=1.0)),
        "no pull to the start": (ten, bare, clp(["attribute"], prior=0.0)),
    }
    if not masks:
        return found
    both = "masks and ten images a group"
    whole = lambda of: of  # noqa: E731
    return found | {
        "whole, masks": (both, whole, clp(["background"])),
        "no evidence, masks": (both, whole, clp([], steps=0)),
        "strength not learned, masks": (both, whole, clp(["background"], steps=0)),
        "one step ahead, masks": (both, whole, one_step(("background",))),
        "no causal versions of meta images": (both, only_plain_meta_images, clp(["background"])),
        "no swapped training images": (both, lambda of: of.nothing_swapped(), clp(["background"])),
        "no pull to the start, masks": (both, whole, clp(["background"], prior=0.0)),
        "meta images trained on, masks": (both, whole, clp(["background"], meta_weight=1.0)),
        "background and attribute": (both, whole, clp(["background", "attribute"])),
    }


def only_plain_meta_images(of: Knowledge) -> Knowledge:
    return replace(of, meta=replace(of.meta, background=None, swapped=None))


def one_step(evidence: tuple[str, ...], **settings) -> Callable[[Knowledge], tuple[Head, dict]]:
    """The strengths by one step ahead of a head that learns along; then, as of CLP, the head of these strengths."""

    def fit(of: Knowledge) -> tuple[Head, dict]:
        found = []
        for ridge in RIDGES:
            strength = learned_one_step_ahead(of, evidence, ridge, **settings)
            head, _ = clp(evidence, strengths=(strength,), ridges=(ridge,), steps=0, **settings)(of)
            found.append((head.accuracy(of.validation), head, {"ridge": ridge, "strength": strength}))
        _, head, chosen = max(found, key=lambda one: one[0])
        return head, chosen

    return fit


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(__doc__, rows)
