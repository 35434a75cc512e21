"""The rooms of the house: which way imports go, how large a file or function may be, and what harness/ must not know."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import backend_names
from tasks import task_names

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "backends", "tasks")
FILES = sorted(path.relative_to(ROOT) for name in (*PACKAGES, "tests") for path in (ROOT / name).rglob("*.py"))
TREES = {file: ast.parse((ROOT / file).read_text(encoding="utf-8")) for file in FILES}
MODULES = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def layers() -> list[set[str]]:
    """The wings from the highest to the lowest, as pyproject.toml gives them to import-linter."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    wings = next(contract["layers"] for contract in contracts if "harness.cli" in contract["layers"])
    return [set(layer.split(" | ")) for layer in wings]


def imported(module: str) -> Iterator[str]:
    """Modules of ours that a module imports anywhere, inside functions too."""
    for node in ast.walk(TREES[MODULES[module]]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def test_wings_import_downwards_only() -> None:
    level = {wing: number for number, wings in enumerate(layers()) for wing in wings}
    wing = {module: ".".join(module.split(".")[:2]) for module in MODULES}
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in imported(module)
        if wing[module] in level
        and wing[other] in level
        and wing[module] != wing[other]
        and level[wing[other]] <= level[wing[module]]
    ]
    assert not wrong
    known = {wing[module] for module in MODULES if module.startswith("harness.")} - {"harness.__main__"}
    assert known == set(level), "every wing stands in the contract"


def test_no_import_circles() -> None:
    rest = {module: set(imported(module)) - {module} for module in MODULES if module.split(".")[0] in PACKAGES}
    while free := {module for module, others in rest.items() if not others & rest.keys()}:
        rest = {module: others for module, others in rest.items() if module not in free}
    assert not rest, "these modules import each other"


def test_backends_and_tasks_know_neither_the_harness_nor_each_other() -> None:
    for package, others in (("backends", ("harness", "tasks")), ("tasks", ("harness", "backends"))):
        for module in MODULES:
            if module.split(".")[0] == package:
                assert not [name for name in imported(module) if name.split(".")[0] in others], module


def test_the_top_of_the_harness_is_small() -> None:
    entries = [path for path in (ROOT / "harness").iterdir() if not path.name.startswith("__")]
    assert len(entries) <= 12


@pytest.mark.parametrize("file", FILES, ids=str)
def test_files_and_functions_are_short(file: Path) -> None:
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


def test_the_harness_names_no_engine_and_no_data_set() -> None:
    names = {*backend_names(), *task_names()}
    for file, tree in TREES.items():
        if file.parts[0] == "harness":
            named = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in names]
            assert not named, file


def test_templates_lay_out_and_do_not_compute() -> None:
    for template in (ROOT / "site" / "templates").glob("*.html"):
        text = template.read_text(encoding="utf-8")
        for word in ("{% set", "selectattr", "rejectattr", "groupby", "loop.index0", "namespace("):
            assert word not in text, f"{template.name}: {word}: decide it in harness/report"
