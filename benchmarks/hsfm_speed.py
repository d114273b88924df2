"""HSFM by its closed form, one run and 64 at once, against autograd through the unrolled loop.

    python benchmarks/hsfm_speed.py        # about ten minutes on one core

Waterbirds' sizes (4,795 training and 1,199 validation images, 2,048 features, two classes) and preset, features drawn
at random with a spurious direction. The reference is what one would write first: torch.optim and `create_graph=True`,
one run at a time. All rows do the same epochs from the same head, in turn, in one process; CPU seconds a run, median of
the rounds. That their heads agree is measured in float64. Memory is the peak above what the process held before, each
row in a process of its own (Linux). Writes results/hsfm_speed.json and .md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from common import peak_memory
from torch import Tensor

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


def reference(
    train: FeatureSet, validation: FeatureSet, head: Head, setting: HSFMSettings
) -> Iterator[tuple[Head, Tensor]]:
    """The obvious implementation, also the oracle of tests/hsfm: head and support features after every epoch."""
    classes = range(train.num_classes)
    generator = torch.Generator().manual_seed(setting.seed)
    indices = []
    for label in classes:
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
                for label in classes
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
        yield Head(weight.detach().clone(), bias.detach().clone()), support.detach().clone()


def rows(data, epochs: int, batch: int) -> dict[str, tuple[int, Callable]]:
    """Runs in a row, and what does them."""
    settings = [HSFMSettings(seed=seed, epochs=epochs) for seed in range(batch)]
    return {
        "autograd, one run": (1, lambda: list(reference(*data, settings[0]))),
        "closed form, one run": (1, lambda: hsfm(*data, settings[:1], folds=1)),
        f"closed form, {batch} runs at once": (batch, lambda: hsfm(*data, settings, folds=1)),
    }


def measure_time(args) -> dict:
    """CPU seconds a run of every row, and how many times faster than the first."""
    own = rows(problem(), args.epochs, args.batch)
    seconds = {name: [] for name in own}
    for round_ in range(args.rounds + 1):
        for name, (runs, row) in own.items():
            start = time.process_time()
            row()
            if round_:  # the first is warm-up
                seconds[name].append((time.process_time() - start) / runs)
    base = seconds["autograd, one run"]
    report = {}
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(base, times, strict=True)]
        report[name] = {
            "seconds_per_run": statistics.median(times),
            "times_faster": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
        }
    return report


def measure_difference(epochs: int = 5) -> float:
    """Relative difference of the selected head from the reference's of that epoch, float64."""
    data = problem(torch.float64)
    setting = HSFMSettings(epochs=epochs, edit_rate=0.1)
    (result,) = hsfm(*data, [setting], folds=1, selection="hard_loss")
    expected, _ = list(reference(*data, setting))[result.epochs[0] - 1]
    return float((result.head.weight - expected.weight).norm() / (expected.weight - data[2].weight).norm())


def measure_memory(args) -> None:
    """Print the peak resident memory of one row above the start, in MiB."""
    _, row = rows(problem(), args.epochs, args.batch)[args.memory]
    print(json.dumps(peak_memory(row)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        return measure_memory(args)
    report = measure_time(args)
    for name, row in report.items():
        command = [sys.executable, __file__, "--memory", name, "--epochs", "3", "--batch", str(args.batch)]
        environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        row["memory"] = json.loads(output.splitlines()[-1])
    difference = measure_difference()
    RESULTS.joinpath("hsfm_speed.json").write_text(
        json.dumps({"rounds": args.rounds, "epochs": args.epochs, "difference": difference, "rows": report}, indent=1)
    )
    lines = ["| HSFM | CPU seconds a run | times faster (range) | peak memory, MiB |", "|---|---:|---:|---:|"]
    for name, row in report.items():
        low, high = row["range"]
        lines.append(
            f"| {name} | {row['seconds_per_run']:.2f} | {row['times_faster']:.1f} ({low:.1f}–{high:.1f}) "
            f"| {row['memory']:.0f} |"
        )
    lines.append(f"\nThe heads differ by {difference:.0e} of the distance they moved, in float64.\n")
    RESULTS.joinpath("hsfm_speed.md").write_text("\n".join(lines))
    print("\n".join(lines))
    return None


if __name__ == "__main__":
    main()
