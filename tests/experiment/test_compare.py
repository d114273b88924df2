"""`benchmarks/compare.py` end to end on generated data, its restarts, its table and its plots."""

import json
import sys
from pathlib import Path

import pytest
from test_recipes import coloured

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import compare  # noqa: E402
import plots  # noqa: E402
from common import mark_best  # noqa: E402

from clp_hf.experiment import PAPER  # noqa: E402
from clp_hf.perturbation import CHARACTERISTICS  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, split in {"train": coloured(60), "test": coloured(10, seed=1)}.items():
        split.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture
def command(data, tmp_path, monkeypatch):
    """Set the command line; the flags, as a list."""

    def command(*flags, scenario="cifar_noisy"):
        flags = [
            "--scenario", scenario, "--results", str(tmp_path / "results"), "--dataset_name", data,
            "--num_train_epochs", "2", "--per_device_train_batch_size", "32", "--meta_batch_size", "8",
            "--image_size", "16", "--meta_samples", "2", "--use_cpu", "true", *flags,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["compare.py", *flags])
        return flags

    return command


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs without processes of their own; the list of those that were started."""
    started = []

    def run_all(jobs, workers):
        for job in jobs:
            started.append(job)
            compare.run(*job)
        return []

    monkeypatch.setattr(compare, "run_all", run_all)
    return started


NOISE = ("--noise", "uniform", "--meta_images", "6")


def test_methods_share_the_features_of_a_frozen_network(command, in_this_process, tmp_path):
    command(*NOISE, "--methods", "erm", "meta_lp", "--seeds", "0", "--frozen_features", str(tmp_path / "features"))
    compare.main()
    assert len(list((tmp_path / "features").iterdir())) == 4  # training, meta, validation and test images
    for method in ("erm", "meta_lp"):
        record = json.loads((tmp_path / "results" / f"{method}-0.json").read_text())
        assert record["model"] == "perceptron on the features of cifar_resnet20"
        assert record["parameters"] == 64 * 256 + 256 + 2 * 256 + 256 * 3 + 3


def test_seeds_are_added_to_one_table_and_nothing_runs_twice(command, in_this_process, tmp_path, capsys):
    command(*NOISE, "--methods", "erm", "clp", "--seeds", "0")
    compare.main()
    assert in_this_process == [("clp", 0), ("erm", 0)]  # the longest first
    capsys.readouterr()
    command(*NOISE, "--methods", "clp", "--seeds", "0", "1")
    compare.main()
    assert in_this_process == [("clp", 0), ("erm", 0), ("clp", 1)]
    results = tmp_path / "results"
    record = json.loads((results / "clp-1.json").read_text())
    assert record["seed"] == 1
    assert record["parameters"] == 269267
    assert record["cpu_seconds"] > 0
    assert record["commit"]
    assert sum(record["class_counts"].values()) == 162
    assert record["settings"]["noise_rate"] == 0.4
    assert record["settings"]["meta_every"] == 2
    assert {"test_accuracy", "eval_accuracy", "test_accuracy_class_class_0"} <= set(record["metrics"])
    raised = [entry for entry in record["history"] if {"loss_raised_clean", "loss_raised_noisy"} <= set(entry)]
    assert [entry["epoch"] for entry in raised] == [1, 2]
    assert sum("eval_accuracy" in entry for entry in record["history"]) == 2
    assert not any(str(tmp_path) in path.read_text() for path in results.glob("*.[jm]*"))
    table = (results / "table.md").read_text()
    assert capsys.readouterr().out.endswith(table)
    assert "best validation accuracy is tested, once" in table
    assert "2 epochs of batches of 32, sgd (momentum=0.9), learning rate 0.1" in table
    rows = [line.split(" | ")[:2] for line in table.splitlines() if line.startswith(("| erm", "| clp"))]
    assert rows == [["| erm", "0"], ["| clp", "0, 1"]]
    assert (results / "loss_raised.png").exists()


def test_tuning_goes_on_with_the_settings_that_are_best_in_validation(command, in_this_process, tmp_path):
    methods = ("erm+learning_rate=1e-30", "erm", "meta_lp", "meta_lp+learning_rate=1e-30")
    command(*NOISE, "--methods", *methods, "--seeds", "0", "1", "--tune", "true")
    compare.main()
    results = tmp_path / "results"
    score = {
        method: json.loads((results / f"{method}-0.json").read_text())["metrics"]["eval_accuracy"] for method in methods
    }
    best = [max(pair, key=score.get) for pair in (methods[:2], methods[2:])]
    assert in_this_process[:4] == [(method, 0) for method in methods]
    assert in_this_process[4:] == [(method, 1) for method in reversed(best)]  # the longest first
    table = (results / "table.md").read_text()
    assert "Of each method the settings with the best validation score on seed 0, out of 2." in table
    assert [line.split(" | ")[:2] for line in table.splitlines() if line.startswith(("| erm", "| meta_lp"))] == [
        [f"| {method}", "0, 1"] for method in best
    ]
    assert (results / "loss_raised.png").is_file()


def test_a_run_that_is_cut_off_leaves_no_record(command, in_this_process, tmp_path, monkeypatch):
    command(*NOISE, "--methods", "erm", "--seeds", "0")

    def cut_off(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("clp_hf.utils.files.os.replace", cut_off)  # the record is written, but not in its place
        with pytest.raises(KeyboardInterrupt):
            compare.main()
    assert not list((tmp_path / "results").glob("*.json"))
    compare.main()
    assert in_this_process == [("erm", 0), ("erm", 0)]
    assert [path.name for path in (tmp_path / "results").glob("erm-0.*")] == ["erm-0.json"]


@pytest.mark.slow
def test_every_run_is_a_process_and_one_that_fails_stops_no_other(command, tmp_path, capfd):
    command("--imbalance_ratio", "9", scenario="cifar_longtail")
    (tmp_path / "results").mkdir()
    assert compare.run_all([("group_dro", 0), ("clp+saliency_weight=0.2", 1)], workers=2) == ["group_dro, seed 0"]
    output, errors = capfd.readouterr()
    assert sorted(output.splitlines()) == [
        "clp+saliency_weight=0.2, seed 1: done, 0 to go",
        "group_dro, seed 0: failed, 1 to go",
    ]
    assert "group_dro needs the group of every training image" in errors
    record = json.loads((tmp_path / "results" / "clp+saliency_weight=0.2-1.json").read_text())
    assert (record["settings"]["saliency_weight"], record["settings"]["imbalance_ratio"]) == (0.2, 9)
    assert record["class_counts"] == {"class_0": 54, "class_1": 18, "class_2": 6}


def record(method, seed=0, settings=None, history=(), cpu_seconds=60.0, **metrics):
    return {
        "method": method, "seed": seed, "settings": settings or {}, "history": list(history),
        "cpu_seconds": cpu_seconds, "class_counts": {"ant": 10, "bee": 100},
        "metrics": {f"test_{name}": value for name, value in metrics.items()},
    }  # fmt: skip


def test_table_by_hand():
    records = [
        record("erm", 0, accuracy=0.50, worst_class_accuracy=0.30),
        record("erm", 1, accuracy=0.60, worst_class_accuracy=0.30),
        record("focal", 0, accuracy=0.70, worst_class_accuracy=0.10, cpu_seconds=90.0),
        record("clp", 0, accuracy=0.60, worst_class_accuracy=0.20),
        record("clp", 1, accuracy=0.64, worst_class_accuracy=0.40),
    ]
    assert compare.table(records).splitlines()[2:] == [
        "| erm | 0, 1 | 55.0 ± 7.1 | **30.0 ± 0.0** | 1.0 |",
        "| focal | 0 | **70.0** | <u>10.0</u> | 1.5 |",
        "| clp | 0, 1 | <u>62.0 ± 2.8</u> | **30.0 ± 14.1** | 1.0 |",
    ]


def test_best_of_one_and_of_equals():
    assert mark_best([0.5], ["50.0"]) == ["**50.0**"]
    assert mark_best([0.1, 0.5, 0.50001, 0.1], list("abcd")) == ["<u>a</u>", "**b**", "**c**", "<u>d</u>"]


def test_other_settings_are_refused(command, tmp_path):
    command()
    comparison = compare.parse()
    comparison.results.mkdir()
    found = comparison.description("clp") | {"seed": 0}
    found["settings"]["learning_rate"] = 0.05
    (comparison.results / "clp-0.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"clp-0.json was made with learning_rate=0.05; this command has .*=0.1\."):
        comparison.records()
    command("--learning_rate", "0.05")
    assert compare.parse().records() == [found]


def test_a_method_with_other_settings():
    changed = compare.variant("clp_without_margin+saliency_weight=2e-1+optim_args=momentum=0.5+lr_decay_at=[0.5]")
    assert changed.pop("characteristics") == [name for name in CHARACTERISTICS if name != "margin"]
    assert changed == {"saliency_weight": 0.2, "optim_args": "momentum=0.5", "lr_decay_at": [0.5]}


def test_a_sweep_has_clp_as_it_is_beside_every_other_value(command):
    command("--methods", "clp", "--sweeps", "saliency_weight", "characteristics")
    methods = compare.parse().methods
    assert methods[:2] == ["clp", "clp+saliency_weight=0.2"]
    assert len(methods) == len(set(methods)) == 1 + 5 + 10

    command("--methods", "erm", "--sweeps", "augmented_copies")
    assert compare.parse().methods[:2] == ["erm", "clp"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "erm", "nothing"], "no method 'nothing'; choose out of erm, focal"),
        (["--methods", "clp+saliency=1"], r"'clp\+saliency=1' changes 'saliency=1'; expected name=value"),
        (["--methods", "clp+saliency_weight=-1"], "saliency_weight is -1; expected 0 or more"),
        (["--sweeps", "width"], "no sweep width; choose out of saliency_weight, augmented_copies"),
        (["--workers", "0"], "workers is 0; expected 1 or more"),
    ],
)
def test_what_it_refuses_before_anything_runs(command, flags, message):
    command(*flags)
    with pytest.raises(ValueError, match=message):
        compare.parse()


@pytest.mark.parametrize("folder", ["embedded", "waterbirds_like"])
def test_committed_results_are_read(command, folder):
    command("--dataset_name", folder, "--image_size", "96", "--num_train_epochs",
            {"embedded": "4", "waterbirds_like": "2"}[folder], "--per_device_train_batch_size", "32",
            "--meta_batch_size", "36", "--meta_samples", "10", scenario="waterbirds")  # fmt: skip
    comparison = compare.parse()
    comparison.benchmark.results = str(ROOT / "benchmarks" / "results" / folder)
    records = comparison.records()
    assert (
        f"{compare.caption(comparison, records)}\n\n{compare.table(records)}\n"
        == (comparison.results / "table.md").read_text()
    )


def test_plots_of_what_there_is(tmp_path):
    accuracies = {"accuracy": 0.5, "accuracy_class_ant": 0.2, "accuracy_class_bee": 0.8}
    noisy = [{"epoch": 1.0, "loss": 1.0, "loss_raised_clean": 0.8, "loss_raised_noisy": 0.1}, {"epoch": 1.0}]

    def drawn(*records):
        return [path.stem for path in plots.write_plots(compare.by_method(records), "test_accuracy", tmp_path)]

    assert drawn(record("erm", **accuracies)) == ["per_class"]
    balanced = record("clp", history=noisy, **accuracies) | {"class_counts": {"ant": 50, "bee": 50}}
    assert drawn(balanced) == ["loss_raised"]
    clp = record("clp", settings={"saliency_weight": 0.0, "augmented_copies": 1}, **accuracies)
    swept = record("clp+saliency_weight=0.2", settings={"saliency_weight": 0.2, "augmented_copies": 1}, **accuracies)
    copies = record("clp+augmented_copies=5", settings={"saliency_weight": 0.0, "augmented_copies": 5}, **accuracies)
    assert drawn(clp, swept) == ["per_class", "saliency_weight"]
    assert drawn(clp, copies, record("meta_lp", **accuracies)) == ["per_class", "augmented_images"]
    assert drawn(clp, record("clp_without_margin", **accuracies)) == ["per_class", "characteristics"]
    assert all(path.stat().st_size > 5000 for path in tmp_path.glob("*.png"))


def test_the_papers_method_runs_beside_ours_on_the_scenarios_budget(command, in_this_process, tmp_path):
    command(*NOISE, "--methods", "paper+saliency_weight=0.2", "--seeds", "0")
    compare.main()
    record = json.loads((tmp_path / "results" / "paper+saliency_weight=0.2-0.json").read_text())
    assert record["model"] == "cifar_resnet20"
    settings = record["settings"]
    assert {name: settings[name] for name in PAPER} == PAPER | {"saliency_weight": 0.2}
    assert "preset" not in settings
