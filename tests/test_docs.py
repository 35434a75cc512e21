"""What README.md and docs/ name exists, and README.md keeps its size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backends import BACKENDS
from harness.cli.main import parser
from harness.suite.load import load_suite

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").rglob("*.md"))]
VERBS = next(action for action in parser()._actions if action.metavar == "VERB").choices or {}


def section(name: str) -> str:
    return README.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def first_column(text: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.*?) \|", text, flags=re.M) for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_ones_that_the_command_line_has(page: Path) -> None:
    used = set(re.findall(r"(?:^ {4}|`)quantboard ([a-z]+)", page.read_text(encoding="utf-8"), flags=re.M))
    assert used <= set(VERBS)


def test_readme_lists_all_suites_backends_and_commands() -> None:
    assert first_column(section("Suites")) == {file.stem for file in (TOP / "suites").glob("*.toml")}
    assert first_column(section("Backends")) == set(BACKENDS.ours)
    assert set(re.findall(r"^    quantboard (\w+)", section("Commands"), flags=re.M)) == set(VERBS)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 900


def test_the_suite_of_ones_own_in_the_docs_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(
        r"```toml\n(.*?)```", (TOP / "docs" / "own-data.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    file = tmp_path / "mine.toml"
    file.write_text(text)
    suite = load_suite(str(file))
    assert suite.models["mine"].recipe == "load"
