"""Groups discovered from frozen features, beside the true ones: which way finds them.

    python benchmarks/group_discovery.py --dataset_name PATH/TO/waterbirds_like --features FOLDER \\
        --results benchmarks/results/group_discovery

Every way gets the features of the same pretrained backbone and the labels, and no group. Two groups a class, as there
are. Agreement is that of each found group with the true one that it is matched with inside its class: of all images,
and balanced, every true group counting alike (of the images alone, one group a class has it too where groups are rare).
The seed is that of folds, k-means and heads. Rows that are no part of the package: k-means as GEORGE (on principal
components) and SPARE (on the outputs of a head early in training) have it, EIIL, and generalised cross-entropy.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import mean_and_spread, seed_records, write_record, write_table
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from transformers import HfArgumentParser

from clp_hf.data import load_classification_dataset
from clp_hf.discovery import Backbone, agreement, discover_groups, views_of
from clp_hf.discovery.probe import CrossValidatedHeads, folds, margin
from clp_hf.features import CausalFeatures

EARLY = 20  # steps of full batches, of the head whose outputs SPARE clusters
EIIL_STEPS = 500


@dataclass
class BenchmarkArguments:
    dataset_name: str = field(metadata={"help": "With groups, and with masks."})
    features: str = field(metadata={"help": "Folder of the features."})
    results: str = field(metadata={"help": "Folder of the result files."})
    model_name_or_path: str = field(default="tf_efficientnet_lite0", metadata={"help": "Pretrained backbone."})
    image_size: int = field(default=96, metadata={"help": "Pixels."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of folds, k-means and heads."})


def standardised(features: Tensor) -> Tensor:
    return (features - features.mean(0)) / features.std(0).clamp(min=1e-6)


def within_classes(points: Tensor, labels: Tensor, seed: int) -> Tensor:
    found = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        clusters = KMeans(2, n_init=10, random_state=seed).fit_predict(points[members].numpy())
        found[members] = 2 * label + torch.from_numpy(clusters).long()
    return found


def early_outputs(features: Tensor, labels: Tensor, seed: int, q: float = 0.0, steps: int = EARLY) -> Tensor:
    """Softmax outputs of a head after `steps` steps; q > 0 for the generalised cross-entropy."""
    torch.manual_seed(seed)
    inputs = standardised(features)
    head = torch.nn.Linear(inputs.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-2, momentum=0.9)
    for _ in range(steps):
        likely = head(inputs).softmax(-1).gather(1, labels[:, None]).clamp(min=1e-8)
        loss = ((1 - likely**q) / q if q else -likely.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head(inputs).softmax(-1).detach()


def eiil(train: CausalFeatures, seed: int) -> Tensor:
    """Environments that violate invariance the most (Creager et al. 2021), of an ERM head's held-out logits."""
    torch.manual_seed(seed)
    labels = train.labels
    logits = CrossValidatedHeads([train.images.features], labels, 2, folds(labels, seed)).logits
    # of each image the derivative in the scale of the logits, which the penalty squares for each environment
    slopes = (logits.softmax(-1) - F.one_hot(labels, 2)).mul(logits).sum(1)
    split = torch.randn(len(labels), requires_grad=True)
    optimizer = torch.optim.Adam([split], lr=1e-2)
    for _ in range(EIIL_STEPS):
        share = split.sigmoid()
        penalty = (share * slopes).mean().square() + ((1 - share) * slopes).mean().square()
        optimizer.zero_grad()
        (-penalty).backward()
        optimizer.step()
    return 2 * labels + (split > 0)


def rows(masked: dict[str, CausalFeatures], rim: dict[str, CausalFeatures], names: list[str]) -> dict:
    """Name -> from a seed to the groups of every split; ways that are of the training images alone give those."""

    def ours(views, by):
        return lambda seed: discover_groups(views, names, by, 2, seed).groups

    train = masked["train"]
    features, labels = train.images.features, train.labels

    def of_train(find):
        return lambda seed: {"train": find(seed)}

    def components(seed):
        return torch.from_numpy(PCA(50, random_state=seed).fit_transform(standardised(features).numpy()))

    def errors_of_biased(seed):
        outputs = early_outputs(features, labels, seed, q=0.7, steps=10 * EARLY)
        return 2 * labels + (margin(outputs, labels) < 0)

    return {
        "`background`, of masks": ours(masked, "background"),
        "`background`, of the rim (no masks)": ours(rim, "background"),
        "`errors`": ours(masked, "errors"),
        "errors of a head by generalised cross-entropy": of_train(errors_of_biased),
        "k-means of features, in each class": of_train(lambda seed: within_classes(components(seed), labels, seed)),
        "k-means of early outputs, in each class (as SPARE)": of_train(
            lambda seed: within_classes(early_outputs(features, labels, seed), labels, seed)
        ),
        "EIIL": of_train(lambda seed: eiil(train, seed)),
    }


def main():
    (benchmark,) = HfArgumentParser(BenchmarkArguments, description=__doc__).parse_args_into_dataclasses()
    splits = load_classification_dataset(benchmark.dataset_name)
    names = splits["train"].features["label"].names
    backbone = Backbone.load(benchmark.model_name_or_path, benchmark.image_size, benchmark.features)
    masked, rim = views_of(backbone, splits), views_of(backbone, splits.remove_columns("mask"))
    truth = {name: torch.tensor(split["group"][:]) for name, split in splits.items()}
    results = Path(benchmark.results)
    results.mkdir(parents=True, exist_ok=True)
    for seed in benchmark.seeds:
        path = results / f"seed-{seed}.json"
        if path.exists():
            continue
        record = {"seed": seed, "model": benchmark.model_name_or_path, "image_size": benchmark.image_size, "rows": {}}
        for name, find in rows(masked, rim, names).items():
            started = time.process_time()
            found = find(seed)
            record["rows"][name] = {
                split: agreement(groups, truth[split], masked[split].labels) for split, groups in found.items()
            } | {"cpu_seconds": round(time.process_time() - started, 1)}
        write_record(path, record)
    print(table_of(results))


def table_of(results: Path) -> str:
    """Mean ± standard deviation over seeds, as Markdown in `table.md`."""
    records = seed_records(results)
    first = next(iter(records[0]["rows"].values()))["train"]
    lines = [
        f"Agreement with the true groups, percent, mean ± standard deviation over seeds "
        f"{', '.join(str(record['seed']) for record in records)}. One group a class has {100 * first['majority']:.1f} "
        "of the training images, balanced 50. CPU seconds without features.",
        "",
        "| way | train | train, balanced | validation, balanced | CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in records[0]["rows"]:
        of = [record["rows"][name] for record in records]
        cells = [mean_and_spread([row["train"][key] for row in of]) for key in ("accuracy", "balanced")]
        known = all("validation" in row for row in of)
        cells.append(mean_and_spread([row["validation"]["balanced"] for row in of]) if known else "–")
        lines.append(f"| {name} | {' | '.join(cells)} | {np.mean([row['cpu_seconds'] for row in of]):.1f} |")
    return write_table(results, lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
