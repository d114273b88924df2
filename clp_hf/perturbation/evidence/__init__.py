"""What something other than the object says about the label: the extrinsic logits u_z of CLP's causal graph."""

from .background import BackgroundEvidence, BackgroundProbe
from .base import Evidence

EVIDENCES = {"background": BackgroundEvidence}

__all__ = ["EVIDENCES", "BackgroundEvidence", "BackgroundProbe", "Evidence"]
