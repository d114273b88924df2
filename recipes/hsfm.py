"""HSFM: repair a trained classifier in seconds, by its head alone; the backbone stays as it is.

    clp-hf hsfm --model_name_or_path runs/waterbirds/erm     # what recipes/waterbirds.py saved
    clp-hf hsfm --train_backbone clp                         # trains one first
    clp-hf hsfm --model_name_or_path runs/waterbirds/erm --trials 64 --preset dominoes

It is clp-hf repair --method hsfm. Images are preprocessed as the classifier's processor has it, at its size or at
--image_size, which is saved. The other data arguments are those of recipes/waterbirds.py. Writes an ordinary checkpoint
with the new head and all_results.json (eval_* and test_* keys) to --output_dir, and prints the table of every group,
before and after.
"""

import waterbirds

from clp_hf.experiment import BackboneArguments, run_repair


def main():
    run_repair("hsfm", BackboneArguments, __doc__, waterbirds.DEFAULTS, "runs/hsfm", waterbirds.named)


if __name__ == "__main__":
    main()
