"""Arguments of recipes: which data, which model, and how they are read."""

import sys
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..data.columns import Columns
from ..segmentation.boxes import METHODS as BOX_METHODS
from .launch import SETTINGS_SUFFIXES
from .methods import METHODS


@dataclass
class DataArguments(Columns):
    """Which data, which of its columns, and what is taken out of it."""

    dataset_name: str = field(
        default="embedded", metadata={"help": "A Hub name, a folder, a parquet file, or `embedded` (generated birds)."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    image_size: int | None = field(default=None, metadata={"help": "Pixels; by default the size of the model."})
    crop_scale: float = field(default=0.7, metadata={"help": "Smallest share of the area that a random crop keeps."})
    crop_padding: int | None = field(
        default=None,
        metadata={"help": "Random crops of the image with a black margin of so many pixels, instead of crop_scale."},
    )
    validation_fraction: float = field(
        default=0.2,
        metadata={"help": "Share of the training split that is held out where there is no validation split."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on so many of the training images, drawn by the seed."}
    )
    meta_split: str = field(
        default="validation", metadata={"help": "Split the meta set is taken out of: validation or train."}
    )
    meta_images: int | None = field(
        default=None,
        metadata={"help": "Images of the meta set, as many of every group or class; by default meta_samples of each."},
    )
    meta_clusters: int | None = field(
        default=None,
        metadata={
            "help": "Take as many meta images of each of so many k-means clusters of every class (6 in the paper), "
            "instead of its groups."
        },
    )
    meta_cluster_model: str = field(
        default="timm/resnet50.tv_in1k",
        metadata={"help": "Pretrained model on whose features meta_clusters are found."},
    )
    meta_boxes: str | None = field(
        default=None,
        metadata={
            "help": "Boxes around the object for meta images that have neither mask nor box.",
            "choices": list(BOX_METHODS),
        },
    )


@dataclass
class ModelArguments:
    """Which model, and what is asked of it beside its accuracy."""

    model_name_or_path: str = field(
        default="tf_efficientnet_lite0", metadata={"help": "A Hub name, `timm/…`, a bare timm name, or a local folder."}
    )
    pretrained: bool = field(default=True, metadata={"help": "Start from pretrained weights, where there are any."})
    revision: str = field(default="main", metadata={"help": "Revision on the Hub."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    token: str | None = field(default=None, metadata={"help": "Hub token; by default the one of `hf auth login`."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code from the Hub."})
    freeze_batch_norm: bool = field(
        default=True,
        metadata={"help": "Keep the pretrained batch-norm statistics: batches are small and of one background mostly."},
    )
    attribution: bool = field(
        default=False,
        metadata={"help": "Evaluate how much of the model's Grad-CAM attribution lies inside the causal masks too."},
    )


@dataclass
class MethodArguments:
    """How to train; what every recipe asks, beside what is its own."""

    method: str = field(default="clp", metadata={"help": "How to train.", "choices": list(METHODS)})
    compare: bool = field(
        default=False, metadata={"help": "Train with ERM too, for comparison, each in its own sub-folder."}
    )


class _Help(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """The recipe's docstring as it is written, and every default."""


def parse_arguments(argument_classes: Sequence[type], description: str, defaults: Mapping[str, Any]) -> tuple:
    """Arguments from the command line, or from the one JSON or YAML file that is its only argument.

    Args:
        argument_classes: dataclasses.
        description: for `--help`.
        defaults: of the recipe, by name of the field, where they are not those of the dataclasses.

    Raises:
        ValueError: the file names another recipe than this one, or what is no argument or no value of one.
    """
    return read_arguments(argument_classes, description, defaults)[0]


def read_arguments(
    argument_classes: Sequence[type], description: str, defaults: Mapping[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """As `parse_arguments`, and by name those of the arguments that were given, and are not left to the defaults."""
    parser = HfArgumentParser(
        argument_classes, usage="%(prog)s [options]", description=description, formatter_class=_Help
    )  # the usage of all options would hide what is wrong with one
    parser.set_defaults(**defaults)
    if len(sys.argv) == 2 and sys.argv[1].endswith(SETTINGS_SUFFIXES):
        given = _read_settings(sys.argv[1], parser)
        return parser.parse_dict({**defaults, **given}), given
    parsed = parser.parse_args_into_dataclasses()
    for action in parser._actions:
        action.default = SUPPRESS
    parser._defaults.clear()
    return parsed, vars(parser.parse_known_args()[0])


def _read_settings(path: str, parser: HfArgumentParser) -> dict[str, Any]:
    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML
    this = Path(sys.argv[0]).stem.split()[-1]
    if (recipe := settings.pop("recipe", this)) != this:
        raise ValueError(f"{path!r} has the settings of the recipe {recipe!r}, and this is {this!r}.")
    # What the command line checks, and parse_dict does not.
    for action in parser._actions:
        value = settings.get(action.dest)
        if action.type is float and isinstance(value, str):  # YAML has no number 1e-3, only 1.0e-3
            try:
                settings[action.dest] = float(value)
            except ValueError:
                raise ValueError(f"{path!r}: {action.dest} is {value!r}, expected a number.") from None
        if action.choices and isinstance(value, str) and value not in action.choices:
            raise ValueError(f"{path!r}: {action.dest} is {value!r}, expected one of {', '.join(action.choices)}.")
    return settings
