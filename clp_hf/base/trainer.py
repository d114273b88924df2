"""What every trainer here has over the plain one: groups beside labels, and checkpoints that are complete or absent."""

import os
import shutil

from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_NAME

from ..data.checks import EXTRA_COLUMNS

STAGING = "_incomplete"  # names with a leading _ are not pushed to the Hub


class BaseTrainer(Trainer):
    """`Trainer` of batches that may hold masks and groups beside what a model takes, with whole checkpoints.

    `mask`, `group` and `noisy` are kept away from the model, and the metrics get the groups.

    A checkpoint is written to `_incomplete/checkpoint-N` and then renamed to `checkpoint-N`. The plain Trainer writes
    file after file into `checkpoint-N`, and resumes from the highest N: a process that is killed in between leaves a
    folder that looks like the latest checkpoint.
    """

    _staging = False

    # ---- columns -----------------------------------------------------------------------------------------------------

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

    # ---- whole checkpoints -------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial):
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGING) if self._staging else folder

    def _prepare_for_training(self, *args, **kwargs):
        if self.args.should_save:  # what a killed run left
            shutil.rmtree(os.path.join(self.args.output_dir, STAGING), ignore_errors=True)
        return super()._prepare_for_training(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        run_folder, name = self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staged, checkpoint = (os.path.join(*path) for path in ((run_folder, STAGING, name), (run_folder, name)))
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        if self.state.best_model_checkpoint == staged:
            self.state.best_model_checkpoint = checkpoint
        self.accelerator.wait_for_everyone()  # other processes write their random states
        if self.args.should_save:
            self.state.save_to_json(os.path.join(staged, TRAINER_STATE_NAME))
            if os.path.isdir(checkpoint):
                os.rename(checkpoint, f"{staged}-replaced")
            os.rename(staged, checkpoint)
            shutil.rmtree(os.path.join(run_folder, STAGING))
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(checkpoint)
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=run_folder,
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _push_from_checkpoint(self, checkpoint_folder):
        if not self._staging:
            super()._push_from_checkpoint(checkpoint_folder)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if not self._load_pretrained_weights(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        if not self._load_pretrained_weights(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_pretrained_weights(self, checkpoint: str) -> bool:
        """Load a checkpoint as `from_pretrained` does; False for models that are not saved that way.

        `Trainer` loads the file's keys as they are, but `save_pretrained` writes them under the names of the original
        release (ViT in transformers 5): a resumed run would silently start from its initial weights.
        """
        whole = isinstance(self.model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if not whole or not os.path.isfile(os.path.join(checkpoint, SAFE_WEIGHTS_NAME)):
            return False
        self.model.load_state_dict(type(self.model).from_pretrained(checkpoint).state_dict())
        return True
