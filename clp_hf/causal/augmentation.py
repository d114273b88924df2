"""Causal augmentation of a meta batch: each row as original, counterfactual or factual image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..utils.names import did_you_mean
from .appearance import FACTUAL_REGIONS
from .background_attack import DEFAULT_EPSILON
from .infills import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS, composite, draw_donors
from .inpainting import Inpainter, build_inpainter
from .masks import Masks, check_mask_shape, maskable
from .sampling import Role


class CausalAugmentation:
    """Turn rows of a batch into counterfactual (Eq. 2) and factual (Eq. 4) images.

    With both lists empty (Meta-LP) it returns batches as they are and needs no masks.

    Args:
        counterfactual_infills: names out of `COUNTERFACTUAL_INFILLS`; each counterfactual row draws one.
        factual_infills: names out of `FACTUAL_INFILLS`; each factual row draws one.
        image_mean: per channel, of the model's normalisation.
        image_std: per channel, of the model's normalisation.
        mask_shape: `"box"`, the box around the mask (the paper's choice: what is removed must leave no outline), or
            `"exact"`.
        factual_mask_shape: of factual images; by default `mask_shape`. What is kept may show its outline, and a box
            keeps a frame of the old background: `"exact"` looks far more real where the masks are good.
        fgsm_epsilon: largest change of a pixel by `fgsm`, in units of the pixel range [0, 1].
        inpainter: for `inpaint`; by default OpenCV's Telea.

    Raises:
        ValueError: unknown infill or mask shape (lists the valid ones).
        ImportError: `inpaint` without OpenCV.
    """

    def __init__(
        self,
        counterfactual_infills: Sequence[str],
        factual_infills: Sequence[str],
        image_mean: Sequence[float],
        image_std: Sequence[float],
        mask_shape: str = "box",
        factual_mask_shape: str | None = None,
        fgsm_epsilon: float = DEFAULT_EPSILON,
        inpainter: Inpainter | None = None,
    ):
        self.mask_shapes = {Role.COUNTERFACTUAL: mask_shape, Role.FACTUAL: factual_mask_shape or mask_shape}
        for shape in self.mask_shapes.values():
            check_mask_shape(shape)
        check_infills("counterfactual", counterfactual_infills, COUNTERFACTUAL_INFILLS)
        check_infills("factual", factual_infills, FACTUAL_INFILLS)
        self.infills = {
            Role.COUNTERFACTUAL: {name: COUNTERFACTUAL_INFILLS[name] for name in counterfactual_infills},
            Role.FACTUAL: {name: FACTUAL_INFILLS[name] for name in factual_infills},
        }
        self.mean = torch.tensor(image_mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(image_std, dtype=torch.float32).view(-1, 1, 1)
        self.fgsm_epsilon = fgsm_epsilon
        needs_inpainter = "inpaint" in counterfactual_infills and inpainter is None
        self.inpainter = build_inpainter() if needs_inpainter else inpainter

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that have an infill, and `ORIGINAL`; for `MetaSampler`."""
        return (Role.ORIGINAL, *(role for role, infills in self.infills.items() if infills))

    @property
    def needs_masks(self) -> bool:
        """False for Meta-LP."""
        return self.roles != (Role.ORIGINAL,)

    @torch.no_grad()
    def __call__(
        self,
        pixel_values: Tensor,
        labels: Tensor,
        mask: Masks | Tensor | None,
        role: Tensor,
        *,
        generator: Generator,
        logits_fn: Callable[[Tensor], Tensor] | None = None,
        donors: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            pixel_values: float32 `(n, channels, height, width)`, normalised.
            labels: `(n,)`, the original ones.
            mask: `(n, 1, height, width)` in [0, 1], 1 = foreground, or `Masks` of them, which keep the shapes that are
                made here; `None` only if every role is original.
            role: `(n,)` int64 of `Role`.
            generator: the only source of randomness, on any device.
            logits_fn: the current classifier, `pixel_values` to logits; for `fgsm`.
            donors: other images (`pixel_values`, `labels`, `mask`, for example the training batch) from which
                `mix_rand` takes backgrounds too.

        Returns:
            A new tensor like `pixel_values`, and the roles that its rows really have: a random crop can cut the
            foreground off an image that had one, such a row stays as it is and is an original, not to be labelled
            "not y". Original rows and the kept part of all others are equal to the input bit for bit.

        Raises:
            ValueError: a role without infill or without mask, a mask of another size, or what the infill raises.
        """
        role = role.cpu()  # who does what is decided here, and a GPU waited for once: for what can be masked
        if not (role != Role.ORIGINAL).any():
            return pixel_values.clone(), role.to(labels.device)
        if mask is None:
            raise ValueError(
                "Counterfactual and factual images need masks. Give the data set a mask or box column, or leave "
                "counterfactual_infills and factual_infills empty (Meta-LP)."
            )
        mask = Masks.of(mask)
        if len(mask.soft) != len(pixel_values) or mask.soft.shape[2:] != pixel_values.shape[2:]:
            raise ValueError(
                f"Masks must have the size of their images: found masks {tuple(mask.soft.shape)} for images "
                f"{tuple(pixel_values.shape)}."
            )
        masks = {kind: mask.shaped(shape) for kind, shape in self.mask_shapes.items()}
        for kind, usable in zip(masks, torch.stack([maskable(shaped) for shaped in masks.values()]).cpu(), strict=True):
            role = torch.where((role == kind) & ~usable, int(Role.ORIGINAL), role)
        draw = torch.rand(len(role), generator=generator, device=generator.device).cpu()
        # The result is picked from all parts at once: writing rows into a copy of the batch is several times slower.
        parts, position, size = [pixel_values], torch.arange(len(role)), len(role)
        for kind, infills in self.infills.items():
            if not infills and (role == kind).any():
                raise ValueError(f"The batch has {kind.name.lower()} rows, but {kind.name.lower()}_infills is empty.")
            choice = (draw * len(infills)).long()
            for number, (name, infill) in enumerate(infills.items()):
                rows = ((role == kind) & (choice == number)).nonzero().squeeze(1)
                if len(rows) == 0:
                    continue
                position[rows] = torch.arange(size, size + len(rows))
                size += len(rows)
                rows = rows.to(labels.device)
                more = self._arguments(name, rows, pixel_values, labels, mask, generator, logits_fn, donors)
                region = _region(kind, name, masks[kind], mask)
                kept, hole = pixel_values.index_select(0, rows), region.index_select(0, rows)
                filled = infill(self._to_pixels(kept), hole, generator, **more)
                parts.append(composite(kept, self._normalize(filled), hole))
        return torch.cat(parts).index_select(0, position.to(labels.device)), role.to(labels.device)

    def _arguments(
        self,
        name: str,
        rows: Tensor,
        pixel_values: Tensor,
        labels: Tensor,
        mask: Masks,
        generator: Generator,
        logits_fn: Callable[[Tensor], Tensor] | None,
        donors: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """What the infill takes beside image, region and generator."""
        if name == "inpaint":
            return {"inpainter": self.inpainter}
        if name == "mix_rand":
            pool = [{"pixel_values": pixel_values, "mask": mask, "labels": labels}]
            if donors is not None:
                pool.append(donors)
            boxes = torch.cat([Masks.of(part["mask"]).shaped("box") for part in pool])
            pool_labels = torch.cat([part["labels"] for part in pool])
            drawn = draw_donors(labels[rows], pool_labels, maskable(boxes), generator, own=rows)
            pictures = _rows_of([part["pixel_values"] for part in pool], drawn)
            return {"donors": self._to_pixels(pictures), "donor_box": boxes.index_select(0, drawn)}
        if name == "fgsm":
            if logits_fn is None:
                raise ValueError("The fgsm infill attacks the current classifier: pass logits_fn.")
            return {
                "labels": labels[rows],
                "logits_fn": lambda pixels: logits_fn(self._normalize(pixels)),
                "epsilon": self.fgsm_epsilon,
            }
        if name in FACTUAL_REGIONS:
            return {"foreground": mask.shaped("exact").index_select(0, rows)}
        return {}

    def _to_pixels(self, pixel_values: Tensor) -> Tensor:
        """Undo the normalisation; [0, 1] but for rounding."""
        return (pixel_values * self.std.to(pixel_values) + self.mean.to(pixel_values)).clamp_(0, 1)

    def _normalize(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean.to(pixels)) / self.std.to(pixels)


def _region(kind: Role, name: str, shaped: Tensor, mask: Masks) -> Tensor:
    """What an infill replaces: the object of a counterfactual image, the background of a factual one; or its object."""
    if kind == Role.COUNTERFACTUAL:
        return shaped
    if name not in FACTUAL_REGIONS:
        return 1 - shaped
    shape = FACTUAL_REGIONS[name]
    return shaped if shape is None else mask.shaped(shape)


def _rows_of(parts: Sequence[Tensor], index: Tensor) -> Tensor:
    """`torch.cat(parts)[index]` for images, without copying them all."""
    rows, start = parts[0].index_select(0, index.clamp(max=len(parts[0]) - 1)), len(parts[0])
    for part in parts[1:]:
        here = part.index_select(0, (index - start).clamp(0, len(part) - 1))
        rows = torch.where((index >= start)[:, None, None, None], here, rows)
        start += len(part)
    return rows


def check_infills(kind: str, names: Sequence[str], registry: Mapping[str, object]) -> None:
    """Refuse names of infills that are not in their registry.

    Raises:
        ValueError: lists the valid ones.
    """
    if isinstance(names, str):
        raise ValueError(f"The {kind} infills are {names!r}; expected a list of names: [{names!r}].")
    unknown = [name for name in names if name not in registry]
    if unknown:
        raise ValueError(
            f"Unknown {kind} infill {', '.join(map(repr, unknown))}; valid are {', '.join(map(repr, registry))}."
            f"{did_you_mean(unknown[0], registry)}"
        )
