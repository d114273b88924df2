"""A Trainer whose checkpoints are complete or absent."""

import os
import shutil

from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

STAGING = "_incomplete"  # names with a leading _ are not pushed to the Hub


class AtomicCheckpointTrainer(Trainer):
    """`Trainer` that writes a checkpoint to `_incomplete/checkpoint-N` and then renames it to `checkpoint-N`.

    The plain Trainer writes file after file into `checkpoint-N`, and resumes from the highest N: a process that is
    killed in between leaves a folder that looks like the latest checkpoint.
    """

    _staging = False

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
