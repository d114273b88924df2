"""Models that are already built, in the form under which they save and load."""

import logging

import numpy as np
import timm
import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from .identity import architecture_name, height_width
from .modes import evaluate

logger = logging.getLogger(__name__)


def adopt(model: nn.Module, labels: dict, model_args: dict | None) -> PreTrainedModel:
    """A built model of transformers as it is, or of timm in its wrapper, with these labels.

    Raises:
        ValueError: it has another number of outputs, or a checkpoint of it would not rebuild it.
        TypeError: it is of neither library.
    """
    if isinstance(model, PreTrainedModel):
        _check_label_count(type(model).__name__, model.config.num_labels, labels)
        classifier = model
    elif hasattr(model, "pretrained_cfg"):
        if not getattr(model, "num_classes", 0):
            raise ValueError(
                f"{type(model).__name__} of timm has no classifier: build it with num_classes, without features_only."
            )
        _check_label_count(f"{type(model).__name__} of timm", model.num_classes, labels)
        classifier = _wrap_timm(model, model_args)
    else:
        raise TypeError(
            f"{type(model).__name__} is a module of neither timm nor transformers, so its checkpoint could not be "
            "loaded again. Pass a name, a folder, a timm model or a transformers image classifier."
        )
    for key in ("id2label", "label2id"):
        if key in labels:
            setattr(classifier.config, key, labels[key])
    return classifier


def single_label(model: PreTrainedModel) -> PreTrainedModel:
    """The model with a loss for one label an image; a warning where it was configured for another problem."""
    problem = getattr(model.config, "problem_type", None)
    if problem not in (None, "single_label_classification"):
        logger.warning(
            "%s was configured for %s; it is trained here to give one label an image, and saved so.",
            architecture_name(model),
            problem,
        )
        model.config.problem_type = "single_label_classification"
    return model


def _check_label_count(model_name: str, found: int, labels: dict) -> None:
    if labels and labels["num_labels"] != found:
        raise ValueError(
            f"The given {model_name} has {found} outputs, but {labels['num_labels']} labels were asked for. A built "
            "model is not altered: build it with that many classes, or pass its name instead."
        )


def _wrap_timm(module: nn.Module, model_args: dict | None) -> TimmWrapperForImageClassification:
    """Give a timm model the wrapper under which it saves and loads.

    A saved checkpoint rebuilds the architecture from its name and `model_args`. Whether that gives the same function as
    `module` is found out here and not after training.
    """
    transient = ("state_dict", "file", "num_classes")
    settings = {key: value for key, value in module.pretrained_cfg.items() if key not in transient}
    model_args = dict(model_args or {})
    patch_sizes = [patches.img_size for patches in module.modules() if isinstance(patches, timm.layers.PatchEmbed)]
    built_size = model_args.get("img_size") or next(iter(patch_sizes), None)
    if settings.get("fixed_input_size") and built_size:
        built_size = height_width(built_size)
        if built_size != tuple(settings["input_size"][1:]):
            settings["input_size"] = (settings["input_size"][0], *built_size)
            model_args["img_size"] = list(built_size)
    wrapper = TimmWrapperForImageClassification(
        TimmWrapperConfig(
            architecture=settings["architecture"],
            pretrained_cfg=settings,
            model_args=model_args or None,
            num_labels=module.num_classes,
        )
    )
    weight = next(module.parameters())
    size = settings["input_size"][1:]
    pixels = torch.linspace(-1, 1, 3 * int(np.prod(size))).reshape(1, 3, *size).to(weight)
    expected = _logits_of_rgb(module, pixels)
    advice = f"timm.create_model({settings['architecture']!r}, **{model_args}) does not rebuild the given model"
    try:
        wrapper.timm_model.load_state_dict(module.state_dict())
    except RuntimeError as error:
        raise ValueError(f"{advice}; pass the arguments it was built with as model_args={{…}}.") from error
    if not torch.allclose(expected, evaluate(wrapper.timm_model.to(weight), pixels), atol=1e-4):
        raise ValueError(
            f"{advice}: same weights, other outputs; pass the arguments it was built with as model_args={{…}}."
        )
    wrapper.timm_model = module
    return wrapper


def _logits_of_rgb(module: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    height, width = pixels.shape[2:]
    expected = f"one row of {module.num_classes} logits for an RGB image of {height} × {width} pixels"
    advice = "Build it for three channels (in_chans=3), with its pooling (global_pool) and its classifier."
    try:
        logits = evaluate(module, pixels)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{type(module).__name__} of timm does not give {expected}: {error}. {advice}") from error
    if tuple(logits.shape) != (1, module.num_classes):
        raise ValueError(f"{type(module).__name__} of timm gives {tuple(logits.shape)}, not {expected}. {advice}")
    return logits


def at_image_size(model: PreTrainedModel, size: tuple[int, int]) -> PreTrainedModel:
    """The model for images of (height, width); a ValueError where its architecture cannot take them."""
    try:
        if isinstance(model, TimmWrapperForImageClassification):
            return _resized_timm(model, size)
        evaluate(model, torch.zeros(1, 3, *size, dtype=model.dtype, device=model.device))
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{architecture_name(model)} does not take images of {size[0]} × {size[1]} pixels ({error}). Use its own "
            "size, or a timm model whose position embeddings can be resampled."
        ) from error
    return model


def _resized_timm(model: TimmWrapperForImageClassification, size: tuple[int, int]) -> TimmWrapperForImageClassification:
    config = model.config
    channels, *current = config.pretrained_cfg["input_size"]
    if tuple(current) == size:
        return model
    settings = config.pretrained_cfg | {"input_size": (channels, *size)}
    if not settings.get("fixed_input_size"):
        config.pretrained_cfg = settings
        return model
    # timm resamples position embeddings and relative-position tables when it loads weights into another size.
    model_args = {**(config.model_args or {}), "img_size": list(size)}
    weights = {"state_dict": model.timm_model.state_dict(), "num_classes": config.num_labels}
    module = timm.create_model(
        config.architecture,
        pretrained=True,
        pretrained_cfg_overlay=settings | weights,
        num_classes=config.num_labels,
        **model_args,
    )
    labels = {"num_labels": config.num_labels, "id2label": config.id2label, "label2id": config.label2id}
    return adopt(module, labels, model_args)
