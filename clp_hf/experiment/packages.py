"""What a run needs beyond what `pip install clp-hf` brings: asked for before data are read, and told by the extra."""

from collections.abc import Sequence

from transformers import TrainingArguments
from transformers.utils import logging

from ..base.requirements import check_installed
from ..segmentation.boxes import check_box_method
from ..utils.extras import missing, refuse_missing
from .arguments import DataArguments, ModelArguments

logger = logging.get_logger(__name__)


def check_packages(runs: Sequence[TrainingArguments], data: DataArguments, model: ModelArguments) -> None:
    """Refuse what would fail after minutes for a package that is not there; say what it will go without.

    Args:
        runs: the arguments of all that will be trained, one after the other.
        data, model: of the recipe.

    Raises:
        ImportError: names the package, and the extra that has it.
        ValueError: as `check_installed`.
    """
    for args in runs:
        check_installed(args)
    for name in ("meta_boxes", "train_boxes"):
        if (method := getattr(data, name)) == "grabcut":
            refuse_missing(f"--{name} grabcut", "cv2")
        elif method:
            check_box_method(method, f"--{name}")
    if model.attribution:
        refuse_missing("--attribution", "pytorch_grad_cam", "matplotlib")
    elif runs[0].should_log and (problem := missing("A card with pictures", "matplotlib")):
        logger.warning(problem)
