"""Recipes by name: where they lie, what they say of themselves, and running them, under accelerate's launcher or not.

`accelerate launch -m clp_hf.experiment.launch waterbirds …` is `clp-hf train waterbirds …`.
"""

import ast
import importlib
import os
import subprocess
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..utils.allocator import keep_freed_memory
from ..utils.names import did_you_mean
from ..utils.shipped import shipped
from .help import CHANGES_PAGE, HELP, asked_for, show_known
from .processes import one_process_is_all, start_all
from .settings import is_settings_file, read_settings, without_settings

NOT_TRAINING = {"make_masks"}
# Modules of other packages that say what is wrong with arguments, names and folders.
ARGUMENT_MODULES = (
    "transformers.dynamic_module_utils", "transformers.hf_argparser", "transformers.training_args",
    "transformers.utils.import_utils", "transformers.utils.hub", "transformers.models.auto.",
    "datasets.load", "datasets.data_files", "accelerate.commands.",
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
    if is_settings_file(name):
        settings = read_settings(name)
        if "recipe" not in settings:
            raise ValueError(
                f"{name!r} does not name its recipe. Add a line such as `recipe: waterbirds`; "
                f"the recipes are {', '.join(known)}."
            )
        name = str(settings["recipe"])
    if name not in known:
        raise ValueError(
            f"There is no recipe {name!r}.{did_you_mean(name, known)} The recipes are {', '.join(known)}; or give a "
            "YAML file that names its recipe."
        )
    return name


def command_of(name: str) -> str:
    """How a recipe is run, which is what its help calls it."""
    return {"make_masks": "clp-hf masks", "hsfm": "clp-hf hsfm", "repair": "clp-hf repair"}.get(
        name, f"clp-hf train {name}"
    )


def run_here(name: str, arguments: Sequence[str], command: str) -> None:
    """Run a recipe in this process.

    Args:
        name: of a file in the folder `recipes`.
        arguments: the recipe's own.
        command: what the recipe is called in its help.
    """
    if asked_for(arguments) and _help_is_known(name, arguments, command):
        return
    keep_freed_memory()
    sys.path.insert(0, str(shipped("recipes")))  # a recipe imports others
    sys.argv = [command, *arguments]
    importlib.import_module(name).main()


def _help_is_known(name: str, arguments: Sequence[str], command: str) -> bool:
    """Whether the help of a recipe could be shown, and was, without importing it."""
    path, words = without_settings(arguments)
    settings = read_settings(path) if path else {}
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for option in CHANGES_PAGE:
        parser.add_argument(f"--{option}", default=settings.get(option))
    known, others = parser.parse_known_args(words)
    chosen = vars(known)
    if chosen["preset"] and set(others) - set(HELP):
        return False  # defaults of a preset depend on other options
    keys = [(name, f"--{option}", str(value)) for option, value in chosen.items() if value is not None]
    return any(show_known(key, command, words) for key in [*keys, (name,)])


def cpp_log_level(words: Sequence[str]) -> dict[str, str]:
    """Have PyTorch's C++ be silent in what is started, as `quiet` cannot: it warns of DDP's own defaults."""
    heard = {"--verbose", "TORCH_CPP_LOG_LEVEL"} & {*words, *os.environ}
    return {} if heard else {"TORCH_CPP_LOG_LEVEL": "ERROR"}


def launch_recipe(arguments: Sequence[str]) -> None:
    """Run a recipe as `accelerate launch` runs a script: with the user's accelerate configuration, in its processes.

    Where that is one process, of which nothing is said, it is this one.

    Args:
        arguments: accelerate's options, the recipe or its settings file, the recipe's own options.

    Raises:
        SystemExit: the recipe failed; with its exit status.
        ValueError: as `find_recipe` and `start_all`, or an option before the recipe is none of accelerate's.
    """
    known = recipes()
    if asked_for(arguments) and (places := [place for place, word in enumerate(arguments) if word in known]):
        return main(arguments[places[0] :])
    if not arguments[0].startswith("-"):
        find_recipe(arguments[0])  # before anything slow is imported
        if one_process_is_all():  # then a launcher would only import everything twice
            return main(arguments)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = launch_command_parser()
    parser.prog = "clp-hf train"
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        option = unknown[0].split("=")[0]
        raise ValueError(
            f"{option} is no option of accelerate's, which stand before the recipe."
            f"{did_you_mean(option, parser._option_string_actions)} The recipe's own options follow its name: "
            f"clp-hf train waterbirds {unknown[0]} …"
        )
    find_recipe(args.training_script)  # before any process starts
    own = [args.training_script, *args.training_script_args]
    if asked_for(own):
        return main(own)
    args.module, args.training_script, args.training_script_args = True, "clp_hf.experiment.launch", own
    try:
        with patch_environment(**start_all(args), **cpp_log_level(own)):
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
    except BrokenPipeError:  # of who reads no further: `--help | head`
        raise
    except (ValueError, OSError, ImportError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        module = frame.f_globals["__name__"]
        if module.split(".")[0] not in ("__main__", "clp_hf", *recipes()) and not module.startswith(ARGUMENT_MODULES):
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe that the first argument, or the settings file that it is, names, in this process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with user_errors():
        if not arguments:
            raise ValueError(f"Which recipe? They are {', '.join(recipes())}.")
        name = find_recipe(arguments[0])
        run_here(name, arguments[1:] if arguments[0] == name else arguments, command_of(name))


if __name__ == "__main__":
    main()
