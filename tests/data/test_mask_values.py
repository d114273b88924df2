"""One object, in every encoding in which masks are found: read right, or refused with the flag that decides."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clp_hf.data.checks import check_item
from clp_hf.data.mask_values import box_mask, to_grey

TRUTH = np.zeros((24, 24), bool)
TRUTH[6:18, 8:20] = True


def grey(values, dtype=np.uint8):
    return Image.fromarray(np.asarray(values).astype(dtype))


def with_palette(indices, *colours):
    image = grey(indices)
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def transparent(colour, alpha):
    return Image.fromarray(np.dstack([np.broadcast_to(colour, (*alpha.shape, 3)), alpha]).astype(np.uint8), "RGBA")


def as_jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


RIM = np.zeros_like(TRUTH)
RIM[5:19, 7:21] = True
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), *[(9, 9, 200)] * 251, (224, 224, 192)]
ENCODINGS = {
    "0/255": grey(255 * TRUTH),
    "0/1": grey(TRUTH),
    "bool": Image.fromarray(TRUTH),
    "index": grey(15 * TRUTH),
    "16 bit, 0/65535": grey(65535 * TRUTH, np.uint16),
    "16 bit, 0/255": grey(255 * TRUTH, np.uint16),
    "16 bit, 0/1": grey(TRUTH, np.uint16),
    "32 bit, 0/1": grey(TRUTH, np.int32),
    "float 0/1": grey(TRUTH, np.float32),
    "float 0/255": grey(255 * TRUTH, np.float32),
    "float 0.1/0.9": grey(np.where(TRUTH, 0.9, 0.1), np.float32),
    "soft": grey(np.where(TRUTH, 250, np.where(RIM, 100, 0))),
    "JPEG": as_jpeg(grey(255 * TRUTH)),
    "trimap of pets": grey(np.where(TRUTH, 1, np.where(RIM, 3, 2))),
    "VOC": with_palette(np.where(TRUTH, 3, np.where(RIM, 255, 0)), *VOC),
    "black and white palette": with_palette(TRUTH, (0, 0, 0), (255, 255, 255)),
    "alpha, white": transparent((255, 255, 255), 255 * TRUTH),
    "alpha, photo": transparent(np.random.default_rng(0).integers(0, 255, (24, 24, 3)), 255 * TRUTH),
    "grey and alpha": transparent((255, 255, 255), 255 * TRUTH).convert("LA"),
    "colours, opaque": transparent(np.where(TRUTH[..., None], (255, 255, 255), 0), np.full((24, 24), 255)),
    "white on black": grey(np.repeat(255 * TRUTH[..., None], 3, 2)),
    "red on black": grey(np.where(TRUTH[..., None], (128, 0, 0), 0)),
    "red on black, JPEG": as_jpeg(grey(np.where(TRUTH[..., None], (255, 0, 0), 0))),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_object_is_found(encoding):
    found = np.asarray(to_grey(ENCODINGS[encoding])) >= 128
    assert (found & TRUTH).sum() / (found | TRUTH).sum() > 0.9


AMBIGUOUS = {
    "trimap without a rim": grey(np.where(TRUTH, 1, 2)),
    "class map": grey(np.where(TRUTH, 3, np.where(RIM, 7, 0))),
    "class map and void": grey(np.where(TRUTH, 3, np.where(RIM, 255, 0))),
    "one class": grey(np.full((4, 4), 15)),
    "12 bits": grey(np.linspace(0, 4000, 576).reshape(24, 24), np.uint16),
    "colours without black": grey(np.where(TRUTH[..., None], (255, 0, 0), (0, 0, 255))),
    "not a number": grey(np.where(TRUTH, np.nan, 0), np.float32),
    "negative": grey(np.where(TRUTH, 1, -1), np.float32),
    "colours against alpha": transparent(np.where(TRUTH[..., None], (255, 255, 255), 0), 255 * ~TRUTH),
}


@pytest.mark.parametrize("encoding", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(encoding):
    with pytest.raises(ValueError, match=r"mask_value|as a grey image|no black|NaN|expected 0"):
        to_grey(AMBIGUOUS[encoding])


@settings(max_examples=40, deadline=None)
@given(
    foreground=st.integers(0, 255),
    background=st.integers(0, 255),
    mode=st.sampled_from(["L", "P", "I;16", "RGB"]),
)
def test_a_given_value_decides_over_all(foreground, background, mode):
    values = np.where(TRUTH, foreground, background)
    image = grey(values, np.uint16) if mode == "I;16" else grey(values)
    if mode == "P":
        image = with_palette(values, *[(0, 0, 0), (9, 0, 0)] * 128)
    elif mode == "RGB":
        image = image.convert("RGB")
    found = np.asarray(to_grey(image, [foreground])) == 255
    np.testing.assert_array_equal(found, TRUTH | (foreground == background))


@settings(max_examples=40, deadline=None)
@given(x=st.integers(1, 255))
def test_of_two_values_with_zero_the_other_is_foreground(x):
    np.testing.assert_array_equal(np.asarray(to_grey(grey(x * TRUTH))) == 255, TRUTH)


def test_a_box_thinner_than_a_pixel_is_one_pixel():
    assert np.asarray(box_mask([1.2, 0, 1.4, 3], (4, 4))).sum() == 3 * 255
    assert np.asarray(box_mask([3.9, 3.9, 4, 4], (4, 4))).sum() == 255


@pytest.mark.parametrize("mask", [torch.full((1, 4, 4), float("nan")), 255 * torch.ones(1, 4, 4), -torch.ones(1, 4, 4)])
def test_masks_of_items_are_shares(mask):
    item = {"pixel_values": torch.zeros(3, 4, 4), "mask": mask}
    with pytest.raises(ValueError, match=r"Item 7 of the training set: its mask has values from .*expected \[0, 1\]"):
        check_item(item, 7, "training set")
