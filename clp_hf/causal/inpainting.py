"""Inpainters for the `inpaint` counterfactual: callables `(images, region, generator) -> images` in pixel space [0, 1].

The CLP paper inpaints with a pretrained CAGAN. Here: OpenCV's Telea (no weights, CPU, the default) or any inpainting
pipeline of diffusers by name. Both come with the `vision` extra.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Resampling
from torch import Generator, Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ..utils.extras import require

NEED = "The infill 'inpaint'"  # what needs a package that is not there
Inpainter = Callable[[Tensor, Tensor, Generator], Tensor]


def build_inpainter(name: str = "telea", **kwargs: Any) -> Inpainter:
    """`"telea"`, or the Hub name or folder of a diffusers inpainting pipeline; `kwargs` go to the class."""
    return TeleaInpainter(**kwargs) if name == "telea" else DiffusersInpainter(name, **kwargs)


class TeleaInpainter:
    """OpenCV's fast-marching inpainting (Telea, 2004), image by image on the CPU in 8 bits. Deterministic.

    Args:
        radius: neighbourhood, in pixels, from which a pixel is filled.
        margin: the region is widened by this many pixels while it is filled, so that the soft rim that a mask leaves
            of the foreground is not smeared inwards.

    Raises:
        ImportError: OpenCV is not installed.
    """

    def __init__(self, radius: float = 3, margin: int = 2):
        require(NEED, "cv2")
        self.radius = radius
        self.margin = margin

    def __call__(self, images: Tensor, region: Tensor, generator: Generator | None = None) -> Tensor:
        """Fill the `region` `(n, 1, height, width)`, 1 = hole, of images `(n, 3, height, width)` in [0, 1]."""
        cv2 = require(NEED, "cv2")
        holes = F.max_pool2d(region, 2 * self.margin + 1, stride=1, padding=self.margin)
        # A margin over the whole background would leave nothing to fill from.
        holes = torch.where(holes.amin((2, 3), keepdim=True) > 0, region, holes)
        pixels = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        holes = holes.byte()[:, 0].cpu().numpy()
        filled = [
            torch.from_numpy(cv2.inpaint(picture, hole, self.radius, cv2.INPAINT_TELEA))
            for picture, hole in zip(pixels, holes, strict=True)
        ]
        return torch.stack(filled).permute(0, 3, 1, 2).to(images) / 255


class DiffusersInpainter:
    """Any inpainting pipeline of diffusers, loaded when it is first used.

    Args:
        name: Hub name or local folder, for `AutoPipelineForInpainting.from_pretrained`.
        prompt: what to paint; it must not name a class.
        size: side, in pixels, at which the pipeline works; images are resized to it and back.
        device: of the pipeline; `None` is a GPU if there is one, else the CPU.
        pipeline: an already built pipeline, in place of loading `name`.
        **call_kwargs: passed on at every call, for example `num_inference_steps`.

    Raises:
        ImportError: no `pipeline` is given and diffusers is not installed.
    """

    def __init__(
        self,
        name: str,
        prompt: str = "background scenery, nobody, nothing in the foreground",
        size: int = 512,
        device: str | None = None,
        pipeline: Any = None,
        **call_kwargs: Any,
    ):
        if pipeline is None:
            require(NEED, "diffusers")
        self.name = name
        self.prompt = prompt
        self.size = size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.call_kwargs = call_kwargs
        self._pipeline = pipeline

    @property
    def pipeline(self) -> Any:
        """The pipeline, loaded on first access."""
        if self._pipeline is None:
            pipelines = require(NEED, "diffusers").AutoPipelineForInpainting
            self._pipeline = pipelines.from_pretrained(self.name).to(self.device)
            self._pipeline.set_progress_bar_config(disable=True)
        return self._pipeline

    def __call__(self, images: Tensor, region: Tensor, generator: Generator | None = None) -> Tensor:
        """Fill the `region` `(n, 1, height, width)`, 1 = hole, of images `(n, 3, height, width)` in [0, 1]."""
        # PIL images are the one input that every pipeline of diffusers reads alike; tensors changed their range.
        square = (self.size, self.size)
        result = self.pipeline(
            prompt=[self.prompt] * len(images),
            image=[to_pil_image(image.cpu()).resize(square) for image in images.clamp(0, 1)],
            mask_image=[to_pil_image(hole.cpu()).resize(square, Resampling.NEAREST) for hole in region],
            height=self.size,
            width=self.size,
            generator=generator,
            **self.call_kwargs,
        ).images
        size = (images.shape[3], images.shape[2])
        return torch.stack([pil_to_tensor(image.convert("RGB").resize(size)) for image in result]).to(images) / 255
