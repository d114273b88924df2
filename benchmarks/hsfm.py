"""HSFM and its peers on the features of trained backbones; restartable.

    python benchmarks/hsfm.py --results benchmarks/results/hsfm_waterbirds_like --num_train_epochs 2 \\
        --dataset_name PATH/TO/waterbirds_like

For every seed the recipe of recipes/waterbirds.py trains an ERM and a CLP backbone, kept in `--backbones`; features are
computed once. Every method sees the same training and validation features (the 40 meta images are taken out of
validation for all), tries the same number of settings (`--trials`), and is selected on validation worst group; the test
split is looked at once, with the chosen head. HSFM selects its settings and epochs by cross-fitting (two folds).

Rows: the backbone's own head; class- and group-balanced logistic regression on training features (the latter uses all
group labels); DFR (group-balanced validation); AFR (no group labels in training); HSFM with the published preset alone,
and with the search, on the ERM and on the CLP backbone. One JSON file a seed; `table.md` is written from all of them.
"""

import copy
import sys
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes"))

import waterbirds  # noqa: E402
from common import mean_and_spread, seed_records, write_record, write_table  # noqa: E402

from clp_hf import CLPTrainingArguments  # noqa: E402
from clp_hf.baselines import afr, dfr, logistic_regression  # noqa: E402
from clp_hf.data import ImageClassificationDataset  # noqa: E402
from clp_hf.experiment import METHODS, DataArguments, Experiment, ModelArguments, parse_arguments  # noqa: E402
from clp_hf.hsfm import Head, HSFMSettings, best, extract_features, hsfm, random_settings  # noqa: E402
from clp_hf.modeling import find_classifier_head, load_image_classifier  # noqa: E402


@dataclass
class BenchmarkArguments:
    results: str = field(metadata={"help": "Folder of the result files."})
    backbones: str = field(default="runs/hsfm_backbones", metadata={"help": "Folder of the trained backbones."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "Of everything."})
    trials: int = field(default=12, metadata={"help": "Settings that every method may try."})


def methods(train, validation, head, trials: int, seed: int) -> dict[str, tuple[Head, dict]]:
    """Every method's head, and the settings it chose."""
    strengths = [{"C": float(c)} for c in np.logspace(-5, 0, trials)]
    sparse = [{"C": float(c)} for c in np.logspace(-2, 0, trials)]
    reweighted = [
        {"gamma": gamma, "penalty": penalty, "steps": 500}
        for gamma, penalty in product(np.linspace(1, 16, -(-trials // 3)).tolist(), (0.0, 0.1, 1.0))
    ][:trials]
    fitted = {
        "class-balanced regression": logistic_regression(train, validation, head, strengths, seed, balance="class"),
        "group-balanced regression": logistic_regression(train, validation, head, strengths, seed, balance="group"),
        "DFR": dfr(train, validation, head, sparse, seed),
        "AFR": afr(train, validation, head, reweighted, seed),
    }
    heads = {name: (Head(result.weight, result.bias), result.settings) for name, result in fitted.items()}
    return heads | hsfm_heads(train, validation, head, trials, seed)


def hsfm_heads(train, validation, head, trials: int, seed: int) -> dict[str, tuple[Head, dict]]:
    """HSFM with the preset, and with the search."""
    results = hsfm(train, validation, head, random_settings(trials, HSFMSettings(seed=seed), seed))
    return {
        name: (result.head, vars(result.settings) | {"epochs_chosen": result.epochs, "score": result.score})
        for name, result in (("HSFM, preset", results[0]), ("HSFM, search", best(results)))
    }


def main():
    benchmark, data, model, training = parse_arguments(
        (BenchmarkArguments, DataArguments, ModelArguments, CLPTrainingArguments), __doc__, waterbirds.DEFAULTS
    )
    results = Path(benchmark.results)
    results.mkdir(parents=True, exist_ok=True)
    for seed in benchmark.seeds:
        path = results / f"seed-{seed}.json"
        if path.exists():
            continue
        training.seed = seed
        experiment = Experiment(data, model, training)
        splits = {
            name: ImageClassificationDataset(split, experiment.validation.transform, name=name)
            for name, split in experiment.splits.items()
        }
        record = {"seed": seed, "trials": benchmark.trials, "rows": {}}
        for method in ("erm", "clp"):
            folder = Path(benchmark.backbones) / f"{method}-{seed}"
            if not (folder / "all_results.json").exists():
                experiment.run(METHODS[method], str(folder))
            classifier = load_image_classifier(str(folder), **experiment.hub_kwargs)
            args = copy.deepcopy(training)
            args.output_dir = str(folder)
            features = {
                name: extract_features(classifier, split, args, folder / "features") for name, split in splits.items()
            }
            layer = find_classifier_head(classifier, splits["train"][0]["pixel_values"][None])[1]
            head = Head(layer.weight.detach(), layer.bias.detach())
            started = time.process_time()
            fit = methods if method == "erm" else hsfm_heads
            heads = {"own head": (head, {})} | fit(
                features["train"], features["validation"], head, benchmark.trials, seed
            )
            record[f"{method}_cpu_seconds"] = time.process_time() - started
            test = features["test"]
            for name, (own, settings) in heads.items():
                worst, average = own.accuracy(test)
                row = {"test_worst_group": worst, "test_average": average, "settings": settings}
                record["rows"][f"{name}, {method.upper()} backbone"] = row
        write_record(path, record)
    print(table_of(results))


def table_of(results: Path) -> str:
    """Mean ± standard deviation over seeds of every row, as Markdown in `table.md`."""
    records = seed_records(results)
    seeds = ", ".join(str(record["seed"]) for record in records)
    lines = ["| on frozen features | seeds | test worst group | test average |", "|---|---|---:|---:|"]
    for name in records[0]["rows"]:
        cells = []
        for key in ("test_worst_group", "test_average"):
            cells.append(mean_and_spread([record["rows"][name][key] for record in records]))
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} |")
    return write_table(results, lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
