from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clp_hf.baselines import (
    afr,
    crt,
    dfr,
    group_dro,
    gsr,
    logistic_regression,
    lws,
    select,
    self_disagreement,
    tde,
    worst_and_average,
)
from clp_hf.baselines.head import fold
from clp_hf.features import FeatureSet

METHODS = {
    logistic_regression: [{"C": 0.1}],
    dfr: [{"C": 0.1}],
    afr: [{"gamma": 4, "penalty": 0, "steps": 20}],
    group_dro: [{"penalty": 0.01, "adjustment": 0}],
    gsr: [{"penalty": 0.01, "rate": 1, "temperature": 1, "steps": 5}],
    crt: [{"learning_rate": 0.2, "epochs": 2, "weight_decay": 0}],
    lws: [{"learning_rate": 0.1, "epochs": 2, "weight_decay": 0}],
    tde: [{"alpha": 0.5, "scale": 16}],
    self_disagreement: [{"images": 10, "dropout": 0.5, "learning_rate": 0.01}],
}


def test_worst_is_over_groups_where_there_are_any_else_over_classes():
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert worst_and_average(logits, labels) == (0.5, 0.75)
    assert worst_and_average(logits, labels, torch.tensor([0, 5, 3, 2])) == (0, 0.75)


def test_select_prefers_worst_group_then_average_then_the_first():
    features = torch.tensor([[1.0], [1], [-1], [-1]])
    judge = FeatureSet(features, torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]))
    judge = replace(judge, features=features * torch.tensor([[1.0], [1], [1], [9]]))

    def head(slope, offset):
        return torch.tensor([[-slope], [slope]]), torch.tensor([-offset, offset])

    candidates = [
        ({"name": "all class 0"}, head(0.0, -1.0)),  # groups 0.5 and 0.5
        ({"name": "diverged"}, head(float("nan"), 0.0)),
        ({"name": "same"}, head(0.0, 1.0)),
        ({"name": "worse group, better average"}, head(-1.0, -5.0)),  # 0.5 and 1
    ]
    assert select(candidates[:3], judge).settings == {"name": "all class 0"}
    best = select(candidates, judge)
    assert best.settings == {"name": "worse group, better average"}
    assert (best.score, best.rule) == (0.5, "worst-group accuracy on validation")
    assert select(candidates, replace(judge, groups=None)).rule == "worst-class accuracy on validation"
    with pytest.raises(ValueError, match="finite weights"):
        select(candidates[1:2], judge)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_folded_head_equals_the_pipeline(num_classes):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(5, 3, (90, 4)), np.arange(90) % num_classes
    features[:, 0] += labels
    features[:, 3] = 7  # a constant feature
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    model = pipeline[-1]
    weight, bias = fold(model.coef_, model.intercept_, pipeline[0])
    probabilities = (torch.from_numpy(features) @ weight.T + bias).softmax(1)
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(features), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_every_method_returns_a_head_that_fits_the_model(method, num_classes, spurious):
    train, validation, _, head = spurious(num_classes)
    result = method(train, validation, head, METHODS[method])
    assert result.weight.shape == head[0].shape
    assert result.bias.shape == head[1].shape
    assert result.weight.dtype == result.bias.dtype == torch.float32
    assert METHODS[method][0].items() <= result.settings.items()
    assert result.rule.startswith("worst-group accuracy on")
    assert 0 < result.score <= 1


# a list: the order of a set of functions differs between processes, and pytest-xdist then collects nothing
@pytest.mark.parametrize("method", [method for method in METHODS if method not in (lws, tde, self_disagreement)])
def test_one_dimension_is_enough(method):
    labels = torch.arange(40) % 2
    features = FeatureSet((labels + 0.1)[:, None].float(), torch.zeros(40, 2), labels, labels)
    result = method(features, features, (torch.tensor([[0.1], [-0.1]]), torch.zeros(2)), METHODS[method])
    assert worst_and_average(result.logits(features.features), labels) == (1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_errors_say_what_does_not_fit(method, spurious):
    train, validation, _, (weight, bias) = spurious()
    settings = METHODS[method]
    with pytest.raises(ValueError, match=r"'head': \(2, 5\)"):
        method(train, validation, (weight[:, 1:], bias), settings)
    with pytest.raises(ValueError, match=r"bias has shape \(1,\)"):
        method(train, validation, (weight, bias[1:]), settings)
    with pytest.raises(ValueError, match=r"every class 0 … 1 and no other; \[1\]"):
        method(train[train.labels == 0], validation, (weight, bias), settings)
    with pytest.raises(ValueError, match="0 validation samples"):
        method(train, validation[:0], (weight, bias), settings)
    for wrong in ([], {"C": 1}, [{"gama": 1}]):
        with pytest.raises(ValueError, match="settings must be a list"):
            method(train, validation, (weight, bias), wrong)
