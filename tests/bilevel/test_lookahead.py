"""The step sizes against what the optimizers really do."""

import pytest
import torch

from clp_hf.bilevel import step_sizes

RATE = 0.1


def total_displacement(make_optimizer, gradient, steps):
    """How far one gradient, followed by zero gradients, finally moves a weight, over the gradient."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make_optimizer([weight])
    sizes = step_sizes(optimizer, {"weight": weight}, {"weight": torch.full_like(weight, gradient)})
    for step in range(steps):
        weight.grad = torch.full_like(weight, gradient if step == 0 else 0.0)
        optimizer.step()
    return -weight.item() / gradient, float(sizes["weight"])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_match_is_the_whole_displacement_that_momentum_carries(momentum, nesterov):
    if nesterov and not momentum:
        pytest.skip("Nesterov needs momentum")
    displacement, size = total_displacement(
        lambda p: torch.optim.SGD(p, lr=RATE, momentum=momentum, nesterov=nesterov), gradient=0.3, steps=400
    )
    assert size == pytest.approx(displacement)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW])
def test_match_is_the_adaptive_step(optimizer_class, fused):
    """Without first-moment memory the next step of Adam is exactly size × gradient."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5, dtype=torch.float64))
    optimizer = optimizer_class([weight], lr=RATE, betas=(0.0, 0.99), weight_decay=0.0, fused=fused)
    for _ in range(4):
        weight.grad = torch.randn_like(weight)
        before = weight.detach().clone()
        size = step_sizes(optimizer, {"weight": weight}, {"weight": weight.grad})["weight"]
        optimizer.step()
        torch.testing.assert_close(before - weight, size * weight.grad)


def test_every_parameter_of_adam_has_the_count_of_its_own_steps():
    weights = {name: torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for name in "ab"}
    optimizer = torch.optim.Adam([{"params": [weights["a"]]}, {"params": [weights["b"]], "lr": 0.5}], lr=RATE)
    weights["a"].grad = torch.full((2,), 0.3, dtype=torch.float64)
    optimizer.step()  # `b` has been left out, as what is frozen at first
    sizes = step_sizes(optimizer, weights, {name: torch.full((2,), 0.3, dtype=torch.float64) for name in "ab"})
    for name, rate in (("a", RATE), ("b", 0.5)):  # of equal gradients √v̂ is their size
        torch.testing.assert_close(sizes[name], torch.full((2,), rate / (0.3 + 1e-8), dtype=torch.float64))


def test_clipping_shrinks_every_step_alike():
    weights = {name: torch.nn.Parameter(torch.zeros(2)) for name in "ab"}
    gradients = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0, 4.0])}
    optimizer = torch.optim.SGD(weights.values(), lr=RATE)
    sizes = step_sizes(optimizer, weights, gradients, max_grad_norm=1.0)
    assert float(sizes["a"]) == pytest.approx(RATE / 5)
    assert float(sizes["b"]) == pytest.approx(RATE / 5)
    unclipped = step_sizes(optimizer, weights, gradients, max_grad_norm=10.0)
    assert float(unclipped["a"]) == pytest.approx(RATE)


def test_sgd_is_the_plain_learning_rate_of_each_group():
    a, b = (torch.nn.Parameter(torch.zeros(2)) for _ in "ab")
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=RATE, momentum=0.9)
    sizes = step_sizes(optimizer, {"a": a, "b": b}, {"a": a, "b": b}, lookahead="sgd", max_grad_norm=1.0)
    assert sizes == {"a": 0.5, "b": RATE}


def test_unknown_optimizer_falls_back_with_a_warning():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adagrad([weight], lr=RATE)
    with pytest.warns(UserWarning, match="steps with lr"):
        assert step_sizes(optimizer, {"w": weight}, {"w": weight})["w"] == RATE


def test_errors_name_the_choice_and_the_parameter():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=RATE)
    with pytest.raises(ValueError, match="match, sgd"):
        step_sizes(optimizer, {"w": weight}, {"w": weight}, lookahead="adam")
    with pytest.raises(ValueError, match=r"does not train them: \['stranger'\]"):
        step_sizes(optimizer, {"stranger": torch.nn.Parameter(weight.clone())}, {"stranger": weight})
