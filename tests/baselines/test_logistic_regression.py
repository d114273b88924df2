from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clp_hf.baselines import logistic_regression, worst_and_average


def test_equals_scikit_learn(spurious):
    train, validation, test, head = spurious(3)
    result = logistic_regression(train, validation, head, [{"C": 0.01}])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    pipeline.fit(train.features.numpy(), train.labels.numpy())
    expected = pipeline.predict_proba(test.features.numpy())
    np.testing.assert_allclose(result.logits(test.features).softmax(1), expected, atol=1e-3)


def test_group_balance_beats_class_balance_where_groups_are_spurious(spurious):
    train, validation, test, head = spurious()
    worst = {}
    for balance in ("class", "group"):
        result = logistic_regression(train, validation, head, balance=balance)
        assert result.settings["balance"] == balance
        worst[balance], _ = worst_and_average(result.logits(test.features), test.labels, test.groups)
    assert worst["group"] > worst["class"] + 0.1


def test_class_balance_helps_the_rare_class(spurious):
    train, validation, _, head = spurious()
    rare = train.labels == 1
    rare[: len(rare) * 19 // 20] = False
    train = train[(train.labels == 0) | rare]
    result = logistic_regression(train, validation, head, [{"C": 0.01}])
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    plain.fit(train.features.numpy(), train.labels.numpy())
    of_one = validation[validation.labels == 1].features
    assert (result.logits(of_one).argmax(1) == 1).float().mean() > plain.predict(of_one.numpy()).mean() + 0.1


def test_group_balance_needs_groups(spurious):
    train, validation, _, head = spurious()
    with pytest.raises(ValueError, match="group of every training sample"):
        logistic_regression(replace(train, groups=None), validation, head, balance="group")
    with pytest.raises(ValueError, match="'classes'"):
        logistic_regression(train, validation, head, balance="classes")
