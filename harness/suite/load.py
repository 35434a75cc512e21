from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import SuiteError, did_you_mean, printable
from harness.machine import paths
from harness.suite.problems import Problem, from_pydantic, lines
from harness.suite.tables import (
    List,
    Reference,
    Suite,
)

LARGEST = 256 * 1024
"""Bytes of the largest file that is read: a suite is written by hand."""


MOST_DOTS = 100
"""In one line. tomllib's time is quadratic in the parts of a dotted key: one of 20,000 parts took it 50 s."""


NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of suites and models: they go into file names."""


class _References(BaseModel):
    """What the site reads of a suite file."""

    description: str = ""
    references: List[Reference] = ()


def load_suite(name_or_path: str, suites_dir: Path | None = None) -> Suite:
    """The suite of that name in `suites_dir` (default: `suites/` of the checkout), or of that file (a path has a folder
    or ends in `.toml`). Raises SuiteError with every problem of the file."""
    file = find(name_or_path, suites_dir or paths.suites())
    shown_as = printable(_relative(file))
    try:
        data = _parse(file, shown_as)
        suite, problems = _validate(data, file)
    except RecursionError:
        raise SuiteError([f"{shown_as}: tables or lists are nested too deeply"]) from None
    if problems or suite is None:
        raise SuiteError(lines(shown_as, data, problems))
    suite._file = file
    return suite


def load_for_pages(file: Path) -> tuple[str, list[dict[str, Any]]]:
    """A suite file's description and published figures as they stand there. Of the rest it need only be TOML, since old
    records outlive what their suite asks for. Raises SuiteError."""
    shown_as = printable(_relative(file))
    try:
        data = _parse(file, shown_as)
        _References.model_validate(data)
    except ValidationError as error:
        raise SuiteError(lines(shown_as, data, from_pydantic(error, _References))) from None
    except RecursionError:
        raise SuiteError([f"{shown_as}: tables or lists are nested too deeply"]) from None
    return data.get("description", ""), data.get("references", [])


def find(name: str, folder: Path) -> Path:
    """The file of a suite. A name never leaves its folder. Raises SuiteError for an unknown one."""
    if "/" in name or "\\" in name or name.endswith(".toml"):
        return Path(name)
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        near = did_you_mean(name, known) if known else ""
        rest = f" (suites: {', '.join(known)})" if near.startswith("; did") else "" if known else f"; {folder} has none"
        raise SuiteError([printable(f"unknown suite '{name[:80]}'{near}{rest}")])
    return folder / f"{name}.toml"


def _relative(file: Path) -> str:
    try:
        return str(file.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def _parse(file: Path, shown_as: str) -> dict[str, Any]:
    try:
        if file.is_dir():
            raise SuiteError([f"{shown_as}: is a folder; name a suite file in it"])
        if file.exists() and not file.is_file():
            raise SuiteError([f"{shown_as}: is not a regular file"])
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise SuiteError([f"{shown_as}: there is no such file"]) from None
    except OSError as error:
        raise SuiteError([f"{shown_as}: cannot be read: {error.strerror}"]) from None
    except ValueError:  # a zero character in the path
        raise SuiteError([f"{shown_as}: there is no such file"]) from None
    if len(content) > LARGEST:
        raise SuiteError([f"{shown_as}: is larger than {LARGEST // 1024} KiB; that is no suite"])
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.count(b".") > MOST_DOTS:
            raise SuiteError([f"{shown_as}: line {number}: more than {MOST_DOTS} dots; that is nested too deeply"])
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise SuiteError([f"{shown_as}: line {number}: is not UTF-8"]) from None
    except ValueError as error:  # TOMLDecodeError, or Python's own limit on the digits of a number
        raise SuiteError([printable(f"{shown_as}: {_syntax(str(error))}")]) from None


def _syntax(message: str) -> str:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if not place:
        return f"not TOML: {message}"
    text = message[: place.start()]
    return f"line {place[1]}: {text}" if place[1] else f"end of file: {text}"


def _validate(data: dict[str, Any], file: Path) -> tuple[Suite | None, list[Problem]]:
    from harness.suite.checks import check

    suite, problems = None, []
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        problems = from_pydantic(error, Suite)
    if not NAME.fullmatch(file.stem):
        problems.append(((), "the file's name must be small letters, digits, '.', '_', '-', and end in .toml"))
    return suite, [*problems, *check(data)]
