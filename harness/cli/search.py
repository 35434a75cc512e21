"""The verb `search`: a scheme of static INT8 that keeps a share of the accuracy, for a suite's row or a model and a file."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import Verbs, add_columns, add_verb, positive, positive_number, share, suite_name
from harness.cli.search_lines import answer_lines, say_within
from harness.errors import QuantboardError, disk_fault

if TYPE_CHECKING:
    from harness.cli.suites import RunOptions
    from harness.plan.plan import Plan
    from harness.plan.spec import Cell
    from harness.run.search import Found

TRAINED = 20_000
"""Rows of a user's file that a training learns from at most."""
MARK = "# Written by `quantboard search`, which overwrites it: copy it before you change it."


def add_verbs(verbs: Verbs) -> None:
    text = (
        "find a scheme of static INT8 that keeps --keep of the accuracy, on training rows: range estimators, SmoothQuant, corrected"
        " biases, layers in float; writes a suite"
    )
    parser = add_verb(verbs, "search", search, text)
    parser.add_argument(
        "subject",
        metavar="SUITE|MODEL",
        help="a suite, or with --data FILE a model folder, hub:OWNER/NAME or package:NAME/FOLDER",
    )
    parser.add_argument(
        "--data",
        metavar="DIR|FILE",
        help="of a suite: folder with the data, 'sample' or 'real', default the hub; of a model: labelled rows, as `pick` takes them",
    )
    goals = parser.add_argument_group("goals")
    goals.add_argument(
        "--keep", type=share, default=0.999, metavar="SHARE", help="of the baseline's score at least; 0.999"
    )
    goals.add_argument(
        "--gain", type=positive_number, default=1.0, metavar="TIMES", help="the baseline's speed, more than this; 1"
    )
    goals.add_argument("--sure", action="store_true", help="the lower ends of the 95%% intervals must hold both")
    suite = parser.add_argument_group("with SUITE")
    suite.add_argument("--model", metavar="NAME", help="default: the suite's only one")
    suite.add_argument("--task", metavar="NAME", help="default: the suite's only one")
    suite.add_argument(
        "--out", type=Path, metavar="FILE", help="of the same folder; default: SUITE-searched.toml beside the suite"
    )
    model = parser.add_argument_group("with MODEL")
    model.add_argument(
        "--train", metavar="FILE", help="rows that choose; default: a slice of --data, which is not scored"
    )
    add_columns(model)
    model.add_argument("--name", type=suite_name, metavar="NAME", help="of the suite file: picks/NAME-searched.toml")
    parser.add_argument(
        "--backend", metavar="LABEL", help="a row of static INT8 with a post-training scheme; default: the first"
    )
    parser.add_argument(
        "--qat-minutes",
        type=positive_number,
        default=0.0,
        metavar="N",
        help="where nothing else keeps enough, train with quantizers for so long at most, on other rows; default: not",
    )
    parser.add_argument(
        "--rows", type=positive, default=512, metavar="N", help="training rows that score candidates, at most; 512"
    )


def search(options: argparse.Namespace) -> int:
    from harness.cli.suites import plan_offline
    from harness.machine import hardware
    from harness.plan.spec import SAMPLE_NOTICE
    from harness.run import search as method
    from harness.run.context import new_run
    from harness.suite.own import SEARCH

    chosen = _of_model(options) if is_model(options.subject) else _of_suite(options)
    data = None if is_model(options.subject) else options.data
    planned = plan_offline(chosen, ["hub"])
    cell, baseline = choose_cells(planned, options.backend)
    if planned.on_sample:
        say_within(SAMPLE_NOTICE)
    file = planned.suite._file
    assert file is not None
    target = options.out or file.with_name(f"{file.stem.removesuffix(SEARCH)}-searched.toml")
    _check_target(file, target)
    run = new_run(
        planned.suite.name,
        planned.suite.title,
        command="",
        machine=hardware.describe(),
        identities={},
        say=say_within,
        show_progress=not options.json,
    )
    goals = method.Goals(options.keep, options.gain, options.sure)
    found = method.search(cell, baseline, goals, run, options.rows, _qat_minutes(options.qat_minutes, planned, cell))
    if found.best:
        _write(target, suite_text(file.read_text(encoding="utf-8"), cell, found, options.keep))
        folder = run.results / "sample" if planned.on_sample else run.results
        write_search(folder, target.stem, cell, baseline, found)
    shown = str(target) if found.best else None
    if options.json:
        print(json.dumps({"file": shown, **asdict(found)}))
    else:
        print("\n".join(answer_lines(cell, baseline, found, shown, data)))
    return 0 if found.best else 1


def _qat_minutes(minutes: float, planned: Plan, cell: Cell) -> float:
    """What is asked; 0, and the reason said, where the model cannot be trained."""
    from harness.run.search_training import why_untrained

    if not minutes:
        return 0.0
    facts = planned.suite.facts(cell.task)
    why = why_untrained(cell, facts.kind if facts else None, on_sample=planned.on_sample)
    if why:
        say_within(f"QAT is left out: {why}")
    return 0.0 if why else minutes


def is_model(subject: str) -> bool:
    """Whether the argument names a model, not a suite."""
    return subject.partition(":")[0] in ("hub", "package") or (Path(subject) / "config.json").is_file()


def _of_suite(options: argparse.Namespace) -> RunOptions:
    from harness.cli.suites import RunOptions

    return RunOptions(
        options.subject,
        options.data,
        models=(options.model,) if options.model else (),
        tasks=(options.task,) if options.task else (),
    )


def _of_model(options: argparse.Namespace) -> RunOptions:
    """Write a suite file for a model and a file, as a pick does, with more rows set aside."""
    from harness.cli.pick_run import prepare
    from harness.cli.suites import RunOptions

    if not options.data:
        model = shlex.quote(options.subject)
        raise QuantboardError(f"search tries schemes on labelled rows: quantboard search {model} --data FILE")
    options.pick_model, options.made_from = options.subject, None
    prepared = prepare(options, searches=options.rows + (TRAINED if options.qat_minutes else 0))
    for note in prepared.notes:
        say_within(note)
    return RunOptions(str(prepared.suite))


def choose_cells(planned: Plan, label: str | None) -> tuple[Cell, Cell]:
    """The cell to search for, and its baseline. Raises QuantboardError, naming the choice, unless there is one of each."""
    from backends import get_backend

    static = [
        cell
        for cell in planned.cells
        if cell.scheme
        and cell.checkpoint.recipe == "ptq"
        and not get_backend(cell.backend).simulated
        and (label in (None, cell.label))
    ]
    if any(cell.checkpoint.speed_only for cell in static):
        raise QuantboardError(
            f"{planned.suite.name}: random weights have no accuracy to search by; name another model with --model"
        )
    if not static:
        raise QuantboardError(
            f"{planned.suite.name}: no row{f' {label}' if label else ''} is static INT8 with a post-training scheme, such as"
            " onnxruntime_int8 with scheme engine_int8; add one, or name it by its label with --backend"
        )
    for key in ("model", "task"):
        names = list(dict.fromkeys(getattr(cell, key) for cell in static))
        if len(names) > 1:
            raise QuantboardError(f"the suite has {len(names)} {key}s: {', '.join(names)}; name one with --{key}")
    usable = [cell for cell in static if not cell.blocked]
    if not usable:
        assert static[0].blocked
        raise QuantboardError("; ".join(static[0].blocked))
    cell = usable[0]
    same = (cell.model, cell.task, cell.seed)
    base = next((one for one in planned.cells if one.baseline and (one.model, one.task, one.seed) == same), None)
    if base is None or base.blocked:
        raise QuantboardError(
            f"{planned.suite.name}: the baseline does not run here: {'; '.join(base.blocked) if base and base.blocked else 'no row'}"
        )
    return cell, base


def suite_text(text: str, cell: Cell, found: Found, keep: float) -> str:
    """The suite with the scheme that was found and a row that runs it. Comments of the suite are left out."""
    from backends.schemes import changes_of

    assert found.best is not None
    base, changes = changes_of(found.best.scheme)
    suite = tomllib.loads(text)
    name = _free("searched", suite.get("schemes", {}))
    scheme: dict[str, Any] = {"base": base}
    for key, value in changes.items():
        table, _, field = key.rpartition(".")
        (scheme.setdefault(table, {}) if table else scheme)[field] = value
    suite |= {"schemes": {**suite.get("schemes", {}), name: scheme}}
    if found.best.train:
        model = {"source": f"model:{cell.model}", "recipe": "qat", "scheme": name, "train": dict(found.best.train)}
        name = _free(f"{cell.model}-qat", suite["models"])
        suite |= {"models": {**suite["models"], name: model}}
    else:
        row = {"name": cell.backend, "scheme": name, "label": f"{cell.backend} {name}", **cell.options}
        suite |= {"backends": [*suite["backends"], row]}
    chosen = f"# {name} keeps {100 * keep:g}% of {found.metric} on the {found.examples} training rows that chose it."
    return "\n".join([MARK, chosen, "", *_toml(suite)]) + "\n"


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name, with a number where it is taken."""
    return next(free for n in range(len(taken) + 1) if (free := f"{name}{n or ''}") not in taken)


def _toml(suite: Mapping[str, Any]) -> Iterator[str]:
    """A suite as TOML: each table, and each table of a list, under a head of its own."""
    tables = {key: value for key, value in suite.items() if isinstance(value, dict)}
    lists = {
        key: value for key, value in suite.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    yield from (f"{_key(key)} = {_inline(value)}" for key, value in suite.items() if key not in tables | lists)
    for key, content in tables.items():
        parts = {name: part for name, part in content.items() if isinstance(part, dict)}
        if plain := {name: part for name, part in content.items() if name not in parts}:
            yield from _table(f"[{_key(key)}]", plain)
        for name, part in parts.items():
            yield from _table(f"[{_key(key)}.{_key(name)}]", part)
    for key, rows in lists.items():
        for row in rows:
            yield from _table(f"[[{_key(key)}]]", row)


def _table(head: str, content: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", head, *(f"{_key(key)} = {_inline(value)}" for key, value in content.items()))


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _inline(key)


def _inline(value: Any) -> str:
    """A TOML value. JSON's strings are TOML's basic strings, but for a delete character."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_target(file: Path, target: Path) -> None:
    """Raises QuantboardError, before hours of work, for a file that cannot be written."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", target.stem) or target.suffix != ".toml":
        raise QuantboardError(f"--out: {target}: use small letters, digits, '.', '_' and '-', and end with .toml")
    if target.resolve().parent != file.resolve().parent:
        raise QuantboardError(f"--out: {target}: name a file in {file.parent}, since the suite's sources lie below it")
    if target.exists() and not target.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise QuantboardError(f"--out: {target}: was not written by `quantboard search`; name another file")


def write_search(results: Path, name: str, cell: Cell, baseline: Cell, found: Found) -> Path:
    """What the suite's page shows of the search: a JSON file beside the records. Raises QuantboardError."""
    path = results / "searches" / f"{name}.json"
    place = {
        "suite": name,
        "model": cell.model,
        "task": cell.task,
        "backend": cell.backend,
        "baseline": baseline.backend,
        "baseline_score": found.baseline,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found) | place, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise QuantboardError(disk_fault(error, path, "make the folder writable")) from None
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise QuantboardError(disk_fault(error, path, "name another file with --out")) from None
