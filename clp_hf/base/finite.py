"""No state moves by a step that is not finite, and training does not go on as if nothing were wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..bilevel import is_sharded
from ..modeling.modes import evaluate
from ..utils.precision import MOST_IN_A_ROW, NonFiniteError, unless_finite
from .checkpoints import newest_whole

logger = logging.get_logger(__name__)


class StepGuard(TrainerCallback):
    """Leaves out a step of the optimizer whose gradient is not finite, and all that its batches moved.

    Pixels, logits, loss and batch-norm statistics speak through the gradient (`unless_finite`), which is the same on
    all processes, so these agree without a word. Without a loss scaler such a step stops training, or with
    `on_nonfinite="skip"` is left out and counted. With one it is the scaler's to skip it, unless no scale could help.

    Args:
        trainer: whose steps these are; its arguments have `on_nonfinite`.
        keep: remembers the running state of what is trained by, and returns what brings it back.

    Attributes:
        skipped: steps left out since it was last set to 0.
        gradient_norm: of the step that is due.
    """

    def __init__(self, trainer: Trainer, keep: Callable[[], Callable[[], None]]):
        self.trainer, self.keep = trainer, keep
        self.skipped = self._in_a_row = 0
        self.gradient_norm: Tensor | float = 0.0
        self._scale: float | None = None
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._undo: list[Callable[[], None]] = []

    def watch(self, loss: Tensor, pixel_values: Tensor) -> Tensor:
        """The loss of a training batch, by `unless_finite`; called after its forward pass."""
        self._batches.append((loss.detach(), pixel_values))
        running = _running_statistics(self.trainer.model)
        return unless_finite(loss, pixel_values, *([torch.stack(_sizes(running))] if running else []))

    def on_step_begin(self, args, state, control, **kwargs):
        """Remember how things are."""
        self._batches.clear()
        self._undo = [self.keep(), _keep_buffers(self.trainer.model)]

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Without a loss scaler: leave a step out before the optimizer sees it."""
        scaler = self.trainer.accelerator.scaler
        self._scale = None if scaler is None else scaler.get_scale()
        if scaler is None and not math.isfinite(self.gradient_norm):
            self.trainer.model.zero_grad()
            self._leave_out(stop=args.on_nonfinite == "stop")
        elif scaler is None:
            self._in_a_row = 0

    def on_optimizer_step(self, args, state, control, **kwargs):
        """With a loss scaler: it has left the step out if it has lowered the scale.

        (accelerate's `optimizer_step_was_skipped` does not know of fused optimizers.)
        """
        if self._scale is None:
            return
        if self.trainer.accelerator.scaler.get_scale() < self._scale:
            # no scale helps against these
            # (the weights first: where they are sharded, all processes look at them together)
            hopeless = not finite_weights(self.trainer.model) or not all(_finite(pixels) for _, pixels in self._batches)
            self._leave_out(stop=hopeless and args.on_nonfinite == "stop")
        else:
            self._in_a_row = 0

    def on_train_end(self, args, state, control, **kwargs):
        """What is kept is finite."""
        self.check_weights()

    def check_weights(self) -> None:
        """Refuse to save, or to end with, weights that are not finite.

        Raises:
            NonFiniteError: as for a step.
        """
        if not finite_weights(self.trainer.model):
            raise NonFiniteError(
                f"After step {self.trainer.state.global_step} weights of the model are not finite. {self._advice()}"
            )

    def _leave_out(self, stop: bool) -> None:
        for undo in self._undo:
            undo()
        self.skipped += 1
        self._in_a_row += 1
        if stop or self._in_a_row >= MOST_IN_A_ROW:
            raise NonFiniteError(f"{self._seen()} {self._advice()}")

    def _seen(self) -> str:
        """What of the step is not finite."""
        step, model = self.trainer.state.global_step, self.trainer.accelerator.unwrap_model(self.trainer.model)
        again = f" for {self._in_a_row} steps in a row" if self._in_a_row > 1 else ""
        for _, pixels in self._batches:
            if not _finite(pixels):
                images = (~torch.isfinite(pixels).flatten(1).all(1)).sum().item()
                return (
                    f"Non-finite pixels in a training batch of step {step}{again}, in {images} of its {len(pixels)} "
                    "images; clean the images."
                )
        # the batch whose loss is not finite, else the one with the largest pixels
        loss, pixels = max(self._batches, key=lambda batch: (not _finite(batch[0]), batch[1].abs().max().item()))
        told = [
            f"the loss is {loss.mean().item():g}",
            f"the norm of its gradient is {float(self.gradient_norm):g}",
            f"the normalised pixels reach {pixels.abs().max().item():g}",
        ]
        if not is_sharded(model):  # whose parameters all processes gather, of which others may have told of pixels
            with self.trainer.accelerator.autocast():
                logits = evaluate(model, pixels).logits
            told[2:2] = [
                f"the logits are {'finite' if _finite(logits) else 'not finite'}",
                f"the weights are {'finite' if finite_weights(model) else 'not finite'}",
            ]
        return f"Training became non-finite at step {step}{again}: {', '.join(told)}."

    def _advice(self) -> str:
        args = self.trainer.args
        last = newest_whole(args.output_dir)
        return (
            f"Likely causes: a learning rate that is too high ({args.learning_rate:g}), images with extreme pixels, "
            "half precision that overflows. "
            + (f"The last good checkpoint is {last}. " if last else "No checkpoint has been saved yet. ")
            + (
                f"{MOST_IN_A_ROW} steps in a row are not left out."
                if args.on_nonfinite == "skip"
                else "With on_nonfinite='skip' (--on_nonfinite skip) such steps are left out and counted."
            )
        )


def finite_weights(model: nn.Module) -> bool:
    """Whether all parameters and batch-norm statistics are finite."""
    return all(_finite(tensor) for tensor in (*model.parameters(), *_running_statistics(model)))


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _sizes(tensors: list[Tensor]) -> list[Tensor]:
    return torch._foreach_norm(tensors, torch.inf)


def _normalisations(model: nn.Module) -> list[nn.Module]:
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    return [layer for layer in layers if layer.running_mean is not None]


def _running_statistics(model: nn.Module) -> list[Tensor]:
    return [tensor for layer in _normalisations(model) for tensor in (layer.running_mean, layer.running_var)]


def _keep_buffers(model: nn.Module) -> Callable[[], None]:
    buffers = [buffer for layer in _normalisations(model) for buffer in layer.buffers(recurse=False)]
    kept = [buffer.clone() for buffer in buffers]

    @torch.no_grad()
    def bring_back():
        for buffer, old in zip(buffers, kept, strict=True):
            buffer.copy_(old)

    return bring_back
