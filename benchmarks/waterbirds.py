"""Methods × seeds on a Waterbirds-like data set, with the recipe's settings; restartable.

    python benchmarks/waterbirds.py --results benchmarks/results/embedded
    python benchmarks/waterbirds.py --results benchmarks/results/waterbirds_like --num_train_epochs 2 \\
        --dataset_name PATH/TO/waterbirds_like

Every method gets the same data, meta set held out, epochs, optimizer, sampling (group re-weighting: by group) and image
augmentation; of each run the checkpoint with the best validation worst-group accuracy is tested, once. One JSON file
per run, named by method and seed, is skipped when it is there; `table.md` is written from all of them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes"))

import torch  # noqa: E402
import waterbirds  # noqa: E402
from common import mean_and_spread, write_record  # noqa: E402

from clp_hf import CLPTrainingArguments  # noqa: E402
from clp_hf.causal import CausalAugmentation, Role  # noqa: E402
from clp_hf.data import ImageClassificationDataset  # noqa: E402
from clp_hf.experiment import METHODS, DataArguments, Experiment, ModelArguments, parse_arguments  # noqa: E402

VARIANTS = {
    **METHODS,
    # the same masks, used as data augmentation: every other training image gets the background of another class
    "background_swap": {"meta_every": 0},
    "clp_background_swap": {},
    # the paper's method without our extension, and its parts one at a time
    "clp_paper": {"background_evidence": False},
    # the evidence of the background taken as it is, the gate never learned: what does meta-learning add?
    "evidence_not_learned": {"perturbation_learning_rate": 1e-30},
}
SETTINGS = (
    "num_train_epochs",
    "learning_rate",
    "per_device_train_batch_size",
    "train_sampling",
    "meta_every",
    "meta_samples",
    "meta_batch_size",
    "counterfactual_infills",
    "factual_infills",
    "mask_shape",
    "factual_mask_shape",
    "background_evidence",
    "perturbation_learning_rate",
    "perturbation_bound",
    "condition_on_label",
    "lookahead",
    "lookahead_scope",
    "saliency_weight",
)


class BackgroundSwap(ImageClassificationDataset):
    """Training images half of which stand before the background of an image of another class in the batch."""

    @classmethod
    def of(cls, experiment: Experiment) -> "BackgroundSwap":
        dataset = cls(experiment.splits["train"], experiment.train.transform, name="train")
        transform = dataset.transform
        dataset.augmentation = CausalAugmentation(
            [], ["mix_rand"], transform.mean.flatten(), transform.std.flatten(), factual_mask_shape="exact"
        )
        return dataset

    def __getitems__(self, indices):
        items = super().__getitems__(indices)
        if len(items) == 1:  # looked at alone, before training
            return items
        batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in items[0]}
        role = torch.where(torch.rand(len(items)) < 0.5, int(Role.FACTUAL), int(Role.ORIGINAL))
        role = self.augmentation.effective_role(role, batch["mask"])
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        batch["pixel_values"] = self.augmentation(
            batch["pixel_values"], batch["labels"], batch["mask"], role, generator=generator
        )
        return [item | {"pixel_values": pixels} for item, pixels in zip(items, batch["pixel_values"], strict=True)]


@dataclass
class BenchmarkArguments:
    results: str = field(metadata={"help": "Folder of the result files."})
    methods: list[str] = field(
        default_factory=lambda: ["erm", "meta_lp", "clp", "group_reweighting"],
        metadata={"help": f"Out of: {', '.join(VARIANTS)}."},
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of model head, meta set and data."})


def main():
    benchmark, data, model, training = parse_arguments(
        (BenchmarkArguments, DataArguments, ModelArguments, CLPTrainingArguments), __doc__, waterbirds.DEFAULTS
    )
    results = Path(benchmark.results)
    results.mkdir(parents=True, exist_ok=True)
    for seed in benchmark.seeds:
        experiment = None
        for method in benchmark.methods:
            path = results / f"{method}-{seed}.json"
            if path.exists():
                continue
            training.seed = seed
            experiment = experiment or Experiment(data, model, training)
            plain = experiment.train
            if "background_swap" in method:
                experiment.train = BackgroundSwap.of(experiment)
            started = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                metrics = experiment.run(VARIANTS[method], folder)
            experiment.train = plain
            record = {
                "method": method,
                "seed": seed,
                "dataset": Path(data.dataset_name).name,
                "model": model.model_name_or_path,
                "parameters": experiment.num_parameters,
                "image_size": data.image_size,
                "cpu_seconds": round(time.process_time() - started, 1),
                "commit": subprocess.run(
                    ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
                ).stdout.strip(),
                "settings": {name: getattr(training, name) for name in SETTINGS} | VARIANTS[method],
                "metrics": metrics,
            }
            write_record(path, record)
    print(write_table(results))


def write_table(results: Path) -> str:
    """Mean ± standard deviation over seeds of every method that has results, as Markdown in `table.md`."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    columns = {
        "test worst group": "test_worst_group_accuracy",
        "test average": "test_accuracy",
        "test adjusted": "test_adjusted_accuracy",
        "validation worst group": "eval_worst_group_accuracy",
    }
    lines = [
        f"| method | seeds | {' | '.join(columns)} | CPU minutes a run |",
        "|---|---|" + "---:|" * (len(columns) + 1),
    ]
    for method in VARIANTS:
        own = [run for run in runs if run["method"] == method]
        if not own:
            continue
        cells = []
        for key in columns.values():
            cells.append(mean_and_spread([run["metrics"][key] for run in own]))
        minutes = statistics.mean(run["cpu_seconds"] for run in own) / 60
        seeds = ", ".join(str(run["seed"]) for run in own)
        lines.append(f"| {method} | {seeds} | {' | '.join(cells)} | {minutes:.1f} |")
    table = "\n".join(lines)
    (results / "table.md").write_text(table + "\n")
    return table


if __name__ == "__main__":
    main()
