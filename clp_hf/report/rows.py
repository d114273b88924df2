"""Rows of a report: runs that differ by the seed alone are one."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from .bootstrap import Interval, intervals
from .run import Run, data_of
from .scores import Scores

SEEDS = ("seed", "data_seed")  # settings by which the draws differ, and nothing else
NONE = "–"


@dataclass
class Row:
    """One run, or several with the same settings and different seeds.

    Attributes:
        name: what the report calls it.
        runs: in the order of their seeds.
    """

    name: str
    runs: list[Run]

    @property
    def first(self) -> Run:
        """The run whose pictures and command stand for all."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int | None]:
        """In the order of `runs`."""
        return [run.seed for run in self.runs]

    @property
    def title(self) -> str:
        """The name, with the number of seeds where there are several."""
        return self.name if len(self.runs) == 1 else f"{self.name} ({len(self.runs)} seeds)"

    def splits(self) -> list[str]:
        """Those that all its runs were evaluated on."""
        return [split for split in self.first.results if all(split in run.results for run in self.runs)]

    def values(self, split: str, key: str) -> list[float]:
        """A metric of every run that has it, in [0, 1]."""
        metrics = [run.results.get(split, {}) for run in self.runs]
        return [found[key] for found in metrics if key in found]

    def mean(self, split: str, key: str) -> float | None:
        """The mean over the seeds; None where no run has it."""
        found = self.values(split, key)
        return statistics.fmean(found) if found else None

    def text(self, split: str, key: str) -> str:
        """The mean in percent, and of several seeds ± the standard deviation of one (n - 1)."""
        return percent(self.values(split, key))

    def scores(self, split: str) -> list[Scores] | None:
        """Of every run, on a split; None where one has no predictions of it."""
        known = all(run.predictions is not None and run.predictions.split == split for run in self.runs)
        return [run.scores for run in self.runs] if known else None

    @cached_property
    def _intervals(self) -> dict[str, dict[str, Interval]]:
        found: dict[str, dict[str, Interval]] = {}
        for split in self.splits():
            if (scores := self.scores(split)) is not None:
                found[split] = dict(zip(measure_keys(self.first, scores), intervals(scores), strict=True))
        return found

    def interval(self, split: str, key: str) -> Interval | None:
        """Of 95 %, of an accuracy by the name of its metric; None where there is none."""
        return self._intervals.get(split, {}).get(key)


def measure_keys(run: Run, scores: Sequence[Scores]) -> list[str]:
    """The names of the metrics that a bootstrap of accuracies gives, in its order."""
    record = run.record
    kind, names = ("group", record.group_names) if record.group_names else ("class", record.label_names)
    cells = sorted({int(cell) for found in scores for cell in found.cells})
    return [*(f"accuracy_{kind}_{names[cell]}" for cell in cells), f"worst_{kind}_accuracy", "accuracy"]


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """The runs as rows, in the order of the first of each."""
    bundles: list[tuple[str, list[Run]]] = []
    for run in runs:
        key = _but_for_the_seed(run)
        # A run that is there twice, with its seed, is no other seed: it begins a row of its own.
        fitting = (found for of, found in bundles if of == key and run.seed not in [other.seed for other in found])
        bundle = next(fitting, None) if run.seed is not None else None
        if bundle is None:
            bundles.append((key, [run]))
        else:
            bundle.append(run)
    for _, bundle in bundles:
        bundle.sort(key=lambda run: run.seed if run.seed is not None else -1)
    names = [_common_name([run.name for run in bundle]) for _, bundle in bundles]
    return [
        Row(name if name and names.count(name) == 1 else bundle[0].name, bundle)
        for name, (_, bundle) in zip(names, bundles, strict=True)
    ]


def percent(values: Sequence[float]) -> str:
    """The mean of values in [0, 1], in percent, and of several ± their standard deviation."""
    if not values:
        return NONE
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def _but_for_the_seed(run: Run) -> str:
    """What runs of one row have in common: data, method and every setting but the seeds."""
    record = run.record
    settings = {
        part: {name: _without_seed(value, run.seed) for name, value in found.items() if name not in SEEDS}
        for part, found in record.settings.items()
    }
    model = _without_seed(record.model, run.seed)
    return json.dumps([data_of(run), record.method, model, settings], sort_keys=True, default=str)


def _without_seed(value: Any, seed: int | None) -> Any:
    """A path that names the seed, without its number: the repair of seed 1 is of the model in `…/seed1` or `…/1`."""
    if not isinstance(value, str):
        return value
    return re.sub(
        rf"(?<![^/]){seed}(?![^/])|(seed|(?<![a-z0-9])s)[-_=]?{seed}(?!\d)", "seed", value, flags=re.IGNORECASE
    )


def _common_name(names: Sequence[str]) -> str:
    """`erm` of `seed0/erm` and `seed1/erm`, of `erm/0` and `erm/1`, of `erm-s0` and `erm-s1`; empty of none such."""
    parts = [name.split("/") for name in names]
    if len({len(found) for found in parts}) > 1:
        return ""
    same = [found[0] for found in zip(*parts, strict=True) if len(set(found)) == 1]
    if same:
        return "/".join(same)
    shared = "".join(letters[0] for letters in takewhile(lambda found: len(set(found)) == 1, zip(*names, strict=False)))
    return re.sub(r"[-_=.]?(seed|s)?[-_=.]?$", "", shared)
