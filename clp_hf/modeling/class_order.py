"""A checkpoint's head in the order of the classes that is asked for: a label is a name, not a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from .identity import label_names


def stored_names(source: str, hub_kwargs: Mapping[str, Any]) -> list[str]:
    """What a checkpoint calls its classes, in the order of its logits."""
    names = AutoConfig.from_pretrained(source, **hub_kwargs).id2label
    return [names[index] for index in sorted(names)]


@torch.no_grad()
def in_class_order(model: PreTrainedModel, stored: Sequence[str]) -> None:
    """Put the rows of the head into the order of the model's names, where the weights have these in another one.

    Args:
        model: with the names that are wanted, and the weights of a checkpoint.
        stored: the names in the checkpoint's order. Other names, or more, are another set of classes: nothing is done.
    """
    wanted = label_names(model)
    if list(stored) == wanted or sorted(stored) != sorted(wanted) or len(set(wanted)) != len(wanted):
        return
    order = torch.tensor([list(stored).index(name) for name in wanted])
    tensors = model.state_dict()
    for name, other in _shapes_with_one_more_class(model).items():
        (axis,) = [axis for axis, size in enumerate(tensors[name].shape) if size != other[axis]]
        tensors[name].copy_(tensors[name].index_select(axis, order.to(tensors[name].device)))


def _shapes_with_one_more_class(model: PreTrainedModel) -> dict[str, torch.Size]:
    """The weights that would be larger with one class more, and how large: the head's, in any architecture."""
    config = type(model.config).from_dict(model.config.to_dict())
    config.num_labels += 1
    with torch.device("meta"):
        larger = AutoModelForImageClassification.from_config(config)
    own = model.state_dict()
    return {name: tensor.shape for name, tensor in larger.state_dict().items() if tensor.shape != own[name].shape}
