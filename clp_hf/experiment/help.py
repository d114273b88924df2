"""What `--help` and `--help-all` print: the options of a recipe in groups, with the defaults that it really has.

A `Page` is made of a parser, or read from `help_pages.json`, which holds those of all recipes: the classes of arguments
need torch and transformers, whose import takes longer than a person waits for help. `python -m
clp_hf.experiment.help_pages` writes that file.
"""

import hashlib
import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from ..utils.shipped import shipped
from .words import CHOICES, GROUPS, NEEDS, SHORT

HELP, HELP_ALL = ("-h", "--help"), ("--help-all", "--help_all")
PAGES = Path(__file__).with_name("help_pages.json")
COLUMN, WIDEST = 32, 120  # where texts begin, and where lines end, also where there is no terminal
FEW = 30  # options, that are all explained
CHANGES_PAGE = ("method", "preset")  # options that the others, or their defaults, depend on


@dataclass
class Option:
    """An option as help shows it.

    Attributes:
        home: the group of its dataclass; None where it is the command itself.
        kind: what is to be put behind it, such as `N`.
        help: all of its text.
        default: as a flag would have it; empty where there is none to tell.
        choices: that its value is out of.
        trainers: whether it is one of `transformers.TrainingArguments`.
    """

    home: str | None = None
    kind: str = ""
    help: str = ""
    default: str = ""
    choices: list[str] = field(default_factory=list)
    trainers: bool = False


@dataclass
class Page:
    """The help of a command: what it is called, what it says of itself, and its options by name."""

    program: str
    description: str
    options: dict[str, Option]


class HelpShown(SystemExit):
    """The end of a command that was asked for help.

    Attributes:
        page: what was shown.
    """

    def __init__(self, page: Page):
        super().__init__(0)
        self.page = page


def asked_for(words: Sequence[str]) -> bool:
    """Whether a command line asks for help, of either kind."""
    return bool({*HELP, *HELP_ALL} & set(words))


def show(page: Page, words: Sequence[str]) -> None:
    """Print a page as the command line asks for it."""
    print(render(page, everything=bool(set(HELP_ALL) & set(words))))


def show_known(key: Sequence[str], program: str, words: Sequence[str]) -> bool:
    """Print the short help of a recipe without importing it; False where only the recipe itself can say.

    Args:
        key: its name and, where others follow from them, options with their values: `repair`, `--method`, `dfr`.
        program: what the recipe is called.
        words: its command line.
    """
    if set(HELP_ALL) & set(words):
        return False
    stored = _stored_pages()
    if stored["recipes"] != recipes_digest() or " ".join(key) not in stored["pages"]:
        return False
    found = stored["pages"][" ".join(key)]
    options = {name: Option(**stored["options"][name] | found["own"].get(name, {})) for name in found["names"].split()}
    show(Page(program, found["description"], options), words)
    return True


@cache
def _stored_pages() -> Mapping[str, Any]:
    return json.loads(PAGES.read_text(encoding="utf-8"))


def store(pages: Mapping[str, Page]) -> str:
    """The content of `help_pages.json`: what pages have in common is said once, an option and a page a line.

    Args:
        pages: by recipe and, where others follow from them, options with their values.
    """
    explained = {name for group in GROUPS.values() for name in group.shown}
    common: dict[str, dict] = {}
    stored = {}
    for key, page in pages.items():
        kept = {
            name: asdict(option) for name, option in page.options.items() if not option.trainers or name in explained
        }
        common = kept | common
        own = {
            name: {fact: value for fact, value in facts.items() if value != common[name][fact]}
            for name, facts in kept.items()
            if facts != common[name]
        }
        stored[key] = {"description": _begin(page.description), "names": " ".join(kept), "own": own}
    blank = asdict(Option())
    common = {
        name: {fact: value for fact, value in facts.items() if value != blank[fact]} for name, facts in common.items()
    }
    parts = {"recipes": json.dumps(recipes_digest()), "options": _a_line_each(common), "pages": _a_line_each(stored)}
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {part}" for name, part in parts.items()) + "\n}\n"


def _a_line_each(mapping: Mapping[str, Any]) -> str:
    lines = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in mapping.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def recipes_digest() -> str:
    """Of the recipes' sources: help that was stored is that of recipes as they were."""
    sources = sorted(shipped("recipes").glob("*.py"))
    return hashlib.sha256("\0".join(path.read_text(encoding="utf-8") for path in sources).encode()).hexdigest()


# ---- rendering -------------------------------------------------------------------------------------------------------


def render(page: Page, everything: bool = False, width: int | None = None) -> str:
    """A page as text.

    Args:
        page: what to show.
        everything: every option with all of its text, the Trainer's too, and all of the description; else what one
            begins with is explained, in a line each, and the others are named.
        width: of a line; by default that of the terminal.
    """
    width = width or min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    description = page.description.strip() if everything else _begin(page.description)
    lines = [f"usage: {page.program} [options]", "", *description.splitlines()]
    trainers = any(option.trainers for option in page.options.values())
    explain = everything or (len(page.options) <= FEW and not trainers)
    groups = list(_groups(page, everything))
    for title, shown, named in groups:
        if explain:
            shown, named = [*shown, *named], []
        lines += ["", f"{title}:"] if everything or title == groups[0][0] else [f"{title}:"]
        for name in shown:
            lines += _explained(name, page.options[name], everything, width)
        if named:
            flags = " ".join(f"--{name}" for name in named)
            lines += textwrap.wrap(
                f"more: {flags}", width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
    if not everything and (not explain or trainers):
        lines += ["", "--help-all explains every option, those of transformers' Trainer too."]
    return "\n".join(lines)


def _begin(description: str) -> str:
    """What a recipe does, and its examples: the first paragraph, and the indented ones behind it."""
    first, *others = description.strip().split("\n\n")
    return "\n\n".join([first, *takewhile(lambda paragraph: paragraph.startswith(" "), others)])


def _groups(page: Page, everything: bool) -> Iterator[tuple[str, list[str], list[str]]]:
    """Title, options that are explained, and options that are named, of every group that has any."""
    own = page.program.split()[-1].removesuffix(".py")
    placed = {name: title for title, group in GROUPS.items() for name in (*group.shown, *group.named)}
    members: dict[str, list[str]] = {own: [], **{title: [] for title in GROUPS}, "the Trainer's": []}
    for name, option in page.options.items():
        if option.help.startswith("Deprecated") and not everything:
            continue
        outer = "the Trainer's" if option.trainers else option.home or own
        members[placed.get(name, outer)].append(name)
    if not everything:
        members.pop("the Trainer's")
    for title, names in members.items():
        order = GROUPS[title].shown if title in GROUPS else ()
        later = GROUPS[title].named if title in GROUPS else ()
        named = [name for name in later if name in names]
        shown = [name for name in order if name in names]
        shown += [name for name in names if name not in (*order, *later)]
        if shown or named:
            yield title, shown, named


def _explained(name: str, option: Option, everything: bool, width: int) -> list[str]:
    words = CHOICES.get(name, {})
    ours = set(option.default.split()) <= {*words, "none"}  # and not of an option of another command
    choices = option.choices or (list(words) if ours else [])
    text = option.help if everything else SHORT.get(name) or option.help.split(". ")[0].rstrip(".") + "."
    if option.default:
        text += f" (default: {option.default})"
    head = f"  --{name}"
    behind = f" {{{','.join(choices)}}}" if choices else f" {option.kind}" if option.kind else ""
    fits = len(head + behind) < COLUMN
    head += behind if fits else ""
    lines = textwrap.wrap(text, width - COLUMN, break_on_hyphens=False) or [""]
    first = [f"{head.ljust(COLUMN - 1)} {lines[0]}"] if len(head) < COLUMN else [head, " " * COLUMN + lines[0]]
    lines = [line.rstrip() for line in [*first, *(" " * COLUMN + line for line in lines[1:])]]
    if choices and not (fits and not set(choices) & set(words)):
        for told in _by_need(choices, NEEDS.get(name, {}), words, everything):
            lines += textwrap.wrap(
                told, width, initial_indent=" " * 6, subsequent_indent=" " * 8, break_on_hyphens=False
            )
    return lines


def _by_need(
    choices: Sequence[str], needs: Mapping[str, Sequence[str]], words: Mapping[str, str], everything: bool
) -> Iterator[str]:
    """Choices in words; where all their needs are known, those of one need together, in words if `everything`."""
    if not set(choices) <= {name for names in needs.values() for name in names}:
        yield _in_words(choices, words)
        return
    for need, names in needs.items():
        if members := [choice for choice in names if choice in choices]:
            yield f"{need}: {_in_words(members, words if everything else {})}"


def _in_words(choices: Sequence[str], words: Mapping[str, str]) -> str:
    """Choices and what they are, those that are the same together: `a (one thing), b, c (another)`."""
    known = [choice for choice in words if choice in choices]
    ordered = [*known, *(choice for choice in choices if choice not in words)]
    same = {choice: words.get(choice) == words.get(after) for choice, after in pairwise(ordered)}
    return ", ".join(
        choice if same.get(choice) or choice not in words else f"{choice} ({words[choice]})" for choice in ordered
    )
