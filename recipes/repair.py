"""Repair a trained classifier in seconds, by its head alone, with CLP, HSFM, DFR, JTT …; the backbone stays as it is.

    clp-hf repair --model_name_or_path runs/waterbirds/erm     # what recipes/waterbirds.py saved
    clp-hf repair --train_backbone erm                         # trains one first
    clp-hf repair --model_name_or_path me/my-birds --dataset_name path/to/folder --meta_images 40
    clp-hf repair --method dfr --on meta --model_name_or_path runs/waterbirds/erm
    clp-hf repair --method regression --balance group --model_name_or_path runs/waterbirds/erm

What each learns from beside the training images (--method hsfm --help lists the options of HSFM):
    clp         masks, or a few images of known group, or nothing: the more the better
    hsfm        the validation images that are hardest
    dfr         the group of every validation image (--on validation), or of the meta images (--on meta)
    gsr         the same; by the weights of the training images
    afr         nothing: the training images that the classifier is unsure of count more
    jtt         nothing: those that a head stopped early gets wrong count more (JTT, of the last layer alone)
    regression  nothing, or the group of every training image: classes, or groups, count alike (--balance)
    group_dro   the group of every training image: the worst group decides
    crt         nothing: a new head by SGD, classes equally often, for long tails
    lws         nothing: the head scaled by a factor of every class, likewise
    tde         nothing: the head without what all features share, for long tails
    self        half of the validation images: those on which it disagrees with itself under dropout

Features are computed once and kept in --output_dir, by default runs/repair/ and the method; what follows takes seconds.
Images are preprocessed as the classifier's processor has it, at its size or at --image_size, which is saved. The other
data arguments are those of recipes/waterbirds.py. Writes an ordinary checkpoint with the new head, its card and
all_results.json (eval_* and test_* keys) to --output_dir, and prints the table of every group, before and after.
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
