"""What the commands have in common: options, and help in the groups that recipes' have."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..data.columns import Columns
from .words import GROUPS

Verbose = Annotated[bool, typer.Option("--verbose", help="Every warning of the libraries, and their bars.")]
DatasetPath = Annotated[str, typer.Argument(metavar="DATA", help="A Hub name, a folder, a parquet file, or embedded.")]
Features = Annotated[
    str, typer.Option("--model_name_or_path", help="Pretrained classifier whose features are looked at.")
]
ImageSize = Annotated[int, typer.Option("--image_size", min=16, help="Pixels.")]
# How a data set is read, by name of the option: the argument of `load_classification_dataset`, and the help.
READING = {
    "dataset_config_name": ("config_name", "Configuration of a Hub data set."),
    "dataset_revision": ("revision", "Of a Hub data set."),
    "token": ("token", "Hub token, for model and data; by default that of `hf auth login`."),
}


class GroupedCommand(TyperCommand):
    """A command whose help has the groups that recipes' have."""

    def format_options(self, ctx, formatter):
        """Write them: what stands in no group first."""
        placed = {name: title for title, group in GROUPS.items() for names in group for name in names}
        sections = {"Arguments": [], "Options": [], **{title: [] for title in GROUPS}}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                outer = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections[placed.get(parameter.name, outer)].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def with_data_flags(command: Callable, ignored: tuple[str, ...] = ("mask", "box")) -> Callable:
    """Give a command the options of `READING`, and one for every field of `Columns` that it needs.

    It takes them as `columns`, and `reading`, keywords of `load_classification_dataset`.
    """
    signature = inspect.signature(command)
    own = [parameter for name, parameter in signature.parameters.items() if name not in ("columns", "reading")]
    needed = [item for item in fields(Columns) if not item.name.startswith(ignored or "-")]
    flags = [_flag(name, None, str | None, text) for name, (_, text) in READING.items()]
    for item in needed:
        once = " Once for each." if item.name.endswith(("names", "value")) else ""
        flags.append(_flag(item.name, item.default, item.type, f"{item.metadata['help']}{once}"))

    @wraps(command)
    def run(**given):
        reading = {argument: given.pop(name) for name, (argument, _) in READING.items()}
        columns = Columns(**{item.name: given.pop(item.name) for item in needed})
        return command(**given, columns=columns, reading=reading)

    run.__signature__ = signature.replace(parameters=[*own, *flags])
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *flags]}
    return run


def _flag(name: str, default: Any, kind: Any, text: str) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(f"--{name}", help=text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
