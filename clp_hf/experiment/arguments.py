"""Arguments of recipes: which data, which model, and how they are read."""

import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..data.columns import Columns
from ..discovery.ways import WAYS
from ..utils.names import did_you_mean
from .console import ConsoleArguments
from .help import HelpShown, asked_for, show
from .methods import METHODS, STAGED
from .parser import OptionParser
from .presets import By, settled
from .processes import train_together
from .settings import read_settings, without_settings
from .values import setting_value
from .words import OTHER_VALUES

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass
class DataArguments(Columns):
    """Which data, which of its columns, and what is taken out of it."""

    dataset_name: str = field(
        default="embedded", metadata={"help": "A Hub name, a folder, a parquet file, or `embedded` (generated birds)."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Revision of a Hub data set; by default that of the model, --revision."}
    )
    train_split: str = field(default="train", metadata={"help": "Name of the training split; of one split, any."})
    validation_split: str | None = field(
        default=None, metadata={"help": "Name of the validation split; by default validation, val, valid or dev."}
    )
    test_split: str | None = field(default=None, metadata={"help": "Name of the test split; by default test."})
    groups: str | None = field(
        default=None,
        metadata={
            "help": "Find groups inside the classes before training, and go by these: by what the background says of "
            "the class, by what a head takes an image for (errors), or discover, which chooses.",
            "choices": list(WAYS),
        },
    )
    groups_per_class: int | None = field(
        default=None, metadata={"help": "How many to find; by default the number of the best silhouette."}
    )
    image_size: int | None = field(default=None, metadata={"help": "Pixels; by default the size of the model."})
    crop_scale: float = field(default=0.7, metadata={"help": "Smallest share of the area that a random crop keeps."})
    crop_padding: int | None = field(
        default=None,
        metadata={"help": "Random crops of the image with a black margin of so many pixels, instead of crop_scale."},
    )
    rand_augment: bool = field(
        default=False,
        metadata={
            "help": "RandAugment before the random crop of training images, not of the meta set: two operations."
        },
    )
    validation_fraction: float = field(
        default=0.2,
        metadata={
            "help": "Share of the training split that is held out where there is no validation split. 0: nothing is, "
            "and the test split is validated on."
        },
    )
    validation_images: int = field(
        default=0,
        metadata={
            "help": "At least so many images of every group or class are then held out, as far as two fifths go."
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on so many of the training images, drawn by the seed."}
    )
    meta_split: str = field(
        default="validation",
        metadata={"help": "Split the meta set is taken out of: validation or train; none leaves both whole."},
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
            "help": "Boxes around the object for meta images that have neither mask nor box: centre (the middle of the "
            "image), grabcut, or by a segmentation model of transformers, a Hub name or a folder. Their masks are kept "
            "in the cache, and made once."
        },
    )
    train_boxes: str | None = field(
        default=None,
        metadata={
            "help": "The same for training images, which then have saliency and train_infills too, and are donors of "
            "backgrounds."
        },
    )


@dataclass
class ModelArguments:
    """Which model, and what is asked of it beside its accuracy."""

    model_name_or_path: str = field(
        default="tf_efficientnet_lite0", metadata={"help": "A Hub name, `timm/…`, a bare timm name, or a local folder."}
    )
    pretrained: bool = field(default=True, metadata={"help": "Start from pretrained weights, where there are any."})
    revision: str = field(default="main", metadata={"help": "Revision on the Hub, of model and data set."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    token: str | None = field(
        default=None, metadata={"help": "Hub token, for model and data set; by default the one of `hf auth login`."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code from the Hub."})
    freeze_batch_norm: bool = field(
        default=True,
        metadata={"help": "Keep the pretrained batch-norm statistics: batches are small and of one background mostly."},
    )
    attribution: bool = field(
        default=False,
        metadata={"help": "Evaluate how much of the model's Grad-CAM attribution lies inside the causal masks too."},
    )


def data_hub_kwargs(data: DataArguments, model: ModelArguments) -> dict[str, Any]:
    """How the data set is fetched, for `read_splits` and `load_classification_dataset`."""
    return {
        "config_name": data.dataset_config_name,
        "cache_dir": model.cache_dir,
        "token": model.token,
        "revision": data.dataset_revision or model.revision,
    }


@dataclass
class RunArguments(ConsoleArguments):
    """What every run is asked, whether it trains a classifier or repairs one."""

    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Remove the run that lies in output_dir; one of another method is else refused."},
    )


@dataclass
class MethodArguments(RunArguments):
    """How to train; what every recipe asks, beside what is its own."""

    method: str = field(default="clp", metadata={"help": "How to train.", "choices": [*METHODS, *STAGED]})
    preset: str | None = field(
        default=None,
        metadata={"help": "Settings in place of the defaults; flags go before them. paper: the CLP paper's own."},
    )
    stage_options: dict | str | None = field(
        default=None,
        metadata={
            "help": "Settings of a method of two stages in place of the published ones, as JSON: first_share, of the "
            'training, that the first is stopped after, and those of what is learned between: {"upweight": 20}.'
        },
    )
    compare: bool = field(
        default=False, metadata={"help": "Train with ERM too, for comparison, each in its own sub-folder."}
    )


def parse_arguments(
    argument_classes: Sequence[type],
    description: str,
    defaults: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple:
    """Arguments from the command line, and from the JSON or YAML file that it names: flags go before the file.

    Args:
        argument_classes: dataclasses.
        description: for `--help`.
        defaults: of the recipe, by name of the field, where they are not those of the dataclasses.
        presets: what each value of `preset`, an argument then, puts in the place of defaults.

    Raises:
        ValueError: the file names another recipe than this one, or flag or file what is no argument or no value of one;
            or there is no such preset.
        HelpShown: help was asked for, and printed.
    """
    return read_arguments(argument_classes, description, defaults, presets)[0]


def read_arguments(
    argument_classes: Sequence[type],
    description: str,
    defaults: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    unused: Mapping[str, str] = NOTHING,
) -> tuple[tuple, dict[str, Any]]:
    """As `parse_arguments`, and by name those of the arguments that were given, and are not left to the defaults.

    Args:
        argument_classes, description, defaults, presets: as there.
        unused: fields that are not asked for, and are refused where they are given, by what is said then.
    """
    train_together()
    parser = OptionParser(argument_classes, description, defaults, set(unused))
    words = sys.argv[1:]
    if asked_for(words):
        if presets:
            preset = _preset(chosen("preset", None, None), presets)
            options = {by.option: parser.actions[by.option] for by in preset.values() if isinstance(by, By)}
            known = {name: chosen(name, action.choices, action.default) for name, action in options.items()}
            parser.set_defaults(**settled(preset, known))
        page = parser.page()
        show(page, words)
        raise HelpShown(page)
    path, words = without_settings(words)
    in_file = _read_settings(path, parser) if path else {}
    for name in in_file:
        parser.actions[name].required = False
    parser.set_defaults(**in_file)
    found, unknown = parser.parse_known_args(words)
    parser.refuse_unknown(unknown)
    if presets:
        parser.set_defaults(**{**settled(_preset(found.preset, presets), vars(found)), **in_file})
    parsed = parser.parse_args_into_dataclasses(words)
    for action in parser._actions:
        action.default = SUPPRESS
    parser._defaults.clear()
    given = in_file | vars(parser.parse_known_args(words)[0])
    for name in unused:
        if name in given:
            raise ValueError(f"--{name} {given[name]} was given, but {unused[name]}")
    return parsed, given


def chosen(name: str, names: Sequence[str] | None, default: str | None) -> str | None:
    """The value of an argument that says which the other arguments are, read before them.

    Args:
        name: of the argument.
        names: that it may have; None for any.
        default: where it is not given.

    Raises:
        ValueError: it is none of these.
    """
    path, words = without_settings(sys.argv[1:])
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", default=read_settings(path).get(name, default) if path else default)
    value = getattr(parser.parse_known_args(words)[0], name)
    if names is not None and value not in names:
        meant = OTHER_VALUES.get(name, {}).get(str(value).lower(), value)
        raise ValueError(f"There is no {name} {value!r}.{did_you_mean(meant, names)} Choose: {', '.join(names)}.")
    return value


def _preset(name: str | None, presets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if name is not None and name not in presets:
        raise ValueError(
            f"There is no preset {name!r}.{did_you_mean(name, presets)} Presets of this recipe: {', '.join(presets)}."
        )
    return {} if name is None else presets[name]


def _read_settings(path: str, parser: OptionParser) -> dict[str, Any]:
    """The settings of a file by name, as flags would give them."""
    settings = read_settings(path)
    this = Path(sys.argv[0]).stem.split()[-1]
    if (recipe := settings.pop("recipe", this)) != this:
        raise ValueError(f"{path!r} has the settings of the recipe {recipe!r}, and this is {this!r}.")
    for name, value in settings.items():
        if name not in parser.hints:
            nested = " Settings are not nested." if isinstance(value, dict) else ""
            raise ValueError(f"{path!r}: {name!r} is no option of {this}.{parser.advice(name)}{nested}")
        if name == "resume_from_checkpoint" and isinstance(value, bool):
            value = str(value).lower()
        try:
            settings[name] = setting_value(value, parser.hints[name], parser.actions[name])
        except ValueError as error:
            told = "null" if value is None else repr(value)
            raise ValueError(f"{path!r}: {name} is {told}, {error}.{parser.value_advice(name, value)}") from None
    return settings
