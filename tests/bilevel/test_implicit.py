"""The hypergradient at the converged head: against finite differences, and against autograd through a long loop."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clp_hf.bilevel import SoftmaxRegression, implicit_hypergradient


def problem(classes=2, n=40, d=5, runs=2, seed=0):
    """Features, labels, meta features and labels, u_z, and Ω = (gain, slope of the weights, log λ) of every run."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features = draw(n, d) * torch.logspace(0, 1.5, d, dtype=torch.float64) + 1  # badly scaled, not centred
    labels, meta_labels = (torch.randint(classes, (size,), generator=generator) for size in (n, 12))
    omega = [draw(runs), draw(runs), draw(runs) - 3]
    return features, labels, 3 * draw(12, d), meta_labels, draw(n, classes), [part.requires_grad_() for part in omega]


def inner_of(u_z, omega):
    gain, slope, log_ridge = omega

    def inner():
        weights = torch.sigmoid(slope[:, None] * u_z[:, 0])
        return gain[:, None, None] * u_z, weights / weights.mean(1, keepdim=True), log_ridge.exp()

    return inner


def outer_of(features, labels):
    def outer(weight, bias):
        logits = features @ weight.mT + bias[:, None]
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(weight)), reduction="sum") / len(labels)

    return outer


@pytest.mark.parametrize("fails_in", [{torch.float32}, {torch.float32, torch.float64}])
def test_where_no_eigenbasis_is_found_the_solution_is_the_same(monkeypatch, fails_in):
    """LAPACK's single precision fails on moments that are very different in size."""
    features, labels, *_, u_z, _ = (part.float() if torch.is_tensor(part) and part.is_floating_point() else part
                                    for part in problem())  # fmt: skip
    asked = u_z[None], torch.ones(1, len(labels)), torch.tensor([1e-2])
    expected = SoftmaxRegression(features, labels, 2).solve(*asked)
    eigh = torch.linalg.eigh

    def failing(matrix):
        if matrix.dtype in fails_in:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    found = SoftmaxRegression(features, labels, 2).solve(*asked)
    assert found.converged.all()
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_the_derivative_of_the_meta_loss_at_the_solution(classes):
    features, labels, meta_features, meta_labels, u_z, omega = problem(classes)
    regression, outer = SoftmaxRegression(features, labels, classes), outer_of(meta_features, meta_labels)
    found, solution = implicit_hypergradient(regression, inner_of(u_z, omega), outer, omega)
    assert solution.converged.all()
    for index, part in enumerate(omega):
        for run in range(2):
            losses = []
            for step in (1e-5, -1e-5):
                moved = [other.detach().clone() for other in omega]
                moved[index][run] += step
                there = regression.solve(*(value.detach() for value in inner_of(u_z, moved)()), tolerance=1e-13)
                losses.append(outer(there.weight, there.bias))
            difference = (losses[0] - losses[1]) / 2e-5
            torch.testing.assert_close(found.total[index][run], difference, rtol=1e-6, atol=1e-9)
        assert part.grad is None


def test_it_is_autograd_through_a_long_loop():
    """Gradient descent to convergence, with its graph."""
    features, labels, meta_features, meta_labels, u_z, omega = problem(3, d=3, runs=1)
    features, meta_features = F.normalize(features), F.normalize(meta_features)
    outer = outer_of(meta_features, meta_labels)
    found, solution = implicit_hypergradient(SoftmaxRegression(features, labels, 3), inner_of(u_z, omega), outer, omega)
    offsets, weights, ridge = inner_of(u_z, omega)()
    inputs = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)  # of length 1, as all
    theta = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    state = theta
    for _ in range(4000):
        residuals = weights[0][:, None] * ((inputs @ state + offsets[0]).softmax(-1) - F.one_hot(labels, 3))
        state = state - (inputs.T @ residuals / len(labels) + ridge[0] * state)
    torch.testing.assert_close(solution.weight[0], state[:-1].T, rtol=1e-6, atol=1e-8)
    expected = torch.autograd.grad(outer(state[None, :-1].mT, state[None, -1]), omega)
    for ours, theirs in zip(found.total, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_the_solution_is_that_of_another_library():
    from sklearn.linear_model import LogisticRegression

    features, labels, *_ = problem(3, n=200)
    length = features.square().sum(1).mean().sqrt()
    inputs = torch.cat([features, length.expand(200, 1)], 1)
    one = torch.ones(1, 200, dtype=torch.float64)
    none = torch.zeros(1, 200, 3, dtype=torch.float64)
    ours = SoftmaxRegression(features, labels, 3).solve(none, one, torch.tensor([0.05], dtype=torch.float64))
    theirs = LogisticRegression(C=1 / (0.05 * 200), fit_intercept=False, tol=1e-10, max_iter=10_000)
    weight = torch.from_numpy(theirs.fit(inputs.numpy(), labels.numpy()).coef_)
    torch.testing.assert_close(
        torch.cat([ours.weight[0], ours.bias[0][:, None] / length], 1), weight, rtol=1e-4, atol=1e-5
    )


def test_runs_are_independent_and_a_basis_changes_nothing():
    features, labels, meta_features, meta_labels, u_z, omega = problem(3, runs=3)
    regression, outer = SoftmaxRegression(features, labels, 3), outer_of(meta_features, meta_labels)
    together, solution = implicit_hypergradient(regression, inner_of(u_z, omega), outer, omega)
    regression.adapt(solution, *(value.detach() for value in inner_of(u_z, omega)()[:2]))
    adapted, _ = implicit_hypergradient(regression, inner_of(u_z, omega), outer, omega)
    for run in range(3):
        own = [part.detach()[run : run + 1].requires_grad_() for part in omega]
        alone, _ = implicit_hypergradient(SoftmaxRegression(features, labels, 3), inner_of(u_z, own), outer, own)
        for a, b, c in zip(together.total, adapted.total, alone.total, strict=True):
            torch.testing.assert_close(a[run], c[0], rtol=1e-7, atol=1e-10)
            torch.testing.assert_close(b[run], c[0], rtol=1e-7, atol=1e-10)


def test_a_near_solution_is_a_start_and_needs_fewer_steps():
    features, labels, _, _, u_z, omega = problem(2, n=100)
    regression = SoftmaxRegression(features, labels, 2)
    values = [value.detach() for value in inner_of(u_z, omega)()]
    cold = regression.solve(*values)
    values[0] = values[0] * 1.01
    warm, anew = regression.solve(*values, start=cold), regression.solve(*values)
    assert warm.steps < anew.steps
    torch.testing.assert_close(warm.weight, anew.weight, rtol=1e-7, atol=1e-9)


def test_the_outer_loss_may_see_the_hyperparameters_itself():
    features, labels, meta_features, meta_labels, u_z, omega = problem()
    outer = outer_of(meta_features, meta_labels)
    found, _ = implicit_hypergradient(
        SoftmaxRegression(features, labels, 2),
        inner_of(u_z, omega),
        lambda weight, bias: outer(weight, bias) + 0.5 * omega[0].square().sum(),
        omega,
    )
    torch.testing.assert_close(found.direct[0], omega[0].detach())
    assert not found.direct[1].any()


@settings(max_examples=15, deadline=None)
@given(n=st.integers(4, 30), d=st.integers(1, 40), seed=st.integers(0, 10**6), log_ridge=st.floats(-9, 2))
def test_it_converges_also_with_more_features_than_samples(n, d, seed, log_ridge):
    features, labels, *_ = problem(2, n=n, d=d, seed=seed)
    one, none = torch.ones(1, n, dtype=torch.float64), torch.zeros(1, n, 2, dtype=torch.float64)
    ridge = torch.tensor([10.0**log_ridge], dtype=torch.float64)
    assert SoftmaxRegression(features, labels, 2).solve(none, one, ridge).converged.all()


def test_it_converges_where_the_loss_is_rounded_as_its_logits():
    """Thirteen separable samples: the loss is a thousandth, the logits are tens."""
    features, labels, *_ = problem(2, n=13, d=30)
    one, none = torch.ones(1, 13, dtype=torch.float64), torch.zeros(1, 13, 2, dtype=torch.float64)
    solution = SoftmaxRegression(features, labels, 2).solve(none, one, torch.tensor([10.0**-1.875]).double())
    assert solution.converged.all()
    assert solution.steps < 20


def test_a_head_that_does_not_converge_is_said(monkeypatch):
    monkeypatch.setattr("clp_hf.bilevel.implicit.NEWTON_STEPS", 1)
    features, labels, _, _, u_z, omega = problem()
    values = (value.detach() for value in inner_of(u_z, omega)())
    with pytest.warns(UserWarning, match="2 of 2 heads have not converged after 1 Newton steps"):
        solution = SoftmaxRegression(features, labels, 2).solve(*values)
    assert not solution.converged.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": torch.zeros(1)}, "ridge λ is .*expected above 0"),
        ({"weights": -torch.ones(1, 6)}, "weights go down to -1"),
        ({"offsets": torch.full((1, 6, 2), torch.nan)}, "must be finite"),
        ({"features": torch.tensor([[1.0], [torch.inf], [1], [1], [1], [1]])}, "1 of 6 features are not finite.*of 1"),
        ({"labels": torch.tensor([0, 1, 2, 0, 0, 0])}, "in 0 … 1, found 0 … 2"),
        ({"labels": torch.tensor([0, 1])}, "Expected features"),
    ],
)
def test_bad_input_is_named(change, message):
    values = {
        "features": torch.arange(6.0)[:, None], "labels": torch.arange(6) % 2, "offsets": torch.zeros(1, 6, 2),
        "weights": torch.ones(1, 6), "ridge": torch.ones(1),
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        SoftmaxRegression(values["features"], values["labels"], 2).solve(
            values["offsets"], values["weights"], values["ridge"]
        )
