"""What every trainer here has over the plain one: groups beside labels, and checkpoints that are complete or absent."""

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from ..data.checks import EXTRA_COLUMNS
from ..data.columns import Columns
from ..data.reading import ImageReader, metrics_of
from ..utils.locks import only_one
from .checkpoints import (
    STAGING,
    checked_manifest,
    newest_whole,
    remove_leftovers,
    rotate,
    set_earlier_aside,
    write_manifest,
)
from .disk import check_room, check_writable, checkpoint_bytes, full_disk_named
from .identity import differences, run_identity
from .progress import choose_progress, closed_after
from .requirements import check_half_precision, check_installed, check_search

logger = logging.get_logger(__name__)


class BaseTrainer(Trainer):
    """`Trainer` of batches that may hold masks and groups beside what a model takes, with whole checkpoints.

    A `datasets.Dataset` of images is taken as it is, wherever the plain Trainer takes a data set (`ImageReader` says
    what is made of it): its `processing_class` is then the model's own by default, and `compute_metrics` those of every
    class and group.

    `mask`, `group` and `noisy` are kept away from the model, and the metrics get the groups.

    The loss of a step is the mean over its images, whatever the model and the loss, also where the last micro-batch is
    smaller. (The plain Trainer leaves it to models that take `num_items_in_batch`, and some of these do not use it.)

    A checkpoint is written to `_incomplete-<process>/checkpoint-N` and then renamed to `checkpoint-N`. The plain
    Trainer writes file after file into `checkpoint-N`, and resumes from the highest N: a process that is killed in
    between leaves a folder that looks like the latest checkpoint. The last file of a checkpoint is a manifest of the
    others and of the run: nothing is read from one that has changed since, or that is another run's. `train` has
    `output_dir` to itself, and moves what an earlier run left there aside, unless it resumes.

    Args:
        model, args, *rest: as for `Trainer`.
        columns: of images that are read, where their names are not the usual ones.
        **kwargs: as for `Trainer`.

    Attributes:
        AUGMENTS: whether training images that are read are cropped and flipped at random.
    """

    AUGMENTS = True
    _staging = False
    _staging_name = STAGING
    _step_images = 0

    def __init__(self, model=None, args=None, *rest, columns: Columns | None = None, **kwargs):
        if args is not None and args.should_save:
            check_writable(args.output_dir)
        if args is not None:
            check_installed(args)
        super().__init__(model, args, *rest, **kwargs)
        choose_progress(self)
        if not torch.accelerator.is_available():
            self.args.dataloader_pin_memory = False  # which PyTorch would say with every loader
        self.model_accepts_loss_kwargs = False
        if self.compute_loss_func is None:
            self.loss_is_scaled_for_ga = False
        check_half_precision(self)
        self._read = ImageReader(self.model, self.processing_class, columns)
        self._read_images()

    def _read_images(self) -> None:
        """Take data sets of images; which they are, the images of the run go through and metrics tell of."""
        given = self.train_dataset, self.eval_dataset
        self.train_dataset = self._read(self.train_dataset, "training set", augmented=self.AUGMENTS)
        several = isinstance(self.eval_dataset, Mapping)
        evaluated = self.eval_dataset if several else {"": self.eval_dataset}
        evaluated = {name: self._read(one, f"evaluation set {name}".strip()) for name, one in evaluated.items()}
        self.eval_dataset = evaluated if several else evaluated[""]
        if (self.train_dataset, self.eval_dataset) != given:
            self.processing_class = self._read.processor
            self.compute_metrics = self.compute_metrics or metrics_of(self.train_dataset, *evaluated.values())

    def get_eval_dataloader(self, eval_dataset=None):
        """As in Trainer; images are read."""
        return super().get_eval_dataloader(self._read(eval_dataset, "evaluation set"))

    def get_test_dataloader(self, test_dataset):
        """As in Trainer; images are read, which may have no labels."""
        return super().get_test_dataloader(self._read(test_dataset, "test set", labelled=False))

    # ---- a run and its folder ----------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """As in Trainer.

        Args:
            resume_from_checkpoint, trial, ignore_keys_for_eval: as in Trainer.

        Raises:
            ValueError: before the first step: another process trains in `output_dir`; that folder cannot be written or
                has no room; the checkpoint is damaged (names the file, and another that is whole) or another run's
                (names the settings); there would be no step.
            OSError: the disk is full while a checkpoint is written.
        """
        folder = self.args.output_dir
        if self.args.should_save:
            check_writable(folder)
        with only_one(folder, "a training run") if self.args.should_save else nullcontext():
            self._staging_name = broadcast_object_list([f"{STAGING}-{os.getpid()}"])[0]
            if self.args.should_save:
                remove_leftovers(folder)
                if not resume_from_checkpoint:
                    set_earlier_aside(self._get_output_dir(trial))
            with closed_after(self):
                return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def hyperparameter_search(self, *args, **kwargs):
        """As in Trainer.

        Raises:
            ImportError: no backend is named, and none is installed; the message names an extra.
        """
        check_search(*args, **kwargs)
        return super().hyperparameter_search(*args, **kwargs)

    def set_initial_training_values(self, args, dataloader):
        """As in Trainer, which would train no step and publish that."""
        if has_length(dataloader) and not len(dataloader):
            raise ValueError(
                f"There is no batch to train on: the training set has {len(dataloader.dataset)} images, fewer than the "
                f"batch of {args.train_batch_size}, and dataloader_drop_last leaves such a batch out. Add images, or "
                "lower per_device_train_batch_size."
            )
        values = super().set_initial_training_values(args, dataloader)
        if values[-1] < 1:
            raise ValueError(
                f"There is no step to train: max_steps is {args.max_steps}, num_train_epochs {args.num_train_epochs}."
            )
        return values

    def _init_training_state(self, max_steps, *args):
        found = super()._init_training_state(max_steps, *args)
        if self.state.global_step > max_steps:
            raise ValueError(
                f"The checkpoint is of step {self.state.global_step}, and this run ends at step {max_steps}: there is "
                "no step to train. Raise max_steps or num_train_epochs, or start anew without resume_from_checkpoint."
            )
        return found

    def _prepare_for_training(self, *args, **kwargs):
        if self.args.should_save:
            check_room(self.args.output_dir, checkpoint_bytes(self.model, self.args))
        return super()._prepare_for_training(*args, **kwargs)

    def _learned_from(self) -> Mapping[str, Dataset | None]:
        """The data sets that decide what is learned, by what they are called."""
        return {"training set": self.train_dataset}

    def _identity(self) -> dict:
        model = self.accelerator.unwrap_model(self.model)
        return run_identity(self.args, model, self._learned_from(), self.state.max_steps)

    # ---- columns -----------------------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *EXTRA_COLUMNS]))

    def get_batch_samples(self, *args):
        """As in Trainer; the images of the step are counted."""
        batches, items = super().get_batch_samples(*args)
        self._step_images = sum(map(_images, batches))
        return batches, items

    def _weighed(self, loss: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of a micro-batch by its share of the step's images, whose mean is 1: Trainer takes the mean."""
        if self.compute_loss_func is not None or not self._step_images:
            return loss
        weight = _images(inputs) * self.current_gradient_accumulation_steps / self._step_images
        return loss if weight == 1 else loss * weight

    def compute_loss(self, model, inputs, *args, **kwargs):
        """The loss of the plain Trainer, on the columns a model takes."""
        return super().compute_loss(model, _without_extra(inputs), *args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As in Trainer; label ids are `(labels, groups)` for batches that have groups."""
        if self.args.label_names is None:
            self.label_names = ["labels", "group"] if "group" in inputs else ["labels"]
        if "labels" not in inputs:
            inputs = _without_extra(inputs)  # else `compute_loss` sees to it
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    # ---- whole checkpoints -------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial):
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, self._staging_name) if self._staging else folder

    def _save_checkpoint(self, model, trial):
        run_folder, name = self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staging, checkpoint = (os.path.join(run_folder, path) for path in (self._staging_name, name))
        staged = os.path.join(staging, name)
        self._staging = True
        try:
            with self._full_disk_named(run_folder):
                super()._save_checkpoint(model, trial)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)  # room for what the user may want to save
            raise
        finally:
            self._staging = False
        if self.state.best_model_checkpoint == staged:
            self.state.best_model_checkpoint = checkpoint
        self.accelerator.wait_for_everyone()  # other processes write their random states
        if self.args.should_save:
            with self._full_disk_named(run_folder):
                self.state.save_to_json(os.path.join(staged, TRAINER_STATE_NAME))
                write_manifest(staged, self._identity())
            if os.path.isdir(checkpoint):
                os.rename(checkpoint, f"{staged}-replaced")
            os.rename(staged, checkpoint)
            shutil.rmtree(staging)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(checkpoint)
        self._rotate(trial, self.args.save_total_limit, checkpoint)

    def _rotate(self, trial, limit: int | None, newest: str | None = None) -> None:
        if self.args.should_save:
            folder = self._get_output_dir(trial)
            staging = os.path.join(folder, self._staging_name)
            rotate(folder, staging, limit, [newest, self.state.best_model_checkpoint])

    def _finalize_training(self, trial, *args):
        if self.args.save_total_limit == 1 and self.state.best_model_checkpoint is not None:
            self._rotate(trial, 1)  # as Trainer does, which would leave half of one where it is killed meanwhile
        return super()._finalize_training(trial, *args)

    def save_model(self, output_dir=None, _internal_call=False):
        """As in Trainer.

        Raises:
            OSError: the disk is full.
        """
        with self._full_disk_named(output_dir or self.args.output_dir):
            super().save_model(output_dir, _internal_call)

    def _full_disk_named(self, folder: str) -> AbstractContextManager[None]:
        return full_disk_named(
            folder, checkpoint_bytes(self.model, self.args), lambda: newest_whole(self.args.output_dir)
        )

    def _push_from_checkpoint(self, checkpoint_folder):
        if not self._staging:
            super()._push_from_checkpoint(checkpoint_folder)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        run = checked_manifest(resume_from_checkpoint)
        if run is None:
            self._check_parts(resume_from_checkpoint)
        self._check_resumable(resume_from_checkpoint)
        if run is not None and (changes := differences(run, self._identity())):
            raise ValueError(
                f"{resume_from_checkpoint} is a checkpoint of another run: {'; '.join(changes)}. Resume with the "
                "settings of the run that wrote the checkpoint, or start anew without resume_from_checkpoint."
            )
        if not self._load_pretrained_weights(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _check_parts(self, checkpoint: str) -> None:
        """Refuse a checkpoint without manifest that lacks what the plain Trainer goes on without."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        missing = [
            name
            for name in (TRAINER_STATE_NAME, OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state*.pth")
            if not any(Path(checkpoint).glob(name))
        ]
        if missing:
            raise ValueError(
                f"{checkpoint} is not a complete checkpoint of a CLP run: {', '.join(missing)} is missing. Either the "
                "writing of it was cut off, or it was saved with save_only_model=True. Resume from another checkpoint, "
                "or start anew without resume_from_checkpoint."
            )

    def _check_resumable(self, checkpoint: str) -> None:
        """Refuse a checkpoint that this trainer cannot go on from."""

    def _load_best_model(self):
        """As in Trainer; False where the checkpoint is gone: the run ends with the weights of its last step."""
        checkpoint = self.state.best_model_checkpoint
        if not os.path.isdir(checkpoint):
            logger.warning(f"The best checkpoint, {checkpoint}, is gone: the weights are those of the last step.")
            return False
        checked_manifest(checkpoint)
        if not self._load_pretrained_weights(checkpoint):
            super()._load_best_model()
        return True

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


def _without_extra(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in batch.items() if name not in EXTRA_COLUMNS}


def _images(batch: Mapping[str, Tensor]) -> int:
    return len(batch["labels"])
