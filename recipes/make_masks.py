"""Causal masks for images that have none: GrabCut, or any segmentation model of transformers.

    clp-hf masks --dataset_name path/to/images --max_images 50    # a look first: report and sheet only
    clp-hf masks --dataset_name path/to/images                    # GrabCut; writes path/to/images-masks
    clp-hf masks --dataset_name path/to/images --segmenter facebook/sam-vit-base
    clp-hf masks --dataset_name path/to/images --foreground bird \\
        --segmenter facebook/mask2former-swin-tiny-coco-instance --matting_model hustvl/vitmatte-small-composition-1k

Then train: clp-hf train classify --dataset_name path/to/images-masks

Masks are kept image by image: an interrupted run goes on where it was. Look at contact_sheet.png before training.
"""

from clp_hf.experiment import ConsoleArguments, parse_arguments, quiet
from clp_hf.segmentation import MaskArguments, make_masks
from clp_hf.segmentation.masked_dataset import PREVIEW, SHEET
from clp_hf.segmentation.reports import format_mask_report


def main():
    args, console = parse_arguments((MaskArguments, ConsoleArguments), __doc__, {})
    with quiet(console.verbose):
        reports = make_masks(args)
    print(f"\n{format_mask_report(reports)}\n")
    if args.max_images is None:
        print(f"Look at {args.output_dir}/{SHEET}, then train with --dataset_name {args.output_dir}")
    else:
        print(f"Look at {args.output_dir}/{PREVIEW}/{SHEET}, then run without --max_images")


if __name__ == "__main__":
    main()
