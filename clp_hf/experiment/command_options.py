"""What the commands have in common: options, and help in the groups that recipes' have."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated

import typer
from typer.core import TyperCommand

from ..data.columns import Columns
from .words import GROUPS

Verbose = Annotated[bool, typer.Option("--verbose", help="Every warning of the libraries, and their bars.")]
DatasetPath = Annotated[str, typer.Argument(metavar="DATA", help="A Hub name, a folder, a parquet file, or embedded.")]
DatasetConfig = Annotated[str | None, typer.Option("--dataset_config_name", help="Configuration of a Hub data set.")]
DatasetRevision = Annotated[str | None, typer.Option("--dataset_revision", help="Of a Hub data set.")]
Token = Annotated[
    str | None, typer.Option("--token", help="Hub token, for model and data; by default that of `hf auth login`.")
]
Features = Annotated[
    str, typer.Option("--model_name_or_path", help="Pretrained classifier whose features are looked at.")
]
ImageSize = Annotated[int, typer.Option("--image_size", min=16, help="Pixels.")]


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


def with_column_flags(command: Callable, ignored: tuple[str, ...] = ("mask", "box")) -> Callable:
    """Give a command an option for every field of `Columns` that it needs; it takes them as `**columns`."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    flags = [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=item.default,
            annotation=Annotated[item.type, typer.Option(f"--{item.name}", help=f"{item.metadata['help']}{once}")],
        )
        for item in fields(Columns)
        if not item.name.startswith(ignored or "-")
        for once in [" Once for each." if item.name.endswith(("names", "value")) else ""]
    ]
    command.__signature__ = signature.replace(parameters=[*own, *flags])
    command.__annotations__ |= {flag.name: flag.annotation for flag in flags}
    return command
