"""Any trained checkpoint on any data set with groups: what `clp-hf evaluate` prints and writes."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets import DatasetDict
from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

from ..base.trainer import BaseTrainer
from ..data.columns import Columns
from ..data.dataset import ImageClassificationDataset
from ..data.groups import counts, group_proportions
from ..data.labels import labels_are_hidden
from ..data.loading import LABEL_COLUMNS, VALIDATION_SPLITS, load_classification_dataset
from ..data.sources import read_splits
from ..data.transforms import ProcessorTransform
from ..metrics import GroupMetrics, format_group_table
from ..modeling.identity import label_names
from ..modeling.loading import load_image_classifier
from ..modeling.preprocessing import image_settings, load_image_processor
from ..utils.names import did_you_mean


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint on a split.

    Attributes:
        checkpoint, dataset_name, split: what was evaluated on what.
        images: number of images by group, or by class where there are no groups.
        metrics: of `classification_metrics`, in [0, 1].
    """

    checkpoint: str
    dataset_name: str
    split: str
    images: dict[str, int]
    metrics: dict[str, float]


def evaluate_checkpoint(
    checkpoint: str,
    dataset_name: str = "embedded",
    *,
    split: str | None = None,
    config_name: str | None = None,
    columns: Columns | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    dataset_revision: str | None = None,
    **hub_kwargs,
) -> Evaluation:
    """Evaluate a checkpoint per group and per class, with the preprocessing it was saved with.

    Images are transformed as its processor does, so that a recipe's test results come out again, and `pipeline` says
    the same of every image.

    Args:
        checkpoint: a folder or Hub name, as for `load_image_classifier`: of CLP, HSFM, the plain `Trainer` …
        dataset_name, config_name: as for `load_classification_dataset`.
        split: its name in the source; by default test, else validation, else the only one there is. Where there is a
            train split, its group sizes weight `adjusted_accuracy`.
        columns: as for `load_classification_dataset`; its `class_names` are the next argument's.
        class_names: what the data set's labels are called by the checkpoint, in the order of the labels; by default as
            the data set calls them. Bare integers that are none of the checkpoint's names count as it does. The data
            set may have some of the classes only.
        batch_size: images at a time.
        dataset_revision: of a data set on the Hub.
        **hub_kwargs: for `from_pretrained`; `cache_dir` and `token` are for the data set too.

    Raises:
        ValueError: there is no such split, it hides its labels, or it has classes that the checkpoint does not know.
        ConnectionError: checkpoint or data set is not here, and the Hub cannot be reached.
    """
    columns = columns or Columns()
    model = load_image_classifier(checkpoint, **hub_kwargs)
    processor = load_image_processor(checkpoint, model, **hub_kwargs)
    given = {"cache_dir": hub_kwargs.get("cache_dir"), "token": hub_kwargs.get("token"), "revision": dataset_revision}
    source = read_splits(dataset_name, config_name, **given)
    split = _split_name(source, split, dataset_name)
    splits, names = _with_labels_of(model, source, split, class_names or columns.class_names, columns)

    transform = ProcessorTransform(processor, image_settings(model, processor))
    dataset = ImageClassificationDataset(splits["validation"], transform, name=split)

    has_groups = "group" in splits["train"].features
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, per_device_eval_batch_size=batch_size, report_to=[])
        prediction = BaseTrainer(model, args).predict(dataset)
    metrics = GroupMetrics(
        names,
        splits["train"].features["group"].names if has_groups else None,
        group_proportions(splits["train"]) if has_groups and "train" in source else None,
    )
    return Evaluation(
        checkpoint,
        dataset_name,
        split,
        counts(splits["validation"], "group" if has_groups else "label"),
        metrics(EvalPrediction(prediction.predictions, prediction.label_ids)),
    )


def format_evaluations(evaluations: Sequence[Evaluation]) -> str:
    """The table of every group, a column for every checkpoint."""
    return format_group_table(
        {evaluation.checkpoint: evaluation.metrics for evaluation in evaluations}, {"images": evaluations[0].images}
    )


def write_evaluations(evaluations: Sequence[Evaluation], path: str | Path) -> None:
    """A JSON list of the evaluations' fields."""
    content = json.dumps([asdict(evaluation) for evaluation in evaluations], indent=2, ensure_ascii=False)
    Path(path).write_text(content + "\n", encoding="utf-8")


def _split_name(source: DatasetDict, requested: str | None, dataset_name: str) -> str:
    if requested is None:
        usual = [name for name in ("test", *VALIDATION_SPLITS) if name in source]
        requested = (usual or list(source))[0] if usual or len(source) == 1 else None
    if requested not in source:
        problem = "has neither a test nor a validation split" if requested is None else f"has no split {requested!r}"
        raise ValueError(
            f"{dataset_name!r} {problem}: choose one of {', '.join(source)}.{did_you_mean(requested or '', source)}"
        )
    return requested


def _with_labels_of(
    model: PreTrainedModel, source: DatasetDict, split: str, class_names: Sequence[str] | None, columns: Columns
) -> tuple[DatasetDict, list[str]]:
    """The splits, labelled as the model does, the one to evaluate as `validation`, and the names of the classes."""
    label = columns.label_column or next(
        (name for name in LABEL_COLUMNS if any(name in part.features for part in source.values())), None
    )
    if label is not None and labels_are_hidden(source[split], label):
        raise ValueError(
            f"The split {split!r} hides its labels (all -1, missing or without a label column), so there is nothing to "
            f"evaluate: choose another split of {', '.join(source)}."
        )
    train = "train" if "train" in source else split
    parts = DatasetDict({name: source[name] for name in {train, split}})
    splits = load_classification_dataset(
        parts,
        replace(columns, class_names=class_names),
        known_classes=label_names(model),
        train_split=train,
        validation_split=split,
    )
    return splits, splits["validation"].features["label"].names
