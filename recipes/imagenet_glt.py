"""ImageNet-GLT: classes and attributes long-tailed in training, one or both balanced in the test (Tang et al. 2022).

    clp-hf train imagenet_glt --split_folder path/to/splits                # GLT: both balanced
    clp-hf train imagenet_glt --split_folder path/to/splits --protocol clt # classes only
    clp-hf train imagenet_glt --split_folder path/to/splits --protocol alt --dataset_name path/to/images

The split files come from the benchmark's code (`clp_hf.data.glt` says which); the images are ImageNet-1k's training
images, from the Hub or a folder. The network starts from random weights. The meta set is taken out of the files'
validation split, ten of each of six k-means clusters of a class, as far as four fifths of the class go; --preset paper
is the paper's method too. Network and optimizer are the paper's, epochs and schedule those of Tang et al., whom it
follows. (They note that their own figures were made without momentum.) Prints accuracy and, as they do, mean precision.
"""

from dataclasses import dataclass, field
from functools import partial

from clp_hf import CLPTrainingArguments
from clp_hf.data.loading import IMAGE_COLUMNS
from clp_hf.data.scenarios.glt import PROTOCOLS, generalised_long_tail
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
    split_folder: str = field(metadata={"help": "Folder of the benchmark's split files."})
    protocol: str = field(default="glt", metadata={"help": "What becomes balanced.", "choices": list(PROTOCOLS)})
    id_column: str | None = field(
        default=None, metadata={"help": "Column of the images' ids; by default their file names."}
    )


DEFAULTS = {
    "dataset_name": "ILSVRC/imagenet-1k",
    "attribute_column": "none",  # its groups would be thousands
    "image_size": 112,
    "crop_scale": 0.08,
    "meta_split": "validation",
    "meta_clusters": 6,
    "meta_samples": 10,
    "meta_boxes": "centre",
    "train_boxes": "centre",
    "model_name_or_path": "resnext50_32x4d",
    "pretrained": False,
    "freeze_batch_norm": False,
    "output_dir": "runs/imagenet_glt",
    "seed": 0,
    "num_train_epochs": 100,
    "per_device_train_batch_size": 256,
    "per_device_eval_batch_size": 256,
    "learning_rate": 0.1,
    "lr_scheduler_type": "cosine",
    **SGD,
    "weight_decay": 5e-4,
    **SELECTED_EVERY_EPOCH,
    "metric_for_best_model": "balanced_accuracy",
}

# section 4.4, whose network, optimizer and meta set are the defaults
PRESETS = {
    "paper": {
        **PAPER,
        "model_name_or_path": "resnext50_32x4d",
        "meta_split": "validation",
        "meta_clusters": 6,
        "meta_samples": 10,
        "train_boxes": "centre",
        "per_device_train_batch_size": 256,
        "learning_rate": 0.1,
        **SGD,
        "weight_decay": 5e-4,
    }
}


def build(
    recipe: RecipeArguments,
    data: DataArguments,
    model: ModelArguments,
    training: CLPTrainingArguments,
    benchmark: str = "imagenet",
) -> Experiment:
    images = read_splits(data.dataset_name, **data_hub_kwargs(data, model))["train"]
    column = data.image_column or next((name for name in IMAGE_COLUMNS if name in images.column_names), "image")
    splits = generalised_long_tail(
        images, benchmark, recipe.protocol, recipe.split_folder, image_column=column, id_column=recipe.id_column
    )
    data.image_column = data.label_column = None
    return Experiment(data, model, training, splits=splits)


def main(benchmark: str = "imagenet", description: str = __doc__, defaults: dict = DEFAULTS):
    experiment, results = run_recipe(
        RecipeArguments, description, defaults, partial(build, benchmark=benchmark), PRESETS
    )
    if experiment.args.should_log:
        for method, metrics in results.items():
            print(f"{method}: mean precision {100 * metrics['test_macro_precision']:.2f} %")


if __name__ == "__main__":
    main()
