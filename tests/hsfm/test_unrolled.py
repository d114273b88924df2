"""The closed form against autograd through the unrolled loop."""

import pytest
import torch
import torch.nn.functional as F

from clp_hf.hsfm.unrolled import unrolled


def oracle(weight, bias, support, labels, hard, hard_labels, hard_weights, rate, steps):
    """One run, by autograd through every inner step."""
    support = support.clone().requires_grad_()
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()

    w, b = weight, bias
    for _ in range(steps):
        loss = F.cross_entropy(support @ w.T + b, labels)
        dw, db = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - rate * dw, b - rate * db
    outer = (hard_weights * F.cross_entropy(hard @ w.T + b, hard_labels, reduction="none")).sum()
    return outer.detach(), torch.autograd.grad(outer, support)[0]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("width", [1, 6, 40])
def test_equals_autograd_through_the_loop(classes, steps, width):
    torch.manual_seed(0)
    runs, n, m = 3, 8, 11
    kw = {"dtype": torch.float64}
    weight, bias = torch.randn(runs, classes, width, **kw), torch.randn(runs, classes, **kw)
    support, hard = torch.randn(runs, n, width, **kw), torch.randn(m, width, **kw)
    labels, hard_labels = torch.randint(classes, (runs, n)), torch.randint(classes, (m,))
    hard_weights = torch.rand(runs, m, **kw)
    hard_weights[1, :7] = hard_weights[2, 4:] = 0  # hard sets of their own
    hard_weights /= hard_weights.sum(1, keepdim=True)
    rate = torch.rand(runs, **kw)
    losses, gradients = unrolled(
        weight,
        bias,
        support.mT,
        F.one_hot(labels, classes).mT.to(**kw),
        hard,
        F.one_hot(hard_labels, classes).T.to(**kw),
        hard_weights,
        rate,
        steps,
    )
    for run in range(runs):
        own = (weight[run], bias[run], support[run], labels[run])
        expected = oracle(*own, hard, hard_labels, hard_weights[run], rate[run], steps)
        torch.testing.assert_close((losses[run], gradients[run].T), expected, rtol=1e-10, atol=1e-12)
