"""What a trainer learns by: the cross-entropy, a training loss, or (`clp_hf.algorithm`) a meta-learner."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bilevel.distributed import rank, world_size
from ..modeling.head import ComposedHead, forward_with_features, set_head
from ..utils.means import Means
from ..utils.precision import at_least_float32
from .base import Outputs, TrainingLoss

OWN = "_extra_state"  # of a module's state what is no buffer of it (`nn.Module.get_extra_state`)


def _backward(loss: Tensor, retain_graph: bool = False) -> Tensor:
    loss.backward(retain_graph=retain_graph)
    return loss.detach()


@dataclass
class Run:
    """Where a training run is, as an objective has to know.

    Attributes:
        model: the classifier as it is trained, in the wrapper that averages gradients over processes, if any.
        optimizer: of its weights; None before it is made.
        step, max_steps: optimizer steps done, and in all.
        steps_now: whether the optimizer steps after this batch, and does not wait for more of them.
        loss_scale: of the loss scaler; None without one.
        backward: the backward pass of a training loss, which leaves the gradient of W where the optimizer looks for it,
            times `loss_scale`; `retain_graph` as of PyTorch. Returns the loss, detached, as it is reported.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    step: int
    max_steps: int
    steps_now: bool = True
    loss_scale: float | None = None
    backward: Callable[..., Tensor] = _backward


class Objective:
    """What a trainer learns by. This one is the cross-entropy: it leaves everything to the plain `Trainer`.

    Attributes:
        STATE_FILE: in a checkpoint; None where there is no state.
        CARD: the template in `hub_cards` of the classifiers that are trained by it.
        seeds_batches: whether the random augmentation of a training batch has to be a function of seed, epoch and
            indices, so that a resumed run sees the same one.
        means: of what is logged.
    """

    STATE_FILE: str | None = None
    CARD = "plain-trainer"
    seeds_batches = False

    def __init__(self):
        self.means = Means()

    def is_of(self, model: nn.Module) -> bool:
        """Whether it can train this model; another one needs an objective of its own."""
        return True

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the first step of a training run, when the optimizer of the weights has been made."""

    def takes_step(self, run: Run) -> bool:
        """Whether the next batch is one of `training_step`, and not of the plain Trainer's step."""
        return False

    def training_step(self, run: Run, batch: Mapping[str, Any]) -> tuple[Tensor, bool]:
        """All of a batch but the optimizer's step: leaves the gradient of W, by `run.backward`.

        Returns:
            The loss, as of `run.backward`, and whether the optimizer has to leave out this step, where a loss scaler
            can go on with a smaller scale.
        """
        raise NotImplementedError

    def loss(self, run: Run, batch: Mapping[str, Any]) -> Tensor | None:
        """The loss of a training batch in the plain Trainer's step; None for the plain Trainer's own."""
        return None

    def keep(self) -> Callable[[], None]:
        """Before every step of the optimizer: what it returns brings all that a step moves back to what it is now.

        It is called where the step turns out not to be finite, and is not taken.
        """
        return self.means.keep()

    def save_beside(self, folder: str) -> None:
        """Write what belongs into a repository or checkpoint beside the classifier."""

    def load_beside(self, folder: str) -> None:
        """Read what `save_beside` wrote."""

    def check(self, folder: str) -> None:
        """Refuse to go on from what is not a whole checkpoint of such a run: it would train something else.

        Raises:
            ValueError: names what is missing or another, and the fix.
        """

    def state_dict(self, gather: Callable[[list], list]) -> dict[str, Any] | None:
        """All that a resumed run needs beside what `save_beside` writes; called on every process.

        Args:
            gather: joins the lists of all processes.
        """
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""

    def facts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the card shows beyond that of every classifier.

        Args:
            settings: of the method, name -> value.
        """
        return {
            "train_sampling": settings["train_sampling"],
            "training_loss": settings["training_loss"],
            "loss_options": settings["training_loss_options"],
            "train_infills": settings["train_infills"],
            "train_infill_share": settings["train_infill_share"],
        }


class LossObjective(Objective):
    """A `TrainingLoss` in place of the cross-entropy; evaluation is by cross-entropy, whatever trains.

    Args:
        name: of the loss, in `TRAINING_LOSSES`.
        training_loss: on the device of the run.
        head: the classifier's final linear layer; needed where the loss takes cosines or features.
    """

    STATE_FILE = "training_loss.pt"

    def __init__(self, name: str, training_loss: TrainingLoss, head: nn.Linear | ComposedHead | None = None):
        super().__init__()
        self.name, self.training_loss, self.head = name, training_loss, head

    def is_of(self, model: nn.Module) -> bool:
        """False where the head is another model's."""
        return self.head is None or any(module is self.head for module in model.modules())

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """For cosines the head's rows are brought to unit length, now and after every step."""
        if self.training_loss.takes_cosines:
            _to_unit_rows(self.head)
            optimizer.register_step_post_hook(lambda *_: _to_unit_rows(self.head))

    def loss(self, run: Run, batch: Mapping[str, Any]) -> Tensor:
        """As of `Objective`."""
        self.training_loss.progress = run.step / run.max_steps
        return self.training_loss.of_batch(partial(self._classify, run.model), batch)

    def _classify(self, model: nn.Module, pixel_values: Tensor) -> Outputs:
        if self.head is None:
            return Outputs(at_least_float32(model(pixel_values=pixel_values).logits))
        logits, features = map(at_least_float32, forward_with_features(model, self.head, pixel_values))
        if self.training_loss.takes_cosines:
            logits = logits / features.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return Outputs(logits, features, at_least_float32(self.head.weight))

    def keep(self) -> Callable[[], None]:
        """As of `Objective`, with the buffers of the loss."""
        means, buffers = super().keep(), copy.deepcopy(self.training_loss.state_dict())

        def bring_back():
            means()
            self.training_loss.load_state_dict(buffers)

        return bring_back

    def check(self, folder: str) -> None:
        """As of `Objective`."""
        if not os.path.isfile(os.path.join(folder, self.STATE_FILE)):
            raise ValueError(
                f"{folder} has no {self.STATE_FILE}: it was not written with training_loss={self.name!r}. Resume "
                "one that was, or start anew."
            )

    def state_dict(self, gather: Callable[[list], list]) -> dict[str, Any]:
        """The buffers of the loss, which are the same in all processes, and what every one has for itself."""
        state = self.training_loss.state_dict()
        return state | {name: gather([own]) for name, own in state.items() if name.endswith(OWN)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of the loss; with another number of processes what each had for itself begins anew."""
        own = {name: parts for name, parts in state.items() if name.endswith(OWN)}
        same = all(len(parts) == world_size() for parts in own.values())
        mine = {name: parts[rank()] if same else {} for name, parts in own.items()}
        self.training_loss.load_state_dict({**state, **mine})


def _to_unit_rows(head: nn.Linear | ComposedHead) -> None:
    """Make the logits of `head` the features' lengths times their cosines with its rows.

    A row whose length is 1 but for rounding stays as it is: a resumed run starts with just those of its checkpoint.
    """
    weight = head.weight.detach()
    lengths = weight.norm(dim=-1, keepdim=True)
    is_unit = (lengths - 1).abs() <= 8 * torch.finfo(weight.dtype).eps
    set_head(head, torch.where(is_unit, weight, F.normalize(weight, dim=-1)), torch.zeros_like(weight[:, 0]))
