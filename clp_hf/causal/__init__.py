"""Causal masks, infills, meta set, losses and saliency of CLP. Knows torch and nothing of transformers."""

from .augmentation import CausalAugmentation, check_infills
from .background_attack import fgsm
from .infills import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS, composite, draw_donors, largest_rectangle
from .inpainting import DiffusersInpainter, TeleaInpainter, build_inpainter
from .losses import counterfactual_loss, meta_loss
from .mask_report import MaskReport, check_masks
from .masks import Masks, boxes_to_masks, enclosing_box, mask_iou, maskable, prepare_masks, trimap
from .meta_batches import MetaBatches
from .saliency import saliency_penalty
from .sampling import MetaSampler, Role, select_meta_indices
from .training_images import TrainingImages

__all__ = [
    "COUNTERFACTUAL_INFILLS",
    "FACTUAL_INFILLS",
    "CausalAugmentation",
    "DiffusersInpainter",
    "MaskReport",
    "Masks",
    "MetaBatches",
    "MetaSampler",
    "Role",
    "TeleaInpainter",
    "TrainingImages",
    "boxes_to_masks",
    "build_inpainter",
    "check_infills",
    "check_masks",
    "composite",
    "counterfactual_loss",
    "draw_donors",
    "enclosing_box",
    "fgsm",
    "largest_rectangle",
    "mask_iou",
    "maskable",
    "meta_loss",
    "prepare_masks",
    "saliency_penalty",
    "select_meta_indices",
    "trimap",
]
