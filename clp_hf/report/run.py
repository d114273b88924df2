"""A run read back from its folder, as training left it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from ..hub.history import evaluations, prefixes, split_names
from ..hub.predictions import PREDICTIONS_FILE, Predictions
from ..hub.record import GRAD_CAM_FILE, RECORD_FILE, RunRecord
from ..hub.schema import Numbers, TrainerLog, read_json
from ..perturbation import META_NETWORKS, MetaNetwork
from ..perturbation.base import FILES
from ..utils.text import one_line
from ..visualization.perturbations import partial_dependence
from ..visualization.training import of_training
from .finding import RESULTS_FILE, WRITTEN_BY, LeftOut, check_files, check_there_are_runs, found_runs
from .scores import Scores, further_metrics


@dataclass
class Run:
    """What the folder of a run holds.

    Attributes:
        name: what the report calls it: as much of the end of its path as tells it from the others.
        folder: where it lies.
        record: how it was made.
        history: the trainer's log, of training.
        results: `"validation"`, `"test"`, of several evaluation sets their names -> metrics of the weights that were
            kept.
        before: the same before training, where that was evaluated.
        network: Ω, where the method has one.
        runtime: of training, seconds; None where nobody measured.
        predictions: what the weights that were kept say of every image; None where the run has no file of them.
        lacks: what a report would have of another run and not of this one, and why, a sentence each.
    """

    name: str
    folder: Path
    record: RunRecord
    history: list[dict[str, float]]
    results: dict[str, dict[str, float]]
    before: dict[str, dict[str, float]]
    network: MetaNetwork | None
    runtime: float | None
    predictions: Predictions | None = None
    lacks: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int | None:
        """What the run draws by; a `HeadTrainer` has it among its own settings."""
        settings = self.record.settings
        return settings["training"].get("seed", settings["method"].get("seed"))

    @cached_property
    def scores(self) -> Scores | None:
        """Which images it gets right; None without predictions."""
        return None if self.predictions is None else Scores.of(self.predictions)

    @property
    def grad_cam(self) -> Path | None:
        """The Grad-CAM picture, where the run has evaluated attribution and drawn one."""
        path = self.folder / GRAD_CAM_FILE
        attributed = any("attribution_in_mask" in metrics for metrics in self.results.values())
        return path if attributed and path.is_file() else None


def load_runs(folders: Sequence[str | Path]) -> tuple[list[Run], list[LeftOut]]:
    """Read the runs in these folders: of each the one it is, and those below it.

    Returns:
        The runs that are complete; and the others, which are left out where there are any complete ones.

    Raises:
        ValueError: no folder, one twice, one without runs, or no complete run in all of them: it lacks a file (names it
            and what writes it), or holds a broken one.
    """
    if isinstance(folders, (str, Path)):
        raise ValueError(f"runs is {str(folders)!r}; expected a list of folders: [{str(folders)!r}].")
    paths = [Path(folder) for folder in folders]
    check_there_are_runs(paths)
    paths = found_runs(paths)
    runs, left_out, errors = [], [], []
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            runs.append(_load(path, name))
        except ValueError as error:
            errors.append(error)
            left_out.append(LeftOut.of(path, name, error))
    if not runs:
        more = f" (And {len(errors) - 1} more that cannot be reported.)" if len(errors) > 1 else ""
        raise ValueError(f"{errors[0]}{more}") from errors[0]
    return runs, left_out


def _load(folder: Path, name: str) -> Run:
    check_files(folder, WRITTEN_BY)
    record = RunRecord.load(folder)
    kinds = {network.CARD: network for network in META_NETWORKS.values() if network.FOLDER}
    network, kind = None, kinds.get(record.method)
    if kind is not None:
        check_files(folder, {f"{kind.FOLDER}/{file}": "trainer.save_model()" for file in FILES})
        network = _network(folder, kind, record)
    history = read_json(folder / TRAINER_STATE_NAME, TrainerLog)["log_history"]
    results = read_json(folder / RESULTS_FILE, Numbers)
    before = {key: value for entry in history if entry.get("step") == 0 for key, value in entry.items()}
    runtime = results.get("train_runtime", record.cost["runtime"])
    run = Run(name, folder, record, of_training(history), _by_split(results), _by_split(before), network, runtime)
    _read_predictions(run)
    return run


def _read_predictions(run: Run) -> None:
    """Add what the predictions tell to a run, or to what it lacks that they are not there."""
    without = "so there are no intervals, no differences from other runs, no AUROC, no F1 of groups and no worst images"
    if not (run.folder / PREDICTIONS_FILE).is_file():
        run.lacks.append(
            f"It has no {PREDICTIONS_FILE} (an earlier version made it, or nothing was evaluated), {without}."
        )
        return
    labels, groups = run.record.label_names, run.record.group_names
    try:
        found = Predictions.load(run.folder, len(labels), None if groups is None else len(groups))
    except ValueError as error:
        run.lacks.append(f"{error} It is left out, {without}.")
        return
    results, accuracy = run.results.get(found.split, {}), found.correct.mean()
    if not abs(results.get("accuracy", -1) - accuracy) < 0.5 / len(found):
        run.lacks.append(
            f"{PREDICTIONS_FILE} gives {100 * accuracy:.1f} % on the {found.split} images and {RESULTS_FILE} another "
            f"accuracy: they are of different weights. It is left out, {without}."
        )
        return
    run.predictions = found
    results |= further_metrics(found, labels, groups)
    if found.lacks:
        run.lacks.append(f"Its worst images have {found.lacks}")


def _network(folder: Path, kind: type[MetaNetwork], record: RunRecord) -> MetaNetwork:
    try:
        network = kind.from_pretrained(folder)
        if network.recent is not None:
            characteristics, labels = network.recent
            if characteristics.shape != (len(labels), len(network.characteristics)):
                raise ValueError(f"characteristics.safetensors has the shape {tuple(characteristics.shape)}")
            if not len(labels) or not 0 <= labels.min() <= labels.max() < len(record.label_names):
                raise ValueError(f"its labels are not of the {len(record.label_names)} classes of {RECORD_FILE}")
            partial_dependence(network, points=2)
    except Exception as error:  # of JSON, of safetensors, of torch: whatever a damaged file leads to
        raise ValueError(f"{folder / kind.FOLDER} does not hold the network of this run: {error}") from error
    return network


def _by_split(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`eval_accuracy` -> `{"validation": {"accuracy": …}}`, for the splits whose accuracy is there."""
    found = [
        prefix for prefix in dict.fromkeys(["eval", "test", *prefixes(results)]) if f"{prefix}_accuracy" in results
    ]
    names = split_names(found)
    return {names[prefix]: metrics for prefix, metrics in evaluations(results, found).items()}


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def data_of(run: Run) -> tuple:
    """Which data set with which classes and groups: what runs that are compared have in common."""
    record = run.record
    config = record.settings["data and model"].get("dataset_config_name")
    groups = None if record.group_names is None else tuple(record.group_names)
    images = record.images.get("test images")
    return record.dataset, config, tuple(record.label_names), groups, images and tuple(images.items())


def told_data(run: Run) -> str:
    """The same in words."""
    dataset, config, labels, groups, images = data_of(run)
    counted = f", {sum(size for _, size in images):,} test images" if images else ""
    named = ", ".join(map(one_line, labels[:5]))
    cells = f"{len(labels)} classes ({named}{' …' if len(labels) > 5 else ''})"
    grouped = f", {len(groups)} groups" if groups else ""
    return f"{one_line(dataset or 'unnamed data')!r}{f' ({config})' if config else ''} with {cells}{grouped}{counted}"
