"""CelebA: blond or not, where most blond people in the training images are women.

    clp-hf train celeba                                  # flwrlabs/celeba, from the Hub
    clp-hf train celeba --method group_reweighting --num_train_epochs 5
    clp-hf train celeba --dataset_name path/to/parquet_folder

Groups are hair × gender. There are no masks, and the middle of the image is the face rather than the hair, so the
default method is Meta-LP, with ten images of every group out of the training split, as the paper has it on Waterbirds.
Network and optimizer as Yao et al. (2022) have them, whom the paper follows there. It has no CelebA: --preset paper is
its method (here Meta-LP) with these defaults. Writes what recipes/waterbirds.py does.
"""

from clp_hf import CLPTrainingArguments
from clp_hf.data.published import CELEBA
from clp_hf.experiment import (
    PRESETS,
    SELECTED_EVERY_EPOCH,
    SGD,
    DataArguments,
    Experiment,
    MethodArguments,
    ModelArguments,
    run_recipe,
)

RecipeArguments = MethodArguments

# What the values of CelebA's columns, no and yes, are called here; other columns keep names of their own.
NAMES = {"Blond_Hair": ["dark", "blond"], "Male": ["woman", "man"]}

DEFAULTS = {
    "dataset_name": "flwrlabs/celeba",
    "label_column": "Blond_Hair",
    "attribute_column": "Male",
    "meta_split": "train",
    "model_name_or_path": "timm/resnet50.tv_in1k",
    "image_size": 224,
    "output_dir": "runs/celeba",
    "seed": 0,
    "num_train_epochs": 50,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 128,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    **SGD,
    "weight_decay": 1e-4,
    **SELECTED_EVERY_EPOCH,
    "metric_for_best_model": "worst_group_accuracy",
}


def build(
    recipe: MethodArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    data.class_names = data.class_names or NAMES.get(data.label_column)
    data.attribute_names = data.attribute_names or NAMES.get(data.attribute_column)
    hair_and_gender = (data.label_column, data.attribute_column) == ("Blond_Hair", "Male")
    return Experiment(data, model, training, published=[CELEBA] if hair_and_gender else [])


def main(description: str = __doc__, defaults: dict = DEFAULTS, method: str = "meta_lp", presets=PRESETS):
    run_recipe(RecipeArguments, description, {"method": method, **defaults}, build, presets)


if __name__ == "__main__":
    main()
