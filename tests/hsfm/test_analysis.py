from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from clp_hf.features import FeatureSet
from clp_hf.hsfm.analysis import (
    PLACES,
    clip_features,
    draw_neighbours,
    edit_displacement,
    nearest_images,
    nearest_words,
)


def feature_set(num_classes=2, num_attributes=2, n=900, noise=0.3, seed=0):
    """Coordinates: class one-hot times 10, attribute one-hot times 2, a noise coordinate; 95 % spurious."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % num_classes
    random = torch.randint(0, num_attributes, (n,), generator=generator)
    attributes = torch.where(torch.rand(n, generator=generator) < 0.9, labels % num_attributes, random)
    hot = torch.cat([10 * F.one_hot(labels, num_classes), 2 * F.one_hot(attributes, num_attributes)], 1)
    features = torch.cat([hot, torch.zeros(n, 1)], 1)
    features = features + noise * torch.randn(features.shape, generator=generator)
    return FeatureSet(features, torch.zeros(n, num_classes), labels, num_attributes * labels + attributes), attributes


# ---- displacements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "num_attributes"), [(2, 2), (3, 3), (2, 3)])
def test_an_edit_along_the_attribute_is_seen_there_and_not_along_the_class(num_classes, num_attributes):
    train, attributes = feature_set(num_classes, num_attributes)
    indices = torch.arange(30)
    before = train.features[indices]
    away = torch.zeros_like(before)
    away[:, num_classes:-1] = -F.one_hot(attributes[indices], num_attributes).float()
    found = edit_displacement(train, before, before + away, train.labels[indices], indices)
    assert (found.toward_attribute < -0.3).all()
    assert (found.toward_class.abs() < 0.05).all()
    assert torch.equal(found.attributes, attributes[indices])

    toward = torch.zeros_like(before)
    toward[:, :num_classes] = 10 * F.one_hot(train.labels[indices], num_classes)
    found = edit_displacement(train, before, before + toward, train.labels[indices], indices)
    assert (found.toward_class > 0.5).all()
    assert (found.toward_attribute.abs() < found.toward_class / 4).all()


def test_one_dimension_and_the_unit_is_the_training_deviation():
    values = torch.tensor([[0.0], [0.0], [4.0], [4.0]]).repeat(10, 1)  # standard deviation 2
    labels = torch.tensor([0, 0, 1, 1]).repeat(10)
    train = FeatureSet(values, torch.zeros(40, 2), labels)
    indices = torch.tensor([0, 2])
    found = edit_displacement(
        train, values[indices], values[indices] + 3, labels[indices], indices, attributes=1 - labels
    )
    torch.testing.assert_close(found.toward_class, torch.tensor([-1.5, 1.5]))
    torch.testing.assert_close(found.toward_attribute, torch.tensor([-1.5, 1.5]))
    torch.testing.assert_close(found.length, torch.tensor([1.5, 1.5]))


def test_summaries_per_class_and_group():
    train, attributes = feature_set()
    indices = torch.arange(60)
    before = train.features[indices]
    after = before + torch.arange(60)[:, None] * torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    found = edit_displacement(train, before, after, train.labels[indices], indices)
    classes, groups = found.per_class(), found.per_group()
    assert {label: row["count"] for label, row in classes.items()} == {0: 30, 1: 30}
    ones = found.toward_class[train.labels[indices] == 1]
    assert classes[1]["toward_class_mean"] == pytest.approx(ones.mean().item())
    assert classes[1]["toward_class_std"] == pytest.approx(ones.std(correction=0).item())
    assert sum(row["count"] for row in groups.values()) == 60
    in_group = (train.labels[indices] == 0) & (attributes[indices] == 0)
    assert groups[0, 0]["toward_attribute_mean"] == pytest.approx(found.toward_attribute[in_group].mean().item())


def test_displacement_errors_say_what_does_not_fit():
    train, attributes = feature_set()
    indices = torch.arange(4)
    before, labels = train.features[indices], train.labels[indices]

    def call(train=train, before=before, after=before, labels=labels, indices=indices, **kwargs):
        return edit_displacement(train, before, after, labels, indices, **kwargs)

    with pytest.raises(ValueError, match="not those of the training samples"):
        call(labels=1 - labels)
    with pytest.raises(ValueError, match=r"'after': \(3, 5\)"):
        call(after=before[:3])
    with pytest.raises(ValueError, match=r"0 … 899"):
        call(indices=indices + 897)
    with pytest.raises(ValueError, match="Pass `attributes`"):
        call(train=replace(train, groups=None))
    with pytest.raises(ValueError, match="cannot be read from them"):
        call(train=replace(train, groups=attributes))
    with pytest.raises(ValueError, match="all of attribute 0"):
        call(attributes=torch.zeros_like(attributes))
    with pytest.raises(ValueError, match="one attribute per training sample, 900"):
        call(attributes=attributes[:5])
    with pytest.raises(ValueError, match="do not vary"):
        call(train=replace(train, features=torch.ones(900, 5)))


# ---- nearest real images ---------------------------------------------------------------------------------------------


def test_nearest_by_cosine_without_the_sample_itself():
    features = torch.tensor([[1.0, 0], [0, 1], [5, 1], [1, 5], [0, 0]])
    train = FeatureSet(features, torch.zeros(5, 2), torch.tensor([0, 1, 0, 1, 0]))
    indices = torch.tensor([0, 1])
    assert nearest_images(train, features[indices], indices, k=2).tolist() == [[2, 3], [3, 2]]
    edited = torch.tensor([[0.1, 9.0], [0.0, 9.0]])
    assert nearest_images(train, edited, indices, k=1).tolist() == [[1], [3]]
    with pytest.raises(ValueError, match=r"1 … 4"):
        nearest_images(train, edited, indices, k=5)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        nearest_images(train, edited[:, :1], indices)


@pytest.mark.parametrize("kind", ["dataset", "callable"])
def test_picture_shows_the_images_asked_for(kind, tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    images = [Image.new("RGB", (8, 8), colour) for colour in colours]
    source = Dataset.from_dict({"image": images}) if kind == "dataset" else images.__getitem__
    path = tmp_path / "pictures" / "neighbours.png"
    draw_neighbours(path, source, torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[3]]), captions=list("abcd"))
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    areas = [(pixels == colour).all(1).sum() for colour in colours]
    assert areas[2] == 0
    assert min(areas[0], areas[1], areas[3]) > 1000
    with pytest.raises(ValueError, match=r"n = 2 samples, got \(1, 1\)"):
        draw_neighbours(path, source, torch.tensor([0, 1]), torch.tensor([[1]]), torch.tensor([[3]]))


# ---- words -----------------------------------------------------------------------------------------------------------

LENGTH = 12


def save(folder, kind):
    """A tiny random CLIP or SigLIP with its tokenizer."""
    torch.manual_seed(0)
    vocabulary = {
        word: index for index, word in enumerate(["<pad>", "<unk>", "x", "<eos>", "a", "photo", "of", *PLACES])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        model_input_names=["input_ids", "attention_mask"] if kind == "clip" else ["input_ids"],
    ).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = size | {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": LENGTH,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    vision = size | {"image_size": 8, "patch_size": 4}
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=10))
    else:
        model = SiglipModel(SiglipConfig(text_config=text | {"projection_size": 16}, vision_config=vision))
    for name, parameter in model.text_model.named_parameters():
        # The usual initialisation gives every text nearly the same embedding: here the last token sees the others.
        if "q_proj" in name:
            torch.nn.init.zeros_(parameter)
        elif name.endswith(("token_embedding.weight", "v_proj.weight", "out_proj.weight")):
            torch.nn.init.normal_(parameter)
    model.eval().save_pretrained(folder)
    return model, vocabulary


@pytest.mark.parametrize(("kind", "d"), [("clip", 10), ("siglip", 16)])
def test_words_of_an_edit_from_one_text_to_another(kind, d, tmp_path):
    model, vocabulary = save(tmp_path, kind)

    def embed(word):
        ids = [4, 5, 6, vocabulary[word], 3]
        ids = torch.tensor([ids + [0] * (LENGTH - len(ids))])
        with torch.no_grad():
            return F.normalize(model.get_text_features(input_ids=ids).pooler_output[0], dim=0)

    land, water, sky = map(embed, ("land", "water", "sky"))
    displacement = torch.stack([water - land, 3 * (water - land), sky])
    found = nearest_words(tmp_path, displacement, torch.tensor([0, 0, 2]), template="a photo of {}")
    assert list(found) == [0, 2]
    assert {word for word, _ in found[0]} == set(PLACES)
    scores = dict(found[0])
    assert scores["water"] == pytest.approx(torch.dot(F.normalize(water - land, dim=0), water).item(), abs=1e-4)
    assert found[0] == sorted(found[0], key=lambda pair: -pair[1])
    assert scores["water"] > 0 > scores["land"]
    assert found[2][0] == ("sky", pytest.approx(1, abs=1e-4))

    only = nearest_words(tmp_path, displacement, torch.tensor([0, 0, 2]), ["river", "sky"])
    assert only[2][0][0] == "sky"
    with pytest.raises(ValueError, match=rf"\(3, {d}\).*got \(3, 4\)"):
        nearest_words(tmp_path, displacement[:, :4], torch.tensor([0, 0, 2]))
    with pytest.raises(ValueError, match="class 1 are zero"):
        nearest_words(tmp_path, torch.cat([displacement[:1], -displacement[:1]]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="one word or more"):
        nearest_words(tmp_path, displacement, torch.tensor([0, 0, 2]), [])


@pytest.mark.parametrize(("kind", "d"), [("clip", 10), ("siglip", 16)])
def test_image_features_are_in_the_space_of_the_texts(kind, d, tmp_path):
    model, _ = save(tmp_path, kind)
    pixel_values = torch.randn(3, 3, 8, 8)
    features = clip_features(model, pixel_values)
    assert features.shape == (3, d)
    assert not features.requires_grad
    ids = torch.tensor([[4, 5, 6, 7, 3] + [0] * (LENGTH - 5)])
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=pixel_values)
    torch.testing.assert_close(F.normalize(features), output.image_embeds)


def test_models_without_a_text_tower_are_refused(tmp_path):
    model, _ = save(tmp_path / "clip", "clip")
    CLIPForImageClassification(model.config).save_pretrained(tmp_path / "classifier")
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)).save_pretrained(
        tmp_path / "vit"
    )
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("text_model")}
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    for folder in ("classifier", "vit", "clip"):
        with pytest.raises(ValueError, match="has no text embeddings"):
            nearest_words(tmp_path / folder, torch.ones(1, 10), torch.tensor([0]))
