"""Recipes by name: where they lie, what they say of themselves, and running them, under accelerate's launcher or not.

`accelerate launch -m clp_hf.experiment.launch waterbirds …` is `clp-hf train waterbirds …`.
"""

import ast
import difflib
import importlib
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..utils.shipped import shipped

SETTINGS_SUFFIXES = (".json", ".yaml", ".yml")
NOT_TRAINING = {"make_masks"}
# Modules of other packages that say what is wrong with arguments, names and folders.
ARGUMENT_MODULES = (
    "transformers.hf_argparser", "transformers.training_args", "transformers.utils.hub", "transformers.models.auto.",
    "datasets.load", "datasets.data_files",
)  # fmt: skip


def recipes() -> dict[str, str]:
    """What `clp-hf train` runs: name -> first line of the recipe's docstring."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(shipped("recipes").glob("*.py"))}
    return {
        name: ast.get_docstring(ast.parse(source)).splitlines()[0]
        for name, source in sources.items()
        if name not in NOT_TRAINING
    }


def find_recipe(name_or_settings: str) -> str:
    """The name of a recipe, given itself or as the value of `recipe` in a JSON or YAML file.

    Raises:
        ValueError: there is no such recipe or file, or the file names none.
    """
    name, known = name_or_settings, recipes()
    if name.endswith(SETTINGS_SUFFIXES):
        if not Path(name).is_file():
            raise ValueError(f"There is no settings file {name!r}.")
        try:
            settings = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{name!r} is not valid YAML: {error}") from error
        if not isinstance(settings, dict) or "recipe" not in settings:
            raise ValueError(
                f"{name!r} does not name its recipe. Add a line such as `recipe: waterbirds`; "
                f"the recipes are {', '.join(known)}."
            )
        name = str(settings["recipe"])
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"There is no recipe {name!r}. {advice}The recipes are {', '.join(known)}; or give a YAML file that names "
            "its recipe."
        )
    return name


def run_here(name: str, arguments: Sequence[str], command: str) -> None:
    """Run a recipe in this process.

    Args:
        name: of a file in the folder `recipes`.
        arguments: the recipe's own.
        command: what the recipe is called in its help.
    """
    sys.path.insert(0, str(shipped("recipes")))  # a recipe imports others
    sys.argv = [command, *arguments]
    importlib.import_module(name).main()


def launch_recipe(arguments: Sequence[str]) -> None:
    """Run a recipe as `accelerate launch` runs a script: with the user's accelerate configuration, in its processes.

    Args:
        arguments: accelerate's options, the recipe or its settings file, the recipe's own options.

    Raises:
        SystemExit: the recipe failed; with its exit status.
        ValueError: as `find_recipe`.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = launch_command_parser()
    parser.prog = "clp-hf train"
    args = parser.parse_args(arguments)
    find_recipe(args.training_script)  # before any process starts
    own = [args.training_script, *args.training_script_args]
    if {"-h", "--help"} & set(own):
        return main(own)
    args.module, args.training_script, args.training_script_args = True, "clp_hf.experiment.launch", own
    try:
        return launch_command(args)
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from error
    except ChildFailedError as error:
        raise SystemExit(error.get_first_failure()[1].exitcode) from error


@contextmanager
def user_errors() -> Iterator[None]:
    """Say what is wrong with what the user gave in one message, with exit status 1, and not with a traceback.

    That is what clp_hf, a recipe, or the reading of arguments and folders raise to say so. Of all else the traceback is
    shown.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        module = frame.f_globals["__name__"]
        if module.split(".")[0] not in ("__main__", "clp_hf", *recipes()) and not module.startswith(ARGUMENT_MODULES):
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe that the first argument names, or the settings file that it is, in this process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with user_errors():
        if not arguments:
            raise ValueError(f"Which recipe? They are {', '.join(recipes())}.")
        name = find_recipe(arguments[0])
        if arguments[0] == name:
            arguments = arguments[1:]
        elif len(arguments) > 1:
            raise ValueError(f"All settings come from {arguments[0]!r}: put {' '.join(arguments[1:])} there too.")
        run_here(name, arguments, f"clp-hf train {name}")


if __name__ == "__main__":
    main()
