"""What is learned easily about the label, whatever that is: the evidence that needs nothing."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...bilevel import Classifier
from .base import Sources
from .probe import OnlineProbe, ProbeEvidence

Q = 0.7  # published (Zhang & Sabuncu 2018; Nam et al. 2020)


class BiasEvidence(ProbeEvidence):
    """u_z of a biased twin: a head beside the classifier's own, on the same features, trained with generalised
    cross-entropy.

    That loss learns most from images it is sure of, and so amplifies what is learned first: in a biased training set
    the shortcut (LfF, Nam et al. 2020; its logits are added to those of training in Logit Correction, Liu et al.
    2023). Theirs are networks of their own; this is an `OnlineProbe`, at hardly any cost.
    """

    NAME = "bias"
    NEEDS = "nothing"
    STATE = "bias_probe"

    @classmethod
    def of(cls, sources: Sources) -> "BiasEvidence":
        """As of `Evidence`."""
        return cls(OnlineProbe(sources.num_features, sources.num_labels, q=Q))

    def __call__(self, batch: Mapping[str, Any], features: Tensor, classifier: Classifier) -> Tensor:
        """As of `Evidence`."""
        return self.probe(features.detach(), batch["labels"])
