"""What a frozen pretrained backbone makes of a scenario's images, of their backgrounds, and of swapped backgrounds.

    python benchmarks/feature_sets.py --scenario waterbirds --features FOLDER --dataset_name PATH/TO/waterbirds_like

The scenarios are those of compare.py. `feature_sets` returns features to other benchmarks; the command computes them
and tells their shapes. Each set is a file in FOLDER/<split>, read when it is there: the same command goes
on after an interruption. The validation split is whole; `FeatureSets.meta_indices` draws the meta set out of it that a
run of some seed has, so that one extraction serves all seeds.
"""

import importlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scenario_arguments import scenario_arguments  # and it makes the recipes known
from torch import Tensor

from clp_hf.causal import CausalAugmentation
from clp_hf.data import ImageClassificationDataset
from clp_hf.data.mask_counts import split_masks
from clp_hf.data.meta_set import meta_indices
from clp_hf.experiment import Experiment
from clp_hf.features import CausalFeatures, extract_causal_features

NO_ATTRIBUTE = {"image", "label", "group", "mask", "box", "clean_label"}  # columns of an experiment's splits


@dataclass(frozen=True)
class SplitFeatures(CausalFeatures):
    """Of a split; the logits are those of a head that was never trained.

    Attributes:
        attribute: int64 (n,); None where the group is not class × attribute.
    """

    attribute: Tensor | None = None


@dataclass(frozen=True)
class FeatureSets:
    """The splits of a scenario, and what labels, groups and attributes are called (None where there are none)."""

    train: SplitFeatures
    validation: SplitFeatures
    test: SplitFeatures
    label_names: list[str]
    group_names: list[str] | None
    attribute_names: list[str] | None

    def meta_indices(self, per_cell: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the validation split the meta set, `per_cell` images of every group (or class), and the rest."""
        images, where = self.validation.images, {"source": "validation split", "fix": "lower per_cell"}
        groups = None if images.groups is None else images.groups.numpy()
        return meta_indices(images.labels.numpy(), per_cell, groups, **where, seed=seed)


def feature_sets(experiment: Experiment, folder: str | Path, copies: int = 2) -> FeatureSets:
    """By an experiment's model before training: `copies` draws of swapped training backgrounds, one of validation."""
    backbone, args, transform = experiment.build_model(), experiment.args, experiment.validation.transform
    mean, std = transform.mean.flatten().tolist(), transform.std.flatten().tolist()
    augmentation = CausalAugmentation(["tile"], ["mix_rand"], mean, std, args.mask_shape, factual_mask_shape="exact")
    splits = {**experiment.splits, "validation": experiment.validation_pool}
    attribute = next((name for name in splits["train"].column_names if name not in NO_ATTRIBUTE), None)

    def of_split(name: str, draws: int) -> SplitFeatures:
        images = ImageClassificationDataset(splits[name], transform, name=name)
        maskable = split_masks(images, args.mask_shape).maskable if images.has_mask else None
        found = extract_causal_features(
            backbone, images, args, augmentation if images.has_mask else None, maskable, draws, f"{folder}/{name}"
        )
        known = None if attribute is None else torch.tensor(splits[name][attribute][:])
        return SplitFeatures(**vars(found), attribute=known)

    return FeatureSets(
        **{name: of_split(name, draws) for name, draws in {"train": copies, "validation": 1, "test": 0}.items()},
        label_names=experiment.label_names,
        group_names=experiment.group_names,
        attribute_names=None if attribute is None else splits["train"].features[attribute].names,
    )


@dataclass
class BenchmarkArguments:
    scenario: str = field(metadata={"help": "A recipe, as for compare.py."})
    features: str = field(metadata={"help": "Folder of the features."})
    copies: int = field(default=2, metadata={"help": "Draws of swapped backgrounds of the training images."})


def main():
    benchmark, *arguments = scenario_arguments(BenchmarkArguments, __doc__, model_name_or_path="tf_efficientnet_lite0")
    started = time.perf_counter()
    experiment = importlib.import_module(benchmark.scenario).build(*arguments)
    found = feature_sets(experiment, benchmark.features, benchmark.copies)
    for name in ("train", "validation", "test"):
        tensors = vars(split := getattr(found, name)) | {"images": split.images.features}
        print(name, {what: tuple(tensor.shape) for what, tensor in tensors.items() if tensor is not None})
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
