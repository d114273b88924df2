"""Infills about the object itself: what they show of it, what they leave of it, and what stays around it."""

import math

import pytest
import torch

from clp_hf.causal import CausalAugmentation, Role, TrainingImages, boxes_to_masks
from clp_hf.causal.appearance import COUNTERFACTUAL, FACTUAL, YIQ, own_colour, own_texture, recolour, stripes

NAMES = list(FACTUAL)
PLAIN = ([0.0] * 3, [1.0] * 3)


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(6, 3, 24, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def foreground():
    """Crosses, which are not their boxes."""
    upright = boxes_to_masks([[8, 4 + i % 3, 4, 14] for i in range(6)], 24, 20)
    return torch.maximum(upright, boxes_to_masks([[4, 9 + i % 3, 12, 4] for i in range(6)], 24, 20))


def augmented(images, foreground, role, name, seed=0, shape="box"):
    augmentation = CausalAugmentation([name], [name], *PLAIN, mask_shape=shape)
    roles = torch.full((len(images),), int(role))
    generator = torch.Generator().manual_seed(seed)
    return augmentation(images, torch.arange(len(images)) % 2, foreground, roles, generator=generator)


def chroma(images):
    return torch.einsum("ij,njhw->nihw", torch.tensor(YIQ), images)[:, 1:]


@pytest.mark.parametrize("shape", ["box", "exact"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", [Role.COUNTERFACTUAL, Role.FACTUAL])
def test_the_object_is_changed_and_the_background_is_not(images, foreground, role, name, shape):
    result, roles = augmented(images, foreground, role, name, shape=shape)
    exact = shape == "exact" and (role, name) != (Role.FACTUAL, "shape")
    masks = torch.stack([torch.outer(mask.any(1), mask.any(0)) for mask in foreground[:, 0]])[:, None].float()
    outside = ((foreground if exact else masks) == 0).expand_as(images)
    assert torch.equal(result[outside], images[outside])
    assert (result != images).flatten(1).float().mean(1).min() > 0.1
    assert 0 <= result.min() <= result.max() <= 1
    assert (roles == int(role)).all()
    again, other = (augmented(images, foreground, role, name, seed, shape)[0] for seed in (0, 1))
    assert torch.equal(result, again)
    assert torch.equal(result, other) == ((role, name) == (Role.COUNTERFACTUAL, "colour"))


def test_the_colour_without_the_object_is_its_mean_by_hand():
    image = torch.zeros(1, 3, 2, 2)
    image[0, :, 0, 0], image[0, :, 0, 1] = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 0.5])
    mask = torch.tensor([[[[1.0, 1], [0, 0]]]])
    shown = own_colour(image, torch.ones_like(mask), None, foreground=mask)
    assert torch.equal(shown, torch.tensor([0.5, 0, 0.25]).view(1, 3, 1, 1).expand_as(image))


def test_a_recoloured_object_has_the_chroma_of_the_colour_and_its_own_light(images, foreground):
    colour = torch.tensor([[0.6, 0.5, 0.4]]).expand(6, 3)
    shown = recolour(images, foreground, colour, torch.linspace(0, 3, 6))
    inside = foreground.expand(-1, 2, -1, -1) > 0
    found = torch.where(inside, chroma(shown), 0).sum((2, 3)) / foreground.sum((2, 3))
    wanted = chroma(colour[:, :, None, None])[:, :, 0, 0]
    unclipped = ((shown > 0) & (shown < 1)).flatten(1).all(1)
    assert unclipped.sum() >= 3
    torch.testing.assert_close(found[unclipped], wanted[unclipped], atol=1e-4, rtol=0)
    light = torch.tensor(YIQ[0]).view(1, 3, 1, 1)
    torch.testing.assert_close((shown * light).sum(1)[unclipped], (images * light).sum(1)[unclipped], atol=2e-3, rtol=0)


def test_nothing_is_left_of_the_colour_that_lies(foreground):
    """Objects that differ in their colour alone are the same ones in a random colour."""
    grey = (0.45 + 0.1 * torch.rand(6, 1, 24, 20)).expand(-1, 3, -1, -1)
    red, blue = (
        recolour(grey, foreground, torch.tensor([tint]).expand(6, 3)) for tint in ([0.6, 0.5, 0.5], [0.5, 0.5, 0.6])
    )
    assert (red - blue).abs().mean() > 0.03
    colours = [
        FACTUAL["colour"](one, None, torch.Generator().manual_seed(0), foreground=foreground) for one in (red, blue)
    ]
    torch.testing.assert_close(*colours, atol=1e-4, rtol=0)
    shown = chroma(colours[0]).mean((2, 3))
    assert shown.std(0).min() > 0.03  # every image another one


def test_a_texture_is_taken_from_the_object_alone(foreground):
    images = torch.where(foreground > 0, 0.8, 0.1).expand(-1, 3, -1, -1)
    shown = own_texture(images, None, torch.Generator().manual_seed(0), foreground=foreground)
    assert (shown - 0.8).abs().max() < 1e-6  # 3 × 3 pixels of it, everywhere


def test_another_texture_keeps_form_and_shading():
    mask = boxes_to_masks([[8, 8, 32, 32]] * 4, 48, 48)
    images = torch.where(mask > 0, 0.7, 0.4).expand(-1, 3, -1, -1) + 0.1 * stripes(
        torch.zeros(4, 3, 48, 48), torch.zeros(4), torch.full((4,), 4.0)
    )
    shown = FACTUAL["texture"](images, None, torch.Generator().manual_seed(0), foreground=mask)
    inside = (slice(None), slice(None), slice(14, 34), slice(14, 34))
    assert (shown - images)[inside].abs().mean() > 0.05
    blocks = [torch.nn.functional.avg_pool2d(one[inside], 20) for one in (shown, images)]
    torch.testing.assert_close(*blocks, atol=0.04, rtol=0)
    assert shown[inside].std() == pytest.approx(images[inside].std().item(), rel=0.5)


def test_stripes_by_hand():
    upright = stripes(torch.zeros(1, 3, 2, 4), torch.zeros(1), torch.tensor([4.0]))
    torch.testing.assert_close(upright[0, 0], torch.tensor([[0.0, 1, 0, -1]]).expand(2, 4), atol=1e-6, rtol=0)
    flat = stripes(torch.zeros(1, 3, 4, 2), torch.tensor([math.pi / 2]), torch.tensor([4.0]))
    torch.testing.assert_close(flat[0, 0], upright[0, 0].T.contiguous()[:, :2], atol=1e-5, rtol=0)


def test_the_shape_without_the_object_is_its_outline(images, foreground):
    shown = COUNTERFACTUAL["shape"](images, None, torch.Generator().manual_seed(0), foreground=foreground)
    changed = (shown != images).any(1, keepdim=True)
    assert torch.equal(changed, foreground > 0)


def test_another_shape_is_of_the_same_pixels(foreground):
    """A bent object has another outline, about its area, and its colours."""
    images = torch.where(foreground > 0, 0.9, 0.2).expand(-1, 3, -1, -1).contiguous()
    shown, _ = augmented(images, foreground, Role.FACTUAL, "shape", shape="exact")
    bent = shown[:, :1] > 0.55
    assert (bent != (foreground > 0)).flatten(1).any(1).sum() >= 5
    assert (bent.sum() / foreground.sum()).item() == pytest.approx(1, abs=0.3)
    assert 0.2 - 1e-4 <= shown.min() <= shown.max() <= 0.9 + 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_training_images_change_their_object(images, foreground, name):
    augmentation = CausalAugmentation([], [name], *PLAIN)
    batch = {"pixel_values": images, "labels": torch.zeros(6, dtype=torch.long), "mask": foreground}
    changed = TrainingImages(augmentation, 1.0, torch.Generator().manual_seed(0))(batch, None)
    assert changed["swapped"].all()  # also of one class: no donor is needed
    assert (changed["pixel_values"] != images).flatten(1).any(1).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 5)])
def test_the_smallest_images_are_survived(name, size):
    images, foreground = torch.rand(2, 3, *size), torch.zeros(2, 1, *size)
    foreground[..., 0, 0] = 1
    for role in (Role.COUNTERFACTUAL, Role.FACTUAL):
        result, _ = augmented(images, foreground, role, name)
        assert torch.isfinite(result).all()
