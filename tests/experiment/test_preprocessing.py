"""What a classifier is evaluated on is what `pipeline` and timm feed the saved one, at every aspect ratio."""

import numpy as np
import pytest
import timm
import torch
import transformers
from conftest import resnet
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from clp_hf import CLPTrainingArguments
from clp_hf.data import ImageClassificationDataset, ProcessorTransform, TrainTransform
from clp_hf.experiment import METHODS, DataArguments, Experiment, ModelArguments
from clp_hf.experiment.evaluation import evaluate_checkpoint
from clp_hf.hub.pushing import for_timm
from clp_hf.modeling import image_settings, load_image_classifier, load_image_processor, squash_bilinearly

SIZES = [(160, 20), (20, 160), (64, 64), (50, 37), (4, 32)]  # width x height
SQUARE, CROP = {"height": 32, "width": 32}, {"crop_size": {"height": 32, "width": 32}}
WIDER = {"height": 36, "width": 36}
PROCESSORS = {
    "Beit": {"size": WIDER, "do_center_crop": True, **CROP},
    "Bit": {"size": {"shortest_edge": 40}, **CROP},
    "CLIP": {"size": {"shortest_edge": 32}, **CROP},
    "ConvNext": {"size": {"shortest_edge": 32}},
    "DeiT": {"size": WIDER, **CROP},
    "Donut": {"size": SQUARE},
    "EfficientNet": {"size": SQUARE},
    "Levit": {"size": {"shortest_edge": 32}, **CROP},
    "MobileNetV1": {"size": {"shortest_edge": 36}, **CROP},
    "MobileNetV2": {"size": {"shortest_edge": 36}, **CROP},
    "Perceiver": {"size": SQUARE, "crop_size": WIDER},
    "PoolFormer": {"size": {"shortest_edge": 32}, **CROP},
    "Pvt": {"size": SQUARE},
    "Segformer": {"size": SQUARE},
    "Siglip": {"size": SQUARE},
    "ViT": {"size": SQUARE},
}
TIMM = [{}, {"crop_mode": "border"}, {"crop_mode": "squash", "crop_pct": 0.8}, {"input_size": (3, 32, 48)}]


def noise(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def split(images, masks=None):
    columns = {"image": images, "label": [0] * len(images)}
    features = {"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])}
    if masks is not None:
        columns["mask"], features["mask"] = masks, ImageFeature()
    return Dataset.from_dict(columns, features=Features(features))


def evaluated(processor, model, images, masks=None):
    transform = ProcessorTransform(processor, image_settings(model, processor))
    return ImageClassificationDataset(split(images, masks), transform)


@pytest.fixture(params=[False, True], ids=["as it is", "squashed"])
def squashed(request):
    return request.param


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_a_saved_transformers_processor(name, squashed, tmp_path):
    processor, model = getattr(transformers, f"{name}ImageProcessor")(**PROCESSORS[name]), resnet(2)
    if squashed:
        processor = squash_bilinearly(processor, image_settings(model, processor))
    processor.save_pretrained(tmp_path)
    saved = AutoImageProcessor.from_pretrained(tmp_path)
    images = [noise(size) for size in SIZES]
    for item, image in zip(evaluated(processor, model, images), images, strict=True):
        expected = saved(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(item["pixel_values"], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", TIMM, ids=str)
def test_pixels_are_those_of_timm(config, squashed, tmp_path):
    model = load_image_classifier(timm.create_model("test_resnet", num_classes=2), image_size=32)
    model.config.pretrained_cfg = {**model.config.pretrained_cfg, **config}
    processor = load_image_processor("test_resnet", model)
    if squashed:
        processor = squash_bilinearly(processor, image_settings(model, processor))
    model.save_pretrained(tmp_path, state_dict=for_timm(model, processor, None))
    read = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(read))
    piped = pipeline("image-classification", str(tmp_path)).image_processor
    images = [noise(size) for size in SIZES]
    for item, image in zip(evaluated(processor, model, images), images, strict=True):
        torch.testing.assert_close(item["pixel_values"], transform(image), atol=1e-4, rtol=0)
        torch.testing.assert_close(item["pixel_values"], piped(image)["pixel_values"][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["Bit", "ViT", "ConvNext", "timm", "timm border"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(8, 96), height=st.integers(8, 96))
def test_masks_go_the_way_of_the_pixels(name, squashed, width, height):
    """A mask that is the image's red channel stays so, and there is no mask where the processor pads."""
    model = resnet(2)
    if name.startswith("timm"):
        config = {"input_size": (3, 32, 32), "interpolation": "bicubic", "crop_mode": name[5:] or "center"}
        processor = transformers.TimmWrapperImageProcessor(config)
    else:
        processor = getattr(transformers, f"{name}ImageProcessor")(**PROCESSORS[name])
    settings_ = image_settings(model, processor)
    if squashed:
        processor = squash_bilinearly(processor, settings_)
    mask = Image.effect_noise((width, height), 90)
    image = Image.merge("RGB", (mask, Image.new("L", mask.size), Image.new("L", mask.size)))
    item = evaluated(processor, model, [image], [mask])[0]
    red, green, _ = item["pixel_values"] * torch.tensor(settings_.std)[:, None, None] + torch.tensor(
        settings_.mean
    ).view(3, 1, 1)
    torch.testing.assert_close(item["mask"][0], torch.where(green > 0.01, 0, red), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["Bit", "ViT", "MobileNetV2"])
def test_a_squashed_processor_shows_what_training_shows(name):
    """Of an elongated image all of it, as the crops of training together; at their own ratio nothing is different."""
    model, image = resnet(2), Image.effect_mandelbrot((160, 40), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    processor = getattr(transformers, f"{name}ImageProcessor")(**PROCESSORS[name] | {"resample": 2})
    found = image_settings(model, processor)
    squash = squash_bilinearly(processor, found)
    whole = TrainTransform((32, 32), found.mean, found.std, (found.crop_pct**2,) * 2, (1, 1), flip=0)
    trained = torch.stack([ImageClassificationDataset(split([image]), whole)[0]["pixel_values"] for _ in range(100)])
    seen = evaluated(squash, model, [image])[0]["pixel_values"]
    assert ((trained - seen).abs().mean((1, 2, 3))).min() < 0.06
    square = image.crop((0, 0, 40, 40))
    pair = [evaluated(each, model, [square])[0]["pixel_values"] for each in (processor, squash)]
    torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


def test_a_processor_without_one_size_names_the_image():
    processor = transformers.TextNetImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    with pytest.raises(ValueError, match="index 1: TextNetImageProcessor makes 32 × 96 pixels of an image of 20 × 60"):
        evaluated(processor, resnet(2), [noise((20, 20)), noise((60, 20))])


def elongated(length):
    """Whose class is at the left end, where a centre crop does not see it."""
    images = []
    for index in range(length):
        image = noise((160, 40), index).point(lambda value: value // 8)
        image.paste((220, 30, 30) if index % 2 else (30, 30, 220), (0, 0, 36, 40))
        images.append(image)
    labels = [index % 2 for index in range(length)]
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_an_evaluation_says_what_the_pipeline_says(tmp_path):
    """Of somebody's checkpoint, whose processor crops."""
    model = resnet(2)
    model.config.id2label, model.config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    model.classifier[1].weight.data.mul_(30)
    model.save_pretrained(tmp_path / "model")
    transformers.BitImageProcessor(**PROCESSORS["Bit"]).save_pretrained(tmp_path / "model")
    data = elongated(24)
    (tmp_path / "data").mkdir()
    data.to_parquet(tmp_path / "data" / "test.parquet")
    found = evaluate_checkpoint(str(tmp_path / "model"), str(tmp_path / "data"))
    classify = pipeline("image-classification", str(tmp_path / "model"))
    right = [classify(row["image"])[0]["label"] == "ab"[row["label"]] for row in data]
    assert found.metrics["accuracy"] == pytest.approx(np.mean(right))


def test_a_run_publishes_what_it_evaluated(tmp_path):
    """Trained until it is right, on what only the whole image shows."""
    splits = DatasetDict(train=elongated(40), validation=elongated(24), test=elongated(20))
    args = CLPTrainingArguments(
        str(tmp_path / "run"), max_steps=40, learning_rate=0.05, per_device_train_batch_size=8, meta_samples=2,
        optim="sgd", use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    model = ModelArguments(model_name_or_path="test_resnet", pretrained=False, freeze_batch_norm=False)
    experiment = Experiment(DataArguments(image_size=32), model, args, splits=splits)
    results = experiment.run(METHODS["erm"], args.output_dir)
    classify = pipeline("image-classification", args.output_dir)
    answers = [classify(row["image"])[0]["label"] for row in splits["test"]]
    assert np.mean([answer == "ab"[row["label"]] for answer, row in zip(answers, splits["test"], strict=True)]) == (
        pytest.approx(results["test_accuracy"])
    )
    assert results["test_accuracy"] > 0.9
    shown = classify.image_processor(splits["test"][0]["image"])["pixel_values"][0]
    torch.testing.assert_close(experiment.test[0]["pixel_values"], shown, atol=1e-4, rtol=0)
