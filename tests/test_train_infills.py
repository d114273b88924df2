"""`train_infills` with every method: what is trained on, resumed, logged and refused."""

import logging

import numpy as np
import pytest
import torch
from conftest import Squares, resnet, vit
from datasets import Dataset
from PIL import Image
from torch.utils.data import IterableDataset, Subset

from clp_hf import CLPTrainer
from clp_hf.algorithm import _donors
from clp_hf.causal import Masks
from clp_hf.data import ImageClassificationDataset, TrainTransform
from clp_hf.experiment import METHODS

SWAP = {"train_infills": ["mix_rand"]}
ERM = {"meta_every": 0}
CLP = {"evidence": ["background"], "factual_infills": ["mix_rand", "shuffle"], "meta_dataset": Squares(12, start=500)}
CHECKPOINTS = {"save_strategy": "steps", "save_steps": 2}


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained(trainer):
    trainer.train()
    return trainer


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def seen_by(trainer):
    """The images of every pass of the model in training mode, as they come."""
    seen = []

    def see(model, args, inputs):
        if model.training:
            seen.append(inputs["pixel_values"].detach().clone())

    trainer.model.register_forward_pre_hook(see, with_kwargs=True)
    return seen


class Noisy(Squares):
    """Augmented at random: a resumed run must see the same noise."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"] + 0.1 * torch.randn(()) + 0.1 * np.random.randn()}


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


# ---- what is trained on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_changed_images(make_trainer, name):
    settings = METHODS[name] | SWAP | {"train_infill_share": 1.0}
    trainer = make_trainer(resnet(), max_steps=2, **settings)
    before = parameters(trainer.model)
    trainer.train()
    assert min(logged(trainer, "swapped_share")) > 0.9
    assert not torch.equal(parameters(trainer.model), before)
    assert torch.isfinite(parameters(trainer.model)).all()


@pytest.mark.parametrize("settings", [ERM, {**ERM, "training_loss": "focal"}, CLP], ids=["erm", "focal", "clp"])
def test_the_model_sees_other_backgrounds_and_the_same_objects(make_trainer, settings):
    runs = []
    for changes in ({}, SWAP):
        trainer = make_trainer(max_steps=1, per_device_train_batch_size=16, **settings, **changes)
        runs.append((seen_by(trainer), trained(trainer)))
    (plain, _), (changed, trainer) = ((seen[0], trainer) for seen, trainer in runs)
    objects = plain > 0.2  # brighter than any ground
    assert torch.equal(plain[objects], changed[objects])
    rows = (plain != changed).flatten(1).any(1)
    assert logged(trainer, "swapped_share") == [pytest.approx(rows.float().mean().item())]
    assert 0 < rows.sum() < 16


def test_evaluation_is_of_the_images_as_they_are(make_trainer):
    trainer = make_trainer(**ERM, **SWAP)
    plain = make_trainer(**ERM)
    state = trainer.training_images.generator.get_state()
    assert trainer.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    assert np.array_equal(trainer.predict(Squares(12)).predictions, plain.predict(Squares(12)).predictions)
    assert torch.equal(trainer.training_images.generator.get_state(), state)


def test_without_infills_nothing_is_changed_or_saved(make_trainer, tmp_path):
    trainer = trained(make_trainer(train_infill_share=0.9, **ERM, **CHECKPOINTS))
    assert trainer.training_images is None
    assert torch.equal(parameters(trainer.model), parameters(trained(make_trainer(**ERM)).model))
    assert not logged(trainer, "swapped_share")
    assert not list(tmp_path.rglob("training_images.pt"))


@pytest.mark.parametrize("precision", [{}, {"bf16": True}], ids=["float32", "bf16"])
@pytest.mark.parametrize("settings", [ERM, CLP], ids=["erm", "clp"])
def test_all_infills_train_with_accumulation_and_in_half_precision(make_trainer, settings, precision):
    infills = ["mix_rand", "random", "shuffle", "fgsm"]
    model = vit(hidden_dropout_prob=0.1)
    trainer = make_trainer(
        model, train_infills=infills, gradient_accumulation_steps=2, max_steps=2, **settings, **precision
    )
    trainer.train()
    assert torch.isfinite(parameters(trainer.model)).all()
    assert 0 < min(logged(trainer, "swapped_share")) <= max(logged(trainer, "swapped_share")) < 1


def test_fgsm_leaves_dropout_and_batch_norm_statistics_alone(make_trainer):
    trainer = make_trainer(resnet(), max_steps=3, train_infills=["fgsm"], **ERM)
    trainer.train()
    counts = [b.item() for name, b in trainer.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [3] * len(counts)


def test_meta_images_borrow_no_background_that_a_training_image_has_borrowed():
    batch = {"pixel_values": torch.arange(4.0).view(4, 1, 1, 1), "labels": torch.arange(4), "group": torch.arange(4)}
    assert _donors(batch) is None
    batch["mask"] = Masks(torch.ones(4, 1, 1, 1))
    assert _donors(batch) is batch
    donors = _donors(batch | {"swapped": torch.tensor([True, False, True, False])})
    assert donors["labels"].tolist() == donors["pixel_values"].flatten().tolist() == [1, 3]
    assert donors["mask"].shape == (2, 1, 1, 1)
    assert _donors(batch | {"swapped": torch.ones(4, dtype=torch.bool)}) is None


# ---- seeded, and resumed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [ERM, {**ERM, "training_loss": "focal"}, CLP], ids=["erm", "focal", "clp"])
def test_a_resumed_run_is_the_uninterrupted_one(make_trainer, tmp_path, settings):
    settings = {**settings, **SWAP, **CHECKPOINTS, "gradient_accumulation_steps": 2, "train_dataset": Noisy(60)}
    whole = trained(make_trainer(vit(hidden_dropout_prob=0.1), **settings))
    resumed = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    assert logged(resumed, "swapped_share") == logged(whole, "swapped_share")
    assert len(set(logged(whole, "swapped_share"))) > 1


def test_a_stream_is_changed_and_resumed(make_trainer, tmp_path):
    items = [Squares(60)[index] for index in range(60)]
    settings = {"train_dataset": Stream(items), **ERM, **SWAP, **CHECKPOINTS}
    whole = trained(make_trainer(**settings))
    assert min(logged(whole, "swapped_share")) > 0
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(resumed.model), parameters(whole.model))


def test_a_run_is_a_function_of_its_seed(make_trainer):
    def run(**settings):
        return parameters(trained(make_trainer(**settings, **ERM, **SWAP)).model)

    assert torch.equal(run(), run())
    assert torch.equal(run(), run(dataloader_num_workers=2))
    assert not torch.equal(run(data_seed=42), run(seed=1, data_seed=42))


def test_a_checkpoint_of_other_images_is_refused(make_trainer, tmp_path):
    checkpoint = str(tmp_path / "run" / "checkpoint-2")
    make_trainer(max_steps=2, **ERM, **CHECKPOINTS).train()
    with pytest.raises(ValueError, match=r"no training_images\.pt: it was not written with train_infills"):
        make_trainer(**ERM, **SWAP).train(resume_from_checkpoint=checkpoint)
    make_trainer(max_steps=2, **ERM, **SWAP, **CHECKPOINTS).train()
    with pytest.raises(ValueError, match=r"train_infills was \['mix_rand'\], is \[\]"):
        make_trainer(**ERM).train(resume_from_checkpoint=checkpoint)


def test_a_step_left_out_is_not_counted(make_trainer):
    """Its pixels are not finite; of the others all images are changed, and no share of it is left in the log."""

    class Bad(Squares):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return item | {"pixel_values": item["pixel_values"] * (torch.nan if index == 45 else 1)}

    settings = {"max_steps": 8, "on_nonfinite": "skip", "logging_steps": 8, **SWAP, "train_infill_share": 1.0}
    trainer = trained(make_trainer(train_dataset=Bad(64), **ERM, **settings))
    assert logged(trainer, "steps_skipped") == [1]
    assert logged(trainer, "swapped_share") == [1.0]
    assert torch.isfinite(parameters(trainer.model)).all()


# ---- masks that are missing, and bad input ---------------------------------------------------------------------------


def birds(masks, labels=None):
    """As of `clp_hf.data.load_classification_dataset`; a mask is a picture, or None."""
    images = [Image.effect_noise((24, 24), 50).convert("RGB") for _ in masks]
    split = Dataset.from_dict({"image": images, "mask": masks, "label": labels or [i % 3 for i in range(len(masks))]})
    return ImageClassificationDataset(split, TrainTransform((16, 16), [0.5] * 3, [0.5] * 3), name="train")


def spot():
    mask = Image.new("L", (24, 24))
    mask.paste(255, (8, 8, 16, 16))
    return mask


def test_images_whose_mask_is_missing_are_counted_and_stay(make_trainer, caplog, monkeypatch):
    data = birds([None if index % 4 == 0 else spot() for index in range(24)])
    assert data[0]["mask"].sum() == 0
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    trainer = make_trainer(train_dataset=data, max_steps=3, **ERM, **SWAP, train_infill_share=1.0, logging_steps=3)
    told = [record.message for record in caplog.records if "train_infills leaves" in record.message]
    assert len(told) == 1
    assert "6 of 24 masks allow no causal augmentation: 6 are empty" in told[0]
    trainer.train()
    assert logged(trainer, "swapped_share") == [pytest.approx(0.75, abs=0.05)]  # a crop may miss the object


class Without(Squares):
    """Squares some of whose items lack a mask."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if index % 2:
            del item["mask"]
        return item


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_infills": ["mixrand"]}, r"Unknown training infill 'mixrand'; valid are .*Did you mean 'mix_rand'\?"),
        ({"train_infills": ["tile"]}, "Unknown training infill 'tile'; valid are 'random', 'shuffle', 'mix_rand'"),
        ({"train_infills": "mix_rand"}, r"expected a list of names: \['mix_rand'\]"),
        ({"train_infill_share": 0.0}, "train_infill_share is 0.0; expected more than 0 and at most 1"),
        ({"train_infill_share": 1.1}, "train_infill_share is 1.1"),
        ({"train_infill_share": float("nan")}, "train_infill_share is nan"),
        ({"train_dataset": Squares(60, columns=())}, r"they have no `mask`. Make masks \(clp-hf masks\).*--box_column"),
        ({"train_dataset": Stream([Squares(9, columns=())[i] for i in range(9)])}, "they have no `mask`"),
        ({"train_dataset": Without(60)}, "some have none: give these an empty one"),
        ({"train_dataset": birds([None] * 12)}, "12 of 12 masks allow no.*needs masks with foreground and background"),
        ({"train_dataset": Subset(birds([None] * 9 + [spot()] * 3), range(9))}, "9 of 9 masks allow no"),
        ({"train_dataset": birds([spot()] * 12, labels=[1] * 12)}, "no image of class 0|one class only"),
        ({"train_dataset": Squares(12, num_labels=1), "model": resnet(1)}, "one class only"),
    ],
)
def test_what_could_not_work_is_refused_before_training(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**({} if "meta_dataset" in settings else ERM) | SWAP | settings)


def test_the_trainer_evaluates_without_training_set(make_trainer):
    trainer = make_trainer(**ERM, **SWAP)
    alone = CLPTrainer(vit(), trainer.args, eval_dataset=Squares(24), processing_class=trainer.processing_class)
    assert "eval_loss" in alone.evaluate()


def test_the_card_tells_it(make_trainer):
    def text(**settings):
        trainer = make_trainer(**settings)
        trainer.create_model_card()
        with open(f"{trainer.args.output_dir}/README.md") as file:
            return file.read()

    sentence = "Of the training images with a usable mask, 50 % at a time stood before another background"
    weight = {"meta_network": "weight", "counterfactual_infills": [], "factual_infills": []}
    for settings in (ERM, CLP, weight):
        assert f"{sentence}, made by: mix_rand." in text(**settings, **SWAP)
        assert sentence not in text(**settings)
    assert "against what the background says" in text(**ERM, **SWAP)
