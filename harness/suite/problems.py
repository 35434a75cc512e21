"""What is wrong with a file, in words: pydantic's errors and our own, one line each, in the order of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from harness.errors import Where, did_you_mean, key_path, printable

Problem = tuple[Where, str]


MOST = 500
"""Lines that are shown of an absurd file."""


_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
}


_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def shown(value: object) -> str:
    """A value of the file, short enough for one line."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"'{value[:60]}...'" if len(value) > 60 else f"'{value}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of many digits"
    return str(value)


def lines(file: str, data: Mapping[str, Any], problems: Iterable[Problem]) -> list[str]:
    """`FILE: key.path: what is wrong`, in file order, each once; nothing in them breaks a line."""
    order = _Order(data)
    unique = sorted(dict.fromkeys(problems), key=lambda problem: order.of(problem[0]))
    found = [
        printable(": ".join(part for part in (file, key_path(where), what) if part)) for where, what in unique[:MOST]
    ]
    return [*found, f"{file}: and {len(unique) - MOST} more"] if len(unique) > MOST else found


class _Order:
    """Places in a parsed file: tables keep the order in which the file names their keys. A missing key comes first."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._keys: dict[int, dict[str, int]] = {}

    def of(self, where: Where) -> tuple[int, ...]:
        places: list[int] = []
        value: Any = self._data
        for part in where:
            if isinstance(value, dict):
                keys = self._keys.setdefault(id(value), {key: place for place, key in enumerate(value)})
                places.append(keys.get(str(part), -1))
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int):
                places.append(part)
                value = value[part] if part < len(value) else None
        return tuple(places)


def from_pydantic(error: ValidationError, form: type[BaseModel], at: Where = ()) -> list[Problem]:
    """Every error of a validation against `form`, in our words; `at` is where the form's table lies in the file."""
    return [
        ((*at, *entry["loc"]), _words(entry, form))
        for entry in error.errors(include_url=False)
        if entry["type"] != "union"
    ]


def _words(error: Any, form: type[BaseModel]) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        table = _table(form, error["loc"][:-1])
        return "unknown key" + did_you_mean(str(error["loc"][-1]), table.model_fields if table else ())
    if kind == "missing":
        table = _table(form, error["loc"][:-1])
        meaning = table.model_fields[error["loc"][-1]].description if table else None
        return "is missing" + (f" ({meaning})" if meaning else "")
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        known = did_you_mean(value, choices) if isinstance(value, str) else ""
        if known.startswith("; did"):
            return f"unknown value {shown(value)}{known}"
        return f"must be {context['expected']}, not {shown(value)}"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {shown(value)}"
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        return f"must be {word} {context[name]:g}, not {shown(value)}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters long"
    if kind == "value_error":
        return str(context["error"])
    text = str(error["msg"])
    return text[:1].lower() + text[1:]


def _table(form: type[BaseModel], where: Sequence[str | int]) -> type[BaseModel] | None:
    """The form of the table at a place."""
    found: Any = form
    for part in where:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(str(part))
            found = _bare(field.annotation) if field else None
        elif get_origin(found) in (dict, tuple):
            found = _bare(get_args(found)[1 if get_origin(found) is dict else 0])
        else:
            return None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    rest = [one for one in get_args(annotation) if one is not type(None)]
    if len(rest) == 1 and type(None) in get_args(annotation):
        return _bare(rest[0])
    return annotation
