"""The report: what runs hold, as tables, pictures and one self-contained page of HTML."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from .. import __version__
from ..hub.record import RunRecord
from ..utils.text import one_line, one_line_each
from ..visualization.pictures import CURVES, GRAD_CAM_CAPTION, Picture, alt_text, run_pictures
from ..visualization.style import to_svg
from ..visualization.training import accuracies_figure, lines_figure, logged
from .run import Run, load_runs
from .table import Table

NONE = "–"
MOST_ROWS = 20  # of a picture of accuracies
LONGEST = 5000  # characters of a text: a command, a setting
SUMMARY = {
    "worst group": "worst_group_accuracy",
    "average": "accuracy",
    "adjusted average": "adjusted_accuracy",
    "balanced over classes": "balanced_accuracy",
    "worst class": "worst_class_accuracy",
    "classes of > 100 images": "many_shot_accuracy",
    "classes of 20 to 100": "medium_shot_accuracy",
    "classes of < 20": "few_shot_accuracy",
    "macro F1": "macro_f1",
    "calibration error": "ece",
    "Grad-CAM in the mask": "attribution_in_mask",
    "mask, share of the image": "mask_area",
}
LOSSES = {"cross_entropy": "ERM"}
METHODS = {
    "afr": "AFR", "clp-head": "CLP head", "dfr": "DFR", "group-dro-head": "GroupDRO of the head", "gsr": "GSR",
    "hsfm": "HSFM", "jtt": "JTT of the head", "meta-weight-net": "Meta-Weight-Net", "regression": "balanced regression"
}  # fmt: skip


def write_report(runs: Sequence[str | Path], output: str | Path) -> Path:
    """Write one HTML file about one run or several on the same data: nothing else is needed to read it, no network.

    It holds the results by group and class, training curves, what the perturbations did, Grad-CAM where the run was
    made with `attribution`, the settings, the command that made each run, and of several runs a comparison.

    Args:
        runs: folders that recipes wrote, or trainers: `save_model`, `save_state`, `save_metrics` and
            `create_model_card` make what is needed.
        output: the file; its folder is made.

    Returns:
        `output`.

    Raises:
        ValueError: no run, one twice, a folder that lacks a file (names it and what writes it), runs on different data
            sets (names both), or an `output` that is a folder.
        ImportError: matplotlib is missing; `clp_hf.report` says so when it is imported.
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{output} is a folder: name the file to write, such as {output / 'report.html'}.")
    loaded = load_runs(runs)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clp_hf.report", ""),
        autoescape=True,
        finalize=lambda value: one_line(value, LONGEST) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        title=_title(loaded),
        css=environment.loader.get_source(environment, "page.css")[0],
        data=_data_facts(loaded[0].record),
        grad_cam_caption=GRAD_CAM_CAPTION,
        masks=_masks(loaded[0].record),
        comparison=_comparison(loaded) if len(loaded) > 1 else None,
        runs=[_section(run, index) for index, run in enumerate(loaded)],
        version=__version__,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


# ---- what the data are -----------------------------------------------------------------------------------------------


def _title(runs: Sequence[Run]) -> str:
    data = one_line(runs[0].record.dataset or "image classifiers")
    return f"{data}: {runs[0].name}" if len(runs) == 1 else f"{data}: {len(runs)} runs compared"


def _data_facts(record: RunRecord) -> list[tuple[str, str]]:
    facts = [("Classes", _names(record.label_names))]
    if record.group_names:
        facts.append(("Groups", _names(record.group_names)))
    sizes = [f"{sum(counts.values()):,} {title}" for title, counts in record.images.items()]
    return [*facts, *([("Images", ", ".join(sizes))] if sizes else [])]


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(one_line, names[:20])) + (f" … ({len(names)} in all)" if len(names) > 20 else "")


def _masks(record: RunRecord) -> list[str]:
    """Who has no usable mask, split by split."""
    told = []
    for split, counts in record.masks.items():
        left_out = counts["empty"] + counts["full"]
        if left_out:
            more = " …" if left_out > len(counts["indices"]) else ""
            told.append(
                f"{split}: {left_out:,} of {counts['images']:,} images ({counts['empty']:,} where nothing was found, "
                f"{counts['full']:,} without background): {', '.join(map(str, counts['indices']))}{more}"
            )
    return told


# ---- a run -----------------------------------------------------------------------------------------------------------


def _section(run: Run, index: int) -> dict[str, Any]:
    record, selection = run.record, run.record.selection
    step = selection["step"] if selection["metric"] else None
    pictures = run_pictures(run.history, record.label_names, record.group_names, run.network, step)
    return {
        "id": f"run-{index + 1}",
        "name": run.name,
        "method": _method(record),
        "facts": _run_facts(run),
        "command": record.command,
        "tables": _tables(run),
        "curves": [_inlined(picture) for picture in pictures if picture.name in CURVES],
        "effects": [_inlined(picture) for picture in pictures if picture.name not in CURVES],
        "grad_cam": None if run.grad_cam is None else _data_uri(run.grad_cam.read_bytes(), "png"),
        "settings": _settings(record),
    }


def _method(record: RunRecord) -> str:
    facts = record.facts
    if record.method == "clp":
        return "CLP" if any(facts["infills"].values()) else "Meta-LP"
    if record.method != "plain-trainer":
        return METHODS.get(record.method, one_line(record.method))
    loss, sampling = facts["training_loss"], facts["train_sampling"]
    told = [LOSSES.get(loss, loss)]
    if sampling != "random":
        told.append(f"{sampling}-balanced sampling")
    if infills := facts.get("train_infills"):
        told.append(f"training images before other backgrounds ({', '.join(infills)})")
    return ", ".join(told)


def _run_facts(run: Run) -> list[tuple[str, str]]:
    record, facts, cost = run.record, run.record.facts, run.record.cost
    started = one_line(record.model or NONE)
    told = [("Method", _method(record)), ("Started from", started), ("Checkpoint", _selected(record))]
    if "meta_size" in facts:
        unusable = facts["meta_unmaskable"]
        without = f"; {unusable} of them without a usable mask, left out of the augmentation" if unusable else ""
        told.append(("Meta set", f"{facts['meta_size']} clean images, {facts['meta_source']}{without}"))
    parameters = f"{cost['parameters']:,} parameters"
    if "network_parameters" in facts:
        parameters += f", and {facts['network_parameters']:,} of the network that training alone uses"
    told.append(("Classifier", parameters))
    if run.runtime is not None:
        cpu = f", {cost['cpu_seconds']:,.0f} CPU seconds" if cost["cpu_seconds"] is not None else ""
        processes = f" × {cost['processes']} processes" if cost["processes"] > 1 else ""
        told.append(("Training", f"{run.runtime:,.0f} s{cpu}, on {cost['device']}{processes}, evaluations included"))
    return told


def _selected(record: RunRecord) -> str:
    facts, selection = record.facts, record.selection
    if "rule" in facts:
        tried = f"of {facts['trials']} setting{'s' if facts['trials'] > 1 else ''}"
        if "epochs" not in facts:
            return f"{tried} by {facts['rule']}"
        epochs = " and ".join(map(str, facts["epochs"]))
        return f"{tried} and their epochs by validation ({facts['rule']}), at epoch {epochs}"
    if selection["step"] is None:
        return "none: weights that were changed after the last step"
    if selection["step"] == 0:
        return "step 0: nothing was trained"
    if not selection["metric"]:
        return f"step {selection['step']} of {selection['max_steps']}, not selected"
    extreme = "highest" if selection["greater"] else "lowest"
    return (
        f"step {selection['step']} of {selection['max_steps']}, with the {extreme} validation {selection['metric']}, "
        f"{selection['value']:.3f}"
    )


def _tables(run: Run) -> list[Table]:
    """Accuracy by group and by class, and what sums them up."""
    columns = {f"{split}, before": metrics for split, metrics in run.before.items()} | run.results
    if not columns:
        return []
    tables = []
    for kind, names in (("group", run.record.group_names), ("class", run.record.label_names)):
        prefix = f"accuracy_{kind}_"
        names = [name for name in names or [] if any(prefix + name in metrics for metrics in columns.values())]
        if not names:
            continue
        images = {title: found for title, found in run.record.images.items() if set(names) <= set(found)}
        attributed = {
            f"{split} Grad-CAM in the mask": metrics
            for split, metrics in run.results.items()
            if any(f"attribution_in_mask_{kind}_{name}" in metrics for name in names)
        }
        table = Table(f"Accuracy by {kind}, %", [kind, *images, *columns, *attributed])
        for name in names:
            accuracies = [_percent(metrics.get(prefix + name)) for metrics in columns.values()]
            inside = [_percent(metrics.get(f"attribution_in_mask_{kind}_{name}")) for metrics in attributed.values()]
            table.add(name, [*(f"{found[name]:,}" for found in images.values()), *accuracies, *inside])
        tables.append(table)
    summary = Table("All images, %", ["measure", *columns])
    for title, key in _measures(columns, run.record.group_names).items():
        summary.add(title, [_percent(metrics.get(key)) for metrics in columns.values()])
    return [*tables, summary]


def _measures(columns: Mapping[str, Mapping[str, float]], group_names: Sequence[str] | None) -> dict[str, str]:
    """What is known in any column; without groups the worst group is the worst class."""
    return {
        title: key
        for title, key in SUMMARY.items()
        if any(key in metrics for metrics in columns.values()) and (group_names or key != "worst_group_accuracy")
    }


def _settings(record: RunRecord) -> list[Table]:
    """A plain trainer is not told of the settings of a method that it does not use."""
    settings = dict(record.settings)
    if record.method == "plain-trainer":
        settings["method"] = record.facts
    tables = []
    for title, values in settings.items():
        if values:
            tables.append(Table(title.capitalize(), ["setting", "value"], numbers=False))
            for name, value in values.items():
                tables[-1].add(name, [_plain(value)])
    return tables


# ---- several runs ----------------------------------------------------------------------------------------------------


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    split = "test" if all("test" in run.results for run in runs) else "validation"
    return {
        "tables": [_compared_results(runs), *_compared_cells(runs, split), _differences(runs)],
        "pictures": [_inlined(picture) for picture in _compared_pictures(runs, split)],
    }


def _compared_results(runs: Sequence[Run]) -> Table:
    worst = "worst_group_accuracy" if runs[0].record.group_names else "worst_class_accuracy"
    compared = {
        "test": (worst, "accuracy", "adjusted_accuracy", "attribution_in_mask"),
        "validation": (worst, "accuracy"),
    }
    keys = {
        f"{split} {title}": (split, key)
        for split, names in compared.items()
        for title, key in SUMMARY.items()
        if key in names and any(key in run.results.get(split, {}) for run in runs)
    }
    table = Table("Results of all runs, %", ["run", *keys, "training, s"])
    columns = [[run.results.get(split, {}).get(key) for run in runs] for split, key in keys.values()]
    marks = [_best(values) for values in columns]
    for row, run in enumerate(runs):
        texts = [_percent(values[row]) for values in columns]
        runtime = NONE if run.runtime is None else f"{run.runtime:,.0f}"
        title = f"{run.name} ({_method(run.record)})"
        table.add(title, [*texts, runtime], [*(found[row] for found in marks), False])
    return table


def _compared_cells(runs: Sequence[Run], split: str) -> list[Table]:
    found = [_cells(run, split) for run in runs]
    kind = "group" if runs[0].record.group_names else "class"
    names = list(dict.fromkeys(name for accuracies in found for name in accuracies))
    if not names:
        return []
    images = runs[0].record.images.get("train images", {})
    same = bool(images) and all(run.record.images.get("train images") == images for run in runs)
    table = Table(f"{split.capitalize()} accuracy by {kind}, %", [kind, *(["train images"] if same else [])])
    table.head += [run.name for run in runs]
    for name in names:
        values = [accuracies.get(name) for accuracies in found]
        counted = [f"{images.get(name, 0):,}"] if same else []
        table.add(name, [*counted, *map(_percent, values)], [*([False] * same), *_best(values)])
    return [table]


def _cells(run: Run, split: str) -> dict[str, float]:
    """Accuracy by group, by class without groups."""
    names, kind = (run.record.group_names, "group") if run.record.group_names else (run.record.label_names, "class")
    metrics = run.results.get(split, {})
    return {name: metrics[f"accuracy_{kind}_{name}"] for name in names if f"accuracy_{kind}_{name}" in metrics}


def _differences(runs: Sequence[Run]) -> Table:
    """Settings that are not the same for all runs that have them."""
    table = Table("Settings that differ", ["setting", *(run.name for run in runs)], numbers=False)
    for part in runs[0].record.settings:
        values = [run.record.settings[part] for run in runs]
        for name in dict.fromkeys(name for found in values for name in found):
            texts = [_setting(part, found, name) for found in values]
            if len(set(texts) - {None}) > 1:
                table.add(name, [text or NONE for text in texts])
    return table


def _setting(part: str, values: Mapping[str, Any], name: str) -> str | None:
    """As it is told; None for one that the run's method does not have (HSFM has no settings of a `Trainer`)."""
    if name in values:
        return _plain(values[name])
    if part == "method" or not values:
        return None
    return "default" if part == "training" else NONE  # defaults of a `Trainer` are not recorded


def _compared_pictures(runs: Sequence[Run], split: str) -> list[Picture]:
    pictures = []
    cells = {}
    for run in runs:
        found = _cells(run, split)
        cells[run.name] = {name: 100 * found[of] for of, name in zip(found, one_line_each(found), strict=True)}
    if any(cells.values()) and max(map(len, cells.values())) <= MOST_ROWS:
        kind = "group" if runs[0].record.group_names else "class"
        title = f"{split.capitalize()} accuracy by {kind}"
        told = "; ".join(
            f"{run}: {', '.join(f'{n} {v:.0f} %' for n, v in found.items())}" for run, found in cells.items()
        )
        caption = "A mark for every run; the line spans their range."
        figure = accuracies_figure({run: found for run, found in cells.items() if found}, f"{split} accuracy, %")
        pictures.append(Picture("accuracies", title, caption, f"{title}. {told}.", figure))
    worst = "worst group" if runs[0].record.group_names else "worst class"
    for key, title, label in (
        ("eval_worst_group_accuracy", f"Validation accuracy of the {worst}", f"{worst}, %"),
        ("eval_accuracy", "Average validation accuracy", "average, %"),
    ):
        series = {run.name: points for run in runs if len(points := logged([run.history], key, 100)) > 1}
        if series:
            caption = f"{title} while training went on."
            figure = lines_figure(series, label, order=[run.name for run in runs])
            pictures.append(Picture(key, title, caption, alt_text(title, series), figure))
    return pictures


# ---- texts and pictures ----------------------------------------------------------------------------------------------


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _best(values: Sequence[float | None]) -> list[bool]:
    """Which are the highest as they are printed; none where all are the same."""
    shown = [None if value is None else round(100 * value, 1) for value in values]
    known = [value for value in shown if value is not None]
    return [len(set(known)) > 1 and value == max(known) for value in shown]


def _plain(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return NONE
    if isinstance(value, dict):
        return ", ".join(f"{name} = {_plain(item)}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _inlined(picture: Picture) -> dict[str, str | None]:
    return {
        "title": picture.title,
        "caption": picture.caption,
        "alt": picture.alt,
        "wide": _svg_uri(picture.figure),
        "narrow": None if picture.narrow is None else _svg_uri(picture.narrow()),
    }


def _svg_uri(figure: Figure) -> str:
    return _data_uri(to_svg(figure).encode(), "svg+xml")


def _data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
