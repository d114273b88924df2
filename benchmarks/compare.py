"""A scenario × methods × seeds, in one command: result files, a table and plots.

    python benchmarks/compare.py --scenario cifar_longtail --results benchmarks/results/cifar10_longtail_100 \\
        --dataset_name PATH/TO/cifar10 --imbalance_ratio 100 --workers 2
    python benchmarks/compare.py --scenario cifar_noisy --results benchmarks/results/cifar10_flip_40 \\
        --dataset_name PATH/TO/cifar10 --noise flip --noise_rate 0.4 --methods clp --sweeps saliency_weight
    python benchmarks/compare.py --scenario waterbirds --results benchmarks/results/embedded --methods erm clp
    python benchmarks/compare.py --scenario cifar_noisy --results benchmarks/results/cifar10_flip_40_features \\
        --dataset_name PATH/TO/cifar10 --noise flip --noise_rate 0.4 --max_train_samples 10000 --methods erm meta_lp \\
        --frozen_features FOLDER --model_name_or_path tf_efficientnet_lite0 --image_size 96

A scenario is a recipe: its arguments and defaults hold, but for the budgets below. Every method gets the same data,
meta set held out, epochs, optimizer, image augmentation and, but for those that are about it, sampling; of each run the
checkpoint with the best validation score is tested, once. A method with other settings is written
clp+saliency_weight=0.2+learning_rate=0.05. With --tune several settings of a method (erm erm+learning_rate=0.05) are
tried on the first seed, and the table goes on with the one that is best in validation: give every method as many.

Each run is a process of one thread, and one JSON file named by method and seed, which is skipped when it is there: the
same command goes on after an interruption, and writes `table.md` and the plots when there is nothing left to run. A
file that was made with other settings is refused.
"""

import argparse
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "benchmarks")]

import plots  # noqa: E402
import torch  # noqa: E402
from common import mark_best, mean_and_spread, write_record  # noqa: E402
from frozen_features import freeze  # noqa: E402
from transformers import HfArgumentParser  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

from clp_hf import CLPTrainingArguments  # noqa: E402
from clp_hf.data.background_swap import BackgroundSwap  # noqa: E402
from clp_hf.data.groups import counts  # noqa: E402
from clp_hf.experiment import METHODS, DataArguments, ModelArguments, configured, parse_arguments  # noqa: E402
from clp_hf.hub.record import own_fields  # noqa: E402
from clp_hf.perturbation import CHARACTERISTICS  # noqa: E402

LONG_TAIL_METHODS = (
    "erm", "focal", "class_balanced", "class_balanced_focal", "ldam", "ldam_drw", "logit_adjustment",
    "balanced_softmax", "meta_weight_net", "meta_lp", "clp",
)  # fmt: skip
NOISE_METHODS = (
    "erm", "focal", "generalised_cross_entropy", "nce_rce", "nce_mae", "meta_weight_net", "meta_lp", "clp",
)  # fmt: skip
GROUP_METHODS = ("erm", "group_reweighting", "group_dro", "lisa", "meta_lp", "clp")

# The budget of the CIFAR tables: a table in some hours on two cores, where the paper's schedule would take weeks. The
# learning rate falls at the same fractions of training as the recipe's.
CIFAR_BUDGET = {"model_name_or_path": "cifar_resnet20", "per_device_train_batch_size": 128, "meta_every": 2}

# Of each scenario, the methods that are compared by default, and the defaults that are not the recipe's.
SCENARIOS = {
    "cifar_longtail": (LONG_TAIL_METHODS, {**CIFAR_BUDGET, "num_train_epochs": 20}),
    "cifar_noisy": (NOISE_METHODS, {**CIFAR_BUDGET, "num_train_epochs": 8}),  # of four times as many images
    "imagenet_glt": (LONG_TAIL_METHODS, {}),
    "coco_glt": (LONG_TAIL_METHODS, {}),
    "waterbirds": (GROUP_METHODS, {}),
    "celeba": (GROUP_METHODS, {}),
    "metashift": (GROUP_METHODS, {}),
}

OWN_CLASS = {"perturbed_logits": "own", "perturbation_bound": 10.0}
VARIANTS = {
    **METHODS,
    # the same masks, used as data augmentation: every other training image gets the background of another class
    "background_swap": {"meta_every": 0},
    "clp_background_swap": {},
    # from logit adjustment on: δ starts at the log class proportions
    "meta_lp_class_prior": {**METHODS["meta_lp"], "class_prior": True},
    "clp_class_prior": {"class_prior": True},
    # of the own class alone: what wrong labels need. To silence a hard sample takes a large perturbation.
    "meta_lp_own": {**METHODS["meta_lp"], **OWN_CLASS},
    "clp_own": OWN_CLASS,
    # the paper's method without our extension, and its parts one at a time
    "clp_paper": {"background_evidence": False},
    # the evidence of the background taken as it is, the gate never learned: what does meta-learning add?
    "evidence_not_learned": {"perturbation_learning_rate": 1e-30},
    **{
        f"clp_without_{name}": {"characteristics": [other for other in CHARACTERISTICS if other != name]}
        for name in CHARACTERISTICS
    },
}
# Besides CLP as it is, which has one copy, all characteristics, and by default no saliency regularisation.
SWEEPS = {
    "saliency_weight": [f"clp+saliency_weight={value}" for value in (0.2, 0.4, 0.6, 0.8, 1.0)],  # Figures 7 and 8
    "augmented_copies": ["meta_lp", *(f"clp+augmented_copies={value}" for value in (2, 5, 10))],  # Figure 8
    "characteristics": [f"clp_without_{name}" for name in CHARACTERISTICS],  # Figure 9
}

TRAINER_SETTINGS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "optim", "optim_args", "weight_decay", "max_grad_norm",
    "label_smoothing_factor", "metric_for_best_model", "bf16", "fp16",
)  # fmt: skip
# Settings of the trainer that are not its parent's.
OWN_SETTINGS = own_fields(CLPTrainingArguments)


@dataclass
class BenchmarkArguments:
    scenario: str = field(metadata={"help": f"A recipe, out of: {', '.join(SCENARIOS)}."})
    results: str = field(metadata={"help": "Folder of the result files."})
    methods: list[str] = field(
        default_factory=list, metadata={"help": f"By default those of the scenario; out of: {', '.join(VARIANTS)}."}
    )
    sweeps: list[str] = field(
        default_factory=list,
        metadata={"help": f"CLP at several values of a setting, besides the methods; out of: {', '.join(SWEEPS)}."},
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of model head, meta set and data."})
    tune: bool = field(
        default=False, metadata={"help": "Keep of each method the settings that are best in validation, on one seed."}
    )
    frozen_features: str | None = field(
        default=None,
        metadata={"help": "Train a perceptron on the features of the model, which are kept in this folder."},
    )
    workers: int = field(default=1, metadata={"help": "Runs at a time, each on one core (or all on one GPU)."})


@dataclass
class Comparison:
    """What the command line asks for: `arguments` are those of recipe, data, model and training."""

    benchmark: BenchmarkArguments
    arguments: tuple

    @property
    def results(self) -> Path:
        return Path(self.benchmark.results)

    @property
    def methods(self) -> list[str]:
        swept = [method for sweep in self.benchmark.sweeps for method in ("clp", *SWEEPS[sweep])]
        return list(dict.fromkeys([*self.benchmark.methods, *swept]))

    @property
    def model(self) -> str:
        """What is trained."""
        *_, model, _ = self.arguments
        name = model.model_name_or_path
        return f"perceptron on the features of {name}" if self.benchmark.frozen_features else name

    def jobs(self) -> list[tuple[str, int]]:
        """Method and seed of the runs that are still missing."""
        first, *others = self.benchmark.seeds
        jobs = [(method, first) for method in self.methods]
        if self.benchmark.tune:
            if missing := [job for job in jobs if not self.path(*job).exists()]:
                return missing
            jobs += [(method, seed) for seed in others for method in self.selected(self.records())]
        else:
            jobs += [(method, seed) for seed in others for method in self.methods]
        # Seed by seed, so that what is there after an interruption can be compared; the longest first, so that no core
        # waits for one of them at the end.
        order = self.benchmark.seeds.index
        jobs = sorted(jobs, key=lambda job: (order(job[1]), variant(job[0]).get("meta_every") == 0))
        return [job for job in jobs if not self.path(*job).exists()]

    def selected(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Of the settings of each method those with the best validation score on the first seed."""
        score = f"eval_{self.arguments[-1].metric_for_best_model}"
        best = {}
        for record in records:
            name = record["method"].split("+")[0]
            if record["seed"] == self.benchmark.seeds[0] and record["method"] in self.methods:
                kept = best.setdefault(name, record)
                if record["metrics"][score] > kept["metrics"][score]:
                    best[name] = record
        return [record["method"] for record in best.values()]

    def path(self, method: str, seed: int) -> Path:
        return self.results / f"{method}-{seed}.json"

    def description(self, method: str) -> dict[str, Any]:
        """What a run of this method is, but for its seed and what comes out of it, as JSON has it."""
        recipe, data, model, training = self.arguments
        scenario = {name: value for name, value in vars(recipe).items() if name not in ("method", "compare")}
        settings = {
            **{name: _without_folder(value) for name, value in scenario.items()},
            **{name: value for name, value in vars(data).items() if name not in ("dataset_name", "image_size")},
            **{name: getattr(model, name) for name in ("pretrained", "freeze_batch_norm")},
            **{name: getattr(training, name) for name in (*TRAINER_SETTINGS, *OWN_SETTINGS)},
            **variant(method),
        }
        record = {
            "scenario": self.benchmark.scenario,
            "method": method,
            "dataset": _without_folder(data.dataset_name),
            "model": self.model,
            "image_size": data.image_size,
            "settings": settings,
        }
        return json.loads(json.dumps(record))

    def records(self) -> list[dict[str, Any]]:
        """All that is in the folder, checked; methods in the order of `VARIANTS`, then by name.

        Raises:
            ValueError: a run was made with other settings.
        """
        records = []
        for path in self.results.glob("*.json"):
            record = json.loads(path.read_text())
            check_same(record, self.description(record["method"]), path)
            records.append(record)
        order = list(VARIANTS)
        return sorted(
            records,
            key=lambda record: (
                order.index(record["method"]) if record["method"] in order else len(order),
                record["method"],
                record["seed"],
            ),
        )


def _range(numbers: Collection[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _without_folder(value: Any) -> Any:
    """Results name no folder of the machine on which they were made."""
    return Path(value).name if isinstance(value, str) and "/" in value else value


def parse() -> Comparison:
    """The command line, checked.

    Raises:
        ValueError: an unknown method, setting or sweep, a bad value, fewer than one worker, or a method that changes
            images where there are features only.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--scenario", choices=list(SCENARIOS))
    scenario = first.parse_known_args()[0].scenario
    if scenario is None:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print_help()
            sys.exit()
        raise ValueError(f"Which scenario? Give --scenario with one of {', '.join(SCENARIOS)}.")
    recipe = importlib.import_module(scenario)
    methods, budget = SCENARIOS[scenario]
    defaults = {
        **recipe.DEFAULTS, **budget, "methods": list(methods), "logging_strategy": "epoch", "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip
    benchmark, *arguments = parse_arguments(
        (BenchmarkArguments, recipe.RecipeArguments, DataArguments, ModelArguments, CLPTrainingArguments),
        __doc__,
        defaults,
    )
    if unknown := set(benchmark.sweeps) - set(SWEEPS):
        raise ValueError(f"There is no sweep {', '.join(sorted(unknown))}; choose out of {', '.join(SWEEPS)}.")
    if benchmark.tune and benchmark.sweeps:
        raise ValueError("A sweep shows every setting, and tune keeps one: give --tune or --sweeps.")
    if benchmark.workers < 1:
        raise ValueError(f"workers is {benchmark.workers}; expected 1 or more.")
    comparison = Comparison(benchmark, tuple(arguments))
    for method in comparison.methods:
        configured(arguments[-1], variant(method))  # as a user's settings are checked, before anything runs
    changing = [method for method in comparison.methods if changes_images(method, arguments[-1])]
    if benchmark.frozen_features and changing:
        raise ValueError(
            f"With frozen_features there are no images to change, as {', '.join(changing)} would. Give methods without "
            "causal images (erm, meta_lp …), or leave frozen_features out."
        )
    return comparison


def print_help() -> None:
    """What can be said before a scenario is chosen; with one, `--help` lists the options of its recipe too."""
    parser = HfArgumentParser(
        BenchmarkArguments,
        usage="%(prog)s --scenario SCENARIO --results FOLDER [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"methods: {', '.join(VARIANTS)}\n\nsweeps: {', '.join(SWEEPS)}\n\nOf a scenario's recipe, with its "
        "options and defaults: --scenario SCENARIO --help",
    )
    parser.print_help()


def variant(method: str) -> dict[str, Any]:
    """The settings that a method changes: those of its name in `VARIANTS`, and those written behind it.

    Raises:
        ValueError: the method or a setting is unknown.
    """
    name, *changes = method.split("+")
    if name not in VARIANTS:
        raise ValueError(f"There is no method {name!r}; choose out of {', '.join(VARIANTS)}.")
    changed = {}
    for change in changes:
        setting, equals, value = change.partition("=")
        if not equals or setting not in (*TRAINER_SETTINGS, *OWN_SETTINGS):
            raise ValueError(
                f"{method!r} changes {change!r}; expected name=value, the name out of "
                f"{', '.join((*TRAINER_SETTINGS, *OWN_SETTINGS))}."
            )
        changed[setting] = _value(value)
    return VARIANTS[name] | changed


def changes_images(method: str, training: CLPTrainingArguments) -> bool:
    """Whether a method takes images apart by their masks, for its meta set or the training set."""
    settings = {**vars(training), **variant(method)}
    causal = settings["counterfactual_infills"] or settings["factual_infills"]
    return swaps_backgrounds(method) or bool(settings["meta_every"] and causal)


def swaps_backgrounds(method: str) -> bool:
    return "background_swap" in method.split("+")[0]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_same(record: dict[str, Any], expected: dict[str, Any], path: Path) -> None:
    """Raise ValueError where a record says that it was made of other things than these, naming them."""
    found, wanted = ({**item, **item["settings"]} for item in (record, expected))
    names = [name for name in wanted if name in found and name != "settings" and found[name] != wanted[name]]
    if names:
        there, here = (", ".join(f"{name}={item[name]!r}" for name in names) for item in (found, wanted))
        raise ValueError(
            f"{path} was made with {there}; this command has {here}. Give the values of the file, or another --results."
        )


def run(method: str, seed: int) -> None:
    """One run of the comparison that the command line asks for, in this process; writes its record."""
    comparison = parse()
    torch.set_num_threads(1)
    record = comparison.description(method) | {"seed": seed}
    *_, training = comparison.arguments
    training.seed = seed
    experiment = importlib.import_module(comparison.benchmark.scenario).build(*comparison.arguments)
    if comparison.benchmark.frozen_features:
        freeze(experiment, comparison.benchmark.frozen_features)
    if swaps_backgrounds(method):
        experiment.train = BackgroundSwap(experiment.splits["train"], experiment.train.transform, name="train")
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        metrics = experiment.run(variant(method), folder)
        log = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
    record |= {
        "parameters": experiment.num_parameters,
        "class_counts": counts(experiment.splits["train"], "label"),
        "device": torch.cuda.get_device_name() if training.device.type == "cuda" else training.device.type,
        "cpu_seconds": round(time.process_time() - started, 1),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "metrics": metrics,
        "history": history(log, f"eval_{training.metric_for_best_model}"),
    }
    write_record(comparison.path(method, seed), record)


def history(log: Sequence[dict[str, float]], score: str) -> list[dict[str, float]]:
    """Of a trainer's log the entries of training, and of those of evaluation the score that selects."""
    kept = []
    for entry in log:
        if "loss" in entry:
            kept.append(entry)
        elif score in entry:
            kept.append({"epoch": entry["epoch"], score: entry[score]})
    return kept


def run_alone(method: str, seed: int) -> None:
    """`run`, as a process that ends with the one that started it, which a restart would repeat beside it."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    disable_progress_bar()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        run(method, seed)


def run_all(jobs: Sequence[tuple[str, int]], workers: int) -> list[str]:
    """Every run in a process of its own, `workers` at a time.

    Returns:
        The runs that failed; what went wrong is in their standard error.
    """
    context, waiting, running, failed = multiprocessing.get_context("spawn"), list(jobs), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                process = context.Process(target=run_alone, args=waiting[0], name="{}, seed {}".format(*waiting.pop(0)))
                process.start()
                running[process.sentinel] = process
            for sentinel in multiprocessing.connection.wait(list(running)):
                process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    failed.append(process.name)
                left = len(waiting) + len(running)
                print(f"{process.name}: {'failed' if process.exitcode else 'done'}, {left} to go", flush=True)
    finally:
        for process in running.values():
            process.terminate()
    return failed


GROUP_COLUMNS = {
    "test worst group": "test_worst_group_accuracy",
    "test average": "test_accuracy",
    "test adjusted": "test_adjusted_accuracy",
    "validation worst group": "eval_worst_group_accuracy",
}
CLASS_COLUMNS = {
    "test": "test_accuracy",
    "test, > 100 images": "test_many_shot_accuracy",
    "test, 20 to 100": "test_medium_shot_accuracy",
    "test, < 20": "test_few_shot_accuracy",
    "test worst class": "test_worst_class_accuracy",
    "validation": "eval_accuracy",
}


def by_method(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each method, in the order of `records`."""
    return {
        method: [record for record in records if record["method"] == method]
        for method in dict.fromkeys(record["method"] for record in records)
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds of every method, as Markdown; the best and second best of test columns."""
    methods = by_method(records)
    has_groups = any(name.startswith("test_accuracy_group_") for name in records[0]["metrics"])
    columns = {
        title: key
        for title, key in (GROUP_COLUMNS if has_groups else CLASS_COLUMNS).items()
        if all(key in record["metrics"] for record in records)
    }
    cells = [list(methods), [", ".join(str(record["seed"]) for record in runs) for runs in methods.values()]]
    for title, key in columns.items():
        scores = [[record["metrics"][key] for record in runs] for runs in methods.values()]
        texts = list(map(mean_and_spread, scores))
        cells.append(mark_best(list(map(statistics.mean, scores)), texts) if title.startswith("test") else texts)
    minutes = [statistics.mean(record["cpu_seconds"] for record in runs) / 60 for runs in methods.values()]
    cells.append([f"{value:.1f}" for value in minutes])
    lines = [
        f"| method | seeds | {' | '.join(columns)} | CPU minutes a run |",
        "|---|---|" + "---:|" * (len(columns) + 1),
        *(f"| {' | '.join(row)} |" for row in zip(*cells, strict=True)),
    ]
    return "\n".join(lines)


def caption(comparison: Comparison, records: Sequence[dict[str, Any]]) -> str:
    """What was compared, the budget, and what selects the checkpoint that is tested."""
    recipe, data, _, training = comparison.arguments
    details = [
        f"{name} {_without_folder(value)}"
        for name, value in vars(recipe).items()
        if name not in ("method", "compare") and value is not None
    ]
    sizes = sorted({sum(record["class_counts"].values()) for record in records if "class_counts" in record})
    parts = [
        f"Scenario {comparison.benchmark.scenario}" + (f" ({', '.join(details)})" if details else ""),
        f"data {_without_folder(data.dataset_name)}"
        + (f", {' or '.join(f'{size:,}' for size in sizes)} training images" if sizes else ""),
        f"{comparison.model}, {records[0]['parameters']:,} parameters",
    ]
    length = f"{training.max_steps} steps" if training.max_steps > 0 else f"{training.num_train_epochs:g} epochs"
    budget = (
        f"{length} of batches of {training.per_device_train_batch_size}, {training.optim.value} "
        f"({training.optim_args}), learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g}, "
        f"meta_every {training.meta_every}"
    )
    commits = sorted({record["commit"] for record in records})
    devices = sorted({record.get("device", "cpu") for record in records})
    tuned = (
        f"Of each method the settings with the best validation score on seed {comparison.benchmark.seeds[0]}, out of "
        f"{_range(Counter(method.split('+')[0] for method in comparison.methods).values())}. "
        if comparison.benchmark.tune
        else ""
    )
    return (
        f"{'; '.join(parts)}. Every run: {budget}. {tuned}Of each run the "
        f"checkpoint with the best validation {training.metric_for_best_model} is tested, once. Accuracy in percent, "
        f"mean ± standard deviation over seeds; **best** and <u>second best</u> mean. Commits {', '.join(commits)}."
        + (f" On {', '.join(devices)}." if devices != ["cpu"] else "")
    )


def report(comparison: Comparison) -> str:
    """Write `table.md` and the plots of all that is in the folder of the results."""
    records = comparison.records()
    if comparison.benchmark.tune:
        selected = comparison.selected(records)
        records = [record for record in records if record["method"] in selected]
    if not records:
        return f"There are no results in {comparison.results}."
    text = f"{caption(comparison, records)}\n\n{table(records)}"
    (comparison.results / "table.md").write_text(text + "\n")
    *_, training = comparison.arguments
    methods = by_method(records)
    if comparison.benchmark.tune:  # one of each, which its name tells well enough
        methods = {method.split("+")[0]: runs for method, runs in methods.items()}
    plots.write_plots(methods, f"test_{training.metric_for_best_model}", comparison.results)
    return text


def main():
    comparison = parse()
    comparison.results.mkdir(parents=True, exist_ok=True)
    comparison.records()  # checks them
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = []
    while (jobs := comparison.jobs()) and not failed:
        failed = run_all(jobs, comparison.benchmark.workers)
    print(report(comparison))
    if failed:
        sys.exit(f"These runs failed: {'; '.join(failed)}.")


if __name__ == "__main__":
    main()
