"""What tests/test_distributed.py launches on several processes: trains every case, keeps what came out of it."""

import sys

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from conftest import SIZE, Squares, resnet, vit
from transformers import ViTImageProcessor

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.bilevel import whole
from clp_hf.hsfm import FeatureSet, extract_features

STEPS = 5


class DoubleSquares(Squares):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"].double()}


class BadSquares(DoubleSquares):
    """Some images are not finite; those that are looked at before training are."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"] * (torch.nan if index in (39, 58) else 1)}


class ShardedTrainer(CLPTrainer):
    """With FSDP2, which accelerate starts on no CPU: what it would have set is set by hand."""

    units = ("ViTLayer",)

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = True
        for state in (PartialState(), self.accelerator.state):
            state.distributed_type = DistributedType.FSDP
        self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=self.units,
            state_dict_type="FULL_STATE_DICT",
        )


class FinelyShardedTrainer(ShardedTrainer):
    """The head is gathered by itself."""

    units = ("ViTLayer", "Linear")


# No random draws here: those of the infills differ between processes, as they should. (Of two classes, fgsm's target
# is the other one.)
CAUSAL = {"counterfactual_infills": ["grey"], "factual_infills": ["fgsm"], "evidence": ["background"]}
SHARDED = {
    "trainer": ShardedTrainer,
    "counterfactual_infills": ["grey"],
    "factual_infills": [],
    "evidence": ["background"],
    "lookahead_scope": "head",
}
CONVERGED = {"counterfactual_infills": ["grey"], "factual_infills": [], "lookahead": "converged"}
CASES = {
    "meta_lp": {"counterfactual_infills": [], "factual_infills": [], "perturb_meta_logits": True},
    "causal": CAUSAL,
    "head": CAUSAL | {"lookahead_scope": "head", "condition_on_label": True},
    "reuse": CAUSAL | {"reuse_gradient": True},
    "reuse_accumulated": CAUSAL | {"reuse_gradient": True, "gradient_accumulation_steps": 2, "max_steps": 3},
    "recomputed": CAUSAL | {"recompute_training_forward": True},
    "accumulated": CAUSAL | {"gradient_accumulation_steps": 2, "meta_every": 2, "max_steps": 3},
    "clipped_adam": CAUSAL | {"max_grad_norm": 0.01, "optim": "adamw_torch"},
    "find_unused": CAUSAL | {"ddp_find_unused_parameters": True},
    # of all images, by an infill without random draws
    "other_backgrounds": CAUSAL
    | {
        "train_infills": ["fgsm"],
        "train_infill_share": 1.0,
        "evidence": [],
    },
    # crops are not drawn; each process fits the attribute to a memory of its own
    "bias": {"counterfactual_infills": [], "factual_infills": [], "evidence": ["bias"]},
    "every_evidence_per_process": CAUSAL | {"evidence": ["background", "attribute", "bias"], "evidence_every": 2},
    "skipped": CAUSAL | {"on_nonfinite": "skip", "data": BadSquares},
    "resumed": {
        "counterfactual_infills": ["random"],
        "factual_infills": ["shuffle"],
        "train_infills": ["mix_rand"],
        "evidence": ["background", "attribute", "bias"],
        "evidence_every": 2,
        "save_strategy": "steps",
        "save_steps": 2,
    },
    "weight_normalised_per_process": {"counterfactual_infills": [], "factual_infills": [], "meta_network": "weight"},
    # each remembers its own images
    "converged_per_process": CAUSAL | {"lookahead": "converged"},
    # no means over images; with features and, the second one, statistics of them
    "coral": {"meta_every": 0, "training_loss": "coral", "training_loss_options": {"penalty_weight": 100.0}},
    "irm_accumulated": {
        "meta_every": 0,
        "training_loss": "irm",
        "training_loss_options": {"anneal_until": 0.0},
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
    },
    "isda": {"meta_every": 0, "training_loss": "isda"},
    # Ω of a batch, and Ω that goes through features and head; class moments are those of the joint batch
    "l2rw_accumulated": {
        "counterfactual_infills": [],
        "factual_infills": [],
        "meta_network": "l2rw",
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
    },
    "meta_saug": {
        "counterfactual_infills": [],
        "factual_infills": [],
        "meta_network": "meta_saug",
        "perturbation_learning_rate": 0.1,
    },
    "mfrw_mes": {"counterfactual_infills": [], "factual_infills": [], "meta_network": "mfrw_mes"},
    # two networks, with the samples of smallest loss of the joint batch; clipped each by its own norm
    "co_teaching": {
        "meta_every": 0,
        "training_loss": "co_teaching",
        "training_loss_options": {"forget_rate": 0.4, "warm_up": 0.0},
        "max_grad_norm": 0.5,
    },
    # each process shows the images of a bank of its own
    "context_shift_resumed": {
        "meta_every": 0,
        "training_loss": "context_shift",
        "training_loss_options": {"confidence": 0.0, "start": 0.0},
        "save_strategy": "steps",
        "save_steps": 2,
    },
    # of 7.5 batches an epoch, the half one is dropped: filled, as by default, it would not be that of one process
    "uneven_dropped": CAUSAL | {"dataloader_drop_last": True, "max_steps": 9},
    # two epochs of 60 images, 7.5 batches each; local batch statistics
    "uneven_batch_norm": {"max_steps": 16, "model": "resnet"},
    "converged_alike_per_process": CONVERGED,
    # last, since accelerate remembers it: parameters are sharded
    "sharded": SHARDED,
    "sharded_head": SHARDED | {"trainer": FinelyShardedTrainer, "meta_every": 2},
    "sharded_adam": SHARDED
    | {"optim": "adamw_torch", "max_grad_norm": 0.01, "gradient_accumulation_steps": 2, "max_steps": 3},
    "sharded_reuse": SHARDED | {"optim": "adamw_torch", "reuse_gradient": True, "max_steps": 3},
    "sharded_meta_lp": SHARDED | {"counterfactual_infills": [], "evidence": [], "perturb_meta_logits": True},
    "sharded_converged_per_process": CONVERGED | {"trainer": ShardedTrainer},
    "sharded_evidence_per_process": SHARDED | {"evidence": ["attribute", "bias"], "evidence_every": 2},
    "sharded_resumed": SHARDED | {"save_strategy": "steps", "save_steps": 2},
}


def train(name: str, folder: str, processes: int, resume: str | None = None) -> CLPTrainer:
    """A run of the joint batch size 8, on this or on all processes."""
    settings = {
        "per_device_train_batch_size": 8 // processes, "meta_batch_size": 8 // processes, "max_steps": STEPS,
        "learning_rate": 0.05, "optim": "sgd", "optim_args": "momentum=0.9", "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True,
        "save_strategy": "no", "perturbation_learning_rate": 1e-2, "ddp_find_unused_parameters": False,
    } | CASES[name]  # fmt: skip
    data, kind = settings.pop("data", DoubleSquares), settings.pop("trainer", CLPTrainer)
    model = resnet(2) if settings.pop("model", "vit") == "resnet" else vit(2)
    if "optim" in CASES[name]:
        settings["optim_args"] = None
    trainer = (kind if processes > 1 else CLPTrainer)(
        model.double(),
        CLPTrainingArguments(folder, **settings),
        train_dataset=data(60, num_labels=2),
        meta_dataset=DoubleSquares(12, num_labels=2, start=500),
        processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def outcome(trainer: CLPTrainer) -> dict:
    """All that was trained or counted, and the log."""
    parts = {"model": trainer.model}
    if trainer.args.meta_every:
        parts |= {"network": trainer.learner.network, "statistics": trainer.learner.statistics}
        parts |= {part.STATE: part for part in trainer.learner.evidence}
    else:
        parts["loss"] = trainer.learner.training_loss
        if hasattr(trainer.learner, "peer"):
            parts["peer"] = trainer.learner.peer
    states = {part: dict(module.state_dict()) for part, module in parts.items()}
    for state in states.values():
        state |= {f"own.{name}": tensor for name, tensor in state.pop("_extra_state", {}).items()}
    tensors = {
        f"{part}.{name}": whole(tensor).clone() for part, state in states.items() for name, tensor in state.items()
    }
    log = [
        {
            name: value
            for name, value in entry.items()
            if name.startswith(("evidence", "meta", "hyper", "perturb", "signal", "steps", "swapped"))
        }
        for entry in trainer.state.log_history
    ]
    return {"tensors": tensors, "log": log}


def features(folder: str) -> list[FeatureSet]:
    """Of 13 images in batches of 4, twice: computed, and from the cache."""
    args = CLPTrainingArguments(folder, per_device_eval_batch_size=4, use_cpu=True, disable_tqdm=True)
    return [extract_features(vit(), Squares(13), args, f"{folder}/cache") for _ in range(2)]


if __name__ == "__main__":
    folder = sys.argv[1]
    found = [vars(part) for part in features(folder)]
    for name in CASES:
        trainer = train(name, f"{folder}/{name}", processes=2)
        assert trainer.args.world_size == 2
        if name.endswith("resumed"):
            torch.save(outcome(trainer), f"{folder}/uninterrupted_{name}-{trainer.args.process_index}.pt")
            trainer = train(name, f"{folder}/{name}", processes=2, resume=f"{folder}/{name}/checkpoint-2")
        torch.save(outcome(trainer), f"{folder}/{name}-{trainer.args.process_index}.pt")
    torch.save(found, f"{folder}/features-{trainer.args.process_index}.pt")
