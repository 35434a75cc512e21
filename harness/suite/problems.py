"""Problems of a suite file in words: pydantic's errors and our own, one line each, in the order of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from harness.errors import KeyPath, did_you_mean, key_path, printable

Problem = tuple[KeyPath, str]


MOST_LINES = 500
"""How many problems of one file are listed."""


_TYPES = {
    "string_type": "a string",
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
    """A value of the file as a message shows it: on one line and short."""
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
    """`FILE: key.path: what is wrong`, in the order of the file, without duplicates and without line breaks."""
    order = _FileOrder(data)
    unique = sorted(dict.fromkeys(problems), key=lambda problem: order.position(problem[0]))
    shortened = [
        printable(": ".join(part for part in (file, key_path(keys), message) if part))
        for keys, message in unique[:MOST_LINES]
    ]
    more = len(unique) - MOST_LINES
    return [*shortened, f"{file}: and {more} more"] if more > 0 else shortened


class _FileOrder:
    """Sorts key paths by where they are in a parsed file. A missing key comes before its neighbours."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._keys: dict[int, dict[str, int]] = {}

    def position(self, keys: KeyPath) -> tuple[int, ...]:
        positions: list[int] = []
        value: Any = self._data
        for key in keys:
            if isinstance(value, dict):
                index_of = self._keys.setdefault(id(value), {name: index for index, name in enumerate(value)})
                positions.append(index_of.get(str(key), -1))
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int):
                positions.append(key)
                value = value[key] if key < len(value) else None
        return tuple(positions)


def from_pydantic(error: ValidationError, model: type[BaseModel], at: KeyPath = ()) -> list[Problem]:
    """All errors of a validation against the pydantic model `model`; `at` is the key path of the table in the file."""
    return [
        ((*at, *details["loc"]), _message(details, model))
        for details in error.errors(include_url=False)
        if details["type"] != "union"
    ]


def _message(error: Any, model: type[BaseModel]) -> str:
    """What is wrong, in the words of a suite file; error: one of pydantic's `ValidationError.errors()`."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        table = _model_at(model, error["loc"][:-1])
        return "unknown key" + did_you_mean(str(error["loc"][-1]), table.model_fields if table else ())
    if kind == "missing":
        table = _model_at(model, error["loc"][:-1])
        meaning = table.model_fields[error["loc"][-1]].description if table else None
        return "is missing; add it" + (f" ({meaning})" if meaning else "")
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        if hint.startswith("; did"):
            return f"unknown value {shown(value)}{hint}"
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
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}, not {shown(value)}"
    if kind == "value_error":
        return str(context["error"])
    text = str(error["msg"])
    return text[:1].lower() + text[1:]


def _model_at(model: type[BaseModel], keys: Sequence[str | int]) -> type[BaseModel] | None:
    """The pydantic model of the table at a key path inside `model`'s table; None where there is no table."""
    annotation: Any = model
    for key in keys:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(key))
            annotation = _bare(field.annotation) if field else None
        elif get_origin(annotation) in (dict, tuple):
            annotation = _bare(get_args(annotation)[1 if get_origin(annotation) is dict else 0])
        else:
            return None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    others = [argument for argument in get_args(annotation) if argument is not type(None)]
    if len(others) == 1 and type(None) in get_args(annotation):
        return _bare(others[0])
    return annotation
