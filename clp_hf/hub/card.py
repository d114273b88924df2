"""The model card, of a template in `hub_cards`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup
from transformers import (
    TimmWrapperForImageClassification,
    Trainer,
)
from transformers.modelcard import extract_hyperparameters_from_trainer

from ..metrics import format_group_table
from ..modeling import cifar
from ..utils.shipped import shipped
from ..utils.text import markdown, one_line
from .history import results_of_weights, selecting_split, selection_of
from .names import hub_id, hub_license, listed, plain_names
from .pushing import PublishingCallback, repository_name

TASK = "image-classification"
TAGS = (TASK, "clp_hf", "spurious-correlation", "group-robustness")
RESULT_NAMES = {
    "worst_group_accuracy": "Worst-group accuracy",
    "worst_class_accuracy": "Worst-class accuracy",
    "accuracy": "Average accuracy",
    "adjusted_accuracy": "Average accuracy, groups weighted as in training",
    "balanced_accuracy": "Balanced accuracy, mean over classes",
}


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
        masks: how many of every split are of no use, as `mask_counts` of `clp_hf.segmentation` has it, likewise.
        notes: sentences on the data that whoever uses the model should know.
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
    notes: list[str] = field(default_factory=list)


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
        template: name of a file in `hub_cards`, without `.md`.
        details: what the trainer does not know.
        timing: of the trainer's training.
        pictures: file beside the card -> what is written about it.
        **method: what this template shows beyond the variables below.

    Raises:
        ValueError: there is no such template; the message names those that there are.
    """
    args, config = trainer.args, trainer.model.config
    is_timm = isinstance(trainer.model, TimmWrapperForImageClassification)
    own_architecture = is_timm and config.architecture in cifar.default_cfgs
    base_model = None if own_architecture else details.base_model or config.name_or_path or None
    base_id = hub_id(base_model)
    dataset_ids = list(filter(None, map(hub_id, listed(details.dataset_id))))
    repository = repository_name(trainer)
    model_name = one_line(details.model_name or repository.split("/")[-1])
    dataset = one_line(", ".join(listed(details.dataset_name) or dataset_ids))
    results, selection = results_of_weights(trainer), selection_of(trainer)
    selecting = selecting_split(selection["metric"], results)
    has_accuracies = any("accuracy" in metrics for metrics in results.values())
    tags = dict.fromkeys([*TAGS, template, *(["timm"] if is_timm else []), *listed(details.tags)])
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
        eval_results=_eval_results(results, selecting, dataset, dataset_ids, details) or None,
    )
    body = render(
        template,
        model_name=model_name,
        repository=repository,
        architecture=config.architecture if is_timm else type(trainer.model).__name__,
        is_timm=is_timm,
        own_architecture=own_architecture,
        labels=[one_line(config.id2label[index]) for index in sorted(config.id2label)],
        base_model=base_model and one_line(plain_names(base_model)),
        base_id=base_id,
        dataset=dataset,
        results=results,
        table=Markup(format_group_table(results, details.group_counts)) if has_accuracies else "",
        selection=selection,
        selecting=selecting,
        untrained=trainer.state.global_step == 0,
        hyperparameters=extract_hyperparameters_from_trainer(trainer),
        timing=timing,
        pictures=pictures,
        notes=details.notes,
        device=str(args.device.type),
        processes=args.world_size,
        num_parameters=trainer.model.num_parameters(),
        **method,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def render(template: str, **variables: Any) -> str:
    """A template of `hub_cards` with its variables; a variable that it names and does not get is an error.

    Texts are shown letter by letter: a name with a `|`, a `<` or a line break in it is no table, HTML or paragraph.
    What is Markdown already is a `markupsafe.Markup`, and the filter `code` is for what stands inside code.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped("hub_cards")),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else Markup(markdown(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = lambda text: Markup(one_line(text).translate(dict.fromkeys(map(ord, '`"\\<>'), "_")))
    try:
        source = environment.get_template(f"{template}.md")
    except jinja2.TemplateNotFound as error:
        names = ", ".join(name.removesuffix(".md") for name in environment.list_templates())
        raise ValueError(f"hub_cards has no template {template!r}; choose one of {names}.") from error
    return re.sub(r"\n{3,}", "\n\n", source.render(variables)).strip()


def _eval_results(results, selecting, dataset, dataset_ids, details) -> list[EvalResult]:
    """Of one split, for a leaderboard: test if it was evaluated, else what chose the weights, else the last one."""
    if not results:
        return []
    split = "test" if "test" in results else selecting or list(results)[-1]
    metrics = results[split]
    has_groups = any(name.startswith("accuracy_group_") for name in metrics)
    names = {name: title for name, title in RESULT_NAMES.items() if has_groups or name != "worst_group_accuracy"}
    for kind in ("group", "class"):
        prefix = f"accuracy_{kind}_"
        cells = (name for name in metrics if name.startswith(prefix))
        names |= {name: f"Accuracy, {kind} {one_line(name[len(prefix) :])}" for name in cells}
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset_ids[0] if dataset_ids else "unknown",
            dataset_name=dataset or "unknown",
            dataset_config=", ".join(listed(details.dataset_config)) or None,
            dataset_split=one_line(split),
            metric_type="accuracy",
            metric_name=title,
            metric_value=round(metrics[name], 4),
        )
        for name, title in names.items()
        if name in metrics
    ]
