"""Suspect labels: of those that were made wrong how many are found, and how many others are taken for wrong.

    python benchmarks/suspect_labels.py --cifar10 PATH/TO/cifar10 --waterbirds PATH/TO/waterbirds_like \\
        --features FOLDER --results benchmarks/results/suspect_labels

CIFAR-10: 5,000 training images, 40 % of their labels flipped to one of the two most similar classes. waterbirds_like:
the training images, 10 % of the labels flipped at random; minority images are those of a right label and the other
place. Features are of one frozen backbone. Beside it cleanlab, where it is installed (pip install cleanlab), on
the same features: `find_label_issues` of the cross-validated probabilities of scikit-learn's logistic regression, as
its documentation has it, and of those of our own heads, which are shrunk more. Precision and recall are of what is
flagged, each method by its own rule.
"""

import argparse
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from common import mean_and_spread, seed_records, write_record, write_table
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from torch import Tensor

from clp_hf.data import flip_noise, load_classification_dataset, similar_classes
from clp_hf.data.dataset import CLEAN_LABEL, ImageClassificationDataset
from clp_hf.data.scenarios.label_noise import thumbnail_confusion
from clp_hf.discovery import Backbone
from clp_hf.discovery.probe import CrossValidatedHeads, folds
from clp_hf.features import CausalFeatures
from clp_hf.suspect_labels import suspect_labels
from clp_hf.suspect_labels.suspects import WITH_MASKS, WITHOUT_MASKS

try:
    from cleanlab.filter import find_label_issues
except ImportError:
    find_label_issues = None
IMAGES = 5000  # of CIFAR-10


@dataclass(frozen=True)
class Images:
    """Training images with right labels, seen once: labels change with the seed, images do not."""

    backbone: Backbone
    clean: Dataset

    @cached_property
    def seen(self) -> tuple[ImageClassificationDataset, CausalFeatures]:
        images = self.backbone.images(self.clean, "train")
        return images, self.backbone.views(images)

    def labelled(self, noisy: Dataset) -> CausalFeatures:
        views = self.seen[1]
        return replace(views, images=replace(views.images, labels=torch.tensor(noisy["label"][:])))

    def suspects(self, noisy: Dataset, seed: int) -> Tensor:
        caution = WITH_MASKS if "mask" in self.clean.column_names else WITHOUT_MASKS
        classes = noisy.features["label"].num_classes
        swapped = partial(self.backbone.swapped, self.seen[0])
        return suspect_labels(self.labelled(noisy), classes, swapped, caution, seed=seed).flagged


def cleanlab(views: CausalFeatures, classes: int, seed: int) -> dict[str, Tensor]:
    """By the probabilities of scikit-learn's logistic regression, and by those of the heads that ours begins with."""
    features, labels = views.images.features, views.labels
    default = LogisticRegression(max_iter=1000)
    probabilities = cross_val_predict(default, features.numpy(), labels.numpy(), cv=5, method="predict_proba")
    heads = CrossValidatedHeads([features], labels, classes, folds(labels, seed))
    same = heads.logits.softmax(-1).numpy()
    return {
        "cleanlab": torch.from_numpy(find_label_issues(labels.numpy(), probabilities)),
        "cleanlab, same heads": torch.from_numpy(find_label_issues(labels.numpy(), same)),
    }


def measured(flagged: Tensor, noisy: Dataset) -> dict[str, float | int]:
    clean, labels = (torch.tensor(noisy[name][:]) for name in (CLEAN_LABEL, "label"))
    wrong = clean != labels
    found = {
        "flagged": int(flagged.sum()),
        "precision": wrong[flagged].float().mean().item(),
        "recall": flagged[wrong].float().mean().item(),
    }
    if "place" in noisy.column_names:
        minority = (clean != torch.tensor(noisy["place"][:])) & ~wrong
        found["minority_flagged"] = flagged[minority].float().mean().item()
    return found


def record_of(cifar: Images, masked: Images, bare: Images, seed: int) -> dict:
    similar = similar_classes(thumbnail_confusion(cifar.clean))
    flipped = flip_noise(masked.clean, 0.1, {0: 1, 1: 0}, seed=seed)
    cases = {
        "CIFAR-10, 40 % flipped": (cifar, flip_noise(cifar.clean, 0.4, similar, seed=seed)),
        "waterbirds_like, 10 % flipped": (bare, flipped),
        "waterbirds_like, 10 % flipped, with masks": (masked, flipped),
    }
    rows = {}
    for name, (images, noisy) in cases.items():
        rows[name] = {"clp-hf labels": measured(images.suspects(noisy, seed), noisy)}
        if find_label_issues is not None and images is not masked:
            classes = noisy.features["label"].num_classes
            for method, flagged in cleanlab(images.labelled(noisy), classes, seed).items():
                rows[name][method] = measured(flagged, noisy)
    return {"seed": seed, "rows": rows}


def table_of(results: Path) -> str:
    """Mean ± standard deviation over seeds, as Markdown in `table.md`."""
    records = seed_records(results)
    lines = [
        f"Percent, mean ± standard deviation over seeds {', '.join(str(record['seed']) for record in records)} of "
        "flips and folds.",
        "",
        "| labels | by | precision | recall | minority images flagged |",
        "|---|---|---:|---:|---:|",
    ]
    for case, methods in records[0]["rows"].items():
        for method in methods:
            of = [record["rows"][case][method] for record in records]
            keys = ("precision", "recall", "minority_flagged")
            cells = [mean_and_spread([row[key] for row in of]) if key in of[0] else "–" for key in keys]
            lines.append(f"| {case} | {method} | {' | '.join(cells)} |")
    return write_table(results, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", required=True, help="the data set")
    parser.add_argument("--waterbirds", required=True, help="waterbirds_like, with places and masks")
    parser.add_argument("--features", required=True, help="folder of the features")
    parser.add_argument("--results", type=Path, required=True, help="folder of the result files")
    parser.add_argument("--model_name_or_path", default="tf_efficientnet_lite0", help="pretrained backbone")
    parser.add_argument("--image_size", type=int, default=96, help="pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5], help="of flips and folds")
    options = parser.parse_args()
    if find_label_issues is None:
        print("cleanlab is not installed: its rows are left out.")
    backbone = Backbone.load(options.model_name_or_path, options.image_size, options.features)
    train = load_classification_dataset(options.cifar10)["train"].select_columns(["image", "label"])
    cifar = Images(backbone, train.shuffle(seed=0).select(range(IMAGES)).flatten_indices())
    birds = load_classification_dataset(options.waterbirds)["train"]
    masked, bare = Images(backbone, birds), Images(backbone, birds.remove_columns("mask"))
    options.results.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        path = options.results / f"seed-{seed}.json"
        if not path.exists():
            write_record(path, record_of(cifar, masked, bare, seed))
    print(table_of(options.results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
