"""What looks ahead: the full network, or its head alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from .engines import TrainingPass
from .functional import run_at
from .recording import Recording
from .sharded import is_sharded, reshard, whole_copy


class Classifier:
    """A network and its final linear layer, in the ways in which Algorithm 1 runs them.

    Args:
        module: the classifier itself, which holds W.
        head: its final linear layer.
        forward: `(model, head, images (n, 3, H, W))` to logits (n, C) and penultimate features (n, d).
        autocast: what surrounds a call of `head` alone; that of `module` is around its `forward` already.

    Attributes:
        wrapped: what is called in training: `module`, or the wrapper whose hooks average gradients over processes.
        apart: what is called as the head alone: `head` itself, or where FSDP shards the module a whole copy of it.
        head_weights: those of the head that the optimizer knows, by name; where FSDP shards them, parts.
    """

    def __init__(
        self,
        module: nn.Module,
        head: nn.Module,
        forward: Callable[[nn.Module, nn.Module, Tensor], tuple[Tensor, Tensor]],
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.module = self.wrapped = module
        self.head, self._forward, self.autocast = head, forward, autocast
        self.sharded: bool | None = None  # until training begins, when FSDP has done it
        self.apart, self.head_weights = head, dict(head.named_parameters())

    def begin_step(self, wrapped: nn.Module) -> None:
        """Every process, before each training step: what is called in it, and where it is sharded, the head now."""
        self.wrapped = wrapped
        if self.sharded is None:
            self.sharded = is_sharded(self.module)
        self._reshard()
        self.head_weights = dict(self.head.named_parameters())
        self.apart = whole_copy(self.head) if self.sharded else self.head

    def _reshard(self) -> None:
        if self.sharded:
            reshard(self.module)

    def frozen(self) -> Classifier:
        """A copy as it is now, that never changes and is run as in evaluation."""
        module, head = copy.deepcopy((self.module, self.head))
        return Classifier(module.eval().requires_grad_(False), head, self._forward, self.autocast)

    def __call__(self, pixel_values: Tensor, model: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """Logits and features of images through `model`, by default `module`, at the parameters that it holds now."""
        return self._forward(model or self.module, self.head, pixel_values)

    def aside(self, pixel_values: Tensor, model: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """The same, moving no buffers: a pass beside that of training leaves batch-norm statistics where they are.

        It is a pass of every process where the module is sharded, as any other.
        """
        outputs = run_at(self.module, {}, lambda: self(pixel_values, model))
        self._reshard()
        return outputs

    def logits(self, pixel_values: Tensor) -> Tensor:
        """Of a pass aside."""
        return self.aside(pixel_values)[0]

    @torch.no_grad()
    def features(self, pixel_values: Tensor) -> Tensor:
        """Of a pass aside, without graph."""
        return self.aside(pixel_values)[1]

    def classify(self, features: Tensor) -> Tensor:
        """Logits of features, by the head."""
        with self.autocast():
            return self.apart(features)


def _logits(logits: Tensor, features: Tensor) -> Tensor:
    return logits


class FullScope:
    """All parameters that are trained look ahead.

    Attributes:
        REPLAYS: whether the dual pass is one of the whole network, so that the training pass should be recorded.
    """

    REPLAYS = True

    @staticmethod
    def module(classifier: Classifier) -> nn.Module:
        """What looks ahead."""
        return classifier.module

    @staticmethod
    def weights(classifier: Classifier) -> dict[str, nn.Parameter]:
        """Its parameters by name, those that the optimizer knows."""
        return dict(classifier.module.named_parameters())

    @staticmethod
    def training_pass(
        classifier: Classifier,
        pixel_values: Tensor,
        logits: Tensor,
        features: Tensor,
        recording: Recording,
        penalty: Tensor | None,
        seen: Callable[[Tensor, Tensor], Tensor] = _logits,
    ) -> TrainingPass:
        """The training pass as the look-ahead sees it; arguments are what it left.

        With `seen` it is of what that makes of logits and features, in the place of the logits.
        """
        return TrainingPass(lambda: seen(*classifier(pixel_values)), seen(logits, features), recording, penalty)

    @staticmethod
    def meta_pass(classifier: Classifier, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features of meta images at the parameters that `classifier` holds now."""
        return classifier(pixel_values)


class HeadScope(FullScope):
    """The final linear layer looks ahead; Jv is one small product, and the meta images need no backward pass below."""

    REPLAYS = False

    @staticmethod
    def module(classifier: Classifier) -> nn.Module:
        """As of `FullScope`."""
        return classifier.apart

    @staticmethod
    def weights(classifier: Classifier) -> dict[str, nn.Parameter]:
        """As of `FullScope`; where FSDP shards them, parts of those that look ahead."""
        return classifier.head_weights

    @staticmethod
    def training_pass(classifier, pixel_values, logits, features, recording, penalty, seen=_logits) -> TrainingPass:
        """As of `FullScope`: the head on the features, cached."""
        features = features.detach()
        return TrainingPass.run(lambda: seen(classifier.classify(features), features), features.device, penalty)

    @staticmethod
    def meta_pass(classifier: Classifier, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """As of `FullScope`; below the head there is no graph."""
        features = classifier.features(pixel_values)
        return classifier.classify(features), features


SCOPES = {"full": FullScope, "head": HeadScope}
