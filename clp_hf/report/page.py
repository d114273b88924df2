"""The report: what runs hold, as tables, pictures and one self-contained page of HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from transformers.utils import logging

from ..hub.record import RunRecord
from ..utils.page import data_uri, render_page
from ..utils.text import one_line
from ..visualization.pictures import CURVES, GRAD_CAM_CAPTION, Picture, run_pictures
from ..visualization.style import to_svg
from .comparison import SUMMARY, Comparison, compare, interval_text, plain
from .gallery import Tile, cells_without_pictures, gallery
from .methods import method_of, selected
from .rows import NONE, Row, percent, rows_of
from .run import data_of, load_runs, told_data
from .table import Cell, Table

logger = logging.get_logger(__name__)

Columns = Mapping[str, Sequence[Mapping[str, float]]]  # title -> the metrics of every run of a row


def write_report(runs: Sequence[str | Path], output: str | Path) -> Path:
    """Write one HTML file about one run or several: nothing else is needed to read it, no network.

    It holds the results by group and class with their bootstrap intervals, the worst images of every group with
    Grad-CAM, training curves, what the perturbations did, the settings, and the command that made each run. Of several
    runs on the same data it holds a comparison too, with the differences on the same images; runs that differ by the
    seed alone are one row there. Runs that died, or whose files are damaged, are named with the reason.

    Args:
        runs: folders that recipes wrote, or trainers, or folders around these: `save_model`, `save_state`,
            `save_metrics` and `create_model_card` make what is needed.
        output: the file; its folder is made.

    Returns:
        `output`.

    Raises:
        ValueError: no run, one twice, none that is complete (names the file that is missing or damaged and what writes
            it), or an `output` that is a folder.
        ImportError: matplotlib, grad-cam or torchmetrics is missing; `clp_hf.report` says so when it is imported.
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{output} is a folder: name the file to write, such as {output / 'report.html'}.")
    loaded, left_out = load_runs(runs)
    for run in left_out:
        logger.warning(f"{run.name} is left out of the report: {run.reason}")
    rows = rows_of(loaded)
    by_data: dict[tuple, list[Row]] = {}
    for row in rows:
        by_data.setdefault(data_of(row.first), []).append(row)
    page = render_page(
        Path(__file__).with_name("report.html"),
        title=_title(rows),
        data=[_data_facts(same[0].first.record, len(by_data) > 1) for same in by_data.values()],
        grad_cam_caption=GRAD_CAM_CAPTION,
        masks=[line for same in by_data.values() for line in _masks(same[0].first.record)],
        left_out=left_out,
        apart=[told_data(same[0].first) for same in by_data.values()] if len(by_data) > 1 else [],
        comparisons=[_comparison(compare(same)) for same in by_data.values() if len(same) > 1],
        runs=[_section(row, index, rows) for index, row in enumerate(rows)],
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


# ---- what the data are -----------------------------------------------------------------------------------------------


def _title(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(one_line(row.first.record.dataset or "image classifiers") for row in rows))
    data = " and ".join(names) if len(names) < 3 else f"{len(names)} data sets"
    number = sum(len(row.runs) for row in rows)
    if len(rows) == 1:
        return f"{data}: {rows[0].title}"
    return f"{data}: {number} runs" + (" compared" if len(names) == 1 else "")


def _data_facts(record: RunRecord, of_several: bool) -> list[tuple[str, str]]:
    facts = [("Data", record.dataset or "unnamed")] if of_several else []
    facts.append(("Classes", _names(record.label_names)))
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


# ---- a row -----------------------------------------------------------------------------------------------------------


def _section(row: Row, index: int, rows: Sequence[Row]) -> dict[str, Any]:
    run, record, selection = row.first, row.first.record, row.first.record.selection
    step = selection["step"] if selection["metric"] else None
    pictures = run_pictures(run.history, record.label_names, record.group_names, run.network, step)
    walls = gallery(row, rows)
    return {
        "id": f"run-{index + 1}",
        "name": row.title,
        "of_first": f"Pictures, images and command are of seed {run.seed}, {run.name}." if len(row.runs) > 1 else None,
        "facts": _run_facts(row),
        "lacks": [f"{one.name}: {line}" for one in row.runs for line in one.lacks],
        "command": record.command,
        "tables": _tables(row),
        "walls": [{"title": of.title, "told": of.told, "tiles": list(map(_tile, of.tiles))} for of in walls],
        "walls_of": run.predictions.split if walls else None,
        "without_wall": cells_without_pictures(row) if walls else 0,
        "curves": [_inlined(picture) for picture in pictures if picture.name in CURVES],
        "effects": [_inlined(picture) for picture in pictures if picture.name not in CURVES],
        "grad_cam": None if run.grad_cam is None else data_uri(run.grad_cam.read_bytes(), "png"),
        "settings": _settings(record),
    }


def _run_facts(row: Row) -> list[tuple[str, str]]:
    record, facts, cost = row.first.record, row.first.record.facts, row.first.record.cost
    started = one_line(record.model or NONE)
    told = [("Method", method_of(record)), ("Started from", started)]
    if len(row.runs) == 1:
        told.append(("Checkpoint", selected(record)))
    else:
        told.append(("Seeds", ", ".join(map(str, row.seeds))))
        told += [(f"Checkpoint, seed {run.seed}", selected(run.record)) for run in row.runs]
    if "meta_size" in facts:
        unusable = facts["meta_unmaskable"]
        without = f"; {unusable} of them without a usable mask, left out of the augmentation" if unusable else ""
        told.append(("Meta set", f"{facts['meta_size']} clean images, {facts['meta_source']}{without}"))
    parameters = f"{cost['parameters']:,} parameters"
    if facts.get("network_parameters"):
        parameters += f", and {facts['network_parameters']:,} of the network that training alone uses"
    told.append(("Classifier", parameters))
    runtimes = [run.runtime for run in row.runs if run.runtime is not None]
    if runtimes:
        cpu = f", {cost['cpu_seconds']:,.0f} CPU seconds" if cost["cpu_seconds"] is not None else ""
        processes = f" × {cost['processes']} processes" if cost["processes"] > 1 else ""
        told.append(
            (
                "Training",
                f"{sum(runtimes) / len(runtimes):,.0f} s{cpu}, on {cost['device']}{processes}, evaluations included",
            )
        )
    return told


def _tables(row: Row) -> list[Table]:
    """Accuracy by group and by class with intervals, and what sums them up."""
    record = row.first.record
    columns = {f"{split}, before": [run.before.get(split, {}) for run in row.runs] for split in row.first.before}
    columns |= {split: [run.results[split] for run in row.runs] for split in row.splits()}
    if not columns:
        return []
    tables = [
        table
        for kind, names in (("group", record.group_names), ("class", record.label_names))
        if (table := _by_cell(row, kind, names or [], columns)) is not None
    ]
    summary = Table("All images, %", ["measure", *columns])
    for title, measure in SUMMARY.items():
        known = any(_values(runs, measure) for runs in columns.values())
        if known and (record.group_names or measure != "worst_group_accuracy"):  # that is the worst class there
            notes = [interval_text(row.interval(split, measure)) for split in columns]
            texts = [percent(_values(runs, measure)) for runs in columns.values()]
            summary.add_cells(title, [Cell(text, note=note) for text, note in zip(texts, notes, strict=True)])
    return [*tables, summary]


def _by_cell(row: Row, kind: str, names: Sequence[str], columns: Columns) -> Table | None:
    key = f"accuracy_{kind}_"
    names = [name for name in names if any(_values(runs, key + name) for runs in columns.values())]
    if not names:
        return None
    images = {title: found for title, found in row.first.record.images.items() if set(names) <= set(found)}
    shown = {title: [percent(_values(runs, key + name)) for name in names] for title, runs in columns.items()}
    for split in row.splits():
        shown[f"{split}, 95 % interval"] = [interval_text(row.interval(split, key + name)) or NONE for name in names]
        for title, start in (("F1", f"f1_{kind}_"), ("Grad-CAM in the mask", f"attribution_in_mask_{kind}_")):
            shown[f"{split} {title}"] = [row.text(split, start + name) for name in names]
    shown = {title: texts for title, texts in shown.items() if title in columns or set(texts) != {NONE}}
    table = Table(f"Accuracy by {kind}, %", [kind, *images, *shown])
    for name, *texts in zip(names, *shown.values(), strict=True):
        table.add(name, [*(f"{found[name]:,}" for found in images.values()), *texts])
    return table


def _values(runs: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [metrics[key] for metrics in runs if key in metrics]


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
                tables[-1].add(name, [plain(value)])
    return tables


# ---- several rows ----------------------------------------------------------------------------------------------------


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "data": found.data,
        "kept": found.kept,
        "tables": found.tables,
        "notes": found.notes,
        "pictures": [_inlined(picture) for picture in found.pictures],
    }


# ---- pictures --------------------------------------------------------------------------------------------------------


def _tile(tile: Tile) -> dict[str, Any]:
    pictures = [(f"{tile.name}, as the model sees it", tile.picture.image)]
    if tile.picture.grad_cam is not None:
        pictures.append((f"Grad-CAM of the predicted class over {tile.name}", tile.picture.grad_cam))
    images = [{"src": data_uri(content, "jpeg"), "alt": alt} for alt, content in pictures]
    return {"name": tile.name, "said": tile.said, "images": images}


def _inlined(picture: Picture) -> dict[str, str | None]:
    return {
        "title": picture.title,
        "caption": picture.caption,
        "alt": picture.alt,
        "wide": _svg_uri(picture.figure),
        "narrow": None if picture.narrow is None else _svg_uri(picture.narrow()),
    }


def _svg_uri(figure: Figure) -> str:
    return data_uri(to_svg(figure).encode(), "svg+xml")
