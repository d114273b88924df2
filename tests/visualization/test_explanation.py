"""One image explained by one checkpoint."""

import numpy as np
import pytest
import torch
from conftest import SIZE, resnet, vit
from PIL import Image
from transformers import ViTImageProcessor, pipeline

pytest.importorskip("pytorch_grad_cam")

from clp_hf.visualization import Explainer, check_same_labels, heat_overlay


@pytest.fixture
def checkpoint(tmp_path):
    def make(model, *labels):
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
        model.save_pretrained(tmp_path / type(model).__name__)
        ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(tmp_path / type(model).__name__)
        return str(tmp_path / type(model).__name__)

    return make


@pytest.mark.parametrize("build", [resnet, vit])
def test_probabilities_are_those_of_the_pipeline(checkpoint, build):
    model = build(3)
    torch.nn.init.normal_(list(model.modules())[-1].weight)
    folder = checkpoint(model, "crow", "duck", "tern")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    found = Explainer(folder)(image)
    expected = {row["label"]: row["score"] for row in pipeline("image-classification", folder)(image)}
    assert found.probabilities == pytest.approx(expected, abs=1e-5)
    assert list(found.probabilities) == ["crow", "duck", "tern"]
    assert found.overlay.size == (384, 384)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_images_of_every_mode(checkpoint, mode):
    found = Explainer(checkpoint(resnet(2), "crow", "duck"))(Image.new(mode, (30, 20)))
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_overlays_are_red_where_the_map_is_largest_and_blue_where_it_is_0():
    heat = torch.zeros(4, 8)
    heat[:2, :4] = 1e-6  # of any scale
    overlay = np.asarray(heat_overlay(Image.new("RGB", (8, 4), "grey"), heat), int)
    assert overlay.shape == (384, 768, 3)
    red_less_blue = overlay[..., 0] - overlay[..., 2]
    assert red_less_blue[:144, :336].min() > 0
    assert red_less_blue[240:].max() < 0
    assert red_less_blue[:, 432:].max() < 0


def test_a_map_that_is_0_is_told(checkpoint):
    model = resnet(2)
    torch.nn.init.zeros_(model.classifier[1].weight)  # no image speaks for anything
    found = Explainer(checkpoint(model, "crow", "duck"))
    assert not found(Image.new("RGB", (20, 20), "green")).has_evidence


def test_different_labels_cannot_be_compared(checkpoint):
    crows, cats = Explainer(checkpoint(resnet(2), "crow", "duck")), Explainer(checkpoint(vit(2), "cat", "dog"))
    check_same_labels({"ERM": crows, "CLP": crows})
    with pytest.raises(ValueError, match=r"ERM tells \['crow', 'duck'\] apart, CLP \['cat', 'dog'\]"):
        check_same_labels({"ERM": crows, "CLP": cats})


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere' cannot be loaded"):
        Explainer(str(tmp_path / "nowhere"))
