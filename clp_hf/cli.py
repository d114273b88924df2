"""The `clp-hf` command: a front of recipes and functions of the package, which are imported when they are needed.

Its docstrings are its help; lines after a backspace are shown as they are.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Annotated, Any

import typer

from . import __version__
from .data.columns import Columns
from .experiment.launch import launch_recipe, recipes, run_here, user_errors

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# What follows is for the recipe, or for accelerate, and is not read here.
PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}

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
      clp-hf train waterbirds --help             all its options and their defaults
      clp-hf train settings.yaml                 everything from a file
      clp-hf train waterbirds --resume_from_checkpoint   go on where it stopped
      clp-hf train --num_processes 2 waterbirds  accelerate's options come first

    A settings file has the recipe's options as its keys, and says which recipe: `recipe: waterbirds`.

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


@app.command(
    short_help="Repair a trained classifier by its head.",
    context_settings=PASSED_ON,
    options_metavar="[--method METHOD]",
    no_args_is_help=True,
)
def repair(arguments: Annotated[list[str] | None, typer.Argument(metavar="OPTIONS", help="Of the method.")] = None):
    """Repair a trained or pretrained classifier by its final layer alone; the backbone stays as it is.

    \b
      clp-hf repair --model_name_or_path runs/waterbirds/erm
      clp-hf repair --method dfr --on meta --model_name_or_path runs/waterbirds/erm
      clp-hf repair --method hsfm --help         all options of a method

    Features are computed once and kept in --output_dir, by default runs/repair/ and the method; what follows takes
    seconds. The data are named as for clp-hf train. It prints the table of every group, before and after, and writes
    an ordinary checkpoint, its card and all_results.json.

    \b
    Methods (--method), and what each learns from beside the training images:
      clp    masks, or a few images of known group, or nothing: the more the better
      hsfm   the validation images that are hardest
      dfr    the group of every validation image (--on validation), or of the meta images (--on meta)
      gsr    the same; by the weights of the training images
      afr    the training images that the classifier is unsure of
    """
    with user_errors():
        launch_recipe(["repair", *(arguments or [])])


@app.command(context_settings=PASSED_ON, add_help_option=False, short_help="The same by HSFM: repair --method hsfm.")
def hsfm(arguments: Annotated[list[str] | None, typer.Argument()] = None):
    """Launch the recipe hsfm, whose help this is."""
    with user_errors():
        launch_recipe(["hsfm", *(arguments or [])])


@app.command(context_settings=PASSED_ON, add_help_option=False, short_help="Causal masks for images that have none.")
def masks(arguments: Annotated[list[str] | None, typer.Argument()] = None):
    """Run the recipe make_masks, whose help this is."""
    with user_errors():
        run_here("make_masks", arguments or [], "clp-hf masks")


def _with_column_flags(command: Callable, masks: bool = False) -> Callable:
    """Give a command an option for every field of `Columns`, with `masks` theirs too; it takes them as `**columns`."""
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
        if masks or not item.name.startswith(("mask", "box"))
        for once in [" Once for each." if item.name.endswith("names") else ""]
    ]
    command.__signature__ = signature.replace(parameters=[*own, *flags])
    command.__annotations__ |= {flag.name: flag.annotation for flag in flags}
    return command


@app.command(short_help="Accuracy of checkpoints in every group.", no_args_is_help=True)
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


@app.command(name="inspect", short_help="A data set before training: duplicates, shortcuts.", no_args_is_help=True)
@partial(_with_column_flags, masks=True)
def inspect_data(
    dataset: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder, a parquet file, a Hub name, or embedded (generated birds).")
    ],
    dataset_config_name: Annotated[
        str | None, typer.Option("--dataset_config_name", help="Configuration of a Hub data set.")
    ] = None,
    train_split: Annotated[
        str, typer.Option("--train_split", help="Name of the training split; of one split, any.")
    ] = "train",
    validation_split: Annotated[
        str | None, typer.Option("--validation_split", help="By default validation, val, valid or dev.")
    ] = None,
    test_split: Annotated[str | None, typer.Option("--test_split", help="By default test.")] = None,
    max_images: Annotated[
        int, typer.Option("--max_images", min=1, help="Training images that the shortcut audit looks at.")
    ] = 2000,
    max_opened: Annotated[
        int, typer.Option("--max_opened", min=1, help="Images of all splits that are opened.")
    ] = 20_000,
    model_name_or_path: Annotated[
        str, typer.Option("--model_name_or_path", help="Pretrained model that looks at the images.")
    ] = "tf_efficientnet_lite0",
    seed: Annotated[int, typer.Option("--seed", help="Of the images drawn, folds and intervals.")] = 0,
    output: Annotated[str, typer.Option("--output", help="HTML file to write.")] = "inspection.html",
    **columns: Any,
):
    """Look through a data set before anything is trained on it: a page of HTML, and the same in the terminal.

    \b
      clp-hf inspect path/to/folder
      clp-hf inspect birds.parquet --attribute_column place
      clp-hf inspect embedded                    the generated birds

    What was read and how; images that cannot be read, are odd, or are there twice, across splits above all; and the
    shortcut audit: how well the class is told by the background alone, by colour, brightness, the size of the object,
    the resolution, the file, and every other column, beside what the whole image tells, cross-validated on features
    of a pretrained model. It ends with the commands to run next. Of large data sets a part is looked at: --max_images.
    """
    with user_errors():
        from .inspection import format_inspection, inspect_dataset, write_page

        inspection = inspect_dataset(
            dataset,
            Columns(**columns),
            model=model_name_or_path,
            max_images=max_images,
            max_opened=max_opened,
            seed=seed,
            config_name=dataset_config_name,
            train_split=train_split,
            validation_split=validation_split,
            test_split=test_split,
            tell=partial(typer.echo, err=True),
        )
        typer.echo(format_inspection(inspection))
        typer.echo(f"\nWith pictures: {write_page(inspection, output)}")


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
