"""How the training images are shared out among processes."""

from transformers import TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)


def tell_repeated_images(images: int, args: TrainingArguments) -> None:
    """Say before training that the last batch of an epoch is filled with images of its beginning.

    accelerate gives every process a whole batch. Those images count twice in that epoch, so that several processes are
    not to the last digit one with the joint batch, whose last batch is small.

    Args:
        images: in an epoch, of all processes.
        args: of the run; nothing is said of one process, or with `dataloader_drop_last`.
    """
    joint = args.train_batch_size * args.world_size
    repeated = -images % joint
    if args.world_size > 1 and repeated and not args.dataloader_drop_last and args.process_index == 0:
        logger.warning(
            f"{images} training images are no multiple of the {joint} of {args.world_size} processes' batches: the "
            f"last batch of an epoch is filled with {repeated} of its first images, which count twice. One process "
            "does not do that; for equal results give --dataloader_drop_last true to both."
        )
