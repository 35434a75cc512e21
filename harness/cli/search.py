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
from harness.cli.terminal import say
from harness.errors import QuantboardError, disk_fault

if TYPE_CHECKING:
    from harness.cli.suites import RunOptions
    from harness.measure.paired import PairedTest
    from harness.plan.plan import Plan
    from harness.plan.spec import Cell
    from harness.run.search import Candidate, Found

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
    planned = plan_offline(chosen, ["hub"])
    cell, baseline = choose_cells(planned, options.backend)
    if planned.on_sample:
        say(SAMPLE_NOTICE)
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
        say=say,
        show_progress=not options.json,
    )
    goals = method.Goals(options.keep, options.gain, options.sure)
    found = method.search(cell, baseline, goals, run, options.rows)
    if found.best:
        _write(target, suite_text(file.read_text(encoding="utf-8"), cell, found, options.keep))
        folder = run.results / "sample" if planned.on_sample else run.results
        write_search(folder, target.stem, cell, baseline, found)
    shown = str(target) if found.best else None
    if options.json:
        print(json.dumps({"file": shown, **asdict(found)}))
    else:
        print("\n".join(lines(cell, baseline, found, shown)))
    return 0 if found.best else 1


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
    prepared = prepare(options, searches=options.rows)
    for note in prepared.notes:
        say(note)
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
    taken = suite.get("schemes", {})
    name = next(f"searched{n or ''}" for n in range(len(taken) + 1) if f"searched{n or ''}" not in taken)
    scheme: dict[str, Any] = {"base": base}
    for key, value in changes.items():
        table, _, field = key.rpartition(".")
        (scheme.setdefault(table, {}) if table else scheme)[field] = value
    row = {"name": cell.backend, "scheme": name, "label": f"{cell.backend} {name}", **cell.options}
    suite |= {"schemes": {**taken, name: scheme}, "backends": [*suite["backends"], row]}
    chosen = f"# {name} keeps {100 * keep:g}% of {found.metric} on the {found.examples} training rows that chose it."
    return "\n".join([MARK, chosen, "", *_toml(suite)]) + "\n"


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


def lines(cell: Cell, baseline: Cell, found: Found, file: str | None) -> list[str]:
    """The answer, for a terminal."""
    where = f"{found.examples} training rows, on which nothing was calibrated"
    width = max(len(one.way) for one in found.candidates)
    told = [
        f"{cell.model}, {cell.task}: {cell.backend} against {baseline.backend}, {found.metric} {found.baseline:.2f} on {where}",
        "",
        f"{'way':<{width}}  {'in float':>8}  {'kept':>8}  {'95%':>19}  {'logits':>8}  {'speed':>8}  95%",
    ]
    told += [f"{one.way:<{width}}  {_line(one, found.baseline, one == found.best)}" for one in found.candidates]
    told += [
        "",
        "Logits: how far they move, as a share of their variance. Of each part alone, in the way that moves them least:",
    ]
    told += [f"  {error:9.2e}  {pattern}" for pattern, error in found.sensitivities[:8]]
    if found.best is None:
        return [*told, "", f"No result: {found.why}"]
    kept = found.best.kept
    return [
        *told,
        "",
        f"Take: {found.best.way}" + (f", and keep in float {', '.join(kept)}" if kept else ", no layer in float"),
        f"{file}: the suite with this row. The evaluation split was not read: quantboard run {file}",
    ]


def _line(one: Candidate, baseline: float, best: bool) -> str:
    difference = one.difference
    ends = "no interval"
    if difference.low is not None and difference.high is not None:
        ends = f"{100 * (1 + difference.low / baseline):.2f} to {100 * (1 + difference.high / baseline):.2f}%"
    kept = f"{100 * one.share(baseline):.2f}%"
    return (
        f"{len(one.kept):>8}  {kept:>8}  {ends:>19}  {one.error:8.1e}  {_speed(one.speed)}{'  <- this' if best else ''}"
    )


def _speed(test: PairedTest | None) -> str:
    if test is None:
        return f"{'-':>8}"
    return f"{test.value:7.2f}x" + (f"  {test.low:.2f} to {test.high:.2f}" if test.low and test.high else "")


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
