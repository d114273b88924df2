"""Masks for images that have none: segmenters (GrabCut, any model of transformers) and data sets made with them."""

from .masked_dataset import MaskArguments, make_masks
from .reports import mask_counts
from .segmenters import load_segmenter
from .sheet import contact_sheet

__all__ = ["MaskArguments", "contact_sheet", "load_segmenter", "make_masks", "mask_counts"]
