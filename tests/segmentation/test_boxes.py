import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import ImageClassificationDataset, PaddedCropTransform
from clp_hf.segmentation.boxes import add_boxes
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


def test_grabcut_finds_the_object_or_takes_the_centre():
    pytest.importorskip("cv2")
    found, nothing = add_boxes(pictures(), "grabcut")["box"]
    np.testing.assert_allclose(found, [14, 8, 26, 20], atol=1)
    assert nothing == [5, 5, 27, 27]
    assert add_boxes(pictures(), "grabcut")["box"][0] == found


def test_boxes_become_masks():
    transform = PaddedCropTransform(32, (0.5,) * 3, (0.5,) * 3, padding=0, flip=0)
    mask = ImageClassificationDataset(add_boxes(pictures(), "centre"), transform)[0]["mask"]
    assert mask.shape == (1, 32, 32)
    assert mask.sum() == mask[:, 5:27, 5:27].sum() == 22 * 22


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="'matting'; choose one of centre, grabcut"):
        add_boxes(pictures(), "matting")
    with pytest.raises(ValueError, match="'box' already"):
        add_boxes(add_boxes(pictures(), "centre"), "centre")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 2), (3, 40), (5, 5), (8, 8)])
@pytest.mark.parametrize("one_colour", [True, False])
def test_grabcut_survives_the_smallest_images(size, one_colour):
    pixels = np.full((*size, 3), 7) if one_colour else np.random.default_rng(0).integers(0, 255, (*size, 3))
    found = grabcut(pixels.astype(np.uint8))
    assert found.shape == size
    assert found.dtype == bool
