"""Whatever a suite file holds, reading it ends in a Suite or in lines about the file, never in a traceback."""

from __future__ import annotations

import copy
import math
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import SuiteError, key_path
from harness.suite.load import load_suite
from harness.suite.tables import Suite
from tests.suite.suite_mistakes import GOOD

CONTENT = tomllib.loads(GOOD)

WORDS = """title source train task name scheme label squad_v1 glue/cola torch_fp32 model:tiny model:again scratch
package:a/../b hub:x .. load finetune engine_int8_asymmetric"""
words = st.one_of(st.sampled_from([*WORDS.split(), "", "\n"]), st.text(max_size=20))
scalars = st.one_of(words, st.booleans(), st.integers(), st.integers(-2, 600), st.floats(), st.just(date(2020, 1, 1)))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The key paths of all values in the file."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, content in inner for place in places(content, (*at, key)))]


def value_at(value: Any, place: tuple[Any, ...]) -> Any:
    for part in place:
        value = value[part]
    return value


def changed(content: Any, place: tuple[Any, ...], draw: st.DataObject) -> None:
    """Replace, delete or add one value."""
    content = value_at(content, place[:-1])
    what = draw.draw(st.sampled_from(["replace", "delete", "add"]))
    if what == "replace" or not isinstance(content, dict):
        content[place[-1]] = draw.draw(values)
    elif what == "delete":
        del content[place[-1]]
    else:
        content[draw.draw(words)] = draw.draw(values)


def toml(value: Any) -> str:
    """A value as TOML, with inline tables."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def outcome(text: bytes, folder: Path) -> Suite | tuple[str, ...]:
    file = folder / "one.toml"
    file.write_bytes(text)
    try:
        return load_suite(str(file))
    except SuiteError as error:
        return error.problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suites")


many_examples = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@pytest.mark.slow
@many_examples
@given(draw=st.data())
def test_any_change_ends_in_a_suite_or_in_lines(folder: Path, draw: st.DataObject) -> None:
    content = copy.deepcopy(CONTENT)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed(content, draw.draw(st.sampled_from([place for place in places(content) if place])), draw)
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in content.items())
    assert tomllib.loads(text).keys() == content.keys()
    result = outcome(text.encode(), folder)
    if isinstance(result, tuple):
        assert result
        assert all(line.isprintable() and "one.toml: " in line for line in result)
        assert len(set(result)) == len(result)


@many_examples
@given(draw=st.data())
def test_any_damage_to_the_text_ends_in_a_suite_or_in_lines(folder: Path, draw: st.DataObject) -> None:
    text = GOOD.encode()
    at = draw.draw(st.integers(0, len(text)))
    rest = draw.draw(st.integers(at, min(len(text), at + 40)))
    result = outcome(text[:at] + draw.draw(st.binary(max_size=20)) + text[rest:], folder)
    assert result if isinstance(result, tuple) else result.tasks


NAMED_FREELY = [("models",), ("references", 0, "metrics"), ("models", "tiny", "task")]
TABLES = [
    place for place in places(CONTENT) if isinstance(value_at(CONTENT, place), dict) and place not in NAMED_FREELY
]


@pytest.mark.slow
@many_examples
@given(place=st.sampled_from(TABLES), key=st.from_regex(re.compile(r"zz_[a-z]{1,8}", re.ASCII), fullmatch=True))
def test_an_unknown_key_is_reported_where_it_is(folder: Path, place: tuple[Any, ...], key: str) -> None:
    content = copy.deepcopy(CONTENT)
    value_at(content, place)[key] = 1
    result = outcome("".join(f"{toml(name)} = {toml(value)}\n" for name, value in content.items()).encode(), folder)
    assert isinstance(result, tuple)
    assert any(f": {key_path((*place, key))}: unknown key" in line for line in result)
