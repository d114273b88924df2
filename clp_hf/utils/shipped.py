"""Folders that lie beside the package in a checkout, and inside it where it is installed."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped(name: str) -> Path:
    """The folder `name`, such as `recipes`, of this installation or of the checkout that clp_hf is imported from."""
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name
