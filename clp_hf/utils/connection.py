"""Whether the Hugging Face Hub answers."""

from huggingface_hub import constants
from huggingface_hub.utils import get_session

PROBE_SECONDS = 5


def hub_failure() -> Exception | None:
    """Why the Hub does not answer; None when it does.

    One request without retries: huggingface_hub by itself retries every file of an unreachable Hub for half a minute.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as failure:  # of whichever HTTP client huggingface_hub was built on, or its offline mode
        return failure
    return None
