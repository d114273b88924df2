"""HSFM by its closed form, one run and 64 at once, against autograd through the unrolled loop.

    python benchmarks/hsfm_speed.py        # about five minutes on one core

Waterbirds' sizes (4,795 training and 1,199 validation images, 2,048 features, two classes) and preset, features drawn
at random with a spurious direction. The reference is what one would write first: torch.optim and `create_graph=True`, one
run at a time. All rows do the same epochs from the same head and support sets, in one process, in turn; that their
heads agree is measured, in float64. CPU seconds; memory is the peak above what the process held before, each row in a
process of its own. Writes results/hsfm_speed.json and .md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from clp_hf.hsfm import FeatureSet, Head, HSFMSettings, hsfm

RESULTS = Path(__file__).parent / "results"
TRAIN, VALIDATION, WIDTH, CLASSES = 4795, 1199, 2048, 2


def problem(dtype=torch.float32) -> tuple[FeatureSet, FeatureSet, Head]:
    """Features with a direction for the class and a stronger one for the place, and a head that uses both."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, WIDTH, generator=generator) * torch.tensor([[3.0], [6.0]]) / WIDTH**0.5
    weight = torch.stack([-directions.sum(0), directions.sum(0)]) / 10
    head = Head(weight.to(dtype), torch.zeros(CLASSES, dtype=dtype))
    sets = []
    for size, agreement in ((TRAIN, 0.95), (VALIDATION, 0.5)):
        labels = torch.randint(CLASSES, (size,), generator=generator)
        places = torch.where(torch.rand(size, generator=generator) < agreement, labels, 1 - labels)
        signs = 2 * torch.stack([labels, places], 1) - 1.0
        features = (torch.randn(size, WIDTH, generator=generator) + signs @ directions).relu().to(dtype)
        sets.append(FeatureSet(features, features @ head.weight.T, labels, 2 * labels + places))
    return *sets, head


def reference(train: FeatureSet, validation: FeatureSet, head: Head, setting: HSFMSettings) -> Head:
    """The obvious implementation; the head of the last epoch."""
    generator = torch.Generator().manual_seed(setting.seed)
    indices = []
    for label in range(CLASSES):
        own = (train.labels == label).nonzero()[:, 0]
        indices.append(own[torch.randperm(len(own), generator=generator)[: setting.support_size]])
    indices = torch.cat(indices)
    support, labels = train.features[indices].clone().requires_grad_(), train.labels[indices]
    weight, bias = head.weight.clone().requires_grad_(), head.bias.clone().requires_grad_()
    edit_optimizer = torch.optim.Adam([support], lr=setting.edit_rate)
    head_optimizer = torch.optim.Adam([weight, bias], lr=setting.inner_rate)
    for _ in range(setting.epochs):
        with torch.no_grad():
            losses = F.cross_entropy(validation.features @ weight.T + bias, validation.labels, reduction="none")
        hard = torch.cat(
            [
                losses.masked_fill(validation.labels != label, -torch.inf).topk(setting.hard_size).indices
                for label in range(CLASSES)
            ]
        )
        hard_features, hard_labels = validation.features[hard], validation.labels[hard]
        for _ in range(setting.edits_per_epoch):
            w, b = weight, bias
            for _ in range(setting.inner_steps):
                loss = F.cross_entropy(support @ w.T + b, labels)
                dw, db = torch.autograd.grad(loss, (w, b), create_graph=True)
                w, b = w - setting.inner_rate * dw, b - setting.inner_rate * db
            outer = F.cross_entropy(hard_features @ w.T + b, hard_labels)
            (support.grad,) = torch.autograd.grad(outer, support)
            torch.nn.utils.clip_grad_norm_([support], 10.0)
            edit_optimizer.step()
        for _ in range(setting.inner_steps):
            loss = F.cross_entropy(support.detach() @ weight.T + bias, labels)
            weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))
            head_optimizer.step()
    return Head(weight.detach(), bias.detach())


def last_heads(train, validation, head, settings) -> Head:
    """Of the closed form: the heads of the last epoch of every setting, (R, C, d) and (R, C)."""
    results = hsfm(train, validation, head, settings, selection="worst_group", folds=1)
    return Head(*(torch.stack([getattr(result.last, name) for result in results]) for name in ("weight", "bias")))


def seeds(count: int, **changes) -> list[HSFMSettings]:
    return [HSFMSettings(seed=seed, **changes) for seed in range(count)]


def measure_time(rounds: int, epochs: int, batch: int) -> dict:
    data = problem()
    rows = {
        "autograd, one run": (1, lambda: reference(*data, HSFMSettings(epochs=epochs))),
        "closed form, one run": (1, lambda: hsfm(*data, seeds(1, epochs=epochs), folds=1)),
        f"closed form, {batch} runs at once": (batch, lambda: hsfm(*data, seeds(batch, epochs=epochs), folds=1)),
    }
    seconds = {name: [] for name in rows}
    for round_ in range(rounds + 1):
        for name, (runs, row) in rows.items():
            start = time.process_time()
            row()
            if round_:  # the first is warm-up
                seconds[name].append((time.process_time() - start) / runs)
    base = seconds["autograd, one run"]
    return {
        name: {
            "seconds_per_run": statistics.median(own),
            "times_faster": statistics.median(a / b for a, b in zip(base, own, strict=True)),
            "range": [min(a / b for a, b in zip(base, own, strict=True)) for _ in "1"]
            + [max(a / b for a, b in zip(base, own, strict=True))],
        }
        for name, own in seconds.items()
    }
