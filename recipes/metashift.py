"""MetaShift: cats, mostly indoors, and dogs, mostly outdoors, tested where they are not.

    clp-hf train metashift --dataset_name path/to/folder
    clp-hf train metashift --dataset_name path/to/folder --method meta_lp --num_train_epochs 10

MetaShift (Liang & Zou, 2022) is made of Visual Genome by its authors' code; its Hub repository is a script, which
`datasets` no longer runs. The folder holds what that code made, as parquet files or as an image folder with metadata,
with the columns `image`, `label` (cat, dog) and `attribute` (indoor, outdoor). Without masks or boxes of its own,
causal images use a box in the middle of the image. Everything else is recipes/celeba.py's, with the learning rate
and epochs of Yao et al. (2022) for MetaShift. The paper has no MetaShift: --preset paper is its method, with boxes in
the middle of the training images too.
"""

import celeba

from clp_hf.experiment import PAPER

RecipeArguments, build = celeba.RecipeArguments, celeba.build

DEFAULTS = {
    **celeba.DEFAULTS,
    "dataset_name": "data/metashift",
    "label_column": None,
    "attribute_column": None,
    "meta_boxes": "centre",
    "output_dir": "runs/metashift",
    "num_train_epochs": 100,
    "learning_rate": 1e-3,
}

PRESETS = {"paper": {**PAPER, "train_boxes": "centre"}}


def main():
    celeba.main(__doc__, DEFAULTS, method="clp", presets=PRESETS)


if __name__ == "__main__":
    main()
