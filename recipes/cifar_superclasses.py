"""CIFAR-100 as its 20 superclasses, whose classes are long-tailed in training: a generalised long tail on real images.

    clp-hf train cifar_superclasses                        # ALT, 100:1 inside every superclass, from the Hub
    clp-hf train cifar_superclasses --protocol glt --class_imbalance 10
    clp-hf train cifar_superclasses --dataset_name path/to/parquet_folder --method group_dro

The label is the superclass, the group the class. ALT: superclasses are balanced, the five classes of each long-tailed;
CLT: superclasses long-tailed, the classes of each balanced; GLT: both, and no class without image. A tenth of the
training images is held out for validation and the meta set (ten of every class) before the tail is made; validation and
test are balanced. The splits are the same whatever the seed. The worst group is the worst class; the checkpoint is
chosen by accuracy, the mean over classes, since few validation images of a class are left. CIFAR has no masks, so the
default method is Meta-LP; CLP uses a box in the middle of the images. Network and schedule are those of
recipes/cifar_longtail.py with a ResNet-20. Writes what recipes/waterbirds.py does.
"""

from dataclasses import dataclass, field
from functools import partial

import cifar_longtail

from clp_hf import CLPTrainingArguments
from clp_hf.data.scenarios.superclasses import PROTOCOLS, nested_long_tail, superclass_groups
from clp_hf.data.sources import read_splits
from clp_hf.experiment import (
    DataArguments,
    Experiment,
    MethodArguments,
    ModelArguments,
    data_hub_kwargs,
    run_recipe,
)


@dataclass
class RecipeArguments(MethodArguments):
    protocol: str = field(default="alt", metadata={"help": "What is long-tailed.", "choices": list(PROTOCOLS)})
    class_imbalance: float = field(
        default=100.0, metadata={"help": "Largest to smallest superclass of CLT and GLT, at least 1."}
    )
    attribute_imbalance: float = field(
        default=100.0, metadata={"help": "Largest to smallest class of a superclass of ALT and GLT, at least 1."}
    )


DEFAULTS = {
    **cifar_longtail.DEFAULTS,
    "dataset_name": "uoft-cs/cifar100",
    "model_name_or_path": "cifar_resnet20",
    "output_dir": "runs/cifar_superclasses",
}


def build(
    recipe: RecipeArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    source = read_splits(data.dataset_name, **data_hub_kwargs(data, model))
    splits = superclass_groups(source, data.label_column, data.class_names)
    data.label_column = data.class_names = None  # which were of the source
    scenario = partial(
        nested_long_tail,
        protocol=recipe.protocol,
        class_imbalance=recipe.class_imbalance,
        attribute_imbalance=recipe.attribute_imbalance,
    )
    return Experiment(data, model, training, splits=splits, scenario=scenario)


def main():
    run_recipe(RecipeArguments, __doc__, {"method": "meta_lp", **DEFAULTS}, build)


if __name__ == "__main__":
    main()
