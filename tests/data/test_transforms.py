import pytest
import torch
from torchvision.transforms import v2

from clp_hf.data.rand_augment import RandAugment
from clp_hf.data.transforms import EvalTransform, PaddedCropTransform, TrainTransform

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def pictures(n=6, height=24, width=24):
    """Images whose red channel is the mask, so that both must move together."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)
    return images, images[:, :1].clone()


def denormalise(pixel_values):
    return pixel_values * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)


def test_train_moves_image_and_mask_together():
    images, masks = pictures()
    pixel_values, masks = TrainTransform(16, MEAN, STD, scale=(0.3, 1))(images, masks)
    assert pixel_values.shape == (6, 3, 16, 16)
    torch.testing.assert_close(denormalise(pixel_values)[:, :1], masks, atol=1e-5, rtol=0)


def test_train_without_crop_is_the_image_or_its_mirror():
    images, _ = pictures()
    for flip, expected in ((0.0, images), (1.0, images.flip(-1))):
        pixel_values, none = TrainTransform((24, 24), MEAN, STD, scale=(1, 1), ratio=(1, 1), flip=flip)(images)
        assert none is None
        torch.testing.assert_close(denormalise(pixel_values) * 255, expected.float(), atol=1e-2, rtol=0)


def test_train_crops_have_the_drawn_area_and_stay_inside():
    """On images of coordinates, a crop shows its own extent."""
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8)
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.expand(64, 64)]).expand(
        200, 3, 64, 64
    )
    transform = TrainTransform(32, (0, 0, 0), (1, 1, 1), scale=(0.25, 0.5), ratio=(0.8, 1.25), flip=0)
    pixel_values, _ = transform(images, generator=torch.Generator().manual_seed(1))
    width = (pixel_values[:, 0, 0, -1] - pixel_values[:, 0, 0, 0]) * 32 / 31 * 63 / 64
    height = (pixel_values[:, 1, -1, 0] - pixel_values[:, 1, 0, 0]) * 32 / 31 * 63 / 64
    area, aspect = width * height, width / height
    assert 0.24 < area.min() < 0.28
    assert 0.47 < area.max() < 0.52
    assert 0.78 < aspect.min() < 0.85
    assert 1.18 < aspect.max() < 1.28


def test_train_draws_per_sample_and_repeats_with_the_generator():
    images = pictures(1)[0].expand(8, -1, -1, -1)
    transform = TrainTransform(16, MEAN, STD)
    first, again = (transform(images, generator=torch.Generator().manual_seed(5))[0] for _ in range(2))
    torch.testing.assert_close(first, again)
    assert len({tuple(row.flatten().tolist()) for row in first}) == 8


def test_padded_crops_are_windows_of_the_image_in_a_black_margin():
    """On images whose pixels name their row and column, a crop shows where it was cut out."""
    index = torch.arange(1, 13, dtype=torch.uint8)
    images = torch.stack([index[:, None].expand(12, 12), index.expand(12, 12), index.expand(12, 12)]).expand(
        300, -1, -1, -1
    )
    masks = images[:, :1]
    generator = torch.Generator().manual_seed(0)
    pixel_values, moved = PaddedCropTransform(12, (0, 0, 0), (1, 1, 1), padding=2, flip=0)(images, masks, generator)
    padded = torch.nn.functional.pad(images[0], (2, 2, 2, 2)).float() / 255
    seen = set()
    for crop, mask in zip(pixel_values, moved, strict=True):
        torch.testing.assert_close(crop[:1], mask)
        corner = [(r, c) for r in range(5) for c in range(5) if torch.equal(padded[:, r : r + 12, c : c + 12], crop)]
        assert len(corner) == 1
        seen.update(corner)
    assert len(seen) == 25  # every shift occurs


def test_padded_crop_flips_and_normalises():
    images, masks = pictures(height=16, width=16)
    pixel_values, moved = PaddedCropTransform(16, MEAN, STD, padding=0, flip=1)(images, masks)
    torch.testing.assert_close(denormalise(pixel_values) * 255, images.flip(-1).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved * 255, masks.flip(-1).float())
    assert (images == pictures(height=16, width=16)[0]).all()  # not altered
    with pytest.raises(ValueError, match="padding=-1"):
        PaddedCropTransform(8, MEAN, STD, padding=-1)


@pytest.mark.parametrize("side", [9, 31])
def test_padded_crops_show_an_image_of_another_size_as_evaluation_does(side):
    images, masks = pictures(height=side, width=side)
    pixel_values, moved = PaddedCropTransform(16, MEAN, STD, padding=0, flip=0)(images, masks)
    expected, expected_masks = EvalTransform(16, MEAN, STD)(images, masks)
    torch.testing.assert_close(pixel_values, expected)
    torch.testing.assert_close(moved, expected_masks)


def test_eval_is_deterministic_and_exact_at_its_own_size():
    images, masks = pictures(height=16, width=16)
    pixel_values, out = EvalTransform(16, MEAN, STD)(images, masks)
    torch.testing.assert_close(denormalise(pixel_values) * 255, images.float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(out * 255, masks.float())


def test_eval_crops_the_centre():
    images = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
    images[:, :, 5:15, 10:20] = 255  # the centre half of the shorter side
    pixel_values, _ = EvalTransform(10, (0, 0, 0), (1, 1, 1), crop_pct=0.5)(images)
    assert (pixel_values == 1).all()
    whole, _ = EvalTransform(20, (0, 0, 0), (1, 1, 1))(images)
    assert whole.shape[-2:] == (20, 20)
    assert whole.mean() == pytest.approx(0.25)


@pytest.mark.parametrize("options", [{"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"flip": 2}, {"ratio": (2, 1)}])
def test_train_refuses_impossible_ranges(options):
    with pytest.raises(ValueError, match="Expected"):
        TrainTransform(8, MEAN, STD, **options)


def test_eval_refuses_impossible_crop():
    with pytest.raises(ValueError, match="crop_pct"):
        EvalTransform(8, MEAN, STD, crop_pct=0)


# ---- RandAugment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [TrainTransform, PaddedCropTransform])
def test_rand_augment_changes_images_and_repeats_with_the_generator(transform):
    images, masks = pictures()
    augmented = transform(16, MEAN, STD, rand_augment=True)
    first, again, other = (augmented(images, masks, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        torch.testing.assert_close(one, two)
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(0)
    one = augmented(images)[0]
    torch.manual_seed(0)
    torch.testing.assert_close(one, augmented(images)[0])
    torch.manual_seed(0)
    assert not torch.equal(one, transform(16, MEAN, STD)(images)[0])


def test_rand_augment_is_that_of_torchvision():
    images, _ = pictures()
    torch.manual_seed(0)
    expected = torch.stack([v2.RandAugment()(image) for image in images])
    torch.manual_seed(0)
    assert torch.equal(RandAugment().images(images)[0], expected)


def test_rand_augment_moves_a_mask_with_its_image_and_does_not_recolour_it():
    """White on the mask, black elsewhere: what is moved only stays equal, what is recoloured leaves the mask."""
    masks = torch.zeros(200, 1, 32, 32, dtype=torch.uint8)
    masks[:, :, 8:20, 10:26] = 255
    torch.manual_seed(0)
    images, moved = RandAugment().images(masks.repeat(1, 3, 1, 1), masks)
    assert set(moved.unique().tolist()) == {0, 255}
    assert (moved != masks).flatten(1).any(1).float().mean() > 0.4  # five of fourteen operations, twice
    equal = (images[:, :1] == moved).flatten(1).all(1).float().mean()
    assert 0.4 < equal < 1
