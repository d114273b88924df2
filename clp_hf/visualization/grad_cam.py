"""Grad-CAM (Selvaraju et al. 2017) of any supported classifier: where it looks, and how much of that is the object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, default_data_collator

from .. import modeling
from ..causal.masks import maskable, prepare_masks
from ..modeling.head import find_classifier_head, forward_with_features
from ..modeling.identity import architecture_name
from ..modeling.modes import evaluation_mode
from ..utils.extras import needed_by

with needed_by("Grad-CAM"):
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

MOST_PREFIX_TOKENS = 16  # a class token, registers
SHORT_SIDE = 384  # pixels, at least, of an overlay
IMAGE_WEIGHT = 0.55  # of an overlay, against the heat map


class Attribution:
    """Grad-CAM maps of a classifier, at the last layer where every place of the image still reaches the logits.

    That is the last feature map of a convolutional network. In a transformer that reads its class token, the other
    tokens of the last block's output reach nothing any more: there it is the normalisation before the last attention.

    Args:
        model: of `load_image_classifier`.
        pixel_values: (n, 3, H, W), images that the model takes; one is run through it to find the layer.

    Attributes:
        layer_name: dotted name of the layer in `model`.

    Raises:
        ValueError: the model has no layer with a value at every place; names the model.
    """

    def __init__(self, model: PreTrainedModel, pixel_values: Tensor):
        self.model = model
        self.layer_name, self._to_maps = find_feature_map(model, pixel_values[:1])

    def __call__(self, pixel_values: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps of a batch, and its logits.

        Args:
            pixel_values: (n, 3, H, W), as the model takes them.
            classes: (n,) int64, what the maps explain; by default the predicted class.

        Returns:
            Maps (n, H, W), at least 0: activations weighted by their channel's mean gradient, summed, negative sums set
            to 0, resized bilinearly. Not normalised; a map that is 0 everywhere says that nothing speaks for the class.
            And logits (n, C). Both float32, on the CPU.
        """
        layer = self.model.get_submodule(self.layer_name)
        targets = None if classes is None else [ClassifierOutputTarget(index) for index in classes.tolist()]
        with _frozen(self.model), _UnscaledGradCAM(_Logits(self.model), [layer], self._to_maps) as cam:
            maps = torch.from_numpy(cam(pixel_values.detach().requires_grad_(), targets))
            logits = cam.outputs.detach().float().cpu()
        maps = F.interpolate(maps[:, None].float(), pixel_values.shape[2:], mode="bilinear", align_corners=False)
        return maps[:, 0], logits


class _UnscaledGradCAM(GradCAM):
    """The library shifts and scales every map to 0 … 1, which would change what share of it lies where."""

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        activations, gradients = self.activations_and_grads.activations, self.activations_and_grads.gradients
        maps = self.get_cam_image(
            input_tensor, self.target_layers[0], targets, activations[0].float(), gradients[0].float().numpy()
        )
        return np.maximum(maps, 0)

    def aggregate_multi_layers(self, cam_per_target_layer):
        return cam_per_target_layer


class _Logits(nn.Module):
    """A classifier as the library calls it."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and gradients of activations only, inside."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with evaluation_mode(model), torch.enable_grad():
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


# ---- the layer -------------------------------------------------------------------------------------------------------


def find_feature_map(model: PreTrainedModel, pixel_values: Tensor) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The last layer with a value at every place of the image that the features before the head depend on.

    Args:
        model: its `forward(pixel_values=…)` returns an object with `.logits`.
        pixel_values: (n, 3, H, W).

    Returns:
        The layer's dotted name, and a function that makes a map (n, channels, h, w) of its output: of channels first,
        channels last, or tokens with any class token and registers before them.

    Raises:
        ValueError: there is none, or no final linear layer; names the model.
    """
    outputs: dict[str, list[Tensor]] = {}
    order: list[str] = []

    def watch(name: str, module: nn.Module, args: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.setdefault(name, []).append(output)
            order.append(name)

    head = find_classifier_head(model, pixel_values)[1]
    names = [name for name, _ in model.named_modules() if name and not _is_inside_attention(name)]
    handles = [model.get_submodule(name).register_forward_hook(partial(watch, name)) for name in names]
    try:
        with _frozen(model):  # features and not logits: a head may start at zero
            features = forward_with_features(model, head, pixel_values.detach().requires_grad_())[1]
    finally:
        for handle in handles:
            handle.remove()
    called_once = [name for name in order if len(outputs[name]) == 1]
    makers = _map_makers({name: outputs[name][0] for name in called_once}, tuple(pixel_values.shape[2:]))
    candidates = [name for name in makers if outputs[name][0].requires_grad]
    if candidates:
        weights = torch.arange(1, features.shape[1] + 1, device=features.device)  # the plain sum of a LayerNorm is 0
        inputs = [outputs[name][0] for name in candidates]
        gradients = torch.autograd.grad((features * weights).sum(), inputs, allow_unused=True)
        for name, gradient in reversed(list(zip(candidates, gradients, strict=True))):
            if gradient is not None and makers[name](gradient).any():
                return name, makers[name]
    raise ValueError(
        f"{architecture_name(model)} has no layer with a value at every place of the image that its features depend on "
        f"(of {len(called_once)} layers, {len(candidates)} have places), so Grad-CAM cannot be drawn for it. Choose a "
        "larger image_size if its last map is a single value, or another model."
    )


def _is_inside_attention(name: str) -> bool:
    """Queries, heads and the like have the shape of a feature map sometimes, and are none."""
    return any("attn" in part or "attention" in part for part in name.split(".")[:-1])


def _map_makers(outputs: Mapping[str, Tensor], image: tuple[int, int]) -> dict[str, Callable[[Tensor], Tensor]]:
    """For those outputs that have places: what makes maps (n, channels, h, w) of them."""
    makers: dict[str, Callable[[Tensor], Tensor]] = {}
    grids: list[tuple[int, int]] = []  # of feature maps so far: how the tokens made of them lie
    for name, output in outputs.items():
        shape = tuple(output.shape[1:])
        if len(shape) == 3 and _is_grid(shape[1:], image):
            makers[name] = _channels_first
            grids.append(shape[1:])
        elif len(shape) == 3 and _is_grid(shape[:2], image):
            makers[name] = _channels_last
            grids.append(shape[:2])
        elif len(shape) == 2 and shape[1] > 1 and (grid := _token_grid(shape[0], grids, image)):
            makers[name] = partial(_tokens, grid)
    return makers


def _is_grid(size: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a map of this height and width covers an image of that one, in more than one place."""
    return size[0] * size[1] > 1 and abs(size[0] - size[1] * image[0] / image[1]) < 1


def _token_grid(count: int, grids: Sequence[tuple[int, int]], image: tuple[int, int]) -> tuple[int, int] | None:
    prefixes = range(min(MOST_PREFIX_TOKENS + 1, count))
    for grid in reversed(grids):
        if count - grid[0] * grid[1] in prefixes:
            return grid
    for prefix in prefixes:
        width = round(((count - prefix) * image[1] / image[0]) ** 0.5)
        grid = ((count - prefix) // max(1, width), width)
        if grid[0] * grid[1] == count - prefix and _is_grid(grid, image):
            return grid
    return None


def _channels_first(output: Tensor) -> Tensor:
    return output


def _channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _tokens(grid: tuple[int, int], output: Tensor) -> Tensor:
    return output[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


# ---- the number ------------------------------------------------------------------------------------------------------


def attribution_shares(maps: Tensor, mask: Tensor) -> Tensor:
    """What share of every map lies inside the mask.

    Args:
        maps: (n, H, W), at least 0.
        mask: (n, 1, H, W) in [0, 1]; foreground is `>= 0.5`, in its exact shape.

    Returns:
        float (n,) in [0, 1]; NaN where the map is 0 everywhere, or where the mask is empty or leaves no background.
    """
    mask = prepare_masks(mask, "exact")
    shares = (maps * mask[:, 0]).sum((1, 2)) / maps.sum((1, 2))
    return torch.where(maskable(mask), shares, torch.nan)


def attribution_metrics(
    model: PreTrainedModel,
    dataset: Dataset,
    *,
    group_names: Sequence[str] | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """How much of where a classifier looks is the object, over a whole data set; all in [0, 1].

    - `attribution_in_mask`: mean share of the Grad-CAM map of the predicted class that lies inside the causal mask;
    - `attribution_in_mask_group_<name>`: the same of every group;
    - `mask_area`: mean share of the image that the mask covers: what a map that is the same everywhere would have;
    - `attribution_coverage`: share of the images that count. Those whose mask is empty or leaves no background, and
      those whose map is 0 everywhere, do not.

    Maps are as fine as the layer is: 7 × 7 places for most networks at 224 pixels, but 3 × 3 at 96, where no object
    smaller than a third of the image can be told from what is around it, and shares stay near `mask_area`.

    Args:
        model: an image classifier; runs where it is.
        dataset: map-style, with evaluation transforms; items hold `pixel_values`, `mask` and maybe `group`.
        group_names: of the groups; without them no group is reported.
        batch_size: images at a time.

    Raises:
        ValueError: no masks, no image counts, or a model without feature map.
    """
    check_has_masks(dataset)
    device = next(model.parameters()).device
    attribution, shares, areas, groups = None, [], [], []
    for batch in tqdm(DataLoader(dataset, batch_size, collate_fn=default_data_collator), desc="Grad-CAM", disable=None):
        pixel_values = batch["pixel_values"].to(device)
        attribution = attribution or Attribution(model, pixel_values)
        shares.append(attribution_shares(attribution(pixel_values)[0], batch["mask"]))
        areas.append(prepare_masks(batch["mask"], "exact").mean((1, 2, 3)))
        groups.append(batch["group"] if "group" in batch else torch.full((len(pixel_values),), -1))
    shares, areas, groups = map(torch.cat, (shares, areas, groups))
    counted = ~shares.isnan()
    if not counted.any():
        raise ValueError(
            f"None of the {len(shares)} images has a mask with foreground and background and a Grad-CAM map that is "
            "not 0 everywhere: look at the masks first."
        )
    metrics = {
        "attribution_in_mask": shares[counted].mean().item(),
        "mask_area": areas[counted].mean().item(),
        "attribution_coverage": counted.float().mean().item(),
    }
    for group, name in enumerate(group_names or []):
        if (members := counted & (groups == group)).any():
            metrics[f"attribution_in_mask_group_{name}"] = shares[members].mean().item()
    return metrics


def check_has_masks(dataset: Dataset) -> None:
    """Raise a ValueError that says what to do if the items of a data set have no masks."""
    if "mask" not in dataset[0]:
        raise ValueError(
            "The share of attribution inside the causal mask needs a `mask` for every image: give the data set a mask "
            "or box column (--mask_column, --box_column), or make masks (clp-hf masks)."
        )


# ---- the picture -----------------------------------------------------------------------------------------------------


def grad_cam_figure(
    models: Mapping[str, PreTrainedModel],
    dataset: Dataset,
    indices: Sequence[int],
    label_names: Sequence[str] | None = None,
) -> Figure:
    """Where several models look on the same images (the CLP paper's Figure 6): a row for every image.

    First the image with its true label, then for every model its map of the class it predicts (bright is what speaks
    for it), with that class (✓ where it is right, ✗ where it is wrong) and, where there are masks, the share of the map
    inside the mask, whose outline is drawn.

    Args:
        models: title -> classifier of the same classes and input, for example `{"ERM": …, "CLP": …, "HSFM": …}`.
        dataset: map-style, with evaluation transforms; items hold `pixel_values`, `labels` and maybe `mask`.
        indices: of the images.
        label_names: by default those of the first model.

    Returns:
        A matplotlib figure: `.savefig(path)`.

    Raises:
        ValueError: no model, no image, or a model without feature map.
    """
    if not models or not len(indices):
        raise ValueError(f"Need a model and an image at least, found {len(models)} and {len(indices)}.")
    label_names = label_names or modeling.label_names(next(iter(models.values())))
    batch = default_data_collator([dataset[index] for index in indices])
    pixels, labels = batch["pixel_values"], batch["labels"].tolist()
    low, high = (extreme((1, 2, 3), keepdim=True) for extreme in (pixels.amin, pixels.amax))
    pictures = ((pixels - low) / (high - low).clamp(min=1e-6)).permute(0, 2, 3, 1).numpy()
    masks = prepare_masks(batch["mask"], "exact") if "mask" in batch else None

    figure, axes = pyplot.subplots(
        len(indices), 1 + len(models), figsize=(2 * (1 + len(models)), 2.35 * len(indices)), squeeze=False
    )
    pyplot.close(figure)  # it is shown or saved by the caller
    for axis, picture, label in zip(axes[:, 0], pictures, labels, strict=True):
        axis.imshow(picture)
        axis.set_title(f"true: {label_names[label]}", fontsize=8)
    for column, (title, model) in enumerate(models.items(), 1):
        on_device = pixels.to(next(model.parameters()).device)
        maps, logits = Attribution(model, on_device)(on_device)
        shares = attribution_shares(maps, masks).tolist() if masks is not None else [torch.nan] * len(labels)
        for row, (axis, label, predicted) in enumerate(
            zip(axes[:, column], labels, logits.argmax(1).tolist(), strict=True)
        ):
            axis.imshow(pictures[row])
            axis.imshow(maps[row], cmap="inferno", alpha=0.5, vmin=0)
            if masks is not None and maskable(masks[row : row + 1]):
                axis.contour(masks[row, 0], levels=[0.5], colors="white", linewidths=0.8)
            inside = "" if np.isnan(shares[row]) else f", {100 * shares[row]:.0f} % inside"
            mark = "✓" if predicted == label else "✗"
            axis.set_title(f"{title}: {label_names[predicted]} {mark}{inside}", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def heat_overlay(picture: Image.Image, heat: Tensor) -> Image.Image:
    """A map over its image, blue where it is 0 and red where it is largest, large enough to be looked at.

    Args:
        picture: what the model saw.
        heat: (H, W), at least 0; of any scale.
    """
    factor = max(1, SHORT_SIDE / min(picture.size))
    width, height = (round(factor * side) for side in picture.size)
    heat = F.interpolate(heat[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    heat = heat / heat.max().clamp(min=1e-12)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    return Image.fromarray(show_cam_on_image(pixels, heat.numpy(), use_rgb=True, image_weight=IMAGE_WEIGHT))
