"""The command line of a benchmark of one scenario: its own arguments, and those of the recipe that the scenario is."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from paper_tables import TABLES
from transformers import HfArgumentParser
from variants import SCENARIOS, SWEEPS, VARIANTS

from clp_hf import CLPTrainingArguments
from clp_hf.experiment import PRESETS, DataArguments, ModelArguments, read_arguments
from clp_hf.experiment.help import asked_for


def scenario_arguments(own: type, description: str, **defaults: Any) -> tuple:
    """The arguments of `read_scenario`, without those that were given."""
    return read_scenario(own, description, **defaults)[0]


def read_scenario(own: type, description: str, **defaults: Any) -> tuple[tuple, dict[str, Any]]:
    """The command line of a benchmark of one scenario: its own arguments, and the recipe's four; and what was given.

    Args:
        own: dataclass of the benchmark's arguments, with `scenario`.
        description: for `--help`.
        **defaults: in place of those of recipe and budget.

    Raises:
        ValueError: no scenario, or what `read_arguments` refuses.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--scenario", choices=list(SCENARIOS))
    first.add_argument("--table", type=int, choices=list(TABLES))
    found = first.parse_known_args()[0]
    scenario = found.scenario or (found.table and TABLES[found.table].scenario)
    if scenario is None:
        if asked_for(sys.argv[1:]):
            print_help(own, description)
            sys.exit()
        raise ValueError(f"Which scenario? Give --scenario with one of {', '.join(SCENARIOS)}.")
    recipe, defaults = importlib.import_module(scenario), {"scenario": scenario, **defaults}
    return read_arguments(
        (own, recipe.RecipeArguments, DataArguments, ModelArguments, CLPTrainingArguments),
        description,
        {**recipe.DEFAULTS, **SCENARIOS[scenario][1], "report_to": "none", "disable_tqdm": True, **defaults},
        getattr(recipe, "PRESETS", PRESETS),
    )


def print_help(own: type, description: str) -> None:
    """What can be said before a scenario is chosen; with one, `--help` lists the options of its recipe too."""
    parser = HfArgumentParser(
        own,
        usage="%(prog)s --scenario SCENARIO [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"methods: {', '.join(VARIANTS)}\n\nsweeps: {', '.join(SWEEPS)}\n\nOf a scenario's recipe, with its "
        "options and defaults: --scenario SCENARIO --help",
    )
    parser.print_help()
