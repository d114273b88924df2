"""Segmenters: what is foreground in an image, by GrabCut or by any segmentation model of transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageSegmentation,
    AutoModelForMaskGeneration,
    AutoModelForSemanticSegmentation,
    AutoProcessor,
    PreTrainedConfig,
    ViTImageProcessor,
    VitMatteForImageMatting,
    pipeline,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from ..causal.masks import trimap
from ..modeling.identity import model_fingerprint
from ..utils.connection import hub_failure
from ..utils.extras import require
from .centre_prior import CENTRE_SIDE, GRABCUT_ITERATIONS, GRABCUT_LEAST, GRABCUT_SIDE, centre_box, grabcut

GRABCUT_PIXELS = 256  # of the longer side: its time grows with the area, its outline hardly gets better
TRIMAP_BAND = 0.05  # of the shorter side, to either side of the outline
SALIENCY_PIXELS = 1024  # of models that say nothing of their input, as BiRefNet

PROMPTABLE = modeling_auto.MODEL_FOR_MASK_GENERATION_MAPPING_NAMES
LABELLED = {
    **modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES,
}


class Segmenter(Protocol):
    """Images in, masks out.

    Attributes:
        fingerprint: differs where the masks of an image may.
    """

    fingerprint: str

    def __call__(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """The mask of every RGB image: uint8 (h, w), 255 = foreground; all 0 where nothing is found."""


def load_segmenter(
    name: str = "grabcut",
    *,
    foreground: Sequence[str] | None = None,
    matting_model: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    **hub_kwargs: Any,
) -> Segmenter:
    """GrabCut, or a segmentation model of transformers, by name.

    What is done is read from the model's configuration:

    - semantic, instance, panoptic (SegFormer, Mask2Former, OneFormer, EoMT …): the pixels of the `foreground` labels;
    - salient object (one label, or remote code for `AutoModelForImageSegmentation`, as BiRefNet): its probability;
    - promptable (SAM, SAM-HQ, SAM 2 …): the best mask for a box in the middle of the image.

    Args:
        name: `"grabcut"` (told that the rim is background; needs OpenCV, no Hub), a Hub name or a folder.
        foreground: names of the labels that are foreground; by default all but `background`, if the model has that.
        matting_model: a VitMatte, which refines the outline: it decides on the pixels near the outline of the mask.
        device: of the models; by default the GPU, if there is one.
        trust_remote_code: run model code from the Hub; without it such a model is refused.
        **hub_kwargs: `revision` (of `name`), `cache_dir`, `token`.

    Raises:
        ConnectionError: the Hub cannot be reached and the model is not in the cache.
        ImportError: GrabCut without OpenCV.
        ValueError: no segmentation model, unknown or missing foreground labels, or one that needs remote code.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if name == "grabcut":
        if foreground:
            raise ValueError(f"GrabCut knows no labels: leave out foreground={list(foreground)}, or name a model.")
        require("GrabCut", "cv2")
        segmenter = GrabCut()
    else:
        hub_kwargs = {"trust_remote_code": trust_remote_code, **hub_kwargs}
        segmenter = _from_config(name, foreground, device, hub_kwargs)
    if matting_model is None:
        return segmenter
    return Matting(segmenter, matting_model, device, {**hub_kwargs, "revision": "main"})


def _from_config(name: str, foreground: Sequence[str] | None, device: torch.device, hub_kwargs: dict) -> Segmenter:
    config = _reach(AutoConfig.from_pretrained, name, hub_kwargs)
    is_remote = "AutoModelForImageSegmentation" in getattr(config, "auto_map", {})
    if is_remote or (config.model_type in LABELLED and config.num_labels == 1):
        return SalientObject(name, AutoModelForImageSegmentation if is_remote else None, device, hub_kwargs)
    if config.model_type in PROMPTABLE:
        return Promptable(name, device, hub_kwargs)
    if config.model_type in LABELLED:
        return Labelled(name, foreground_labels(config, foreground, name), device, hub_kwargs)
    advice = (
        "It refines masks: pass it as matting_model, with a segmenter before it"
        if config.model_type == "vitmatte"
        else "Choose a semantic, instance, panoptic, salient-object or promptable (SAM) one, or 'grabcut'"
    )
    raise ValueError(f"{name!r} ({config.model_type}) is not a segmentation model of transformers. {advice}.")


def _reach(load: Callable, name: str, hub_kwargs: dict) -> Any:
    """`load(name, …)`, from the local cache alone where the Hub does not answer."""
    reason = None if os.path.isdir(name) else hub_failure()
    try:
        return load(name, **hub_kwargs, **({"local_files_only": True} if reason else {}))
    except OSError as error:
        if reason is None:
            raise
        raise ConnectionError(
            f"{name!r} is neither a local folder nor in the local cache, and the Hugging Face Hub cannot be reached "
            f"({reason}). Without a connection, use a folder written by save_pretrained, or 'grabcut'."
        ) from error


def foreground_labels(config: PreTrainedConfig, wanted: Sequence[str] | None, name: str) -> set[str]:
    """Names of the labels that are foreground, as the model spells them.

    Raises:
        ValueError: the model has no such label; or none were asked for, and it has no label called background.
    """
    labels = {str(label).lower(): str(label) for label in config.id2label.values()}
    found = f"It has {', '.join(list(labels)[:200])}."
    if not wanted:
        if "background" not in labels:
            raise ValueError(f"{name!r} has no label 'background': say which labels are foreground. {found}")
        return set(labels.values()) - {labels["background"]}
    if unknown := [label for label in wanted if label.lower() not in labels]:
        raise ValueError(f"{name!r} has no label {', '.join(map(repr, unknown))} to be foreground. {found}")
    return {labels[label.lower()] for label in wanted}


class GrabCut:
    """`grabcut`, on images of 256 pixels at most."""

    def __init__(self):
        settings = (GRABCUT_PIXELS, GRABCUT_SIDE, GRABCUT_ITERATIONS, GRABCUT_LEAST)
        self.fingerprint = f"grabcut {settings}"

    def __call__(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """As `Segmenter`."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
            return list(pool.map(self._one, images))

    def _one(self, image: Image.Image) -> np.ndarray:
        small = image.copy()
        small.thumbnail((GRABCUT_PIXELS, GRABCUT_PIXELS))
        mask = Image.fromarray(grabcut(np.asarray(small)).astype(np.uint8) * 255)
        return np.asarray(mask.resize(image.size, Image.Resampling.BILINEAR))


def _by_size(segment: Callable[[list[Image.Image]], list[np.ndarray]], images: Sequence[Image.Image]) -> list:
    """`segment` on images of one size at a time, which make a batch for every processor; in the order of `images`."""
    order = sorted(range(len(images)), key=lambda index: images[index].size)
    masks: list = [None] * len(images)
    for _, indices in groupby(order, key=lambda index: images[index].size):
        indices = list(indices)
        for index, mask in zip(indices, segment([images[index] for index in indices]), strict=True):
            masks[index] = mask
    return masks


class Labelled:
    """Semantic, instance or panoptic segmentation: the union of all segments whose label is foreground."""

    def __init__(self, name: str, foreground: set[str], device: torch.device, hub_kwargs: dict):
        self.foreground = foreground
        model_kwargs = {"cache_dir": hub_kwargs["cache_dir"]} if "cache_dir" in hub_kwargs else {}
        others = {key: value for key, value in hub_kwargs.items() if key != "cache_dir"}
        self.pipeline = pipeline("image-segmentation", name, device=device, model_kwargs=model_kwargs, **others)
        self.fingerprint = _fingerprint(self.pipeline.model, self.pipeline.image_processor, sorted(foreground))

    def __call__(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """As `Segmenter`."""
        return _by_size(self._segment, images)

    def _segment(self, images: list[Image.Image]) -> list[np.ndarray]:
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # one warning an image else, that no instances are fused
        try:
            found = self.pipeline(images, batch_size=len(images))
        finally:
            logging.set_verbosity(verbosity)
        masks = []
        for image, segments in zip(images, found, strict=True):
            parts = [np.asarray(part["mask"]) for part in segments if part["label"] in self.foreground]
            masks.append(np.maximum.reduce([np.zeros((image.height, image.width), np.uint8), *parts]))
        return masks


class SalientObject:
    """Models with one output a pixel, the logit of foreground."""

    def __init__(self, name: str, auto_model: type | None, device: torch.device, hub_kwargs: dict):
        auto_model = auto_model or AutoModelForSemanticSegmentation
        self.model = _reach(auto_model.from_pretrained, name, hub_kwargs).to(device).eval()
        try:
            self.processor = _reach(AutoImageProcessor.from_pretrained, name, hub_kwargs)
        except OSError:  # code from the Hub often comes without one
            self.processor = ViTImageProcessor(
                size={"height": SALIENCY_PIXELS, "width": SALIENCY_PIXELS},
                image_mean=IMAGENET_DEFAULT_MEAN,
                image_std=IMAGENET_DEFAULT_STD,
            )
        self.fingerprint = _fingerprint(self.model, self.processor)

    def __call__(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """As `Segmenter`; soft."""
        return _by_size(self._segment, images)

    @torch.inference_mode()
    def _segment(self, images: list[Image.Image]) -> list[np.ndarray]:
        pixel_values = self.processor(images=images, return_tensors="pt")["pixel_values"]
        logits = self.model(pixel_values.to(self.model.device, self.model.dtype))
        logits = getattr(logits, "logits", logits)
        while not isinstance(logits, Tensor):  # side outputs first, the finest last
            logits = logits[-1]
        size = (images[0].height, images[0].width)
        probabilities = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False).sigmoid()
        return list(_to_bytes(probabilities))


class Promptable:
    """SAM and its successors, with the middle of the image as box prompt: of its masks the one it rates best."""

    def __init__(self, name: str, device: torch.device, hub_kwargs: dict):
        self.model = _reach(AutoModelForMaskGeneration.from_pretrained, name, hub_kwargs).to(device).eval()
        self.processor = _reach(AutoProcessor.from_pretrained, name, hub_kwargs)
        self.fingerprint = _fingerprint(self.model, self.processor, CENTRE_SIDE)

    def __call__(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """As `Segmenter`."""
        return _by_size(self._segment, images)

    @torch.inference_mode()
    def _segment(self, images: list[Image.Image]) -> list[np.ndarray]:
        boxes = [[[float(side) for side in centre_box(image.height, image.width)]] for image in images]
        inputs = self.processor(images=images, input_boxes=boxes, return_tensors="pt")
        sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        outputs = self.model(**inputs, multimask_output=True)
        masks = self.processor.post_process_masks(outputs.pred_masks.cpu(), *sizes)
        best = outputs.iou_scores[:, 0].argmax(1).tolist()
        return [_to_bytes(mask[0, choice]) for mask, choice in zip(masks, best, strict=True)]


class Matting:
    """VitMatte (Yao et al. 2023) on the masks of a segmenter: the pixels near their outline are decided anew."""

    def __init__(self, coarse: Segmenter, name: str, device: torch.device, hub_kwargs: dict):
        config = _reach(AutoConfig.from_pretrained, name, hub_kwargs)
        if config.model_type != "vitmatte":
            raise ValueError(f"The matting_model {name!r} is a {config.model_type} model; expected a vitmatte one.")
        self.coarse = coarse
        self.model = _reach(VitMatteForImageMatting.from_pretrained, name, hub_kwargs).to(device).eval()
        self.processor = _reach(AutoImageProcessor.from_pretrained, name, hub_kwargs)
        self.fingerprint = f"{coarse.fingerprint} {_fingerprint(self.model, self.processor, TRIMAP_BAND)}"

    def __call__(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """As `Segmenter`; soft. What the segmenter finds nothing in stays empty."""
        return _by_size(self._refine, images)

    @torch.inference_mode()
    def _refine(self, images: list[Image.Image]) -> list[np.ndarray]:
        masks = self.coarse(images)
        found = [index for index, mask in enumerate(masks) if mask.any()]
        if not found:
            return masks
        coarse = torch.from_numpy(np.stack([masks[index] for index in found]))[:, None] / 255
        height, width = coarse.shape[2:]
        trimaps = _to_bytes(trimap(coarse, max(1, round(TRIMAP_BAND * min(height, width)))))
        inputs = self.processor(images=[images[i] for i in found], trimaps=list(trimaps), return_tensors="pt")
        alphas = self.model(inputs["pixel_values"].to(self.model.device, self.model.dtype)).alphas
        for index, alpha in zip(found, _to_bytes(alphas[..., :height, :width]), strict=True):  # padded below, at right
            masks[index] = alpha
        return masks


def _to_bytes(values: Tensor) -> np.ndarray:
    """Values in [0, 1], or bools, (n, 1, h, w) or (h, w), as uint8 (n, h, w) or (h, w), 255 for 1."""
    values = values[:, 0] if values.ndim == 4 else values
    return (values.float() * 255).round().to(torch.uint8).cpu().numpy()


def _fingerprint(model: torch.nn.Module, processor: Any, *settings: Any) -> str:
    return f"transformers {transformers.__version__} {model_fingerprint(model)} {processor!r} {settings}"
