"""Random draws that depend on the generator only: made on its device, then moved, so the same seed gives the same
images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

CLOUD_GRID = 4


def random_uniform(shape: Sequence[int], generator: Generator, device: torch.device) -> Tensor:
    """float32 in [0, 1)."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def random_normal(shape: Sequence[int], generator: Generator, device: torch.device) -> Tensor:
    """float32, mean 0, variance 1."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def random_integers(low: int, high: int, shape: Sequence[int], generator: Generator, device: torch.device) -> Tensor:
    """int64 in [low, high)."""
    return torch.randint(low, high, shape, generator=generator, device=generator.device).to(device)


def random_clouds(shape: Sequence[int], generator: Generator, device: torch.device) -> Tensor:
    """float32 in [0, 1), low frequencies: a 4 × 4 grid of uniform values per channel, interpolated bilinearly."""
    grid = random_uniform((*shape[:2], CLOUD_GRID, CLOUD_GRID), generator, device)
    return F.interpolate(grid, size=tuple(shape[2:]), mode="bilinear", align_corners=True)
