"""What methods are called in a report, and which of their weights were kept."""

from ..hub.history import told_selection
from ..hub.record import RunRecord
from ..utils.text import one_line

ERM = "ERM"
LOSSES = {"cross_entropy": ERM}
SAMPLINGS = {
    "class": "class-balanced sampling", "group": "group-balanced sampling",
    "class_late": "class-balanced sampling late in training", "expanding": "an expanding set with balanced groups",
    "group_subset": "as many images of every group", "weight": "images drawn by weights",
}  # fmt: skip
METHODS = {
    "afr": "AFR", "clp-head": "CLP head", "crt": "cRT", "dfr": "DFR", "group-dro-head": "GroupDRO of the head",
    "gsr": "GSR", "hsfm": "HSFM", "jtt": "JTT of the head", "l2rw": "L2RW", "lws": "LWS", "meta-saug": "MetaSAug",
    "meta-weight-net": "Meta-Weight-Net", "mfrw-mes": "MFRW-MES",
    "regression": "balanced regression", "self": "SELF", "tde": "De-confound-TDE",
}  # fmt: skip


def method_of(record: RunRecord) -> str:
    """The method of a run, in a few words; of a plain trainer with all that it changed."""
    facts = record.facts
    if record.method == "clp":
        evidence = record.settings["method"].get("evidence")
        without_images = f"CLP by evidence of {' and '.join(evidence)}" if evidence else "Meta-LP"
        return "CLP" if any(facts["infills"].values()) else without_images
    if record.method != "plain-trainer":
        return METHODS.get(record.method, one_line(record.method))
    loss, sampling = facts["training_loss"], facts["train_sampling"]
    staged = record.settings["data and model"].get("method")
    told = [*([f"{staged.upper()} in two stages"] if staged else []), LOSSES.get(loss, loss)]
    if sampling != "random":
        told.append(SAMPLINGS.get(sampling, sampling))
    if infills := facts.get("train_infills"):
        told.append(f"training images before other backgrounds ({', '.join(infills)})")
    return ", ".join(told)


def selected(record: RunRecord) -> str:
    """Which weights a run kept, and by what."""
    facts = record.facts
    if "rule" in facts:
        tried = f"of {facts['trials']} setting{'s' if facts['trials'] > 1 else ''}"
        if "epochs" not in facts:
            return f"{tried} by {facts['rule']}"
        epochs = " and ".join(map(str, facts["epochs"]))
        return f"{tried} and their epochs by validation ({facts['rule']}), at epoch {epochs}"
    return told_selection(record.selection)
