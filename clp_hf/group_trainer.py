"""A Trainer of batches that may hold causal masks and groups beside what a model takes."""

from transformers import Trainer

from .data.contract import EXTRA_COLUMNS


class GroupTrainer(Trainer):
    """`Trainer` that keeps `mask`, `group` and `noisy` away from the model, and hands groups to the metrics."""

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *EXTRA_COLUMNS]))

    def compute_loss(self, model, inputs, *args, **kwargs):
        """The loss of the plain Trainer, on the columns a model takes."""
        return super().compute_loss(model, {k: v for k, v in inputs.items() if k not in EXTRA_COLUMNS}, *args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As in Trainer; label ids are `(labels, groups)` for batches that have groups."""
        if self.args.label_names is None:
            self.label_names = ["labels", "group"] if "group" in inputs else ["labels"]
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
