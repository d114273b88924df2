"""Images of any depth are read right, or refused by name; what a split is kept at, and when its features are stale."""

import io
import os
import time

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clp_hf.data import EvalTransform, ImageClassificationDataset, TrainTransform
from clp_hf.data.pixels import to_rgb

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
WHITE = {"16 bits": 65535, "12 bits": 4095, "8 bits": 255, "unit": 1}
KINDS = {"uint16": ("PNG", np.uint16), "int32": ("TIFF", np.int32), "float32": ("TIFF", np.float32)}


def encoded(values, kind):
    """A file of these values, as a data set holds it."""
    (file_format, dtype), buffer = KINDS[kind], io.BytesIO()
    Image.fromarray(np.asarray(values).astype(dtype)).save(buffer, file_format)
    return {"bytes": buffer.getvalue(), "path": None}


def split(images):
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": [i % 2 for i in range(len(images))]}, features=features)


def grey(dataset, index):
    return (dataset[index]["pixel_values"][0] * 255).numpy()


@pytest.mark.parametrize(
    ("kind", "depth"),
    [(kind, depth) for kind in KINDS for depth in WHITE if depth != "unit" or kind == "float32"],
)
@given(ramp=st.lists(st.integers(0, 255), min_size=8, max_size=8))
def test_the_same_picture_at_every_depth(kind, depth, ramp):
    """Whatever is in it, as long as it has a bright pixel."""
    picture = np.array([[*ramp, 255]] * 3) / 255
    image = ImageFeature().decode_example(encoded(picture * WHITE[depth], kind))
    np.testing.assert_allclose(np.asarray(to_rgb(image))[..., 0], picture * 255, atol=1.01)


@pytest.mark.parametrize(("kind", "depth"), [("uint16", "12 bits"), ("float32", "unit"), ("float32", "16 bits")])
def test_what_is_white_is_decided_by_the_split(kind, depth):
    """A dark image stays dark: by its own values it would be bright, or not be sure."""
    bright, dark = np.full((8, 8), 1.0), np.full((8, 8), 0.05)
    images = [encoded(picture * WHITE[depth], kind) for picture in (dark, bright, dark)]
    data = ImageClassificationDataset(split(images), EvalTransform(8, **PLAIN))
    np.testing.assert_allclose(grey(data, 0), 0.05 * 255, atol=1)
    np.testing.assert_allclose(grey(data, 1), 255, atol=1)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("int32", [-1000, 1000], "index 1: its values are -1000 … 1000, and negative ones are no shade of grey. Scale"),
        ("int32", [0, 10**6], r"index 1: its values reach 1e\+06, above 16 bits"),
        ("float32", [0, np.nan], "index 1: it has values that are not finite"),
        ("float32", [0, 3], "index 1: the largest value of all images of mode F is 3, which does not tell"),
        ("uint16", [0, 700], "index 1: the largest value of all images of mode I is 700, which does not tell"),
    ],
)
@pytest.mark.parametrize("budget", [2**20, 0], ids=["in memory", "on access"])
def test_what_is_not_sure_is_refused_by_index(kind, values, message, budget):
    images = [encoded(np.zeros((2, 2)), kind), encoded([values, values], kind)]
    with pytest.raises(ValueError, match=f"^pool, {message}"):
        ImageClassificationDataset(split(images), EvalTransform(2, **PLAIN), name="pool", memory_budget=budget)[1]


def test_a_transparent_value_of_16_bits_becomes_white():
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 30000, 65535]], np.uint16)).save(buffer, "PNG", transparency=0)
    assert np.asarray(to_rgb(Image.open(buffer)))[0, :, 0].tolist() == [255, 117, 255]


def test_a_decompression_bomb_is_named(monkeypatch):
    images = [encoded(np.zeros((4, 4)), "uint16"), encoded(np.zeros((40, 40)), "uint16")]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"train, index 1: the image cannot be decoded: Image size \(1600 pixels"):
        ImageClassificationDataset(split(images), EvalTransform(4, **PLAIN), name="train")


@pytest.mark.parametrize("odd", [(1, 1), (3, 40), (16, 16)])
@pytest.mark.parametrize("position", [0, 5, 9])
def test_one_small_image_costs_the_others_nothing(odd, position):
    pictures = [Image.effect_noise((48, 48), 100) for _ in range(10)]
    pictures[position] = Image.new("L", odd)
    data = ImageClassificationDataset(split(pictures), TrainTransform(48, **PLAIN))
    assert data.storage_size == (48, 48)
    np.testing.assert_array_equal(data.stored[(position + 1) % 10, 0], np.asarray(pictures[(position + 1) % 10]))


def test_small_images_are_kept_small():
    data = ImageClassificationDataset(split([Image.new("L", (12, 9))] * 3), TrainTransform(96, **PLAIN))
    assert data.storage_size == (12, 12)


@pytest.mark.parametrize("budget", [2**20, 0], ids=["in memory", "on access"])
def test_the_fingerprint_is_of_what_the_files_hold(tmp_path, budget):
    paths = [tmp_path / f"{index}.png" for index in range(3)]

    def fingerprint():
        data = split([str(path) for path in paths])
        return ImageClassificationDataset(data, EvalTransform(8, **PLAIN), memory_budget=budget).fingerprint

    for path in paths:
        Image.new("RGB", (8, 8), "red").save(path)
    before = fingerprint()
    assert fingerprint() == before
    status = os.stat(paths[1])
    Image.new("RGB", (8, 8), "blue").save(paths[1])
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint() != before


def test_what_was_decoded_before_a_file_changed_is_not_what_the_file_holds(tmp_path):
    path = tmp_path / "image.png"

    def data():
        return ImageClassificationDataset(split([str(path)]), EvalTransform(8, **PLAIN))

    Image.new("RGB", (8, 8), "red").save(path)
    old = data()
    before = old.fingerprint
    time.sleep(0.05)  # more than a file system's clock is behind
    Image.new("RGB", (8, 8), "blue").save(path)
    assert len({before, old.fingerprint, data().fingerprint}) == 3


@pytest.mark.parametrize("budget", [2**20, 0], ids=["in memory", "on access"])
def test_the_fingerprint_is_of_labels_and_transform_too(budget):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]

    def data(transform=EvalTransform(8, **PLAIN)):  # noqa: B008
        return ImageClassificationDataset(split(pictures), transform, memory_budget=budget)

    changed = data()
    changed.labels = 1 - changed.labels
    others = [changed, data(EvalTransform(8, (0.5,) * 3, (1, 1, 1))), data(EvalTransform(8, **PLAIN, crop_pct=0.5))]
    assert len({each.fingerprint for each in (data(), data(), *others)}) == 4
    assert torch.equal(data()[0]["pixel_values"], data()[0]["pixel_values"])
