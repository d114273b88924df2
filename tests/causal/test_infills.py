import pytest
import torch

from clp_hf.causal import (
    COUNTERFACTUAL_INFILLS,
    FACTUAL_INFILLS,
    boxes_to_masks,
    composite,
    draw_donors,
    enclosing_box,
    largest_rectangle,
)
from clp_hf.causal.infills import grey, mix_rand, random, shuffle, tile

SIMPLE = [grey, random, shuffle, tile]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def region():
    return boxes_to_masks(
        [[2, 3, 4, 5], [0, 0, 1, 1], [9, 11, 1, 1], [0, 4, 10, 4], [1, 1, 8, 10], [3, 0, 2, 12]], 12, 10
    )


def blobs(count, height, width, seed):
    return (torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(seed)) < 0.15).float()


def test_the_registries_hold_the_infills_of_the_paper():
    others = ["colour", "texture", "shape"]  # section 5
    assert list(COUNTERFACTUAL_INFILLS) == ["grey", "random", "shuffle", "tile", "inpaint", *others]
    assert list(FACTUAL_INFILLS) == ["random", "shuffle", "mix_rand", "fgsm", *others]


@pytest.mark.parametrize("infill", SIMPLE)
def test_infills_stay_in_range_and_depend_on_the_generator_only(infill, images, region):
    first, again, other = (infill(images, region, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (infill in (grey, tile))


def test_composite_keeps_the_rest_bit_for_bit(images, region, generator):
    result = composite(images, random(images, region, generator), region)
    inside = region.expand_as(images) > 0
    assert torch.equal(result[~inside], images[~inside])
    assert (result[inside] != images[inside]).float().mean() > 0.95


def test_grey_is_one_half(images, region, generator):
    assert (grey(images, region, generator) == 0.5).all()


def test_random_is_smooth_noise_plus_gaussian_noise(generator):
    images = torch.zeros(64, 3, 64, 64)
    noise = random(images, images[:, :1], generator)
    inner = noise[(noise > 0) & (noise < 1)]
    assert noise.mean() == pytest.approx(0.5, abs=0.02)
    assert len(inner) < 0.95 * noise.numel()  # clipping happens
    # In the middle of the range, where nothing is clipped, neighbours differ by σ√2 and a little of the clouds' slope.
    middle = (noise[..., :-1] - 0.5).abs() < 0.1
    step = (noise[..., 1:] - noise[..., :-1])[middle].square().mean().sqrt()
    assert 0.2 < step < 0.3
    # Blocks differ from each other by the low frequencies: far more than the mean of 64 Gaussians would (0.025).
    assert torch.nn.functional.avg_pool2d(noise, 8).std() > 0.15


def test_shuffle_permutes_the_pixels_of_each_region(images, region, generator):
    shuffled = shuffle(images, region, generator)
    for image, result, hole in zip(images, shuffled, region[:, 0] > 0, strict=True):
        assert torch.equal(result[:, ~hole], image[:, ~hole])
        # whole pixels: sorted by their first channel (all values differ), the other channels agree too
        before, after = image[:, hole], result[:, hole]
        assert torch.equal(before[:, before[0].argsort()], after[:, after[0].argsort()])
    assert not torch.equal(shuffled[4], images[4])


def test_shuffle_sends_every_pixel_everywhere(generator):
    images = torch.arange(4.0).view(1, 1, 2, 2).repeat(4000, 1, 1, 1)
    region = torch.ones(4000, 1, 2, 2)
    region[:, :, 0, 1] = 0
    shuffled = shuffle(images, region, generator).flatten(1)
    assert (shuffled[:, 1] == 1).all()
    for place in (0, 2, 3):
        counts = torch.stack([(shuffled[:, place] == value).float().mean() for value in (0, 2, 3)])
        # one order of the region is shared, rotated for each image, so every image alone is uniform
        assert (counts - 1 / 3).abs().max() < 0.2
    alone = torch.cat([shuffle(images[:1], region[:1], generator).flatten(1) for _ in range(600)])
    assert ((alone[:, 0] == 2).float().mean() - 1 / 3).abs() < 0.08


def brute_force_largest(hole):
    height, width = hole.shape
    best = 0
    for top in range(height):
        for left in range(width):
            for bottom in range(top + 1, height + 1):
                for right in range(left + 1, width + 1):
                    if not hole[top:bottom, left:right].any():
                        best = max(best, (bottom - top) * (right - left))
    return best


def test_largest_rectangle_beside_a_box_is_the_largest_of_all(region):
    for hole, top, left, height, width in zip(region[:, 0], *largest_rectangle(region), strict=True):
        assert not hole[top : top + height, left : left + width].any()
        assert height * width == brute_force_largest(hole)


def test_largest_rectangle_misses_exact_shapes_and_is_no_smaller_than_the_band_beside_their_box():
    hole = blobs(200, 7, 9, seed=5)
    hole[:, :, 2:5, 3:6] = 1
    exact, band = largest_rectangle(hole), largest_rectangle(enclosing_box(hole))
    for mask, top, left, height, width in zip(hole[:, 0], *exact, strict=True):
        assert not mask[top : top + height, left : left + width].any()
    boxed = enclosing_box(hole).flatten(1).all(1)
    assert ((exact[2] * exact[3]) >= (band[2] * band[3]))[~boxed].all()


def test_largest_rectangle_with_all_corners_taken_is_a_free_pixel():
    hole = torch.ones(1, 1, 4, 5)
    hole[0, 0, 2, 3] = 0
    assert [value.item() for value in largest_rectangle(hole)] == [2, 3, 1, 1]


def test_tile_mirrors_the_band_into_the_region(generator):
    image = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 2, 6) / 6
    region = boxes_to_masks([[2, 0, 4, 2]], 2, 6)
    tiled = composite(image, tile(image, region, generator), region) * 6
    assert torch.equal(tiled[0, 0], torch.tensor([[0, 1, 1, 0, 0, 1.0]]).expand(2, 6))


def test_tile_uses_background_colours_only(generator):
    hole = blobs(50, 8, 8, seed=2)
    hole[:, :, 0, 0] = 0
    images = torch.where(hole > 0, 1.0, 0.25).expand(-1, 3, -1, -1)
    assert (tile(images, hole, generator) == 0.25).all()


def test_mix_rand_shows_the_donor_without_its_foreground(generator):
    mask = boxes_to_masks([[1, 1, 2, 2], [4, 4, 3, 3]], 8, 8)
    images = torch.where(mask > 0, 1.0, torch.tensor([0.2, 0.6]).view(2, 1, 1, 1)).expand(-1, 3, -1, -1)
    background = mix_rand(images, 1 - mask, generator, donors=images.flip(0), donor_box=mask.flip(0))
    assert torch.equal(background, torch.tensor([0.6, 0.2]).view(2, 1, 1, 1).expand(-1, 3, 8, 8))


def test_donors_are_of_another_class_and_usable(generator):
    labels = torch.tensor([0, 0, 1, 1])
    usable = torch.tensor([True, True, True, False])
    own = torch.arange(4)
    drawn = torch.stack([draw_donors(labels, labels, usable, generator, own) for _ in range(100)])
    assert (drawn[:, :2] == 2).all()
    assert set(drawn[:, 2:].flatten().tolist()) == {0, 1}


def test_donors_of_the_same_class_if_there_are_no_others(generator):
    labels = torch.tensor([1, 1, 1])
    drawn = torch.stack(
        [draw_donors(labels, labels, torch.tensor([True] * 3), generator, torch.arange(3)) for _ in range(100)]
    )
    assert not (drawn == torch.arange(3)).any()
    assert set(drawn[:, 0].tolist()) == {1, 2}


def test_no_donor_at_all_is_an_error(generator):
    with pytest.raises(ValueError, match=r"no image to take a background from.*larger meta batch"):
        draw_donors(torch.tensor([0]), torch.tensor([0]), torch.tensor([True]), generator, torch.tensor([0]))
    with pytest.raises(ValueError, match="no image to take a background from"):
        draw_donors(torch.tensor([0]), torch.tensor([1]), torch.tensor([False]), generator)
