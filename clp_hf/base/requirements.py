"""What a trainer refuses before any training time is spent, and why."""

import torch
from accelerate.utils import DynamoBackend
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import logging

from ..bilevel import is_sharded
from ..utils.extras import is_installed, refuse_missing
from ..utils.names import did_you_mean

logger = logging.get_logger(__name__)

# What `report_to` and `optim` need that transformers does not install; where nothing is said, a module of that name.
REPORTERS = {"azure_ml": "azureml", "flyte": "flytekit", "kubeflow": None}
OPTIMIZERS = {
    "galore": "galore_torch", "apollo": "apollo_torch", "lomo": "lomo_optim", "grokadamw": "grokadamw",
    "schedule_free": "schedulefree", "stable_adamw": "optimi", "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao", "anyprecision": "torchdistx", "8bit": "bitsandbytes", "bnb": "bitsandbytes",
    "paged": "bitsandbytes", "lion": "bitsandbytes", "ademamix": "bitsandbytes",
}  # fmt: skip
SHARDING_RECIPE = "recipes/accelerate/fsdp2.yaml (in the installed package clp_hf/recipes/accelerate)"
PROCESSES_RECIPE = "DDP, recipes/accelerate/multi_gpu.yaml"
SEARCHES = ("optuna", "ray", "wandb")


def check_installed(args: TrainingArguments) -> None:
    """Find out before anything is loaded what a run would fail for when it comes to it.

    Raises:
        ImportError: a package that the arguments ask for is not installed; the message has the command that does it.
        ValueError: `report_to` names what transformers does not report to.
    """
    for name in args.report_to or ():
        if name not in INTEGRATION_TO_CALLBACK:
            known = list(INTEGRATION_TO_CALLBACK)
            raise ValueError(f"report_to is {name!r}.{did_you_mean(name, known)} Choose of {', '.join(known)}.")
        module = REPORTERS.get(name, name)
        if module and not (name == "tensorboard" and is_installed("tensorboardX")):
            refuse_missing(f"report_to={name!r}", module)
    optimizer = getattr(args.optim, "value", args.optim)
    refuse_missing(f"optim={optimizer!r}", *[module for part, module in OPTIMIZERS.items() if part in optimizer][:1])
    if "inpaint" in getattr(args, "counterfactual_infills", ()):
        refuse_missing("The infill 'inpaint'", "cv2" if args.inpainting_model == "telea" else "diffusers")


def check_search(hp_space=None, compute_objective=None, n_trials=20, direction="minimize", backend=None, **_) -> None:
    """The same before a search of hyper-parameters, whose arguments these are."""
    if backend is None and not any(map(is_installed, SEARCHES)):
        refuse_missing("A search of hyper-parameters", "optuna")


def refuse_data_parallel(model: nn.Module | None) -> None:
    """`nn.DataParallel` would hide the classifier behind copies of it."""
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "CLP does not run in nn.DataParallel. Pass the module inside it, and use `accelerate launch` for one "
            "process per GPU."
        )


def refuse_streams(dataset, what: str, instead: str) -> None:
    """A stream has its own order, and its class frequencies are not known before it ends.

    Args:
        dataset: the training set.
        what: asks for more, in words, such as "class_prior needs the class frequencies".
        instead: the setting that does not.
    """
    if isinstance(dataset, IterableDataset):
        raise ValueError(
            f"{what}, but {type(dataset).__name__} is a stream, whose order is its own. Set {instead}, or pass "
            "map-style training data."
        )


def refuse_what_hides_parameters(trainer: Trainer) -> None:
    """What looks ahead has to have whole parameters in every process, in modules that run as they are written."""
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            "CLP does not run under DeepSpeed: its engine keeps weights, gradients and optimizer states in flat parts "
            "of its own, in which those of the head are not found. For a network that no GPU holds use FSDP2, "
            f"{SHARDING_RECIPE}, with lookahead_scope='head'; for any other {PROCESSES_RECIPE}. With meta_every=0 "
            "there is no look-ahead, and this is the plain Trainer."
        )
    if trainer.is_fsdp_enabled or is_sharded(trainer.model):
        _refuse_sharded(trainer)
    _refuse_several_gpus(trainer, "CLP")
    compiled = trainer.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO or any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in trainer.model.modules()
    )
    if compiled:
        raise ValueError(
            "torch.compile does not speed CLP up: recording the training pass and running it again with dual "
            "numbers make it compile until its recompilation limit, and then run uncompiled. Set "
            "torch_compile=False (`accelerate launch --dynamo_backend no`), or pass the model that is not compiled."
        )


def refuse_what_splits_networks(trainer: Trainer) -> None:
    """A second network is trained beside the model, in the same optimizer, which knows of both as they are."""
    name = trainer.args.training_loss
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            f"training_loss={name!r} trains two networks, and {'FSDP' if trainer.is_fsdp_enabled else 'DeepSpeed'} "
            "splits the first one only. Use recipes/accelerate/multi_gpu.yaml (DDP; in the installed package "
            "clp_hf/recipes/accelerate)."
        )
    _refuse_several_gpus(trainer, f"training_loss={name!r}")


def _refuse_several_gpus(trainer: Trainer, what: str) -> None:
    """Of which one process would make `nn.DataParallel`."""
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"{what} does not run in nn.DataParallel, and {trainer.args.n_gpu} GPUs are visible to one process. Use "
            "`accelerate launch` for one process per GPU, or CUDA_VISIBLE_DEVICES for a single GPU."
        )


def _refuse_sharded(trainer: Trainer) -> None:
    """Under FSDP2 the head can look ahead, of which every process has a whole copy; all else is forward passes of the
    sharded network, which every process has to take part in.
    """
    args, plugin = trainer.args, getattr(trainer.accelerator.state, "fsdp_plugin", None)
    infills = {"factual_infills": args.factual_infills, "train_infills": args.train_infills}
    refused = [
        (
            args.lookahead_scope != "head" and args.lookahead != "converged",
            "lookahead_scope='full', which needs the whole network in every process, several times over",
            f"lookahead_scope='head', or lookahead='converged' (or {PROCESSES_RECIPE}, with gradient_checkpointing or "
            "recompute_training_forward where memory is short)",
        ),
        (
            plugin is not None and plugin.fsdp_version != 2,
            "fsdp_version=1, whose flat parameters hide those of the head",
            f"fsdp_version: 2, as {SHARDING_RECIPE}",
        ),
        (
            plugin is not None and plugin.cpu_ram_efficient_loading,
            "fsdp_cpu_ram_efficient_loading, with which only one process has weights to find the head by",
            "fsdp_cpu_ram_efficient_loading: false",
        ),
        (
            args.meta_network not in ("perturbation", "weight"),
            f"meta_network={args.meta_network!r}, which the whole weight of the head would have to reach",
            "meta_network='perturbation' or 'weight'",
        ),
        (
            args.saliency_weight > 0,
            "saliency_weight, a gradient of gradients, which FSDP does not gather parameters for",
            "saliency_weight=0",
        ),
        (
            bool(args.evidence) and args.evidence_network == "initial",
            "evidence_network='initial', a whole second network in every process",
            "evidence_network='current'",
        ),
        *(
            (
                "fgsm" in names,
                f"'fgsm' in {name}, which runs the network in the processes that have such images, while others wait",
                f"other {name}",
            )
            for name, names in infills.items()
        ),
    ]
    refused = [(what, instead) for asked, what, instead in refused if asked]
    if refused:
        raise ValueError(
            f"CLP does not run under FSDP with {'; nor with '.join(what for what, _ in refused)}. Set "
            f"{'; '.join(instead for _, instead in refused)}. With meta_every=0 there is no look-ahead, and this is "
            "the plain Trainer."
        )


def check_half_precision(trainer: Trainer) -> None:
    """Weights that are themselves in half precision lose small updates; a loss scaler does not take them at all."""
    dtypes = {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad}
    half = sorted(str(dtype).removeprefix("torch.") for dtype in dtypes & {torch.float16, torch.bfloat16})
    if not half:
        return
    what = f"The weights to be trained are {', '.join(half)}"
    if torch.float16 in dtypes and trainer.args.fp16:
        raise ValueError(f"{what}, and fp16=True needs float32 ones: call model.float() first.")
    logger.warning(
        f"{what}: updates below their precision are lost. Call model.float() first; bf16=True computes in half "
        "precision and keeps float32 weights."
    )
