"""iNaturalist 2018: 8,142 species of 2 to 1,000 training images, as nature is photographed (Van Horn et al. 2018).

    clp-hf train inaturalist --dataset_name OWNER/inaturalist-2018                # a copy on the Hub
    clp-hf train inaturalist --dataset_name path/to/folder --label_column label --method logit_adjustment

The Hub has copies and no official repository: name the one to use, with the column of the species, by default
`category`. Its validation split, three images a species, is what papers test on: test and validation are the same here,
and nothing is selected. The meta set is one image of every species, out of training, since some have two. The network
starts from ImageNet's weights. Optimizer and schedule are those of Kang et al. (2020). The paper has no iNaturalist:
--preset paper is its method with these. Writes what recipes/waterbirds.py does.
"""

from clp_hf import CLPTrainingArguments
from clp_hf.data.published import INATURALIST
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

DEFAULTS = {
    "dataset_name": None,
    "label_column": "category",
    "attribute_column": "none",
    "test_split": "validation",
    "image_size": 224,
    "crop_scale": 0.08,
    "meta_split": "train",
    "meta_samples": 1,
    "meta_boxes": "centre",
    "model_name_or_path": "timm/resnet50.tv_in1k",
    "freeze_batch_norm": False,
    "output_dir": "runs/inaturalist",
    "seed": 0,
    "num_train_epochs": 90,
    "per_device_train_batch_size": 512,
    "per_device_eval_batch_size": 256,
    "learning_rate": 0.2,
    "lr_scheduler_type": "cosine",
    **SGD,
    "weight_decay": 1e-4,
    **SELECTED_EVERY_EPOCH,
    "load_best_model_at_end": False,
    "metric_for_best_model": "balanced_accuracy",
}

PRESETS = {"paper": {**PAPER, "train_boxes": "centre"}}


def build(
    recipe: MethodArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    if data.dataset_name is None:
        raise ValueError(
            "Which copy of iNaturalist 2018? Name one on the Hub, or a folder: --dataset_name OWNER/NAME. Its labels "
            "are read from the column category (--label_column)."
        )
    return Experiment(data, model, training, published=[INATURALIST])


def main():
    run_recipe(RecipeArguments, __doc__, DEFAULTS, build, PRESETS)


if __name__ == "__main__":
    main()
