"""The closed form against autograd through the unrolled loop."""

import pytest
import torch
import torch.nn.functional as F

from clp_hf.hsfm.unrolled import unrolled


def oracle(weight, bias, support, labels, hard, hard_labels, rates, support_weights, hard_weights):
    """One run, by autograd through every inner step."""
    support = support.clone().requires_grad_()
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()

    def loss_on(weight, bias, features, labels, weights):
        return (weights * F.cross_entropy(features @ weight.T + bias, labels, reduction="none")).sum()

    w, b = weight, bias
    for rate in rates:
        loss = loss_on(w, b, support, labels, support_weights)
        dw, db = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - rate * dw, b - rate * db
    outer = loss_on(w, b, hard, hard_labels, hard_weights)
    return outer.detach(), torch.autograd.grad(outer, support)[0]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("width", [1, 6, 40])
def test_equals_autograd_through_the_loop(classes, steps, width):
    torch.manual_seed(0)
    runs, n, m = 3, 8, 11
    kw = {"dtype": torch.float64}
    weight, bias = torch.randn(runs, classes, width, **kw), torch.randn(runs, classes, **kw)
    support, hard = torch.randn(runs, n, width, **kw), torch.randn(runs, m, width, **kw)
    labels, hard_labels = torch.randint(classes, (runs, n)), torch.randint(classes, (runs, m))
    support_weights, hard_weights = torch.rand(runs, n, **kw), torch.rand(runs, m, **kw)
    support_weights[1, 5:] = 0  # a smaller support set
    hard_weights[2, 4:] = 0
    support_weights /= support_weights.sum(1, keepdim=True)
    hard_weights /= hard_weights.sum(1, keepdim=True)
    rates = torch.rand(runs, steps, **kw)
    rates[0, steps // 2 + 1 :] = 0  # fewer steps
    losses, gradients = unrolled(
        weight,
        bias,
        support,
        F.one_hot(labels, classes).mT.to(**kw),
        support_weights,
        hard,
        F.one_hot(hard_labels, classes).mT.to(**kw),
        hard_weights,
        rates,
    )
    for run in range(runs):
        one_run = (weight, bias, support, labels, hard, hard_labels, rates, support_weights, hard_weights)
        expected = oracle(*(tensor[run] for tensor in one_run))
        torch.testing.assert_close((losses[run], gradients[run]), expected, rtol=1e-10, atol=1e-12)
