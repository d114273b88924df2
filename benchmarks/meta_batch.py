"""How far a smaller meta batch puts the hypergradient off: beside that of all meta images, on the embedded birds.

    python benchmarks/meta_batch.py --results benchmarks/results/meta_batch         # some minutes on a core

An EfficientNet-Lite0 (ImageNet weights, 96 pixels) is trained plainly for a few steps; from there every training batch
of 32 has one hypergradient by all 144 meta images, and one by each of several draws of 4 to 64 of them. A row is the
mean over batches and draws, at the first step and at the end: the relative error ‖h − h*‖ / ‖h*‖, and the cosine of h
and h*. What that does to accuracy is in `benchmarks/results/meta_batches_*`, of compare.py.
"""

import argparse
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from common import write_record, write_table
from steps import Architecture, Setup
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from clp_hf.bilevel import TrainingPass, hypergradient
from clp_hf.data import ImageClassificationDataset, TrainTransform, embedded_birds
from clp_hf.modeling import forward_with_features, load_image_classifier
from clp_hf.modeling.modes import evaluation_layers

SIZES = (4, 8, 16, 32, 64)
BATCHES, DRAWS, META = 4, 4, 144
RATE = 2e-3


def lite0() -> torch.nn.Module:
    return load_image_classifier("tf_efficientnet_lite0", num_labels=2, image_size=96)


class Birds:
    """Training and meta images as tensors, drawn once."""

    def __init__(self, size: int):
        splits = embedded_birds(600, META, 4, image_size=size * 4 // 3)
        transform = TrainTransform(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        self.train, self.meta = (
            self._tensors(ImageClassificationDataset(splits[name], transform)) for name in ("train", "validation")
        )

    @staticmethod
    def _tensors(dataset) -> tuple[torch.Tensor, torch.Tensor]:
        items = dataset.__getitems__(list(range(len(dataset))))
        return torch.stack([item["pixel_values"] for item in items]), torch.tensor([item["labels"] for item in items])

    def batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randint(len(self.train[1]), (32,), generator=generator)
        return tuple(part[rows] for part in self.train)


def gradient_in_network(setup: Setup, batch, meta) -> torch.Tensor:
    """The hypergradient in all of Ω, flat."""
    images, labels = batch
    state = torch.random.get_rng_state()
    passes = {}

    def forward():
        logits, passes["features"] = forward_with_features(setup.model, setup.head, images)
        return logits

    with evaluation_layers(setup.model):
        training_pass = TrainingPass.run(forward)
        setup.labels = labels
        characteristics = setup.characteristics(training_pass.logits, passes["features"])
        found = hypergradient(
            setup.model,
            training_pass,
            lambda logits: setup.training_loss(logits, characteristics),
            lambda: F.cross_entropy(setup.model(pixel_values=meta[0]).logits, meta[1]),
            list(setup.network.parameters()),
            RATE,
        )
    torch.random.set_rng_state(state)
    return torch.cat([part.flatten() for part in found.total])


def rows_at(setup: Setup, birds: Birds, generator: torch.Generator) -> dict[int, dict[str, float]]:
    """Size -> mean relative error and mean cosine."""
    found = {size: {"error": [], "cosine": []} for size in SIZES}
    for _ in range(BATCHES):
        batch = birds.batch(generator)
        whole = gradient_in_network(setup, batch, birds.meta)
        for size in SIZES:
            for _ in range(DRAWS):
                rows = torch.randperm(len(birds.meta[1]), generator=generator)[:size]
                one = gradient_in_network(setup, batch, tuple(part[rows] for part in birds.meta))
                found[size]["error"].append(((one - whole).norm() / whole.norm()).item())
                found[size]["cosine"].append(F.cosine_similarity(one, whole, dim=0).item())
    return {size: {name: statistics.mean(values) for name, values in row.items()} for size, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40, help="plain steps between the two measurements")
    args = parser.parse_args()
    torch.set_num_threads(1)
    setup = Setup(Architecture("EfficientNet-Lite0", 96, 2, lite0), 32)
    birds, generator = Birds(96), torch.Generator().manual_seed(0)
    found = {"first step": rows_at(setup, birds, generator)}
    for _ in range(args.steps):
        images, labels = birds.batch(generator)
        setup.optimizer.zero_grad()
        with evaluation_layers(setup.model):
            F.cross_entropy(setup.model(pixel_values=images).logits, labels).backward()
        setup.optimizer.step()
    found[f"after {args.steps} steps"] = rows_at(setup, birds, generator)
    args.results.mkdir(parents=True, exist_ok=True)
    write_record(args.results / "meta_batch.json", found)
    lines = [f"| meta images | {' | '.join(f'{when}: error | cosine' for when in found)} |", "|---:" * 5 + "|"]
    for size in SIZES:
        cells = [f"{row[size]['error']:.2f} | {row[size]['cosine']:.2f}" for row in found.values()]
        lines.append(f"| {size} of {META} | {' | '.join(cells)} |")
    print(write_table(args.results, lines))


if __name__ == "__main__":
    main()
