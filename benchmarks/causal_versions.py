"""Features of the causal versions of images, drawn once for every image and kept as those of the images are.

Pixels are gone once features are taken, so counterfactual and factual images cannot be made in training. They are made
before: of every image that has a mask some versions, among which training draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from clp_hf import CLPTrainingArguments
from clp_hf.causal import CausalAugmentation, Masks, Role, build_inpainter, maskable
from clp_hf.data import ImageClassificationDataset
from clp_hf.data.mask_counts import split_masks
from clp_hf.features import CausalImages, FeatureSet

DRAWS = 3  # of an image by every infill
DRAWN_ONCE = ("grey", "tile", "inpaint")  # which are always the same


@dataclass(frozen=True)
class Needed:
    """The infills of a method that are asked of a data set.

    Attributes:
        counterfactual, factual: their names.
        both: whether counterfactual versions of the factual ones are asked for too, the background of an image that has
            been put before another one.
    """

    counterfactual: Sequence[str] = ()
    factual: Sequence[str] = ()
    both: bool = False

    @classmethod
    def of(cls, args: CLPTrainingArguments) -> dict[str, "Needed"]:
        """By name of the data set, `train` and `meta`, what the training arguments of a method ask of it."""
        counterfactual = args.counterfactual_infills if args.meta_every else ()
        background = counterfactual if "background" in args.evidence else ()
        return {
            "train": cls(background, args.train_infills, both=True),
            "meta": cls(counterfactual, args.factual_infills if args.meta_every else ()),
        }

    def __bool__(self) -> bool:
        return bool(self.counterfactual or self.factual)


class VersionAugmentation(CausalAugmentation):
    """Brings a version of the wanted role to where the perceptron looks, the first column, in place of making it.

    Args:
        needed: the infills.
        starts: role -> the columns of its versions, of every infill as many.
        width: columns that come with a factual version: its own, and those of counterfactual versions of it.
    """

    def __init__(self, needed: Needed, starts: Mapping[Role, Sequence[int]], width: int = 1):
        # Nothing is painted here, nor normalised.
        super().__init__(needed.counterfactual, needed.factual, [0.0], [1.0], inpainter=lambda images, *_: images)
        self.starts = {role: torch.tensor(columns, dtype=torch.long) for role, columns in starts.items()}
        self.widths = {Role.COUNTERFACTUAL: 1, Role.FACTUAL: width}

    @torch.no_grad()
    def __call__(
        self,
        pixel_values: Tensor,
        labels: Tensor,
        mask: Masks | Tensor | None,
        role: Tensor,
        *,
        generator: Generator,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """As of `CausalAugmentation`, of features (n, d, 1, 1 + V); classifier and donors are of no use."""
        if not (role != Role.ORIGINAL).any():
            return pixel_values.clone(), role
        role = torch.where(maskable(Masks.of(mask).soft), role, int(Role.ORIGINAL))
        draw = torch.rand(len(role), generator=generator, device=generator.device).to(role.device)
        shown = torch.arange(pixel_values.shape[3], device=role.device).repeat(len(role), 1)
        for kind, starts in self.starts.items():
            rows, starts, width = role == kind, starts.to(role.device), self.widths[kind]
            start = starts[(draw[rows] * len(starts)).long()]
            shown[rows, :width] = start[:, None] + torch.arange(width, device=role.device)
        columns = shown[:, None, None].expand(*pixel_values.shape[:3], -1)
        return pixel_values.gather(3, columns), role


@dataclass(frozen=True)
class CausalVersions:
    """Of n images.

    Attributes:
        features: (n, V, d).
        maskable: bool (n,); the versions of the other images are those images.
        augmentation: knows which version is in which column, the first of them being 1.
    """

    features: Tensor
    maskable: Tensor
    augmentation: VersionAugmentation


def causal_versions(
    images: ImageClassificationDataset,
    needed: Needed,
    args: CLPTrainingArguments,
    extract: Callable[[Dataset], FeatureSet],
) -> CausalVersions | None:
    """The versions that are needed; None where there are none, or no masks to make them by.

    Args:
        images: as evaluation sees them.
        needed: which.
        args: say how masks are used.
        extract: from a data set of images to its features.
    """
    if not (needed and images.has_mask):
        return None
    columns: list[FeatureSet] = []

    def drawn(source: Dataset, role: Role, names: Sequence[str], beside: Sequence[str] = ()) -> list[int]:
        """Extract the versions of one role, each with its counterfactual ones `beside`; where each begins."""
        starts = []
        for name in names:
            own = _one_infill(images, role, name, args)
            for draw in range(1 if name in DRAWN_ONCE else DRAWS):
                starts.append(1 + len(columns))
                version = CausalImages(source, own, role, draw)
                columns.append(extract(version))
                drawn(version, Role.COUNTERFACTUAL, beside)
            if name in DRAWN_ONCE:
                starts += [starts[-1]] * (DRAWS - 1)
        return starts

    starts = {Role.COUNTERFACTUAL: drawn(images, Role.COUNTERFACTUAL, needed.counterfactual)}
    width = 1 + (len(columns) if needed.both else 0)
    beside = needed.counterfactual if needed.both else ()
    starts[Role.FACTUAL] = drawn(images, Role.FACTUAL, needed.factual, beside)
    return CausalVersions(
        torch.stack([column.features for column in columns], 1),
        split_masks(images, args.mask_shape).maskable,
        VersionAugmentation(needed, starts, width),
    )


def _one_infill(
    images: ImageClassificationDataset, role: Role, name: str, args: CLPTrainingArguments
) -> CausalAugmentation:
    """By which the versions of an infill are made, whatever others a method has: methods share them."""
    names = [name] if role == Role.COUNTERFACTUAL else [], [name] if role == Role.FACTUAL else []
    return CausalAugmentation(
        *names,
        *(getattr(images.transform, part).flatten().tolist() for part in ("mean", "std")),
        mask_shape=args.mask_shape,
        factual_mask_shape=args.factual_mask_shape,
        inpainter=build_inpainter(args.inpainting_model) if name == "inpaint" else None,
    )
