"""Several runs on one page: found, put together by seed, paired on the same images, and refused where they are not."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torchmetrics")
pytest.importorskip("matplotlib")

from made_runs import drawn, made_run, without_predictions
from test_report import Page

from clp_hf.hub.predictions import Picture, Predictions
from clp_hf.report import write_report
from clp_hf.report.run import load_runs
from clp_hf.report.scores import further_metrics


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes a second; nothing here looks at curves."""
    monkeypatch.setattr("clp_hf.report.page.run_pictures", lambda *args: [])
    monkeypatch.setattr("clp_hf.report.comparison._pictures", lambda *args: [])


@pytest.fixture
def report(tmp_path):
    def report(*folders):
        return Page(write_report(folders, tmp_path / "report.html"))

    return report


def rows_of(table):
    return {row[0].strip(): [text.strip() for text in row[1:]] for row in table[1:]}


def two_methods(folder, seeds, layout="{method}/seed{seed}"):
    for seed in seeds:
        for method, skill in (("plain", 0.5), ("better", 2.0)):
            path = folder / layout.format(method=method, seed=seed)
            made_run(path, *drawn(400, skill, seed), seed=seed, settings={"learning_rate": skill})


# ---- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout", ["{method}/seed{seed}", "seed-{seed}/{method}", "{method}/{seed}", "{method}-s{seed}"]
)
def test_runs_that_differ_by_the_seed_alone_are_one_row(tmp_path, report, layout):
    two_methods(tmp_path / "runs", (0, 1, 2), layout)
    page = report(tmp_path / "runs")
    table = rows_of(page.tables["Results of all runs, %"][0])
    assert {title.split(" (group_dro")[0] for title in table} == {"better (3 seeds)", "plain (3 seeds)"}
    accuracies = [
        json.loads((tmp_path / "runs" / layout.format(method="plain", seed=seed) / "all_results.json").read_text())
        for seed in (0, 1, 2)
    ]
    worst = np.array([found["test_worst_group_accuracy"] for found in accuracies]) * 100
    shown = next(cells for title, cells in table.items() if title.startswith("plain"))[0]
    assert shown.startswith(f"{worst.mean():.1f} ± {worst.std(ddof=1):.1f}")
    text = " ".join(page.texts)
    assert "seed" not in [row[0].strip() for row in page.tables["Settings that differ"][0]]
    assert "0, 1, 2" in text


def test_the_same_run_twice_is_no_other_seed(tmp_path, report):
    two_methods(tmp_path / "runs", (0, 1))
    shutil.copytree(tmp_path / "runs" / "plain", tmp_path / "runs" / "again")
    titles = rows_of(report(tmp_path / "runs").tables["Results of all runs, %"][0])
    assert sorted(title.split(" (group")[0] for title in titles) == [
        "again (2 seeds)",
        "better (2 seeds)",
        "plain (2 seeds)",
    ]


def test_seeds_of_repairs_are_one_row_though_each_has_its_own_classifier(tmp_path):
    from clp_hf.report.rows import rows_of

    for seed in (0, 1):
        model = f"runs/erm_0/seed{seed}"
        made_run(tmp_path / "runs" / str(seed), *drawn(60, 1, seed), seed=seed, model=model)
    assert [len(row.runs) for row in rows_of(load_runs([tmp_path / "runs"])[0])] == [2]


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_differences_are_those_of_the_accuracies_with_an_interval(tmp_path, report):
    two_methods(tmp_path / "runs", (0, 1))
    page = report(tmp_path / "runs" / "plain", tmp_path / "runs" / "better")
    caption = next(caption for caption in page.tables if caption.startswith("Differences"))
    assert caption == "Differences from plain (2 seeds) on the same test images, points"
    found = rows_of(page.tables[caption][0])
    means = {
        method: np.mean(
            [
                json.loads((tmp_path / "runs" / method / f"seed{seed}" / "all_results.json").read_text())[
                    "test_accuracy"
                ]
                for seed in (0, 1)
            ]
        )
        for method in ("plain", "better")
    }
    gain = 100 * (means["better"] - means["plain"])
    assert found["average"][0].startswith(f"+{gain:.1f} (0 is outside the interval)")
    assert "to +" in found["average"][0]


def test_what_is_on_other_images_is_shown_and_not_paired(tmp_path, report):
    made_run(tmp_path / "a", *drawn(200, 1))
    made_run(tmp_path / "b", *drawn(120, 2), settings={"learning_rate": 1})
    page = report(tmp_path / "a", tmp_path / "b")
    assert "120 of 120 and 200 images are the same" in " ".join(page.texts)
    assert not [caption for caption in page.tables if caption.startswith("Differences")]
    assert len(page.tables["Results of all runs, %"][0]) == 3


def test_other_labels_of_the_same_images_are_no_pair(tmp_path, report):
    logits, labels, groups = drawn(200, 1)
    made_run(tmp_path / "a", logits, labels, groups)
    made_run(tmp_path / "b", logits, 1 - labels, (groups + 2) % 4, settings={"learning_rate": 1})
    assert "other labels or groups for the same images" in " ".join(report(tmp_path / "a", tmp_path / "b").texts)


def test_a_run_of_before_is_shown_with_what_it_has_and_what_it_lacks(tmp_path, report):
    made_run(tmp_path / "new", *drawn(200, 1))
    old = without_predictions(made_run(tmp_path / "old", *drawn(200, 2), settings={"learning_rate": 1}))
    page = report(tmp_path / "new", old)
    text = " ".join(page.texts)
    assert "old: It has no _predictions.parquet" in text
    assert "old has no predictions of the test images" in text
    table = rows_of(page.tables["Results of all runs, %"][0])
    assert [cells[0].count("to") for cells in table.values()] == [1, 0]


def test_predictions_of_other_weights_than_the_results_are_left_out(tmp_path, report):
    run = made_run(tmp_path / "run", *drawn(200, 1))
    results = json.loads((run / "all_results.json").read_text())
    results["test_accuracy"] -= 0.1
    (run / "all_results.json").write_text(json.dumps(results))
    assert "they are of different weights" in " ".join(report(run).texts)


# ---- runs that died --------------------------------------------------------------------------------------------------


def test_a_run_that_died_is_named_and_the_others_are_shown(tmp_path, report):
    made_run(tmp_path / "runs" / "whole", *drawn(100, 1))
    state = {
        "global_step": 40,
        "max_steps": 90,
        "log_history": [{"eval_accuracy": 0.6, "eval_worst_group_accuracy": 0.25}],
    }
    for name, content in (("died", json.dumps(state)), ("cut", "{")):
        checkpoint = tmp_path / "runs" / name / "checkpoint-40"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(content)
    page = report(tmp_path / "runs")
    text = " ".join(page.texts)
    assert "it lacks _run.json" in text
    assert "trained to step 40 of 90 at least, where the worst group of validation had 25.0 %" in text
    assert [text for level, text in page.headings if level == "h2"] == ["Runs that are left out", "whole", "Terms"]
    shutil.rmtree(tmp_path / "runs" / "whole")
    with pytest.raises(ValueError, match="is not the folder of a complete run"):
        report(tmp_path / "runs")


# ---- data of any kind ------------------------------------------------------------------------------------------------


def test_a_group_of_one_image_and_a_class_without_images(tmp_path, report):
    logits, labels, groups = drawn(100, 1)
    groups[:] = 2 * labels
    groups[np.flatnonzero(labels == 1)[0]] = 3
    pages = report(made_run(tmp_path / "one", logits, labels, groups))
    (table,) = pages.tables["Accuracy by group, %"]
    interval = [title.strip() for title in table[0]].index("test, 95 % interval")
    shown = {row[0].strip(): row[interval].strip() for row in table[1:]}
    assert shown["waterbird_on_water"] == "0.0 to 100.0"
    assert "landbird_on_water" not in shown
    logits, labels, _ = drawn(100, 1, classes=3)
    page = report(made_run(tmp_path / "none", logits, np.where(labels == 2, 0, labels), names=["a", "b", "c"]))
    assert [row[0].strip() for row in page.tables["Accuracy by class, %"][0]] == ["class", "a", "b"]


def test_auroc_and_f1_are_those_of_scikit_learn():
    from sklearn.metrics import f1_score, roc_auc_score

    logits, labels, groups = drawn(300, 1, classes=3)
    found = Predictions.of("test", logits, labels, groups, range(300), range(300))
    names = ["a", "b", "c"]
    metrics = further_metrics(found, names, [f"{name}{place}" for name in names for place in "xy"])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert metrics["auroc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-3)
    ofs = (groups == 2) | (labels != 1)
    assert metrics["f1_group_bx"] == pytest.approx(f1_score(labels[ofs] == 1, logits.argmax(1)[ofs] == 1))
    assert metrics["worst_group_f1"] == min(value for name, value in metrics.items() if name.startswith("f1_group"))
    single = Predictions.of("test", logits, np.zeros(300, int), None, range(300), range(300))
    assert "auroc" not in further_metrics(single, names, None)  # of one class there is none


def test_many_classes_with_names_of_any_kind_make_a_small_page(tmp_path, report):
    names = [f"<script>class</script> 🐦 {number}" for number in range(200)]
    for name, skill in (("a", 3.0), ("b", 4.0)):
        logits, labels, _ = drawn(2000, skill, classes=200)
        run = made_run(tmp_path / name, logits, labels, names=names, settings={"learning_rate": skill})
        found = Predictions.load(run, 200, None)
        found.pictures = {row: Picture(bytes(8000), bytes(8000)) for row in np.argsort(-found.losses)[:48].tolist()}
        found.save(run)
    report(tmp_path / "a", tmp_path / "b")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 4_000_000
    assert "<script" not in page
    assert "🐦 199" in page
