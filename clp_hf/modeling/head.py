"""The final linear layer: found by watching a forward pass, read and written; logits with features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .identity import architecture_name
from .modes import evaluation_mode


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
        ValueError: the model gives no logits for these images, or no linear layer's output is the logits; the message
            names the model and says what was found.
    """
    outputs: dict[str, Tensor] = {}

    def watch(name):
        def hook(module, args, output):
            outputs[name] = output

        return hook

    linears = {name: module for name, module in model.named_modules() if _is_linear(module)}
    handles = [module.register_forward_hook(watch(name)) for name, module in linears.items()]
    try:
        logits = _logits(model, pixel_values)
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


@torch.no_grad()
def _logits(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """Of images (n, 3, H, W), in evaluation mode, (n, C)."""
    try:
        device = next((parameter.device for parameter in model.parameters()), None)  # FSDP moves a model when it trains
        with evaluation_mode(model):
            logits = model(pixel_values=pixel_values.to(device)).logits
        if logits.ndim != 2 or len(logits) != len(pixel_values):
            raise ValueError(f"the logits of {len(pixel_values)} images are of shape {tuple(logits.shape)}")
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:  # as its author had it
        height, width = pixel_values.shape[2:]
        raise ValueError(
            f"{architecture_name(model)} gives no logits for RGB images of {height} × {width} pixels "
            f"({type(error).__name__}: {error}). It has to be an image classifier of three channels and this size."
        ) from error
    return logits


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
