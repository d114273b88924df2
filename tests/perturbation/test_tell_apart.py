"""Two heads that take a sum apart: the solution of a convex problem, which tells the attribute from the class."""

import torch
import torch.nn.functional as F

from clp_hf.perturbation.evidence.tell_apart import class_given_attribute, tell_apart

RIDGE, RHO = 0.05, 2.0


def problem(n=120, m=24, classes=3, attributes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(count, correlation):
        labels = torch.arange(count) % classes
        goes_along = torch.rand(count, generator=generator) < correlation
        values = torch.where(goes_along, labels % attributes, torch.arange(count) // classes % attributes)
        features = torch.randn(count, 6, generator=generator, dtype=torch.float64)
        features[:, :3] += torch.eye(3, dtype=torch.float64)[labels]
        features[:, 3:5] += 2 * torch.eye(2, dtype=torch.float64)[values]
        return features, labels, values

    features, labels, values = draw(n, 0.9)
    given = class_given_attribute(F.one_hot(values).double(), labels, classes)
    return features, labels, *draw(m, 0.0), given


def loss(heads, features, labels, meta_features, meta_labels, meta_attributes, given, weights):
    """As the docstring of the module has it, of one run, written out anew; heads are (C + A, d + 1)."""
    classes = len(given)
    u, v = heads[:classes], heads[classes:]

    def logits(head, x):
        return x @ head[:, :-1].T + head[:, -1]

    both = logits(u, features) + logits(v, features) @ given.T
    train = (weights / weights.sum() * F.cross_entropy(both, labels, reduction="none")).sum()
    meta = F.cross_entropy(logits(u, meta_features), meta_labels)
    meta = meta + F.cross_entropy(logits(v, meta_features), meta_attributes)
    length = heads[:, :-1].square().sum() + heads[:, -1].square().sum() / features.shape[1]
    return train + RHO / 2 * meta + RIDGE / 2 * length


def test_each_run_is_at_the_minimum_of_its_own_loss():
    *data, given = problem()
    weights = torch.ones(3, 120, dtype=torch.float64)
    weights[1, ::2], weights[2, :60] = 0, 3
    heads = tell_apart(*data, given, weights, RIDGE, RHO)
    assert heads.shape == (3, 5, 7)
    for run, own in zip(heads, weights, strict=True):
        (gradient,) = torch.autograd.grad(loss(run.requires_grad_(), *data, given, own), run)
        zero = torch.zeros_like(run).requires_grad_()
        (at_zero,) = torch.autograd.grad(loss(zero, *data, given, own), zero)
        assert gradient.norm() < 1e-4 * at_zero.norm()


def test_from_another_start_it_is_the_same():
    *data, given = problem()
    weights = torch.ones(1, 120, dtype=torch.float64)
    first = tell_apart(*data, given, weights, RIDGE, RHO)
    start = torch.randn(first.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(tell_apart(*data, given, weights, RIDGE, RHO, start), first, atol=1e-3, rtol=1e-3)


def test_the_attribute_is_found_in_its_own_features():
    *data, given = problem(n=1200, m=240)
    heads = tell_apart(*data, given, torch.ones(1, 1200, dtype=torch.float64), RIDGE, RHO)[0]
    difference = (heads[3] - heads[4])[:-1].abs()
    assert difference[3:5].min() > 3 * difference[[0, 1, 2, 5]].max()


def test_an_attribute_that_says_nothing_of_the_class_gives_nothing():
    values = F.one_hot(torch.tensor([0, 1, 0, 1])).double()
    assert not class_given_attribute(values, torch.tensor([0, 0, 1, 1]), 2).any()
    given = class_given_attribute(values, torch.tensor([0, 1, 0, 1]), 2)
    torch.testing.assert_close(given, torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64))
