"""What a frozen backbone makes of images, of their backgrounds, and of their objects before other backgrounds.

Where there is neither mask nor box the object is taken to be in the middle half of the image: the rim tells the place.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from ..causal import CausalAugmentation, Role
from ..data.dataset import ImageClassificationDataset
from ..data.mask_counts import split_masks
from ..data.transforms import ProcessorTransform
from ..features import CausalFeatures, CausalImages, extract_causal_features, extract_features
from ..modeling.loading import load_image_classifier, warn_of_random_features
from ..modeling.preprocessing import image_settings, load_image_processor, squash_bilinearly
from ..segmentation.boxes import add_boxes

IMAGE_SIZE = 96  # pixels: what is found at 224 is hardly more, and five times as slow


class Backbone:
    """A frozen image classifier, and how it sees images.

    Args:
        model: of `load_image_classifier`.
        transform: of its processor.
        args: of a Trainer; by default in batches of 64, with nothing written.
        cache_dir: where features are kept; None: nowhere.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        transform: ProcessorTransform,
        args: TrainingArguments | None = None,
        cache_dir: str | os.PathLike | None = None,
    ):
        self.model, self.transform, self.cache_dir = model, transform, cache_dir
        self.args = args or TrainingArguments(tempfile.gettempdir(), per_device_eval_batch_size=64, report_to=[])
        self.augmentation = CausalAugmentation(
            ["tile"],
            ["mix_rand"],
            transform.mean.flatten().tolist(),
            transform.std.flatten().tolist(),
            "box",
            factual_mask_shape="exact",
        )

    @classmethod
    def load(cls, name_or_path: str, image_size: int | None = IMAGE_SIZE, cache_dir=None, **hub_kwargs) -> Backbone:
        """By name, as recipes load it; of one that nobody has trained it is said."""
        warn_of_random_features(name_or_path)
        model = load_image_classifier(name_or_path, image_size=image_size, **hub_kwargs)
        processor = load_image_processor(name_or_path, model, image_size=image_size, **hub_kwargs)
        settings = image_settings(model, processor)
        return cls(model, ProcessorTransform(squash_bilinearly(processor, settings), settings), cache_dir=cache_dir)

    def images(self, split: Dataset, name: str) -> ImageClassificationDataset:
        """The images of a split, each with its mask, its box, or one around its middle."""
        if not {"mask", "box"} & set(split.column_names):
            split = add_boxes(split, "centre")
        keep = [column for column in split.column_names if column in ("image", "label", "mask", "box")]
        return ImageClassificationDataset(split.select_columns(keep), self.transform, name=name)

    def views(self, images: ImageClassificationDataset) -> CausalFeatures:
        """Features of the images and of their backgrounds."""
        maskable = split_masks(images).maskable
        return extract_causal_features(
            self.model, images, self.args, self.augmentation, maskable, copies=0, cache_dir=self.cache_dir
        )

    def swapped(self, images: ImageClassificationDataset, places: Tensor) -> Tensor:
        """Features (n, d) of the objects before the background of an image of another place, places (n,)."""
        elsewhere = CausalImages(_Placed(images, places), self.augmentation, Role.FACTUAL)
        return extract_features(self.model, elsewhere, self.args, self.cache_dir).features


class _Placed(torch.utils.data.Dataset):
    """Images with their places in the place of labels: donors of backgrounds are drawn from those of another one."""

    def __init__(self, images: ImageClassificationDataset, places: Tensor):
        self.images, self.places = images, places.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        items = self.images.__getitems__(list(indices))
        return [item | {"labels": self.places[index]} for index, item in zip(indices, items, strict=True)]

    @property
    def fingerprint(self) -> str:
        return f"{self.images.fingerprint} {self.places}"


def views_of(backbone: Backbone, splits: Mapping[str, Dataset]) -> dict[str, CausalFeatures]:
    """`Backbone.views` of every split."""
    return {name: backbone.views(backbone.images(split, name)) for name, split in splits.items()}
