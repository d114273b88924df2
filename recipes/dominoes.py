"""Dominoes: an automobile or a truck below a digit that nearly always tells which (Shah et al. 2020).

    clp-hf train dominoes --compare                      # MNIST's 0 and 1, CIFAR-10's automobiles and trucks
    clp-hf train dominoes --spurious colour --counterfactual_infills colour --factual_infills colour

Of the training images 95 % have the digit of their class, 0 above an automobile and 1 above a truck; in validation and
test half of them, so that all four groups are equal. Each split takes its images from the same split of its sources; a
fifth of the training images is validation where there is none. No automobile or truck is used twice. Digits repeat
within their split where there are too few of them. With --spurious colour or texture the digit says nothing: the
automobile or truck itself has a colour, or stripes, that nearly always tell which. The mask is the lower half. The data
are the same whatever the seed, and a meta set of ten images of every group is taken out of validation. Writes what
recipes/waterbirds.py does.
"""

from dataclasses import dataclass, field

import waterbirds

from clp_hf import CLPTrainingArguments
from clp_hf.data import dominoes, load_classification_dataset, misleading_objects
from clp_hf.experiment import (
    DataArguments,
    Experiment,
    MethodArguments,
    ModelArguments,
    data_hub_kwargs,
    run_recipe,
)

DIGITS, OBJECTS = ["0", "1"], ["automobile", "truck"]


@dataclass
class RecipeArguments(MethodArguments):
    digits: str = field(default="ylecun/mnist", metadata={"help": "Digits: a Hub name, a folder or a parquet file."})
    correlation: float = field(
        default=0.95, metadata={"help": "Share of the training images that have the digit of their class."}
    )
    spurious: str = field(
        default="digit",
        metadata={
            "help": "What tells the class: the digit, or the object's own colour or texture.",
            "choices": ["digit", "colour", "texture"],
        },
    )
    n_train: int = field(default=8000, metadata={"help": "Training images."})
    n_validation: int = field(default=2000, metadata={"help": "Validation images, before the meta set is taken out."})
    n_test: int = field(default=2000, metadata={"help": "Test images."})


DEFAULTS = {
    **waterbirds.DEFAULTS,
    "dataset_name": "uoft-cs/cifar10",
    "image_size": 64,
    "crop_scale": 0.9,  # a smaller crop could lose the object
    "output_dir": "runs/dominoes",
}


def build(
    recipe: RecipeArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    no_more = {"attribute_column": "none", "group_column": "none", "mask_column": "none"}
    digits = load_classification_dataset(recipe.digits, **no_more, cache_dir=model.cache_dir, token=model.token)
    objects = load_classification_dataset(
        data.dataset_name,
        image_column=data.image_column,
        label_column=data.label_column,
        label_names=data.class_names,
        train_split=data.train_split,
        validation_split=data.validation_split,
        test_split=data.test_split,
        validation_fraction=data.validation_fraction,
        **no_more,
        **data_hub_kwargs(data, model),
    )
    splits = dominoes(
        digits,
        objects,
        recipe.n_train,
        recipe.n_validation,
        recipe.n_test,
        correlation=recipe.correlation if recipe.spurious == "digit" else 1 / len(DIGITS),
        repeat_top=True,
        top_classes=DIGITS,
        bottom_classes=OBJECTS,
    )
    if recipe.spurious != "digit":
        splits = misleading_objects(splits, recipe.spurious, correlation=recipe.correlation)
    data.image_column = data.label_column = data.class_names = None  # which were of the source
    data.train_split, data.validation_split, data.test_split = "train", None, None
    return Experiment(data, model, training, splits=splits)


def main():
    run_recipe(RecipeArguments, __doc__, DEFAULTS, build)


if __name__ == "__main__":
    main()
