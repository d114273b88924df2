"""Options of what is chosen by name: numbers, in a dictionary."""

from collections.abc import Iterable, Mapping
from typing import Any


def require(condition: bool, name: str, value: float, expected: str) -> None:
    """Refuse the value of an option.

    Raises:
        ValueError: where `condition` does not hold.
    """
    if not condition:
        raise ValueError(f"{name} is {value}; expected {expected}.")


def check_options(name: str, valid: Iterable[str], options: Mapping[str, Any] | None) -> None:
    """Refuse options that are no numbers, or that what is called `name` does not have.

    Raises:
        ValueError: names them, and those that are valid.
    """
    options, valid = {} if options is None else options, list(valid)
    if not isinstance(options, Mapping):
        raise ValueError(
            f"The options of {name} are {options!r}; expected a dictionary of {', '.join(valid) or 'none'}, in JSON on "
            f'the command line: {{"NAME": 0.1}}.'
        )
    if unknown := sorted(set(options) - set(valid)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(valid) or 'none'}.")
    if wrong := {key: value for key, value in options.items() if not isinstance(value, int | float)}:
        raise ValueError(f"The options of {name} are numbers; found {wrong}.")
