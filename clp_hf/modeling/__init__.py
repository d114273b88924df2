"""Any image classifier in, one interface out: logits, penultimate features, the final linear layer.

`load_image_classifier` turns a Hub name, a folder, a timm name or an already built model into a `PreTrainedModel` that
the Trainer trains and `from_pretrained` loads again; the other functions are what training needs to know about it.
"""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from .head import ComposedHead, find_classifier_head, forward_with_features, head_layers, set_head
    from .identity import architecture_name, label_names, model_fingerprint, parameter_count
    from .loading import load_image_classifier
    from .modes import evaluation_layers, evaluation_mode, freeze_batch_norm_statistics, uses_batch_statistics
    from .preprocessing import ImageSettings, image_settings, load_image_processor, resize_bilinearly, squash_bilinearly
    from .timm_models import PACKAGED_ARCHITECTURE, PACKAGED_WEIGHTS

__all__ = [
    "PACKAGED_ARCHITECTURE",
    "PACKAGED_WEIGHTS",
    "ComposedHead",
    "ImageSettings",
    "architecture_name",
    "evaluation_layers",
    "evaluation_mode",
    "find_classifier_head",
    "forward_with_features",
    "freeze_batch_norm_statistics",
    "head_layers",
    "image_settings",
    "label_names",
    "load_image_classifier",
    "load_image_processor",
    "model_fingerprint",
    "parameter_count",
    "resize_bilinearly",
    "set_head",
    "squash_bilinearly",
    "uses_batch_statistics",
]

# the files that know torch alone are imported without transformers
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ComposedHead": ".head",
        "ImageSettings": ".preprocessing",
        "PACKAGED_ARCHITECTURE": ".timm_models",
        "PACKAGED_WEIGHTS": ".timm_models",
        "architecture_name": ".identity",
        "evaluation_layers": ".modes",
        "evaluation_mode": ".modes",
        "find_classifier_head": ".head",
        "forward_with_features": ".head",
        "freeze_batch_norm_statistics": ".modes",
        "head_layers": ".head",
        "image_settings": ".preprocessing",
        "label_names": ".identity",
        "load_image_classifier": ".loading",
        "load_image_processor": ".preprocessing",
        "model_fingerprint": ".identity",
        "parameter_count": ".identity",
        "resize_bilinearly": ".preprocessing",
        "set_head": ".head",
        "squash_bilinearly": ".preprocessing",
        "uses_batch_statistics": ".modes",
    },
)
