"""What something other than the object says about the label: the extrinsic logits u_z of CLP's causal graph."""

from .attribute import AttributeEvidence
from .background import BackgroundEvidence
from .base import Evidence, Sources
from .bias import BiasEvidence
from .family import EVIDENCES, NONE, Evidences, evidence_names
from .probe import OnlineProbe

BackgroundProbe = OnlineProbe  # its name while there was one evidence

__all__ = [
    "EVIDENCES",
    "NONE",
    "AttributeEvidence",
    "BackgroundEvidence",
    "BackgroundProbe",
    "BiasEvidence",
    "Evidence",
    "Evidences",
    "OnlineProbe",
    "Sources",
    "evidence_names",
]
