"""Random augmentation that is a function of the batch, not of what was drawn before it."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset


class SeededDataset(Dataset):
    """A map-style data set whose random draws depend on seed, epoch and the indices of the batch alone.

    A loader fetches ahead of the training step, with workers or without, so the random state in a checkpoint is not
    that of the next batch: a resumed run would see other crops. With this around a data set it sees the same ones, for
    any number of workers. Draws from torch (CPU), NumPy and `random` are covered.

    Args:
        dataset: to be drawn from.
        seed: of the run.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # workers that live on have to see it
        self._told = 0

    @property
    def epoch(self) -> int:
        """Of which the random draws are."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch.fill_(epoch)
        self._tell()

    def _tell(self) -> None:
        """Pass the epoch on to the data set, in every process that has a copy of it."""
        if self._told != self.epoch and hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)
        self._told = self.epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list:
        self._tell()
        digest = hashlib.sha256(f"{self.seed} {self.epoch} {list(indices)}".encode()).digest()
        with seeded(int.from_bytes(digest[:8], "little")):
            if hasattr(self.dataset, "__getitems__"):
                return self.dataset.__getitems__(indices)
            return [self.dataset[index] for index in indices]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator, NumPy's and `random` start from `seed`; later they go on as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed % 2**63)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
