"""`clp_hf.metrics.classification_metrics` as a metric of the `evaluate` library: `evaluate.load(<this folder>)`."""

import datasets
import evaluate
import numpy as np

from clp_hf.metrics import classification_metrics

DESCRIPTION = "Accuracy per group and class, worst-group, balanced and adjusted accuracy, macro F1 and calibration."

INPUTS = """
Args:
    predictions: logits, C floats per sample.
    references: labels in 0 ... C - 1.
    groups: group = class * number of attributes + attribute, per sample (not in the configuration "classes").
    label_names, group_names, train_group_proportions, num_bins: see `clp_hf.metrics.classification_metrics`; names
        default to numbers.
"""

CITATION = "Sagawa et al. 2020, Distributionally Robust Neural Networks for Group Shifts. Koh et al. 2021, WILDS."


class GroupAccuracy(evaluate.Metric):
    """Configurations: "default", with groups, and "classes", without."""

    def _info(self):
        features = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
        if self.config_name != "classes":
            features["groups"] = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS, features=datasets.Features(features)
        )

    def _compute(self, predictions, references, groups=None, label_names=None, group_names=None, **options):
        logits = np.asarray(predictions)
        label_names = label_names or [str(label) for label in range(logits.shape[1])]
        if groups is not None:
            groups = np.asarray(groups)
            group_names = group_names or [f"group {group}" for group in range(groups.max() + 1)]
        return classification_metrics(
            logits, np.asarray(references), groups, label_names=label_names, group_names=group_names, **options
        )
