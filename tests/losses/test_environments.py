"""Losses with environments: the paper's formulas by other means, and what the environment of an image is."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from clp_hf.losses import (
    CORAL,
    IRM,
    DomainMix,
    InformationBottleneckIRM,
    Outputs,
    VarianceRiskExtrapolation,
    build_loss,
    environments_of_groups,
)
from clp_hf.losses.environments import attributes_per_class

PAIRS = torch.tensor([[5, 3, 4, 0, 0, 0], [0, 0, 0, 2, 6, 1]])  # two classes, three attributes
COLUMN = torch.tensor([[5, 3, 4], [1, 2, 0]])  # three environments, of several classes
LABELS = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0])
ENVIRONMENTS = torch.tensor([0, 0, 2, 2, 0, 1, 1, 2])


@pytest.fixture
def batch():
    """Logits (8, 2) and features (8, 4) in float64, of three environments."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, size, generator=generator, dtype=torch.float64).requires_grad_() for size in (2, 4)]


def late(loss):
    loss.progress = 0.5
    return loss


def parts(values):
    return [values[environment == ENVIRONMENTS] for environment in range(3)]


def risks(logits):
    return torch.stack(
        [F.cross_entropy(u, y) for u, y in zip(parts(logits), parts(LABELS), strict=True)],
    )


def check(found, expected, *inputs):
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(value, inputs, retain_graph=True) for value in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


# ---- what an environment is ------------------------------------------------------------------------------------------


def test_the_environment_is_the_attribute_of_class_and_attribute_pairs():
    assert environments_of_groups(PAIRS).tolist() == [0, 1, 2, 0, 1, 2]
    assert attributes_per_class(PAIRS) == 3
    # the last class lacks the last attributes: their number is told by the others
    assert environments_of_groups(PAIRS[:, :4]).tolist() == [0, 1, 2, 0]


def test_groups_of_several_classes_are_environments():
    assert environments_of_groups(COLUMN).tolist() == [0, 1, 2]
    many = torch.ones(2, 40, dtype=torch.long)
    assert environments_of_groups(many).tolist() == list(range(40))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[5, 0], [0, 3]], "has 1 environment"),
        ([[5], [3]], "has 1 environment"),
        ([[5, 0, 4, 0], [0, 3, 0, 2]], "not class · attributes"),
    ],
)
def test_no_environments_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        environments_of_groups(torch.tensor(cells))


@pytest.mark.parametrize("name", ["irm", "ib_irm", "v_rex", "coral", "domain_mix"])
def test_pairs_and_a_column_of_environments_are_the_same_to_a_loss(name, batch):
    logits, features = batch
    values = []
    for groups in (ENVIRONMENTS, 3 * LABELS + ENVIRONMENTS):
        loss = late(build_loss(name, LABELS, 2, groups, num_features=4))
        torch.manual_seed(0)
        given = {"pixel_values": torch.zeros(8, 3, 1, 1), "labels": LABELS, "group": groups}
        values.append(loss.of_batch(lambda pixels: Outputs(logits, features), given))
    assert torch.equal(*values)


# ---- formulas --------------------------------------------------------------------------------------------------------


def irm_penalty(logits):
    """By the derivative of the loss of each image alone, and every pair of two."""
    penalties = []
    for u, y in zip(parts(logits), parts(LABELS), strict=True):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(F.cross_entropy(scale * u[[i]], y[[i]]), scale, create_graph=True)[0]
            for i in range(len(u))
        ]
        penalties.append(torch.stack([a * b for a, b in itertools.combinations(slopes, 2)]).mean())
    return torch.stack(penalties).mean()


def test_irm_is_its_formula(batch):
    logits, _ = batch
    loss = IRM(COLUMN, penalty_weight=7.0, anneal_until=0.1)
    expected = risks(logits).mean()
    check(loss(logits, LABELS, ENVIRONMENTS), expected + irm_penalty(logits), logits)
    loss.progress = 0.1
    check(loss(logits, LABELS, ENVIRONMENTS), (expected + 7 * irm_penalty(logits)) / 7, logits)


def test_irm_penalty_is_the_squared_gradient_but_for_its_bias():
    """Images that are all alike: the mean over pairs is the square of the mean."""
    logits, labels = torch.tensor([[2.0, -1.0]]).repeat(4, 1), torch.zeros(4, dtype=torch.long)
    scale = torch.ones((), requires_grad=True)
    gradient = torch.autograd.grad(F.cross_entropy(scale * logits, labels), scale)[0]
    loss = IRM(COLUMN)
    value = loss(logits, labels, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(value, F.cross_entropy(logits, labels) + gradient**2)


@pytest.mark.parametrize("name", ["irm", "ib_irm", "v_rex"])
def test_a_penalty_that_begins_to_weigh_does_not_lengthen_the_step(name, batch):
    """However large its weight, the gradient is at most as long as those of risk and penalties together."""
    logits, features = batch
    lengths = []
    for weight in (1.0, 1e6):
        options = {"penalty_weight": weight, "anneal_until": 0.0}
        if name == "ib_irm":
            options["bottleneck_weight"] = weight
        loss = build_loss(name, LABELS, 2, ENVIRONMENTS, options)
        given = {"pixel_values": LABELS, "labels": LABELS, "group": ENVIRONMENTS}
        value = loss.of_batch(lambda pixels: Outputs(logits, features), given)
        gradients = torch.autograd.grad(value, (logits, features), allow_unused=True)
        lengths.append(sum(part.square().sum() for part in gradients if part is not None).sqrt())
    assert 0 < lengths[1] < 3 * lengths[0]


def test_ib_irm_adds_the_variance_of_features(batch):
    logits, features = batch
    variances = torch.stack([part.var(0, unbiased=False).mean() for part in parts(features)])
    plain, loss = IRM(COLUMN, 2.0), InformationBottleneckIRM(COLUMN, 2.0, bottleneck_weight=5.0)
    check(loss(logits, LABELS, ENVIRONMENTS, features), plain(logits, LABELS, ENVIRONMENTS), logits)  # not yet
    expected = 2 * late(plain)(logits, LABELS, ENVIRONMENTS) + 5 * variances.mean()
    check(late(loss)(logits, LABELS, ENVIRONMENTS, features), expected / 5, logits, features)


def test_v_rex_adds_the_variance_of_risks(batch):
    logits, _ = batch
    loss = VarianceRiskExtrapolation(COLUMN, penalty_weight=3.0)
    expected = risks(logits)
    check(loss(logits, LABELS, ENVIRONMENTS), expected.mean() + expected.var(unbiased=False), logits)
    weighed = expected.mean() + 3 * expected.var(unbiased=False)
    check(late(loss)(logits, LABELS, ENVIRONMENTS), weighed / 3, logits)


def test_coral_adds_the_distance_of_covariances(batch):
    logits, features = batch
    covariances = [torch.cov(part.T) for part in parts(features)]
    distances = [(a - b).square().sum() / (4 * 4**2) for a, b in itertools.combinations(covariances, 2)]
    expected = risks(logits).mean() + 2 * torch.stack(distances).mean()
    check(CORAL(COLUMN, 2.0)(logits, LABELS, ENVIRONMENTS, features), expected, logits, features)


@pytest.mark.parametrize("name", ["irm", "ib_irm", "v_rex", "coral"])
def test_environments_that_a_batch_lacks_or_has_once_cost_nothing(name, batch):
    logits, features = batch
    one = late(build_loss(name, LABELS, 2, ENVIRONMENTS))
    rows = torch.tensor([0, 5])  # two environments with an image each
    given = {"pixel_values": rows, "labels": LABELS[rows], "group": ENVIRONMENTS[rows]}
    value = one.of_batch(lambda pixels: Outputs(logits[rows], features[rows]), given)
    single = F.cross_entropy(logits[rows], LABELS[rows])
    difference = F.cross_entropy(logits[rows], LABELS[rows], reduction="none").var(unbiased=False)
    weight = {"irm": 100, "ib_irm": 100, "v_rex": 10, "coral": 1}[name]
    torch.testing.assert_close(value, (single + (10 * difference if name == "v_rex" else 0)) / weight)
    gradient = torch.autograd.grad(value, logits)[0]
    assert torch.isfinite(gradient).all()


def test_domain_mix_takes_partners_of_other_environments():
    loss = DomainMix(PAIRS)
    groups = 3 * LABELS + ENVIRONMENTS
    torch.manual_seed(0)
    for _ in range(30):
        partners = loss.partners(LABELS, groups)
        assert (ENVIRONMENTS[partners] != ENVIRONMENTS).all()
    assert loss.partners(LABELS[:2], groups[:2]).tolist() == [0, 1]  # of one environment: as they are
    images = LABELS[:, None, None, None].float().expand(8, 3, 2, 2)
    mixed, targets = loss.mix(images, LABELS, groups)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
