"""A checkpoint keeps what it says of an image, whatever order its classes are asked for in."""

import pytest
import torch
from conftest import SIZE, resnet, vit

from clp_hf.modeling import load_image_classifier

NAMES = ["ant", "bee", "cat"]


def timm_model():
    import timm

    torch.manual_seed(0)
    return load_image_classifier(timm.create_model("test_resnet", num_classes=3))


@pytest.mark.parametrize("build", [resnet, vit, timm_model])
@pytest.mark.parametrize("order", [["cat", "ant", "bee"], ["ant", "bee", "cat"], ["bee", "ant", "cat"]])
def test_the_head_takes_the_order_of_the_names(tmp_path, build, order):
    model = build().eval()
    model.config.id2label = dict(enumerate(NAMES))
    model.config.label2id = {name: index for index, name in enumerate(NAMES)}
    model.save_pretrained(tmp_path)
    asked = load_image_classifier(str(tmp_path), id2label=dict(enumerate(order)))
    side = 32 if build is timm_model else SIZE
    images = torch.rand(4, 3, side, side)
    with torch.no_grad():
        said, says = model(pixel_values=images).logits, asked(pixel_values=images).logits
    torch.testing.assert_close(says, said[:, [NAMES.index(name) for name in order]])
    assert [asked.config.id2label[index] for index in range(3)] == order


def test_other_names_leave_the_head_alone(tmp_path):
    model = resnet()
    model.save_pretrained(tmp_path)
    other = load_image_classifier(str(tmp_path), id2label={0: "x", 1: "y", 2: "z"})
    torch.testing.assert_close(other.classifier[1].weight, model.classifier[1].weight)
