"""`_run.json`, beside a trained model: what made it, as far as weights, log and results do not tell."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from .schema import FACTS_OF, Cost, Count, Facts, MaskCounts, Selection, Settings, read_json

RECORD_FILE = "_run.json"  # names with a leading _ are not pushed to the Hub: a command names folders of its machine
TRAIN = "clp-hf train "  # and the recipe, as its process is called
FIGURES_FOLDER = "figures"
GRAD_CAM_FILE = f"{FIGURES_FOLDER}/grad_cam.png"
# Of `TrainingArguments`, those that are told even where they are the defaults …
TOLD = (
    "seed", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "optim",
    "optim_args", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
    "metric_for_best_model", "bf16", "fp16",
)  # fmt: skip
# … and those that change where a run writes and how it talks, not what it learns.
NOT_TOLD = (
    "accelerator_config", "dataloader_num", "debug", "disable_tqdm", "do_", "feature_cache", "hub_", "local_rank",
    "log", "output_dir", "project", "push_to_hub", "report_to", "resume_from", "run_name", "save_", "trackio_",
)  # fmt: skip


@dataclass
class RunRecord:
    """How a model was made.

    Attributes:
        method: the template of its card in `hub_cards`, such as `"clp"`.
        dataset, model: what was trained on and from, in words or by name; None where nobody said.
        command: as typed in a shell, None for a run that no command made.
        label_names: in the order of the labels.
        group_names: in the order of the groups; None without groups.
        images: title ("train images") -> number of images per group, or per class without groups.
        masks: split -> `images`, `empty` and `full` (how many have no usable mask), `indices` of the first of these;
            of data made by `clp_hf.segmentation`.
        settings: `"data and model"`, `"training"` and `"method"`, each name -> value.
        facts: what the card tells of the method beyond its settings.
        selection: which step's weights these are, by which metric and its value.
        cost: `runtime` and `cpu_seconds`, of training, in seconds, None where it was not timed; `device`, `processes`,
            `parameters` of the classifier.
    """

    method: str
    dataset: str | None
    model: str | None
    command: str | None
    label_names: list[str]
    group_names: list[str] | None
    images: dict[str, dict[str, Count]]
    masks: dict[str, MaskCounts]
    settings: Settings
    facts: Facts
    selection: Selection
    cost: Cost

    def save(self, folder: str | os.PathLike) -> None:
        """Write `_run.json` into a folder."""
        (Path(folder) / RECORD_FILE).write_text(json.dumps(asdict(self), indent=2, default=str) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "RunRecord":
        """Read `_run.json` from a folder.

        Raises:
            ValueError: it is not what `save` writes; the message names the file and the field.
        """
        path = Path(folder) / RECORD_FILE
        record = read_json(path, cls)
        if missing := [name for name in FACTS_OF.get(record.method, ()) if name not in record.facts]:
            raise ValueError(f"{path}: facts lacks {', '.join(missing)}, which the method {record.method!r} has.")
        missing = [name for name in ("step", "value", "greater") if record.selection.get(name) is None]
        if record.selection["metric"] is not None and missing:
            raise ValueError(f"{path}: selection lacks {', '.join(missing)}, but names the metric that chose.")
        return record


def training_settings(args: TrainingArguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training arguments that distinguish a run.

    Returns:
        Those of `TrainingArguments`: the usual ones, and the others where they are not the defaults. And those that its
        subclass adds, all of them.
    """
    values, inherited = args.to_dict(), TrainingArguments.__dataclass_fields__
    training, own = {}, {}
    for item in fields(args):
        name, value = item.name, values.get(item.name)
        if name.startswith(NOT_TOLD) or name in _deprecated(type(args)):
            continue
        if name not in inherited:
            own[name] = value
        elif name in TOLD or (value or None) != (_default(item) or None):
            training[name] = value
    return training, own


def own_fields(arguments: type[TrainingArguments]) -> tuple[str, ...]:
    """The names of the fields that a subclass adds to `TrainingArguments`, and that are not deprecated."""
    others = {*TrainingArguments.__dataclass_fields__, *_deprecated(arguments)}
    return tuple(item.name for item in fields(arguments) if item.name not in others)


def own_settings(args: TrainingArguments) -> dict[str, Any]:
    """Name -> value of the fields that its subclass adds to `TrainingArguments`."""
    return {name: getattr(args, name) for name in own_fields(type(args))}


def plain_settings(arguments: Sequence[Any]) -> dict[str, Any]:
    """The fields of dataclasses of arguments that are set, without what is secret or of this machine."""
    values = {name: value for part in arguments for name, value in vars(part).items()}
    return {
        name: without_folder(value)
        for name, value in values.items()
        if value is not None and name not in ("token", "cache_dir")
    }


def without_folder(value: Any) -> Any:
    """The last part of an absolute path; anything else as it is."""
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def command_line(secrets: Mapping[str, str | None]) -> str | None:
    """The command that started this process, to be typed again in the folder where it ran; None in a notebook.

    Args:
        secrets: by what to write in its place, what must not be told: tokens.
    """
    if hasattr(sys, "ps1") or "ipykernel" in sys.modules:
        return None
    program = sys.argv[0]
    launched = "ACCELERATE_DYNAMO_MODE" in os.environ  # which `accelerate launch` sets, and nothing else
    if program.startswith(TRAIN):
        parts = [*TRAIN.split(), *_launcher_flags(), program.removeprefix(TRAIN)]
    elif program.endswith(".py"):
        flags = _launcher_flags()
        several = ["--multi_gpu"] if "--num_processes" in flags else []  # without it, accelerate may start one
        launcher = ["accelerate", "launch", *several, *flags] if launched else ["python"]
        parts = [*launcher, _from_here(Path(program))]
    else:
        parts = [Path(program).name]
    for part in sys.argv[1:]:
        for name, secret in secrets.items():
            part = part.replace(secret, name) if secret else part
        parts.append(part)
    return shlex.join(parts)


def _launcher_flags() -> list[str]:
    told = (("--num_processes", "WORLD_SIZE", "1"), ("--mixed_precision", "ACCELERATE_MIXED_PRECISION", "no"))
    values = [(flag, os.environ.get(variable, default), default) for flag, variable, default in told]
    return [part for flag, value, default in values if value != default for part in (flag, value)]


def _from_here(path: Path) -> str:
    """A path relative to the working directory, where it is inside; of any other only the name."""
    here = Path.cwd()
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _deprecated(arguments: type[TrainingArguments]) -> tuple[str, ...]:
    return getattr(arguments, "DEPRECATED", ())


def _default(item: Field) -> Any:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return getattr(default, "value", default)
