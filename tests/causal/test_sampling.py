import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
import torch

from clp_hf.causal import MetaSampler, Role, check_masks, select_meta_indices

LABELS = np.array([0] * 30 + [1] * 30)
GROUPS = np.array([0] * 27 + [1] * 3 + [2] * 10 + [3] * 20)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_balanced_per_class():
    indices = select_meta_indices(LABELS, 10)
    assert Counter(LABELS[indices].tolist()) == {0: 10, 1: 10}
    assert len(set(indices)) == 20
    assert all(type(index) is int for index in indices)


def test_the_same_seed_gives_the_same_images_from_lists_arrays_and_tensors():
    indices = select_meta_indices(LABELS, seed=3)
    assert indices == select_meta_indices(LABELS.tolist(), seed=3) == select_meta_indices(torch.tensor(LABELS), seed=3)
    assert indices != select_meta_indices(LABELS, seed=4)


def test_a_small_group_gives_what_it_has_and_is_named():
    with pytest.warns(UserWarning, match="Fewer than 10 images.*group 1 has 3; each taken once"):
        indices = select_meta_indices(LABELS, 10, GROUPS)
    assert Counter(GROUPS[indices].tolist()) == {0: 10, 1: 3, 2: 10, 3: 10}
    assert len(set(indices)) == 33


def test_with_replacement_fills_a_small_group_with_repeats():
    with pytest.warns(UserWarning, match="group 1 has 3; repeated"):
        indices = select_meta_indices(LABELS, 10, GROUPS, with_replacement=True)
    assert Counter(GROUPS[indices].tolist()) == {0: 10, 1: 10, 2: 10, 3: 10}
    assert {27, 28, 29} <= set(indices)
    assert len(set(indices)) == 33


def test_an_empty_group_is_left_out_and_named():
    with pytest.warns(UserWarning, match="group 4 has 0"):
        indices = select_meta_indices(LABELS, 3, GROUPS, num_groups=5, with_replacement=True)
    assert len(indices) == 12


def test_excluded_images_are_not_drawn():
    exclude = [*range(20), *range(30, 50)]
    indices = select_meta_indices(LABELS, 10, exclude=exclude)
    assert sorted(indices) == [*range(20, 30), *range(50, 60)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 2, 0]}, "all 3 classes; class 1 has none among the 3"),
        ({"labels": [0, 1], "num_classes": 4}, "class 2, 3 has none"),
        ({"labels": [0, 1, 1], "exclude": [0]}, "class 0 has none among the 2"),
        ({"labels": [0, 5], "num_classes": 2}, "labels must be in 0 … 1, found 0 … 5"),
        ({"labels": [0, -1]}, "found -1 … 0"),
        ({"labels": [0.0, 1.0]}, "labels must be a non-empty list of integers, found float64"),
        ({"labels": []}, "non-empty"),
        ({"labels": [0, 1], "groups": [0]}, "found 2 and 1"),
        ({"labels": [0, 1], "groups": [0, 7], "num_groups": 4}, "groups must be in 0 … 3"),
        ({"labels": [0, 1], "per_cell": 0}, "at least 1"),
    ],
)
def test_bad_selections_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_meta_indices(**arguments)


def test_check_masks_counts_what_cannot_be_augmented():
    masks = [torch.zeros(1, 4, 4), torch.ones(1, 6, 5), torch.eye(4)[None], torch.zeros(1, 4, 4)]
    masks[3][0, 1, 1] = 1
    report = check_masks(masks)
    assert report.maskable.tolist() == [False, False, False, True]
    assert str(report) == "3 of 4 masks allow no causal augmentation: 1 are empty, 2 cover the whole image."
    assert check_masks(masks, "exact").maskable.tolist() == [False, False, True, True]


@pytest.mark.parametrize("value", [255.0, -1.0, float("nan")])
def test_check_masks_names_a_mask_out_of_range(value):
    with pytest.raises(ValueError, match=r"Mask 1 has values.*expected \[0, 1\]"):
        check_masks([torch.zeros(1, 2, 2), torch.full((1, 2, 2), value)])


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_an_epoch_has_every_image_once_in_every_role_it_can_take():
    sampler = MetaSampler(4, 5, maskable=[True, True, False, True])
    epochs = list(itertools.chain(*take(sampler, 4)))  # 20 items, epochs of 10
    expected = sorted([(i, 0) for i in range(4)] + [(i, r) for i in (0, 1, 3) for r in (1, 2)])
    assert sorted(epochs[:10]) == sorted(epochs[10:]) == expected
    assert epochs[:10] != epochs[10:]


def test_copies_are_of_augmented_roles_only():
    sampler = MetaSampler(3, 4, maskable=[True, True, False], copies=3)
    epoch = list(itertools.chain(*take(sampler, 15)))[:15]
    assert sorted(epoch) == sorted([(i, 0) for i in range(3)] + 3 * [(i, r) for i in (0, 1) for r in (1, 2)])


def test_batches_are_full_across_epochs_and_larger_than_one():
    sampler = MetaSampler(3, 4, roles=(Role.ORIGINAL, Role.FACTUAL))
    assert [len(batch) for batch in take(sampler, 9)] == [4] * 9
    items = list(itertools.chain(*(MetaSampler(3, 4, roles=[0]).batch(k) for k in range(3))))
    assert [sorted(items[i : i + 3]) for i in range(0, 12, 3)] == [[(0, 0), (1, 0), (2, 0)]] * 4
    assert len(MetaSampler(2, 50).batch(1)) == 50


def test_resumed_sampling_goes_on_where_it_stopped():
    sampler = MetaSampler(7, 4, seed=5)
    full = take(sampler, 20)
    first = MetaSampler(7, 4, seed=5)
    assert take(first, 9) == full[:9]
    resumed = MetaSampler(7, 4, seed=5)
    resumed.load_state_dict(first.state_dict())
    assert take(resumed, 11) == full[9:]
    assert take(MetaSampler(7, 4, seed=6), 20) != full


def test_epochs_of_different_seeds_do_not_repeat_each_other():
    orders = {tuple(map(tuple, MetaSampler(6, 18, seed=seed).batch(k))) for seed in range(5) for k in range(5)}
    assert len(orders) == 25


def test_it_batches_a_data_loader_alike_for_any_number_of_workers():
    class Items(torch.utils.data.Dataset):
        def __getitem__(self, item):
            return torch.tensor(item)

        def __len__(self):
            return 6

    def batches(workers):
        loader = torch.utils.data.DataLoader(Items(), batch_sampler=MetaSampler(6, 4), num_workers=workers)
        return torch.stack(list(itertools.islice(loader, 5)))

    assert torch.equal(batches(0), batches(2))


def test_bad_samplers_are_explained():
    with pytest.raises(ValueError, match="one entry for each of the 3 images, found 2"):
        MetaSampler(3, 2, maskable=[True, False])
    with pytest.raises(ValueError, match="found 0 and 2"):
        MetaSampler(0, 2)
    with pytest.raises(ValueError, match="no image can take"):
        MetaSampler(2, 2, roles=[Role.FACTUAL], maskable=[False, False])
