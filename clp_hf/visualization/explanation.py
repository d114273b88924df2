"""One image and one checkpoint: how probable every class is, and where the classifier looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from ..data.dataset import to_rgb
from ..modeling.identity import label_names
from ..modeling.loading import load_image_classifier
from ..modeling.preprocessing import image_settings, load_image_processor
from .grad_cam import Attribution, heat_overlay


@dataclass(frozen=True)
class Explanation:
    """What a classifier says of an image.

    Attributes:
        probabilities: by class name, summing to 1.
        overlay: the Grad-CAM map of the most probable class, red where it is largest, over the image as the model sees
            it: cropped and resized by its preprocessing, and enlarged again.
        has_evidence: whether the map is above 0 anywhere; a map that is 0 says that nothing in it speaks for the class.
    """

    probabilities: dict[str, float]
    overlay: Image.Image
    has_evidence: bool


class Explainer:
    """A trained checkpoint, for one image at a time.

    Args:
        checkpoint: a folder or Hub name, as for `load_image_classifier`.
        **hub_kwargs: for `from_pretrained`.

    Attributes:
        label_names: in the order of the logits.

    Raises:
        ValueError: there is no such checkpoint, or its model has no feature map.
    """

    def __init__(self, checkpoint: str, **hub_kwargs):
        try:
            self.model = load_image_classifier(checkpoint, **hub_kwargs).eval()
            self.processor = load_image_processor(checkpoint, self.model, **hub_kwargs)
        except OSError as error:  # of transformers, or that the Hub cannot be reached
            raise ValueError(f"The checkpoint {checkpoint!r} cannot be loaded: {error}") from error
        settings = image_settings(self.model, self.processor)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
        self.label_names = label_names(self.model)
        self.attribution = Attribution(self.model, torch.randn(1, 3, settings.height, settings.width))

    def __call__(self, image: Image.Image) -> Explanation:
        """Predict and explain an image of any size and mode."""
        pixels = self.processor(to_rgb(image), return_tensors="pt")["pixel_values"]
        maps, logits = self.attribution(pixels)
        probabilities = dict(zip(self.label_names, logits[0].softmax(0).tolist(), strict=True))
        picture = to_pil_image((pixels[0] * self.std + self.mean).clamp(0, 1))
        return Explanation(probabilities, heat_overlay(picture, maps[0]), bool(maps.any()))


def check_same_labels(explainers: Mapping[str, Explainer]) -> None:
    """Raise a ValueError if classifiers that are to be compared tell different classes apart."""
    (first, expected), *others = ((title, sorted(explainer.label_names)) for title, explainer in explainers.items())
    for title, found in others:
        if found != expected:
            raise ValueError(
                f"Models with different labels cannot be compared: {first} tells {expected} apart, {title} {found}. "
                "Choose two checkpoints of the same classes."
            )
