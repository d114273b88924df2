"""Methods on frozen features as trainers: the head found is the model's, and its card says how it came about."""

import re

import pytest
import torch
from conftest import SIZE, Squares, vit
from huggingface_hub import ModelCard
from torch.utils.data import Subset
from transformers import AutoModelForImageClassification, TrainingArguments, ViTImageProcessor

from clp_hf.base.trainer import BaseTrainer
from clp_hf.baselines import (
    AFRTrainer,
    DFRTrainer,
    GroupDROTrainer,
    GSRTrainer,
    JTTTrainer,
    KnownGroupsArguments,
    RegressionArguments,
    RegressionTrainer,
)
from clp_hf.features import Head, HeadArguments
from clp_hf.hub.record import RunRecord
from clp_hf.metrics import GroupMetrics

TRAIN, VALIDATION = Squares(60), Squares(36, start=500)


@pytest.fixture
def make(tmp_path):
    def make(trainer, arguments, validation=VALIDATION, train=TRAIN, settings=None, **kwargs):
        args = arguments(str(tmp_path / "run"), use_cpu=True, report_to=[], disable_tqdm=True, **settings or {})
        processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE})
        return trainer(vit(), args, train_dataset=train, eval_dataset=validation, processing_class=processor, **kwargs)

    return make


@pytest.mark.parametrize(
    ("trainer", "arguments", "settings", "told"),
    [
        (DFRTrainer, KnownGroupsArguments, {}, r"drawn out of the validation set \(36 images\)"),
        (
            DFRTrainer,
            KnownGroupsArguments,
            {"on": "meta", "meta_samples": 4},
            r"drawn out of the meta set \(24 images\)",
        ),
        (
            GSRTrainer,
            KnownGroupsArguments,
            {"on": "meta", "meta_samples": 4},
            r"worst groups of the meta set \(24 images\)",
        ),
        (AFRTrainer, HeadArguments, {}, "every training image\nweighted"),
        (JTTTrainer, HeadArguments, {}, "in the manner of Just Train Twice"),
        (RegressionTrainer, RegressionArguments, {}, "classes weighted alike"),
        (RegressionTrainer, RegressionArguments, {"balance": "group"}, "groups weighted alike"),
        (GroupDROTrainer, HeadArguments, {}, "for the worst group of the training images"),
    ],
)
def test_the_head_of_the_method_is_saved_and_told_of(make, tmp_path, trainer, arguments, settings, told):
    trainer = make(trainer, arguments, settings=settings)
    trainer.train()
    trainer.evaluate()
    trainer.save_or_push()
    state = AutoModelForImageClassification.from_pretrained(tmp_path / "run").state_dict()
    torch.testing.assert_close(state["classifier.weight"], trainer.result.weight)
    torch.testing.assert_close(state["classifier.bias"], trainer.result.bias)
    original = vit().state_dict()
    assert all(torch.equal(state[name], original[name]) for name in state if not name.startswith("classifier"))
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert trainer.CARD in card.data.tags
    assert re.search(told, card.text)
    assert "not trained" not in card.text
    assert RunRecord.load(tmp_path / "run").facts["rule"] == trainer.result.rule


@pytest.mark.parametrize("columns", [("group",), ()])
def test_evaluated_is_what_is_saved_and_the_backbone_sees_every_image_once(make, tmp_path, columns):
    """Before, after, on validation and test; then by the plain Trainer, image by image through the whole network."""
    train, validation, test = (Squares(n, columns=columns, start=start) for n, start in ((60, 0), (36, 500), (21, 900)))
    settings = {"per_device_eval_batch_size": 8}
    trainer = make(RegressionTrainer, RegressionArguments, validation, train, settings)
    trainer.compute_metrics = GroupMetrics(["0", "1", "2"], list("abcdef") if columns else None)
    images = []
    trainer.model.vit.register_forward_pre_hook(lambda module, given: images.append(len(given[0])))
    before = trainer.evaluate(test, metric_key_prefix="test")
    trainer.train()
    after = {**trainer.evaluate(), **trainer.evaluate(test, metric_key_prefix="test")}
    # one or two are looked at to find the head
    assert sum(count for count in images if count > 2) == len(train) + len(validation) + len(test)
    assert before["test_accuracy"] != after["test_accuracy"]
    predicted = trainer.predict(test).predictions
    trainer.save_or_push()

    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    args = TrainingArguments(str(tmp_path / "plain"), use_cpu=True, report_to=[], label_names=["labels", *columns])
    args.remove_unused_columns = False
    plain = BaseTrainer(saved, args, compute_metrics=trainer.compute_metrics)
    expected = {**plain.evaluate(validation), **plain.evaluate(test, metric_key_prefix="test")}
    timed = re.compile("runtime|per_second|preparation")
    assert {name for name in expected if not timed.search(name)} <= after.keys()
    for name, value in expected.items():
        if not timed.search(name):
            assert after[name] == pytest.approx(value, abs=1e-5), name
    torch.testing.assert_close(torch.tensor(predicted), torch.tensor(plain.predict(test).predictions))


def test_on_the_meta_set_it_has_seen_no_validation_image(make):
    heads = []
    for validation in (VALIDATION, Squares(36, start=5000)):
        trainer = make(
            DFRTrainer, KnownGroupsArguments, validation, settings={"on": "meta"}, meta_dataset=Squares(24, start=9)
        )
        trainer.train()
        heads.append(trainer.result.weight)
    assert torch.equal(*heads)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": Squares(36, columns=(), start=500)}, "group of every validation sample; they have none"),
        ({"validation": None}, "DFR needs a validation set"),
        ({"validation": Subset(VALIDATION, [0, 1, 2, 6, 7, 8, 3])}, r"of the validation set; groups \[1\] have a"),
        ({"settings": {"on": "meta"}, "meta_dataset": Squares(24, num_labels=2, start=9)},
         r"DFR is fitted on the meta set, which has no sample of the classes \[2\]"),
        ({"train": Subset(VALIDATION, range(9))}, "of which 9 images are training images too, the first is image 0"),
        ({"settings": {"on": "test"}}, "on is 'test'; choose one of validation, meta"),
    ],
)  # fmt: skip
def test_what_dfr_cannot_be_fitted_on(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(DFRTrainer, KnownGroupsArguments, **settings)


def test_afr_needs_validation(make):
    with pytest.raises(ValueError, match="AFR needs a validation set, and there is none"):
        make(AFRTrainer, HeadArguments, None)


@pytest.mark.parametrize(
    ("trainer", "arguments", "settings"),
    [(RegressionTrainer, RegressionArguments, {"balance": "group"}), (GroupDROTrainer, HeadArguments, {})],
)
def test_groups_of_the_training_images_are_asked_for_before_features(make, trainer, arguments, settings):
    with pytest.raises(ValueError, match="needs the group of every training image, and they have none"):
        make(trainer, arguments, settings=settings, train=Squares(60, columns=()))


def test_what_may_be_balanced(make):
    with pytest.raises(ValueError, match="balance is 'label'; choose one of class, group"):
        make(RegressionTrainer, RegressionArguments, settings={"balance": "label"})


def test_there_are_no_checkpoints_to_resume_from(make):
    with pytest.raises(ValueError, match="resume_from_checkpoint is 'run/checkpoint-1', and a head is learned in one"):
        make(JTTTrainer, HeadArguments).train(resume_from_checkpoint="run/checkpoint-1")


@pytest.mark.parametrize("validation", [VALIDATION, None], ids=["worse", "nobody knows"])
def test_a_head_that_is_worse_than_that_of_before_is_told_of(make, monkeypatch, validation):
    told = []
    monkeypatch.setattr("clp_hf.features.trainer.logger.warning", told.append)
    trainer = make(RegressionTrainer, RegressionArguments)
    trainer.train()
    assert not told  # the first head was drawn at random
    monkeypatch.setattr(trainer, "_learn", lambda head: Head(-head.weight, -head.bias))
    trainer.eval_dataset = validation
    trainer.train()
    assert len(told) == (validation is not None)
    assert all(re.search("the worst group [0-9.]+%, now 0.0%; .* keep the\n?.*classifier", text) for text in told)
