"""Two networks that learn from each other, in the training step of one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...bilevel.distributed import all_reduce_mean
from ...modeling.head import ComposedHead, head_layers
from ...utils.precision import at_least_float32
from ..objective import LossObjective, Run
from .base import PairLoss


class TwoNetworkObjective(LossObjective):
    """A `PairLoss`, by which a classifier is trained with a second one, its peer.

    The peer is in the optimizer of the classifier, each weight where that of the same name is, and so follows its
    schedule; its gradient is averaged over processes, and clipped by its own norm. It is saved in checkpoints alone:
    what is published is the classifier. The loss of a step, as it is reported, is that of both.

    Args:
        name, training_loss: as of `LossObjective`.
        model: the classifier, on the device of the run.
        head: its final linear layer.
        seed: of the head of the peer.
        max_grad_norm: to which gradients are clipped; 0 where they are not.
        autocast: what surrounds a call of the peer.

    Attributes:
        peer: as the classifier is when this is made, but for a head of random weights.
    """

    training_loss: PairLoss

    def __init__(
        self,
        name: str,
        training_loss: PairLoss,
        model: nn.Module,
        head: nn.Linear | ComposedHead,
        seed: int,
        max_grad_norm: float = 0.0,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        super().__init__(name, training_loss, head)
        self.model, self.max_grad_norm, self.autocast = model, max_grad_norm, autocast
        self.peer = with_new_head(model, head, seed)

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer takes the peer on."""
        weights = dict(self.peer.named_parameters())
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        known = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for group in optimizer.param_groups:
            peers = [weights[names[id(weight)]] for weight in group["params"] if id(weight) in names]
            group["params"] += [weight for weight in peers if id(weight) not in known]  # known, in a second training
        optimizer.register_step_post_hook(lambda *_: self.peer.zero_grad())

    def takes_step(self, run: Run) -> bool:
        """Always: what the plain Trainer does of a step it does for one network."""
        return True

    def training_step(self, run: Run, batch: Mapping[str, Any]) -> tuple[Tensor, bool]:
        """As of `Objective`."""
        self.training_loss.progress = run.step / run.max_steps
        self.peer.train()
        logits = run.model(pixel_values=batch["pixel_values"]).logits
        with self.autocast():
            peer_logits = self.peer(pixel_values=batch["pixel_values"]).logits
        losses = self.training_loss(at_least_float32(logits), at_least_float32(peer_logits), batch["labels"])
        self._record(losses.weights, batch)
        loss = run.backward(losses.own + losses.peer)
        if run.steps_now:
            self._finish_gradient(run)
        return loss, False

    def _record(self, weights: Tensor, batch: Mapping[str, Any]) -> None:
        if "group" in batch:
            self.means.add_each("weight_group", weights, batch["group"])
        if "noisy" in batch:
            self.means.add_where("weight_noisy", weights, batch["noisy"].bool())
            self.means.add_where("weight_clean", weights, ~batch["noisy"].bool())

    @torch.no_grad()
    def _finish_gradient(self, run: Run) -> None:
        """Of the peer, which no wrapper averages, no Trainer clips, and no guard looks at."""
        trained = [weight for weight in self.peer.parameters() if weight.grad is not None]
        gradients = [weight.grad for weight in trained]
        for gradient, mean in zip(gradients, all_reduce_mean(gradients), strict=True):
            gradient.copy_(mean)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.max_grad_norm:
            limit = self.max_grad_norm * (run.loss_scale or 1.0)
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        # A gradient that is not finite leaves out the step of both: it is the classifier's that is looked at.
        first = next(weight.grad for weight in self.model.parameters() if weight.grad is not None)
        first.add_((norm * 0).to(first.dtype))

    def keep(self) -> Callable[[], None]:
        """As of `Objective`, with the statistics of the peer."""
        others, buffers = super().keep(), {name: buffer.clone() for name, buffer in self.peer.named_buffers()}

        @torch.no_grad()
        def bring_back():
            others()
            self.peer.zero_grad()
            for name, buffer in self.peer.named_buffers():
                buffer.copy_(buffers[name])

        return bring_back

    def state_dict(self, gather: Callable[[list], list]) -> dict[str, Any]:
        """The buffers of the loss, and the peer."""
        return {"loss": super().state_dict(gather), "peer": self.peer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of the loss, and of the peer."""
        super().load_state_dict(state["loss"])
        self.peer.load_state_dict(state["peer"])


def with_new_head(model: nn.Module, head: nn.Linear | ComposedHead, seed: int) -> nn.Module:
    """A copy of a classifier, with a head of random weights; the random stream of the run stays where it is.

    Two networks from the same pretrained weights differ by their heads, and from the first step on in all weights.

    Args:
        model: a classifier.
        head: its final linear layer.
        seed: of those weights.
    """
    other, other_head = copy.deepcopy((model, head))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in head_layers(other_head):
            layer.reset_parameters()
    return other
