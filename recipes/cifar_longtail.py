"""CIFAR with a long tail: the last class has a hundredth of the first one's training images, the test is balanced.

    clp-hf train cifar_longtail                      # CIFAR-10, 100:1, from the Hub
    clp-hf train cifar_longtail --dataset_name uoft-cs/cifar100 --imbalance_ratio 10 --method meta_lp
    clp-hf train cifar_longtail --method meta_lp --class_prior true --perturbation_learning_rate 1e-4
    clp-hf train cifar_longtail --preset paper               # the paper's method too
    clp-hf train cifar_longtail --meta_boxes grabcut --train_boxes grabcut --saliency_weight 0.4

A tenth of the training images is held out, balanced, for validation and the meta set (ten of every class); the tail is
made of the others: the canonical split of `clp_hf.data.long_tail`, whatever the seed. --preset paper makes it of all,
5,000 of the largest class of CIFAR-10: the meta set is taken out of the test split then, which the papers call
validation, the rest of it is tested, and nothing selects. CIFAR has no masks: causal images, saliency and
--train_infills use a box in the middle of the image, or those that a segmenter finds. --class_prior begins at logit
adjustment: of what is meta-learned the best. Network, optimizer and schedule are the paper's; --num_train_epochs
shortens the schedule in proportion. Writes what recipes/waterbirds.py does.
"""

from dataclasses import dataclass, field
from functools import partial

from clp_hf import CLPTrainingArguments
from clp_hf.data import long_tail
from clp_hf.data.published import CIFAR
from clp_hf.data.scenarios.long_tail import PROFILES
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


@dataclass
class RecipeArguments(MethodArguments):
    imbalance_ratio: float = field(default=100.0, metadata={"help": "Largest to smallest class, at least 1."})
    profile: str = field(default="exponential", metadata={"help": "Form of the tail.", "choices": list(PROFILES)})
    index_hash: str | None = field(default=None, metadata={"help": "Refuse to train on another choice of images."})


DEFAULTS = {
    "dataset_name": "uoft-cs/cifar10",
    "validation_fraction": 0.1,
    "crop_padding": 4,
    "meta_boxes": "centre",
    "train_boxes": "centre",
    "model_name_or_path": "cifar_resnet32",
    "freeze_batch_norm": False,
    "output_dir": "runs/cifar_longtail",
    "seed": 0,
    "num_train_epochs": 200,
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 500,
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "lr_decay_at": [0.6, 0.8],  # epochs 120 and 160
    **SGD,
    "weight_decay": 5e-4,
    **SELECTED_EVERY_EPOCH,
    "metric_for_best_model": "accuracy",
}

# Of both sections on CIFAR: all training images are trained on, and what is called validation is the test split.
CIFAR_PAPER = {
    **PAPER,
    "validation_fraction": 0.0,
    "load_best_model_at_end": False,
    "meta_split": "validation",
    "train_boxes": "centre",
    "per_device_train_batch_size": 128,
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    **SGD,
}
# section 4.1; silent: batches, and crops
PRESETS = {
    "paper": {
        **CIFAR_PAPER,
        "model_name_or_path": "cifar_resnet32",
        "meta_samples": 10,
        "num_train_epochs": 200,
        "lr_decay_at": [0.6, 0.8],
        "weight_decay": 5e-4,
    }
}


def build(
    recipe: RecipeArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    scenario = partial(long_tail, ratio=recipe.imbalance_ratio, profile=recipe.profile, expected_hash=recipe.index_hash)
    return Experiment(data, model, training, scenario=scenario, published=CIFAR)


def main():
    run_recipe(RecipeArguments, __doc__, DEFAULTS, build, PRESETS)


if __name__ == "__main__":
    main()
