import numpy as np
import pytest
from datasets import Dataset, Features, concatenate_datasets
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import ImageClassificationDataset, PaddedCropTransform
from clp_hf.segmentation.boxes import add_boxes, check_box_method
from clp_hf.segmentation.centre_prior import grabcut


def pictures():
    """A red square off the centre of a noisy green ground, and an image without any object."""
    ground = np.random.default_rng(0).integers(0, 30, (32, 32, 3))
    ground[..., 1] += 150
    square = ground.copy()
    square[8:20, 14:26] = (220, 20, 30)
    images = [Image.fromarray(image.astype(np.uint8)) for image in (square, np.full((32, 32, 3), 90))]
    columns = {"image": images, "label": [0, 1]}
    return Dataset.from_dict(columns).cast(
        Features(image=ImageFeature(), label=Dataset.from_dict(columns).features["label"])
    )


def test_centre_covers_half_of_the_image():
    assert add_boxes(pictures(), "centre")["box"][:] == [[5, 5, 27, 27]] * 2


def test_grabcut_finds_the_object_or_takes_the_centre(tmp_path):
    pytest.importorskip("cv2")
    found, nothing = add_boxes(pictures(), "grabcut", cache_dir=tmp_path)["box"]
    np.testing.assert_allclose(found, [14, 8, 26, 20], atol=1)
    assert nothing == [5, 5, 27, 27]
    assert add_boxes(pictures(), "grabcut", cache_dir=tmp_path / "other")["box"][0] == found


def test_a_segmenter_sees_no_image_twice_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    """One that is stopped at its second batch; what is everything, or nothing, is the middle."""
    seen, stop = [], [True]

    class Red:
        fingerprint = "red"

        def __call__(self, images):
            seen.append(len(images))
            if len(seen) == 2 and stop:
                raise InterruptedError
            return [255 * (np.asarray(image)[..., 0] > 200).astype(np.uint8) for image in images]

    monkeypatch.setattr("clp_hf.segmentation.boxes.load_segmenter", lambda name, **given: Red())
    shades = [Image.new("RGB", (32, 32), (255, shade, 0)) for shade in range(12)]
    data = concatenate_datasets([pictures(), Dataset.from_dict({"image": shades, "label": [0] * 12})])
    with pytest.raises(InterruptedError):
        add_boxes(data, "owner/model", cache_dir=tmp_path)
    stop.clear()
    boxes = add_boxes(data, "owner/model", cache_dir=tmp_path)["box"][:]
    assert seen == [8, 6, 6]
    assert boxes == [[14, 8, 26, 20], *[[5, 5, 27, 27]] * 13]
    assert add_boxes(data, "owner/model", cache_dir=tmp_path)["box"][:] == boxes
    assert len(seen) == 3


def test_centre_of_an_image_that_is_not_square():
    wide = Dataset.from_dict({"image": [Image.new("RGB", (40, 20))]}).cast(Features(image=ImageFeature()))
    assert add_boxes(wide, "centre")["box"][:] == [[6, 3, 34, 17]]


def test_boxes_become_masks():
    transform = PaddedCropTransform(32, (0.5,) * 3, (0.5,) * 3, padding=0, flip=0)
    mask = ImageClassificationDataset(add_boxes(pictures(), "centre"), transform)[0]["mask"]
    assert mask.shape == (1, 32, 32)
    assert mask.sum() == mask[:, 5:27, 5:27].sum() == 22 * 22


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="'matting'; choose one of centre, grabcut, or a segmentation model"):
        add_boxes(pictures(), "matting")
    with pytest.raises(ValueError, match="'box' already"):
        add_boxes(add_boxes(pictures(), "centre"), "centre")
    with pytest.raises(ValueError, match=r"--train_boxes is 'grabcat'; .*Did you mean 'grabcut'"):
        check_box_method("grabcat", "--train_boxes")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 2), (3, 40), (5, 5), (8, 8)])
@pytest.mark.parametrize("one_colour", [True, False])
def test_grabcut_survives_the_smallest_images(size, one_colour):
    pixels = np.full((*size, 3), 7) if one_colour else np.random.default_rng(0).integers(0, 255, (*size, 3))
    found = grabcut(pixels.astype(np.uint8))
    assert found.shape == size
    assert found.dtype == bool
