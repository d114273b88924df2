"""Your own images: what they have chooses the method, which is said before training.

    clp-hf train classify --dataset_name path/to/folder           # a folder of images for each class
    clp-hf train classify --dataset_name path/to/folder --compare # plain training (ERM) beside it
    clp-hf train classify --dataset_name me/my-birds --attribute_column camera
    clp-hf train classify --dataset_name path/to/folder --suspect_noise true
    clp-hf train classify --dataset_name path/to/folder --method clp

Labels are enough. Class folders may lie in folders train, validation, test; parquet files, images with metadata.csv
and names on the Hub are read too. Masks, groups or an attribute, and long tails are found and used; two lines say what
was found and chosen, and what more would help. Where there is no validation split a fifth of every class or group is
held out, more of small ones. --method overrides, and your flags replace what would follow from the data. Writes the
model, its card and all_results.json to --output_dir, and prints the table of every class or group.
"""

from dataclasses import dataclass, field

from clp_hf import CLPTrainingArguments
from clp_hf.experiment import (
    METHODS,
    PRESETS,
    SELECTED_EVERY_EPOCH,
    SGD,
    STAGED,
    DataArguments,
    MethodArguments,
    ModelArguments,
    quiet,
    read_arguments,
    run_on_own_data,
)
from clp_hf.experiment.choosing import HELD_OUT


@dataclass
class RecipeArguments(MethodArguments):
    method: str | None = field(
        default=None, metadata={"help": "How to train; by default as the data have it.", "choices": [*METHODS, *STAGED]}
    )
    suspect_noise: bool = field(
        default=False, metadata={"help": "Labels are suspected to be wrong: train by what these pull less at."}
    )


DEFAULTS = {
    "dataset_name": None,
    "validation_images": HELD_OUT,
    "output_dir": "runs/classify",
    "seed": 0,
    "num_train_epochs": 6,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-3,
    **SGD,
    "weight_decay": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "logging_steps": 0.1,
    "train_sampling": "class",
    "lookahead_scope": "head",
    "perturbation_learning_rate": 3e-3,
    "factual_mask_shape": "exact",
    **SELECTED_EVERY_EPOCH,
    "metric_for_best_model": "worst_group_accuracy",
}


def main():
    classes = (RecipeArguments, DataArguments, ModelArguments, CLPTrainingArguments)
    arguments, given = read_arguments(classes, __doc__, DEFAULTS, PRESETS)
    with quiet(arguments[0].verbose):
        run_on_own_data(*arguments, given)


if __name__ == "__main__":
    main()
