"""The `clp-hf` command: a front of recipes and functions of the package, which are imported when they are needed.

Its docstrings are its help; lines after a backspace are shown as they are.
"""

import textwrap
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from . import __version__
from .data.columns import Columns
from .experiment.command_options import (
    DatasetPath,
    Features,
    GroupedCommand,
    ImageSize,
    Verbose,
    with_data_flags,
)
from .experiment.console import quiet
from .experiment.launch import command_of, launch_recipe, recipes, run_here, user_errors

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

    Then on your own data: clp-hf train classify --dataset_name path/to/folder. Every command explains itself:
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
      clp-hf train classify --dataset_name path/to/folder   on your own images
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


@app.command(cls=GroupedCommand, short_help="Accuracy of checkpoints in every group.", no_args_is_help=True)
@with_data_flags
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT", help="Folders or Hub names.")],
    dataset_name: Annotated[
        str, typer.Option("--dataset_name", help="A Hub name, a folder, a parquet file, or embedded (generated birds).")
    ] = "embedded",
    split: Annotated[
        str | None, typer.Option("--split", help="By default test, else validation, else the only one.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Images at a time.")] = 64,
    revision: Annotated[str, typer.Option("--revision", help="Of the checkpoint on the Hub.")] = "main",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run model code from the Hub.")
    ] = False,
    output: Annotated[str, typer.Option("--output", help="JSON file of all metrics.")] = "evaluation.json",
    verbose: Verbose = False,
    *,
    columns: Columns,
    reading: dict[str, str | None],
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

    Where the worst group is bad: clp-hf repair mends a checkpoint in seconds, clp-hf train classify --dataset_name
    trains another one.
    """
    with user_errors(), quiet(verbose):
        from .experiment.evaluation import evaluate_checkpoint, format_evaluations, write_evaluations

        evaluations = [
            evaluate_checkpoint(
                checkpoint,
                dataset_name,
                split=split,
                config_name=reading["config_name"],
                columns=columns,
                batch_size=batch_size,
                dataset_revision=reading["revision"],
                revision=revision,
                token=reading["token"],
                trust_remote_code=trust_remote_code,
            )
            for checkpoint in checkpoints
        ]
        write_evaluations(evaluations, output)
        typer.echo(f"\n{evaluations[0].split} split of {dataset_name}, all metrics in {output}\n")
        typer.echo(format_evaluations(evaluations))


@app.command(short_help="Groups inside classes, where none are known.", no_args_is_help=True)
@partial(with_data_flags, ignored=())
def groups(
    data: DatasetPath,
    output_dir: Annotated[
        str | None, typer.Option("--output_dir", help="Folder of the new data set; by default the name with -groups.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="background, errors (of a head), or discover, which chooses.")
    ] = "discover",
    groups_per_class: Annotated[
        int | None, typer.Option("--groups_per_class", help="By default the number of the best silhouette.")
    ] = None,
    model_name_or_path: Features = "tf_efficientnet_lite0",
    image_size: ImageSize = 96,
    seed: Annotated[int, typer.Option("--seed", help="Of folds and k-means.")] = 0,
    verbose: Verbose = False,
    *,
    columns: Columns,
    reading: dict[str, str | None],
):
    """Find groups inside the classes of a data set, and write it with a column of them, which any recipe reads.

    \b
      clp-hf groups path/to/images
      clp-hf train waterbirds --dataset_name path/to/images-groups

    Groups are told by what the background alone says of the class: of masks where there are any, else of the rim of
    the image. Where that says little, by the classes that a cross-validated classifier takes images for. groups.html in
    the new folder shows images of every group. clp-hf train … --groups discover is the same inside a recipe.
    """
    with user_errors(), quiet(verbose):
        from .discovery.command import write_groups

        report = write_groups(
            data,
            output_dir,
            by=by,
            per_class=groups_per_class,
            model_name_or_path=model_name_or_path,
            image_size=image_size,
            columns=columns,
            seed=seed,
            **reading,
        )
        typer.echo(f"\n{report}\n\n{report.next}")


@app.command(short_help="Labels that are probably wrong.", no_args_is_help=True)
@partial(with_data_flags, ignored=("group", "attribute"))
def labels(
    data: DatasetPath,
    output: Annotated[str, typer.Option("--output", help="CSV file; a page of the same name shows the images.")] = (
        "suspect_labels.csv"
    ),
    model_name_or_path: Features = "tf_efficientnet_lite0",
    image_size: ImageSize = 96,
    seed: Annotated[int, typer.Option("--seed", help="Of the folds.")] = 0,
    verbose: Verbose = False,
    *,
    columns: Columns,
    reading: dict[str, str | None],
):
    """List the labels that are probably wrong, the most suspect first, each with the class that it should be.

    \b
      clp-hf labels path/to/images
      clp-hf labels path/to/images --output birds.csv     and birds.html

    Judged by classifiers that have not seen the image. An image that looks wrong only for its background is not listed,
    but shown on the page as rare. With masks (clp-hf masks makes them) fewer of these are taken for errors.
    """
    with user_errors(), quiet(verbose):
        from .suspect_labels.command import write_suspect_labels

        report = write_suspect_labels(
            data,
            output,
            model_name_or_path=model_name_or_path,
            image_size=image_size,
            columns=replace(columns, group_column="none", attribute_column="none"),
            seed=seed,
            **reading,
        )
        typer.echo(f"\n{report}")


@app.command(name="inspect", short_help="A data set before training: duplicates, shortcuts.", no_args_is_help=True)
@partial(with_data_flags, ignored=())
def inspect_data(
    data: DatasetPath,
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
    model_name_or_path: Features = "tf_efficientnet_lite0",
    seed: Annotated[int, typer.Option("--seed", help="Of the images drawn, folds and intervals.")] = 0,
    output: Annotated[str, typer.Option("--output", help="HTML file to write.")] = "inspection.html",
    verbose: Verbose = False,
    *,
    columns: Columns,
    reading: dict[str, str | None],
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
    with user_errors(), quiet(verbose):
        from .inspection import format_inspection, inspect_dataset, write_page

        inspection = inspect_dataset(
            data,
            columns,
            model=model_name_or_path,
            max_images=max_images,
            max_opened=max_opened,
            seed=seed,
            train_split=train_split,
            validation_split=validation_split,
            test_split=test_split,
            **reading,
            tell=partial(typer.echo, err=True),
        )
        typer.echo(format_inspection(inspection))
        typer.echo(f"\nWith pictures: {write_page(inspection, output)}")


@app.command(short_help="One HTML page about runs.", no_args_is_help=True)
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Output folders of clp-hf train or repair, or folders around them."),
    ],
    output: Annotated[str, typer.Option("--output", help="HTML file to write.")] = "report.html",
    verbose: Verbose = False,
):
    """One HTML page about one or more runs: to open in a browser, to send, to keep.

    \b
      clp-hf report runs/waterbirds              every run in it, seeds too
      clp-hf report runs/waterbirds/erm runs/waterbirds/clp --output birds.html

    It has the accuracy of every group with its 95 % interval, F1, AUROC, the worst images of every group and where the
    classifier looks on them. Of several runs it has the differences on the same images; runs that differ by the seed
    alone are one row. Runs that died are named with the reason.
    """
    with user_errors(), quiet(verbose):
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
    verbose: Verbose = False,
):
    """A page in the browser: what ERM and CLP predict for your image, and where they look.

    \b
      clp-hf demo                                what train waterbirds --compare wrote
      clp-hf demo --erm runs/plain --clp me/my-birds

    Needs Gradio: pip install "clp-hf[app]". recipes/space in the repository is the same as a Space of the Hub.
    """
    with user_errors(), quiet(verbose):
        from .visualization.demo import serve

        serve(erm, clp, port)
