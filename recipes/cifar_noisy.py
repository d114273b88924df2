"""CIFAR with wrong labels in the training split; validation, meta set and test are clean.

    clp-hf train cifar_noisy                                  # CIFAR-10, 40 % flipped, ResNet-32
    clp-hf train cifar_noisy --perturbed_logits own --perturbation_bound 10
    clp-hf train cifar_noisy --preset paper --noise uniform --noise_rate 0.6    # WRN-28-10, as the paper has it
    clp-hf train cifar_noisy --dataset_name uoft-cs/cifar100 --flip_map similar.json --method meta_lp

Flips go to the two most similar classes: those of --flip_map, or those that a linear classifier on thumbnails of the
clean training images confuses most; they are printed. The meta set is 1,000 clean images, as many of every class.
Network and optimizer are the paper's for flips and, where it is silent (epochs), those of Shu et al. (2019), whom it
follows; --preset paper is its method too, on all training images as in recipes/cifar_longtail.py, and has the network
and schedule of uniform noise with --noise uniform. A perturbation of all classes hardly sees whose label is wrong: that
of the own class alone does.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cifar_longtail
from datasets import Dataset

from clp_hf import CLPTrainingArguments
from clp_hf.data.published import CIFAR
from clp_hf.data.scenarios.label_noise import flip_noise, similar_classes, thumbnail_confusion, uniform_noise
from clp_hf.experiment import By, DataArguments, Experiment, MethodArguments, ModelArguments, run_recipe


@dataclass
class RecipeArguments(MethodArguments):
    noise: str = field(default="flip", metadata={"help": "How labels go wrong.", "choices": ["flip", "uniform"]})
    noise_rate: float = field(default=0.4, metadata={"help": "Share of the labels that are replaced, 0 to 1."})
    noise_seed: int = field(default=0, metadata={"help": "Which labels are replaced, by what."})
    flip_map: str | None = field(
        default=None, metadata={"help": "JSON file: class name -> names of the classes that it is mistaken for."}
    )


DEFAULTS = {
    **cifar_longtail.DEFAULTS,
    "meta_images": 1000,
    "output_dir": "runs/cifar_noisy",
    "num_train_epochs": 60,
    "lr_decay_at": [0.667, 0.833],  # epochs 40 and 50
    "weight_decay": 1e-4,
}

# section 4.2; silent: epochs, those of Shu et al. (2019)
PRESETS = {
    "paper": {
        **cifar_longtail.CIFAR_PAPER,
        "meta_images": 1000,
        "model_name_or_path": By("noise", {"flip": "cifar_resnet32", "uniform": "wrn28_10"}),
        "num_train_epochs": By("noise", {"flip": 60, "uniform": 40}),
        "lr_decay_at": By("noise", {"flip": [0.667, 0.833], "uniform": [0.9, 0.95]}),
        "weight_decay": By("noise", {"flip": 1e-4, "uniform": 5e-4}),
    }
}


def noise(train: Dataset, recipe: RecipeArguments) -> Dataset:
    if recipe.noise == "uniform":
        return uniform_noise(train, recipe.noise_rate, seed=recipe.noise_seed)
    if recipe.flip_map:
        targets = json.loads(Path(recipe.flip_map).read_text())
    else:
        names = train.features["label"].int2str
        similar = similar_classes(thumbnail_confusion(train))
        targets = {names(label): [names(target) for target in found] for label, found in similar.items()}
        print(f"Similar classes: {json.dumps(targets)}")
    return flip_noise(train, recipe.noise_rate, targets, seed=recipe.noise_seed)


def build(
    recipe: RecipeArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    return Experiment(data, model, training, scenario=partial(noise, recipe=recipe), published=CIFAR)


def main():
    run_recipe(RecipeArguments, __doc__, DEFAULTS, build, PRESETS)


if __name__ == "__main__":
    main()
