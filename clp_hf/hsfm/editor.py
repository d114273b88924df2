"""HSFM: edit the features of a few training images until the head they train is good on hard validation images.

Hard-set-guided feature-space meta-learning. The backbone is frozen, the head is linear. Each epoch takes as hard set
the validation images of every class with the largest loss, improves the support features H by `edits_per_epoch` Adam
steps on the hard-set loss of a head adapted to H (`unrolled`), and then trains the real head on H.

Any number of runs (seeds, settings, folds) advance together on a leading dimension R.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from ..features.feature_set import FeatureSet, Head
from ..utils.names import did_you_mean
from .unrolled import linear, unrolled

GRADIENT_NORM = 10.0
ADAM = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8, "maximize": False}
SELECTIONS = ("worst_group", "worst_class", "hard_loss")


@dataclass(frozen=True)
class HSFMSettings:
    """Settings of one run.

    Attributes:
        support_size: |S|, support features of every class.
        inner_steps: T, gradient steps of the adapted head, and Adam steps of the real one.
        inner_rate: α, of both.
        edit_rate: η, of Adam on the support features; in the units of the features.
        edits_per_epoch: K_H.
        hard_size: K_hard, validation images of every class in the hard set.
        epochs: each with a new hard set.
        seed: of the support set and the folds.
    """

    support_size: int = 16
    inner_steps: int = 15
    inner_rate: float = 5e-5
    edit_rate: float = 1.0
    edits_per_epoch: int = 15
    hard_size: int = 64
    epochs: int = 40
    seed: int = 0

    def __post_init__(self):
        bad = {name: value for name, value in asdict(self).items() if name != "seed" and not value > 0}
        if bad:
            raise ValueError(f"HSFM settings must be positive, found {bad}.")


# As published, for ResNet-50 features.
PRESETS = {
    "waterbirds": HSFMSettings(),
    "celeba": HSFMSettings(1024, 10, 5e-5, 1.0, 5, 256, 20),
    "metashift": HSFMSettings(32, 15, 5e-5, 1e-2, 10, 64, 10),
    "dominoes": HSFMSettings(16, 10, 1e-4, 1.0, 15, 256, 40),
}
PRESET_CLASSES = 2


@dataclass(frozen=True)
class HSFMResult:
    """One setting's outcome; with two folds, of both runs together.

    Attributes:
        head: `weight` (C, d) and `bias` (C,), the mean over folds of each run's best head.
        settings: of the run.
        score: of the selection at the best epoch, higher is better, mean over folds.
        average: accuracy on the same images.
        rule: how the epoch was selected, in words.
        epochs: the best epoch of each fold; 0 is the head as it was given.
        diverged: the epoch at which a fold met a number that is not finite and stopped, or None; of each fold.
        support_indices: (n,), in the training features, of the first fold.
        edited: (n, d), the support features at its best epoch.
        history: per epoch of the first fold, `hard_loss`, `score` and `average`.
    """

    head: Head
    settings: HSFMSettings
    score: float
    average: float
    rule: str
    epochs: tuple[int, ...]
    diverged: tuple[int | None, ...]
    support_indices: Tensor
    edited: Tensor
    history: list[dict[str, float]]


def hsfm(
    train: FeatureSet,
    validation: FeatureSet,
    head: Head,
    settings: Sequence[HSFMSettings],
    *,
    selection: str | None = None,
    folds: int = 2,
) -> list[HSFMResult]:
    """Run HSFM with several settings at once.

    Args:
        train: where support features are drawn from.
        validation: where hard sets are drawn from, and what selects the epoch.
        head: `weight` (C, d) and `bias` (C,).
        settings: one run each, or two with two folds.
        selection: `"worst_group"`, `"worst_class"` or `"hard_loss"` (the lowest mean loss of the hardest images); by
            default the first that `validation` allows.
        folds: 2: the hard set comes from one half of the validation set and the epoch is selected on the other, both
            ways (cross-fitting); 1: both on all of it, as published. Selection on the images of the hard set is blind.

    Returns:
        One result per setting, in their order. `best` takes the one with the highest score.

    Raises:
        ValueError: the sets or the head do not fit each other, a class is missing, or selection and groups do not
            agree; the message names the fix.
    """
    selection = _selection(selection, validation)
    alike: dict[tuple[int, int], list[int]] = {}  # one batch each, of tensors and loops of one size
    for number, setting in enumerate(settings):
        alike.setdefault((setting.support_size, setting.inner_steps), []).append(number)
    results = {}
    for numbers in alike.values():
        runs, epoch = _Runs(train, validation, head, [settings[number] for number in numbers], selection, folds), 1
        while runs.advance(epoch):
            epoch += 1
        results |= zip(numbers, runs.results(), strict=True)
    return [results[number] for number in range(len(settings))]


def best(results: Sequence[HSFMResult]) -> HSFMResult:
    """The highest score; among equals the highest average."""
    return max(results, key=lambda result: (result.score, result.average))


def _selection(selection: str | None, validation: FeatureSet) -> str:
    if selection is None:
        return "worst_class" if validation.groups is None else "worst_group"
    if selection not in SELECTIONS:
        raise ValueError(
            f"selection is {selection!r}; choose one of {', '.join(SELECTIONS)}.{did_you_mean(selection, SELECTIONS)}"
        )
    if selection == "worst_group" and validation.groups is None:
        raise ValueError("selection is 'worst_group', but the validation set has no groups; use 'worst_class'.")
    return selection


class _Runs:
    """Runs, settings × folds, on the leading dimension of every tensor; of one support size and number of steps."""

    def __init__(self, train, validation, head, settings, selection, folds):
        _check(train, validation, head, folds)
        self.train, self.validation, self.settings = train, validation, settings
        self.selection, self.folds = selection, folds
        self.runs = [setting for setting in settings for _ in range(folds)]
        count, self.classes = len(self.runs), train.num_classes
        dtype = train.features.dtype
        self.setting = {
            item.name: torch.tensor(values, dtype=None if isinstance(values[0], int) else dtype)
            for item in fields(HSFMSettings)
            if (values := [getattr(setting, item.name) for setting in self.runs])
        }
        self.steps = settings[0].inner_steps

        self.indices = self._draw_support()
        self.onehot = F.one_hot(train.labels[self.indices], self.classes).mT.to(dtype)  # (R, C, n)
        self.support = train.features[self.indices].mT.contiguous()  # (R, d, n), as `unrolled` takes it
        self.gradient = torch.empty_like(self.support)
        self.validation_onehot = F.one_hot(validation.labels, self.classes).mT.to(dtype)  # (C, N)
        self.hard_pool, self.selection_pool = self._draw_folds()
        pool = (self.hard_pool.to(dtype) @ self.validation_onehot.T).amin(0).long()
        _warn_small("hard", "validation", pool, int(self.setting["hard_size"].max()))
        self.weight, self.bias = head.weight.repeat(count, 1, 1), head.bias.repeat(count, 1)
        self.edits = _Adam(self.setting["edit_rate"], self.support)
        self.updates = _Adam(self.setting["inner_rate"], self.weight, self.bias)

        self.running = torch.ones(count, dtype=torch.bool)
        self.diverged: list[int | None] = [None] * count
        self.history: list[list[dict[str, float]]] = [[] for _ in self.runs]
        self.best_weight, self.best_bias = self.weight.clone(), self.bias.clone()
        self.best_support = self.support.clone()
        self.best_epoch = torch.zeros(count, dtype=torch.long)
        self.best_score = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.best_average = torch.zeros(count, dtype=torch.float64)
        cells = validation.groups if selection == "worst_group" else validation.labels
        self.cells = F.one_hot(cells).double()  # (N, cells): whose accuracy selects
        self._select(0)

    def _draw_support(self) -> Tensor:
        """Training images (R, n) of the support sets."""
        members = [(self.train.labels == label).nonzero()[:, 0] for label in range(self.classes)]
        size = self.settings[0].support_size
        _warn_small("support", "training", torch.tensor([len(own) for own in members]), size)
        rows = []
        for setting in self.runs:  # the folds of a setting share its support set
            generator = torch.Generator().manual_seed(setting.seed)
            rows.append(torch.cat([own[torch.randperm(len(own), generator=generator)[:size]] for own in members]))
        return torch.stack(rows)

    def _draw_folds(self) -> tuple[Tensor, Tensor]:
        """Which validation images (R, N) hard sets come from, and which select the epoch."""
        validation = self.validation
        if self.folds == 1:
            everything = torch.ones(len(self.runs), len(validation), dtype=torch.bool)
            return everything, everything
        cells, halves = validation.labels if validation.groups is None else validation.groups, []
        for setting in self.settings:
            generator = torch.Generator().manual_seed(setting.seed)
            half = torch.zeros(len(validation), dtype=torch.bool)
            for cell in cells.unique():
                members = (cells == cell).nonzero()[:, 0]
                half[members[torch.randperm(len(members), generator=generator)[::2]]] = True
            halves += [half, ~half]
        return torch.stack(halves), ~torch.stack(halves)

    def advance(self, epoch: int) -> bool:
        """One epoch of every run that still has one; False when there is none."""
        due = self.running & (self.setting["epochs"] >= epoch)
        if not due.any():
            return False
        hard_weights, _ = self._hardest(self.hard_pool)
        members = hard_weights.any(0).nonzero()[:, 0]
        hard, hard_onehot = self.validation.features[members], self.validation_onehot[:, members]
        hard_weights = hard_weights[:, members]
        for edit in range(int(self.setting["edits_per_epoch"].max())):
            runs = _rows(due & (self.setting["edits_per_epoch"] > edit))
            _, gradient = unrolled(
                self.weight[runs],
                self.bias[runs],
                self.support[runs],
                self.onehot[runs],
                hard,
                hard_onehot,
                hard_weights[runs],
                self.setting["inner_rate"][runs],
                self.steps,
                out=self.gradient[: len(self.runs) if isinstance(runs, slice) else len(runs)],
            )
            factor = GRADIENT_NORM / (torch.linalg.vector_norm(gradient, dim=(1, 2), keepdim=True) + 1e-6)
            if (factor < 1).any():  # seldom: a pass over memory less
                gradient *= factor.clamp_(max=1)
            self.edits.step(runs, gradient)
        runs = _rows(due)
        support, onehot = self.support[runs], self.onehot[runs]
        for _ in range(self.steps):
            residual = linear(support, self.weight[runs], self.bias[runs]).softmax(1).sub_(onehot)
            residual /= support.shape[-1]
            self.updates.step(runs, residual @ support.mT, residual.sum(-1))
        self._stop_diverged(epoch)
        self._select(epoch)
        return True

    def _hardest(self, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Of every class the images in `pool` (R, N) with the largest loss.

        Returns:
            The weights of all images, (R, N), equal ones for these and 0 for the others; and the mean loss (R,).
        """
        losses = self.losses.masked_fill(~pool, torch.nan)
        wanted, sizes = torch.zeros_like(pool), self.setting["hard_size"]
        for label in range(self.classes):
            members = (self.validation.labels == label).nonzero()[:, 0]
            count = min(int(sizes.max()), len(members))
            indices = members[losses[:, members].nan_to_num(-torch.inf).topk(count, dim=1).indices]
            wanted.scatter_(1, indices, (torch.arange(count) < sizes[:, None]) & pool.gather(1, indices))
        weights = wanted.to(losses.dtype) / wanted.sum(1, keepdim=True)
        return weights, (losses.nan_to_num() * weights).sum(1)

    def _logits(self) -> Tensor:
        """Of the validation images, (R, C, N), in one product for all runs."""
        logits = self.weight.flatten(0, 1) @ self.validation.features.T
        return logits.unflatten(0, self.bias.shape) + self.bias[..., None]

    def _stop_diverged(self, epoch: int) -> None:
        tensors = (self.support, self.weight, self.bias)
        finite = torch.stack([tensor.flatten(1).isfinite().all(1) for tensor in tensors]).all(0)
        for run in (self.running & ~finite).nonzero()[:, 0].tolist():
            self.running[run], self.diverged[run] = False, epoch
            warnings.warn(
                f"HSFM diverged in epoch {epoch} with {self.runs[run]}: it stops and keeps its best head, that of "
                f"epoch {int(self.best_epoch[run])}. Lower edit_rate or inner_rate.",
                stacklevel=4,
            )

    def _select(self, epoch: int) -> None:
        """Keep the heads that are the best so far."""
        validation, pool = self.validation, self.selection_pool
        logits = self._logits()
        self.losses = -(logits.log_softmax(1) * self.validation_onehot).sum(1)  # the next hard sets come from them too
        correct = ((logits.argmax(1) == validation.labels) & pool).double()
        average = correct.sum(1) / pool.sum(1)
        hard_loss = self._hardest(pool)[1].double()
        if self.selection == "hard_loss":
            score = -hard_loss
        else:
            score = (correct @ self.cells / (pool.double() @ self.cells)).nan_to_num(torch.inf).amin(1)
        due = self.running & (self.setting["epochs"] >= epoch)
        tie = (score == self.best_score) & (average > self.best_average)
        rows = due & ((score > self.best_score) | tie)
        self.best_score[rows], self.best_average[rows], self.best_epoch[rows] = score[rows], average[rows], epoch
        self.best_weight[rows], self.best_bias[rows] = self.weight[rows], self.bias[rows]
        self.best_support[rows] = self.support[rows]
        for run in due.nonzero()[:, 0].tolist():
            values = {"score": score[run], "average": average[run], "hard_loss": hard_loss[run]}
            self.history[run].append({"epoch": epoch} | {name: float(value) for name, value in values.items()})

    def results(self) -> list[HSFMResult]:
        """One per setting."""
        where = "validation" if self.folds == 1 else "the half of validation that its hard sets do not come from"
        rule = f"epoch: best {self.selection.replace('_', ' ')} on {where}; setting: best mean over folds"
        results = []
        for first in range(0, len(self.runs), self.folds):
            own = slice(first, first + self.folds)
            results.append(
                HSFMResult(
                    head=Head(self.best_weight[own].mean(0), self.best_bias[own].mean(0)),
                    settings=self.runs[first],
                    score=float(self.best_score[own].mean()),
                    average=float(self.best_average[own].mean()),
                    rule=rule,
                    epochs=tuple(self.best_epoch[own].tolist()),
                    diverged=tuple(self.diverged[own]),
                    support_indices=self.indices[first],
                    edited=self.best_support[first].T,
                    history=self.history[first],
                )
            )
        return results


class _Adam:
    """Adam on tensors whose first dimension is runs, each run with its own rate; runs that are not due stand still.

    By the function under `torch.optim.Adam`, whose bookkeeping takes longer than the step of a single run.
    """

    def __init__(self, rates: Tensor, *tensors: Tensor):
        self.rates = rates.tolist()
        self.state = [  # of each tensor and run: parameter, first and second moment, number of steps
            list(zip(own, torch.zeros_like(own), torch.zeros_like(own), torch.zeros(len(own)), strict=True))
            for own in tensors
        ]

    def step(self, runs: slice | Tensor, *gradients: Tensor) -> None:
        numbers = range(len(self.rates))[runs] if isinstance(runs, slice) else runs.tolist()
        of_rate: dict[float, list] = {}
        for state, gradient in zip(self.state, gradients, strict=True):
            for run, part in zip(numbers, gradient, strict=True):
                of_rate.setdefault(self.rates[run], []).append((*state[run], part))
        for rate, rows in of_rate.items():
            parameters, first, second, steps, parts = map(list, zip(*rows, strict=True))
            adam(parameters, parts, first, second, [], steps, fused=True, lr=rate, **ADAM)


def _rows(mask: Tensor) -> slice | Tensor:
    """The rows of a mask, without a copy of what they index where they are all."""
    return slice(None) if mask.all() else mask.nonzero()[:, 0]


def _warn_small(name: str, split: str, sizes: Tensor, wanted: int) -> None:
    short = [f"class {label} has {size}" for label, size in enumerate(sizes.tolist()) if size < wanted]
    if short:
        warnings.warn(
            f"The {name} set asks for {wanted} {split} images of every class; some have fewer and give all: "
            f"{', '.join(short)}.",
            stacklevel=5,
        )


def _check(train: FeatureSet, validation: FeatureSet, head: Head, folds: int) -> None:
    classes, width = head.weight.shape
    for name, features in (("training", train), ("validation", validation)):
        if features.features.shape[1] != width or features.num_classes != classes:
            raise ValueError(
                f"The head is for {classes} classes and {width} features, the {name} set has {features.num_classes} "
                f"and {features.features.shape[1]}: they come from different models."
            )
        missing = sorted(set(range(classes)) - set(features.labels.tolist()))
        if missing:
            raise ValueError(
                f"HSFM needs {name} images of all {classes} classes; class {', '.join(map(str, missing))} has none."
            )
    if folds not in (1, 2):
        raise ValueError(f"folds must be 1 or 2, found {folds}.")
    smallest = int(torch.bincount(validation.labels).min())
    if folds == 2 and smallest < 2:
        raise ValueError("Two folds need two validation images of every class; use folds=1.")
