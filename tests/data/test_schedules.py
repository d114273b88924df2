"""Images that are drawn by a schedule: what, when, and the same again after a resumption."""

from itertools import islice, pairwise

import pytest
import torch
from conftest import Squares

from clp_hf.data.scheduled import ScheduledSampler
from clp_hf.data.seeding import SeededDataset
from clp_hf.schedules import SCHEDULES, build_schedule


class Imbalanced(Squares):
    """Classes of 30, 8 and 4 images; groups of 24, 6, 6, 2, 3 and 1."""

    def __init__(self):
        super().__init__(42)
        self.group = [0] * 24 + [1] * 6 + [2] * 6 + [3] * 2 + [4] * 3 + [5]
        self.labels = [group // 2 for group in self.group]
        self.weight = [1.0 + index % 3 for index in range(42)]


def epochs(name, count, options=None, seed=0):
    dataset = SeededDataset(Imbalanced(), seed)
    sampler = ScheduledSampler(build_schedule(name, options), dataset, count * 42, seed)
    found = []
    for epoch in range(count):
        dataset.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler) == 42
    return found


def counts(indices, values):
    return torch.bincount(torch.tensor(values)[indices], minlength=max(values) + 1)


def test_class_late_is_random_and_then_balanced():
    drawn = epochs("class_late", 40, {"start": 0.5})
    assert all(sorted(epoch) == list(range(42)) for epoch in drawn[:20])
    late = counts([index for epoch in drawn[20:] for index in epoch], Imbalanced().labels) / (20 * 42)
    torch.testing.assert_close(late, torch.full((3,), 1 / 3), atol=0.06, rtol=0)


def test_a_schedule_changes_within_an_epoch():
    (drawn,) = epochs("class_late", 1, {"start": 0.5})
    assert len(set(drawn[:21])) == 21
    assert len(set(drawn[21:])) < 21  # with replacement


def test_expanding_begins_balanced_and_grows_by_the_groups_alike():
    options = {"warm_up": 0.5, "expansions": 4, "added": 5}
    drawn = epochs("expanding", 8, options)
    seen = [sorted(set(epoch)) for epoch in drawn]
    group = Imbalanced().group
    assert counts(seen[0], group).tolist() == [1] * 6
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert counts(drawn[0], group).tolist() == [7] * 6  # seven passes of six images
    assert [len(indices) for indices in seen[4:]] == [11, 16, 21, 26]
    assert counts(seen[4], group).tolist() == [2, 2, 2, 2, 2, 1]  # the last group has one
    assert all(set(one) <= set(two) for one, two in pairwise(seen))


def test_expanding_never_draws_what_there_is_not():
    drawn = epochs("expanding", 3, {"warm_up": 0.0, "added": 100})
    assert set(drawn[0]) == set(range(42))


@pytest.mark.parametrize("name", SCHEDULES)
def test_draws_are_a_function_of_seed_and_epoch(name):
    drawn = epochs(name, 4)
    assert drawn == epochs(name, 4)
    assert drawn[0] != drawn[1]
    assert drawn != epochs(name, 4, seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_sampling": "later"}, "one of random, class, group, group_subset, weight, class_late, expanding"),
        ({"train_sampling": "expanding", "train_sampling_options": {"start": 1}}, "it has warm_up, expansions, added"),
        ({"train_sampling": "expanding", "train_sampling_options": {"expansions": 0}}, "expansions is 0"),
        ({"train_sampling": "expanding", "train_sampling_options": {"added": 0.5}}, "added is 0.5"),
        ({"train_sampling": "class_late", "train_sampling_options": '{"start": 2}'}, "start is 2; expected a share"),
        ({"train_sampling_options": {"start": 0.5}}, "train_sampling='random' has no options"),
    ],
)
def test_bad_settings_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings)


def test_expanding_needs_groups(make_trainer):
    trainer = make_trainer(train_dataset=Squares(60, columns=()), meta_every=0, train_sampling="expanding")
    with pytest.raises(ValueError, match="train_sampling needs the group of every training image"):
        trainer.train()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_run_draws_as_an_uninterrupted_one(make_trainer, tmp_path, name):
    """In its second epoch, of 60 images, 7.5 batches each."""
    data = Squares(60)
    data.weight = [1.0 + index % 3 for index in range(60)]
    settings = {
        "train_dataset": data, "meta_every": 0, "train_sampling": name, "save_strategy": "steps", "save_steps": 9,
        "max_steps": 12, "save_only_model": False,
    }  # fmt: skip

    def parameters(trainer):
        return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])

    whole, resumed = (make_trainer(**settings) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-9"))
    assert torch.equal(parameters(whole), parameters(resumed))


def test_the_trainer_knows_how_long_the_training_is(make_trainer):
    sampler = make_trainer(meta_every=0, train_sampling="class_late", max_steps=6).get_train_dataloader()
    sampler = sampler.batch_sampler.sampler
    assert sampler.images == 6 * 8
    start = list(islice(sampler, 60))
    assert len(set(start[: round(0.8 * 48)])) == round(0.8 * 48)


def test_environments_take_turns():
    """Half of the images as they are, each once at most; half by their weights, in turn."""

    class Weighted(Imbalanced):
        def __init__(self):
            super().__init__()
            self.weight = [0.0] * 40 + [1.0, 9.0]

    sampler = ScheduledSampler(build_schedule("environments"), SeededDataset(Weighted(), 0), 42, 0)
    drawn = torch.tensor(list(sampler))
    natural, weighted = drawn[::2], drawn[1::2]
    assert len(natural.unique()) == len(natural) == 21
    assert set(weighted.tolist()) == {40, 41}
    assert (weighted == 41).sum() > (weighted == 40).sum()
