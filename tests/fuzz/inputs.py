"""Random inputs as bytes: valid ones, damaged in their structure or in their text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.suite.test_suite_fuzz import changed, places, value_at

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\x1b[31m\x1b]0;title\x07",
    "\u202eback\u2066",
    "[x](javascript:alert(1))",
    "../../etc/passwd",
    "/proc/self/environ",
    "\ud800",
    "a" * 5000,
    "nan",
    "",
    " ",
    "é" * 40,
    "a\nb\r\nc\x85d\u2028e",
)
EXTREMES = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**30,
    -(10**30),
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    -0.0,
)
words = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(EXTREMES), st.integers(-3, 600), st.floats(), words)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A part cut out, replaced, doubled or moved, or bits flipped."""
    at = draw(st.integers(0, len(content)))
    end = draw(st.integers(at, min(len(content), at + draw(st.sampled_from((1, 4, 40, 4000))))))
    kind = draw(st.sampled_from(("bits", "replace", "cut", "double", "end")))
    if kind == "bits" and content:
        flipped = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            flipped[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if kind == "end":
        return content[:at]
    middle = {"cut": b"", "double": 2 * content[at:end]}.get(kind)
    return content[:at] + (draw(st.binary(max_size=20)) if middle is None else middle) + content[end:]


@st.composite
def edited(draw: st.DrawFn, content: Any, write: Callable[[Any], str], mostly: Sequence[str] = ()) -> bytes:
    """One to three values of a structure replaced, deleted or added. mostly: half of the edits are below these keys."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        everywhere = [place for place in places(content) if place]
        chosen = [place for place in everywhere if set(place) & set(mostly)]
        few: bool = draw(st.booleans())
        if everywhere:
            _edit(draw, content, draw(st.sampled_from(chosen if chosen and few else everywhere)))
    return write(content).encode("utf-8", "surrogatepass")


def _edit(draw: st.DrawFn, content: Any, place: tuple[Any, ...]) -> None:
    above = value_at(content, place[:-1])
    what = draw(st.sampled_from(("value", "same type", "delete", "add", "repeat")))
    old = above[place[-1]]
    if what == "same type" and isinstance(old, str):
        above[place[-1]] = draw(words)
    elif what == "same type" and isinstance(old, int | float):
        above[place[-1]] = draw(st.sampled_from(EXTREMES))
    elif what == "delete":
        del above[place[-1]]
    elif what == "add" and isinstance(above, dict):
        above[draw(words)] = draw(values)
    elif what == "repeat" and isinstance(above, list):
        above.extend(copy.deepcopy(above[:3]))
    else:
        above[place[-1]] = draw(values)


def as_json(value: Any) -> str:
    """JSON that may hold halves of surrogate pairs, NaN and Infinity, as Python writes them."""
    return json.dumps(value)


__all__ = ["as_json", "changed", "damaged", "edited", "values", "words"]
