"""Repair a trained classifier in seconds, by its head alone, with CLP, HSFM, DFR, JTT …; the backbone stays as it is.

    clp-hf repair --model_name_or_path runs/waterbirds/erm     # what recipes/waterbirds.py saved
    clp-hf repair --train_backbone erm                         # trains one first
    clp-hf repair --model_name_or_path me/my-birds --dataset_name path/to/folder --meta_images 40
    clp-hf repair --method dfr --on meta --model_name_or_path runs/waterbirds/erm
    clp-hf repair --method regression --balance group --model_name_or_path runs/waterbirds/erm

--method chooses, and the options below are its own: --method hsfm --help lists those of HSFM. CLP takes what the data
have: masks, or a few images of known group, or labels alone; it learns from the meta set, and with --on meta DFR and
GSR do too. Images are preprocessed as the classifier's processor has it, at its size or at --image_size, which is
saved. The other data arguments are those of recipes/waterbirds.py. Writes an ordinary checkpoint with the new head, its
card and all_results.json (eval_* and test_* keys) to --output_dir, and prints the table of every group, before and
after.
"""

import os

import waterbirds

from clp_hf.experiment import REPAIRS, RepairArguments, chosen, run_repair


def main():
    method = chosen("method", list(REPAIRS), RepairArguments.method)
    folder = os.path.join("runs", "repair", method)
    run_repair(method, RepairArguments, __doc__, waterbirds.DEFAULTS, folder, waterbirds.named)


if __name__ == "__main__":
    main()
