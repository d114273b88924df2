"""An inspection for the terminal."""

from __future__ import annotations

import shutil
import textwrap

from ..utils.text import one_line
from .audit import Inspection
from .findings import CUE_HEAD, LEVELS, audit_sentence, cue_rows, find, next_commands

MOST_CLASSES = 12


def format_inspection(inspection: Inspection) -> str:
    """What was read, what was found, the most serious first, every figure of the audit, and what to run next."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    lines = [*_read(inspection, width), ""]
    found = find(inspection)
    for level, title in LEVELS.items():
        if own := [finding for finding in found if finding.level == level]:
            lines += [title, ""]
            for finding in own:
                lines += textwrap.wrap(finding.title, width, initial_indent="  * ", subsequent_indent="    ")
                lines += textwrap.wrap(finding.text, width, initial_indent="    ", subsequent_indent="    ")
            lines.append("")
    if not found:
        lines += ["Nothing is wrong that was looked for.", ""]
    lines += textwrap.wrap(f"Shortcut audit. {audit_sentence(inspection)}", width)
    if inspection.audit.cues:
        if not inspection.audit.shortcuts:
            lines += ["No cue is a shortcut."]
        lines += ["", *_table([CUE_HEAD, *cue_rows(inspection)]), ""]
    for name, reason in inspection.audit.columns_left.items():
        lines += textwrap.wrap(f"Column {one_line(name)} was left out: {reason}.", width)
    lines += ["", "Next:", ""]
    commands = next_commands(inspection)
    longest = max(len(command) for command, _ in commands)
    lines += [f"  {command.ljust(longest)}   # {what}" for command, what in commands]
    return "\n".join(lines)


def facts(inspection: Inspection) -> list[tuple[str, str]]:
    """What was read, and how."""
    source = inspection.source
    told = [
        (
            "Columns",
            ", ".join(column if column == role else f"{column} ({role})" for role, column in source.roles.items()),
        ),
        ("Splits", ", ".join(_split(inspection, role) for role in source.splits)),
    ]
    if others := [name for name in source.other_columns() if name not in source.roles.values()]:
        told.insert(1, ("Other columns", ", ".join(map(one_line, others))))
    if source.unused:
        told.append(("Not used", ", ".join(f"{one_line(key)} ({count:,})" for key, count in source.unused.items())))
    if source.labels:
        told.append(("Classes", _counted(source.class_names, source.labels["train"])))
    if source.groups:
        told.append(("Groups", _counted(source.group_names, source.groups["train"])))
    return told


def _split(inspection: Inspection, role: str) -> str:
    source, total, opened = inspection.source, len(inspection.source.splits[role]), len(inspection.photos[role])
    called = "" if source.names[role] == role else f" ({one_line(source.names[role])})"
    part = "" if opened == total else f", {opened:,} of them opened"
    return f"{role}{called} {total:,}{part}"


def _counted(names: list[str], values) -> str:
    counts = [int((values == index).sum()) for index in range(len(names))]
    order = sorted(range(len(names)), key=lambda index: -counts[index])
    shown = ", ".join(f"{one_line(names[index], 40)} {counts[index]:,}" for index in order[:MOST_CLASSES])
    return shown + (f" … ({len(names)} in all, the smallest {min(counts):,})" if len(names) > MOST_CLASSES else "")


def _read(inspection: Inspection, width: int) -> list[str]:
    lines = [one_line(inspection.source.name), ""]
    for title, text in facts(inspection):
        lines += textwrap.wrap(text, width, initial_indent=f"  {title}".ljust(17), subsequent_indent=" " * 17)
    return lines


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [lines[0], "  " + "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]
