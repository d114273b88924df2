import numpy as np
import pytest

from clp_hf.data import embedded
from clp_hf.data.embedded import GROUPS, draw_bird, draw_example, embedded_birds, kept_birds
from clp_hf.data.groups import counts


@pytest.fixture(scope="module")
def birds():
    return embedded_birds(80, 16, 16, image_size=48, seed=3)


def test_columns_and_names(birds):
    features = birds["train"].features
    assert set(features) == {"image", "label", "place", "group", "mask"}
    assert features["group"].names == [
        "landbird_on_land",
        "landbird_on_water",
        "waterbird_on_land",
        "waterbird_on_water",
    ]
    example = birds["train"][0]
    assert (example["image"].mode, example["mask"].mode) == ("RGB", "L")
    assert example["image"].size == example["mask"].size == (48, 48)


def test_train_is_correlated_and_evaluation_balanced(birds):
    assert list(counts(birds["train"]).values()) == [38, 2, 2, 38]
    assert list(counts(birds["validation"]).values()) == list(counts(birds["test"]).values()) == [4, 4, 4, 4]


def test_group_is_label_and_place(birds):
    for split in birds.values():
        label, place, group = (np.asarray(split[column]) for column in ("label", "place", "group"))
        np.testing.assert_array_equal(group, 2 * label + place)


def test_same_seed_same_pixels_other_seed_other_pixels(birds):
    def pixels(split):
        return [image["bytes"] for image in split.data.column("image").to_pylist()]

    again, other = (embedded_birds(80, 16, 16, image_size=48, seed=seed) for seed in (3, 4))
    assert pixels(again["train"]) == pixels(birds["train"])
    assert not set(pixels(other["train"])) & set(pixels(birds["train"]))
    assert not set(pixels(birds["train"])) & set(pixels(birds["test"]))


@pytest.fixture
def draws(monkeypatch, birds):
    """How often the whole data set is drawn, which a small one stands for."""
    found = []
    monkeypatch.setattr(embedded, "embedded_birds", lambda: found.append(1) or birds)
    return found


def test_they_are_drawn_once(draws, birds, tmp_path):
    for _ in range(2):
        kept = kept_birds(str(tmp_path))
        for name, split in birds.items():
            assert kept[name].features == split.features
            assert kept[name].data.table.to_pylist() == split.data.table.to_pylist()
    assert len(draws) == 1


def test_they_are_drawn_anew_by_another_version(draws, tmp_path, monkeypatch):
    kept_birds(str(tmp_path))
    monkeypatch.setattr("PIL.__version__", "0")
    kept_birds(str(tmp_path))
    assert len(draws) == 2


def test_where_they_cannot_be_kept_they_are_drawn_every_time(draws, birds, tmp_path):
    (tmp_path / "file").touch()
    for _ in range(2):
        assert kept_birds(str(tmp_path / "file")) is birds
    assert len(draws) == 2


def test_two_that_draw_at_once_both_have_them(birds, tmp_path, monkeypatch):
    def draw():  # another process begins and ends in the meantime
        monkeypatch.setattr(embedded, "embedded_birds", lambda: birds)
        kept_birds(str(tmp_path))
        return birds

    monkeypatch.setattr(embedded, "embedded_birds", draw)
    assert kept_birds(str(tmp_path)) is birds
    assert len([*tmp_path.iterdir()]) == 1


def test_mask_is_exact(monkeypatch):
    """A black place shows the bird alone: the pixels that are lit are those of the mask, up to the sensor noise."""
    monkeypatch.setattr(embedded, "draw_land", lambda rng, size: np.zeros((size, size, 3), np.float32))
    monkeypatch.setattr(embedded, "draw_bird", lambda *args: (np.ones_like(bird[0]), bird[1]))
    bird = draw_bird(np.random.default_rng(1), 0, 40)
    image, mask = (np.asarray(part, float) for part in draw_example(np.random.default_rng(0), 0, 0, 64))
    assert np.abs(image - mask[..., None]).max() < 255 * 0.01 * 6


@pytest.mark.parametrize("label", [0, 1])
def test_mask_has_the_size_of_the_bird_and_a_thin_rim(label):
    mask = np.asarray(draw_example(np.random.default_rng(0), label, 0, 64)[1])
    assert (mask == 255).any()
    assert (mask == 0).mean() > 0.4
    partial = (mask > 0) & (mask < 255)  # antialiased rim only
    assert partial.mean() < 0.15
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    assert 0.5 * 64 - 2 <= longer <= 0.8 * 64 + 2


def test_colour_does_not_tell_the_class():
    """The mean bird colour of the two classes differs by less than its standard error allows."""
    means = []
    for label in (0, 1):
        colours = []
        for seed in range(80):
            colour, alpha = draw_bird(np.random.default_rng([label, seed]), label, 24)
            colours.append((colour * alpha[..., None]).sum((0, 1)) / alpha.sum())
        means.append((np.mean(colours, 0), np.var(colours, 0) / len(colours)))
    difference = np.abs(means[0][0] - means[1][0]) / np.sqrt(means[0][1] + means[1][1])
    assert difference.max() < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_test": 2}, "at least 4"), ({"correlation": 1.2}, "correlation"), ({"image_size": 8}, "image_size")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        embedded_birds(**{"n_train": 4, "n_validation": 4, "n_test": 4, **options})


def test_group_names_are_exported():
    assert GROUPS[1] == "landbird_on_water"
