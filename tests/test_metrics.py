import pathlib

import numpy as np
import pytest
from sklearn import metrics as sk
from transformers import EvalPrediction

import clp_hf
from clp_hf.metrics import GroupMetrics, classification_metrics, format_group_table, greater_is_better

LABELS = ["a", "b"]
GROUPS = ["a_on_x", "a_on_y", "b_on_x", "b_on_y"]


@pytest.fixture
def case():
    """Predictions a a | a b | b b b a | b: group accuracies 1, 1/2, 3/4, 1."""
    predicted = np.array([0, 0, 0, 1, 1, 1, 1, 0, 1])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    groups = np.array([0, 0, 1, 1, 2, 2, 2, 2, 3])
    return np.eye(2)[predicted] * 3.0, labels, groups


def test_hand_values(case):
    shares = {"a_on_x": 0.6, "a_on_y": 0.1, "b_on_x": 0.1, "b_on_y": 0.2}
    result = classification_metrics(*case, label_names=LABELS, group_names=GROUPS, train_group_proportions=shares)
    assert [result[f"accuracy_group_{name}"] for name in GROUPS] == [1, 0.5, 0.75, 1]
    assert result["worst_group_accuracy"] == 0.5
    assert result["accuracy"] == pytest.approx(7 / 9)
    assert (result["accuracy_class_a"], result["accuracy_class_b"]) == (0.75, 0.8)
    assert result["worst_class_accuracy"] == 0.75
    assert result["adjusted_accuracy"] == pytest.approx(0.6 + 0.05 + 0.075 + 0.2)
    confidence = 1 / (1 + np.exp(-3))
    assert result["ece"] == pytest.approx(confidence - 7 / 9)
    assert result["nll"] == pytest.approx(-(7 * np.log(confidence) + 2 * np.log(1 - confidence)) / 9)
    assert all(type(value) is float for value in result.values())


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 4)) * 3, rng.integers(0, 4, 300)
    result = classification_metrics(logits, labels, label_names=list("abcd"))
    predicted = logits.argmax(1)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_precision": sk.precision_score(labels, predicted, average="macro"),
        "macro_recall": sk.recall_score(labels, predicted, average="macro"),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "nll": sk.log_loss(labels, probabilities),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)


def test_ece_by_bins():
    """Two bins: twice confidence 0.6 with one right, once 0.9 and wrong: |1.2 - 1| + |0.9 - 0| over 3."""
    logits = np.log([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]])
    result = classification_metrics(logits, [0, 1, 0], label_names=LABELS, num_bins=15)
    assert result["ece"] == pytest.approx(1.1 / 3)


def test_confidence_one_and_huge_logits_are_finite():
    result = classification_metrics([[1e4, 0.0], [0.0, 1e4]], [0, 1], label_names=LABELS)
    assert (result["ece"], result["nll"], result["accuracy"]) == (0, 0, 1)


def test_without_groups_worst_group_is_worst_class(case):
    result = classification_metrics(*case[:2], label_names=LABELS)
    assert result["worst_group_accuracy"] == result["worst_class_accuracy"] == 0.75
    assert not [name for name in result if name.startswith("accuracy_group")]


def test_empty_group_is_left_out_and_named(case):
    logits, labels, groups = (values[2:] for values in case)
    shares = {"a_on_x": 0.7, "a_on_y": 0.1, "b_on_x": 0.1, "b_on_y": 0.1}
    with pytest.warns(UserWarning, match="No sample of group a_on_x"):
        result = classification_metrics(
            logits, labels, groups, label_names=LABELS, group_names=GROUPS, train_group_proportions=shares
        )
    assert "accuracy_group_a_on_x" not in result
    assert result["worst_group_accuracy"] == 0.5
    assert result["adjusted_accuracy"] == pytest.approx((0.5 + 0.75 + 1) / 3)


def test_empty_class_is_left_out():
    with pytest.warns(UserWarning, match="No sample of class c"):
        result = classification_metrics(np.eye(3)[[0, 1]], [0, 1], label_names=["a", "b", "c"])
    assert result["macro_recall"] == result["balanced_accuracy"] == result["worst_class_accuracy"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": np.eye(4)[[0] * 9].astype(int)}, "overlapping"),
        ({"groups": np.zeros(9, int)}, r"'a_on_x' should hold class 'a' only, but holds \['a', 'b'\]"),
        ({"groups": np.full(9, 4)}, r"groups in 0 \.\.\. 3"),
        ({"groups": np.zeros(8, int)}, "one group per label"),
        ({"group_names": None}, "group_names is needed"),
        ({"logits": np.full((9, 2), np.nan)}, "9 samples are NaN or infinite, first at row 0"),
        ({"logits": np.zeros((9, 3))}, r"Expected logits \(n, 2\)"),
        ({"labels": np.arange(9)}, r"labels in 0 \.\.\. 1"),
        ({"labels": np.zeros(9)}, "integer labels"),
        ({"train_group_proportions": {"a_on_x": 1.0}}, "lacks the groups"),
    ],
)
def test_bad_input_is_named(case, change, message):
    logits, labels, groups = case
    arguments = {"logits": logits, "labels": labels, "groups": groups, "label_names": LABELS, "group_names": GROUPS}
    with pytest.raises(ValueError, match=message):
        classification_metrics(**{**arguments, **change})


def test_shots_by_training_images():
    logits = np.eye(4)[[0, 1, 1, 1, 0, 3, 3, 3]]
    labels = [0, 0, 1, 1, 2, 2, 3, 3]
    counts = {"a": 101, "b": 100, "c": 20, "d": 1000}
    result = classification_metrics(logits, labels, label_names=list("abcd"), train_class_counts=counts)
    assert result["many_shot_accuracy"] == 0.75
    assert result["medium_shot_accuracy"] == 0.5
    assert "few_shot_accuracy" not in result
    equal = classification_metrics(
        logits, labels, label_names=list("abcd"), train_class_counts=dict.fromkeys("abcd", 5)
    )
    assert not [name for name in equal if "shot" in name]
    with pytest.raises(ValueError, match=r"lacks the classes \['d'\]"):
        classification_metrics(logits, labels, label_names=list("abcd"), train_class_counts={"a": 1, "b": 1, "c": 1})


@pytest.mark.parametrize("tupled", [False, True])
def test_trainer_metrics(case, tupled):
    logits, labels, groups = case
    predictions = (logits, np.zeros((9, 5))) if tupled else logits
    compute = GroupMetrics(LABELS, GROUPS)
    result = compute(EvalPrediction(predictions=predictions, label_ids=(labels, groups)))
    assert result == classification_metrics(logits, labels, groups, label_names=LABELS, group_names=GROUPS)
    assert compute(EvalPrediction(predictions=predictions, label_ids=labels))["worst_group_accuracy"] == 0.75


def test_table():
    erm = {"test_accuracy_group_a_on_x": 1.0, "test_accuracy_group_b": 0.05, "test_worst_group_accuracy": 0.05}
    clp = {**erm, "test_accuracy_group_b": 0.8, "test_worst_group_accuracy": 0.8, "test_accuracy": 0.9}
    table = format_group_table({"ERM": erm, "CLP": clp}, {"train": {"a_on_x": 95, "b": 5}}, prefix="test_")
    assert table.splitlines() == [
        "| accuracy, % | train |   ERM |   CLP |",
        "| ----------- | ----: | ----: | ----: |",
        "| a_on_x      |    95 | 100.0 | 100.0 |",
        "| b           |     5 |   5.0 |  80.0 |",
        "| worst group |       |   5.0 |  80.0 |",
        "| average     |   100 |     – |  90.0 |",
    ]


def test_table_without_groups_has_classes():
    metrics = {"accuracy_class_a": 0.5, "accuracy": 0.25, "worst_group_accuracy": 0.5, "few_shot_accuracy": 0.1}
    assert format_group_table({"CLP": metrics}, {"train": {"a": 19}}).splitlines()[2:] == [
        "| a                       |    19 | 50.0 |",
        "| average                 |    19 | 25.0 |",
        "| few-shot classes (< 20) |       | 10.0 |",
    ]


def test_evaluate_module(case, tmp_path, monkeypatch):
    import evaluate

    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path))
    folder = str(pathlib.Path(clp_hf.__file__).parent / "evaluate_metrics" / "group_accuracy")
    logits, labels, groups = case
    metric = evaluate.load(folder, cache_dir=str(tmp_path))
    result = metric.compute(
        predictions=logits, references=labels, groups=groups, label_names=LABELS, group_names=GROUPS
    )
    expected = classification_metrics(logits, labels, groups, label_names=LABELS, group_names=GROUPS)
    assert result == pytest.approx(expected)
    by_class = evaluate.load(folder, "classes", cache_dir=str(tmp_path))
    by_class.add_batch(predictions=logits, references=labels)
    assert by_class.compute()["accuracy_class_0"] == 0.75


@pytest.mark.parametrize("tupled", [False, True])
def test_batches_that_are_not_joined_are_one_evaluation(case, tupled):
    """As `eval_do_concat_batches=False` hands them."""
    parts = [tuple(values[rows] for values in case) for rows in (slice(0, 4), slice(4, 5), slice(5, 9))]
    logits = [(part[0], part[0]) if tupled else part[0] for part in parts]
    compute = GroupMetrics(LABELS, GROUPS)
    expected = compute(EvalPrediction(predictions=case[0], label_ids=case[1:]))
    assert compute(EvalPrediction(predictions=logits, label_ids=[part[1:] for part in parts])) == expected
    by_class = compute(EvalPrediction(predictions=case[0], label_ids=case[1]))
    assert compute(EvalPrediction(predictions=logits, label_ids=[part[1] for part in parts])) == by_class


def test_every_metric_is_named_and_knows_its_direction(case):
    shares, sizes = dict.fromkeys(GROUPS, 0.25), {"a": 5, "b": 200}
    compute = GroupMetrics(LABELS, GROUPS, shares, sizes)
    given = compute(EvalPrediction(predictions=case[0], label_ids=case[1:]))
    assert set(given) <= set(compute.names)
    assert {name for name in compute.names if not greater_is_better(name)} == {"ece", "nll"}


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("loss", False), ("eval_loss", False), ("eval_far_nll", False), ("nll", False), ("eval_ece", False),
        ("my_brier_score", False), ("error_rate", False), ("accuracy", True), ("eval_far_worst_group_accuracy", True),
        ("accuracy_class_loss", True), ("eval_accuracy_group_nll", True), ("niece", True), ("f1", True),
    ],
)  # fmt: skip
def test_direction_by_name(metric, greater):
    assert greater_is_better(metric) is greater


def test_names_that_would_be_taken_for_each_other_are_refused():
    with pytest.raises(ValueError, match=r"label_names has \['a'\] more than once"):
        classification_metrics(np.eye(2), [0, 1], label_names=["a", "a"])


def test_names_are_escaped_in_the_table():
    metrics = {
        "accuracy_class_a|b": 0.5,
        "accuracy_class_<b>": 0.25,
        "accuracy_class_worst class": 1.0,
        "accuracy": 0.5,
    }
    rows = format_group_table({"a|b": metrics}, {"tr\nain": {"a|b": 1}}).splitlines()
    assert rows[0].split() == ["|", "accuracy,", "%", "|", "tr", "ain", "|", r"a\|b", "|"]
    assert [row.split("|")[-2].strip() for row in rows[2:]] == ["50.0", "25.0", "100.0", "50.0"]
    assert "<b>" not in "".join(rows)
