"""A run read back from its folder, as training left it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from ..hub.history import evaluations, prefixes, split_names
from ..hub.record import GRAD_CAM_FILE, RECORD_FILE, RunRecord
from ..hub.schema import Numbers, TrainerLog, read_json
from ..perturbation import META_NETWORKS, MetaNetwork
from ..perturbation.base import FILES
from ..utils.text import one_line
from ..visualization.perturbations import partial_dependence
from ..visualization.training import of_training

RESULTS_FILE = "all_results.json"
WRITTEN_BY = {
    RECORD_FILE: "trainer.create_model_card()",
    TRAINER_STATE_NAME: "trainer.save_state()",
    RESULTS_FILE: "trainer.save_metrics(split, trainer.evaluate(…))",
}


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
    """

    name: str
    folder: Path
    record: RunRecord
    history: list[dict[str, float]]
    results: dict[str, dict[str, float]]
    before: dict[str, dict[str, float]]
    network: MetaNetwork | None
    runtime: float | None

    @property
    def grad_cam(self) -> Path | None:
        """The Grad-CAM picture, where the run has evaluated attribution and drawn one."""
        path = self.folder / GRAD_CAM_FILE
        attributed = any("attribution_in_mask" in metrics for metrics in self.results.values())
        return path if attributed and path.is_file() else None


def load_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read the folders of runs.

    Raises:
        ValueError: no run, one twice, a folder that lacks a file (names it and what writes it) or holds a broken one,
            or runs on different data sets (names both).
    """
    if isinstance(folders, (str, Path)):
        raise ValueError(f"runs is {str(folders)!r}; expected a list of folders: [{str(folders)!r}].")
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ValueError(
            "There is no run to report on: name one folder or more, each written by a recipe or a trainer."
        )
    for index, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:index]]:
            raise ValueError(f"The run {path} is named twice: name every run once.")
    runs = [_load(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    for run in runs[1:]:
        if _data(run) != _data(runs[0]):
            raise ValueError(
                f"Runs of one report must be on the same data: {runs[0].folder} is on {_told(runs[0])}, {run.folder} "
                f"on {_told(run)}. Write a report for each data set."
            )
    return runs


def _load(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the output_dir of a run.")
    _check_files(folder, WRITTEN_BY)
    record = RunRecord.load(folder)
    network, kind = None, {network.CARD: network for network in META_NETWORKS.values()}.get(record.method)
    if kind is not None:
        _check_files(folder, {f"{kind.FOLDER}/{file}": "trainer.save_model()" for file in FILES})
        network = _network(folder, kind, record)
    history = read_json(folder / TRAINER_STATE_NAME, TrainerLog)["log_history"]
    results = read_json(folder / RESULTS_FILE, Numbers)
    before = {key: value for entry in history if entry.get("step") == 0 for key, value in entry.items()}
    runtime = results.get("train_runtime", record.cost["runtime"])
    return Run(name, folder, record, of_training(history), _by_split(results), _by_split(before), network, runtime)


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


def _check_files(folder: Path, written_by: Mapping[str, str]) -> None:
    missing = [f"{file} (written by {writer})" for file, writer in written_by.items() if not (folder / file).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not the folder of a complete run: it lacks {', '.join(missing)}. A recipe writes them all; "
            "name the folder of the run itself, and not a checkpoint in it or the folder around several runs."
        )


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


def _data(run: Run) -> tuple:
    record = run.record
    config = record.settings["data and model"].get("dataset_config_name")
    return record.dataset, config, record.label_names, record.group_names, record.images.get("test images")


def _told(run: Run) -> str:
    dataset, config, labels, groups, images = _data(run)
    counted = f", {sum(images.values()):,} test images" if images else ""
    named = ", ".join(map(one_line, labels[:5]))
    cells = f"{len(labels)} classes ({named}{' …' if len(labels) > 5 else ''})"
    grouped = f", {len(groups)} groups" if groups else ""
    return f"{one_line(dataset or 'unnamed data')!r}{f' ({config})' if config else ''} with {cells}{grouped}{counted}"
