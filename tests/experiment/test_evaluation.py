"""evaluate_checkpoint on a classifier whose answer is known: it says its first class of every image."""

import json

import pytest
import torch
from conftest import resnet
from datasets import DatasetDict
from transformers import ViTImageProcessor

from clp_hf.data import embedded_birds
from clp_hf.experiment.evaluation import evaluate_checkpoint, format_evaluations, write_evaluations

COUNTS = {"landbird_on_land": 6, "landbird_on_water": 6, "waterbird_on_land": 6, "waterbird_on_water": 6}


@pytest.fixture(scope="module")
def birds():
    return embedded_birds(40, 16, 24, image_size=32)


@pytest.fixture
def checkpoint(tmp_path):
    """Makes a folder with a classifier of these classes that always says the first."""

    def make(*labels):
        model = resnet(len(labels))
        model.classifier[1].bias.data[0] = 30.0
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
        folder = tmp_path / "-".join(labels)
        model.save_pretrained(folder)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture
def folder(tmp_path):
    def write(splits):
        target = tmp_path / "data"
        target.mkdir()
        for name, split in splits.items():
            split.to_parquet(target / f"{name}-00000-of-00001.parquet")
        return str(target)

    return write


def test_groups_by_hand(checkpoint, folder, birds, tmp_path):
    found = evaluate_checkpoint(checkpoint("landbird", "waterbird"), folder(birds), batch_size=10)
    assert (found.split, found.images) == ("test", COUNTS)
    assert {name: found.metrics[f"accuracy_group_{name}"] for name in COUNTS} == dict(
        zip(COUNTS, [1, 1, 0, 0], strict=True)
    )
    assert (found.metrics["accuracy"], found.metrics["worst_group_accuracy"]) == (0.5, 0)
    assert found.metrics["adjusted_accuracy"] == 0.5  # half of the training images are landbirds
    assert "| landbird_on_water  |      6 |" in format_evaluations([found])
    write_evaluations([found], tmp_path / "evaluation.json")
    (written,) = json.loads((tmp_path / "evaluation.json").read_text())
    assert (written["split"], written["metrics"]) == ("test", found.metrics)


def test_classes_are_matched_by_name(checkpoint, folder, birds):
    found = evaluate_checkpoint(checkpoint("waterbird", "landbird", "penguin"), folder(birds), split="validation")
    assert found.metrics["accuracy_group_waterbird_on_land"] == 1
    assert found.metrics["accuracy_group_landbird_on_land"] == 0
    assert "accuracy_class_penguin" not in found.metrics


def test_classes_of_other_names_are_refused_until_they_are_translated(checkpoint, folder, birds):
    model, data = checkpoint("sparrow", "duck"), folder(birds)
    with pytest.raises(ValueError, match=r"classes \['landbird', 'waterbird'\], the checkpoint tells \['sparrow', 'du"):
        evaluate_checkpoint(model, data)
    found = evaluate_checkpoint(model, data, class_names=["duck", "sparrow"])
    assert found.metrics["accuracy_class_duck"] == 0
    assert found.metrics["accuracy_class_sparrow"] == 1
    assert found.metrics["accuracy_group_landbird_on_land"] == 0  # the data set's own groups


def test_bare_integers_count_as_the_checkpoint_does(checkpoint, folder, birds):
    def bare(split):
        labels = split["label"][:]
        return split.select_columns(["image"]).add_column("label", labels)

    found = evaluate_checkpoint(checkpoint("landbird", "waterbird"), folder(DatasetDict(train=bare(birds["test"]))))
    assert (found.split, found.images) == ("train", {"landbird": 12, "waterbird": 12})
    assert found.metrics["accuracy_class_landbird"] == 1


def test_a_nameless_checkpoint_takes_the_data_sets_names(checkpoint, folder, birds):
    found = evaluate_checkpoint(checkpoint("LABEL_0", "LABEL_1"), folder(birds))
    assert found.metrics["accuracy_class_landbird"] == 1


@pytest.mark.parametrize("labels", [[0, 2, 2], [1, 1, 1], ["c1", "c2"], ["c2", "c2"]])
def test_some_of_the_classes_are_enough(checkpoint, folder, birds, labels):
    images = birds["test"].select(range(len(labels))).select_columns("image").add_column("label", labels)
    found = evaluate_checkpoint(checkpoint("c0", "c1", "c2"), folder(DatasetDict(test=images)))
    there = {f"c{label}" if isinstance(label, int) else label for label in labels}
    assert {name.removeprefix("accuracy_class_") for name in found.metrics if "class_c" in name} == there


def test_hidden_labels_are_not_evaluated(checkpoint, folder, birds):
    hidden = birds["test"].select_columns("image").add_column("label", [-1] * len(birds["test"]))
    data = folder(DatasetDict(train=birds["train"], test=hidden))
    with pytest.raises(ValueError, match=r"split 'test' hides its labels .* choose another split of train, test"):
        evaluate_checkpoint(checkpoint("landbird", "waterbird"), data)


def test_test_images_alone_are_enough(checkpoint, folder, birds):
    found = evaluate_checkpoint(checkpoint("landbird", "waterbird"), folder(DatasetDict(test=birds["test"])))
    assert found.metrics["worst_group_accuracy"] == 0
    assert "adjusted_accuracy" not in found.metrics  # there is no training split to weight by


def test_a_split_that_is_not_there(checkpoint, folder, birds):
    model = checkpoint("landbird", "waterbird")
    with pytest.raises(ValueError, match=r"has no split 'night': choose one of train, validation, test"):
        evaluate_checkpoint(model, folder(birds), split="night")
    named = DatasetDict(train=birds["train"], night=birds["test"])
    with pytest.raises(ValueError, match=r"neither a test nor a validation split: choose one of train, night"):
        evaluate_checkpoint(model, named)


def test_results_do_not_depend_on_the_batch_size(folder, birds, tmp_path):
    torch.manual_seed(0)
    model = resnet(2)
    model.config.id2label, model.config.label2id = {0: "landbird", 1: "waterbird"}, {"landbird": 0, "waterbird": 1}
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    data = folder(birds)
    one, all_ = (evaluate_checkpoint(str(tmp_path / "model"), data, batch_size=size).metrics for size in (5, 24))
    assert one == pytest.approx(all_, abs=1e-6)
