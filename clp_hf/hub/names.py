"""Names of models and data sets, as they are told."""

import os
import re
from pathlib import Path

from huggingface_hub import HfApi

from ..utils.connection import PROBE_SECONDS


def hub_id(name: str | None) -> str | None:
    """`name` if it can be an `owner/name` of the Hub, None for anything else, such as a folder."""
    if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and name[0] != "." and not os.path.exists(name):
        return name
    return None


def plain_names(names: str | list[str] | None) -> str | None:
    """Names as they are told: those of the Hub in full, of folders only the last part; None without any."""
    return ", ".join(hub_id(name) or Path(name).name for name in listed(names) if name) or None


def hub_license(model_id: str | None) -> str | None:
    """The license of a model on the Hub, or None when it does not say or cannot be reached."""
    try:
        data = HfApi().model_info(model_id, timeout=PROBE_SECONDS).card_data if model_id else None
    except Exception:  # not found, private, offline: a card is written all the same
        return None
    return data.license if data else None


def listed(value: str | list[str] | None) -> list[str]:
    """One name, or several, as a list."""
    return [value] if isinstance(value, str) else list(value or [])
