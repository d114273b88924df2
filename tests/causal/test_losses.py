import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clp_hf.causal import counterfactual_loss, meta_loss


def naive(logits, labels):
    p = logits.double().softmax(1).gather(1, labels[:, None]).squeeze(1)
    return -torch.log1p(-p)


def test_hand_values():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 3.0]])
    labels = torch.tensor([0, 1, 0])
    two = torch.tensor(2.0).log()
    expected = torch.stack([two, two, torch.log(1 + torch.exp(torch.tensor(-2.0)))])
    assert torch.allclose(counterfactual_loss(logits, labels), expected)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-8, 8), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(0, 3))
def test_equals_the_naive_formula_where_that_is_accurate(rows, label):
    logits = torch.tensor(rows, dtype=torch.float64)
    labels = torch.full((len(rows),), label)
    torch.testing.assert_close(counterfactual_loss(logits, labels), naive(logits, labels), rtol=1e-8, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**125), 2.0**125, width=32), min_size=3, max_size=3), st.integers(0, 2))
def test_huge_logits_stay_finite_with_their_gradient(row, label):
    logits = torch.tensor([row], dtype=torch.float32, requires_grad=True)
    loss = counterfactual_loss(logits, torch.tensor([label]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() <= 2 + 1e-5


def test_small_probabilities_are_not_lost():
    logits = torch.tensor([[-60.0, 0.0, 0.0]])
    expected = torch.exp(torch.tensor(-60.0)) / 2
    torch.testing.assert_close(counterfactual_loss(logits, torch.tensor([0])), expected[None], rtol=1e-4, atol=0.0)


def test_half_precision_is_computed_in_float32():
    logits = torch.tensor([[9.0, 0.0]], dtype=torch.bfloat16)
    assert counterfactual_loss(logits, torch.tensor([1])).item() == pytest.approx(1.234e-4, rel=1e-3)


def test_gradient_in_float64():
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda x: counterfactual_loss(x, labels), logits)
    assert torch.autograd.gradgradcheck(lambda x: counterfactual_loss(x, labels), logits)


def test_meta_loss_takes_each_row_by_its_kind():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1])
    counterfactual = torch.tensor([False, True, False])
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (cross_entropy[0] + counterfactual_loss(logits, labels)[1] + cross_entropy[2]) / 3
    assert torch.equal(meta_loss(logits, labels, counterfactual), expected)
    none = torch.zeros(3, dtype=torch.bool)
    torch.testing.assert_close(meta_loss(logits, labels, none), torch.nn.functional.cross_entropy(logits, labels))
