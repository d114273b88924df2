import pytest
import torch

from clp_hf.causal import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS, CausalAugmentation, Role, boxes_to_masks

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
ALL = (list(COUNTERFACTUAL_INFILLS), list(FACTUAL_INFILLS))
OF_BACKGROUNDS = (ALL[0], ["random", "shuffle", "mix_rand", "fgsm"])


def normalise(pixels):
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    n = 30
    return {
        "pixel_values": normalise(torch.rand(n, 3, 16, 16, generator=generator)),
        "labels": torch.arange(n) % 2,
        "mask": boxes_to_masks([[4, 3 + i % 3, 5, 6] for i in range(n)], 16, 16),
        "role": torch.arange(n) % 3,
    }


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))


def run(augment, batch, seed=0, **more):
    return with_roles(augment, batch, seed, **more)[0]


def with_roles(augment, batch, seed=0, **more):
    return augment(**batch, generator=torch.Generator().manual_seed(seed), **more)


def test_rows_keep_what_their_role_says(batch, classifier):
    before = {name: value.clone() for name, value in batch.items()}
    result = run(CausalAugmentation(*OF_BACKGROUNDS, MEAN, STD), batch, logits_fn=classifier)
    pixels, inside = batch["pixel_values"], (batch["mask"] > 0).expand_as(batch["pixel_values"])
    original, counterfactual, factual = (batch["role"] == role for role in Role)
    assert torch.equal(result[original], pixels[original])
    assert torch.equal(result[counterfactual][~inside[counterfactual]], pixels[counterfactual][~inside[counterfactual]])
    assert torch.equal(result[factual][inside[factual]], pixels[factual][inside[factual]])
    changed = result != pixels
    assert (changed & inside).flatten(1).any(1)[counterfactual].all()
    assert (changed & ~inside).flatten(1).any(1)[factual].all()
    assert all(torch.equal(batch[name], before[name]) for name in before)  # the input is left alone
    assert result.dtype == torch.float32
    assert not result.requires_grad


def test_the_generator_decides_everything(batch, classifier):
    augment = CausalAugmentation(*ALL, MEAN, STD)
    first, again, other = (run(augment, batch, seed, logits_fn=classifier) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_infills_are_in_pixel_space(batch):
    result = run(CausalAugmentation(["grey"], [], MEAN, STD), {**batch, "role": batch["role"] % 2})
    inside = (batch["role"] == 1)[:, None, None, None] & (batch["mask"] > 0)
    grey = normalise(torch.full((3, 1, 1), 0.5)).expand_as(result)
    assert torch.allclose(result[inside.expand_as(result)], grey[inside.expand_as(result)])


def test_infills_are_drawn_uniformly_per_row(batch):
    augment = CausalAugmentation(["grey", "random"], [], MEAN, STD)
    batch["role"] = torch.ones_like(batch["role"])
    grey = normalise(torch.full((3, 1, 1), 0.5))
    share = torch.stack(
        [torch.isclose(run(augment, batch, seed)[:, :, 6, 6], grey[:, 0, 0]).all(1) for seed in range(30)]
    ).float()
    assert share.mean() == pytest.approx(0.5, abs=0.06)  # of 900 draws
    assert share.mean(1).std() > 0.03  # the rows of a batch differ


def test_a_box_around_the_mask_or_its_exact_shape(batch):
    batch["mask"] = torch.eye(16).expand(30, 1, 16, 16).clone()
    batch["mask"][:, :, 10:] = 0
    batch["role"] = torch.ones_like(batch["role"])
    for shape, changed in (("box", 100), ("exact", 10)):
        result = run(CausalAugmentation(["grey"], [], MEAN, STD, mask_shape=shape), batch)
        assert ((result != batch["pixel_values"]).any(1).sum((1, 2)) == changed).all()


def test_factual_images_can_have_another_shape(batch):
    batch["mask"] = torch.eye(16).expand(30, 1, 16, 16).clone()  # its box is the whole image
    augment = CausalAugmentation(["grey"], ["random"], MEAN, STD, factual_mask_shape="exact")
    assert with_roles(augment, batch)[1].tolist() == [0, 0, 2] * 10
    batch["mask"][:, :, 10:] = 0
    changed = (run(augment, batch) != batch["pixel_values"]).any(1).sum((1, 2))
    assert (changed[1::3] == 100).all()
    assert (changed[2::3] == 256 - 10).all()


def test_meta_lp_needs_no_masks(batch):
    augment = CausalAugmentation([], [], MEAN, STD)
    assert augment.roles == (Role.ORIGINAL,)
    assert not augment.needs_masks
    batch |= {"mask": None, "role": torch.zeros_like(batch["role"])}
    assert torch.equal(run(augment, batch), batch["pixel_values"])


def test_roles_follow_the_lists():
    assert CausalAugmentation(["grey"], [], MEAN, STD).roles == (Role.ORIGINAL, Role.COUNTERFACTUAL)
    assert CausalAugmentation([], ["random"], MEAN, STD).roles == (Role.ORIGINAL, Role.FACTUAL)
    assert CausalAugmentation([], ["random"], MEAN, STD).needs_masks


def test_rows_that_cannot_be_masked_stay_original(batch):
    batch["mask"][1::3] = 0  # the counterfactual rows
    batch["mask"][2] = 1
    augment = CausalAugmentation(["grey"], ["random"], MEAN, STD)
    result, role = with_roles(augment, batch)
    assert role.tolist() == [0, 0, 0] + [0, 0, 2] * 9
    assert torch.equal(result[role == 0], batch["pixel_values"][role == 0])
    assert (result[role == 2] != batch["pixel_values"][role == 2]).any()


def test_mix_rand_takes_backgrounds_of_the_donors_too(batch):
    batch = {name: value[2:3] for name, value in batch.items()}  # one factual row, class 0
    augment = CausalAugmentation([], ["mix_rand"], MEAN, STD)
    with pytest.raises(ValueError, match="no image to take a background from"):
        run(augment, batch)
    pixels = torch.tensor([0.1, 0.9, 0.3]).view(3, 1, 1, 1).expand(3, 3, 16, 16)
    donors = {
        "pixel_values": normalise(pixels),
        "labels": torch.tensor([0, 1, 1]),
        "mask": boxes_to_masks([[3, 3, 4, 4]] * 3, 16, 16),
    }
    outside = (batch["mask"] == 0).expand(-1, 3, -1, -1)
    seen = set()
    for seed in range(20):
        result = run(augment, batch, seed, donors=donors)
        seen |= {
            i for i in range(3) if torch.allclose(result[outside], donors["pixel_values"][i][outside[0]], atol=1e-6)
        }
    assert seen == {1, 2}


def test_mix_rand_hides_outline_and_rim_of_an_exact_donor_mask(batch):
    batch = {name: value[2:3] for name, value in batch.items()}
    donor = torch.full((1, 3, 16, 16), 0.3)
    donor[:, :, 6, 9] = 0.9  # a rim that the exact mask leaves, inside its box
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 5, 5] = mask[0, 0, 10, 10] = 1
    donors = {"pixel_values": normalise(donor), "labels": torch.tensor([1]), "mask": mask}
    result = run(CausalAugmentation([], ["mix_rand"], MEAN, STD, mask_shape="exact"), batch, donors=donors)
    expected = normalise(torch.full((1, 3, 16, 16), 0.3))
    assert torch.allclose(result, torch.where(batch["mask"] > 0, batch["pixel_values"], expected), atol=1e-6)


def test_fgsm_sees_normalised_images(batch):
    batch["role"] = torch.full_like(batch["role"], 2)
    seen = []

    def logits_fn(pixel_values):
        seen.append(pixel_values.detach())
        return pixel_values.flatten(1)[:, :2]

    run(CausalAugmentation([], ["fgsm"], MEAN, STD), batch, logits_fn=logits_fn)
    assert torch.allclose(seen[0], batch["pixel_values"], atol=1e-5)
    with pytest.raises(ValueError, match="pass logits_fn"):
        run(CausalAugmentation([], ["fgsm"], MEAN, STD), batch)


def test_an_inpainter_of_the_user(batch):
    augment = CausalAugmentation(["inpaint"], [], MEAN, STD, inpainter=lambda images, *_: torch.zeros_like(images))
    batch["role"] = torch.ones_like(batch["role"])
    result = run(augment, batch)
    black = normalise(torch.zeros(3, 1, 1)).expand_as(result)
    inside = (batch["mask"] > 0).expand_as(result)
    assert torch.equal(result[inside], black[inside])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["gray"], []), "counterfactual infill 'gray'; valid are 'grey', 'random', 'shuffle', 'tile', 'inpaint'"),
        (([], ["tile"]), "factual infill 'tile'; valid are 'random', 'shuffle', 'mix_rand', 'fgsm'"),
    ],
)
def test_unknown_names_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        CausalAugmentation(*arguments, MEAN, STD)


def test_bad_batches_are_explained(batch):
    augment = CausalAugmentation(["grey"], [], MEAN, STD)
    with pytest.raises(ValueError, match="factual_infills is empty"):
        run(augment, batch)
    with pytest.raises(ValueError, match=r"need masks.*Meta-LP"):
        run(augment, {**batch, "mask": None})
    with pytest.raises(ValueError, match=r"masks \(30, 1, 8, 16\) for images \(30, 3, 16, 16\)"):
        run(augment, {**batch, "mask": batch["mask"][:, :, :8]})
