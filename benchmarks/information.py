"""Which method for which information: heads on frozen features, each beside the best peers that know as much.

    python benchmarks/information.py --scenario waterbirds --results benchmarks/results/information/waterbirds_like \\
        --features FOLDER --dataset_name PATH/TO/waterbirds_like --seeds 0 1 2 3 4

Features come from `feature_sets.py`. Of every seed ten images of each group are taken out of validation: the meta set.
The rest of validation chooses one of four settings of every method, by the worst group (in the rows without any group,
by the worst class); the test split is looked at once, by what was chosen. `meta set only` are rows whose setting was
chosen by the meta images instead. `best fixed strength` has sixteen settings, CLP with a learned one four.
"""

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from common import mean_and_spread, seed_records, write_record, write_table
from feature_sets import FeatureSets, feature_sets
from scenario_arguments import scenario_arguments
from sklearn.linear_model import LogisticRegression

from clp_hf.baselines import afr, dfr, group_dro, gsr, logistic_regression
from clp_hf.clp_head import CLPHeadSettings, best, clp_head
from clp_hf.features import CausalFeatures, FeatureSet, Head
from clp_hf.hsfm import HSFMSettings, hsfm
from clp_hf.hsfm.search import random_settings

RIDGES = (1e-4, 3e-4, 1e-3, 3e-3)
STRENGTHS = (0.5, 1.0, 1.5, 2.0)
C = [{"C": strength} for strength in (1e-4, 1e-3, 1e-2, 1e-1)]
SPARSE = [{"C": strength} for strength in (1.0, 0.3, 0.1, 0.03)]
REWEIGHTED = [{"gamma": gamma, "penalty": 1e-3, "steps": 500} for gamma in (1.0, 4.0, 8.0, 14.0)]
INFLUENCE = [{"penalty": penalty, "rate": 1.0, "temperature": 1.0, "steps": 30} for penalty in (0.01, 0.1, 1.0, 10.0)]
WORST = [{"penalty": penalty, "adjustment": 0.0} for penalty in (1e-3, 1e-2, 1e-1, 1.0)]


@dataclass
class BenchmarkArguments:
    scenario: str = field(metadata={"help": "A recipe, as for compare.py."})
    features: str = field(metadata={"help": "Folder of the features."})
    results: str = field(metadata={"help": "Folder of the result files."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "Of meta set and folds."})
    per_group: int = field(default=10, metadata={"help": "Meta images of every group."})
    methods: list[str] = field(default_factory=list, metadata={"help": "Rows to run, by default all there are."})


@dataclass
class Knowledge:
    """What the methods of a seed may use."""

    train: CausalFeatures
    meta: CausalFeatures
    attributes: torch.Tensor | None
    validation: FeatureSet
    head: Head
    seed: int

    def without_masks(self) -> "Knowledge":
        return replace(self, train=CausalFeatures(self.train.images), meta=CausalFeatures(self.meta.images))

    def without_groups(self) -> "Knowledge":
        """The meta set is of the training images then, which nobody has balanced but by class."""
        count = len(self.meta)
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(self.train), generator=generator)
        classes = self.train.images.num_classes
        chosen = torch.cat([order[self.train.labels[order] == label][: count // classes] for label in range(classes)])
        rest = torch.ones(len(self.train), dtype=torch.bool)
        rest[chosen] = False
        train, meta = self.train[rest], self.train[chosen]
        swapped = None if meta.swapped is None else meta.swapped[:1]
        bare = {"images": replace(meta.images, groups=None), "swapped": swapped}
        return replace(
            self,
            train=replace(train, images=replace(train.images, groups=None)),
            meta=replace(meta, **bare),
            attributes=None,
            validation=replace(self.validation, groups=None),
        )

    def nothing_swapped(self) -> "Knowledge":
        """Training images as they are."""
        return replace(self, train=replace(self.train, swapped=None))

    def swapped(self) -> "Knowledge":
        """The training images with those before other backgrounds, as one set."""
        copies = self.train.swapped
        parts = [self.train.images.features, *copies]
        labels, logits = self.train.labels.repeat(len(parts)), self.train.images.logits.repeat(len(parts), 1)
        groups = self.train.images.groups
        groups = None if groups is None else groups.repeat(len(parts))
        return replace(self, train=CausalFeatures(FeatureSet(torch.cat(parts), logits, labels, groups)))


def clp(
    evidence: Sequence[str], by_meta: bool = False, strengths=(None,), ridges=RIDGES, **settings
) -> Callable[[Knowledge], tuple]:
    """CLP at four ridges, and at each of `strengths` where these are given."""

    def fit(of: Knowledge) -> tuple[Head, dict]:
        tried = [
            CLPHeadSettings(tuple(evidence), ridge, strength=strength, seed=of.seed, **settings)
            for ridge in ridges
            for strength in strengths
        ]
        result = best(clp_head(of.train, of.meta, tried, of.attributes, None if by_meta else of.validation))
        return result.head, {"ridge": result.settings.ridge, **result.strengths}

    return fit


def baseline(function, settings, **options) -> Callable[[Knowledge], tuple]:
    """A method of `clp_hf.baselines` at four settings."""

    def fit(of: Knowledge) -> tuple[Head, dict]:
        if function is gsr:
            options["target"] = of.meta.images
        found = function(of.train.images, of.validation, of.head, settings, of.seed, **options)
        return Head(found.weight, found.bias), found.settings

    return fit


def dfr_on_meta(of: Knowledge) -> tuple[Head, dict]:
    """DFR at each setting on the meta images alone; validation chooses."""
    found = [dfr(of.train.images, of.meta.images, of.head, [setting], of.seed) for setting in SPARSE]
    chosen = max(found, key=lambda one: Head(one.weight, one.bias).accuracy(of.validation))
    return Head(chosen.weight, chosen.bias), chosen.settings


def hsfm_on_meta(of: Knowledge) -> tuple[Head, dict]:
    """HSFM, hard sets and epoch by the meta images, four settings; validation chooses."""
    base = HSFMSettings(seed=of.seed, hard_size=max(2, len(of.meta) // (4 * of.train.images.num_classes)))
    tried = [replace(one, hard_size=base.hard_size) for one in random_settings(4, base, of.seed)]
    found = hsfm(of.train.images, of.meta.images, of.head, tried)
    chosen = max(found, key=lambda one: one.head.accuracy(of.validation))
    return chosen.head, vars(chosen.settings)


def rows(masks: bool) -> dict[str, tuple[str, Callable[[Knowledge], Knowledge], Callable]]:
    """Name -> what is known, how it is cut down to that, and the method."""
    bare = lambda of: of.without_masks()  # noqa: E731
    labels_only = lambda of: of.without_masks().without_groups()  # noqa: E731
    found = {
        "ERM": ("labels only", labels_only, baseline(logistic_regression, C)),
        "AFR": ("labels only", labels_only, baseline(afr, REWEIGHTED)),
        "CLP, bias": ("labels only", labels_only, clp(["bias"], steps=0)),
    }
    if masks:
        only = lambda of: of.without_groups()  # noqa: E731
        found |= {
            "background swapping": (
                "masks", lambda of: of.without_groups().swapped(), baseline(logistic_regression, C)
            ),
            "CLP, background, swapped": ("masks", only, clp(["background"])),
        }  # fmt: skip
    ten = "ten images a group"
    evidence = ["attribute"]
    found |= {
        "DFR": (ten, bare, dfr_on_meta),
        "HSFM": (ten, bare, hsfm_on_meta),
        "GSR": (ten, bare, baseline(gsr, INFLUENCE)),
        "CLP, attribute": (ten, bare, clp(evidence)),
        "CLP, attribute, meta set only": (ten, bare, clp(evidence, by_meta=True)),
        "CLP, attribute, best fixed strength": (ten, bare, clp(evidence, strengths=STRENGTHS, steps=0)),
    }
    if masks:
        both = "masks and ten images a group"
        whole = lambda of: of  # noqa: E731
        found |= {
            "background swapping, chosen by groups": (both, lambda of: of.swapped(), baseline(logistic_regression, C)),
            "CLP, background": (both, whole, clp(["background"])),
            "CLP, background, meta set only": (both, whole, clp(["background"], by_meta=True)),
            "CLP, background, best fixed strength": (
                both, whole, clp(["background"], strengths=(0.0, 0.25, 0.5, 1.0), steps=0)
            ),
        }  # fmt: skip
    every = "every group label"
    found |= {
        "group re-weighting": (every, bare, baseline(logistic_regression, C, balance="group")),
        "GroupDRO": (every, bare, baseline(group_dro, WORST)),
        "DFR on all of validation": (every, bare, baseline(dfr, SPARSE)),
    }
    return found


def knowledge(features: FeatureSets, per_group: int, seed: int) -> Knowledge:
    chosen, rest = (torch.as_tensor(index) for index in features.meta_indices(per_group, seed))
    train, whole = features.train, features.validation
    images, labels = train.images.features, train.labels
    model = LogisticRegression(C=1e-3, max_iter=1000, class_weight="balanced").fit(images.numpy(), labels.numpy())
    weight, bias = torch.tensor(model.coef_).float(), torch.tensor(model.intercept_).float()
    if len(weight) == 1:  # two classes: one row, of their difference
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    parts = ("images", "maskable", "background", "swapped")
    causal = [CausalFeatures(**{name: getattr(split, name) for name in parts}) for split in (train, whole)]
    attributes = None if whole.attribute is None else whole.attribute[chosen]
    return Knowledge(causal[0], causal[1][chosen], attributes, whole.images[rest], Head(weight, bias), seed)


def main():
    run(__doc__, rows)


def prepared(description: str) -> tuple[BenchmarkArguments, FeatureSets, Path]:
    """What the command line asks for: the arguments, the features, and the folder of the results, which is there."""
    benchmark, *arguments = scenario_arguments(
        BenchmarkArguments, description, model_name_or_path="tf_efficientnet_lite0"
    )
    experiment = importlib.import_module(benchmark.scenario).build(*arguments)
    results = Path(benchmark.results)
    results.mkdir(parents=True, exist_ok=True)
    return benchmark, feature_sets(experiment, benchmark.features), results


def run(description: str, methods_of: Callable[[bool], dict]) -> None:
    """The methods of a table, `methods_of(there are masks)`, on every seed."""
    benchmark, features, results = prepared(description)
    methods = methods_of(features.train.background is not None)
    if unknown := sorted(set(benchmark.methods) - set(methods)):
        raise ValueError(f"There is no row {', '.join(unknown)}; choose out of: {'; '.join(methods)}.")
    methods = {name: methods[name] for name in benchmark.methods or methods}
    for seed in benchmark.seeds:
        path = results / f"seed-{seed}.json"
        record = json.loads(path.read_text()) if path.exists() else {"seed": seed, "rows": {}}
        of = None
        for name, (known, cut, method) in methods.items():
            if name in record["rows"]:
                continue
            of = of or knowledge(features, benchmark.per_group, seed)
            started = time.process_time()
            head, settings = method(cut(of))
            seconds = time.process_time() - started
            worst, average = head.accuracy(features.test.images)
            record["rows"][name] = {
                "information": known, "test_worst_group": worst, "test_average": average,
                "validation": head.accuracy(of.validation), "cpu_seconds": round(seconds, 1), "settings": settings,
            }  # fmt: skip
            write_record(path, record)
    print(table_of(results))


def table_of(results: Path) -> str:
    """Mean ± standard deviation over seeds of every row, as Markdown in `table.md`."""
    records = seed_records(results)
    seeds = ", ".join(str(record["seed"]) for record in records)
    partly = any(record["rows"].keys() != records[0]["rows"].keys() for record in records)
    lines = [
        f"Seeds {seeds}; percent, mean ± standard deviation; CPU seconds of all settings, without features"
        f"{'; rows without a deviation are of one seed' if partly else ''}.",
        "",
        "| what is known | method | test worst group | test average | validation worst group | CPU s |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, first in records[0]["rows"].items():
        of = [record["rows"][name] for record in records if name in record["rows"]]
        cells = [mean_and_spread([row[key] for row in of]) for key in ("test_worst_group", "test_average")]
        cells.append(mean_and_spread([row["validation"][0] for row in of]))
        cells.append(f"{np.mean([row['cpu_seconds'] for row in of]):.1f}")
        lines.append(f"| {first['information']} | {name} | {' | '.join(cells)} |")
    return write_table(results, lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
