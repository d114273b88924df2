"""A scenario × methods × seeds, in one command: result files, a table and plots.

    python benchmarks/compare.py --scenario cifar_longtail --results benchmarks/results/cifar10_longtail_100 \\
        --dataset_name PATH/TO/cifar10 --imbalance_ratio 100 --workers 2
    python benchmarks/compare.py --scenario cifar_noisy --results benchmarks/results/cifar10_flip_40 \\
        --dataset_name PATH/TO/cifar10 --noise flip --noise_rate 0.4 --methods clp --sweeps saliency_weight
    python benchmarks/compare.py --scenario waterbirds --results runs/embedded --methods erm clp
    python benchmarks/compare.py --table 6 --results runs/table_6 --dataset_name PATH/TO/waterbirds
    python benchmarks/compare.py --scenario cifar_noisy --results benchmarks/results/cifar10_flip_40_features \\
        --dataset_name PATH/TO/cifar10 --noise flip --noise_rate 0.4 --max_train_samples 10000 --methods erm meta_lp \\
        --frozen_features FOLDER --model_name_or_path tf_efficientnet_lite0 --image_size 96

--table 2, 3, 5, 6, 7 or 8 is that table of the paper: it names scenario, methods and columns, and runs every setting of
them that the command line leaves open, each in a folder of its own; --preset paper gives its networks and budgets too.

A scenario is a recipe: its arguments and defaults hold, but for the budgets below. Every method gets the same data,
meta set held out, epochs, optimizer, image augmentation and, but for those that are about it, sampling; of each run the
checkpoint with the best validation score is tested, once. A method with other settings is written
clp+saliency_weight=0.2+learning_rate=0.05. With --tune several settings of a method (erm erm+learning_rate=0.05) are
tried on the first seed, and the table goes on with the one that is best in validation: give every method as many.

Each run is a process of one thread, and one JSON file named by method and seed, which is skipped when it is there: the
same command goes on after an interruption, and writes `table.md` and the plots when there is nothing left to run. A
file that was made with other settings is refused.
"""

import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "benchmarks")]

import plots  # noqa: E402
import torch  # noqa: E402
from common import write_record  # noqa: E402
from frozen_features import freeze  # noqa: E402
from paper_tables import TABLES, joined  # noqa: E402
from scenario_arguments import read_scenario  # noqa: E402
from tables import NOT_OF_THE_SCENARIO, by_method, caption, left_out, table, told, without_folder  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from variants import (  # noqa: E402
    OF_DATA,
    OWN_SETTINGS,
    SCENARIOS,
    SWEEPS,
    TRAINER_SETTINGS,
    VARIANTS,
    needs_pixels,
    of_training,
    variant,
)

from clp_hf.data.groups import counts  # noqa: E402
from clp_hf.experiment import STAGED, configured  # noqa: E402
from clp_hf.experiment.staging import run_method  # noqa: E402
from clp_hf.experiment.without_masks import instead  # noqa: E402


@dataclass
class BenchmarkArguments:
    results: str = field(metadata={"help": "Folder of the result files."})
    scenario: str | None = field(
        default=None, metadata={"help": f"A recipe, by default that of the table, out of: {', '.join(SCENARIOS)}."}
    )
    table: int | None = field(default=None, metadata={"help": "A table of the CLP paper.", "choices": list(TABLES)})
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
    """What the command line asks for: `arguments` are those of recipe, data, model and training; `given`, by name; and
    `left_out`, the rows of a table that frozen features are not enough for, each with the reason."""

    benchmark: BenchmarkArguments
    arguments: tuple
    given: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

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
        scenario = {name: value for name, value in vars(recipe).items() if name not in NOT_OF_THE_SCENARIO}
        settings = {
            **{name: without_folder(value) for name, value in scenario.items()},
            **{name: value for name, value in vars(data).items() if name not in ("dataset_name", "image_size")},
            **{name: getattr(model, name) for name in ("pretrained", "freeze_batch_norm")},
            **{name: getattr(training, name) for name in (*TRAINER_SETTINGS, *OWN_SETTINGS)},
            **variant(method),
        }
        record = {
            "scenario": self.benchmark.scenario,
            "method": method,
            "dataset": without_folder(data.dataset_name),
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


def parse() -> Comparison:
    """The command line, checked.

    Raises:
        ValueError: an unknown method, setting or sweep, a bad value, fewer than one worker, or what needs pixels where
            there are features only.
    """
    (benchmark, *arguments), given = read_scenario(BenchmarkArguments, __doc__, logging_strategy="epoch")
    methods = TABLES[benchmark.table].methods if benchmark.table else list(SCENARIOS[benchmark.scenario][0])
    _, data, _, training = arguments
    unfit = {}
    if benchmark.table and benchmark.frozen_features and not benchmark.methods:
        unfit = {name: reason for name in methods if (reason := needs_pixels(name, data, training))}
    benchmark.methods = benchmark.methods or [name for name in methods if name not in unfit]
    if unknown := set(benchmark.sweeps) - set(SWEEPS):
        raise ValueError(f"There is no sweep {', '.join(sorted(unknown))}; choose out of {', '.join(SWEEPS)}.")
    if benchmark.tune and benchmark.sweeps:
        raise ValueError("A sweep shows every setting, and tune keeps one: give --tune or --sweeps.")
    if benchmark.workers < 1:
        raise ValueError(f"workers is {benchmark.workers}; expected 1 or more.")
    comparison = Comparison(benchmark, tuple(arguments), given, unfit)
    for method in comparison.methods:
        configured(training, of_training(variant(method)))  # as a user's are checked, before anything runs
    if benchmark.frozen_features:
        check_on_features(comparison)
    return comparison


def check_on_features(comparison: Comparison) -> None:
    """Raise ValueError where frozen features are not enough for what is asked for, naming it and why."""
    _, data, model, training = comparison.arguments
    unfit = {method: reason for method in comparison.methods if (reason := needs_pixels(method, data, training))}
    if unfit:
        raise ValueError(
            f"With frozen_features there are no pixels in training, and these need them: {told(unfit)}. Leave them or "
            "frozen_features out."
        )
    if model.attribution:
        raise ValueError("With frozen_features there is no image to look at: leave attribution or frozen_features out.")


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
    recipe, data, model, training = comparison.arguments
    training.seed = seed
    name, settings = method.split("+")[0], variant(method)
    data = replace(data, **{key: settings[key] for key in OF_DATA if key in settings})
    experiment = importlib.import_module(comparison.benchmark.scenario).build(recipe, data, model, training)
    settings = of_training(settings)
    if name not in STAGED:
        fixed = {*comparison.given, *settings}
        record["without_masks"] = instead(experiment, configured(training, settings), fixed)
        settings |= record["without_masks"]
    if comparison.benchmark.frozen_features:
        freeze(experiment, comparison.benchmark.frozen_features, configured(training, settings))
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if name in STAGED:
            own = {key: value for key, value in settings.items() if VARIANTS[name].get(key) != value}
            metrics = run_method(experiment, name, own, folder)
        else:
            metrics = experiment.run(settings, folder)
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


def report(comparison: Comparison) -> str:
    """Write `table.md` and the plots of all that is in the folder of the results."""
    records = comparison.records()
    if comparison.benchmark.tune:
        selected = comparison.selected(records)
        records = [record for record in records if record["method"] in selected]
    if not records:
        return f"There are no results in {comparison.results}."
    first = TABLES[comparison.benchmark.table].columns if comparison.benchmark.table else {}
    text = f"{caption(comparison, records)}\n\n{table(records, first)}"
    (comparison.results / "table.md").write_text(text + "\n")
    *_, training = comparison.arguments
    methods = by_method(records)
    if comparison.benchmark.tune:  # one of each, which its name tells well enough
        methods = {method.split("+")[0]: runs for method, runs in methods.items()}
    plots.write_plots(methods, f"test_{training.metric_for_best_model}", comparison.results)
    return text


def compare(comparison: Comparison) -> list[str]:
    """Run what is missing, and print the table; the runs that failed."""
    comparison.results.mkdir(parents=True, exist_ok=True)
    comparison.records()  # checks them
    failed = []
    while (jobs := comparison.jobs()) and not failed:
        failed = run_all(jobs, comparison.benchmark.workers)
    print(report(comparison))
    return failed


def compare_table(comparison: Comparison) -> list[str]:
    """`compare` for every setting of a table of the paper, and the table of all; the runs that failed."""
    words, table = list(sys.argv), TABLES[comparison.benchmark.table]
    if comparison.left_out:
        print(left_out(comparison.left_out).strip())
    parts = table.parts(comparison.benchmark.scenario, comparison.given)
    failed, records = [], {}
    try:
        for name, flags in parts.items():
            folder = comparison.results / name if len(parts) > 1 else comparison.results
            sys.argv = [*words, *flags, "--results", str(folder)]  # which the processes of the runs read
            part = parse()
            failed += [f"{name} {run}".strip() for run in compare(part)]
            records[name] = part.records()
    finally:
        sys.argv = words
    if len(parts) > 1:
        text = joined(comparison.benchmark.table, records, comparison.left_out)
        (comparison.results / "table.md").write_text(text + "\n")
        print(text)
    return failed


def main():
    comparison = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = compare_table(comparison) if comparison.benchmark.table else compare(comparison)
    if failed:
        sys.exit(f"These runs failed: {'; '.join(failed)}.")


if __name__ == "__main__":
    main()
