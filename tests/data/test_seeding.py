"""Random augmentation is a function of seed, epoch and batch, and leaves every generator as it was."""

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clp_hf.data.seeding import SeededDataset


class Noise(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()), np.random.rand(), random.random()], dtype=torch.float64)


def batches(seed=0, epoch=0, workers=0):
    dataset = SeededDataset(Noise(), seed)
    dataset.set_epoch(epoch)
    return torch.stack(list(DataLoader(dataset, batch_size=2, num_workers=workers)))


def test_the_same_for_any_number_of_workers_and_whatever_was_drawn_before():
    first = batches()
    torch.rand(3), np.random.rand(5), random.random()
    assert torch.equal(batches(), first)
    assert torch.equal(batches(workers=2), first)
    assert len(first.flatten(0, 1)[:, 1:].flatten().unique()) == 18


def test_seed_epoch_and_batch_matter():
    noise = [batches(seed, epoch).flatten(0, 1)[:, 1:] for seed, epoch in ((0, 0), (1, 0), (0, 1))]
    assert len(torch.cat(noise).flatten().unique()) == 54
    one = SeededDataset(Noise(), 0)
    assert not torch.equal(one.__getitems__([1, 2])[0], one.__getitems__([1, 3])[0])


def test_other_streams_go_on_as_if_nothing_had_been_drawn():
    for draw, seed in ((torch.rand, torch.manual_seed), (np.random.rand, np.random.seed)):
        seed(3)
        expected = [float(draw(1)[0]) for _ in range(2)]
        seed(3)
        found = [float(draw(1)[0])]
        SeededDataset(Noise(), 0).__getitems__([0, 1])
        found.append(float(draw(1)[0]))
        assert found == expected
