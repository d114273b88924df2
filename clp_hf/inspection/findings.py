"""What an inspection comes to, in sentences, the most serious first, and the commands to run next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from ..data.columns import Columns
from ..utils.text import one_line
from .audit import Inspection, Measured, class_recalls, same_shortcut
from .features import PIXEL_STATISTICS
from .photos import USUAL_MODES, Photo
from .probe import FEWEST, Estimate

LEVELS = {
    "mend": "Mend first",
    "shortcut": "Shortcuts",
    "know": "Good to know",
}
EXAMPLES = 12
NAMED = 8
TINY, SMALLER = 16, 8  # pixels of the shorter side; times smaller than is usual
ELONGATED = 4.0  # longer by shorter side
CONSTANT = 1.0  # spread of the pixels, of 255
SAME = 0.5  # of the images that a shortcut misleads about are given the same class by another: it is the same one
IMBALANCED = 5.0  # images of the largest class by those of the smallest


@dataclass
class Finding:
    """One thing to know.

    Attributes:
        level: key of `LEVELS`.
        title, text: sentences.
        photos: examples; `captions` for each.
    """

    level: str
    title: str
    text: str
    photos: list[Photo] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def find(inspection: Inspection) -> list[Finding]:
    """All findings, the most serious first."""
    found = [
        *_refused(inspection),
        *_unreadable(inspection),
        *_duplicates(inspection),
        *_shortcuts(inspection),
        *_classes(inspection),
        *_masks(inspection),
        *_odd(inspection),
    ]
    order = list(LEVELS)
    return sorted(found, key=lambda finding: order.index(finding.level))


def percent(estimate: Estimate) -> str:
    """A figure with its interval."""
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def names_of(photos: Sequence[Photo]) -> str:
    """The first few, by name."""
    shown = ", ".join(one_line(photo.name, 60) for photo in photos[:NAMED])
    return f"{shown}, and {len(photos) - NAMED:,} more" if len(photos) > NAMED else shown


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


# ---- files -----------------------------------------------------------------------------------------------------------


def _refused(inspection: Inspection) -> Iterable[Finding]:
    if inspection.source.problem:
        yield Finding("mend", "Training would refuse the data set as it is", one_line(inspection.source.problem, 1000))


def _unreadable(inspection: Inspection) -> Iterable[Finding]:
    broken = [photo for photo in inspection.opened if photo.problem is not None]
    if broken:
        reasons = [f"{one_line(photo.name, 60)}: {one_line(photo.problem, 120)}" for photo in broken[:NAMED]]
        more = f"; and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        yield Finding(
            "mend", f"{_images(len(broken))} cannot be read", f"Training stops at them: {'; '.join(reasons)}{more}."
        )


def _duplicates(inspection: Inspection) -> Iterable[Finding]:
    photos = inspection.opened
    near = {index for same in inspection.near for index in same}
    sets = [*inspection.near, *(same for same in inspection.exact if not near & set(same))]
    across = [same for same in sets if len({photos[index].split for index in same}) > 1]
    contrary = [same for same in sets if len({inspection.label(photos[index]) for index in same} - {None}) > 1]
    rest = [same for same in sets if same not in across and same not in contrary]
    exact = {tuple(same) for same in inspection.exact}

    def finding(level: str, chosen: list[list[int]], title: str, text: str) -> Iterable[Finding]:
        if not chosen:
            return
        files = sum(tuple(same) in exact for same in chosen)
        examples = [photos[index] for same in chosen for index in same[:3]][:EXAMPLES]
        captions = [" · ".join(filter(None, (photo.split, inspection.label(photo), photo.name))) for photo in examples]
        kinds = f"{files:,} as the same file, {len(chosen) - files:,} as different files"
        yield Finding(level, title, f"{text} They are there {kinds}: {names_of(examples)}.", examples, captions)

    counted = len({index for same in across for index in same if photos[index].split != "train"})
    yield from finding(
        "mend", across, f"{_plural(len(across), 'picture')} in more than one split",
        f"{_images(counted)} outside of training are in another split too, so what is measured on them flatters: take "
        "them out of one.",
    )  # fmt: skip
    yield from finding(
        "mend", contrary, f"{_plural(len(contrary), 'picture')} under more than one class",
        "One of the labels is wrong, or both are right and the classes overlap.",
    )  # fmt: skip
    yield from finding(
        "know", rest, f"{_plural(len(rest), 'picture')} more than once in a split",
        "They count twice in training; here they are kept in one fold.",
    )  # fmt: skip


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _odd(inspection: Inspection) -> Iterable[Finding]:
    photos = [photo for photo in inspection.opened if photo.problem is None]
    usual_modes = Counter(photo.mode for photo in photos).most_common(1)[0][0] if photos else "RGB"
    usual_side = float(np.median([min(photo.width, photo.height) for photo in photos] or [0]))
    least = max(TINY, round(usual_side / SMALLER))
    sides = {
        "tiny": [photo for photo in photos if min(photo.width, photo.height) < least],
        "elongated": [
            photo
            for photo in photos
            if max(photo.width, photo.height) > ELONGATED * max(1, min(photo.width, photo.height))
        ],
        "constant": [photo for photo in photos if photo.spread < CONSTANT],
        "mode": [
            photo for photo in photos if photo.mode != usual_modes and not {photo.mode, usual_modes} <= {*USUAL_MODES}
        ],
        "grey": [photo for photo in photos if photo.mode == "L" != usual_modes],
        "animated": [photo for photo in photos if photo.frames > 1],
    }
    titles = {
        "tiny": (f"less than {least} pixels wide or high", "Scaled up to the size of the others they are blurred."),
        "elongated": (f"more than {ELONGATED:g} times as long as wide", "They are squeezed to a square."),
        "constant": ("of one colour", "They show nothing, and a label cannot be learned from them."),
        "mode": (
            f"of another mode than most ({usual_modes})",
            "Transparency is laid over white, deep values are scaled.",
        ),
        "grey": (f"grey among {usual_modes}", "If they are of one class mostly, see the format of the file above."),
        "animated": ("with several frames", "The first frame is read."),
    }
    for key, chosen in sides.items():
        if chosen:
            shown = chosen[:EXAMPLES]
            captions = [f"{photo.name} · {photo.width} × {photo.height} · {photo.mode}" for photo in shown]
            title, text = titles[key]
            yield Finding("know", f"{_images(len(chosen))} {title}", f"{text} {names_of(chosen)}.", shown, captions)


# ---- classes ---------------------------------------------------------------------------------------------------------


def _classes(inspection: Inspection) -> Iterable[Finding]:
    source = inspection.source
    if not source.labels:
        return
    counts = np.bincount(source.labels["train"], minlength=len(source.class_names))
    empty = [name for name, count in zip(source.class_names, counts, strict=True) if not count]
    if empty:
        yield Finding("mend", "Classes without a training image", f"{', '.join(map(one_line, empty[:NAMED]))}.")
    largest, smallest = int(counts.max()), int(counts[counts > 0].min())
    if largest >= IMBALANCED * smallest:
        name = one_line(source.class_names[int(np.flatnonzero(counts == smallest)[0])])
        yield Finding(
            "know", f"The largest class has {largest / smallest:,.0f} times the images of the smallest",
            f"{largest:,} against {smallest:,} ({name}). Sample by class, or take a loss for long tails; judge by the "
            "accuracy of the worst class and not by the average.",
        )  # fmt: skip
    if source.groups:
        groups = np.bincount(source.groups["train"], minlength=len(source.group_names))
        rare = [
            f"{one_line(name)} ({count})"
            for name, count in zip(source.group_names, groups, strict=True)
            if count * len(groups) * 2 < groups.sum()
        ]
        if rare:
            yield Finding(
                "know", f"{_plural(len(rare), 'group')} with less than half of an equal share of the training images",
                f"{', '.join(rare[:NAMED])}. A classifier that fails on them looks good on average: judge by the worst "
                "group.",
            )  # fmt: skip


def _masks(inspection: Inspection) -> Iterable[Finding]:
    chosen = [photo for photo in inspection.photos["train"] if photo.pixels is not None]
    bad = [photo for photo in chosen if photo.mask_problem]
    if bad:
        yield Finding(
            "mend", f"{_images(len(bad))} of {len(chosen):,} with a mask that cannot be read",
            f"{one_line(bad[0].name)}: {one_line(bad[0].mask_problem, 300)}. Such as {names_of(bad)}.",
        )  # fmt: skip
    empty = [photo for photo in chosen if photo.mask is not None and not (photo.mask >= 128).any()]
    if empty:
        yield Finding(
            "know", f"{_images(len(empty))} with an empty mask", f"They train as they are. {names_of(empty)}."
        )


# ---- shortcuts -------------------------------------------------------------------------------------------------------


def _shortcuts(inspection: Inspection) -> Iterable[Finding]:
    audit = inspection.audit
    for rank, measured in enumerate(audit.shortcuts):
        yield _shortcut(inspection, measured, audit.shortcuts[:rank])
    for measured in (found for found in audit.cues if found.is_tied):
        yield Finding(
            "know", f"{_capital(measured.cue.title)} belongs to the class: each of its values occurs in one class only",
            "It is a finer name of the classes, or else something that came with them, and then no image of this data "
            "set can tell the two apart.",
        )  # fmt: skip


def _shortcut(inspection: Inspection, measured: Measured, before: Sequence[Measured]) -> Finding:
    audit, wrong, share = inspection.audit, measured.wrong, measured.comparison.share
    names = ", ".join(f"{one_line(audit.classes[label])} (F1 {percent(f1)})" for label, f1 in measured.classes.items())
    accuracy = percent(measured.comparison.accuracy)
    if measured.tells_all:
        title = f"{_capital(measured.cue.title)} alone tells the class: {accuracy}, chance {100 * audit.chance:.0f} %"
    else:
        title = f"{_capital(measured.cue.title)} alone tells {names} from all other classes"
    text = f"That is {percent(share)} of what the whole image tells beyond chance. " if measured.tells_all else ""
    text += (
        f"It points to the wrong class in {int(wrong.sum()):,} of {_images(len(wrong))} ({100 * wrong.mean():.1f} %)"
    )
    if wrong.any() and None not in measured.right:
        text += (
            f": of these a plain classifier of the whole image gets {100 * measured.right[1]:.0f} % right, of the "
            f"others {100 * measured.right[0]:.0f} %, and to {100 * measured.followed:.0f} % it gives the class that "
            "the shortcut points to"
        )
    text += ". " if wrong.any() else ": no image tells the two apart, so no training on these can. "
    text += f"Measured on {measured.cue.note}."
    alike = same_shortcut(measured, before[0]) if before else None
    if alike is not None and alike >= SAME:
        text += (
            f" Where {before[0].cue.title} misleads, it says the same in {100 * alike:.0f} %: the same shortcut, "
            "seen in something else."
        )
        return Finding("shortcut", title, text)
    chosen = np.flatnonzero(wrong)[:: max(1, int(wrong.sum()) // EXAMPLES)][:EXAMPLES]
    photos = [audit.sample[index] for index in measured.photos[chosen]]
    captions = [
        f"{audit.classes[audit.labels[measured.photos[index]]]}, looks like {audit.classes[measured.predicted[index]]}"
        for index in chosen
    ]
    return Finding("shortcut", title, text, photos, captions)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def audit_sentence(inspection: Inspection) -> str:
    """What the shortcut audit looked at, or why there is none."""
    audit = inspection.audit
    if audit.impossible:
        return f"There is no shortcut audit: {audit.impossible}."
    asked, known = len(audit.classes) + len(audit.left_out), len(np.unique(inspection.source.labels["train"]))
    drawn = f" (drawn from {known:,})" if asked < known else ""
    text = (
        f"{_images(len(audit.sample))} of {len(audit.classes)} classes{drawn}; the whole image tells the class in "
        f"{percent(audit.image)} of them (classes count alike; features of {one_line(audit.features)}, cross-validated)"
    )
    if audit.features == PIXEL_STATISTICS:
        text += ", no pretrained weights could be had, so little is seen"
    text += (
        ". A cue is a shortcut if alone it tells more than half as much beyond chance, at the low end of its 95 % "
        "interval."
    )
    if audit.left_out:
        text += f" Left out, with less than {FEWEST} images: {', '.join(map(one_line, audit.left_out[:NAMED]))}."
    return text


def cue_rows(inspection: Inspection) -> list[list[str]]:
    """Everything that was measured, a row each: cue, accuracy, share, wrong, best told class, verdict."""
    rows = []
    for measured in inspection.audit.cues:
        recalls = class_recalls(measured, inspection.audit)
        best = next(iter(recalls))
        verdict = "shortcut" if measured.is_shortcut else "one class each" if measured.is_tied else "no"
        rows.append(
            [
                one_line(measured.cue.title.removeprefix("the "), 40),
                percent(measured.comparison.accuracy),
                percent(measured.comparison.share),
                f"{int(measured.wrong.sum()):,}",
                f"{one_line(best, 30)} {100 * recalls[best]:.0f} %",
                verdict,
            ]
        )
    return rows


CUE_HEAD = ["cue alone", "accuracy", "of what the image tells", "wrong", "told best", "shortcut?"]


# ---- what to do ------------------------------------------------------------------------------------------------------


def next_commands(inspection: Inspection) -> list[tuple[str, str]]:
    """Commands and what each is for, in the order in which to run them."""
    source, shortcuts = inspection.source, inspection.audit.shortcuts
    if not source.labels and "label" not in source.roles:
        return [("clp-hf inspect --help", "how to name the columns; then inspect again")]
    if not source.labels:
        return [(f"clp-hf inspect {shlex.quote(source.name)}", "again, when what is wrong above has been mended")]
    given, data, commands = _flags(inspection.columns), source.name, []
    in_pixels = any(found.cue.kind == "pixels" and found.cue.key != "size" for found in shortcuts)
    if in_pixels and not {"mask", "box"} & set(source.roles):
        image = _flags(Columns(image_column=inspection.columns.image_column))
        made = "masks: what is object and what is background"
        commands.append((f"clp-hf masks --dataset_name {shlex.quote(data)}{image}", made))
        data = f"{data if Path(data).exists() else Path(data).name}-masks"
    if shortcuts and not source.groups:
        made = "groups: which images the shortcut misleads about"
        commands.append((f"clp-hf groups {shlex.quote(data)}{given}", made))
        data = f"{data}-groups"
    commands.append(
        (f"clp-hf labels {shlex.quote(data)}{given}", "labels that may be wrong, told apart from minorities")
    )
    commands.append((f"clp-hf train classify --dataset_name {shlex.quote(data)}{given}", "train"))
    return commands


def _flags(columns: Columns) -> str:
    words = []
    for item in fields(columns):
        value = getattr(columns, item.name)
        if value != item.default:
            words += [f"--{item.name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return "".join(f" {shlex.quote(word)}" for word in words)
