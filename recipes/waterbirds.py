"""Waterbirds: fine-tune a pretrained backbone so that birds are told by their shape, not by land or water behind them.

    clp-hf train waterbirds --compare                       # embedded birds, ERM and CLP side by side
    clp-hf train waterbirds --dataset_name grodino/waterbirds --model_name_or_path timm/resnet50.a1_in1k
    clp-hf train waterbirds settings.yaml

In a checkout, accelerate launch recipes/waterbirds.py is the same.

Writes the model, its card and all_results.json (eval_* and test_* keys) to --output_dir, prints the table of every
group, and publishes the folder with --push_to_hub.
"""

import os
from dataclasses import dataclass, field

from clp_hf import CLPTrainingArguments
from clp_hf.experiment import METHODS, DataArguments, Experiment, ModelArguments, parse_arguments


@dataclass
class RecipeArguments:
    method: str = field(default="clp", metadata={"help": "How to train.", "choices": list(METHODS)})
    compare: bool = field(default=False, metadata={"help": "Train with ERM and CLP, each in its own sub-folder."})


# chosen on validation: README, "What mattered"
DEFAULTS = {
    "class_names": ["landbird", "waterbird"],
    "image_size": 96,
    "output_dir": "runs/waterbirds",
    "crop_scale": 0.5,
    "seed": 0,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-3,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "weight_decay": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "max_grad_norm": 0.0,
    "train_sampling": "class",
    "background_evidence": True,
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


def build(
    recipe: RecipeArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    return Experiment(data, model, training)


def main():
    recipe, data, model, training = parse_arguments(
        (RecipeArguments, DataArguments, ModelArguments, CLPTrainingArguments), __doc__, DEFAULTS
    )
    experiment = build(recipe, data, model, training)
    if recipe.compare:
        results = {}
        for name in ("erm", "clp"):
            own_repository = {"hub_model_id": f"{training.hub_model_id}-{name}"} if training.hub_model_id else {}
            folder = os.path.join(training.output_dir, name)
            results[name.upper()] = experiment.run(METHODS[name] | own_repository, folder)
    else:
        results = {recipe.method.upper(): experiment.run(METHODS[recipe.method], training.output_dir)}
    if training.should_log:
        print(f"\nBest of {len(experiment.validation)} validation images' worst group, every epoch:")
        print(experiment.table(results))


if __name__ == "__main__":
    main()
