"""What methods are called in a report."""

from ..hub.record import RunRecord
from ..utils.text import one_line

ERM = "ERM"
LOSSES = {"cross_entropy": ERM}
METHODS = {
    "afr": "AFR", "clp-head": "CLP head", "dfr": "DFR", "group-dro-head": "GroupDRO of the head", "gsr": "GSR",
    "hsfm": "HSFM", "jtt": "JTT of the head", "meta-weight-net": "Meta-Weight-Net", "regression": "balanced regression"
}  # fmt: skip


def method_of(record: RunRecord) -> str:
    """The method of a run, in a few words; of a plain trainer with all that it changed."""
    facts = record.facts
    if record.method == "clp":
        return "CLP" if any(facts["infills"].values()) else "Meta-LP"
    if record.method != "plain-trainer":
        return METHODS.get(record.method, one_line(record.method))
    loss, sampling = facts["training_loss"], facts["train_sampling"]
    told = [LOSSES.get(loss, loss)]
    if sampling != "random":
        told.append(f"{sampling}-balanced sampling")
    if infills := facts.get("train_infills"):
        told.append(f"training images before other backgrounds ({', '.join(infills)})")
    return ", ".join(told)
