"""cRT, LWS, De-confound-TDE and SELF on features, against formulas and a library."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clp_hf.baselines import crt, lws, self_disagreement, tde
from clp_hf.baselines.selection_by_disagreement import disagreement
from clp_hf.features import FeatureSet
from clp_hf.features.feature_set import Head

LONG = [{"learning_rate": 0.2, "epochs": 40, "weight_decay": 0.0}]


@pytest.fixture(scope="module")
def long_tail():
    """Two overlapping classes of 300 and 15 images, as many of each in validation, and the head that ERM finds."""
    generator = torch.Generator().manual_seed(0)

    def draw(*counts):
        labels = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
        features = 2 + torch.randn(len(labels), 3, generator=generator)
        features[:, 0] += 1.5 * labels
        return features, labels

    (train, labels), (judge, judged) = draw(300, 15), draw(200, 200)
    model = LogisticRegression().fit(train, labels)
    weight = torch.tensor(model.coef_).float()
    head = Head(torch.cat([-weight, weight]) / 2, torch.tensor([-0.5, 0.5]) * float(model.intercept_[0]))
    return FeatureSet(train, head.logits(train), labels), FeatureSet(judge, head.logits(judge), judged), head


def test_crt_is_the_head_of_balanced_classes(long_tail):
    train, validation, head = long_tail
    scaler = StandardScaler().fit(train.features)
    inputs = scaler.transform(train.features)
    model = LogisticRegression(C=1e4, class_weight="balanced").fit(inputs, train.labels)
    expected = torch.from_numpy(model.predict(scaler.transform(validation.features)))
    found = crt(train, validation, head, LONG)
    assert (found.logits(validation.features).argmax(1) == expected).float().mean() > 0.95
    assert found.score > Head(*head).accuracy(validation)[0] + 0.2


def test_lws_scales_the_classes_and_nothing_else(long_tail):
    train, validation, head = long_tail
    found = lws(train, validation, head, LONG)
    factors = found.bias / head.bias
    torch.testing.assert_close(found.weight, factors[:, None] * head.weight)
    assert (factors != 1).all()


def test_tde_is_its_formula(long_tail):
    """Its largest class is that of Eq. 8, image by image."""
    train, validation, head = long_tail
    found = tde(train, validation, head, [{"alpha": 1.5, "scale": 16.0}])
    x, w = F.normalize(validation.features, dim=1), F.normalize(head.weight, dim=1)
    d = F.normalize(train.features.mean(0), dim=0)
    expected = 16 * (x @ w.T - 1.5 * (x @ d)[:, None] * (w @ d))
    lengths = validation.features.norm(dim=1, keepdim=True) / train.features.norm(dim=1).mean()
    torch.testing.assert_close(found.logits(validation.features), lengths * expected, rtol=1e-4, atol=1e-4)
    plain = tde(train, validation, head, [{"alpha": 0.0, "scale": 1.0}])
    assert plain.logits(validation.features).argmax(1).equal((x @ w.T).argmax(1))
    with pytest.raises(ValueError, match="alpha must be 0 or more"):
        tde(train, validation, head, [{"alpha": -1.0, "scale": 1.0}])


def test_disagreement_is_the_divergence_under_dropout():
    features, head = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), Head(torch.eye(2), torch.zeros(2))
    found = disagreement(features, head, 0.5, seed=0)
    kept = torch.rand(2, 2, generator=torch.Generator().manual_seed(0)) >= 0.5
    p, q = features.softmax(1), (2 * features * kept).softmax(1)
    torch.testing.assert_close(found, (q * (q / p).log()).sum(1))
    assert found[1] == 0


def test_self_tunes_on_one_half_of_validation_and_is_judged_on_the_other(spurious):
    train, validation, test, head = spurious()
    settings = [{"images": 100, "dropout": 0.5, "learning_rate": 1e-2}]
    found = self_disagreement(train, validation, head, settings)
    before, after = (Head(*part).accuracy(test)[0] for part in (head, (found.weight, found.bias)))
    assert after > before
    assert found.rule == "worst-group accuracy on the half of validation that it was not tuned on"
    with pytest.raises(ValueError, match=r"fewer than two images of the classes \[1\]"):
        self_disagreement(train, validation[torch.tensor([0, 1, 2])], head, settings)
    with pytest.raises(ValueError, match="dropout between 0 and 1"):
        self_disagreement(train, validation, head, [settings[0] | {"dropout": 1.0}])


@pytest.mark.parametrize("method", [crt, lws])
def test_settings_out_of_range(method, long_tail):
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        method(*long_tail, [LONG[0] | {"learning_rate": 0.0}])
