"""MSCOCO-GLT: 29 kinds of objects, classes and attributes long-tailed in training (Tang et al. 2022).

    clp-hf train coco_glt --dataset_name coco_glt/images --split_folder path/to/splits
    clp-hf train coco_glt --dataset_name coco_cbl/images --split_folder path/to/splits --protocol alt

The benchmark's code crops the objects from MSCOCO into a folder of images, and writes the split files;
`clp_hf.data.glt` says which. Everything else is recipes/imagenet_glt.py's, with the crops that Tang et al. use here.
"""

from functools import partial

import imagenet_glt

RecipeArguments, PRESETS = imagenet_glt.RecipeArguments, imagenet_glt.PRESETS
build = partial(imagenet_glt.build, benchmark="coco")

DEFAULTS = {
    **imagenet_glt.DEFAULTS,
    "dataset_name": "coco_glt/images",
    "crop_scale": 0.5,
    "output_dir": "runs/coco_glt",
}


def main():
    imagenet_glt.main("coco", __doc__, DEFAULTS)


if __name__ == "__main__":
    main()
