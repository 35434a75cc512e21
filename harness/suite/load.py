"""From a suite file to a Suite: find it, parse it, check it. All problems of a file are reported at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import SuiteError, did_you_mean, printable
from harness.machine import paths
from harness.suite.checks import check
from harness.suite.problems import Problem, from_pydantic, lines
from harness.suite.scheme_tables import List
from harness.suite.tables import Reference, Suite

MAX_BYTES = 256 * 1024
"""The largest suite file that is read; suites are written by hand."""


MAX_DOTS = 100
"""In one line. tomllib's time is quadratic in the parts of a dotted key: a key of 20,000 parts took it 50 s."""


NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of suites, which are part of file names."""


class _PageContent(BaseModel):
    """What pages show of a suite file."""

    description: str = ""
    references: List[Reference] = ()


def load_suite(name_or_path: str, suites_dir: Path | None = None) -> Suite:
    """The suite of that name in `suites_dir` (default: `paths.suites()`), or in that file, where it contains a slash or ends in
    `.toml`. Raises SuiteError with every problem of the file."""
    file = find(name_or_path, suites_dir or paths.suites())
    shown_as = printable(_relative(file))
    try:
        data = _parse(file, shown_as)
        suite, problems = _validate(data, file)
    except RecursionError:
        raise SuiteError([f"{shown_as}: tables or lists are nested too deeply; use fewer levels"]) from None
    if problems or suite is None:
        raise SuiteError(lines(shown_as, data, problems))
    suite._file = file
    return suite


def load_for_pages(file: Path) -> tuple[str, list[dict[str, Any]]]:
    """A suite file's description and published figures. The rest of the file must be TOML but is not checked, since records
    outlive the settings of their suite. Raises SuiteError."""
    shown_as = printable(_relative(file))
    try:
        data = _parse(file, shown_as)
        _PageContent.model_validate(data)
    except ValidationError as error:
        raise SuiteError(lines(shown_as, data, from_pydantic(error, _PageContent))) from None
    except RecursionError:
        raise SuiteError([f"{shown_as}: tables or lists are nested too deeply; use fewer levels"]) from None
    return data.get("description", ""), data.get("references", [])


def find(name: str, folder: Path) -> Path:
    """The file of a suite, by its path, or by its name in `folder`. Raises SuiteError for an unknown name."""
    if "/" in name or "\\" in name or name.endswith(".toml"):
        return Path(name)
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known and len(name) <= 60 and Path(name).is_file():  # a longer one may be too long for a file
        raise SuiteError(
            [
                printable(
                    f"{name[:80]}: a suite file ends in .toml; a model is run on labelled rows by quantboard pick MODEL --data {name[:80]}"
                )
            ]
        )
    if name not in known:
        hint = did_you_mean(name, known) if known else f"; {folder} has no suites, give the path of a suite file"
        names = f" (suites: {', '.join(known)})" if hint.startswith("; did") else ""
        hint = hint if names or not known else f"; known: {', '.join(known)}"
        raise SuiteError([printable(f"unknown suite '{name[:80]}'{hint}{names}")])
    return folder / f"{name}.toml"


def _relative(file: Path) -> str:
    try:
        return str(file.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def _parse(file: Path, shown_as: str) -> dict[str, Any]:
    try:
        if file.is_dir():
            raise SuiteError([f"{shown_as}: is a folder; give the path of a suite file"])
        if file.exists() and not file.is_file():
            raise SuiteError([f"{shown_as}: is not a regular file; give the path of a suite file"])
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError):  # ValueError: a zero character in the path
        raise SuiteError([f"{shown_as}: no such file; give the path of a suite file, or a suite's name"]) from None
    except OSError as error:
        raise SuiteError([f"{shown_as}: cannot be read ({error.strerror}); give the path of a suite file"]) from None
    if len(content) > MAX_BYTES:
        raise SuiteError(
            [f"{shown_as}: is larger than {MAX_BYTES // 1024} KiB, the limit; give the path of a suite file"]
        )
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.count(b".") > MAX_DOTS:
            raise SuiteError([f"{shown_as}: line {number}: has more than {MAX_DOTS} dots; nest tables less deeply"])
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise SuiteError([f"{shown_as}: line {number}: is not UTF-8; save the file as UTF-8"]) from None
    except ValueError as error:  # TOMLDecodeError, or Python's own limit on the digits of a number
        raise SuiteError([printable(f"{shown_as}: {_syntax(str(error))}")]) from None


def _syntax(message: str) -> str:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if not place:
        return f"not TOML: {message}"
    text = message[: place.start()]
    return f"line {place[1]}: {text}" if place[1] else f"end of file: {text}"


def _validate(data: dict[str, Any], file: Path) -> tuple[Suite | None, list[Problem]]:
    suite, problems = None, []
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        problems = from_pydantic(error, Suite)
    if not NAME.fullmatch(file.stem):
        problems.append(
            ((), "rename the file: use lower-case letters, digits, '.', '_' and '-' only, and end with .toml")
        )
    return suite, [*problems, *check(data)]
