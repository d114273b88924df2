import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from datasets import Image as ImageFeature
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from clp_hf.data.dataset import ImageClassificationDataset, to_grey, to_rgb
from clp_hf.data.transforms import EvalTransform, TrainTransform

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def split(images, masks=None, boxes=None, group=None):
    columns = {"image": images, "label": [i % 2 for i in range(len(images))]}
    features = {"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])}
    if masks is not None:
        columns["mask"], features["mask"] = masks, ImageFeature(mode="L")
    if boxes is not None:
        columns["box"], features["box"] = boxes, Sequence(Value("float32"))
    if group is not None:
        columns["group"], features["group"] = group, ClassLabel(names=["g0", "g1"])
    return Dataset.from_dict(columns, features=Features(features))


def noise(n=4, size=(16, 16)):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(n)]


def test_items_follow_the_contract():
    images = noise()
    masks = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (0, 255, 0, 255)]
    data = ImageClassificationDataset(
        split([png(i) for i in images], [png(m) for m in masks], group=[0, 1, 0, 1]), EvalTransform(16, **PLAIN)
    )
    assert len(data) == 4
    for item, image, value in zip(data.__getitems__([3, 0]), (images[3], images[0]), (1, 0), strict=True):
        assert set(item) == {"pixel_values", "labels", "mask", "group"}
        assert item["pixel_values"].dtype == item["mask"].dtype == torch.float32
        np.testing.assert_allclose(item["pixel_values"].permute(1, 2, 0) * 255, np.asarray(image), atol=1e-3)
        assert item["mask"].shape == (1, 16, 16)
        assert (item["mask"] == value).all()
    assert [type(data[3][key]) for key in ("labels", "group")] == [int, int]
    assert (data[3]["labels"], data[3]["group"]) == (1, 1)


def test_one_item_is_a_batch_of_one_and_the_loader_uses_batches(monkeypatch):
    data = ImageClassificationDataset(split([png(i) for i in noise()]), EvalTransform(16, **PLAIN))
    torch.testing.assert_close(data[2]["pixel_values"], data.__getitems__([1, 2])[1]["pixel_values"])
    sizes, transform = [], data.transform
    data.transform = lambda images, masks: sizes.append(len(images)) or transform(images, masks)
    assert len(list(torch.utils.data.DataLoader(data, batch_size=2))) == 2
    assert sizes == [2, 2]


def test_over_budget_decodes_on_access_with_the_same_result():
    encoded = split([png(i) for i in noise()])
    kept, lazy = (ImageClassificationDataset(encoded, EvalTransform(12, **PLAIN), memory_budget=b) for b in (2**20, 10))
    assert kept.stored is not None
    assert lazy.stored is None
    torch.testing.assert_close(kept[3]["pixel_values"], lazy[3]["pixel_values"])


def test_what_is_decoded_later_is_the_same_and_copies_share_it():
    encoded = split([png(i) for i in noise()], masks=[png(i.convert("L")) for i in noise()])
    now = ImageClassificationDataset(encoded, EvalTransform(12, **PLAIN))
    later = ImageClassificationDataset(encoded, EvalTransform(12, **PLAIN), decode=False)
    copy = later.learned(weight=torch.ones(len(later)))
    assert later.stored is None
    assert later.fingerprint == now.fingerprint
    torch.testing.assert_close(later[3], now[3])
    later.decode()
    assert copy.stored is later.stored
    assert torch.equal(later.stored, now.stored)
    kept = later.stored
    copy.decode()
    assert later.stored is kept


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_masks_of_turned_photos_fit_before_they_are_decoded(file_format):
    photo, exif, buffer = Image.new("RGB", (32, 16)), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # turned by a quarter: 16 wide, 32 high
    photo.save(buffer, format=file_format, exif=exif)
    encoded = split([{"bytes": buffer.getvalue(), "path": None}], masks=[png(Image.new("L", (16, 32), 255))])
    data = ImageClassificationDataset(encoded, EvalTransform(16, **PLAIN), decode=False)
    assert next(data.masks()).shape == (1, 32, 16)


def test_images_of_different_sizes_are_squeezed_to_one():
    images = [Image.new("RGB", size, (255, 0, 0)) for size in ((40, 20), (16, 64), (300, 300))]
    data = ImageClassificationDataset(split([png(i) for i in images]), TrainTransform((24, 12), **PLAIN))
    assert data.storage_size == (32, 16)  # 4/3 of the output
    assert all(item["pixel_values"].shape == (3, 24, 12) for item in data.__getitems__([0, 1, 2]))


def test_a_large_jpeg_is_decoded_at_the_size_it_is_needed_upright(monkeypatch):
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    photo = small.resize((640, 480), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    photo.save(buffer, format="JPEG", quality=95, exif=exif)
    encoded = split([{"bytes": buffer.getvalue(), "path": None}])
    drafted = []
    draft = JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda *args: drafted.append(draft(*args)) or drafted[-1])

    def pixels(**options):
        return ImageClassificationDataset(encoded, EvalTransform(32, **PLAIN), **options)[0]["pixel_values"]

    found = pixels()
    assert len(drafted) == 1
    whole = photo.transpose(Image.Transpose.ROTATE_270).resize((42, 42), Image.Resampling.BILINEAR)
    expected = EvalTransform(32, **PLAIN)(torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None])[0][0]
    assert (found - expected).abs().mean() < 0.01
    pixels(storage_size=(300, 300))  # which needs all pixels
    assert len(drafted) == 1


def test_box_becomes_a_mask():
    data = ImageClassificationDataset(
        split([png(i) for i in noise(2)], boxes=[[2, 4, 8, 16], [0, 0, 1, 1]]), EvalTransform(16, **PLAIN)
    )
    expected = torch.zeros(1, 16, 16)
    expected[:, 4:16, 2:8] = 1
    torch.testing.assert_close(data[0]["mask"], expected)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 7), (7, 7, 7)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 255)), (200, 0, 0)),
        (Image.new("LA", (2, 2), (100, 0)), (255, 255, 255)),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("RGB", (2, 2), (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE), (9, 8, 7)),
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((2, 2), 257 * 3, np.int32)), (3, 3, 3)),
    ],
    ids=["L", "1", "RGBA-clear", "RGBA", "LA", "CMYK", "P", "I;16", "I"],
)
def test_every_mode_becomes_rgb(image, expected):
    assert to_rgb(image).getpixel((1, 1)) == expected


def test_sixteen_bit_survives_the_data_set():
    image = Image.fromarray(np.full((16, 16), 257 * 128, np.uint16))
    data = ImageClassificationDataset(split([png(image)] * 2), EvalTransform(16, **PLAIN))
    torch.testing.assert_close(data[0]["pixel_values"], torch.full((3, 16, 16), 128 / 255))


def test_zero_one_masks_are_read_as_binary():
    assert to_grey(Image.fromarray(np.eye(3, dtype=np.uint8))).getpixel((1, 1)) == 255
    assert to_grey(Image.fromarray(np.full((3, 3), 200, np.uint8))).getpixel((1, 1)) == 200


def test_corrupt_image_names_split_and_index():
    images = [png(i) for i in noise(3)]
    images[1]["bytes"] = images[1]["bytes"][:60]
    with pytest.raises(ValueError, match="validation, index 1: the image cannot be decoded"):
        ImageClassificationDataset(split(images), EvalTransform(16, **PLAIN), name="validation")


def test_missing_image_names_index():
    with pytest.raises(ValueError, match="train, index 2: the image cannot be decoded: it is missing"):
        ImageClassificationDataset(split([*map(png, noise(2)), None]), EvalTransform(16, **PLAIN), name="train")


def test_mask_of_another_size_names_both():
    masks = [png(Image.new("L", size, 255)) for size in ((16, 16), (8, 16))]
    with pytest.raises(ValueError, match="index 1: the mask is 8 x 16 pixels, its image 16 x 16"):
        ImageClassificationDataset(split([png(i) for i in noise(2)], masks), EvalTransform(16, **PLAIN))
