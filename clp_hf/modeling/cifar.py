"""Networks for images of 32 pixels that neither timm nor transformers has: the CIFAR ResNets and wide ResNets.

Importing this module (`clp_hf.modeling` does) registers them with timm, so that their names work wherever a bare timm
name does. There are no pretrained weights: they start from random ones.
"""

from itertools import pairwise

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

# of the CIFAR-10 training images
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Convolution(nn.Conv2d):
    """3 × 3, without bias, padded to keep the size; He initialisation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class Block(nn.Module):
    """Two convolutions and a shortcut without weights: every other pixel, new channels zero (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = Convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = Convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + shortcut)


class WideBlock(nn.Module):
    """Batch normalisation and ReLU before each of two convolutions, dropout between them."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), Convolution(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), Convolution(outputs, outputs)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        active = F.relu(self.bn1(x))
        y = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(active)))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class SmallImageNetwork(nn.Module):
    """A convolution, stages of blocks, the mean over pixels and a linear head, with the methods of a timm model.

    Args:
        stem: to the width of the first stage.
        blocks: what follows it.
        num_features: d, of the penultimate features.
        num_classes: C.
    """

    def __init__(self, stem: nn.Module, blocks: nn.Module, num_features: int, num_classes: int):
        super().__init__()
        self.stem, self.blocks = stem, blocks
        self.num_features = self.head_hidden_size = num_features
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for so many classes; 0 leaves the features."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The linear head."""
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, 3, H, W) to (n, d, H / 4, W / 4)."""
        return self.blocks(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(n, d, h, w) to the logits (n, C), or to the features (n, d)."""
        x = x.mean((2, 3))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, H, W) to logits (n, C)."""
        return self.forward_head(self.forward_features(x))


class CifarResNet(SmallImageNetwork):
    """The CIFAR ResNet of He et al. (2016), section 4.2, shortcut A: 16, 32 and 64 channels, `depth` = 6 k + 2."""

    def __init__(self, depth: int, num_classes: int = 10):
        widths = _widths((16, 16, 32, 64), (depth - 2) // 6)
        stem = nn.Sequential(Convolution(3, 16), nn.BatchNorm2d(16), nn.ReLU())
        super().__init__(stem, nn.Sequential(*(Block(*width) for width in widths)), 64, num_classes)


class WideResNet(SmallImageNetwork):
    """The wide ResNet of Zagoruyko & Komodakis (2016): `depth` = 6 k + 4, widths 16, 32 and 64 times `factor`.

    Args:
        depth, factor: 28 and 10 for WRN-28-10.
        num_classes: C.
        drop_rate: dropout between the convolutions of a block.
    """

    def __init__(self, depth: int, factor: int, num_classes: int = 10, drop_rate: float = 0.0):
        widths = _widths((16, 16 * factor, 32 * factor, 64 * factor), (depth - 4) // 6)
        blocks = [WideBlock(*width, drop_rate) for width in widths]
        norm = nn.BatchNorm2d(64 * factor)
        super().__init__(Convolution(3, 16), nn.Sequential(*blocks, norm, nn.ReLU()), 64 * factor, num_classes)


def _widths(channels: tuple[int, ...], length: int) -> list[tuple[int, int, int]]:
    """(inputs, outputs, stride) of every block of three stages; the second and third halve the image."""
    widths = []
    for stage, (inputs, outputs) in enumerate(pairwise(channels)):
        widths += [(inputs, outputs, 1 if stage == 0 else 2), *[(outputs, outputs, 1)] * (length - 1)]
    return widths


# ---- in timm's registry ----------------------------------------------------------------------------------------------

_settings = {
    "url": "",
    "input_size": (3, 32, 32),
    "num_classes": 10,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": MEAN,
    "std": STD,
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs(dict.fromkeys(("cifar_resnet20", "cifar_resnet32", "wrn28_10"), _settings))


def _build(network: type, name: str, pretrained: bool, **kwargs) -> nn.Module:
    return build_model_with_cfg(network, name, pretrained, kwargs_filter=("in_chans",), **kwargs)  # always RGB


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs) -> CifarResNet:
    """269,722 weights with ten classes."""
    return _build(CifarResNet, "cifar_resnet20", pretrained, depth=20, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs) -> CifarResNet:
    """464,154 weights with ten classes."""
    return _build(CifarResNet, "cifar_resnet32", pretrained, depth=32, **kwargs)


@register_model
def wrn28_10(pretrained: bool = False, **kwargs) -> WideResNet:
    """36,479,194 weights with ten classes; `drop_rate` is 0.3 in part of the paper's runs, 0 by default."""
    return _build(WideResNet, "wrn28_10", pretrained, depth=28, factor=10, **kwargs)
