"""Waterbirds: fine-tune a pretrained backbone so that birds are told by their shape, not by land or water behind them.

    clp-hf train waterbirds --compare                       # embedded birds, ERM and CLP side by side
    clp-hf train waterbirds --dataset_name grodino/waterbirds --model_name_or_path timm/resnet50.a1_in1k
    clp-hf train waterbirds --preset paper --dataset_name path/to/masked/waterbirds   # the CLP paper's run
    clp-hf train waterbirds settings.yaml

Your own images have a recipe of their own, which chooses the method: clp-hf train classify.

In a checkout, accelerate launch recipes/waterbirds.py is the same.

Writes the model, its card and all_results.json (eval_* and test_* keys) to --output_dir, prints the table of every
group, and publishes the folder with --push_to_hub.
"""

from clp_hf import CLPTrainingArguments
from clp_hf.data.published import WATERBIRDS as PUBLISHED
from clp_hf.experiment import (
    PAPER,
    SELECTED_EVERY_EPOCH,
    SGD,
    DataArguments,
    Experiment,
    MethodArguments,
    ModelArguments,
    run_recipe,
)

RecipeArguments = MethodArguments

# Data sets that store bare integers for what are land birds and water birds; all others have names of their own.
WATERBIRDS = ("grodino/waterbirds",)
CLASS_NAMES = ["landbird", "waterbird"]

# chosen on validation: docs/guides/method.md, "What mattered"
DEFAULTS = {
    "image_size": 96,
    "output_dir": "runs/waterbirds",
    "crop_scale": 0.5,
    "seed": 0,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-3,
    **SGD,
    "weight_decay": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "train_sampling": "class",
    "evidence": ["background"],
    "lookahead_scope": "head",
    "meta_batch_size": 36,
    "perturbation_learning_rate": 3e-3,
    "factual_mask_shape": "exact",
    "eval_strategy": "steps",
    "eval_steps": 0.25,
    "save_strategy": "steps",
    "save_steps": 0.25,
    "logging_steps": 0.125,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "worst_group_accuracy",
}

# section 4.3 and, where it refers to them, Yao et al. (2022): epochs, a constant rate, no layer frozen
PRESETS = {
    "paper": {
        **PAPER,
        "model_name_or_path": "timm/resnet50.tv_in1k",
        "image_size": 224,
        "freeze_batch_norm": False,
        "meta_split": "train",
        "meta_samples": 10,
        "num_train_epochs": 300,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        **SGD,
        "weight_decay": 1e-4,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        **SELECTED_EVERY_EPOCH,
    }
}


def named(data: DataArguments) -> DataArguments:
    """With the names of the classes, where the data set is Waterbirds and none were given."""
    if data.class_names is None and data.dataset_name.lower() in WATERBIRDS:
        data.class_names = list(CLASS_NAMES)
    return data


def build(
    recipe: MethodArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    return Experiment(named(data), model, training, published=[PUBLISHED])


def main():
    run_recipe(RecipeArguments, __doc__, DEFAULTS, build, PRESETS)


if __name__ == "__main__":
    main()
