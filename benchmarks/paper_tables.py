"""The tables of the CLP paper by number: the scenario, the rows, the columns and the settings of each.

A row is a method of `variants.VARIANTS`. A setting that the command line gives holds for the whole table: with
`--imbalance_ratio 100` Table 2 has no columns of 10:1, and with `--dataset_name` it is about those images.
"""

import importlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tables import cells_of, head_and_rows, left_out
from variants import VARIANTS

DATA = "dataset_name"
ACCURACY, ERROR = {"test": "test_accuracy"}, {"test error": "test_accuracy"}
PRECISION = {**ACCURACY, "test precision": "test_macro_precision"}
GROUPS = {"test average": "test_accuracy", "test worst group": "test_worst_group_accuracy"}
CIFAR = tuple({DATA: name} for name in ("uoft-cs/cifar10", "uoft-cs/cifar100"))
RATIOS = tuple({"imbalance_ratio": ratio} for ratio in (100.0, 10.0))
NOISE = tuple(
    {"noise": noise, "noise_rate": rate}
    for noise, rates in (("flip", (0.2, 0.4)), ("uniform", (0.4, 0.6)))
    for rate in rates
)
PROTOCOLS = tuple({"protocol": protocol} for protocol in ("clt", "glt", "alt"))


class PaperTable(NamedTuple):
    """A table of the paper.

    Attributes:
        scenario: a recipe.
        rows: what the paper calls a method -> what it is called here.
        columns: title -> metric, of every setting; what is called an error is one less it.
        axes: settings that the columns are of, by name; every combination of one of each.
    """

    scenario: str
    rows: Mapping[str, str]
    columns: Mapping[str, str]
    axes: tuple[tuple[Mapping[str, Any], ...], ...] = ()

    @property
    def methods(self) -> list[str]:
        """The rows that there are."""
        return [method for method in self.rows.values() if method in VARIANTS]

    @property
    def missing(self) -> dict[str, str]:
        """The rows that there are not."""
        return {row: method for row, method in self.rows.items() if method not in VARIANTS}

    def parts(self, scenario: str, given: Mapping[str, Any]) -> dict[str, list[str]]:
        """The comparisons that the table is made of: the folder of each, and its flags beside those of the command.

        Args:
            scenario: that is run, which need not be the table's own.
            given: by name, what the command line gives.
        """
        known = {item.name for item in fields(importlib.import_module(scenario).RecipeArguments)}
        known |= {DATA} if scenario == self.scenario else set()
        kept = [_left(axis, given) for axis in self.axes if set(axis[0]) <= known]
        found = {}
        for entries in itertools.product(*kept):
            settings = {name: value for entry in entries for name, value in entry.items()}
            flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
            found["_".join(_short(value) for value in settings.values())] = flags
        return found


def _left(axis: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the settings of an axis those that what is given leaves, without it."""
    fitting = [entry for entry in axis if all(given.get(name, value) == value for name, value in entry.items())]
    return [{name: value for name, value in entry.items() if name not in given} for entry in fitting] or [{}]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else Path(str(value)).name


TABLE_2 = {
    "Class-Balanced CE loss": "class_balanced", "Class-Balanced Fine-Tuning": "class_balanced_fine_tuning",
    "Meta-Weight-Net": "meta_weight_net", "Focal loss": "focal", "Class-Balanced Focal loss": "class_balanced_focal",
    "LDAM": "ldam", "LDAM-DRW": "ldam_drw", "ISDA": "isda", "LA": "logit_adjustment", "MetaSAug": "meta_saug",
    "ALA": "ala", "LPL": "lpl", "CSA": "csa", "Meta-LP": "meta_lp", "CLP": "clp",
}  # fmt: skip
TABLE_3 = {
    "CF(Grey)": "clp_cf_grey", "CF(Shuffle)": "clp_cf_shuffle", "CF(Tile)": "clp_cf_tile",
    "CF(CAGAN)": "clp_cf_inpaint", "F(Shuffle)": "clp_f_shuffle", "F(Random)": "clp_f_random",
    "F(Mix-Rand)": "clp_f_mix_rand", "F(FGSM)": "clp_f_fgsm", "CF(Tile)+F(Shuffle)": "clp_cf_tile_f_shuffle",
    "CF(CAGAN)+F(Random)": "clp_cf_inpaint_f_random",
}  # fmt: skip
TABLE_5 = {
    "CE loss": "erm", "Focal loss": "focal", "Co-Teaching": "co_teaching", "APL": "nce_rce",
    "MentorNet": "mentor_net", "L2RW": "l2rw", "GLC": "glc", "Meta-Weight-Net": "meta_weight_net", "L_DMI": "l_dmi",
    "JoCoR": "jocor", "ISDA": "isda", "MetaSAug": "meta_saug", "MFRW-MES": "mfrw_mes", "Meta-LP": "meta_lp",
    "CLP": "clp",
}  # fmt: skip
TABLE_6 = {
    "UW": "group_reweighting", "IRM": "irm", "IB-IRM": "ib_irm", "V-REx": "v_rex", "CORAL": "coral",
    "GroupDRO": "group_dro", "DomainMix": "domain_mix", "LISA": "lisa", "CnC": "cnc", "ACE": "ace", "PDE": "pde",
    "Meta-LP": "meta_lp", "CLP": "clp",
}  # fmt: skip
TABLE_7 = {
    "CE loss": "erm", "cRT": "crt", "LWS": "lws", "De-confound-TDE": "tde", "BLSoftmax": "balanced_softmax",
    "LA": "logit_adjustment", "LDAM": "ldam", "IFL": "ifl", "RandAug": "rand_augment", "ISDA": "isda",
    "RISDA": "risda", "MetaSAug": "meta_saug", "CSA": "csa", "Meta-LP": "meta_lp", "CLP": "clp",
}  # fmt: skip
TABLES = {
    2: PaperTable("cifar_longtail", TABLE_2, ERROR, (CIFAR, RATIOS)),
    3: PaperTable("cifar_longtail", TABLE_3, ERROR, (CIFAR, RATIOS)),
    5: PaperTable("cifar_noisy", TABLE_5, ACCURACY, (NOISE, CIFAR)),
    6: PaperTable("waterbirds", TABLE_6, GROUPS),
    7: PaperTable("imagenet_glt", TABLE_7, PRECISION, (PROTOCOLS,)),
    8: PaperTable("coco_glt", TABLE_7, PRECISION, (PROTOCOLS,)),
}


def joined(
    table: int, parts: Mapping[str, Sequence[Mapping[str, Any]]], without: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The table of all its settings side by side, as Markdown.

    Args:
        table: its number.
        parts: name of a setting -> the records of its runs.
        without: rows that frozen features are not enough for -> why.
    """
    wanted = TABLES[table]
    methods = list(dict.fromkeys(record["method"] for records in parts.values() for record in records))
    columns = {
        f"{name} {title}": cells_of(records, methods, title, key)
        for name, records in parts.items()
        for title, key in wanted.columns.items()
        if records and all(key in record["metrics"] for record in records)
    }
    rows = {method: row for row, method in wanted.rows.items()}
    names = [f"{method} ({rows[method]})" if method in rows else method for method in methods]
    notes = f" Not there: {', '.join(wanted.missing)}." if wanted.missing else ""
    notes += left_out(without)
    return (
        f"The methods and settings of the paper's Table {table}. Mean ± standard deviation over seeds, in percent; "
        f"**best** and <u>second best</u> mean.{notes} How each was run is in the folder of its setting.\n\n"
        + head_and_rows({"method": names, **columns})
    )
