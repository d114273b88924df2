"""The evidence of a run: of one kind, of several, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...bilevel import Classifier
from ...utils.names import did_you_mean
from .attribute import AttributeEvidence
from .background import BackgroundEvidence
from .base import Evidence, Sources
from .bias import BiasEvidence

EVIDENCES = {kind.NAME: kind for kind in (BackgroundEvidence, AttributeEvidence, BiasEvidence)}
NONE = "none"
NETWORKS = "current", "initial"


def evidence_names(names: str | Iterable[str]) -> list[str]:
    """Names of evidence, each once and in the order of `EVIDENCES`; `none` alone is none.

    Raises:
        ValueError: a name is unknown; lists the valid ones.
    """
    names = [names] if isinstance(names, str) else list(names)
    if names == [NONE]:
        return []
    if unknown := [name for name in names if name not in EVIDENCES]:
        if NONE in unknown:
            raise ValueError(f"evidence is {names}; {NONE!r} stands alone.")
        raise ValueError(
            f"evidence is {names}; expected any of {', '.join(EVIDENCES)}, or {NONE} alone."
            f"{did_you_mean(str(unknown[0]), EVIDENCES)}"
        )
    return [name for name in EVIDENCES if name in names]


class Evidences:
    """All the evidence of a run.

    Args:
        parts: in the order in which their u_z are stacked.
        network: whose features it is made of, where that is not the classifier in training; the checkpoints keep it.
    """

    def __init__(self, parts: Sequence[Evidence] = (), network: Classifier | None = None):
        self.parts = {part.NAME: part for part in parts}
        self.network = network

    @classmethod
    def of(cls, names: Iterable[str], sources: Sources, network: Classifier | None = None) -> Evidences:
        """Make evidence of the data at hand.

        Args:
            names: of the evidence.
            sources: what there is.
            network: as of the class.

        Raises:
            ValueError: they lack what one needs; says what, and which evidence would do.
        """
        names = list(names)
        for name in names:
            if (missing := EVIDENCES[name].missing(sources)) is not None:
                others = [kind for kind in EVIDENCES.values() if kind.missing(sources) is None]
                told = " or ".join(f"evidence=[{kind.NAME!r}], which needs {kind.NEEDS}" for kind in others)
                raise ValueError(f"evidence {name!r} needs {missing} With the data at hand goes {told}.")
        return cls([EVIDENCES[name].of(sources) for name in names], network)

    def __iter__(self) -> Iterator[Evidence]:
        return iter(self.parts.values())

    def __getitem__(self, name: str) -> Evidence:
        return self.parts[name]

    def __call__(
        self, batch: Mapping[str, Any], features: Tensor, classifier: Classifier, refit: bool = False
    ) -> Tensor | None:
        """u_z of a batch by each, as of `Evidence`.

        Args:
            batch, features, classifier: as of `Evidence`.
            refit: whether to fit anew afterwards what is not fitted at every step.

        Returns:
            (n, E, C); None where there is none.
        """
        if self.network is not None and self.parts:
            classifier, features = self.network, self.network.features(batch["pixel_values"])
        u_z = [part(batch, features, classifier) for part in self]
        if refit:
            for part in self:
                part.refit(classifier)
        return torch.stack(u_z, 1) if u_z else None

    def agreement(self, u_z: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        """By name of the evidence, the share of images of which it finds their own class the likeliest.

        Args:
            u_z: (n, E, C), or None.
            labels: (n,).
        """
        if u_z is None:
            return {}
        own = labels[:, None, None].expand(*u_z.shape[:2], 1)
        agrees = u_z.gather(-1, own)[..., 0] > u_z.scatter(-1, own, -torch.inf).amax(-1)
        return dict(zip(self.parts, agrees.to(u_z.dtype).mean(0), strict=True))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Evidences:
        """Move what is learned."""
        for part in self:
            part.to(device, dtype)
        if self.network is not None:
            self.network.module.to(device)
        return self

    def keep(self) -> Callable[[], None]:
        """What it returns brings back what is learned, and remembered, as it is now."""
        kept = [part.keep() for part in self]

        def bring_back():
            for part in kept:
                part()

        return bring_back

    def state_dict(self, gather: Callable[[list], list] = list) -> dict[str, Any]:
        """What is learned by each, under its own name, and what every process remembers.

        Args:
            gather: joins the lists of all processes.
        """
        state = {part.STATE: part.state_dict() for part in self}
        memories = {part.STATE: part.memory.state_dict() for part in self if part.memory is not None}
        if self.network is not None:
            state["evidence_network"] = self.network.module.state_dict()
        return state | ({"evidence_memories": gather([memories])} if memories else {})

    def load_state_dict(self, state: Mapping[str, Any], process: int | None, device: torch.device | str) -> None:
        """Go on from `state_dict`.

        Args:
            state: may hold other things too.
            process: the number of this one; None where there were others, whose memories are not its own.
            device: of what is remembered.
        """
        if self.network is not None:
            self.network.module.load_state_dict(state["evidence_network"])
        for part in self:
            part.load_state_dict(state[part.STATE])
            if part.memory is not None and process is not None:
                part.memory.load_state_dict(state["evidence_memories"][process][part.STATE], device)
