"""Just Train Twice of the head: who is wrong early counts more."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clp_hf.baselines import jtt, worst_and_average


def test_it_helps_the_worst_group_without_groups_of_training_images(spurious):
    train, validation, test, head = spurious()
    result = jtt(train, validation, head)
    erm, _ = worst_and_average(test.logits, test.labels, test.groups)
    worst, _ = worst_and_average(result.logits(test.features), test.labels, test.groups)
    assert worst > erm + 0.1
    assert 0 < result.settings["errors"] < len(train) / 2


def test_the_second_head_is_a_regression_weighted_by_the_errors_of_the_first(spurious):
    train, validation, test, head = spurious(3)
    setting = {"steps": 1, "upweight": 7.0, "penalty": 0.1}
    result = jtt(train, validation, head, [setting])
    # one step of gradient descent from zero: the logits are inner products with what tells the classes on average
    features = StandardScaler().fit_transform(train.features.numpy())
    features = torch.cat([torch.from_numpy(features).float(), torch.ones(len(features), 1)], 1)
    targets = torch.nn.functional.one_hot(train.labels).float()
    wrong = (features @ (features.T @ (targets - 1 / 3))).argmax(1) != train.labels
    assert result.settings == {**setting, "errors": int(wrong.sum())}
    weights = torch.where(wrong, 7.0, 1.0) / torch.bincount(train.labels)[train.labels]
    weights /= weights.mean()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.2 * weights.sum().item()), max_iter=5000))
    model.fit(train.features.numpy(), train.labels.numpy(), logisticregression__sample_weight=weights.numpy())
    expected = torch.from_numpy(model.predict_proba(test.features.numpy())).float()
    torch.testing.assert_close(result.logits(test.features).softmax(1), expected, atol=5e-3, rtol=0)


def test_without_more_weight_it_is_plain_regression(spurious):
    train, validation, _, head = spurious()
    one, other = (jtt(train, validation, head, [{"steps": s, "upweight": 1.0, "penalty": 0.1}]) for s in (1, 50))
    torch.testing.assert_close(one.weight, other.weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"upweight": 0.5}, {"penalty": 0.0}], ids=str)
def test_settings_out_of_range(spurious, wrong):
    train, validation, _, head = spurious()
    with pytest.raises(ValueError, match="steps and upweight must be 1 or more, penalty above 0"):
        jtt(train, validation, head, [{"steps": 1, "upweight": 5.0, "penalty": 0.1} | wrong])
