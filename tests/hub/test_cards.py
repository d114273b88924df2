"""What a card claims of its weights is so, and names of any kind leave it whole."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import Squares, vit
from hub_server import metadata_errors
from huggingface_hub import ModelCard
from transformers import TrainerCallback, TrainingArguments

from clp_hf.hub import CardDetails, model_card, results_of_weights, selection_of
from clp_hf.metrics import GroupMetrics

LABELS = ["small", "middle", "large"]
GROUPS = [f"{label}_on_{ground}" for label in LABELS for ground in ("dark", "light")]


def squares_trainer(make_trainer, **settings):
    return make_trainer(**{"compute_metrics": GroupMetrics(LABELS, GROUPS), "max_steps": 2} | settings)


class Falling(GroupMetrics):
    """With a score that falls from evaluation to evaluation: the first one is the best."""

    calls = 0

    def __call__(self, prediction):
        self.calls += 1
        return super().__call__(prediction) | {"score": 1 / self.calls}


def card_of(trainer):
    trainer.save_model()
    trainer.create_model_card()
    card = ModelCard.load(Path(trainer.args.output_dir) / "README.md")
    results = card.data.eval_results or []
    return card, {result.metric_name: result.metric_value for result in results}


@pytest.mark.parametrize("save_steps", [1, 2])
def test_what_is_evaluated_and_not_saved_is_not_selected(make_trainer, save_steps):
    trainer = squares_trainer(
        make_trainer, max_steps=4, learning_rate=0.05, save_strategy="steps", save_steps=save_steps,
        eval_strategy="steps", eval_steps=1, load_best_model_at_end=True, metric_for_best_model="score",
        compute_metrics=Falling(LABELS, GROUPS),
    )  # fmt: skip
    trainer.train()
    shown = results_of_weights(trainer)["validation"]
    card, _ = card_of(trainer)
    assert f"that of step {save_steps} of 4" in card.text
    assert shown["nll"] == pytest.approx(trainer.evaluate()["eval_nll"])


def test_a_checkpoint_that_is_gone_is_not_claimed(make_trainer):
    class Remover(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            shutil.rmtree(Path(args.output_dir) / "checkpoint-1", ignore_errors=True)

    trainer = squares_trainer(
        make_trainer, max_steps=3, learning_rate=0.05, save_strategy="steps", save_steps=1, meta_every=0,
        eval_strategy="steps", eval_steps=1, load_best_model_at_end=True, metric_for_best_model="score",
        compute_metrics=Falling(LABELS, GROUPS),
    )  # fmt: skip
    trainer.add_callback(Remover())
    trainer.train()
    card, _ = card_of(trainer)
    assert "It was not: these are the weights of step 3 of 3" in card.text
    assert results_of_weights(trainer)["validation"]["nll"] == pytest.approx(trainer.evaluate()["eval_nll"])


def test_weights_that_were_changed_have_no_results(make_trainer):
    trainer = squares_trainer(make_trainer, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert card_of(trainer)[1]
    with torch.no_grad():
        next(trainer.model.parameters()).add_(1)
    card, scores = card_of(trainer)
    assert not scores
    assert "not the weights of any step" in card.text
    assert "These weights have not been evaluated." in card.text
    trainer.evaluate()
    assert card_of(trainer)[1]


def test_a_resumed_run_knows_which_weights_its_evaluations_were_of(make_trainer):
    settings = {"max_steps": 4, "learning_rate": 0.05, "save_strategy": "steps", "save_steps": 2, "eval_steps": 2,
                "eval_strategy": "steps", "load_best_model_at_end": True, "metric_for_best_model": "score"}  # fmt: skip
    for checkpoint in (None, "checkpoint-2"):
        trainer = squares_trainer(make_trainer, compute_metrics=Falling(LABELS, GROUPS), **settings)
        trainer.compute_metrics.calls = 0 if checkpoint is None else 1
        trainer.train(resume_from_checkpoint=checkpoint and str(Path(trainer.args.output_dir) / checkpoint))
        assert selection_of(trainer)["step"] == 2
        assert results_of_weights(trainer)["validation"]["nll"] == pytest.approx(trainer.evaluate()["eval_nll"])


def test_of_several_evaluation_sets_the_one_that_selected_is_published(make_trainer):
    trainer = squares_trainer(
        make_trainer, eval_dataset={"near": Squares(24, start=1000), "near_far": Squares(12, start=3000)},
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
        metric_for_best_model="eval_near_worst_group_accuracy",
    )  # fmt: skip
    trainer.train()
    card, _ = card_of(trainer)
    assert {result.dataset_split for result in card.data.eval_results} == {"near"}
    assert re.search(r"\| accuracy, % +\| +near \| near_far \|", card.text)
    assert "The images called near chose the checkpoint" in card.text


def test_a_run_of_no_step_says_that_nothing_was_trained(make_trainer):
    trainer = squares_trainer(make_trainer)
    trainer.evaluate()
    card, scores = card_of(trainer)
    assert "**Nothing was trained**" in card.text
    assert "not trained with clp_hf" in card.text
    assert scores  # of the weights that it began with, and so they are


@pytest.mark.parametrize(("metric", "greater"), [("nll", False), ("eval_ece", False), ("accuracy", True)])
def test_metrics_know_their_direction_unless_they_are_told(make_trainer, metric, greater):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": metric}
    assert squares_trainer(make_trainer, **settings).args.greater_is_better is greater
    told = squares_trainer(make_trainer, greater_is_better=not greater, **settings)
    assert told.args.greater_is_better is not greater


def test_a_metric_that_no_evaluation_gives_is_refused(make_trainer):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "worst_group"}
    with pytest.raises(ValueError, match=r"'worst_group', which no evaluation gives; choose one of loss, accuracy, "):
        squares_trainer(make_trainer, **settings)
    sets = {"a": Squares(12), "b": Squares(12)}
    with pytest.raises(ValueError, match="choose one of a_loss, "):
        squares_trainer(make_trainer, **settings | {"metric_for_best_model": "loss"}, eval_dataset=sets)
    trainer = squares_trainer(make_trainer, **settings | {"metric_for_best_model": "nll"})
    trainer.compute_metrics = lambda prediction: {"score": 1.0}
    with pytest.raises(ValueError, match="choose one of loss, score"):
        trainer.train()


@pytest.mark.parametrize(
    "name", ["a|b", "<b>bold</b>", "<script src=x>", "a\nb", "`code`", "{{ 7*7 }}", "[x](http://y)", "average",
             "worst group", "accuracy", "runtime", "test_accuracy", "no", "- x", "x" * 1_000_000, "---\nlicense: mit"],
)  # fmt: skip
def test_names_of_any_kind_are_shown_as_they_are(name):
    """A card with two classes, one of them called so."""
    metrics = {"accuracy": 0.75, "accuracy_class_cat": 1.0, f"accuracy_class_{name}": 0.5}
    log = [{"train_runtime": 1.0, "step": 4}, {f"test_{key}": value for key, value in metrics.items()}]
    log[1] |= {"test_runtime": 1.0, "step": 4}
    model = vit(2, id2label={0: "cat", 1: name}, label2id={"cat": 0, name: 1})
    state = SimpleNamespace(log_history=log, global_step=4, max_steps=4, best_global_step=None)
    args = TrainingArguments(report_to=[], use_cpu=True, output_dir="run")
    trainer = SimpleNamespace(
        state=state,
        args=args,
        model=model,
        hub_model_id="a/b",
        accelerator=None,
        optimizer=None,
        is_deepspeed_enabled=0,
    )
    timing = SimpleNamespace(runtime=None)
    facts = {"training_loss": "cross_entropy", "train_sampling": "random", "loss_options": None}
    card = model_card(trainer, "plain-trainer", CardDetails(dataset_name=name), timing, {}, **facts)
    assert results_of_weights(trainer)["test"] == metrics | {"runtime": 1.0}
    assert not metadata_errors(card.content)
    data = yaml.safe_load(card.content.split("\n---\n")[0].removeprefix("---"))
    assert data["license"] == "unknown"
    assert len(data["model-index"][0]["results"][0]["metrics"]) == 3
    assert not re.search(r"<[a-z/]", card.text)
    table = [line for line in card.text.splitlines() if line.startswith("| ")][:5]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}
    assert [line.split()[-2] for line in table[2:]] == ["100.0", "50.0", "75.0"]
    assert "49" not in card.text
    assert len(card.content) < 20_000
