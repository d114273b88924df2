"""The `clp-hf` command: a front of recipes and functions of the package, which are imported when they are needed.

Its docstrings are its help; lines after a backspace are shown as they are.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import __version__
from .data.columns import Columns
from .experiment.launch import command_of, launch_recipe, recipes, run_here, user_errors
from .experiment.words import GROUPS

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# What follows is for the recipe, or for accelerate, and is not read here.
PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class _Grouped(TyperCommand):
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


app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP_OPTIONS
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False):
    """Fine-tune image classifiers that stay right when the background, the class frequencies or the labels lie.

    A first round, on generated birds, in minutes on a CPU:

    \b
      clp-hf train waterbirds --compare          a plain classifier (ERM), and CLP's
      clp-hf evaluate runs/waterbirds/erm runs/waterbirds/clp
      clp-hf repair --model_name_or_path runs/waterbirds/erm
      clp-hf demo                                both, on your own images

    Then on your own data: clp-hf train waterbirds --dataset_name path/to/folder. Every command explains itself:
    clp-hf train --help. To have recipes completed by the tab key: clp-hf --install-completion.
    """
    if version:
        typer.echo(__version__)


def _starting_with(incomplete: str) -> list[tuple[str, str]]:
    return [(name, line) for name, line in recipes().items() if name.startswith(incomplete)]


def _described_recipes() -> str:
    known = recipes()
    width = 4 + max(map(len, known))
    return "\n".join(
        textwrap.fill(
            line, 79, initial_indent=f"  {name}".ljust(width), subsequent_indent=" " * width, break_on_hyphens=False
        )
        for name, line in known.items()
    )


@app.command(
    help=f"""Train a classifier by a recipe: data, model, method and settings that belong together.

    \b
      clp-hf train waterbirds                    with CLP, on generated birds
      clp-hf train waterbirds --method erm --num_train_epochs 2
      clp-hf train waterbirds --help             its options and their defaults; --help-all: every one
      clp-hf train waterbirds settings.yaml --seed 3     from a file; flags go before it
      clp-hf train waterbirds --resume_from_checkpoint last   go on where it stopped
      clp-hf train --num_processes 2 waterbirds  accelerate's options come first

    A settings file has the recipe's options as its keys. It may say which recipe, `recipe: waterbirds`, and is then
    enough: clp-hf train settings.yaml.

    Training runs under accelerate's launcher. `accelerate config`, once, describes your machine; what stands before the
    recipe is read as by `accelerate launch`: --config_file, --num_processes, --mixed_precision ... Several processes
    run on as many GPUs, or, where there are none and with --cpu, on the cores of the CPU.

    The model, its card and all_results.json are written to --output_dir, by default runs/ and the recipe's name. Then:
    clp-hf evaluate, clp-hf report, clp-hf demo. To publish: --push_to_hub.

    \b
    Recipes:
{textwrap.indent(_described_recipes(), "    ")}
    """,
    short_help="Train by a recipe, which it lists.",
    context_settings=PASSED_ON,
    options_metavar="[ACCELERATE OPTIONS]",
    no_args_is_help=True,
)
def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE [RECIPE OPTIONS]", help="Its name, or a YAML or JSON file.", autocompletion=_starting_with
        ),
    ],
):
    """Launch a recipe."""
    with user_errors():
        launch_recipe(arguments)


@app.command(context_settings=PASSED_ON, add_help_option=False, short_help="Repair a trained classifier by its head.")
def repair(arguments: Annotated[list[str] | None, typer.Argument()] = None):
    """Launch the recipe repair, whose help this is."""
    with user_errors():
        launch_recipe(["repair", *(arguments or ["--help"])])


@app.command(context_settings=PASSED_ON, add_help_option=False, short_help="The same by HSFM: repair --method hsfm.")
def hsfm(arguments: Annotated[list[str] | None, typer.Argument()] = None):
    """Launch the recipe hsfm, whose help this is."""
    with user_errors():
        launch_recipe(["hsfm", *(arguments or [])])


@app.command(context_settings=PASSED_ON, add_help_option=False, short_help="Causal masks for images that have none.")
def masks(arguments: Annotated[list[str] | None, typer.Argument()] = None):
    """Run the recipe make_masks, whose help this is."""
    with user_errors():
        run_here("make_masks", arguments or ["--help"], command_of("make_masks"))


def _with_column_flags(command: Callable) -> Callable:
    """Give a command an option for every field of `Columns` that evaluation needs; it takes them as `**columns`."""
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
        if not item.name.startswith(("mask", "box"))
        for once in [" Once for each." if item.name.endswith("names") else ""]
    ]
    command.__signature__ = signature.replace(parameters=[*own, *flags])
    command.__annotations__ |= {flag.name: flag.annotation for flag in flags}
    return command


@app.command(cls=_Grouped, short_help="Accuracy of checkpoints in every group.", no_args_is_help=True)
@_with_column_flags
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT", help="Folders or Hub names.")],
    dataset_name: Annotated[
        str, typer.Option("--dataset_name", help="A Hub name, a folder, a parquet file, or embedded (generated birds).")
    ] = "embedded",
    dataset_config_name: Annotated[
        str | None, typer.Option("--dataset_config_name", help="Configuration of a Hub data set.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="By default test, else validation, else the only one.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Images at a time.")] = 64,
    revision: Annotated[str, typer.Option("--revision", help="Of the checkpoint on the Hub.")] = "main",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run model code from the Hub.")
    ] = False,
    output: Annotated[str, typer.Option("--output", help="JSON file of all metrics.")] = "evaluation.json",
    **columns: Any,
):
    """Accuracy of one or more checkpoints in every group of a data set, side by side.

    \b
      clp-hf evaluate runs/waterbirds            on the generated birds' test split
      clp-hf evaluate runs/waterbirds/erm runs/waterbirds/clp runs/hsfm
      clp-hf evaluate runs/waterbirds --dataset_name path/to/folder
      clp-hf evaluate me/my-birds --dataset_name grodino/waterbirds --split test

    A checkpoint is what transformers or timm load as an image classifier, trained here or elsewhere. Groups are a
    column of the data set, or made of class and attribute; without them the table has a row for every class. F1,
    calibration and the rest are in the JSON file.

    Where the worst group is bad: clp-hf repair mends a checkpoint in seconds, clp-hf train waterbirds --dataset_name
    trains another one.
    """
    with user_errors():
        from .experiment.evaluation import evaluate_checkpoint, format_evaluations, write_evaluations

        evaluations = [
            evaluate_checkpoint(
                checkpoint,
                dataset_name,
                split=split,
                config_name=dataset_config_name,
                columns=Columns(**columns),
                batch_size=batch_size,
                revision=revision,
                trust_remote_code=trust_remote_code,
            )
            for checkpoint in checkpoints
        ]
        write_evaluations(evaluations, output)
        typer.echo(f"\n{evaluations[0].split} split of {dataset_name}, all metrics in {output}\n")
        typer.echo(format_evaluations(evaluations))


@app.command(short_help="One HTML page about runs.", no_args_is_help=True)
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Output folders of clp-hf train or repair.")],
    output: Annotated[str, typer.Option("--output", help="HTML file to write.")] = "report.html",
):
    """One HTML page about one or more runs: to open in a browser, to send, to keep.

    \b
      clp-hf report runs/waterbirds
      clp-hf report runs/waterbirds/erm runs/waterbirds/clp --output birds.html
    """
    with user_errors():
        from .report import write_report

        typer.echo(write_report(runs, output))


@app.command(short_help="Two checkpoints on your images, in a browser.")
def demo(
    erm: Annotated[
        str, typer.Option("--erm", envvar="CLP_HF_DEMO_ERM", help="Plain checkpoint, folder or Hub name.")
    ] = ("runs/waterbirds/erm"),
    clp: Annotated[str, typer.Option("--clp", envvar="CLP_HF_DEMO_CLP", help="CLP's checkpoint.")] = (
        "runs/waterbirds/clp"
    ),
    port: Annotated[int | None, typer.Option("--port", help="By default the first free one from 7860 on.")] = None,
):
    """A page in the browser: what ERM and CLP predict for your image, and where they look.

    \b
      clp-hf demo                                what train waterbirds --compare wrote
      clp-hf demo --erm runs/plain --clp me/my-birds

    Needs Gradio: pip install 'clp-hf[app]'. recipes/space in the repository is the same as a Space of the Hub.
    """
    with user_errors():
        from .visualization.demo import serve

        serve(erm, clp, port)


if __name__ == "__main__":
    app()
