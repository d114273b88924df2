"""HSFMTrainer: it changes the head alone, and saves an ordinary checkpoint."""

import copy

import pytest
import torch
from conftest import SIZE, Squares, vit
from huggingface_hub import ModelCard
from transformers import AutoModelForImageClassification, ViTImageProcessor

from clp_hf.hsfm import HSFMArguments, HSFMTrainer
from clp_hf.metrics import GroupMetrics

SETTINGS = {
    "support_size": 4,
    "inner_steps": 3,
    "inner_rate": 0.05,
    "edit_rate": 0.3,
    "edits_per_epoch": 3,
    "hard_size": 4,
    "epochs": 5,
}


@pytest.fixture
def make_hsfm(tmp_path):
    def make(model=None, train=None, validation=None, **kwargs):
        args = HSFMArguments(str(tmp_path / "run"), use_cpu=True, report_to=[], **({"disable_tqdm": True} | kwargs))
        return HSFMTrainer(
            vit() if model is None else model,
            args,
            train_dataset=Squares(60) if train is None else train,
            eval_dataset=Squares(36, start=500) if validation is None else validation,
            processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
            compute_metrics=GroupMetrics(list("abc"), [f"{label}_{place}" for label in "abc" for place in "dl"]),
        )

    return make


def test_the_head_alone_changes_and_the_checkpoint_is_ordinary(make_hsfm, tmp_path):
    trainer = make_hsfm(**SETTINGS, folds=1, trials=3)
    before = copy.deepcopy(trainer.model.state_dict())
    first = trainer.evaluate()["eval_worst_group_accuracy"]
    trainer.train()
    after = trainer.model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert len(trainer.results) == 3
    metrics = trainer.evaluate()
    assert metrics["eval_worst_group_accuracy"] == pytest.approx(trainer.result.score)
    assert metrics["eval_worst_group_accuracy"] >= first
    trainer.save_model()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(loaded.state_dict(), trainer.model.state_dict(), rtol=0, atol=0)

    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert {"clp_hf", "hsfm"} <= set(card.data.tags)
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["Worst-group accuracy"] == pytest.approx(metrics["eval_worst_group_accuracy"], abs=1e-4)
    assert f"support set of {len(trainer.result.support_indices)} training features" in card.text
    assert f"Of 3 settings and their epochs by validation ({trainer.result.rule})" in card.text
    assert "learning_rate" not in card.text


def test_a_preset_of_two_classes_is_refused_for_three(make_hsfm):
    with pytest.raises(ValueError, match=r"'waterbirds' was published for 2 classes, the model has 3.*support_size"):
        make_hsfm()


def test_settings_given_replace_those_of_the_preset(tmp_path):
    settings = HSFMArguments(str(tmp_path), preset="metashift", edit_rate=0.5, use_cpu=True).settings
    assert (settings.support_size, settings.edit_rate) == (32, 0.5)


@pytest.mark.parametrize(
    ("change", "message"), [({"preset": "birds"}, "waterbirds, celeba"), ({"trials": 0}, "trials")]
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        HSFMArguments(str(tmp_path), use_cpu=True, **change)


def test_validation_is_needed(make_hsfm):
    with pytest.raises(ValueError, match="validation set has one class only"):
        make_hsfm(validation=Squares(5, num_labels=1), **SETTINGS)
