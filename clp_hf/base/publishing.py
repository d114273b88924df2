"""A Trainer that publishes what loads everywhere, with a card that tells the method."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PushInProgress, logging

from ..hub.card import CardDetails, model_card
from ..hub.history import RUNTIME, end_of_training, fingerprint, prefixes, results_of_weights, selection_of
from ..hub.names import listed, plain_names
from ..hub.predictions import Predictions
from ..hub.pushing import (
    RUN_FILES,
    PublishingCallback,
    clear_push_errors,
    files_below,
    for_timm,
    model_files,
    push_failure,
    saves,
    upload,
)
from ..hub.record import FIGURES_FOLDER, GRAD_CAM_FILE, RunRecord, training_settings
from ..hub.schema import WEIGHTS
from ..modeling.identity import label_names
from ..perturbation.base import FILES, RECENT_FILE, MetaNetwork
from .kept_predictions import KeptPredictions, forget_predictions
from .selection import check_metric, check_selection
from .trainer import BaseTrainer

logger = logging.get_logger(__name__)


class PublishingTrainer(BaseTrainer):
    """A trainer whose repositories load without clp_hf, in timm too, and whose failed pushes say what to do.

    Args:
        card_details: what the model card tells and the trainer cannot know.
        *args, **kwargs: as for `Trainer`.

    Raises:
        ValueError: checkpoints are to be selected by what no evaluation gives.
    """

    def __init__(self, *args, card_details: CardDetails | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        check_selection(self)
        self.card_details = card_details or CardDetails()
        self._pictures: dict[str, str] = {}  # of the card
        self._predictions = KeptPredictions()
        self._publishing = PublishingCallback(self._complete_output_dir)
        self.add_callback(self._publishing)

    @property
    def perturbation_network(self) -> MetaNetwork | None:
        """Ω, where the method has one."""
        return None

    def _card(self, details: CardDetails) -> tuple[str, dict[str, Any]]:
        """The template in `hub_cards`, and its variables beyond those of every card."""
        raise NotImplementedError

    def _save_beside(self, folder: str) -> None:
        """Write to `folder` what belongs into the repository beside the model."""

    def _save(self, output_dir=None, state_dict=None):
        processor, state_dict = self.processing_class, for_timm(self.model, self.processing_class, state_dict)
        self.processing_class = processor if saves(processor) else None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.processing_class = processor
        self._save_beside(output_dir or self.args.output_dir)

    def log(self, logs, start_time=None):
        """As in Trainer; the state's own log notes which weights an evaluation, or the end of training, tells of."""
        super().log(logs, start_time)
        # FSDP and DeepSpeed leave only a part of the weights in a process.
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if whole and self.is_world_process_zero() and any(name.endswith(RUNTIME) for name in logs):
            weights = self.state.log_history[-1][WEIGHTS] = fingerprint(self.model)
            self._predictions.logged(prefixes(logs), weights)

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """As in Trainer; what it predicts is kept for the report."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        self._predictions.evaluated(self._images_of(dataloader.dataset), output)
        return output

    def _images_of(self, evaluated):
        """The images that an evaluation is of, where it looked at something else."""
        return evaluated

    def _determine_best_metric(self, metrics, trial):
        """As in Trainer, but what is to be loaded at the end is the best of the steps that are saved."""
        check_metric(self.args.metric_for_best_model, metrics)
        saved = self.control.should_save or self.args.save_strategy == SaveStrategy.BEST
        if self.args.load_best_model_at_end and not saved:
            return False
        return super()._determine_best_metric(metrics, trial)

    def save_or_push(self) -> None:
        """What ends a run, when its results are logged: model and card in `args.output_dir`, published if asked for.

        Raises:
            PushError: as `push_to_hub`.
        """
        if self.args.push_to_hub:
            self.push_to_hub()
        else:
            self.save_model()
            self.create_model_card()

    def init_hf_repo(self, token=None, private=None):
        """As in Trainer, which creates the repository before training where `push_to_hub=True`.

        Raises:
            PushError: the Hub refused or could not be reached; the message says what to do.
        """
        with clear_push_errors(self):
            super().init_hf_repo(token, private)

    def push_to_hub(
        self, commit_message="End of training", blocking=True, token=None, revision=None, private=None, **kwargs
    ):
        """Publish the classifier, what belongs beside it (CLP's `perturbation_network/`), and the model card.

        Of `args.output_dir` only what trainers write for the repository is pushed, whatever else lies there.

        Args:
            commit_message, blocking, token, revision, private: as for `Trainer.push_to_hub`.
            **kwargs: those of the card, as for `create_model_card`.

        Returns:
            As `Trainer.push_to_hub`.

        Raises:
            PushError: the Hub refused or could not be reached; the message says what to do. The local files are intact,
                and another call uploads what is missing.
        """
        self._finish_current_push()  # before anything overwrites the files that are on their way
        where = {name: value for name, value in (("token", token), ("revision", revision)) if value is not None}
        with clear_push_errors(self):
            self.callback_handler.on_push_begin(self.args, self.state, self.control)
            if self.hub_model_id is None:
                self.init_hf_repo(token=token, private=private)
            self.save_model(_internal_call=True)
            if not self.is_world_process_zero():
                return None
            if model_tags := getattr(self.model, "model_tags", None):
                kwargs["tags"] = [*listed(kwargs.get("tags", self.card_details.tags)), *model_tags]
            self.create_model_card(**kwargs)
            return upload(
                self, self.args.output_dir, self._published(), commit_message, run_as_future=not blocking, **where
            )

    def _push_from_checkpoint(self, checkpoint_folder):
        args, pushing = self.args, self.push_in_progress
        if self._staging or not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if pushing is not None and not pushing.is_done() and not args.hub_always_push:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        checkpoint = Path(checkpoint_folder)
        for file in model_files(checkpoint, self.processing_class):  # no second gathering of the weights
            Path(args.output_dir, file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint / file, Path(args.output_dir, file))
        steps = args.save_strategy == SaveStrategy.STEPS
        done = f"step {self.state.global_step}" if steps else f"epoch {int(self.state.epoch)}"
        message = f"Training in progress, {done}"
        jobs = [upload(self, args.output_dir, self._published(), message, run_as_future=True)]
        if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            name = "last-checkpoint" if args.hub_strategy == HubStrategy.CHECKPOINT else checkpoint.name
            # A checkpoint has just been made in a folder of its own: all that is in it now is the trainer's.
            files = files_below(checkpoint)
            message = f"{message}, checkpoint"
            jobs.append(upload(self, checkpoint, files, message, path_in_repo=name, run_as_future=True))
        if pushing is None or pushing.is_done():
            self.push_in_progress = PushInProgress(jobs)
        else:
            pushing.jobs.extend(jobs)

    def _published(self) -> list[str]:
        """The files in `args.output_dir` that belong into the repository."""
        network = self.perturbation_network
        beside = [] if network is None else [f"{network.FOLDER}/{file}" for file in (*FILES, RECENT_FILE)]
        return [*model_files(Path(self.args.output_dir), self.processing_class), *RUN_FILES, *beside, *self._pictures]

    def create_model_card(
        self,
        language=None,
        license=None,
        tags=None,
        model_name=None,
        finetuned_from=None,
        tasks=None,
        dataset_tags=None,
        dataset=None,
        dataset_args=None,
    ) -> None:
        """Write the model card, `README.md`, to `args.output_dir`, its pictures, and what `clp_hf.report` reads.

        That is `_run.json`, and once training has ended `_predictions.parquet`: what the weights that were evaluated
        last say of every image. Pictures need matplotlib; without it there are none.

        Args:
            language, license, tags, model_name, finetuned_from, dataset_tags, dataset, dataset_args: as for `Trainer`;
                they take precedence over `card_details`, where they are called `base_model`, `dataset_id`,
                `dataset_name` and `dataset_config`.
            tasks: not used, the task is image classification.
        """
        if not self.is_world_process_zero():
            return
        given = {
            "language": language,
            "license": license,
            "tags": tags,
            "model_name": model_name,
            "base_model": finetuned_from,
            "dataset_id": dataset_tags,
            "dataset_name": dataset,
            "dataset_config": dataset_args,
        }
        details = replace(self.card_details, **{name: value for name, value in given.items() if value is not None})
        template, facts = self._card(details)
        self._pictures = self._save_pictures()
        card = model_card(self, template, details, self._publishing, self._pictures, **facts)
        card.save(os.path.join(self.args.output_dir, "README.md"))
        self._run_record(template, details, facts).save(self.args.output_dir)
        if end_of_training(self.state.log_history) is not None:  # a push on the way should not take seconds
            self._save_predictions()

    def _save_predictions(self) -> None:
        found = self._predictions.of(fingerprint(self.model), self._group_names() is not None)
        if found is None:
            forget_predictions(self.args.output_dir)
            return
        self._draw_worst(*found)
        found[0].save(self.args.output_dir)

    def _draw_worst(self, predictions: Predictions, dataset: Dataset) -> None:
        try:
            from ..visualization.worst_images import add_pictures

            add_pictures(predictions, self.accelerator.unwrap_model(self.model), dataset)
        except Exception as error:  # of whatever model: a picture must not cost a run that has been trained
            predictions.lacks = f"no pictures of its worst images: {error}"

    def _save_pictures(self) -> dict[str, str]:
        """Draw what the log tells: file in `args.output_dir` -> what is written about it.

        None without matplotlib, and none before training has ended: a push on the way should not take seconds.
        """
        if end_of_training(self.state.log_history) is None:
            return {}
        try:
            from ..visualization.pictures import GRAD_CAM_CAPTION, run_pictures
        except ImportError:
            return {}
        selection = selection_of(self)
        step = selection["step"] if selection["metric"] else None
        folder = Path(self.args.output_dir)
        (folder / FIGURES_FOLDER).mkdir(parents=True, exist_ok=True)
        captions = {}
        names = self._label_names(), self._group_names()
        for picture in run_pictures(self.state.log_history, *names, self.perturbation_network, step):
            file = f"{FIGURES_FOLDER}/{picture.name}.png"
            picture.figure.savefig(folder / file, dpi=120, metadata={"Software": None})
            captions[file] = f"{picture.title}. {picture.caption}"
        attributed = any("attribution_in_mask" in metrics for metrics in results_of_weights(self).values())
        if attributed and (folder / GRAD_CAM_FILE).is_file():
            captions[GRAD_CAM_FILE] = f"Where it looks. {GRAD_CAM_CAPTION}"
        return captions

    def _label_names(self) -> list[str]:
        return list(getattr(self.compute_metrics, "label_names", label_names(self.model)))  # of `GroupMetrics`

    def _group_names(self) -> list[str] | None:
        names = getattr(self.compute_metrics, "group_names", None)
        return None if names is None else list(names)

    def _training_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return training_settings(self.args)

    def _run_record(self, template: str, details: CardDetails, facts: dict[str, Any]) -> RunRecord:
        training, own = self._training_settings()
        facts = dict(facts)
        return RunRecord(
            method=template,
            dataset=plain_names(details.dataset_name or details.dataset_id),
            model=plain_names(details.base_model or self.model.config.name_or_path),
            command=details.command,
            label_names=self._label_names(),
            group_names=self._group_names(),
            images={title: dict(counts) for title, counts in details.group_counts.items()},
            masks={split: dict(counts) for split, counts in details.masks.items()},
            settings={
                "data and model": dict(details.settings),
                "training": training,
                "method": own | facts.pop("method_settings", {}),
            },
            facts=facts,
            selection=selection_of(self),
            cost={
                "runtime": self._publishing.runtime,
                "cpu_seconds": self._publishing.cpu_seconds,
                "device": self.args.device.type,
                "processes": self.args.world_size,
                "parameters": self.model.num_parameters(),
            },
        )

    def _complete_output_dir(self) -> None:
        """What `Trainer` does not know of, just before it pushes; it copies a fixed list of files by itself."""
        self._report_failed_pushes()
        self._save_beside(self.args.output_dir)
        self.create_model_card()

    def _finish_current_push(self):
        super()._finish_current_push()
        self._report_failed_pushes()

    def _report_failed_pushes(self) -> None:
        """Trainer pushes in the background while it trains, and never looks whether that succeeded."""
        push = getattr(self, "push_in_progress", None)
        if push is None:
            return
        for job in push.jobs:
            if job.done() and (error := job.exception()) is not None:
                logger.error(push_failure(error, self))
        push.jobs = [job for job in push.jobs if not job.done()]
