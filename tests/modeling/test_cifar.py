import pytest
import timm
import torch
from torch import nn
from transformers import AutoModelForImageClassification

from clp_hf.modeling import (
    find_classifier_head,
    image_settings,
    load_image_classifier,
    load_image_processor,
    parameter_count,
)
from clp_hf.networks import WideResNet


@pytest.mark.parametrize(
    ("name", "count"), [("cifar_resnet20", 269_722), ("cifar_resnet32", 464_154), ("wrn28_10", 36_479_194)]
)
def test_parameter_counts_are_the_published_ones(name, count):
    with torch.device("meta"):
        assert parameter_count(timm.create_model(name)) == count


def test_by_name_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = load_image_classifier("cifar_resnet20", id2label={0: "cat", 1: "dog", 2: "owl"}, image_size=32)
    pixels = torch.randn(2, 3, 32, 32)
    model.save_pretrained(tmp_path)
    for again in (load_image_classifier(tmp_path), AutoModelForImageClassification.from_pretrained(tmp_path).eval()):
        torch.testing.assert_close(again(pixels).logits, model(pixels).logits)
        assert again.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    settings = image_settings(model, load_image_processor("cifar_resnet20", model))
    assert (settings.height, settings.width, settings.crop_pct) == (32, 32, 1)
    assert settings.mean == (0.4914, 0.4822, 0.4465)


def test_the_head_is_linear_on_the_features():
    model = load_image_classifier("cifar_resnet32", num_labels=5)
    name, head = find_classifier_head(model, torch.randn(2, 3, 32, 32))
    assert (name, head.in_features, head.out_features) == ("timm_model.fc", 64, 5)


def test_images_of_another_size():
    model = load_image_classifier("cifar_resnet20", num_labels=2, image_size=48)
    assert model(torch.randn(1, 3, 48, 48)).logits.shape == (1, 2)
    assert model.config.pretrained_cfg["input_size"] == (3, 48, 48)


def test_a_shortcut_passes_the_image_on():
    """With residual branches of zero, a CIFAR ResNet subsamples the stem's output and pads channels with zeros."""
    network = timm.create_model("cifar_resnet20").eval()
    for module in network.blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    pixels = torch.randn(2, 3, 32, 32)
    found = network.forward_features(pixels)
    torch.testing.assert_close(found[:, 24:40], network.stem(pixels)[:, :, ::4, ::4])
    assert not found[:, :24].any()
    assert not found[:, 40:].any()


def test_wide_resnet_drops_out_in_training_only():
    torch.manual_seed(0)
    network = WideResNet(10, 1, num_classes=3, drop_rate=0.5)
    pixels = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(pixels), network(pixels))
    network.eval()
    torch.testing.assert_close(network(pixels), network(pixels))
    with torch.device("meta"):
        named = timm.create_model("wrn28_10", drop_rate=0.3)
    assert {module.p for module in named.modules() if isinstance(module, nn.Dropout)} == {0.3}
