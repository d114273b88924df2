"""What a hypergradient at the converged head costs: CPU time and memory, on generated features.

    python benchmarks/implicit_speed.py --results benchmarks/results/implicit_speed.md
    python benchmarks/implicit_speed.py --sizes 2126x1280x2

Features are ReLU of Gaussians whose variance falls thousandfold over the dimensions, of mean length 58, as those of an
EfficientNet-Lite0; labels follow one dimension, offsets are a gain times random u_z. The gain and log λ (from 0.1) move
by Adam as they would in learning, so that every hypergradient starts at a solution near by. `first` solves from zero
and finds the basis for this neighbourhood; `later` is the median of the following ones. One thread, CPU seconds; memory
is the peak above what lay there before, features included.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from common import peak_memory

from clp_hf.bilevel import SoftmaxRegression, implicit_hypergradient

SIZES = ["2126x1280x2", "4795x2048x2", "50000x1280x100"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="Images x dimensions x classes.")
    parser.add_argument("--repeats", type=int, default=7, help="Hypergradients after the first.")
    parser.add_argument("--results", help="Markdown file for the table.")
    return parser.parse_args()


def measure(images: int, dimensions: int, classes: int, repeats: int) -> dict[str, float]:
    """CPU seconds of `set-up`, the `first` hypergradient and the median of the `later` ones."""
    torch.manual_seed(0)
    spread = torch.logspace(0, -1.5, dimensions)
    features = torch.randn(images, dimensions).relu_() * spread
    features *= 58 / features.norm(dim=1).mean()
    noisy = features[:, 0] + 0.3 * features[:, 0].std() * torch.randn(images)
    labels = (noisy.argsort().argsort() * classes // images).clamp(max=classes - 1)
    u_z = torch.randn(images, classes)
    meta = torch.randperm(images)[: 20 * classes]
    gain, log_ridge = torch.ones(1, requires_grad=True), torch.full((1,), 0.1).log().requires_grad_()
    optimizer = torch.optim.Adam([gain, log_ridge], lr=0.05)

    def inner():
        return gain[:, None, None] * u_z, torch.ones(1, images), log_ridge.exp()

    def outer(weight, bias):
        return F.cross_entropy(features[meta] @ weight[0].T + bias[0], labels[meta])

    start = time.process_time()
    regression = SoftmaxRegression(features, labels, classes)
    times, solution = [time.process_time() - start], None
    for _ in range(1 + repeats):
        start = time.process_time()
        found, solution = implicit_hypergradient(regression, inner, outer, [gain, log_ridge], solution)
        times.append(time.process_time() - start)
        gain.grad, log_ridge.grad = found.total
        optimizer.step()
    return {"set-up": times[0], "first": times[1], "later": statistics.median(times[2:])}


def main():
    args = parse()
    torch.set_num_threads(1)
    torch.linalg.eigh(torch.eye(64))  # loads what it needs
    rows = [
        "| images × dimensions, classes | set-up, s | first, s | later, s | memory, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for size in args.sizes:
        images, dimensions, classes = map(int, size.split("x"))
        found = {}
        memory = peak_memory(lambda: found.update(measure(images, dimensions, classes, args.repeats)))  # noqa: B023
        rows.append(
            f"| {images:,} × {dimensions:,}, {classes} | {found['set-up']:.2f} | {found['first']:.2f} | "
            f"{found['later']:.3f} | {memory:,.0f} |"
        )
        print(rows[-1], flush=True)
    text = "\n".join(
        [
            "# Cost of a hypergradient at the converged head",
            "",
            f"CPU seconds on one thread, float32; `later` is the median of {args.repeats} hypergradients. "
            f"`python benchmarks/implicit_speed.py --repeats {args.repeats} --results {args.results or 'FILE'}`",
            "",
            *rows,
        ]
    )
    print(f"\n{text}")
    if args.results:
        Path(args.results).write_text(text + "\n")


if __name__ == "__main__":
    main()
