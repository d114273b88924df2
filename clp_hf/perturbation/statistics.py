"""Running means of the training set per class, which some characteristics compare a sample with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bilevel.distributed import all_reduce_sum


class ClassStatistics(nn.Module):
    """Running means of loss and margin per class, and the class proportions, as buffers: saved, resumed, on any device.

    A class takes the mean of its first batches, and moves as an exponential average after them.

    Args:
        class_proportions: (C,), the share N_y / N of each class in the training set.
        momentum: weight of the past in the moving average, in [0, 1).
        counted: the shares are not known (a stream): those among the labels seen so far take the place of
            `class_proportions`.
    """

    def __init__(self, class_proportions: Tensor, momentum: float = 0.9, counted: bool = False):
        super().__init__()
        self.momentum, self.counted = momentum, counted
        self.register_buffer("proportion", torch.as_tensor(class_proportions, dtype=torch.float32).clone())
        self.register_buffer("loss", torch.zeros_like(self.proportion))
        self.register_buffer("margin", torch.zeros_like(self.proportion))
        self.register_buffer("num_updates", torch.zeros_like(self.proportion))
        self.register_buffer("count", torch.zeros_like(self.proportion, dtype=torch.long))

    @torch.no_grad()
    def update(self, loss: Tensor, margin: Tensor, labels: Tensor) -> None:
        """Take in a batch, of all processes: `loss`, `margin` and `labels` are (n,)."""
        membership = F.one_hot(labels, len(self.proportion)).to(loss.dtype)
        totals = torch.stack([membership.sum(0), *((membership * values[:, None]).sum(0) for values in (loss, margin))])
        (totals,) = all_reduce_sum([totals])
        count, totals = totals[0], totals[1:]
        present = count > 0
        self.count += count.long()
        if self.counted:
            self.proportion.copy_(self.count / self.count.sum())
        memory = torch.minimum(self.num_updates / (self.num_updates + 1), torch.full_like(count, self.momentum))
        for buffer, total in zip((self.loss, self.margin), totals, strict=True):
            batch_mean = total / count.clamp(min=1)
            buffer.copy_(torch.where(present, memory * buffer + (1 - memory) * batch_mean, buffer))
        self.num_updates += present
