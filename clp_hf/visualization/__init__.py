"""Pictures and numbers of what a classifier has learned."""

from .grad_cam import Attribution, attribution_metrics, attribution_shares, check_has_masks, grad_cam_figure

__all__ = ["Attribution", "attribution_metrics", "attribution_shares", "check_has_masks", "grad_cam_figure"]
