import pytest
import timm
import torch
from conftest import Squares, resnet, vit
from torch import nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    SwinConfig,
    SwinForImageClassification,
)
from transformers.modeling_outputs import ImageClassifierOutput

pytest.importorskip("pytorch_grad_cam")

from clp_hf.modeling import load_image_classifier
from clp_hf.visualization import Attribution, attribution_metrics, attribution_shares, grad_cam_figure
from clp_hf.visualization.grad_cam import find_feature_map

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3}


class Corner(nn.Module):
    """Two classes; the logit of class 1 is the mean of the top left quarter, and nothing else."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1, bias=False)
        self.head = nn.Linear(1, 2, bias=False)
        nn.init.constant_(self.convolution.weight, 1 / 3)
        self.head.weight.data = torch.tensor([[-1.0], [1.0]])
        self.config = type("Config", (), {"id2label": {0: "dark", 1: "bright"}})()

    def forward(self, pixel_values):
        maps = self.convolution(pixel_values)
        return ImageClassifierOutput(logits=self.head(maps[:, :, :8, :8].mean((2, 3))))


def test_a_corner_model_looks_at_what_is_bright_there():
    torch.manual_seed(0)
    pixels = torch.zeros(2, 3, 16, 16)
    pixels[:, :, 2:6, 1:5] = 1  # decides
    pixels[1, :, 8:, 8:] = 1  # bright too; a channel's weight is one for all places, so Grad-CAM shows it
    maps, logits = Attribution(Corner(), pixels)(pixels)
    assert logits[0].tolist() == pytest.approx([-0.25, 0.25])
    # The channel's mean gradient is 1/256 (64 places of 256 have 1/64), its activation 1 where it is bright.
    torch.testing.assert_close(maps, pixels[:, 0] / 256)
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, :8, :8] = 1
    torch.testing.assert_close(attribution_shares(maps, mask), torch.tensor([1, 16 / (16 + 64)]))


def test_maps_explain_the_class_that_is_asked_for():
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[:, :, 2:6, 1:5] = 1
    attribution = Attribution(Corner(), pixels)
    predicted, _ = attribution(pixels)
    torch.testing.assert_close(attribution(pixels, torch.tensor([1]))[0], predicted)
    assert not attribution(pixels, torch.tensor([0]))[0].any()  # nothing speaks for it


def test_shares_by_hand():
    maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]).expand(3, 2, 2).clone()
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]]).expand(3, 1, 2, 2).clone()
    maps[1] = 0
    mask[2] = 0
    shares = attribution_shares(maps, mask)
    assert shares[0] == 0.75
    assert shares[1:].isnan().all()


MODELS = {
    "transformers ResNet": resnet,
    "transformers ViT": vit,  # class token
    "transformers BEiT": lambda: BeitForImageClassification(
        BeitConfig(**SMALL, intermediate_size=32, image_size=16, patch_size=4, use_mean_pooling=True)
    ),
    "transformers DINOv2 with registers": lambda: Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(**SMALL, image_size=16, patch_size=4, num_register_tokens=4)
    ),
    "transformers Swin": lambda: SwinForImageClassification(
        SwinConfig(
            image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2, num_labels=3
        )
    ),
    "transformers ConvNeXt": lambda: ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2, num_labels=3)
    ),
}
TIMM = {
    "timm ResNet": ("test_resnet", {}),
    "timm EfficientNet": ("test_efficientnet", {}),
    "timm ViT": ("test_vit", {"img_size": 16, "patch_size": 4}),
    "timm ViT, mean": ("test_vit", {"img_size": 16, "patch_size": 4, "class_token": False, "global_pool": "avg"}),
    "timm ViT, registers": ("test_vit3", {"img_size": 32, "patch_size": 8}),
}


def build(name):
    """The model, and the side of its images."""
    torch.manual_seed(0)
    if name in MODELS:
        return MODELS[name](), 16
    architecture, settings = TIMM[name]
    module = timm.create_model(architecture, num_classes=3, **settings)
    return load_image_classifier(module, model_args=settings), settings.get("img_size", 64)


@pytest.mark.parametrize("name", [*MODELS, *TIMM])
def test_every_kind_of_backbone_has_maps(name):
    model, size = build(name)
    model.train()
    for parameter in list(model.parameters())[::2]:  # a frozen backbone has maps too
        parameter.requires_grad_(False)
    trained = [parameter.requires_grad for parameter in model.parameters()]
    pixels = torch.randn(4, 3, size, size)
    attribution = Attribution(model, pixels)
    with torch.no_grad():
        maps, logits = attribution(pixels)
    assert maps.shape == (4, size, size)
    assert maps.min() >= 0
    assert (maps.flatten(1).std(1) > 0).any()
    assert model.training  # the model is left as it was
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(logits, model.eval()(pixel_values=pixels).logits.detach())
    # one image's map does not depend on its batch
    torch.testing.assert_close(attribution(pixels[1:2])[0][0], maps[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in [*MODELS, *TIMM] if "ViT" in name])
def test_tokens_lie_where_their_patches_do(name):
    """A change of one patch changes what the first layer with places says there, and nowhere else."""
    model, size = build(name)
    patch = size // 4
    pixels = torch.randn(1, 3, size, size)
    changed = pixels.clone()
    changed[:, :, patch : 2 * patch, 2 * patch : 3 * patch] += 1
    _, to_maps = find_feature_map(model, pixels)
    first = ("blocks.0.norm1", "0.layernorm_before")
    block = next(module for key, module in model.named_modules() if key.endswith(first))
    seen = []
    handle = block.register_forward_hook(lambda module, args, output: seen.append(to_maps(output)))
    with torch.no_grad():
        model.eval()(pixel_values=pixels), model(pixel_values=changed)
    handle.remove()
    assert (seen[0] != seen[1]).any(1)[0].nonzero().tolist() == [[1, 2]]


def test_a_class_token_is_followed_to_the_last_attention():
    assert Attribution(vit(), torch.randn(1, 3, 16, 16)).layer_name.endswith("1.layernorm_before")


def test_a_model_without_feature_map_is_named():
    class Flat(Corner):
        def forward(self, pixel_values):
            return ImageClassifierOutput(logits=self.head(pixel_values.mean((1, 2, 3))[:, None]))

    with pytest.raises(ValueError, match="Flat has no layer with a value at every place"):
        Attribution(Flat(), torch.rand(1, 3, 16, 16))


class Bright(Squares):
    """Squares whose map is known: 1 inside the mask, and 1 at as many pixels outside in group 0."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["mask"] = torch.zeros(1, 16, 16)
        if index != 3:
            item["mask"][:, :4, :4] = 1
        item["group"] = index % 2
        item["pixel_values"] = item["mask"].expand(3, 16, 16).clone()
        if index % 2 == 0:
            item["pixel_values"][:, 12:, 12:] = 1
        return item


def test_metrics_over_a_data_set_by_hand():
    metrics = attribution_metrics(Corner(), Bright(8), group_names=["even", "odd"], batch_size=3)
    assert metrics == pytest.approx(
        {
            "attribution_in_mask": (4 * 0.5 + 3 * 1) / 7,  # image 3 has no mask and does not count
            "attribution_in_mask_group_even": 0.5,
            "attribution_in_mask_group_odd": 1.0,
            "mask_area": 1 / 16,
            "attribution_coverage": 7 / 8,
        }
    )
    assert "attribution_in_mask_group_even" not in attribution_metrics(Corner(), Bright(8))


def test_metrics_need_masks():
    with pytest.raises(ValueError, match="make masks"):
        attribution_metrics(resnet(), Squares(8, columns=()))


def test_figure_has_a_row_for_every_image_and_a_column_for_every_model(tmp_path):
    models = {"ERM": vit(), "CLP": resnet()}
    figure = grad_cam_figure(models, Squares(6), [0, 4], ["small", "middle", "large"])
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 6
    assert titles[0] == "true: small"
    assert titles[3] == "true: middle"
    assert titles[1].startswith("ERM: ")
    assert titles[2].startswith("CLP: ")
    figure.savefig(tmp_path / "figure.png")
    with pytest.raises(ValueError, match="Need a model and an image"):
        grad_cam_figure({}, Squares(6), [0])
