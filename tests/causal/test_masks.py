import pytest
import torch

from clp_hf.causal import boxes_to_masks, enclosing_box, mask_iou, maskable, prepare_masks, trimap


def test_boxes_in_both_formats_draw_the_same_pixels():
    xywh = boxes_to_masks([[1, 2, 3, 1]], 4, 5)
    expected = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0.0]])
    assert xywh.shape == (1, 1, 4, 5)
    assert xywh.dtype == torch.float32
    assert torch.equal(xywh[0, 0], expected)
    assert torch.equal(boxes_to_masks(torch.tensor([[1, 2, 4, 3]]), 4, 5, "xyxy"), xywh)


def test_a_partly_covered_pixel_belongs_to_the_box():
    mask = boxes_to_masks([[0.5, 1.9, 1.0, 0.2]], 4, 4)
    assert mask[0, 0].nonzero().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]


@pytest.mark.parametrize(
    ("box", "box_format", "problem"),
    [
        ([1, 1, 0, 2], "xywh", "Box 1 has no area"),
        ([1, 1, -1, 2], "xywh", "Box 1 has no area"),
        ([3, 3, 2, 4], "xyxy", "Box 1 has no area"),
        ([3, 3, 4, 4], "xywh", "Box 1 is not inside its 5 x 5 image.*box_format='xyxy'"),
        ([-3, 0, 2, 2], "xyxy", "Box 1 is not inside.*box_format='xywh'"),
        ([float("nan"), 0, 2, 2], "xywh", "Box 1 is not finite"),
    ],
)
def test_a_bad_box_is_named(box, box_format, problem):
    with pytest.raises(ValueError, match=problem):
        boxes_to_masks([[0, 0, 2, 2], box], 5, 5, box_format)


def test_boxes_of_another_shape_or_format_are_refused():
    with pytest.raises(ValueError, match=r"shape \(n, 4\).*\(4,\)"):
        boxes_to_masks([0, 0, 1, 1], 5, 5)
    with pytest.raises(ValueError, match="'yolo'; valid are 'xywh', 'xyxy'"):
        boxes_to_masks([[0, 0, 1, 1]], 5, 5, "yolo")


def test_enclosing_box_is_the_smallest_one():
    mask = torch.zeros(3, 1, 5, 6)
    mask[0, 0, 1, 4] = mask[0, 0, 3, 2] = 1  # two corners
    mask[0, 0, 0, 0] = 0.49  # not foreground
    mask[1] = 1
    box = enclosing_box(mask)
    expected = torch.zeros(3, 1, 5, 6)
    expected[0, 0, 1:4, 2:5] = 1
    expected[1] = 1
    assert torch.equal(box, expected)
    assert torch.equal(enclosing_box(box), box)


def test_prepare_masks_binarises_mattes():
    matte = torch.tensor([[0.0, 0.5, 0.2], [0.9, 0.4, 0.0], [0.0, 0.0, 0.0]])[None, None]
    exact = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]])
    box = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0.0]])
    assert torch.equal(prepare_masks(matte, "exact")[0, 0], exact)
    assert torch.equal(prepare_masks(matte)[0, 0], box)
    with pytest.raises(ValueError, match="'oval'; valid are 'box', 'exact'"):
        prepare_masks(matte, "oval")
    with pytest.raises(ValueError, match=r"\(n, 1, height, width\), found \(1, 3, 3\)"):
        prepare_masks(matte[0])


def test_maskable_needs_foreground_and_background():
    mask = torch.zeros(4, 1, 3, 3)
    mask[0, 0, 1, 1] = 1
    mask[1] = 0.4  # soft, and nowhere half covered
    mask[2] = 0.6
    mask[3, 0, 0, 0] = mask[3, 0, 2, 2] = 1
    assert maskable(mask).tolist() == [True, False, False, True]
    assert maskable(prepare_masks(mask, "box")).tolist() == [True, False, False, False]


def test_mask_iou_by_hand():
    mask, other = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    mask[0, :, :2], other[0, :, 1:3] = 1, 0.6  # rows 0-1 and rows 1-2: one row of three
    other[1, :, 0] = 1
    assert mask_iou(mask, other).tolist() == pytest.approx([1 / 3, 0, 1])


def test_trimap_is_unknown_near_the_outline_only():
    mask = torch.zeros(1, 1, 10, 12)
    mask[..., 3:, 4:9] = 1  # touches the lower rim, beyond which it may go on
    expected = torch.full((10, 12), 0.5)
    expected[4:, 5:8] = 1
    expected[:2], expected[:, :3], expected[:, 10:] = 0, 0, 0
    assert torch.equal(trimap(mask, 1)[0, 0], expected)
