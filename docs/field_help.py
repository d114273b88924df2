"""An extension of Griffe: the help text of a dataclass field is its documentation, and its default is its value."""

import dataclasses
import importlib
from typing import Any

import griffe


class FieldHelp(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        if not any("metadata" in str(member.value) for member in cls.members.values() if member.is_attribute):
            return
        found = getattr(importlib.import_module(cls.module.path), cls.name)
        for field in dataclasses.fields(found):
            attribute = cls.members.get(field.name)
            if attribute is not None and "help" in field.metadata:
                attribute.docstring = griffe.Docstring(field.metadata["help"], parent=attribute)
                attribute.value = cls.members["__init__"].parameters[field.name].default = _default(field)


def _default(field: dataclasses.Field) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return None if field.default is dataclasses.MISSING else repr(field.default)
