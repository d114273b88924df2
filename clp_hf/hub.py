"""The Hugging Face Hub: whether it answers, the model card, and what goes wrong while pushing."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, constants
from huggingface_hub.utils import get_session
from transformers import (
    PreTrainedModel,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    Trainer,
    TrainerCallback,
)
from transformers.modelcard import extract_hyperparameters_from_trainer

from . import networks
from .metrics import format_group_table

PROBE_SECONDS = 5
TASK = "image-classification"
TAGS = (TASK, "clp_hf", "spurious-correlation", "group-robustness")
SPLITS = {"eval": "validation"}
RESULT_NAMES = {
    "worst_group_accuracy": "Worst-group accuracy",
    "worst_class_accuracy": "Worst-class accuracy",
    "accuracy": "Average accuracy",
    "adjusted_accuracy": "Average accuracy, groups weighted as in training",
    "balanced_accuracy": "Balanced accuracy, mean over classes",
}


def hub_failure() -> Exception | None:
    """Why the Hub does not answer; None when it does.

    One request without retries: huggingface_hub by itself retries every file of an unreachable Hub for half a minute.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as failure:  # of whichever HTTP client huggingface_hub was built on, or its offline mode
        return failure
    return None


# ---- pushing ---------------------------------------------------------------------------------------------------------


class PushError(ConnectionError):
    """A push that failed; the message says why and what to do."""


@contextmanager
def clear_push_errors(trainer: Trainer) -> Iterator[None]:
    """Push what `trainer` has, inside.

    Raises:
        PushError: the Hub refused or could not be reached; the message says what to do and where the files are.
        ValueError: as raised inside: the Hub found the contents wrong, not the connection.
    """
    try:
        yield
    except (ValueError, PushError):
        raise
    except Exception as error:  # of the HTTP client, of huggingface_hub, or of its upload threads
        raise PushError(push_failure(error, trainer)) from error


def push_failure(error: BaseException, trainer: Trainer) -> str:
    """What is told about a push that failed with `error`, and what to do."""
    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    if any(getattr(getattr(cause, "response", None), "status_code", None) in (401, 403) for cause in causes):
        advice = "Log in with `hf auth login`, or give a token that may write there: --hub_token, or HF_TOKEN"
    else:
        advice = "Call push_to_hub() again: it uploads only what is missing"
    reasons = dict.fromkeys(" ".join(f"{type(cause).__name__}: {cause}".split()) for cause in causes)
    return (
        f"{repository_name(trainer)!r} was not pushed. {advice}. The files in {trainer.args.output_dir!r} are intact. "
        f"({'; '.join(reasons)})"
    )


def repository_name(trainer: Trainer) -> str:
    """Where `trainer` pushes to, or would."""
    args = trainer.args
    return trainer.hub_model_id or args.hub_model_id or Path(args.output_dir).absolute().name


class PublishingCallback(TrainerCallback):
    """Times the training, and lets its trainer complete a folder before the folder is pushed.

    Args:
        complete: writes to `args.output_dir` what the `Trainer` does not know of.

    Attributes:
        runtime, cpu_seconds: of `train()` so far, in this process; None before it.
    """

    def __init__(self, complete):
        self.complete = complete
        self.runtime = self.cpu_seconds = self._start = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clocks."""
        self._start = (time.perf_counter(), time.process_time())

    def on_train_end(self, args, state, control, **kwargs):
        """Stop them."""
        self._read_clocks()
        self._start = None

    def on_push_begin(self, args, state, control, **kwargs):
        """In the one place that is before every push, of the model or of a checkpoint."""
        if self._start is not None:
            self._read_clocks()
        if state.is_world_process_zero:
            self.complete()

    def _read_clocks(self):
        self.runtime = time.perf_counter() - self._start[0]
        self.cpu_seconds = time.process_time() - self._start[1]


# ---- files -----------------------------------------------------------------------------------------------------------


def for_timm(model: PreTrainedModel, processor: Any, state_dict: dict | None) -> dict | None:
    """Have the files of a timm wrapper be those that timm itself reads; other models are left alone.

    Args:
        model: about to be saved.
        processor: what its images were preprocessed with, as far as it is known.
        state_dict: of the model; None for `model.state_dict()`.

    Returns:
        The `state_dict` to save.
    """
    if not isinstance(model, TimmWrapperForImageClassification):
        return state_dict
    config = model.config
    config.model_args = config.model_args or {}  # timm does not read a null
    if isinstance(processor, TimmWrapperImageProcessor):
        # Such a processor saves nothing: the preprocessing is read from here, and must be the one trained with.
        config.pretrained_cfg = {**(config.pretrained_cfg or {}), **processor.data_config}
    # transformers leaves its prefix in the names when the model was built and not loaded; it reads them without it too.
    return {name.removeprefix("timm_model."): value for name, value in (state_dict or model.state_dict()).items()}


# ---- model cards -----------------------------------------------------------------------------------------------------


@dataclass
class CardDetails:
    """What a model card tells that a trainer cannot know. All of it may be left out.

    Attributes:
        model_name: title; by default the name of the repository or folder.
        license: identifier of the Hub (`"apache-2.0"`); by default that of the base model, `"unknown"` without one.
        language, tags: metadata; the card has tags of its own beside these.
        base_model: what was fine-tuned: a Hub name, else named in the text only; by default what the model was loaded
            from.
        dataset_name: in words.
        dataset_id: its name, or names, on the Hub.
        dataset_config: its configuration there.
        meta_source: where the meta set is from, as in "40 clean images, *taken out of the validation split*."
        group_counts: column title -> number of images per group name, for the table of groups.
        command: what made the run, as typed in a shell; kept beside the model, not published.
        settings: of data and model, name -> value, likewise.
        masks: of data made by `clp_hf.segmentation`, `mask_counts` of its folder, likewise.
    """

    model_name: str | None = None
    license: str | None = None
    language: str | list[str] | None = None
    tags: str | list[str] | None = None
    base_model: str | None = None
    dataset_name: str | list[str] | None = None
    dataset_id: str | list[str] | None = None
    dataset_config: str | list[str] | None = None
    meta_source: str | None = None
    group_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    command: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def model_card(
    trainer: Trainer,
    template: str,
    details: CardDetails,
    timing: PublishingCallback,
    pictures: Mapping[str, str],
    **method: Any,
) -> ModelCard:
    """The card of the weights that `trainer` holds now.

    Args:
        trainer: of an image classifier.
        template: name of a file in `clp_hf/hub_cards`, without `.md`.
        details: what the trainer does not know.
        timing: of the trainer's training.
        pictures: file beside the card -> what is written about it.
        **method: what this template shows beyond the variables below.

    Raises:
        ValueError: there is no such template; the message names those that there are.
    """
    args, config = trainer.args, trainer.model.config
    is_timm = isinstance(trainer.model, TimmWrapperForImageClassification)
    own_architecture = is_timm and config.architecture in networks.default_cfgs
    base_model = None if own_architecture else details.base_model or config.name_or_path or None
    base_id = hub_id(base_model)
    dataset_ids = list(filter(None, map(hub_id, _listed(details.dataset_id))))
    repository = repository_name(trainer)
    model_name = details.model_name or repository.split("/")[-1]
    results = results_of_weights(trainer)
    has_accuracies = any("accuracy" in metrics for metrics in results.values())
    tags = dict.fromkeys([*TAGS, template, *(["timm"] if is_timm else []), *_listed(details.tags)])
    data = ModelCardData(
        language=details.language,
        license=details.license or hub_license(base_id) or "unknown",
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=base_id,
        datasets=dataset_ids or None,
        metrics=["accuracy"] if results else None,
        tags=[*tags, "generated_from_trainer"],
        model_name=model_name,
        eval_results=_eval_results(results, details, dataset_ids) or None,
    )
    body = render(
        template,
        model_name=model_name,
        repository=repository,
        architecture=config.architecture if is_timm else type(trainer.model).__name__,
        is_timm=is_timm,
        own_architecture=own_architecture,
        labels=[config.id2label[index] for index in sorted(config.id2label)],
        base_model=plain_names(base_model),
        base_id=base_id,
        dataset=", ".join(_listed(details.dataset_name) or dataset_ids),
        results=results,
        table=format_group_table(results, details.group_counts) if has_accuracies else "",
        selection=selection_of(trainer),
        hyperparameters=extract_hyperparameters_from_trainer(trainer),
        timing=timing,
        pictures=pictures,
        device=str(args.device.type),
        processes=args.world_size,
        num_parameters=trainer.model.num_parameters(),
        **method,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def render(template: str, **variables: Any) -> str:
    """A template of `clp_hf/hub_cards` with its variables; a variable that it names and does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clp_hf", "hub_cards"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        source = environment.get_template(f"{template}.md")
    except jinja2.TemplateNotFound as error:
        names = ", ".join(name.removesuffix(".md") for name in environment.list_templates())
        raise ValueError(f"clp_hf/hub_cards has no template {template!r}; choose one of {names}.") from error
    return re.sub(r"\n{3,}", "\n\n", source.render(variables)).strip()


def results_of_weights(trainer: Trainer) -> dict[str, dict[str, float]]:
    """Metrics by split (`validation`, `test` …), of evaluations of the weights that the trainer holds now only."""
    history, step = trainer.state.log_history, selection_of(trainer)["step"]
    ended = end_of_training(history)
    results: dict[str, dict[str, float]] = {}
    for index, entry in enumerate(history):
        runtime = next((name for name in entry if name.endswith("_runtime") and name != "train_runtime"), None)
        if runtime and (entry["step"] == step or (ended is not None and index > ended)):
            prefix = runtime.removesuffix("runtime")
            metrics = {name.removeprefix(prefix): value for name, value in entry.items() if name.startswith(prefix)}
            results[SPLITS.get(prefix[:-1], prefix[:-1])] = metrics
    return results


def hub_id(name: str | None) -> str | None:
    """`name` if it can be an `owner/name` of the Hub, None for anything else, such as a folder."""
    if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and name[0] != "." and not os.path.exists(name):
        return name
    return None


def plain_names(names: str | list[str] | None) -> str | None:
    """Names as they are told: those of the Hub in full, of folders only the last part; None without any."""
    return ", ".join(hub_id(name) or Path(name).name for name in _listed(names) if name) or None


def hub_license(model_id: str | None) -> str | None:
    """The license of a model on the Hub, or None when it does not say or cannot be reached."""
    try:
        data = HfApi().model_info(model_id, timeout=PROBE_SECONDS).card_data if model_id else None
    except Exception:  # not found, private, offline: a card is written all the same
        return None
    return data.license if data else None


def _eval_results(results, details, dataset_ids) -> list[EvalResult]:
    """Of the test split if it was evaluated, else of the last split that was: one split on a leaderboard."""
    if not results:
        return []
    split = "test" if "test" in results else list(results)[-1]
    metrics = results[split]
    has_groups = any(name.startswith("accuracy_group_") for name in metrics)
    names = {name: title for name, title in RESULT_NAMES.items() if has_groups or name != "worst_group_accuracy"}
    for kind in ("group", "class"):
        prefix = f"accuracy_{kind}_"
        names |= {name: f"Accuracy, {kind} {name[len(prefix) :]}" for name in metrics if name.startswith(prefix)}
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset_ids[0] if dataset_ids else "unknown",
            dataset_name=", ".join(_listed(details.dataset_name) or dataset_ids) or "unknown",
            dataset_config=", ".join(_listed(details.dataset_config)) or None,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=title,
            metric_value=round(metrics[name], 4),
        )
        for name, title in names.items()
        if name in metrics
    ]


def selection_of(trainer: Trainer) -> dict[str, Any]:
    """Which step's weights these are, and by which score they were chosen, if they were."""
    args, state = trainer.args, trainer.state
    if end_of_training(state.log_history) is None or not args.load_best_model_at_end or state.best_global_step is None:
        return {"step": state.global_step, "max_steps": state.max_steps, "metric": None}
    return {
        "step": state.best_global_step,
        "max_steps": state.max_steps,
        "metric": args.metric_for_best_model.removeprefix("eval_"),
        "value": state.best_metric,
        "greater": args.greater_is_better,
    }


def end_of_training(history: Sequence[Mapping[str, float]]) -> int | None:
    """Index in a log of what `train()` logs last, before it loads the best checkpoint; None while it runs."""
    return next((i for i in reversed(range(len(history))) if "train_runtime" in history[i]), None)


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
