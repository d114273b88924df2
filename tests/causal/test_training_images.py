"""Training images before another background: which change, what of them, and who decides it."""

import pytest
import torch

from clp_hf.causal import CausalAugmentation, Role, TrainingImages, boxes_to_masks

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
GROUND = torch.tensor([0.1, 0.4, 0.8])  # of the three classes


def changing(share=1.0, infills=("mix_rand",), seed=0, **processes):
    augmentation = CausalAugmentation([], list(infills), MEAN, STD)
    return TrainingImages(augmentation, share, torch.Generator().manual_seed(seed), **processes)


@pytest.fixture
def batch():
    """Random objects on a ground whose brightness tells the class."""
    labels = torch.arange(12) % 3
    mask = boxes_to_masks([[4, 3 + i % 3, 5, 6] for i in range(12)], 16, 16)
    objects = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels = torch.where(mask > 0, objects, GROUND[labels][:, None, None, None])
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return {"pixel_values": pixels, "labels": labels, "mask": mask, "group": labels}


def ground(batch):
    """The class whose ground each image has."""
    corner = batch["pixel_values"][:, 0, 0, 0] * STD[0] + MEAN[0]
    return (corner[:, None] - GROUND).abs().argmin(1)


def test_the_object_stays_and_the_background_is_of_another_class(batch):
    before = {name: value.clone() for name, value in batch.items()}
    changed = changing()(batch, None)
    inside = (batch["mask"] > 0).expand_as(batch["pixel_values"])
    assert torch.equal(changed["pixel_values"][inside], batch["pixel_values"][inside])
    assert (ground(changed) != batch["labels"]).all()
    outside = torch.where(inside, torch.nan, changed["pixel_values"])
    spread = [image[channel][~image[channel].isnan()].std() for image in outside for channel in range(3)]
    assert max(spread) < 1e-5  # all of the background, nothing of the donor's object
    assert changed["swapped"].all()
    assert torch.equal(changed["mask"].soft, batch["mask"])
    assert all(torch.equal(changed[name], batch[name]) for name in ("labels", "group"))
    assert all(torch.equal(batch[name], before[name]) for name in batch)  # the input is left alone


def test_a_share_of_the_images_is_drawn_and_the_others_are_untouched(batch):
    images = changing(share=0.3)
    swapped = []
    for _ in range(60):
        changed = images(batch, None)
        own = ~changed["swapped"]
        assert torch.equal(changed["pixel_values"][own], batch["pixel_values"][own])
        assert torch.equal(ground(changed) != batch["labels"], changed["swapped"])
        swapped.append(changed["swapped"].float())
    assert torch.stack(swapped).mean() == pytest.approx(0.3, abs=0.06)  # of 720 draws
    assert torch.stack(swapped).mean(0).max() < 0.6  # every image in its turn


def test_images_without_usable_mask_stay_and_lend_only_what_they_have(batch):
    batch["mask"][0] = 0  # no object
    batch["mask"][1] = 1  # no background
    changed = changing()(batch, None)
    assert changed["swapped"].tolist() == [False, False] + [True] * 10
    assert torch.equal(changed["pixel_values"][:2], batch["pixel_values"][:2])


@pytest.mark.parametrize("labels", [[1] * 12, [0] + [1] * 11], ids=["one class", "one other image"])
def test_images_without_a_donor_of_another_class_stay(batch, labels):
    batch["labels"] = torch.tensor(labels)
    batch["mask"][0] = 1  # the only image of class 0 has no background to lend
    changed = changing()(batch, None)
    assert not changed["swapped"].any()
    assert torch.equal(changed["pixel_values"], batch["pixel_values"])
    assert changing(infills=["shuffle"])(batch, None)["swapped"][1:].all()  # which needs no donor


def test_an_image_alone_and_a_batch_without_masks_stay(batch):
    alone = {name: values[:1] for name, values in batch.items()}
    del batch["mask"]
    for unchanged in (alone, batch):
        changed = changing()(unchanged, None)
        assert not changed["swapped"].any()
        assert torch.equal(changed["pixel_values"], unchanged["pixel_values"])


def test_fgsm_asks_the_classifier(batch):
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3))
    changed = changing(infills=["fgsm"])(batch, classifier)
    inside = (batch["mask"] > 0).expand_as(batch["pixel_values"])
    assert torch.equal(changed["pixel_values"][inside], batch["pixel_values"][inside])
    assert (changed["pixel_values"] != batch["pixel_values"])[~inside].float().mean() > 0.9
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not changed["pixel_values"].requires_grad


def test_the_generator_decides_everything_and_goes_on_where_it_stopped(batch):
    images = changing(share=0.5)
    first = images(batch, None)["pixel_values"]
    state = images.state_dict(lambda values: values)
    second = images(batch, None)["pixel_values"]
    again, other, fewer = changing(share=0.5), changing(share=0.5, seed=1), changing(share=0.5, world_size=2)
    for resumed in (other, fewer):
        resumed.load_state_dict(state)
    assert torch.equal(again(batch, None)["pixel_values"], first)
    assert torch.equal(other(batch, None)["pixel_values"], second)
    assert torch.equal(fewer(batch, None)["pixel_values"], first)  # of another number of processes: drawn anew


def test_every_process_goes_on_with_its_own(batch):
    processes = [changing(share=0.5, seed=rank, rank=rank, world_size=2) for rank in (0, 1)]
    gathered = [process.state_dict(lambda values: values)["generators"][0] for process in processes]
    expected = [process(batch, None)["pixel_values"] for process in processes]
    assert not torch.equal(*expected)
    for rank, pixels in enumerate(expected):
        resumed = changing(share=0.5, seed=7, rank=rank, world_size=2)
        resumed.load_state_dict({"generators": gathered})
        assert torch.equal(resumed(batch, None)["pixel_values"], pixels)


def test_the_role_is_factual():
    assert changing().augmentation.roles == (Role.ORIGINAL, Role.FACTUAL)
