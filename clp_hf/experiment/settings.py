"""Settings files: a recipe's options as the keys of one YAML or JSON mapping, which flags go before."""

import json
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

SUFFIXES = (".json", ".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans, as in YAML 1.2, and no key stands twice in a mapping.

    `save_strategy: no` is the text that the flag takes, and a class may be called yes.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in resolvers if first in "tTfF" or not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        _check_once(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)


class _Twice(ValueError):
    """A key that stands twice in a mapping."""


def is_settings_file(word: str) -> bool:
    """Whether a word of the command line names a settings file; it need not exist."""
    return word.lower().endswith(SUFFIXES)


def read_settings(path: str) -> dict[str, Any]:
    """The mapping of a settings file, in UTF-8.

    Raises:
        ValueError: the file is not there, cannot be read, is no valid YAML or JSON, no mapping, or says a key twice.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no settings file {path!r}.")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors begin a file with a byte-order mark
        if path.lower().endswith(".json"):
            settings = json.loads(text, object_pairs_hook=_pairs)
        else:
            settings = yaml.load(text, _Loader)
    except _Twice as error:
        raise ValueError(f"{path!r} says {error} twice: leave one of them out.") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path!r} is not in UTF-8 (byte {error.object[error.start]:#04x} at {error.start}): save it in UTF-8."
        ) from None
    except OSError as error:
        raise ValueError(f"The settings file {path!r} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        kind = "JSON" if path.lower().endswith(".json") else "YAML"
        raise ValueError(f"{path!r} is not valid {kind}: {error}") from error
    if not isinstance(settings, dict):
        found = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise ValueError(
            f"{path!r} does not name its recipe: it has {found}, expected a mapping with lines such as "
            "`recipe: waterbirds` and `method: erm`."
        )
    return {str(name): value for name, value in settings.items()}


def without_settings(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The settings file of a command line, and the words beside it, which go before it.

    It stands right behind the recipe, or further back, but not behind a flag: that has a file of its own.

    Raises:
        ValueError: there are several.
    """
    places = [
        place
        for place, word in enumerate(words)
        if is_settings_file(word) and not word.startswith("-") and not (place and words[place - 1].startswith("-"))
    ]
    if len(places) > 1:
        raise ValueError(f"There is one settings file at most, found {' and '.join(words[place] for place in places)}.")
    return next((words[place] for place in places), None), [w for place, w in enumerate(words) if place not in places]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_once(name for name, _ in pairs)
    return dict(pairs)


def _check_once(names: Iterable[Hashable]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise _Twice(repr(name))
        seen.add(name)
