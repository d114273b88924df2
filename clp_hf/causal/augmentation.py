"""Causal augmentation of a meta batch: each row as original, counterfactual or factual image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from .background_attack import DEFAULT_EPSILON
from .infills import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS, composite, draw_donors
from .inpainting import Inpainter, build_inpainter
from .masks import check_mask_shape, maskable, prepare_masks
from .meta_set import Role


class CausalAugmentation:
    """Turn rows of a batch into counterfactual (Eq. 2) and factual (Eq. 4) images.

    With both lists empty (Meta-LP) it returns batches as they are and needs no masks.

    Args:
        counterfactual_infills: names out of `COUNTERFACTUAL_INFILLS`; each counterfactual row draws one.
        factual_infills: names out of `FACTUAL_INFILLS`; each factual row draws one.
        image_mean: per channel, of the model's normalisation.
        image_std: per channel, of the model's normalisation.
        mask_shape: `"box"`, the box around the mask, or `"exact"`.
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
        fgsm_epsilon: float = DEFAULT_EPSILON,
        inpainter: Inpainter | None = None,
    ):
        check_mask_shape(mask_shape)
        _check_names("counterfactual", counterfactual_infills, COUNTERFACTUAL_INFILLS)
        _check_names("factual", factual_infills, FACTUAL_INFILLS)
        self.infills = {
            Role.COUNTERFACTUAL: {name: COUNTERFACTUAL_INFILLS[name] for name in counterfactual_infills},
            Role.FACTUAL: {name: FACTUAL_INFILLS[name] for name in factual_infills},
        }
        self.mean = torch.tensor(image_mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(image_std, dtype=torch.float32).view(-1, 1, 1)
        self.mask_shape = mask_shape
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

    def effective_role(self, role: Tensor, mask: Tensor) -> Tensor:
        """`role` with the rows that cannot be masked set to `ORIGINAL`.

        A random crop can cut the foreground off an image that had one. Such a row is left as it is, so it must not be
        labelled "not y": use these roles for the loss.
        """
        return torch.where(maskable(prepare_masks(mask, self.mask_shape)), role, int(Role.ORIGINAL))

    @torch.no_grad()
    def __call__(
        self,
        pixel_values: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        role: Tensor,
        *,
        generator: Generator,
        logits_fn: Callable[[Tensor], Tensor] | None = None,
        donors: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Augment a batch.

        Args:
            pixel_values: float32 `(n, channels, height, width)`, normalised.
            labels: `(n,)`, the original ones.
            mask: `(n, 1, height, width)` in [0, 1], 1 = foreground; `None` only if every role is original.
            role: `(n,)` int64 of `Role`.
            generator: the only source of randomness, on any device.
            logits_fn: the current classifier, `pixel_values` to logits; for `fgsm`.
            donors: other images (`pixel_values`, `labels`, `mask`, for example the training batch) from which `mix_rand`
                takes backgrounds too.

        Returns:
            A new tensor like `pixel_values`. Original rows, rows that cannot be masked (see `effective_role`) and the kept
            part of all others are equal to the input bit for bit.

        Raises:
            ValueError: a role without infill or without mask, a mask of another size, or what the infill raises.
        """
        augmented = pixel_values.clone()
        if not (role != Role.ORIGINAL).any():
            return augmented
        if mask is None:
            raise ValueError(
                "Counterfactual and factual images need masks. Give the data set a mask or box column, or leave "
                "counterfactual_infills and factual_infills empty (Meta-LP)."
            )
        if len(mask) != len(pixel_values) or mask.shape[2:] != pixel_values.shape[2:]:
            raise ValueError(
                f"Masks must have the size of their images: found masks {tuple(mask.shape)} for images "
                f"{tuple(pixel_values.shape)}."
            )
        mask = prepare_masks(mask, self.mask_shape)
        role = torch.where(maskable(mask), role, int(Role.ORIGINAL))
        draw = torch.rand(len(role), generator=generator, device=generator.device).to(role.device)
        for kind, region in ((Role.COUNTERFACTUAL, mask), (Role.FACTUAL, 1 - mask)):
            infills = self.infills[kind]
            if not infills and (role == kind).any():
                raise ValueError(f"The batch has {kind.name.lower()} rows, but {kind.name.lower()}_infills is empty.")
            choice = (draw * len(infills)).long()
            for number, (name, infill) in enumerate(infills.items()):
                rows = ((role == kind) & (choice == number)).nonzero().squeeze(1)
                if len(rows) == 0:
                    continue
                more = self._arguments(name, rows, pixel_values, labels, mask, generator, logits_fn, donors)
                filled = infill(self._to_pixels(pixel_values[rows]), region[rows], generator, **more)
                augmented[rows] = composite(pixel_values[rows], self._normalize(filled), region[rows])
        return augmented

    def _arguments(
        self,
        name: str,
        rows: Tensor,
        pixel_values: Tensor,
        labels: Tensor,
        mask: Tensor,
        generator: Generator,
        logits_fn: Callable[[Tensor], Tensor] | None,
        donors: Mapping[str, Tensor] | None,
    ) -> dict[str, Any]:
        """What the infill takes beside image, region and generator."""
        if name == "inpaint":
            return {"inpainter": self.inpainter}
        if name == "mix_rand":
            pool = [(pixel_values, mask, labels)]
            if donors is not None:
                donor_mask = prepare_masks(donors["mask"], self.mask_shape)
                pool.append((donors["pixel_values"], donor_mask, donors["labels"]))
            pool_values, pool_mask, pool_labels = (torch.cat(parts) for parts in zip(*pool, strict=True))
            drawn = draw_donors(labels[rows], pool_labels, maskable(pool_mask), generator, own=rows)
            return {"donors": self._to_pixels(pool_values[drawn]), "donor_mask": pool_mask[drawn]}
        if name == "fgsm":
            if logits_fn is None:
                raise ValueError("The fgsm infill attacks the current classifier: pass logits_fn.")
            return {
                "labels": labels[rows],
                "logits_fn": lambda pixels: logits_fn(self._normalize(pixels)),
                "epsilon": self.fgsm_epsilon,
            }
        return {}

    def _to_pixels(self, pixel_values: Tensor) -> Tensor:
        """Undo the normalisation; [0, 1] but for rounding."""
        return (pixel_values * self.std.to(pixel_values) + self.mean.to(pixel_values)).clamp_(0, 1)

    def _normalize(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean.to(pixels)) / self.std.to(pixels)


def _check_names(kind: str, names: Sequence[str], registry: Mapping[str, object]) -> None:
    unknown = [name for name in names if name not in registry]
    if unknown:
        raise ValueError(
            f"Unknown {kind} infill {', '.join(map(repr, unknown))}; valid are {', '.join(map(repr, registry))}."
        )
