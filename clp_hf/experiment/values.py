"""Values of a settings file, held to the types that flags are held to."""

from argparse import Action, ArgumentTypeError
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text, in quotes", type(None): "null"}


def setting_value(value: Any, hint: Any, action: Action) -> Any:
    """A value of the type of its option: as it is, or as the option's flag reads it.

    Text such as `"3"` or `1e-3`, which is text in YAML, is read as a flag is, and one value may stand for a list of
    one. Nothing else is converted: true is no number, and 3 is no text.

    Args:
        value: of the file.
        hint: the type of the option.
        action: its flag.

    Raises:
        ValueError: what is expected instead.
    """
    if value is None and action.default is None:
        return None
    adapter = TypeAdapter(hint)
    try:
        value = adapter.validate_python(value, strict=True)
    except ValidationError:
        try:
            value = adapter.validate_python(_as_flag(value, action), strict=True)
        except (ValueError, ArgumentTypeError):
            raise ValueError(f"expected {expected(hint, action)}") from None
    if action.choices and value is not None:
        parts = value if isinstance(value, list) else [value]
        if not all(part in action.choices for part in parts):
            raise ValueError(f"expected {expected(hint, action)}")
    return value


def expected(hint: Any, action: Action) -> str:
    """What an option takes, in words, such as `a number or null`."""
    if not action.choices:
        return _described(hint)
    return f"one of {', '.join(str(getattr(choice, 'value', choice)) for choice in action.choices)}"


def kind(hint: Any) -> str:
    """What stands behind a flag in its help, such as `N`."""
    kinds = [part for part in _alternatives(hint) if part is not type(None)]
    first = kinds[0] if kinds else str
    if get_origin(first) is list:
        return f"{kind(get_args(first)[0])} …".strip()
    return {bool: "true|false", int: "N", float: "X"}.get(first, "") if isinstance(first, type) else ""


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _as_flag(value: Any, action: Action) -> Any:
    parts = value if isinstance(value, list) else [value]
    parts = [action.type(part) if isinstance(part, str) and action.type else part for part in parts]
    return parts if isinstance(value, list) or action.nargs == "+" else parts[0]


def _described(hint: Any) -> str:
    """A type in words, such as `a number or null`."""
    words = []
    for part in _alternatives(hint):
        if get_origin(part) is list:
            words.append(f"a list of {_described(get_args(part)[0])}")
        elif part is dict or get_origin(part) is dict:
            words.append("a mapping")
        elif part in _WORDS:
            words.append(_WORDS[part])
    return " or ".join(words)
