import copy
import time
from importlib import resources

import numpy as np
import pytest
import timm
import torch
import transformers
from huggingface_hub import constants
from PIL import Image
from torch import nn
from transformers import pipeline

from clp_hf.data import EvalTransform
from clp_hf.modeling import (
    ImageSettings,
    find_classifier_head,
    forward_with_features,
    freeze_batch_norm_statistics,
    image_settings,
    load_image_classifier,
    load_image_processor,
    parameter_count,
    resize_bilinearly,
    set_head,
    timm_models,
    uses_batch_statistics,
)

SIZE = 32
CLASSES = 3

TIMM = {
    "resnet18": {},
    "tf_efficientnet_lite0": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "densenet121": {"growth_rate": 4, "block_config": (1, 1)},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
    "vit_tiny_patch16_224": {"img_size": SIZE, "depth": 1, "embed_dim": 24, "num_heads": 2},
    "deit3_small_patch16_224": {"img_size": SIZE, "depth": 1, "embed_dim": 24, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"img_size": SIZE, "depths": (1, 1), "num_heads": (2, 2), "embed_dim": 8},
    "mixer_s32_224": {"img_size": SIZE},
    "poolformer_s12": {},
    "mobilevitv2_050": {},
}
TINY_TRANSFORMER = {
    "image_size": SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
TRANSFORMERS = {
    "ViT": {**TINY_TRANSFORMER, "patch_size": 16},
    "DeiT": {**TINY_TRANSFORMER, "patch_size": 16},
    "Beit": {**TINY_TRANSFORMER, "patch_size": 16},
    "Dinov2": {**TINY_TRANSFORMER, "patch_size": 16},
    "Swin": {"image_size": SIZE, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "ConvNext": {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "groups_width": 4},
    "PvtV2": {
        "image_size": SIZE,
        "hidden_sizes": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
    },
}
FAMILIES = [("timm", name) for name in TIMM] + [("transformers", name) for name in TRANSFORMERS]


def timm_module(name: str, classes: int = CLASSES) -> nn.Module:
    return timm.create_model(name, num_classes=classes, **TIMM[name])


def transformers_model(name: str, classes: int = CLASSES):
    config = getattr(transformers, f"{name}Config")(**TRANSFORMERS[name], num_labels=classes)
    return getattr(transformers, f"{name}ForImageClassification")(config)


def tiny_model(library: str, name: str):
    torch.manual_seed(0)
    if library == "timm":
        return load_image_classifier(timm_module(name), model_args=TIMM[name])
    return load_image_classifier(transformers_model(name))


@pytest.fixture
def pixels():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["no answer", "offline mode"])
def no_hub(request, monkeypatch):
    """The two ways of having no Hub: nothing answers, and HF_HUB_OFFLINE."""
    if request.param == "no answer":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


class TestFinalLinearLayer:
    @pytest.mark.parametrize(("library", "name"), FAMILIES)
    def test_logits_are_the_head_of_the_features(self, library, name, pixels):
        model = tiny_model(library, name)
        head_name, head = find_classifier_head(model, pixels)
        assert head is model.get_submodule(head_name)
        assert head.out_features == CLASSES

        model.eval()
        logits, features = forward_with_features(model, head, pixels)
        assert features.shape == (2, head.in_features)
        torch.testing.assert_close(logits, model(pixel_values=pixels).logits)
        torch.testing.assert_close(logits, head(features))
        (gradient,) = torch.autograd.grad(logits.sum(), features)
        torch.testing.assert_close(gradient, head.weight.sum(0).expand_as(features))

    def test_the_model_is_left_as_it_was(self, pixels):
        model = tiny_model("timm", "resnet18").train()
        model.timm_model.bn1.eval()
        before = copy.deepcopy(model.state_dict())
        _, head = find_classifier_head(model, pixels)
        forward_with_features(model, head, pixels)
        assert model.training
        assert model.timm_model.layer1.training
        assert not model.timm_model.bn1.training
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        find_only = {key: value for key, value in before.items() if key.startswith("timm_model.bn1")}
        assert all(torch.equal(model.state_dict()[key], value) for key, value in find_only.items())

    def test_the_last_of_equal_layers_is_the_head(self, pixels):
        class Output:
            def __init__(self, logits):
                self.logits = logits

        class Chain(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(3, CLASSES)
                self.last = nn.Linear(CLASSES, CLASSES)

            def forward(self, pixel_values):
                return Output(self.last(self.first(pixel_values.mean((2, 3)))))

        assert find_classifier_head(Chain(), pixels)[0] == "last"

    @pytest.mark.parametrize(
        ("name", "arguments", "parts"),
        [
            ("resnetv2_18", {"channels": [8, 8, 8, 8], "stem_chs": 8}, "timm_model.head.fc"),
            (
                "deit_tiny_distilled_patch16_224",
                {"img_size": SIZE, "depth": 1, "embed_dim": 24, "num_heads": 2},
                "timm_model.head + timm_model.head_dist",
            ),
        ],
        ids=["a convolution", "the mean of two"],
    )
    def test_a_head_that_is_not_one_linear_layer_serves_as_one(self, name, arguments, parts, pixels):
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=CLASSES, **arguments)
        model = load_image_classifier(module, model_args=arguments).eval()
        head_name, head = find_classifier_head(model, pixels)
        assert head_name == parts
        assert {id(weight) for weight in head.parameters()} <= {id(weight) for weight in model.parameters()}

        logits, features = forward_with_features(model, head, pixels)
        assert features.shape == (2, head.in_features)
        assert logits.shape == (2, head.out_features)
        torch.testing.assert_close(head(features), logits)
        torch.testing.assert_close(features @ head.weight.T + head.bias, logits)

        weight, bias = torch.randn(CLASSES, head.in_features), torch.randn(CLASSES)
        set_head(head, weight, bias)
        torch.testing.assert_close(model(pixel_values=pixels).logits, features @ weight.T + bias)

    def test_several_heads_of_learned_weights_are_refused(self, pixels):
        model = load_image_classifier(timm.create_model("efficientvim_m1", num_classes=CLASSES))
        with pytest.raises(ValueError, match=r"\(efficientvim_m1\) has no final.*heads\.0, .*is not yet the logits"):
            find_classifier_head(model, pixels)

    def test_a_linear_layer_on_every_patch_is_refused(self, pixels):
        class PerPatch(nn.Module):
            def __init__(self):
                super().__init__()
                self.classifier = nn.Linear(3, CLASSES)

            def forward(self, pixel_values):
                logits = self.classifier(pixel_values.flatten(2).mT).mean(1)
                return transformers.modeling_outputs.ImageClassifierOutput(logits=logits)

        with pytest.raises(ValueError, match="PerPatch has no final linear layer: the output of classifier"):
            find_classifier_head(PerPatch(), pixels)

    def test_features_at_other_parameters_and_on_dual_numbers(self, pixels):
        model = tiny_model("timm", "convnext_atto").eval().double()
        name, head = find_classifier_head(model, pixels.double())

        class Call(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self):
                return forward_with_features(self.model, head, pixels.double())

        def features_at(parameters):
            return torch.func.functional_call(call, parameters, ())[1]

        call = Call()
        there = {key: parameter.detach() * 1.1 for key, parameter in call.named_parameters()}
        logits, features = torch.func.functional_call(call, there, ())
        weight, bias = there[f"model.{name}.weight"], there[f"model.{name}.bias"]
        torch.testing.assert_close(logits, features @ weight.T + bias)

        direction = {key: torch.randn_like(value) for key, value in there.items()}
        _, tangent = torch.func.jvp(features_at, (there,), (direction,))
        ahead, behind = (
            features_at({key: value + step * direction[key] for key, value in there.items()}) for step in (1e-6, -1e-6)
        )
        torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-4)


class TestLoading:
    @pytest.mark.parametrize(("library", "name"), FAMILIES)
    def test_saved_and_loaded_again(self, library, name, pixels, tmp_path):
        model = tiny_model(library, name).eval()
        model.save_pretrained(tmp_path)
        again = load_image_classifier(tmp_path).eval()
        torch.testing.assert_close(model(pixels).logits, again(pixels).logits)
        again = load_image_classifier(str(tmp_path), num_labels=5)
        assert again(pixels).logits.shape == (2, 5)

    def test_class_names_are_saved(self, tmp_path):
        names = {0: "landbird", 1: "waterbird", 2: "none"}
        load_image_classifier(timm_module("resnet18"), id2label=names).save_pretrained(tmp_path)
        config = load_image_classifier(tmp_path).config
        assert config.id2label == names
        assert config.label2id == {"landbird": 0, "waterbird": 1, "none": 2}

    def test_label_counts_must_agree(self):
        with pytest.raises(ValueError, match="num_labels is 3 but id2label names 2 classes"):
            load_image_classifier("resnet18", num_labels=3, id2label={0: "a", 1: "b"})
        with pytest.raises(ValueError, match="ResNet of timm has 3 outputs, but 2 labels were asked for"):
            load_image_classifier(timm_module("resnet18"), num_labels=2)
        with pytest.raises(ValueError, match="ViTForImageClassification has 3 outputs, but 2 labels"):
            load_image_classifier(transformers_model("ViT"), num_labels=2)

    def test_a_built_transformers_model_is_returned(self):
        model = transformers_model("ViT")
        assert load_image_classifier(model, num_labels=CLASSES) is model

    def test_a_built_timm_model_is_wrapped_not_copied(self):
        module = timm_module("resnet18")
        assert load_image_classifier(module).timm_model is module

    def test_a_timm_model_that_could_not_be_loaded_again_is_refused(self):
        with pytest.raises(ValueError, match="does not rebuild the given model; pass the arguments"):
            load_image_classifier(timm.create_model("resnet18", num_classes=2, channels=(8, 8, 8, 8)))
        with pytest.raises(ValueError, match="same weights, other outputs"):
            load_image_classifier(timm.create_model("resnet18", num_classes=2, act_layer="silu"))

    def test_a_foreign_module_is_refused(self):
        with pytest.raises(TypeError, match="Linear is a module of neither timm nor transformers"):
            load_image_classifier(nn.Linear(2, 2))

    def test_weights_that_do_not_fit_beyond_the_head_are_refused(self, tmp_path):
        transformers_model("ViT").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"not only in the head: .*position_embeddings"):
            load_image_classifier(tmp_path, num_labels=2, patch_size=8)

    def test_random_weights(self, pixels):
        model = load_image_classifier("timm/resnet18", num_labels=2, pretrained=False)
        assert model(pixels).logits.shape == (2, 2)
        assert parameter_count(model) == 11_177_538  # 11,689,512 with 1,000 classes


@pytest.mark.usefixtures("no_hub")
class TestWithoutTheHub:
    @pytest.mark.parametrize("name", ["resnet18", "timm/resnet50.a1_in1k", "google/vit-base-patch16-224", "./nowhere"])
    def test_the_error_is_quick_and_names_the_alternatives(self, name):
        start = time.monotonic()
        with pytest.raises(
            ConnectionError, match=r"local folder.*cannot be reached.*tf_efficientnet_lite0.*pretrained=F"
        ):
            load_image_classifier(name, num_labels=2)
        assert time.monotonic() - start < 5

    def test_the_local_cache_is_used(self, tmp_path, pixels):
        repository = tmp_path / "models--someone--tiny"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        transformers_model("ViT").save_pretrained(repository / "snapshots" / ("0" * 40))
        model = load_image_classifier("someone/tiny", num_labels=2, cache_dir=tmp_path)
        assert model(pixels).logits.shape == (2, 2)

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "timm/tf_efficientnet_lite0.in1k"])
    def test_efficientnet_lite0_from_its_package(self, name, caplog):
        with caplog.at_level("INFO"):
            model = load_image_classifier(name, id2label={0: "land", 1: "water"})
        assert "ImageNet weights of tf_efficientnet_lite0 come from the installed package" in caplog.text
        assert model.config.id2label == {0: "land", 1: "water"}
        # ImageNet's first filter and the file's own statistics, not an initialisation
        assert model.timm_model.bn2.running_var.std() > 0
        assert model(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 2)

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setattr(timm_models, "PACKAGED_WEIGHTS", "no_such_package")
        with pytest.raises(ConnectionError, match=r"clp-hf\[demo\]"):
            load_image_classifier("tf_efficientnet_lite0", num_labels=2)


def test_packaged_weights_are_mapped_to_keys_of_the_same_kind():
    path = next((resources.files(timm_models.PACKAGED_WEIGHTS) / "models").glob("*.pth"))
    state = torch.load(path, weights_only=True)
    target = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = timm_models._as_timm_keys(state, list(target))
    assert renamed.keys() == target.keys()
    assert [key.rpartition(".")[2] for key in renamed] == [key.rpartition(".")[2] for key in state]
    assert all(tensor.shape == target[key].shape for key, tensor in renamed.items())


class TestPreprocessing:
    def test_settings_of_a_timm_model(self):
        model = load_image_classifier("resnet18", num_labels=2, pretrained=False)
        expected = timm.get_pretrained_cfg("resnet18")
        assert image_settings(model) == ImageSettings(
            224, 224, expected.mean, expected.std, expected.interpolation, expected.crop_pct
        )

    @pytest.mark.parametrize(
        ("processor", "expected"),
        [
            (transformers.ViTImageProcessor(), (224, 224, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)),
            (
                transformers.BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}),
                (224, 224, (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758), "bicubic", 0.875),
            ),
            (
                transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, image_mean=[0.485, 0.456, 0.406]),
                (224, 224, (0.485, 0.456, 0.406), (0.5,) * 3, "bicubic", 0.875),
            ),
        ],
        ids=["plain", "centre crop", "crop fraction"],
    )
    def test_settings_of_a_transformers_processor(self, processor, expected):
        settings = image_settings(transformers_model("ResNet"), processor)
        assert (settings.height, settings.width) == expected[:2]
        assert settings.mean == pytest.approx(expected[2], abs=1e-3)
        assert settings.std == pytest.approx(expected[3], abs=1e-3)
        assert settings.interpolation == expected[4]
        assert settings.crop_pct == pytest.approx(expected[5])

    def test_swapped_colour_channels_are_refused(self):
        with pytest.raises(ValueError, match="MobileViTImageProcessor swaps the colour channels"):
            image_settings(transformers_model("ResNet"), transformers.MobileViTImageProcessor())

    @pytest.mark.parametrize(
        ("name", "model_args"),
        [
            ("resnet18", None),
            ("vit_tiny_patch16_224", {"depth": 1}),
            ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "num_heads": (1, 1), "embed_dim": 8}),
        ],
    )
    def test_a_timm_model_at_another_size_is_saved_with_it(self, name, model_args, tmp_path):
        model = load_image_classifier(name, num_labels=2, pretrained=False, image_size=96, model_args=model_args)
        seen = []
        processor = load_image_processor(name, model, image_size=96)
        settings = image_settings(model, processor)
        assert (settings.height, settings.width) == (96, 96)
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)

        classify = pipeline("image-classification", model=str(tmp_path))
        classify.model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["pixel_values"].shape), with_kwargs=True
        )
        scores = classify(Image.new("RGB", (160, 120), "olive"))
        assert seen == [(1, 3, 96, 96)]
        assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-5)

    def test_position_embeddings_are_resampled_not_redrawn(self):
        module = timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=1)
        nn.init.constant_(module.pos_embed, 0.7)
        model = load_image_classifier(module, model_args={"depth": 1}, image_size=(64, 96))
        assert model.timm_model.pos_embed.shape == (1, 1 + 4 * 6, 192)
        torch.testing.assert_close(model.timm_model.pos_embed, torch.full((1, 25, 192), 0.7))
        torch.testing.assert_close(model.timm_model.head.weight, module.head.weight)

    @pytest.mark.parametrize(
        "processor",
        [
            transformers.ViTImageProcessor(),
            transformers.BitImageProcessor(),
            transformers.ConvNextImageProcessor(size={"shortest_edge": 224}),
        ],
        ids=lambda processor: type(processor).__name__,
    )
    def test_a_transformers_processor_at_another_size_is_saved_with_it(self, processor, tmp_path):
        model = transformers_model("ResNet")
        model.save_pretrained(tmp_path / "pretrained")
        processor.save_pretrained(tmp_path / "pretrained")
        model = load_image_classifier(tmp_path / "pretrained", image_size=96)
        resized = load_image_processor(tmp_path / "pretrained", model, image_size=96)
        model.save_pretrained(tmp_path / "trained")
        resized.save_pretrained(tmp_path / "trained")

        classify = pipeline("image-classification", model=str(tmp_path / "trained"))
        assert len(classify(Image.new("RGB", (160, 160), "olive"))) == CLASSES
        assert classify.image_processor(Image.new("RGB", (160, 160)))["pixel_values"][0].shape[-2:] == (96, 96)

    def test_a_model_of_one_size_says_so(self, tmp_path):
        transformers_model("ViT").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="ViTForImageClassification does not take images of 64 × 64 pixels"):
            load_image_classifier(tmp_path, image_size=64)
        with pytest.raises(ValueError, match=r"\(mixer_s32_224\) does not take images of 96 × 96 pixels"):
            load_image_classifier(timm_module("mixer_s32_224"), image_size=96)

    def test_sizes_of_model_and_processor_must_agree(self):
        model = load_image_classifier("resnet18", num_labels=2, pretrained=False)
        with pytest.raises(ValueError, match="gives 224 × 224 pixels, not 96 × 96: pass image_size"):
            load_image_processor("resnet18", model, image_size=96)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_bilinear_processor_gives_the_pixels_of_the_eval_transform(library):
    image = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    if library == "timm":
        model = load_image_classifier(timm_module("resnet18"), image_size=56)
        model.config.pretrained_cfg["crop_pct"] = 1.0
        processor = load_image_processor("resnet18", model)
    else:
        model = transformers_model("ResNet")
        processor = transformers.ViTImageProcessor(size={"height": 56, "width": 56}, resample=Image.Resampling.BICUBIC)
    settings = image_settings(model, processor)
    transform = EvalTransform((56, 56), settings.mean, settings.std, crop_pct=settings.crop_pct)
    expected, _ = transform(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])

    def difference():
        return (processor(image, return_tensors="pt")["pixel_values"] - expected).abs().max()

    assert difference() > 0.2
    resize_bilinearly(processor)
    assert difference() < 0.03  # 8-bit rounding


class TestBatchNorm:
    def test_frozen_statistics_stay_in_train_mode(self, pixels):
        model = tiny_model("timm", "resnet18")
        assert uses_batch_statistics(model)
        assert freeze_batch_norm_statistics(model) == 20
        assert not uses_batch_statistics(model)
        before = copy.deepcopy(dict(model.named_buffers()))
        expected = model.eval()(pixels).logits
        output = model.train()(pixels).logits
        torch.testing.assert_close(output, expected)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        output.square().sum().backward()
        assert model.timm_model.bn1.weight.grad.abs().sum() > 0

    def test_frozen_under_functional_call_and_saved_whole(self, pixels, tmp_path):
        model = tiny_model("timm", "tf_efficientnet_lite0")
        freeze_batch_norm_statistics(model)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.train()
        torch.func.functional_call(model, {**dict(model.named_parameters()), **buffers}, (pixels,))
        assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
        torch.save(model, tmp_path / "model.pt")
        again = torch.load(tmp_path / "model.pt", weights_only=False).train()
        assert not uses_batch_statistics(again)
        assert freeze_batch_norm_statistics(again) == freeze_batch_norm_statistics(model) == 49

    def test_frozen_from_loading_on(self):
        options = {"num_labels": 2, "pretrained": False, "image_size": 32}
        loaded = [load_image_classifier("test_resnet", freeze_batch_norm=freeze, **options) for freeze in (True, False)]
        assert [uses_batch_statistics(model.train()) for model in loaded] == [False, True]

    def test_models_without_batch_norm(self):
        model = tiny_model("transformers", "ViT")
        assert not uses_batch_statistics(model)
        assert freeze_batch_norm_statistics(model) == 0


def test_new_class_names_of_a_saved_timm_model_are_saved_again(tmp_path):
    load_image_classifier(timm.create_model("resnet10t", num_classes=2)).save_pretrained(tmp_path / "first")
    named = load_image_classifier(tmp_path / "first", id2label={0: "landbird", 1: "waterbird"})
    named.save_pretrained(tmp_path / "second")
    assert load_image_classifier(tmp_path / "second").config.id2label == {0: "landbird", 1: "waterbird"}


def test_no_adapter_is_looked_for_on_an_unreachable_hub(monkeypatch):
    """transformers would, with PEFT installed, and retry for half a minute."""
    asked = []
    monkeypatch.setattr("clp_hf.modeling.connection.hub_failure", lambda: OSError("down"))
    monkeypatch.setattr(
        "transformers.models.auto.auto_factory.find_adapter_config_file", lambda name, **kwargs: asked.append(kwargs)
    )
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load_image_classifier("owner/nothing")
    assert asked
    assert all(kwargs["local_files_only"] for kwargs in asked)


class TestModelsAsTheyCome:
    """Stored in half precision, for another problem, or unfit to be trained: each works or says why before training."""

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("library", ["timm", "transformers"])
    def test_half_precision_is_loaded_in_float32_and_said(self, library, dtype, tmp_path, caplog):
        name = {"timm": "resnet18", "transformers": "ViT"}[library]
        tiny_model(library, name).to(dtype).save_pretrained(tmp_path / "half")
        for pretrained in (True, False):
            caplog.clear()
            model = load_image_classifier(str(tmp_path / "half"), num_labels=2, pretrained=pretrained)
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
            if pretrained:
                assert f"has weights in {str(dtype).removeprefix('torch.')}; loaded in float32" in caplog.text
        load_image_classifier(str(tmp_path / "half")).save_pretrained(tmp_path / "trained")
        trained = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "trained")
        assert trained.dtype == torch.float32
        kept = load_image_classifier(str(tmp_path / "half"), dtype="auto")
        assert kept.dtype == dtype

    @pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
    def test_another_problem_becomes_one_label_an_image(self, problem, tmp_path, caplog):
        built = transformers_model("ViT")
        built.config.problem_type = problem
        built.save_pretrained(tmp_path)
        for source in (str(tmp_path), built):
            caplog.clear()
            model = load_image_classifier(source)
            assert f"was configured for {problem}; it is trained here to give one label an image" in caplog.text
            output = model(pixel_values=torch.rand(4, 3, SIZE, SIZE), labels=torch.tensor([0, 1, 2, 0]))
            torch.testing.assert_close(
                output.loss, nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 0]))
            )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"in_chans": 1}, "ResNet of timm does not give one row of 2 logits for an RGB image of 160 × 160"),
            ({"in_chans": 4}, "Build it for three channels"),
            ({"global_pool": ""}, "with its pooling"),
            ({"num_classes": 0}, "ResNet of timm has no classifier"),
            ({"features_only": True}, "FeatureListNet of timm has no classifier"),
        ],
    )
    def test_a_timm_model_that_is_no_classifier_of_images_says_so(self, settings, message):
        with pytest.raises(ValueError, match=message):
            load_image_classifier(timm.create_model("test_resnet", **{"num_classes": 2} | settings))
        if "in_chans" in settings:
            with pytest.raises(ValueError, match=message):
                load_image_classifier("test_resnet", pretrained=False, num_labels=2, model_args=settings)

    def test_a_size_that_is_no_multiple_of_the_patch(self):
        with pytest.raises(ValueError, match=r"\(test_vit\) does not take images of 100 × 100 pixels"):
            load_image_classifier("test_vit", pretrained=False, num_labels=2, image_size=100)

    @pytest.mark.parametrize("size", [0, (32, -1)])
    def test_a_size_of_nothing(self, size):
        with pytest.raises(ValueError, match=r"image_size is .* both have to be 1 or more"):
            load_image_classifier("test_resnet", pretrained=False, num_labels=2, image_size=size)

    def test_a_backbone_without_a_head_gives_no_logits(self, pixels):
        config = transformers.ViTConfig(**TRANSFORMERS["ViT"])
        with pytest.raises(ValueError, match="ViTModel gives no logits for RGB images of 32 × 32 pixels"):
            find_classifier_head(load_image_classifier(transformers.ViTModel(config)), pixels)
