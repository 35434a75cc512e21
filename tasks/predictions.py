"""Prediction files from users: JSON, read strictly."""

from __future__ import annotations

import json
from typing import Any

from tasks.base import TaskError


def parse_json(content: str | bytes, file: str) -> Any:
    """The value of a JSON text. Raises TaskError, naming `file`, for broken JSON and for a key that occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise TaskError(f"{file}: the key {key[:80]!r} occurs twice; keep one prediction an example")
            value[key] = item
        return value

    try:
        return json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{file}: line {error.lineno}: not JSON: {error.msg}; write the predictions as one JSON value in UTF-8"
        ) from None
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{file}: byte {error.start}: not UTF-8; write the predictions as one JSON value in UTF-8"
        ) from None
    except RecursionError:
        raise TaskError(f"{file}: nested too deeply; predictions are one flat JSON object or list") from None
    except ValueError:  # an integer of thousands of digits
        raise TaskError(
            f"{file}: holds a number too long to read; predictions are one flat JSON object or list"
        ) from None


def shown(value: Any) -> str:
    """A JSON value as an error message shows it: at most 80 characters."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)[:80]
