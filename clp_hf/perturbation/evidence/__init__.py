"""What something other than the object says about the label: the extrinsic logits u_z of CLP's causal graph."""

from .background import BackgroundEvidence, BackgroundProbe
from .base import Evidence
from .on_features import ON_FEATURES, Material, agreement, class_weights, evidence_on_features

EVIDENCES = {"background": BackgroundEvidence}

__all__ = [
    "EVIDENCES",
    "ON_FEATURES",
    "BackgroundEvidence",
    "BackgroundProbe",
    "Evidence",
    "Material",
    "agreement",
    "class_weights",
    "evidence_on_features",
]
