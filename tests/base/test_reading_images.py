"""Trainers take a `datasets.Dataset` of images as it is, wherever they take a data set."""

import numpy as np
import pytest
import torch
from conftest import resnet
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import Subset
from transformers import BitImageProcessor

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.baselines import DFRTrainer, KnownGroupsArguments
from clp_hf.clp_head import CLPHeadArguments, CLPHeadTrainer
from clp_hf.data import Columns, ImageClassificationDataset, TrainTransform, flip_noise
from clp_hf.data.embedded import embedded_birds
from clp_hf.hsfm import HSFMArguments, HSFMTrainer
from clp_hf.metrics import GroupMetrics
from clp_hf.modeling import load_image_classifier

QUIET = {"use_cpu": True, "report_to": [], "disable_tqdm": True}
CROPS = BitImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})


@pytest.fixture(scope="module")
def birds():
    return embedded_birds(48, 40, 24, image_size=32)


@pytest.fixture
def make(tmp_path, birds):
    def make(model=None, trainer=CLPTrainer, processing_class=CROPS, train=birds["train"], settings=None, **kwargs):
        arguments = {
            CLPTrainer: CLPTrainingArguments, HSFMTrainer: HSFMArguments, DFRTrainer: KnownGroupsArguments,
            CLPHeadTrainer: CLPHeadArguments,
        }[trainer]  # fmt: skip
        args = arguments(str(tmp_path / "run"), **QUIET, **settings or {})
        model = resnet(2) if model is None else model
        return trainer(model, args, train_dataset=train, processing_class=processing_class, **kwargs)

    return make


def elongated(length=24, **columns):
    """Images that a processor crops, of two classes."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (24, 60, 3), dtype=np.uint8)) for _ in range(length)]
    features = {"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])}
    data = Dataset.from_dict(
        {"image": images, "label": [index % 2 for index in range(length)]}, features=Features(features)
    )
    for name, values in columns.items():
        data = data.add_column(name, values)
    return data


def test_evaluation_is_to_the_pixel_what_the_processor_does(make):
    trainer = make(train=elongated(), settings={"meta_every": 0}, eval_dataset=elongated(8))
    images = elongated(8)
    for source in (trainer.eval_dataset, trainer.get_test_dataloader(images).dataset):
        for item, row in zip(source, images, strict=True):
            expected = CROPS(row["image"], return_tensors="pt")["pixel_values"][0]
            torch.testing.assert_close(item["pixel_values"], expected, atol=1e-4, rtol=0)


def test_training_and_meta_images_are_augmented_as_by_the_recipes(make, birds):
    trainer = make(meta_dataset=birds["validation"], settings={"counterfactual_infills": [], "factual_infills": []})
    for dataset in (trainer.train_dataset, trainer._data.meta):
        assert type(dataset.transform) is TrainTransform
        assert (dataset.transform.size, dataset.transform.scale) == ((16, 16), (0.7, 1.0))
        assert {"pixel_values", "labels", "mask", "group"} == set(dataset[0])


def test_a_run_on_data_sets_as_they_are(make, birds, tmp_path):
    settings = {
        "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True,
        "metric_for_best_model": "worst_group_accuracy",
    }  # fmt: skip
    trainer = make(settings=settings, meta_dataset=birds["test"], eval_dataset=birds["validation"])
    trainer.train()
    found = trainer.evaluate(birds["test"], metric_key_prefix="test")
    assert {"test_worst_group_accuracy", "test_adjusted_accuracy", "test_accuracy_group_landbird_on_water"} <= set(
        found
    )
    assert trainer.predict(birds["test"]).metrics["test_accuracy"] == found["test_accuracy"]
    assert len(trainer.eval_dataset) == 40
    trainer.save_or_push()
    assert load_image_classifier(str(tmp_path / "run")).config.id2label == {0: "landbird", 1: "waterbird"}
    assert (tmp_path / "run" / "preprocessor_config.json").is_file()


def test_several_evaluation_sets_and_subsets(make, birds):
    several = {"all": birds["validation"], "half": Subset(birds["validation"], range(20))}
    trainer = make(settings={"meta_every": 0}, eval_dataset=several)
    assert {name: len(one) for name, one in trainer.eval_dataset.items()} == {"all": 40, "half": 20}
    found = trainer.evaluate()
    assert {"eval_all_worst_group_accuracy", "eval_half_worst_group_accuracy"} <= set(found)


def test_metrics_of_ones_own_and_items_of_ones_own_stay(make, birds):
    metrics = GroupMetrics(["land", "water"])
    own = ImageClassificationDataset(birds["train"], TrainTransform(16, [0.5] * 3, [0.5] * 3))
    trainer = make(train=own, settings={"meta_every": 0}, eval_dataset=birds["test"], compute_metrics=metrics)
    assert trainer.compute_metrics is metrics
    assert trainer.train_dataset is own
    made = birds["test"].with_transform(lambda batch: {"pixel_values": [torch.zeros(3, 16, 16)] * len(batch["label"])})
    assert make(train=made, settings={"meta_every": 0}).train_dataset is made


@pytest.mark.parametrize(
    ("trainer", "settings", "meta"),
    [
        (HSFMTrainer, {"epochs": 1, "support_size": 4, "hard_size": 4}, False),
        (CLPHeadTrainer, {"strength_steps": 1}, True),
        (DFRTrainer, {"on": "meta"}, True),
        (DFRTrainer, {"on": "validation"}, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_trainers_of_a_head(make, birds, trainer, settings, meta):
    parts = birds["validation"].train_test_split(train_size=16, stratify_by_column="group", seed=0)
    given = {"meta_dataset": parts["train"]} if meta else {}
    trainer = make(trainer=trainer, settings=settings, eval_dataset=parts["test"], **given)
    expected = CROPS(birds["train"][3]["image"], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(trainer.train_dataset[3]["pixel_values"], expected, atol=1e-4, rtol=0)
    trainer.train()
    assert "eval_worst_group_accuracy" in trainer.evaluate()
    assert len(trainer.features(birds["test"])) == 24


def test_the_model_tells_the_preprocessing_where_nobody_else_does(make, birds, tmp_path):
    timm = load_image_classifier("test_resnet", num_labels=2, image_size=24, pretrained=False)
    trainer = make(timm, processing_class=None, settings={"meta_every": 0})
    assert trainer.train_dataset[0]["pixel_values"].shape == (3, 24, 24)
    resnet(2).save_pretrained(tmp_path / "model")
    CROPS.save_pretrained(tmp_path / "model")
    trainer = make(load_image_classifier(str(tmp_path / "model")), processing_class=None, settings={"meta_every": 0})
    assert trainer.processing_class.crop_size["height"] == 16
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"There is no image processor beside the model.*processing_class"):
        make(load_image_classifier(str(tmp_path / "model")), processing_class=None)
    with pytest.raises(ValueError, match=r"was built here and not loaded.*processing_class"):
        make(processing_class=None)


# ---- columns ---------------------------------------------------------------------------------------------------------


def test_labels_are_joined_by_name_with_the_models_classes(make):
    model = resnet(2)
    model.config.id2label = {0: "b", 1: "a"}
    assert make(model, train=elongated(6), settings={"meta_every": 0}).train_dataset.labels.tolist() == [1, 0] * 3


def test_groups_of_an_attribute_are_numbered_in_every_data_set_as_in_training(make):
    train = elongated(8, place=["sea", "sea", "air", "air"] * 2)
    trainer = make(train=train, settings={"meta_every": 0}, eval_dataset=train.select([2, 3, 6]))
    assert trainer.train_dataset.group.tolist() == [1, 3, 0, 2] * 2
    assert trainer.eval_dataset.group.tolist() == [0, 2, 0]
    assert trainer.compute_metrics.group_names == ["a_on_air", "a_on_sea", "b_on_air", "b_on_sea"]
    unknown = elongated(4, place=["sky"] * 4)
    with pytest.raises(ValueError, match=r"'sky'.* are not among the names"):
        trainer.evaluate(unknown)


def test_known_wrong_labels_are_told(make):
    data = flip_noise(elongated(12), 0.5, {"a": "b"})
    noisy = make(train=data, settings={"meta_every": 0}).train_dataset.noisy.tolist()
    assert noisy == [label != clean for label, clean in zip(data["label"], data["clean_label"], strict=True)]
    assert 0 < sum(noisy) < 6


def test_columns_of_other_names(make):
    data = elongated(8).rename_columns({"image": "photo", "label": "species"})
    with pytest.raises(ValueError, match=r"The training set: There is no image column 'image'.*'species'.*Columns\("):
        make(train=data)
    columns = Columns(image_column="photo", label_column="species")
    assert len(make(train=data, settings={"meta_every": 0}, columns=columns).train_dataset) == 8


def test_boxes_are_corners_unless_they_may_be_read_in_two_ways(make):
    def boxed(box):
        return elongated(4).add_column("box", [box] * 4, feature=List(Value("float32")))

    mask = make(train=boxed([30, 4, 54, 20]), settings={"meta_every": 0}).train_dataset.masks()
    assert next(mask).mean() == pytest.approx(24 * 16 / (60 * 24), abs=0.02)
    with pytest.raises(ValueError, match=r"\(xyxy\) or left, top, width, height \(xywh\). Say which"):
        make(train=boxed([5, 5, 20, 15]))
    columns = Columns(box_column="box", box_format="xywh")
    mask = make(train=boxed([5, 5, 20, 15]), settings={"meta_every": 0}, columns=columns).train_dataset.masks()
    assert next(mask).mean() == pytest.approx(20 * 15 / (60 * 24), abs=0.02)


def without_labels(data):
    return data.remove_columns("label")


def with_hidden_labels(data):
    return without_labels(data).add_column("label", [-1] * len(data))


@pytest.mark.parametrize("hidden", [without_labels, with_hidden_labels])
def test_images_without_labels_are_predicted_and_not_evaluated(make, hidden):
    trainer, images = make(train=elongated(8), settings={"meta_every": 0}), elongated(8)
    np.testing.assert_allclose(
        trainer.predict(hidden(images)).predictions, trainer.predict(images).predictions, atol=1e-6
    )
    with pytest.raises(ValueError, match="label"):
        trainer.evaluate(hidden(images))


def test_several_splits_in_the_place_of_one(make, birds):
    with pytest.raises(ValueError, match="The training set is a DatasetDict of the splits train, validation, test: "):
        make(train=DatasetDict(birds))
