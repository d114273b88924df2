"""`HfArgumentParser` whose messages say which option it is, what was found, what is expected, and what may be meant."""

import re
from argparse import Action, ArgumentError
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any, get_type_hints

from transformers import HfArgumentParser, TrainingArguments

from ..utils.names import did_you_mean
from .help import Option, Page
from .settings import is_settings_file
from .values import expected, kind
from .words import HOMES, OTHER_NAMES, OTHER_VALUES


class OptionParser(HfArgumentParser):
    """The options of dataclasses; `hints` are their types, and `actions` their flags, by name.

    Args:
        argument_classes: dataclasses.
        description: for `--help`.
        defaults: in place of those of the dataclasses, by name.
        hidden: fields that help and advice say nothing of.
    """

    def __init__(
        self,
        argument_classes: Sequence[type],
        description: str,
        defaults: Mapping[str, Any],
        hidden: Collection[str] = (),
    ):
        super().__init__(argument_classes, description=description, add_help=False)
        self.set_defaults(**defaults)
        self.hidden = hidden
        self.hints = {name: hint for part in argument_classes for name, hint in _hints(part).items()}
        self.actions: dict[str, Action] = {}
        for action in self._actions:
            self.actions.setdefault(action.dest, action)  # the first of each name, without no_…
        if resuming := self.actions.get("resume_from_checkpoint"):
            resuming.nargs, resuming.const = "?", "last"

    def page(self) -> Page:
        """The help."""
        options = {}
        for part in self.dataclass_types:
            for item in fields(part):
                if not item.init or item.name in self.hidden:
                    continue
                action = self.actions[item.name]
                trainers = item.name in TrainingArguments.__dataclass_fields__
                options[item.name] = Option(
                    home=None if trainers else _home(part, item.name),
                    kind=kind(self.hints[item.name]),
                    help=" ".join((action.help or "").replace("%%", "%").split()),
                    default=_as_typed(self.get_default(item.name)),
                    choices=[_as_typed(choice) for choice in action.choices or []],
                    trainers=trainers,
                )
        return Page(self.prog, self.description, options)

    def refuse_unknown(self, unknown: Sequence[str]) -> None:
        """Raises: ValueError: there are words that are no options, or belong to none."""
        if not unknown:
            return
        name = next((word for word in unknown if word.startswith("-")), unknown[0]).split("=")[0]
        raise ValueError(
            f"What these ask for is no option of {self.prog}: {list(unknown)}.{self.advice(name)} All are listed by "
            "--help-all."
        )

    def advice(self, name: str) -> str:
        """What may be meant by a flag, or the key of a settings file, that does not exist."""
        from accelerate.commands.launch import launch_command_parser

        is_flag, plain = name.startswith(("-", "–", "—")), name.lstrip("-–—").replace("-", "_").lower()
        if f"--{plain}" in launch_command_parser()._option_string_actions:
            return (
                f" --{plain} is an option of accelerate's, which stand before the recipe: clp-hf train --{plain} … "
                "waterbirds."
            )
        meant = [other for other in OTHER_NAMES.get(plain, ()) if other in self.actions][:1]
        begun = [other for other in self.actions if other.startswith(plain)] if is_flag else []
        mark = "--" if is_flag else ""
        if not meant and len(begun) > 1:
            return f" It may be {', '.join(f'--{other}' for other in begun)}."
        return did_you_mean(mark + (meant or [plain])[0], [mark + other for other in self.actions])

    def value_advice(self, name: str, value: Any) -> str:
        """What may be meant by a value that an option does not take."""
        if is_settings_file(str(value)):
            return f" A settings file stands right behind the recipe: {self.prog} {value} …"
        choices = [_as_typed(choice) for choice in self.actions[name].choices or ()]
        meant = OTHER_VALUES.get(name, {}).get(str(value).lower(), value)
        return did_you_mean(meant, choices)

    def error(self, message: str) -> None:
        """Raises: ValueError: with what argparse says, but for the spelling with hyphens."""
        if found := re.match(r"ambiguous option: (\S+)", message):
            self.refuse_unknown([found[1]])
        message = re.sub(r"/--[\w-]+", "", message).removeprefix("argument ")
        raise ValueError(f"{self.prog}: {message}. What each option takes is listed by --help-all.")

    def _get_value(self, action: Action, word: str) -> Any:
        try:
            return super()._get_value(action, word)
        except ArgumentError:
            raise self._refusal(action, word) from None

    def _check_value(self, action: Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except ArgumentError:
            raise self._refusal(action, value) from None

    def _refusal(self, action: Action, value: Any) -> ValueError:
        told = expected(self.hints[action.dest], action)
        return ValueError(f"--{action.dest} is {value!r}, expected {told}.{self.value_advice(action.dest, value)}")


def _hints(part: type) -> dict[str, Any]:
    types = get_type_hints(part)
    return {item.name: types[item.name] for item in fields(part) if item.init}


def _home(part: type, name: str) -> str | None:
    """The group of the dataclass that defines a field: the outermost base that has it."""
    owner = next(base for base in reversed(part.__mro__) if name in getattr(base, "__dataclass_fields__", ()))
    return HOMES.get(owner.__name__)


def _as_typed(value: Any) -> str:
    """A value as its flag would have it."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return " ".join(map(_as_typed, value)) or "none"
    return str(value.value if isinstance(value, Enum) else value)
