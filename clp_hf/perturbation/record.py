"""What the log tells of the outputs of Ω."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..losses import Outputs
from ..utils.means import Means
from .base import MetaNetwork

MOST_LOGGED_CLASSES = 20  # of more, a line of the log could not be read


def record_perturbation(
    means: Means, network: MetaNetwork, seen: Tensor | Outputs, output: Tensor, batch: Mapping[str, Any]
) -> None:
    """Take in the level of a batch's outputs, and whose loss they raise, by group and by class.

    Args:
        means: by the names that `CLPTrainer.log` lists.
        network: Ω.
        seen: logits (n, C), or as of `seen_by`, detached.
        output: of the network for the batch, (n, …).
        batch: `labels` (n,), and `group` and `noisy` (n,) where they are known.
    """
    labels = batch["labels"]
    means.add(f"{network.NAME}_size", output.abs().mean())
    level, raised = network.level(output, labels), network.raises_loss(seen, output, labels)
    cells = {"group": batch["group"]} if "group" in batch else {}
    if (seen.logits if isinstance(seen, Outputs) else seen).shape[-1] <= MOST_LOGGED_CLASSES:
        cells["class"] = labels
    for kind, members in cells.items():
        means.add_each(f"{network.NAME}_{kind}", level, members)
        means.add_each(f"loss_raised_{kind}", raised, members)
    if "noisy" in batch:
        noisy = batch["noisy"].bool()
        for name, members in (("clean", ~noisy), ("noisy", noisy)):
            means.add_where(f"loss_raised_{name}", raised, members)
