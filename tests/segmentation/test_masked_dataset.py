import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import ImageClassificationDataset, PaddedCropTransform, load_classification_dataset
from clp_hf.segmentation import MaskArguments, contact_sheet, make_masks
from clp_hf.segmentation.reports import format_mask_report

SIZE = 16


def picture(seed, kind="square"):
    """A red square, a red image, or no red at all."""
    pixels = np.random.default_rng(seed).integers(0, 30, (SIZE, SIZE, 3))
    if kind != "nothing":
        where = slice(None) if kind == "all" else slice(4 + seed % 3, 12)
        pixels[where, where, 0] = 255
    return Image.fromarray(pixels.astype(np.uint8))


class Red:
    """A segmenter that finds what is red, and counts the images it was shown."""

    def __init__(self, fingerprint="red"):
        self.fingerprint, self.seen, self.fail_after = fingerprint, 0, None

    def __call__(self, images):
        if self.fail_after is not None and self.seen >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return [np.where(np.asarray(image)[..., 0] > 100, 255, 0).astype(np.uint8) for image in images]


@pytest.fixture
def segmenter(monkeypatch):
    red = Red()
    monkeypatch.setattr("clp_hf.segmentation.masked_dataset.load_segmenter", lambda *args, **kwargs: red)
    return red


@pytest.fixture
def folder(tmp_path):
    """An image folder as a user has it: two classes, two splits, no annotation; image 5 of train has no object."""
    for split, count in (("train", 6), ("test", 3)):
        for label in ("crow", "duck"):
            (tmp_path / "birds" / split / label).mkdir(parents=True)
            for index in range(count):
                kind = "nothing" if (split, label, index) == ("train", "crow", 5) else "square"
                seed = 100 * (split == "test") + 10 * (label == "duck") + index
                picture(seed, kind).save(tmp_path / "birds" / split / label / f"{index}.png")
    return tmp_path / "birds"


def arguments(folder, **settings):
    return MaskArguments(dataset_name=str(folder), batch_size=4, **settings)


def test_an_image_folder_becomes_a_data_set_with_masks(folder, segmenter):
    args = arguments(folder)
    assert args.output_dir == f"{folder}-masks"
    reports = make_masks(args)
    assert reports["train"].empty == [5]
    assert reports["train"].images == 12
    assert reports["train"].iou is None
    splits = load_classification_dataset(args.output_dir, validation_fraction=0.25)
    assert splits["train"].features["label"].names == ["crow", "duck"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 9, "validation": 3, "test": 6}
    for row in splits["test"]:
        np.testing.assert_array_equal(np.asarray(row["mask"]), np.asarray(row["image"])[..., 0] > 100)
    transform = PaddedCropTransform(SIZE, (0.5,) * 3, (0.5,) * 3, padding=0, flip=0)
    items = ImageClassificationDataset(splits["test"], transform)
    assert set(items[0]["mask"].unique().tolist()) == {0.0, 1.0}


def test_the_data_set_stands_without_the_original_files(folder, segmenter):
    import shutil

    args = arguments(folder)
    make_masks(args)
    shutil.rmtree(folder)
    assert load_classification_dataset(args.output_dir)["test"][0]["image"].size == (SIZE, SIZE)


def test_a_remade_data_set_is_loaded_anew(folder, segmenter):
    args = arguments(folder)
    make_masks(args)
    before = np.asarray(load_classification_dataset(args.output_dir)["test"][0]["mask"])
    picture(2).save(folder / "test" / "crow" / "0.png")
    make_masks(args)
    after = np.asarray(load_classification_dataset(args.output_dir)["test"][0]["mask"])
    assert before.sum() != after.sum()


def test_boxes_are_the_smallest_around_the_foreground(folder, segmenter, tmp_path):
    reports = make_masks(arguments(folder, mask_shape="box", output_dir=str(tmp_path / "out")))
    assert reports["train"].empty == [5]
    row = load_classification_dataset(tmp_path / "out")["test"][0]
    rows, columns = np.nonzero(np.asarray(row["image"])[..., 0] > 100)
    mask = np.asarray(row["mask"])
    assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert mask.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_masks_are_made_once_and_never_stale(folder, segmenter):
    args = arguments(folder)
    make_masks(args)
    assert segmenter.seen == 18
    make_masks(arguments(folder, mask_shape="box"))  # of the same masks
    assert segmenter.seen == 18
    picture(77).save(folder / "train" / "crow" / "0.png")
    make_masks(args)
    assert segmenter.seen == 19
    segmenter.fingerprint = "another red"
    make_masks(args)
    assert segmenter.seen == 19 + 18


def test_an_interrupted_run_goes_on_where_it_was(folder, segmenter):
    args = arguments(folder)
    segmenter.fail_after = 8
    with pytest.raises(KeyboardInterrupt):
        make_masks(args)
    assert segmenter.seen == 8
    with pytest.raises(Exception, match="doesn't contain any data files"):
        load_classification_dataset(args.output_dir)  # nothing to train on by mistake
    segmenter.fail_after = None
    make_masks(args)
    assert segmenter.seen == 18
    assert len(load_classification_dataset(args.output_dir)["test"]) == 6


def test_a_cut_off_write_is_never_read(folder, segmenter, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space"):
            make_masks(arguments(folder))
    cache = folder.with_name("birds-masks") / ".masks"
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    seen = segmenter.seen
    make_masks(arguments(folder))
    assert segmenter.seen == seen + 18


def test_a_look_first_writes_no_data_set(folder, segmenter):
    reports = make_masks(arguments(folder, max_images=2))
    output = folder.with_name("birds-masks")
    assert [report.images for report in reports.values()] == [2, 2]
    assert segmenter.seen == 4
    assert (output / "preview" / "contact_sheet.png").exists()
    assert not (output / "data").exists()
    make_masks(arguments(folder))
    assert segmenter.seen == 18


def with_truth():
    images = [picture(0), picture(1), picture(2, "nothing"), picture(3, "all")]
    masks = []
    for index in range(4):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4:12, 4:12] = 255
        masks.append(Image.fromarray(mask * (index != 2)))
    data = Dataset.from_dict({"image": images, "mask": masks, "label": [0, 1, 0, 1]})
    return DatasetDict(train=data.cast_column("image", ImageFeature()).cast_column("mask", ImageFeature()))


def test_quality_against_true_masks_by_hand(tmp_path, segmenter):
    (tmp_path / "data").mkdir()
    with_truth()["train"].to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    report = make_masks(arguments(tmp_path, output_dir=str(tmp_path / "out")))["train"]
    # Equal; a side of 7 for 8; both empty; all of 16 × 16 for 8 × 8. One finds nothing, one leaves no background.
    assert report.iou == pytest.approx((1 + 49 / 64 + 1 + 64 / 256) / 4)
    assert report.box_iou == report.iou
    assert report.found_iou == pytest.approx((1 + 49 / 64 + 64 / 256) / 3)
    assert report.coverage == pytest.approx((64 + 49 + 0 + 256) / 4 / 256)
    assert (report.empty, report.full) == ([2], [3])
    saved = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert saved["splits"]["train"]["empty"] == [2]
    assert "token" not in saved["settings"]
    table = format_mask_report({"train": report})
    assert "| train | 4 | 1 | 1 | 36.0 | 75.4 | 75.4 | 67.2 |" in table
    assert "train, nothing found: 2" in table
    made = load_classification_dataset(tmp_path / "out", validation_fraction=0.5)["train"]
    assert "true_mask" not in made.column_names  # the loader keeps what it uses; the folder has it
    assert "true_mask" in (tmp_path / "out" / "data").glob("*.parquet").__next__().read_bytes().decode("latin1")


def test_bad_input_is_named(tmp_path, folder, segmenter):
    with pytest.raises(ValueError, match=r"no column 'photo'; the columns are .*image.*image_column"):
        make_masks(arguments(folder, image_column="photo"))
    (tmp_path / "other" / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match="not made by make_masks"):
        make_masks(arguments(folder, output_dir=str(tmp_path / "other")))
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        MaskArguments(dataset_name="birds", batch_size=0)
    with pytest.raises(ValueError, match="Unknown mask shape"):
        MaskArguments(dataset_name="birds", mask_shape="circle")
    (folder / "train" / "duck" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match="train, index 8: the image cannot be decoded"):
        make_masks(arguments(folder))


def test_contact_sheet_dims_the_background_and_draws_the_outline():
    image = Image.new("RGB", (20, 10), (200, 200, 200))
    mask = Image.new("L", (20, 10))
    mask.paste(255, (5, 2, 15, 8))
    sheet = contact_sheet([image] * 5, [mask] * 5, ["bird"] * 5, columns=2, side=40)
    assert sheet.size == (2 * 44 + 4, 3 * 58 + 4)
    tile = np.asarray(sheet)[4:24, 4:44].astype(int)
    assert tile[10, 20].tolist() == [200, 200, 200]
    assert tile[1, 1].tolist() == [70, 70, 70]
    outline = (tile == (255, 40, 40)).all(2)
    assert outline.any()
    assert not outline[4:16, 10:30][2:-2, 2:-2].any()
    with pytest.raises(ValueError, match="found 1 images, 0 masks"):
        contact_sheet([image], [])
