"""What decides what a run learns, by which a checkpoint knows its run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainingArguments

from ..data.checks import stored_column
from ..hub.record import own_settings
from ..modeling.identity import architecture_name

# of `TrainingArguments`, as far as the installed version has them
DECISIVE = (
    "seed", "data_seed", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio",
    "weight_decay", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "label_smoothing_factor", "bf16", "fp16", "dataloader_drop_last", "per_device_train_batch_size",
    "gradient_accumulation_steps",
)  # fmt: skip
# of ours, what changes the cost of a run and not what it learns
COST = ("hypergradient", "recompute_training_forward", "on_nonfinite")
OF_A_PROCESS = ("per_device_train_batch_size", "gradient_accumulation_steps", "meta_batch_size")


def run_identity(
    args: TrainingArguments, model: nn.Module, datasets: Mapping[str, Dataset | None], max_steps: int
) -> dict[str, Any]:
    """Settings, data and architecture of a run, as JSON has them.

    Args:
        args: of the run.
        model: that it trains.
        datasets: that it learns from, by what they are called. Images are not looked at: it has to be cheap.
        max_steps: of the run.
    """
    settings = {name: getattr(args, name) for name in DECISIVE if hasattr(args, name)}
    settings |= {name: value for name, value in own_settings(args).items() if name not in COST}
    shapes = [
        f"{name} {tuple(weight.shape)} {weight.dtype} {weight.requires_grad}"
        for name, weight in model.named_parameters()
    ]
    identity = {
        "settings": settings,
        "data": {name: data_identity(dataset) for name, dataset in datasets.items() if dataset is not None},
        "model": {"architecture": architecture_name(model), "weights": _digest("\n".join(shapes).encode())},
        "processes": args.world_size,
        "max_steps": max_steps,
    }
    return json.loads(json.dumps(identity, default=str))


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What tells two runs apart, each as "name was …, is …".

    Settings that one of them does not know are another version's, and tell nothing. How long a run is may change, and
    the number of processes; with that what each of them takes at a time.
    """
    found = []
    for name in sorted(was["settings"].keys() & now["settings"].keys()):
        if name in OF_A_PROCESS and was["processes"] != now["processes"]:
            continue
        found += _change(name, was["settings"][name], now["settings"][name])
    for part in ("data", "model"):
        for name in sorted(was[part].keys() | now[part].keys()):
            found += _change(name, was[part].get(name), now[part].get(name))
    return found


def _change(name: str, was: Any, now: Any) -> list[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            change for key in was.keys() | now.keys() for change in _change(f"{name} {key}", was.get(key), now.get(key))
        ]
    return [] if was == now else [f"{name} was {was!r}, is {now!r}"]


def data_identity(dataset: Dataset) -> dict[str, Any]:
    """How many images a data set has, and digests of what is known of them without decoding any."""
    if not hasattr(dataset, "__len__"):
        return {"stream": type(dataset).__name__}
    columns = {name: stored_column(dataset, name) for name in ("labels", "group", "weight")}
    return {"images": len(dataset)} | {
        name: None if values is None else _digest(np.ascontiguousarray(values).astype(str).tobytes())
        for name, values in columns.items()
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
