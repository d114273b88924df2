import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
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
