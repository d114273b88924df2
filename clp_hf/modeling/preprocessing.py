"""What a classifier expects its images to be, and the processor that makes them so."""

import os
from dataclasses import dataclass

import timm
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    BaseImageProcessor,
    PreTrainedModel,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    ViTImageProcessor,
)

from .connection import connection
from .identity import architecture_name, height_width


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
    size = None if image_size is None else height_width(image_size)
    if isinstance(model, TimmWrapperForImageClassification):
        processor = TimmWrapperImageProcessor(model.config.pretrained_cfg, architecture=model.config.architecture)
    else:
        name = os.fspath(model_name_or_path)
        with connection(name) as offline:
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
        _set_timm(processor, interpolation="bilinear")
    else:
        processor.resample = Image.Resampling.BILINEAR


def squash_bilinearly(processor: BaseImageProcessor, settings: ImageSettings) -> BaseImageProcessor:
    """The processor that makes of an image what training on `ImageClassificationDataset` saw: all of it, squeezed.

    Pretrained models' processors mostly resize the shorter side and crop the centre: of a 160 × 40 image they show the
    middle quarter alone. On square images both agree: the same share of the image is cropped away, `1 - crop_pct`.

    Args:
        processor: of `load_image_processor`; a timm one is altered.
        settings: `image_settings(model, processor)`: normalisation, size and `crop_pct` stay.

    Returns:
        The same processor for a timm model, else a `ViTImageProcessor`, since few kinds of transformers can squeeze and
        crop both.
    """
    if isinstance(processor, TimmWrapperImageProcessor):
        _set_timm(processor, interpolation="bilinear", crop_mode="squash", crop_pct=settings.crop_pct)
        return processor
    height, width = settings.height, settings.width
    return ViTImageProcessor(
        size={"height": round(height / settings.crop_pct), "width": round(width / settings.crop_pct)},
        crop_size={"height": height, "width": width},
        do_center_crop=settings.crop_pct < 1,
        resample=Image.Resampling.BILINEAR,
        image_mean=list(settings.mean),
        image_std=list(settings.std),
        do_convert_rgb=True,
    )


def _set_timm(processor: TimmWrapperImageProcessor, **settings) -> None:
    processor.data_config.update(settings)
    processor.val_transforms = timm.data.create_transform(**processor.data_config, is_training=False)


def own_processor(model: PreTrainedModel) -> BaseImageProcessor:
    """The preprocessing that a model was loaded with: that of `model.config.name_or_path`, of timm models their own.

    Raises:
        ValueError: the model was built here, or nothing lies beside it; so the preprocessing is not known.
        ConnectionError: as for `load_image_processor`.
    """
    name = model.config.name_or_path
    if not name and not isinstance(model, TimmWrapperForImageClassification):
        raise ValueError(
            f"{architecture_name(model)} was built here and not loaded, so how its pixel values are normalised is not "
            "known. Pass its image processor: CLPTrainer(processing_class=…)."
        )
    try:
        return load_image_processor(name, model)
    except ConnectionError:
        raise
    except OSError as error:
        raise ValueError(
            f"There is no image processor beside the model in {name!r}, so how its pixel values are normalised is not "
            "known. Pass it: CLPTrainer(processing_class=…)."
        ) from error


def image_settings(model: PreTrainedModel, processor: BaseImageProcessor | None = None) -> ImageSettings:
    """Size and normalisation of the images that `model` expects.

    They are measured on plain images, because every family of processors names its settings in its own way.

    Args:
        model: returned by `load_image_classifier`.
        processor: returned by `load_image_processor`; by default that of `model.config.name_or_path`.

    Raises:
        ValueError: the processor swaps colour channels (MobileViT of transformers), which nothing downstream does; or
            there is none, as for `own_processor`.
    """
    processor = processor or own_processor(model)
    black, white, red = (_preprocess_colour(processor, colour) for colour in ("black", "white", "red"))
    if not torch.equal(red[0], white[0]):
        raise ValueError(f"{type(processor).__name__} swaps the colour channels; only RGB models are supported.")
    height, width = black.shape[1:]
    # In the middle, where no processor pads.
    black, white = (pixels[:, height // 2, width // 2].double() for pixels in (black, white))
    std = 1 / (white - black)
    mean = -black * std
    return ImageSettings(
        height,
        width,
        tuple(round(value, 6) for value in mean.tolist()),
        tuple(round(value, 6) for value in std.tolist()),
        *_resizing(processor, min(height, width)),
    )


def _resizing(processor: BaseImageProcessor, side: int) -> tuple[str, float]:
    if isinstance(processor, TimmWrapperImageProcessor):
        return processor.data_config["interpolation"], processor.data_config["crop_pct"]
    interpolation = Image.Resampling(int(processor.resample)).name.lower()
    if getattr(processor, "crop_pct", None):
        # ConvNeXt's rule: below 384 pixels the image is resized to `side / crop_pct` and cropped to `side`.
        return interpolation, processor.crop_pct if side < 384 else 1.0
    resized = processor.size.get("shortest_edge") or processor.size.get("height")
    return interpolation, min(1.0, side / resized) if resized and getattr(processor, "do_center_crop", False) else 1.0


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
        room = 1.0 if crop is None else max(1.0, processor.size["height"] / crop["height"])  # what is cropped away
        processor.size = type(processor.size)(height=round(room * height), width=round(room * width))
    if crop is not None:
        processor.crop_size = type(crop)(height=height, width=width)
