"""Algorithm 1 of CLP, in PyTorch alone: `MetaLearner.training_step` is the algorithm, read from top to bottom.

Notation of the paper: W are the weights of the classifier, U = U(W) its logits, Ω those of the perturbation network,
g the training characteristics (Table 1), δ = Ω(g) the perturbations of the logits, η the step of the optimizer.
"""

import copy
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .bilevel import (
    Classifier,
    ConvergedHead,
    Recording,
    derivative_in_output,
    dual_attention,
    hypergradient,
    step_sizes,
    whole,
)
from .bilevel.scope import FullScope
from .causal import Masks, MetaBatches, meta_loss, saliency_penalty
from .losses import Outputs
from .losses.objective import Objective, Run
from .modeling.head import head_layers
from .modeling.modes import evaluation_layers
from .perturbation import ClassStatistics, Evidences, MetaNetwork, training_characteristics
from .perturbation.base import FILES
from .perturbation.convergence import hypergradient_at_convergence, remember
from .perturbation.record import record_perturbation
from .perturbation.seen import detached, joined, parted, seen_by
from .perturbation.updates import NetworkUpdates
from .utils.precision import unless_finite

Batch = dict[str, Any]


class MetaLearner(Objective):
    """CLP: a perturbation network changes the training loss, and is itself trained one step ahead on a meta set.

    With another network, such as `WeightNetwork`, the same algorithm is another method.

    Args:
        classifier: W, and how it is run.
        network: Ω.
        statistics: the running class means that some characteristics need.
        evidence: gives u_z, what something other than the object says about the label.
        meta_batches: the meta set, in its roles.
        scope: what looks ahead, of `bilevel.SCOPES`.
        settings: has the fields of `CLPTrainingArguments`, by which the trainer checks them.
        meta_facts: what the card tells of the meta set and its infills, name -> value.
        converged: the head at which Ω is judged with `lookahead="converged"`; None where it looks one step ahead.
    """

    STATE_FILE = "meta_state.pt"
    seeds_batches = True

    def __init__(
        self,
        classifier: Classifier,
        network: MetaNetwork,
        statistics: ClassStatistics,
        evidence: Evidences,
        meta_batches: MetaBatches,
        scope: type[FullScope],
        settings: Any,
        meta_facts: Mapping[str, Any],
        converged: ConvergedHead | None = None,
    ):
        super().__init__()
        self.CARD = network.CARD
        self.classifier, self.network, self.statistics, self.evidence = classifier, network, statistics, evidence
        self.meta_batches, self.scope, self.settings, self.meta_facts = meta_batches, scope, settings, meta_facts
        self.converged = converged
        self.updates: NetworkUpdates | None = None
        self.optimizer: torch.optim.Optimizer | None = None

    def is_of(self, model: nn.Module) -> bool:
        """Whether the head is this model's."""
        return any(module is head_layers(self.classifier.head)[0] for module in model.modules())

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Ω starts a run with an optimizer of its own."""
        self.updates = NetworkUpdates(self.network, self.settings, self.means)
        self.optimizer = self.updates.optimizer

    def takes_step(self, run: Run) -> bool:
        """From `perturbation_start` on; before there is plain cross-entropy."""
        return run.step >= self.settings.perturbation_start * run.max_steps

    # ---- Algorithm 1 -------------------------------------------------------------------------------------------------

    def training_step(self, run: Run, batch: Batch) -> tuple[Tensor, bool]:
        """One batch of Algorithm 1: updates Ω, and leaves the gradient of W (Eq. 10).

        The algorithm as printed takes the gradient of W twice, with δ(Ωᵗ) to look ahead, and with δ(Ωᵗ⁺¹) for the step
        itself. With `reuse_gradient` the first is that of the step too: Ω acts on W one step later, and two of nine
        passes go.

        Args:
            run: where the run is.
            batch: `pixel_values` (n, 3, H, W), `labels` (n,) and what there is of `mask`, `group`, `noisy`, `swapped`.

        Returns:
            As of `Objective`: the step has to be left out where an update of Ω was due that could not be made, its
            gradient not being finite.
        """
        self.classifier.begin_step(run.model)
        batch = {**batch, **({"mask": Masks.of(batch["mask"])} if "mask" in batch else {})}
        labels = batch["labels"]
        # The last micro-batch stands for all, where Ω is not of each alone.
        meta_due = (run.steps_now or self.network.OF_BATCH) and run.step % self.settings.meta_every == 0
        self.network.progress = run.step / run.max_steps
        reuse = meta_due and self.settings.reuse_gradient and self.converged is None
        frees = self.settings.recompute_training_forward
        recompute = meta_due and frees and not reuse

        U, features, recording = self._training_pass(batch, meta_due, recompute)
        u_z = self._evidence(run, batch, features)
        g = self._characteristics(U, features, labels, u_z)  # Table 1
        self.network.begin_batch(g, labels)
        self.network.update_statistics(g)
        self.network.remember(g, labels)
        if self.converged is not None:
            remember(self.converged, features, labels, g, u_z)
        delta = partial(self.network, g, labels, u_z)  # δ(Ω)
        R = self._saliency(batch)  # λ Eq. 6

        def update() -> bool:
            if self.converged is not None:
                return self._update_at_convergence(run, batch)
            return self._update_network(run, batch, (U, features, recording), R, delta)

        updated = update() if meta_due and not reuse else True  # Ωᵗ⁺¹ (Eq. 8, 9)
        if recompute:
            (U, features), R = self._recomputed(batch, recording)
        with torch.no_grad():
            fixed = delta()
        seen = self._seen(U, features)
        loss = self._inner_loss(seen, fixed, labels)  # Eq. 10
        record_perturbation(self.means, self.network, detached(seen), fixed, batch)
        loss = unless_finite(loss if R is None else loss + R, U.detach(), g)
        kept = not frees or self.settings.hypergradient == "double_backward"
        loss = run.backward(loss, retain_graph=reuse and kept)
        if reuse:
            updated = update()  # Ωᵗ⁺¹, for the next batch
        return loss, not updated

    def _training_pass(self, batch: Batch, meta_due: bool, recompute: bool) -> tuple[Tensor, Tensor, Recording]:
        """U and the features of the training batch, recorded; where it is run again later, past the wrapper's hooks."""
        recording = Recording(batch["pixel_values"].device)
        engine = self.settings.hypergradient
        recorded = meta_due and engine == "forward" and self.scope.REPLAYS and self.converged is None
        math = dual_attention() if engine == "double_backward" else nullcontext()
        with recording if recorded else nullcontext(), math:
            model = self.classifier.module if recompute else self.classifier.wrapped
            logits, features = self.classifier(batch["pixel_values"], model)
        return logits, features, recording

    def _evidence(self, run: Run, batch: Batch, features: Tensor) -> Tensor | None:
        """u_z, (n, E, C), predicted before anything is learned from this batch; None without evidence."""
        refit = run.steps_now and (run.step + 1) % self.settings.evidence_every == 0
        u_z = self.evidence(batch, features, self.classifier, refit)
        for name, share in self.evidence.agreement(u_z, batch["labels"]).items():
            self.means.add(f"evidence_{name}_agreement", share)
        return u_z

    def _recomputed(self, batch: Batch, recording: Recording) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """U, the features and R once more, so that their first graph need not have outlived the meta pass."""
        with recording.random_state.replayed():  # without moving the batch-norm statistics once more
            outputs = self.classifier.aside(batch["pixel_values"], self.classifier.wrapped)
        return outputs, self._saliency(batch)

    def _characteristics(self, logits, features, labels, u_z=None, update: bool = True) -> Tensor:
        head, names = self.classifier.apart, self.network.characteristics
        g = training_characteristics(logits, features, labels, head.weight, self.statistics, names, update, u_z)
        return torch.cat([g, features.detach().to(g.dtype)], dim=1) if self.network.takes_features else g

    def _seen(self, logits: Tensor, features: Tensor) -> Tensor | Outputs:
        return seen_by(self.network, self.classifier.apart, logits, features)

    def _inner_loss(self, logits: Tensor | Outputs, output: Tensor, labels: Tensor) -> Tensor:
        """mean ℓ(U + δ, y), or what the network makes of its output."""
        return self.network.training_loss(logits, output, labels, self.settings.label_smoothing_factor)

    def _saliency(self, batch: Batch) -> Tensor | None:
        """λ times Eq. 6 on the first `saliency_batch_size` images; None when it is off or there are no masks."""
        if not self.settings.saliency_weight or "mask" not in batch:
            return None
        rows = slice(self.settings.saliency_batch_size)
        masks = batch["mask"].shaped(self.settings.mask_shape)[rows]
        pixel_values, labels = batch["pixel_values"][rows], batch["labels"][rows]
        return self.settings.saliency_weight * saliency_penalty(self.classifier.logits, pixel_values, labels, masks)

    def _update_network(self, run: Run, batch: Batch, passed: tuple, R: Tensor | None, delta: Callable) -> bool:
        """Steps 2 and 3: look ahead, Ŵ(Ω) = W − η ∇[mean ℓ(U + δ(Ω), y) + R] (Eq. 8), and update Ω by the gradient of
        the meta loss at Ŵ (Eq. 9); `passed` is what `_training_pass` returned.

        Returns:
            Whether Ω was updated: not by what is not finite.
        """
        settings, labels, network = self.settings, batch["labels"], self.network
        looking, weights = self.scope.module(self.classifier), self.scope.weights(self.classifier)
        meta_batch = self.meta_batches.draw(self._logits_in_use, _donors(batch))
        training_pass = self.scope.training_pass(
            self.classifier, batch["pixel_values"], *passed, R, lambda *outputs: joined(self._seen(*outputs))
        )
        seen = self._seen(*passed[:2])

        def inner_loss(tensor: Tensor, output: Tensor) -> Tensor:
            return self._inner_loss(parted(tensor, seen), output, labels)

        result = hypergradient(
            looking,
            training_pass,
            lambda tensor: inner_loss(tensor, delta()),
            lambda: self._meta_loss(meta_batch),
            network.hyperparameters(labels),
            partial(_steps, run.optimizer, weights, settings, "sgd" if network.at_rest else settings.lookahead),
            engine=settings.hypergradient,
            keep_graph=not (settings.reuse_gradient or settings.recompute_training_forward),
            loss_scale=1.0 if run.loss_scale is None else run.loss_scale,
            gradients=_gradients(weights, network.at_rest) if settings.reuse_gradient or network.at_rest else None,
        )
        taken = self.updates.take(result, run.optimizer, run.step)
        derivative = partial(derivative_in_output, inner_loss, training_pass.logits, delta(), result.logit_tangent)
        if network.OF_BATCH:
            network.adapt(result.total[0] if taken else None, derivative)
        if taken and result.logit_tangent is not None and "group" in batch and not network.takes_features:
            self.means.add_each("signal_group", network.signal(derivative(), labels), batch["group"])
        return taken

    def _update_at_convergence(self, run: Run, batch: Batch) -> bool:
        """Steps 2 and 3 with the head that training would end with, on what is remembered, in the place of Ŵ(Ω).

        Returns:
            Whether Ω was updated, or had to wait until enough is remembered.
        """
        ready = self.converged.is_ready()
        self.means.add("lookahead_waiting", torch.tensor(float(not ready)))
        if not ready:
            return True
        meta = self.meta_batches.draw(self._logits_in_use, _donors(batch))
        with self._meta_mode():
            features = self.classifier.features(meta["pixel_values"])
        result, converged = hypergradient_at_convergence(
            self.converged, self.network, features, meta["labels"], meta["counterfactual"]
        )
        self.means.add("lookahead_not_converged", torch.tensor(float(not converged)))
        return self.updates.take(result, run.optimizer, run.step)

    def _logits_in_use(self, pixel_values: Tensor) -> Tensor:
        """What `fgsm` attacks: the few images that it takes are no batch to normalise by, and may be a single one."""
        with evaluation_layers(self.classifier.module):
            return self.classifier.logits(pixel_values)

    def _meta_mode(self) -> AbstractContextManager:
        """Around a meta pass: the classifier as it will be used, without dropout and with batch norm's running
        statistics.

        Those of the meta batch, where classes or groups are balanced as they are not in training, would put every image
        elsewhere among the features, and Ω would correct for that.
        """
        return nullcontext() if self.settings.meta_in_training_mode else evaluation_layers(self.classifier.module)

    def _meta_loss(self, batch: Batch) -> Tensor:
        """The meta loss at the parameters that the classifier holds now (Eq. 9)."""
        settings, labels = self.settings, batch["labels"]
        with self._meta_mode():
            logits, features = self.scope.meta_pass(self.classifier, batch["pixel_values"])
            if settings.perturb_meta_logits:  # Eq. 9 literally
                logits = logits + self.network(self._characteristics(logits, features, labels, update=False), labels)
            loss, penalty = meta_loss(logits, labels, batch["counterfactual"]), self._saliency(batch)
        return loss if penalty is None else loss + penalty

    def keep(self) -> Callable[[], None]:
        """As of `Objective`: Ω with its optimizer and what it remembers, the class means, and the evidence's own."""
        parts = list(filter(None, (self.network, self.optimizer, self.statistics)))
        states = [copy.deepcopy(part.state_dict()) for part in parts]
        others = [super().keep(), self.evidence.keep(), *([] if self.converged is None else [self.converged.keep()])]
        recent = self.network.recent

        def bring_back():
            for other in others:
                other()
            for part, state in zip(parts, states, strict=True):
                part.load_state_dict(state)
            self.network.recent = recent

        return bring_back

    # ---- checkpoints and cards ---------------------------------------------------------------------------------------

    def save_beside(self, folder: str) -> None:
        """Write Ω into the folder that it has its name of."""
        self.network.save_beside(folder)

    def load_beside(self, folder: str) -> None:
        """Read Ω, and the samples over which its response is drawn."""
        self.network.load_beside(folder)

    def check(self, folder: str) -> None:
        """As of `Objective`: state and network are there, and the network is one of these settings."""
        _check_checkpoint(folder, self.STATE_FILE, self.network)

    def _parts(self) -> dict[str, Any]:
        own = {"network": self.network} if self.network.OF_BATCH else {"optimizer": self.optimizer}
        return {**own, "class_statistics": self.statistics, "sampler": self.meta_batches.sampler}

    def state_dict(self, gather: Callable[[list], list]) -> dict[str, Any]:
        """As of `Objective`, with the random state of every process's infills, and what it remembers."""
        state = {name: part.state_dict() for name, part in self._parts().items()} | self.evidence.state_dict(gather)
        state["generators"] = gather([self.meta_batches.generator.get_state()])
        if self.converged is not None:
            state["converged"] = gather([self.converged.state_dict()])
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As of `Objective`; with another number of processes infills and meta crops are drawn anew, and features are
        remembered from then on."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        device = self.statistics.proportion.device
        same = len(state["generators"]) == self.meta_batches.world_size
        self.evidence.load_state_dict(state, self.meta_batches.rank if same else None, device)
        if same:
            self.meta_batches.generator.set_state(state["generators"][self.meta_batches.rank])
            if self.converged is not None:
                self.converged.load_state_dict(state["converged"][self.meta_batches.rank], device)

    def facts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As of `Objective`."""
        return {
            "method_settings": dict(settings),
            **self.meta_facts,
            "network_parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }


def _check_checkpoint(folder: str, state_file: str, network: MetaNetwork) -> None:
    files = [os.path.join(network.FOLDER, name) for name in FILES] if network.FOLDER else []
    needed = ["trainer_state.json", state_file, *files]
    if missing := [name for name in needed if not os.path.isfile(os.path.join(folder, name))]:
        raise ValueError(
            f"{folder} is not a complete checkpoint of a CLP run: {', '.join(missing)} is missing. Either the "
            "writing of it was cut off, or it was saved with save_only_model=True or meta_every=0. Resume from "
            "another checkpoint, or start anew without resume_from_checkpoint."
        )
    expected = network.config
    found = type(network).from_pretrained(folder).config if network.FOLDER else expected
    if found != expected:
        raise ValueError(
            f"The perturbation network in {folder} was trained with {found}, this run is set to {expected}. Resume "
            "with the settings of the run that wrote the checkpoint."
        )


def _gradients(weights: Mapping[str, nn.Parameter], at_rest: bool) -> dict[str, Tensor]:
    """Those that a backward pass has left, by parameter name, whole; at rest, zeros."""
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    none = {name for name, weight in trained.items() if at_rest or weight.grad is None}
    return {name: whole(torch.zeros_like(weight) if name in none else weight.grad) for name, weight in trained.items()}


def _steps(
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, nn.Parameter],
    settings: Any,
    lookahead: str,
    gradients: Mapping[str, Tensor],
) -> Mapping[str, Tensor | float]:
    """η of every weight that looks ahead."""
    trained = {name: weights[name] for name in gradients}
    return step_sizes(optimizer, trained, gradients, lookahead, settings.max_grad_norm)


def _donors(batch: Batch) -> Batch | None:
    """The training images from which meta images may borrow the background: those that are before their own."""
    if "mask" not in batch or "swapped" not in batch:
        return batch if "mask" in batch else None
    own = ~batch["swapped"]
    columns = {"pixel_values": batch["pixel_values"], "labels": batch["labels"], "mask": batch["mask"].soft}
    return {name: values[own] for name, values in columns.items()} if own.any() else None
