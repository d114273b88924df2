"""The file of predictions: what is written is read, from tiny trainers too, and damage is named."""

import numpy as np
import pytest
import torch
from conftest import Squares
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PilImage

from clp_hf.data import EvalTransform, ImageClassificationDataset
from clp_hf.data.identities import image_identities
from clp_hf.hub.predictions import PREDICTIONS_FILE, Picture, Predictions
from clp_hf.metrics import GroupMetrics

NAMES = ["0", "1", "2"]
GROUPS = [f"{name}_{ground}" for name in NAMES for ground in ("dark", "light")]


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    logits = 100 * generator.normal(size=(6, 3))
    found = Predictions.of("test", logits, np.arange(6) % 3, None, list("abcdef"), list("ABCDEF"))
    found.pictures[2] = Picture(b"image", None)
    return found


def test_what_is_written_is_read(predictions, tmp_path):
    predictions.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PREDICTIONS_FILE]
    read = Predictions.load(tmp_path, 3, None)
    for name in ("ids", "names", "labels", "logits", "predicted", "losses"):
        assert (getattr(read, name) == getattr(predictions, name)).all(), name
    assert (read.split, read.groups, read.pictures) == ("test", None, {2: Picture(b"image", None)})


def test_losses_and_confidence_are_those_of_the_logits(predictions):
    logits = torch.tensor([[2.0, 1.0, -70_000.0]])
    found = Predictions.of("test", logits.numpy(), np.array([1]), None, ["a"], ["A"])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([1])).item()
    assert found.losses[0] == pytest.approx(expected)
    assert found.confidence[0] == pytest.approx(logits.softmax(1)[0, 0].item(), abs=1e-3)
    assert np.isfinite(found.logits).all()


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b""])
def test_a_damaged_file_is_named(predictions, tmp_path, damage):
    predictions.save(tmp_path)
    path = tmp_path / PREDICTIONS_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{PREDICTIONS_FILE} is not what was written"):
        Predictions.load(tmp_path, 3, None)


@pytest.mark.parametrize("of", [(4, None), (2, None), (3, 2)])
def test_those_of_another_run_are_refused(predictions, tmp_path, of):
    predictions.save(tmp_path)
    with pytest.raises(ValueError, match="is of another run"):
        Predictions.load(tmp_path, *of)


def test_a_trainer_writes_those_of_the_weights_that_it_keeps(make_trainer, tmp_path):
    trainer = make_trainer(meta_every=0, compute_metrics=GroupMetrics(NAMES, GROUPS))
    trainer.train()
    trainer.create_model_card()
    assert not (tmp_path / "run" / PREDICTIONS_FILE).exists()  # nothing was evaluated
    validation, test = trainer.evaluate(), trainer.evaluate(Squares(12, start=5000), metric_key_prefix="test")
    trainer.create_model_card()
    found = Predictions.load(tmp_path / "run", 3, 6)
    assert (found.split, len(found)) == ("test", 12)
    assert found.correct.mean() == pytest.approx(test["test_accuracy"])
    assert found.labels.tolist() == Squares(12).labels
    assert found.groups.tolist() == Squares(12).group
    assert "eval_accuracy" in validation
    with torch.no_grad():
        next(trainer.model.parameters()).add_(1)
    trainer.create_model_card()
    assert not (tmp_path / "run" / PREDICTIONS_FILE).exists()  # they were those of other weights


@pytest.mark.pictures
def test_the_worst_images_are_drawn_with_grad_cam(make_trainer, tmp_path):
    trainer = make_trainer(meta_every=0, compute_metrics=GroupMetrics(NAMES, GROUPS))
    trainer.train()
    trainer.evaluate()
    trainer.create_model_card()
    found = Predictions.load(tmp_path / "run", 3, 6)
    assert found.split == "validation"
    assert found.lacks is None
    for group in range(6):
        rows = np.flatnonzero(found.groups == group)
        drawn = [row for row in found.pictures if found.groups[row] == group]
        assert len(drawn) == min(6, len(rows))
        assert found.losses[drawn].min() >= np.delete(found.losses[rows], np.searchsorted(rows, drawn)).max(initial=0)
    assert all(picture.image[:2] == picture.grad_cam[:2] == b"\xff\xd8" for picture in found.pictures.values())


def test_a_model_without_feature_map_ends_its_run_and_says_why(make_trainer, tmp_path, monkeypatch):
    pytest.importorskip("pytorch_grad_cam")
    from clp_hf.visualization import worst_images

    trainer = make_trainer(meta_every=0, compute_metrics=GroupMetrics(NAMES, GROUPS))
    trainer.train()
    trainer.evaluate()
    monkeypatch.setattr(worst_images, "Attribution", lambda *args: (_ for _ in ()).throw(ValueError("no layer")))
    found, dataset = trainer._predictions.of(next(iter(trainer._predictions._kept.values())).weights, True)
    worst_images.add_pictures(found, trainer.model, dataset)
    assert found.lacks == "no Grad-CAM: no layer"
    assert {picture.grad_cam for picture in found.pictures.values()} == {None}


def test_an_image_is_known_by_its_content(tmp_path):
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    pictures = [PilImage.new("RGB", (8, 8), colour) for colour in ("red", "blue", "red")]
    data = Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}, features=features)
    for name, picture in zip("xyz", pictures, strict=True):
        picture.save(tmp_path / f"{name}.png")
    files = Dataset.from_dict(
        {"image": [str(tmp_path / f"{name}.png") for name in "yxz"], "label": [1, 0, 0]}, features=features
    )
    transform = EvalTransform(8, [0.5] * 3, [0.5] * 3)
    embedded, _ = image_identities(ImageClassificationDataset(data, transform), 3)
    on_disk, names = image_identities(ImageClassificationDataset(files, transform), 3)
    assert len(set(embedded)) == 3  # the same image twice is two images
    assert set(embedded) == set(on_disk)
    assert embedded.index(on_disk[0]) == 1
    assert names == [f"{tmp_path.name}/{name}.png" for name in "yxz"]
    assert image_identities(Squares(2), 2) == (["0", "1"], ["image 0", "image 1"])
