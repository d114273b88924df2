"""What something other than the object says about the label: the extrinsic logits u_z of CLP's causal graph."""

from .attribute import AttributeEvidence, attributes_of, meta_attributes, missing_attributes
from .background import BackgroundEvidence
from .base import Evidence, Sources
from .bias import BiasEvidence
from .family import EVIDENCES, NETWORKS, NONE, Evidences, evidence_names
from .on_features import ON_FEATURES, Material, agreement, class_weights, evidence_on_features
from .probe import OnlineProbe

BackgroundProbe = OnlineProbe  # its name while there was one evidence

__all__ = [
    "EVIDENCES",
    "NETWORKS",
    "NONE",
    "ON_FEATURES",
    "AttributeEvidence",
    "BackgroundEvidence",
    "BackgroundProbe",
    "BiasEvidence",
    "Evidence",
    "Evidences",
    "Material",
    "OnlineProbe",
    "Sources",
    "agreement",
    "attributes_of",
    "class_weights",
    "evidence_names",
    "evidence_on_features",
    "meta_attributes",
    "missing_attributes",
]
