import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, concatenate_datasets
from datasets import Image as ImageFeature

from clp_hf.data import EvalTransform, ImageClassificationDataset
from clp_hf.data.scenarios.label_noise import flip_noise, similar_classes, thumbnail_confusion, uniform_noise

NAMES = ["cat", "deer", "dog", "truck"]


def clean(n=4000, names=NAMES):
    labels = np.arange(n) % len(names)
    return Dataset.from_dict({"label": labels}, features=Features(label=ClassLabel(names=names)))


def confusion(dataset):
    """Shares, row = clean label, column = noisy label."""
    counts = np.zeros((len(NAMES), len(NAMES)))
    np.add.at(counts, (dataset["clean_label"][:], dataset["label"][:]), 1)
    return counts / counts.sum(1, keepdims=True)


def test_uniform_noise_draws_from_all_classes():
    noisy = uniform_noise(clean(), 0.6)
    assert noisy["clean_label"][:] == clean()["label"][:]
    assert noisy.features["label"] == noisy.features["clean_label"] == ClassLabel(names=NAMES)
    np.testing.assert_allclose(confusion(noisy), 0.4 * np.eye(4) + 0.6 / 4, atol=0.05)


def test_flip_noise_goes_to_the_targets_only():
    noisy = flip_noise(clean(), 0.4, {"cat": ["dog", "deer"], "dog": "cat", 1: 3})
    expected = [[0.6, 0.2, 0.2, 0], [0, 0.6, 0, 0.4], [0.4, 0, 0.6, 0], [0, 0, 0, 1]]
    found = confusion(noisy)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert (found[np.array(expected) == 0] == 0).all()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_at_the_ends(rate):
    noisy = flip_noise(clean(), rate, {name: NAMES[index - 1] for index, name in enumerate(NAMES)})
    wrong = np.asarray(noisy["label"]) != np.asarray(noisy["clean_label"])
    assert wrong.mean() == rate


def test_the_seed_decides_and_a_higher_rate_adds_to_a_lower_one():
    low, again, high, other = (
        np.asarray(uniform_noise(clean(), rate, seed=seed)["label"])
        for rate, seed in ((0.2, 1), (0.2, 1), (0.6, 1), (0.2, 2))
    )
    np.testing.assert_array_equal(low, again)
    assert (low != other).any()
    changed = low != clean()["label"][:]
    np.testing.assert_array_equal(low[changed], high[changed])


def test_the_canonical_noise():
    assert uniform_noise(clean(12), 0.6)["label"][:] == [0, 0, 2, 0, 0, 1, 2, 3, 0, 1, 2, 2]


def test_similar_classes_are_the_most_confused():
    matrix = [[90, 1, 7, 2], [0, 95, 5, 0], [8, 1, 90, 1], [0, 0, 0, 100]]
    assert similar_classes(matrix) == {0: [2, 3], 1: [2, 0], 2: [0, 1], 3: [0, 1]}
    assert similar_classes(matrix, 1)[0] == [2]
    assert np.shape(matrix) == (4, 4)
    assert matrix[0][0] == 90  # not altered


def test_thumbnails_tell_which_classes_look_alike():
    """Plain images of noisy colours: the first two classes are near to each other, and so are the last two."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    colours = np.array([[60, 60, 60], [80, 60, 60], [60, 60, 200], [60, 80, 200]])[labels]
    pixels = (colours + rng.normal(0, 15, colours.shape)).clip(0, 255).astype(np.uint8)
    images = [PIL.Image.new("RGB", (8, 8), tuple(colour)) for colour in pixels.tolist()]
    dataset = Dataset.from_dict({"image": images, "label": labels})
    confusion = thumbnail_confusion(dataset, side=2)
    assert confusion.sum(1).tolist() == [40] * 4
    assert similar_classes(confusion, 1) == {0: [1], 1: [0], 2: [3], 3: [2]}


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda data: uniform_noise(data, 1.2), r"in \[0, 1\], got 1.2"),
        (lambda data: uniform_noise(data, float("nan")), r"in \[0, 1\], got nan"),
        (lambda data: uniform_noise(uniform_noise(data, 0.1), 0.1), "'clean_label' already"),
        (lambda data: flip_noise(data, -0.1, {0: 1}), r"got -0.1"),
        (lambda data: flip_noise(data, 0.1, {"cat": "mouse"}), r"'mouse', which is not among the 4 classes: \['cat'"),
        (lambda data: flip_noise(data, 0.1, {7: 0}), "class 7"),
        (lambda data: flip_noise(data, 0.1, {"cat": ["cat", "dog"]}), r"\['cat'\] to themselves"),
        (lambda data: flip_noise(data, 0.1, {"cat": []}), "or to nothing"),
        (lambda data: similar_classes([[1, 2, 3]]), r"\(C, C\).*got shape \(1, 3\)"),
        (lambda data: similar_classes([[1, -1], [1, 1]]), "values from -1"),
        (lambda data: similar_classes(np.eye(2), 2), r"1 … 1, the number of other classes, got 2"),
    ],
)
def test_bad_input_is_named(corrupt, message):
    with pytest.raises(ValueError, match=message):
        corrupt(clean(40))


def test_items_say_whether_their_label_is_wrong():
    images = Dataset.from_dict(
        {"image": [PIL.Image.new("RGB", (16, 16))] * 12}, features=Features(image=ImageFeature())
    )
    data = concatenate_datasets([clean(12), images], axis=1)
    transform = EvalTransform(16, mean=(0.0,) * 3, std=(1.0,) * 3)
    items = ImageClassificationDataset(flip_noise(data, 1.0, {"cat": "dog"}), transform)
    assert [item["noisy"] for item in items.__getitems__(range(4))] == [True, False, False, False]
    assert "noisy" not in ImageClassificationDataset(data, transform)[0]
