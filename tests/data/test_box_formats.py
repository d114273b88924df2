"""Boxes in every form: read as said, or refused with the form that they seem to have."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clp_hf.data.boxes import corner_boxes
from clp_hf.data.columns import BOX_FORMATS

WIDTH, HEIGHT = 40, 20


def converted(boxes, box_format="xywh", image=None):
    image = image or Image.new("RGB", (WIDTH, HEIGHT))
    split = Dataset.from_dict({"image": [image] * len(boxes), "box": boxes}).cast_column("image", ImageFeature())
    return corner_boxes(DatasetDict(train=split), box_format)["train"]["box"][:]


def written(corners, box_format):
    left, top, right, bottom = corners
    box = {
        "xyxy": [left, top, right, bottom],
        "xywh": [left, top, right - left, bottom - top],
        "cxcywh": [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top],
    }[box_format.removeprefix("normalised_")]
    if box_format.startswith("normalised_"):
        return [side / size for side, size in zip(box, (WIDTH, HEIGHT) * 2, strict=True)]
    return box


@settings(max_examples=40, deadline=None)
@given(
    left=st.integers(0, WIDTH - 3),
    top=st.integers(0, HEIGHT - 3),
    data=st.data(),
    box_format=st.sampled_from(BOX_FORMATS),
)
def test_every_form_gives_the_same_corners(left, top, data, box_format):
    corners = [left, top, data.draw(st.integers(left + 2, WIDTH)), data.draw(st.integers(top + 2, HEIGHT))]
    (found,) = converted([written(corners, box_format)], box_format)
    assert found == pytest.approx(corners, abs=1e-4)


@pytest.mark.parametrize(
    ("boxes", "box_format", "message"),
    [
        ([[100, 100, 20, 20]], "xywh", "index 0: the box .* lies outside its image of 40 x 20"),
        ([[35, 15, 20, 20]], "xywh", "sticks out by most of its area"),
        ([[0.25, 0.25, 0.75, 0.75]] * 3, "xyxy", "shares of the image and not pixels .*normalised_xyxy"),
        ([[0, 0, 20, 10], [0.5, 0.5, 0.5, 0.5]], "xywh", "index 1: .* shares of the image"),
        ([[5, 5, 20, 15]], "normalised_xyxy", "lies outside .* when read as normalised_xyxy"),
        ([[20, 10, 38, 19]] * 3, "xywh", "read as xyxy all lie inside. Set box_format to 'xyxy'"),
        ([[float("nan"), 1, 2, 2]], "xywh", "four finite numbers"),
        ([[0, 0, float("inf"), 2]], "xywh", "four finite numbers"),
        ([[[0, 0, 5, 5], [6, 6, 5, 5]]], "xywh", "there are 2 boxes"),
        ([[]], "xywh", "four numbers, got \\[\\]"),
        ([None], "xywh", "four numbers, got None"),
        ([["1", "1", "5", "5"]], "xywh", "four numbers"),
        (["1 1 5 5"], "xywh", "four numbers"),
        ([[10, 10, 0, 5]], "xywh", "empty box"),
        ([[1, 1, 5, 5]], "yolo", "box_format must be one of .*'normalised_cxcywh', got 'yolo'"),
    ],
)
def test_what_is_no_box_in_the_image_is_named(boxes, box_format, message):
    with pytest.raises(ValueError, match=message):
        converted(boxes, box_format)


def test_a_box_that_sticks_out_a_little_is_cut_off():
    assert converted([[-4, 0, 20, 10], [5, 5, 10, 10]]) == [[0, 0, 16, 10], [5, 5, 15, 15]]


def test_one_box_in_a_list_is_that_box():
    assert converted([[[1, 2, 3, 4]]]) == [[1, 2, 4, 6]]


def test_the_size_is_that_of_the_turned_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "turned.jpg", exif=exif)
    features = Features(
        image=ImageFeature(), label=ClassLabel(names=["a"]), box=[Dataset.from_dict({"x": [0.5]}).features["x"]]
    )
    split = Dataset.from_dict(
        {"image": [str(tmp_path / "turned.jpg")], "label": [0], "box": [[0.0, 20.0, 20.0, 40.0]]}, features=features
    )
    assert corner_boxes(DatasetDict(train=split), "xyxy")["train"]["box"][0] == [0, 20, 20, 40]
