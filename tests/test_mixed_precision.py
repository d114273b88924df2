"""bf16 autocast, and the loss scaling of fp16, whose logic is tried in float32 with overflows made by hand."""

import pytest
import torch
from conftest import resnet, vit

from clp_hf import algorithm


def vector(module):
    return torch.cat([tensor.detach().double().flatten() for tensor in module.state_dict().values()])


def with_scaler(trainer, scale=2.0**12):
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    return trainer


@pytest.mark.parametrize("model", [vit, resnet])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lookahead_scope": "head"},
        {"hypergradient": "finite_difference", "gradient_accumulation_steps": 2},
        {"evidence": ["background"], "recompute_training_forward": True},
        {"evidence": ["background"], "lookahead": "converged"},
    ],
)
def test_both_networks_train_in_bf16_and_evaluate_before(make_trainer, model, settings):
    trainer = make_trainer(model(), bf16=True, **settings)
    before, network = vector(trainer.model), vector(trainer.perturbation_network)
    trainer.evaluate()
    trainer.train()
    for module, old in ((trainer.model, before), (trainer.perturbation_network, network)):
        assert torch.isfinite(vector(module)).all()
        assert (vector(module) - old).norm() > 0
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(entry.get("meta_updates_skipped", 0) == 0 for entry in trainer.state.log_history)


@pytest.mark.parametrize("hypergradient", ["forward", "finite_difference", "double_backward"])
def test_a_scaled_loss_trains_the_same(make_trainer, hypergradient):
    settings = {"hypergradient": hypergradient, "perturb_meta_logits": True, "max_grad_norm": 0.0}
    plain, scaled = make_trainer(**settings), with_scaler(make_trainer(**settings))
    plain.train()
    scaled.train()
    for name in ("model", "perturbation_network"):
        torch.testing.assert_close(vector(getattr(scaled, name)), vector(getattr(plain, name)), rtol=1e-4, atol=1e-6)


def states(trainer):
    """Weights of both networks and what Ω's optimizer knows, after every step."""
    kept = []
    on_step_end = trainer.callback_handler.on_step_end

    def keep(*args, **kwargs):
        moments = [state["exp_avg"] for state in trainer.learner.optimizer.state.values()]
        kept.append(
            (
                vector(trainer.model),
                vector(trainer.perturbation_network.output),
                torch.cat([m.flatten() for m in moments]),
            )
        )
        return on_step_end(*args, **kwargs)

    trainer.callback_handler.on_step_end = keep
    trainer.train()
    return kept


def assert_step_was_skipped(trainer, kept, step):
    for before, after in zip(kept[step - 1], kept[step], strict=True):
        assert torch.equal(before, after)
    for before, after in zip(kept[step], kept[step + 1], strict=True):
        assert not torch.equal(before, after)
    assert trainer.accelerator.scaler.get_scale() == 2.0**11


def test_an_overflow_of_the_classifier_skips_both_updates(make_trainer):
    trainer = with_scaler(make_trainer(max_grad_norm=0.0))
    backward = trainer.accelerator.backward
    trainer.accelerator.backward = lambda loss, **kwargs: backward(
        loss * (torch.inf if trainer.state.global_step == 2 else 1), **kwargs
    )
    assert_step_was_skipped(trainer, states(trainer), 2)


def test_an_overflow_of_the_hypergradient_skips_both_updates(make_trainer, monkeypatch):
    trainer = with_scaler(make_trainer(max_grad_norm=0.0))
    exact = algorithm.hypergradient

    def overflowing(*args, **kwargs):
        result = exact(*args, **kwargs)
        if trainer.state.global_step == 2:
            result.total[0].fill_(torch.inf)
        return result

    monkeypatch.setattr(algorithm, "hypergradient", overflowing)
    assert_step_was_skipped(trainer, states(trainer), 2)


def test_without_scaling_a_bad_meta_loss_skips_omega_alone(make_trainer, monkeypatch):
    trainer = make_trainer()
    exact = algorithm.hypergradient

    def bad(*args, **kwargs):
        result = exact(*args, **kwargs)
        if trainer.state.global_step == 2:
            result.total[0].fill_(torch.nan)
        return result

    monkeypatch.setattr(algorithm, "hypergradient", bad)
    kept = states(trainer)
    assert not torch.equal(kept[1][0], kept[2][0])
    assert torch.equal(kept[1][1], kept[2][1])
