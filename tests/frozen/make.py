"""Writes what lies beside it: folders of runs as commit 77c295e left them, which later code has to resume and load.

    git checkout 77c295e && python tests/frozen/make.py

`tests/test_frozen.py` reads them. They are not made again: what they hold is the promise.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

SETTINGS = {
    "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 4, "learning_rate": 1e-2,
    "optim": "sgd", "optim_args": "momentum=0.9", "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps",
    "eval_steps": 2, "logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True,
    "dataloader_pin_memory": False,
}  # fmt: skip
METHODS = {
    "clp": {"background_evidence": True, "meta_samples": 2, "counterfactual_infills": ["tile", "random"]},
    "weight": {"meta_network": "weight", "counterfactual_infills": [], "factual_infills": [], "meta_samples": 2},
    "group_dro": {"meta_every": 0, "training_loss": "group_dro"},
}
NAMES = (
    ["small", "middle", "large"],
    [f"{size}_on_{ground}" for size in ("s", "m", "l") for ground in ("dark", "light")],
)


def model():
    from conftest import resnet

    network = resnet()
    network.config.id2label = dict(enumerate(NAMES[0]))
    network.config.label2id = {name: index for index, name in enumerate(NAMES[0])}
    return network


def make_trainer(name: str, output_dir: str, **kwargs):
    from conftest import SIZE, Squares
    from transformers import ViTImageProcessor

    from clp_hf import CLPTrainer, CLPTrainingArguments
    from clp_hf.metrics import GroupMetrics

    return CLPTrainer(
        model(),
        CLPTrainingArguments(output_dir, **SETTINGS, **METHODS[name], **kwargs),
        train_dataset=Squares(48),
        eval_dataset=Squares(24, start=1000),
        processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
        compute_metrics=GroupMetrics(*NAMES),
    )


def make_hsfm(output_dir: str, **kwargs):
    from conftest import SIZE, Squares
    from transformers import ViTImageProcessor

    from clp_hf.hsfm import HSFMArguments, HSFMTrainer
    from clp_hf.metrics import GroupMetrics

    settings = {"support_size": 4, "hard_size": 4, "epochs": 3, "inner_steps": 2, "edits_per_epoch": 2}
    settings |= {"inner_rate": 1e-2, "edit_rate": 0.1}
    return HSFMTrainer(
        model(),
        HSFMArguments(output_dir, use_cpu=True, report_to=[], disable_tqdm=True, **settings, **kwargs),
        train_dataset=Squares(48),
        eval_dataset=Squares(24, start=1000),
        processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
        compute_metrics=GroupMetrics(*NAMES),
    )


def finish(trainer):
    trainer.save_metrics("train", trainer.train().metrics)
    trainer.save_metrics("eval", trainer.evaluate())
    trainer.save_state()
    trainer.save_or_push()


def main():
    from hub_server import TOKEN, hub_server

    for name in (*METHODS, "hsfm", "hub"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, hub_server() as hub:
        os.chdir(folder)  # so that no path of this machine is written
        # before huggingface_hub is imported
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        for name in METHODS:
            finish(make_trainer(name, name, push_to_hub=name == "clp", hub_strategy="end"))
        finish(make_hsfm("hsfm"))
        for name in (*METHODS, "hsfm"):
            shutil.copytree(name, HERE / name, ignore=shutil.ignore_patterns("features", ".cache"))
        for path, content in hub.repositories["tester/clp"].files.items():
            (HERE / "hub" / path).parent.mkdir(parents=True, exist_ok=True)
            (HERE / "hub" / path).write_bytes(content)


if __name__ == "__main__":
    main()
