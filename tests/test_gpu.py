"""What holds on a CPU holds on a GPU. Skipped where there is none."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import Squares, resnet, vit

sys.path.insert(0, str(Path(__file__).parent / "bilevel"))

from test_hypergradient import MODELS, problem_of, relative_difference

from clp_hf.hsfm.unrolled import unrolled
from clp_hf.visualization.perturbations import partial_dependence

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("name", MODELS)
def test_forward_engine_equals_double_backward(name):
    problem = problem_of(name, "cuda")
    exact, oracle = problem.hypergradient("forward"), problem.hypergradient("double_backward")
    assert relative_difference(exact.total, oracle.total) < 1e-10


class DoubleSquares(Squares):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"].double()}


def weights(trainer):
    parts = [trainer.model, trainer.perturbation_network, trainer.learner.statistics]
    parts += [part.probe for part in trainer.learner.evidence if hasattr(part, "probe")]
    return torch.cat([value.double().cpu().flatten() for part in parts for value in part.state_dict().values()])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"counterfactual_infills": [], "factual_infills": []},
        {"evidence": ["background"], "factual_mask_shape": "exact"},
        {"lookahead_scope": "head", "optim_args": "momentum=0.9"},
        {"recompute_training_forward": True, "gradient_accumulation_steps": 2},
        {"saliency_weight": 0.5, "saliency_batch_size": 4},
        {"meta_network": "weight"},
        {"lookahead": "converged", "evidence": ["background"], "counterfactual_infills": ["grey"]},
        {"train_infills": ["mix_rand", "fgsm", "shuffle"], "evidence": ["background"]},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
@pytest.mark.parametrize("model", [resnet, vit], ids=["resnet", "vit"])
def test_training_equals_that_on_a_cpu(make_trainer, model, settings):
    trained = []
    for use_cpu in (True, False):
        trainer = make_trainer(
            model().double(), train_dataset=DoubleSquares(60), eval_dataset=DoubleSquares(12), use_cpu=use_cpu,
            dataloader_pin_memory=False, optim="sgd", **settings,
        )  # fmt: skip
        trainer.train()
        assert next(trainer.model.parameters()).device.type == ("cpu" if use_cpu else "cuda")
        trained.append(weights(trainer))
    torch.testing.assert_close(*trained, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("model", [resnet, vit])
def test_both_networks_train_in_half_precision(make_trainer, model, precision):
    trainer = make_trainer(model(), use_cpu=False, max_steps=20, **{precision: True})
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert torch.isfinite(after).all()
    assert (after - before).norm() > 0
    assert trainer.learner.optimizer.state
    updated = [entry for entry in trainer.state.log_history if entry.get("meta_updates_skipped") == 0]
    assert len(updated) >= 10  # fp16 starts with overflows, which lower the scale


@pytest.mark.parametrize("evidence", [[], ["attribute", "bias"]], ids=str)
def test_resumed_equals_uninterrupted(make_trainer, tmp_path, evidence):
    settings = {
        "use_cpu": False, "save_strategy": "steps", "save_steps": 2, "full_determinism": True, "evidence": evidence,
        "evidence_every": 1,
    }  # fmt: skip
    whole = make_trainer(**settings)
    whole.train()
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=1e-5, atol=1e-7)
    assert (
        partial_dependence(resumed.perturbation_network).keys() == partial_dependence(whole.perturbation_network).keys()
    )


@pytest.mark.pictures
def test_a_run_ends_with_the_best_network_and_its_pictures(make_trainer, tmp_path):
    trainer = make_trainer(use_cpu=False, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True)
    trainer.train()
    trainer.create_model_card()
    assert (tmp_path / "run" / "README.md").is_file()
    assert (tmp_path / "run" / "figures" / "response.png").is_file()


def test_edits_of_features_are_those_of_a_cpu():
    torch.manual_seed(0)
    runs, n, m, classes, width, kw = 3, 8, 11, 4, 40, {"dtype": torch.float64}
    arguments = [
        torch.randn(runs, classes, width, **kw),
        torch.randn(runs, classes, **kw),
        torch.randn(runs, n, width, **kw).transpose(1, 2),
        F.one_hot(torch.randint(classes, (runs, n)), classes).mT.to(**kw),
        torch.randn(m, width, **kw),
        F.one_hot(torch.randint(classes, (m,)), classes).T.to(**kw),
        torch.full((runs, m), 1 / m, **kw),
        torch.rand(runs, **kw),
    ]
    expected = unrolled(*arguments, 5)
    found = unrolled(*(argument.cuda() for argument in arguments), 5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-12)
