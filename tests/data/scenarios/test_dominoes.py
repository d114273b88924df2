import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import dominoes, load_classification_dataset
from clp_hf.data.groups import counts


def pictures(per_class, names, size, mode="RGB", label="label"):
    """Each image has one colour of its own: red is the class, green and blue number it (L: the class alone)."""
    labels = np.arange(per_class * len(names)) % len(names)
    images = [
        Image.new(mode, size, 50 * int(c) if mode == "L" else (50 * int(c), index // 250, index % 250))
        for index, c in enumerate(labels)
    ]
    kind = ClassLabel(names=names) if isinstance(names[0], str) else Value("int64")
    features = Features({"image": ImageFeature(), label: kind})
    return Dataset.from_dict({"image": images, label: labels}, features=features)


@pytest.fixture(scope="module")
def sources():
    return pictures(120, [0, 1], (20, 12)), pictures(120, ["cat", "dog"], (9, 9))


@pytest.fixture(scope="module")
def built(sources):
    return dominoes(*sources, 100, 40, 40, width=8, correlation=0.9, seed=1)


def test_train_is_correlated_and_evaluation_balanced(built):
    assert counts(built["train"]) == {"cat_0": 45, "cat_1": 5, "dog_0": 5, "dog_1": 45}
    assert list(counts(built["validation"]).values()) == list(counts(built["test"]).values()) == [10] * 4


def test_the_top_is_the_attribute_and_the_bottom_the_class(built):
    for split in built.values():
        for example in split:
            pixels = np.asarray(example["image"])
            assert pixels.shape == (16, 8, 3)
            assert (pixels[:8, :, 0] == 50 * example["attribute"]).all()
            assert (pixels[8:, :, 0] == 50 * example["label"]).all()
            assert example["group"] == 2 * example["label"] + example["attribute"]
    mask = built["test"][0]["mask"]
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), np.repeat([0, 255], 8)[:, None].repeat(8, 1))


def test_no_image_is_used_twice(built):
    pixels = [np.asarray(image) for split in built.values() for image in split["image"]]
    for part in (0, 8):
        assert len({tuple(image[part, 0]) for image in pixels}) == len(pixels) == 180


def test_the_loader_takes_it(built):
    loaded = load_classification_dataset(built)
    assert set(loaded["train"].column_names) == {"image", "label", "attribute", "group", "mask"}
    assert loaded["train"].features["group"].names == ["cat_0", "cat_1", "dog_0", "dog_1"]
    assert loaded["train"]["group"][:] == built["train"]["group"][:]


def test_seed_decides_everything(sources):
    def bytes_of(seed):
        train = dominoes(*sources, 20, 4, 4, width=4, seed=seed)["train"]
        return [np.asarray(image).tobytes() for image in train["image"]]

    assert bytes_of(0) == bytes_of(0)
    assert set(bytes_of(0)) != set(bytes_of(1))


@pytest.fixture(scope="module")
def split_sources(sources):
    """The sources in three splits of 120, 60 and 60 images."""

    def in_three(source):
        ends = {"train": range(120), "validation": range(120, 180), "test": range(180, 240)}
        return DatasetDict({name: source.select(rows) for name, rows in ends.items()})

    return tuple(map(in_three, sources))


def numbers(split, part):
    """Which source image stands in each picture: what `pictures` wrote into green and blue."""
    pixels = np.stack([np.asarray(image)[part, 0] for image in split["image"]]).astype(int)
    return 250 * pixels[:, 1] + pixels[:, 2]


def test_splits_keep_to_the_splits_of_their_sources(split_sources):
    built = dominoes(*split_sources, 100, 40, 60, width=8, correlation=0.5)
    for part in (0, 8):
        for name, (low, high) in {"train": (0, 120), "validation": (120, 180), "test": (180, 240)}.items():
            found = numbers(built[name], part)
            assert len(set(found)) == len(found)
            assert low <= found.min() <= found.max() < high


def test_top_images_repeat_evenly_and_within_their_split(split_sources, sources):
    top, bottom = split_sources
    few = DatasetDict({name: split.select(range(20)) for name, split in top.items()})
    for source in (few, sources[0].select(range(60))):
        built = dominoes(source, bottom, 100, 40, 60, width=8, correlation=0.5, repeat_top=True)
        seen = {name: np.unique(numbers(split, 0), return_counts=True) for name, split in built.items()}
        images = [image for found, _ in seen.values() for image in found]
        assert len(set(images)) == len(images)
        assert all(counts.max() - counts.min() <= 1 for _, counts in seen.values())
        assert counts_of(built) == counts_of(dominoes(*split_sources, 100, 40, 60, width=8, correlation=0.5))
        assert len({n for split in built.values() for n in numbers(split, 8)}) == 200  # the bottom ones do not
    with pytest.raises(ValueError, match=r"Too few top images, each is used once.*'0 \(train\)': '10 of 50'"):
        dominoes(few, bottom, 100, 40, 60, correlation=0.5)
    with pytest.raises(ValueError, match=r"Too few top images: of the classes .*'0': '2 of 100'"):
        dominoes(sources[0].select(range(4)), bottom, 100, 40, 60, repeat_top=True)  # of two none for a third split


def counts_of(built):
    return {name: counts(split) for name, split in built.items()}


def test_a_missing_split_is_named(split_sources):
    top, bottom = split_sources
    with pytest.raises(ValueError, match=r"top data set lacks the splits \['validation'\]; it has \['train', 'test'\]"):
        dominoes(DatasetDict(train=top["train"], test=top["test"]), bottom, 20, 4, 4)


def test_three_classes_chosen_by_name_and_integer_in_their_order():
    top = pictures(60, ["zero", "one", "two", "three"], (8, 8), mode="L")
    bottom = pictures(60, ["a", "b", "c"], (6, 6), label="fine_label")
    built = dominoes(
        top,
        bottom,
        91,
        27,
        10,
        correlation=0.8,
        evaluation_correlation=0.5,
        width=4,
        top_classes=["three", 0, "one"],
        bottom_columns=("image", "fine_label"),
    )
    assert built["train"].features["attribute"].names == ["three", "zero", "one"]
    table = np.reshape(list(counts(built["train"]).values()), (3, 3))
    np.testing.assert_array_equal(table, [[25, 3, 3], [3, 24, 3], [3, 3, 24]])
    np.testing.assert_array_equal(list(counts(built["validation"]).values()), [4, 3, 2, 2, 4, 3, 3, 2, 4])
    example = next(row for row in built["train"] if row["attribute"] == 0)
    assert (np.asarray(example["image"])[:4] == 150).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_train": 400}, r"Too few top images.*'0': '120 of 220'"),
        ({"bottom_classes": ["cat", "cow"]}, r"no class 'cow' in the bottom data set; it has \['cat', 'dog'\]"),
        ({"top_classes": [0, 7]}, "no class 7 in the top"),
        ({"top_classes": [0, 0]}, "names a class twice"),
        ({"top_classes": [1]}, r"same number of classes.*got 1 \(\['1'\]\) and 2"),
        ({"correlation": 1.1}, r"'train'.*correlation in \[0, 1\], got 100 images and 1.1"),
        ({"evaluation_correlation": -0.1}, "'validation'"),
        ({"n_test": 1}, "'test' needs at least one image"),
        ({"width": 0}, "width must be"),
        ({"bottom_columns": ("img", "label")}, r"bottom data set lacks the columns \['img'\]"),
        ({"top_columns": ("label", "image")}, "top data set needs images in 'label'"),
    ],
)
def test_errors_say_what_was_found(arguments, message, sources):
    with pytest.raises(ValueError, match=message):
        dominoes(*sources, **({"n_train": 100, "n_validation": 20, "n_test": 20} | arguments))


def test_a_class_without_images_is_named(sources):
    top, bottom = sources
    cats = bottom.filter(lambda label: label == 0, input_columns="label")
    with pytest.raises(ValueError, match="'dog': '0 of 70'"):
        dominoes(top, cats, 100, 20, 20)
