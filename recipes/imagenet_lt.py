"""ImageNet-LT: 1,000 classes of 5 to 1,280 training images, balanced in validation and test (Liu et al. 2019).

    clp-hf train imagenet_lt --split_folder path/to/splits                        # ILSVRC/imagenet-1k, from the Hub
    clp-hf train imagenet_lt --split_folder path/to/splits --dataset_name path/to/imagenet --method logit_adjustment

The folder of splits holds ImageNet_LT_train.txt, ImageNet_LT_val.txt and ImageNet_LT_test.txt as published, whose lines
are the path of an image and its label. The images are those of ImageNet-1k, training and validation: a folder in which
these paths lie, or a data set whose file names they are. The network starts from random weights. The meta set is taken
out of the validation split, ten of every class. Network, optimizer and schedule are those of Kang et al. (2020). The
paper names ImageNet-LT and shows no figures of it: --preset paper is its method with these. Writes what
recipes/waterbirds.py does.
"""

from dataclasses import dataclass, field
from functools import partial

from clp_hf import CLPTrainingArguments
from clp_hf.data.published import IMAGENET_LT
from clp_hf.data.scenarios.split_files import listed_splits
from clp_hf.data.sources import read_splits
from clp_hf.experiment import (
    PAPER,
    SELECTED_EVERY_EPOCH,
    SGD,
    DataArguments,
    Experiment,
    MethodArguments,
    ModelArguments,
    data_hub_kwargs,
    run_recipe,
)


@dataclass(kw_only=True)
class RecipeArguments(MethodArguments):
    split_folder: str = field(metadata={"help": "Folder of the published split files."})
    id_column: str | None = field(
        default=None, metadata={"help": "Column of the images' file names; by default they are the images' own."}
    )


DEFAULTS = {
    "dataset_name": "ILSVRC/imagenet-1k",
    "image_size": 224,
    "crop_scale": 0.08,
    "meta_split": "validation",
    "meta_samples": 10,
    "meta_boxes": "centre",
    "model_name_or_path": "resnext50_32x4d",
    "pretrained": False,
    "freeze_batch_norm": False,
    "output_dir": "runs/imagenet_lt",
    "seed": 0,
    "num_train_epochs": 90,
    "per_device_train_batch_size": 512,
    "per_device_eval_batch_size": 256,
    "learning_rate": 0.2,
    "lr_scheduler_type": "cosine",
    **SGD,
    "weight_decay": 5e-4,
    **SELECTED_EVERY_EPOCH,
    "metric_for_best_model": "balanced_accuracy",
}

PRESETS = {"paper": {**PAPER, "meta_split": "validation", "meta_samples": 10, "train_boxes": "centre"}}


def build(
    recipe: RecipeArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    read = partial(read_splits, **data_hub_kwargs(data, model))
    splits = listed_splits(data.dataset_name, recipe.split_folder, read, id_column=recipe.id_column)
    data.image_column = data.label_column = None  # which were of the source
    return Experiment(data, model, training, splits=splits, published=[IMAGENET_LT])


def main():
    run_recipe(RecipeArguments, __doc__, DEFAULTS, build, PRESETS)


if __name__ == "__main__":
    main()
