import json

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data.scenarios.glt import BENCHMARKS, generalised_long_tail

FILES = [f"n00000001_{number}" for number in range(8)]


def split(numbers, labels):
    keys = [f"/elsewhere/train/n00000001/{FILES[number]}.JPEG" for number in numbers]
    return {
        "label": dict(zip(keys, labels, strict=True)),
        "attribute": {key: index % 3 for index, key in enumerate(keys)},
        "frequency": dict.fromkeys(keys, 0),
    }


def content(train):
    return {
        "cat2id": {"fish": "0", "bird": "1"},
        "id2cat": {"0": "fish", "1": "bird"},
        "train": split(train, ["0", "0", "1"]),
        "val": split([3, 4], ["0", "1"]),
        "test_lt": split([], []),
        "test_bl": split([5, 6], ["1", "0"]),
        "test_bbl": split([7, 5], ["1", "0"]),
    }


@pytest.fixture
def folder(tmp_path):
    for name, train in zip(BENCHMARKS["imagenet"].files, ([0, 1, 2], [2, 1, 0]), strict=True):
        (tmp_path / name).write_text(json.dumps(content(train)))
    return tmp_path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """As the Hub's ImageNet names its files; the red channel is the number."""
    source = tmp_path_factory.mktemp("images")
    paths = []
    for number, name in reversed(list(enumerate(FILES))):
        paths.append(str(source / f"{name}_n00000001.png"))
        Image.new("RGB", (2, 2), (number, 0, 0)).save(paths[-1])
    features = Features(picture=ImageFeature(), key=Value("string"))
    return Dataset.from_dict({"picture": paths, "key": FILES[::-1]}, features=features)


def numbers(dataset):
    return [image.getpixel((0, 0))[0] for image in dataset["image"]]


@pytest.mark.parametrize(
    ("protocol", "train", "test"),
    [("clt", [0, 1, 2], [5, 6]), ("glt", [0, 1, 2], [7, 5]), ("alt", [2, 1, 0], [7, 5])],
)
@pytest.mark.parametrize("id_column", [None, "key"])
def test_protocols(images, folder, protocol, train, test, id_column):
    splits = generalised_long_tail(images, "imagenet", protocol, folder, image_column="picture", id_column=id_column)
    assert {name: numbers(split) for name, split in splits.items()} == {
        "train": train,
        "validation": [3, 4],
        "test": test,
    }
    assert splits["train"]["label"][:] == [0, 0, 1]
    assert splits["train"]["attribute"][:] == [0, 1, 2]
    assert splits["test"].features["label"].names == ["fish", "bird"]
    assert splits["test"].column_names == ["image", "label", "attribute"]


def test_coco_takes_keys(images, folder):
    target = folder / BENCHMARKS["coco"].files[0]
    target.parent.mkdir()
    target.write_text((folder / BENCHMARKS["imagenet"].files[0]).read_text())
    splits = generalised_long_tail(images, "coco", "glt", folder, image_column="picture", id_column="key")
    assert numbers(splits["test"]) == [7, 5]


def test_absent_files_say_what_to_get_where(images, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"ALT protocol of imagenet needs .*inter_bl.json.*github.com/KaihuaTang"
    ):
        generalised_long_tail(images, "imagenet", "alt", tmp_path, image_column="picture")


def test_lacking_images_are_counted_and_listed(images, folder):
    with pytest.raises(ValueError, match=r"lacks 2 of the 3 images of 'train' in .*: n00000001_0, n00000001_1\."):
        generalised_long_tail(images.select(range(6)), "imagenet", "clt", folder, image_column="picture")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet", "lt"), "'lt'; choose one of clt, glt, alt"),
        (("places", "glt"), "'places'; choose one of imagenet, coco"),
    ],
)
def test_unknown_names(images, folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        generalised_long_tail(images, *arguments, folder)


def test_bad_data_is_named(images, folder):
    with pytest.raises(ValueError, match=r"no column \['image'\]"):
        generalised_long_tail(images, "imagenet", "glt", folder)
    twice = images.select([0, 1, 0])
    with pytest.raises(ValueError, match=r"Row 2 .* the same id as row 0"):
        generalised_long_tail(twice, "imagenet", "glt", folder, image_column="picture")
    (folder / BENCHMARKS["imagenet"].files[0]).write_text('{"train": {}}')
    with pytest.raises(ValueError, match=r"lacks \['id2cat', 'test_bbl', 'val'\]; it has \['train'\]"):
        generalised_long_tail(images, "imagenet", "glt", folder, image_column="picture")
