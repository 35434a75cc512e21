"""`pick MODEL --data FILE`: guess the columns, write a suite file, run what fits the time, and read its records."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.suites import RunOptions, plan_offline, run_suite
from harness.cli.terminal import say
from harness.errors import QuantboardError
from harness.machine import paths
from harness.suite.guess import Columns, guess, head_of
from harness.suite.own import FEWEST_ROUNDS, Own, set_aside, slug, write_rows, write_suite

if TYPE_CHECKING:
    from harness.plan.spec import Cell
    from harness.records.schema import Record
    from harness.report.methods import Contest
    from harness.report.pick import Method

FOLDER = Path("picks")
"""Where suite files of picks are written, below the working folder."""
LAST = FOLDER / "LAST"
"""Holds the id of the record that the last pick names."""
CHARACTERS = 4
"""Of a token of running text, roughly; only the estimate of time reads it."""
LONGEST = 512
"""Tokens to which a sequence is cut at most, also where a model could take more."""
FEWEST = 500
"""Rows that are evaluated at least, where the time is short."""
_NUMBERED = re.compile(r"(checkpoint|step|epoch|model|output|best|final)?[-_]?\d*")
"""Names of folders that do not tell models apart."""
SPLITS = ("train", "dev", "valid", "validation", "test", "eval", "data")
"""Names of files that do not tell data sets apart."""
Rows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """A pick that is ready to run. notes: what was decided. tokens: of a typical sequence. rows: that are evaluated."""

    own: Own
    suite: Path
    notes: tuple[str, ...]
    tokens: int
    rows: int


def run_pick(options: argparse.Namespace) -> tuple[list[Record], list[str]]:
    """The records of all methods that fitted the time, and notes for below the table."""
    prepared = prepare(options)
    run, left_out = choose(prepared, options.minutes)
    notes = [*prepared.notes, *left_out]
    for note in notes:
        say(note)
    return run_suite(run, show_progress=not options.json), notes


def contest_of(records: Sequence[Record]) -> Contest:
    """The methods that were run. Raises QuantboardError with the reason where there is nothing to compare."""
    from harness.records import store
    from harness.records.scores import ScoreStore
    from harness.report.boards import make_boards
    from harness.report.methods import contests

    boards = make_boards(records, ScoreStore(store.read(paths.results())))
    for contest in (contest for board in boards for contest in contests(board)):
        return contest
    failed = [record for record in records if record.reason]
    if not failed:
        raise QuantboardError("no method has a valid accuracy; `quantboard run` with the suite file shows why")
    why = next((record for record in failed if record.baseline), failed[0])
    raise QuantboardError(" ".join(f"{why.label} {why.status}: {why.reason}; {why.remedy}".strip("; ").split()))


def remember(contest: Contest, ship: Method) -> str:
    """Note what the pick names, for `export LAST`. Returns the command."""
    records = [row.record for row in contest.board.rows if row.record.label == ship.name]
    chosen = min((record for record in records if record.model == contest.model), key=lambda record: record.seed)
    LAST.write_text(f"{chosen.record_id}\n", encoding="utf-8")
    return "quantboard export LAST out/"


def last_pick() -> str:
    """The id of the record that the last pick in this folder names. Raises QuantboardError where there was none."""
    try:
        return LAST.read_text(encoding="utf-8").strip()
    except OSError:
        raise QuantboardError(
            "LAST: no pick was made in this folder; change to the one that has picks/, or run: quantboard pick MODEL --data FILE"
        ) from None


def prepare(options: argparse.Namespace) -> Prepared:
    """Read the file, guess what is not given, and write the suite file. Raises QuantboardError, TaskError, BackendError."""
    from harness.checkpoints.hub import find_source

    source, file = _source(options.pick_model), Path(options.data)
    folder = find_source(source)
    rows, plain = _read(file)
    given = Columns(options.task_kind, options.text, options.text_pair, options.label, tuple(options.labels))
    try:
        columns = guess(rows, head_of(_config(folder)), given, file.name, _kinds())
    except QuantboardError as error:
        raise QuantboardError(str(error).replace("{command}", _command(options))) from None
    model, task = slug(_model_name(options.pick_model)), slug(_data_name(file))
    name = options.name or f"{task}-{model}"
    backends, longest = _backends(), max_length(folder)
    train, validation, split_notes = _splits(options, rows, columns, name, backends, plain)
    own = Own(
        name=name,
        title=f"{model} on {file.name}",
        task=_task_name(task),
        model=model,
        source=source,
        max_length=longest,
        columns=columns,
        validation=validation,
        train=train,
        backends=backends,
        skip_bad_rows=options.skip_bad_rows,
        labels=options.labels,
    )
    suite = FOLDER / f"{name}.toml"
    write_suite(own, suite)
    evaluated = len(rows) if validation == file else len(set_aside(rows)[1])
    notes = (_columns_note(file, len(rows), columns), *split_notes, f"Suite file: {suite}")
    return Prepared(own, suite, notes, _typical_tokens(rows, columns, longest), evaluated)


def choose(prepared: Prepared, minutes: float) -> tuple[RunOptions, list[str]]:
    """Which methods to run, on how many rows and in how many rounds, so that it takes about `minutes`: the baseline, then the
    cheap ones first. Writes the suite file again where the rounds change. The list says what is left out."""
    from harness.run.estimate import flops_per_second

    planned = plan_offline(RunOptions(str(prepared.suite)), ["hub"])
    cells = sorted((cell for cell in planned.cells if not cell.blocked), key=_cost)
    if not cells or not cells[0].baseline:
        why = next((cell.blocked for cell in planned.cells if cell.blocked), None)
        raise QuantboardError("; ".join(why) if why else "no method can run here; `quantboard doctor` says why")
    rate, budget, notes, limit = flops_per_second(), 60 * minutes, list[str](), prepared.rows

    def seconds(cell: Cell) -> float:
        return _seconds(cell, limit, prepared.tokens, rate)

    if sum(map(seconds, cells)) > budget:
        write_suite(replace(prepared.own, rounds=FEWEST_ROUNDS), prepared.suite)
        cells = [replace(cell, measure=replace(cell.measure, rounds=FEWEST_ROUNDS)) for cell in cells]
        notes.append(f"{FEWEST_ROUNDS} rounds, so that it fits {minutes:g} minutes (--minutes).")
    if sum(map(seconds, cells)) > budget and limit > FEWEST:
        fixed = sum(_seconds(cell, 1, prepared.tokens, rate) for cell in cells)
        a_row = (sum(map(seconds, cells)) - fixed) / limit
        limit = max(FEWEST, min(limit, int((budget - fixed) / a_row) if budget > fixed else 0))
        if limit < prepared.rows:
            notes.append(f"{limit:,} of {prepared.rows:,} rows are scored, so that it fits {minutes:g} minutes.")
    kept = [cells[0]]
    for cell in cells[1:]:
        if sum(map(seconds, kept)) + seconds(cell) <= budget or len(kept) == 1:
            kept.append(cell)
    for cell in cells:
        if cell not in kept:
            notes.append(f"{cell.label} does not fit {minutes:g} minutes; --minutes gives more.")
    names = tuple(cell.label for cell in kept) if len(kept) < len(cells) else ()
    drawn = limit if limit < prepared.rows else None
    return RunOptions(str(prepared.suite), backends=names, limit=drawn), notes


def _seconds(cell: Cell, rows: int, tokens: int, rate: float) -> float:
    from harness.run.estimate import cell_seconds
    from tasks import DataIdentity, SplitIdentity

    identity = DataIdentity("declared", "", {"validation": SplitIdentity(rows, None, "", "")})
    return cell_seconds(cell, identity, rate, tokens)


def _cost(cell: Cell) -> tuple[bool, int]:
    """The baseline first, then what needs nothing made, then what is calibrated."""
    from backends import get_backend

    return not cell.baseline, ("no", "dynamic", "static").index(get_backend(cell.backend).quantizes)


def _source(model: str) -> str:
    """A model as suites name it, a folder by its absolute path."""
    if model.partition(":")[0] in ("hub", "package"):
        return model
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise QuantboardError(f"{model}: no such folder; give a model folder, hub:OWNER/NAME or package:NAME/FOLDER")
    return str(folder.resolve())


def _model_name(model: str) -> str:
    """The last part of a model's place that tells it from others."""
    place = model.partition(":")[2] if model.startswith(("hub:", "package:")) else str(Path(model).resolve())
    parts = [part for part in place.split("/") if part]
    if len(parts) > 1 and _NUMBERED.fullmatch(parts[-1].lower()):
        return f"{parts[-2]}-{parts[-1]}" if any(map(str.isdigit, parts[-1])) else parts[-2]
    return parts[-1] if parts else "model"


def _data_name(file: Path) -> str:
    """The file's name, with that of its folder where it says only which split it is."""
    folder = file.resolve().parent.name
    return f"{folder}-{file.stem}" if folder and file.stem.lower() in SPLITS else file.stem


def _task_name(name: str) -> str:
    from tasks import task_names

    return name if re.match(r"[a-z0-9]", name) and name not in task_names() else f"my-{name}"


def _read(file: Path) -> tuple[Rows, bool]:
    """The rows of a file, and whether they were read as plain tabs: a TSV with lone quotes in it is taken as it stands."""
    from tasks import TaskError
    from tasks.tables import read_table

    try:
        return [values for _, values in read_table(file)], False
    except TaskError:
        if file.suffix.lower() == ".tsv" and (rows := _plain_tabs(file)):
            return rows, True
        raise


def _plain_tabs(file: Path) -> Rows:
    """The rows of a file of tabs without quoting, as GLUE's are; none where a line has not as many fields as the first."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    names, *rows = [line.split("\t") for line in lines if line]
    return [dict(zip(names, row, strict=True)) for row in rows] if all(len(row) == len(names) for row in rows) else []


def _config(folder: Path) -> Mapping[str, Any]:
    from backends.checkpoint import read_config

    return read_config(folder)


def _kinds() -> list[str]:
    from tasks.declared import KINDS

    return list(KINDS)


def _backends() -> list[dict[str, str]]:
    """Every backend that this machine has, with the first scheme that it can run; no simulations, and not the one for ONNX files
    made elsewhere. The registry's first is the baseline."""
    from backends import FOR_ONNX_FILES, backend_names, get_backend
    from backends.schemes import scheme_names
    from harness.machine import hardware
    from harness.suite.backend_checks import why_unsupported

    machine, entries = hardware.describe().as_dict(), []
    for number, name in enumerate(backend_names()):
        backend = get_backend(name)
        if name == FOR_ONNX_FILES or (number and (backend.simulated or not backend.availability(machine).available)):
            continue
        entry = {"name": name}
        if backend.quantizes == "static":
            entry["scheme"] = next(scheme for scheme in scheme_names() if not why_unsupported(backend, scheme))
        entries.append(entry)
    return entries


def _splits(
    options: argparse.Namespace,
    rows: Rows,
    columns: Columns,
    name: str,
    backends: Sequence[Mapping[str, str]],
    plain: bool,
) -> tuple[Path | None, Path, list[str]]:
    """The files of training and evaluation, and notes. A file is used where it lies unless a slice of it is set aside, or it
    was read as plain tabs."""
    file, folder, notes = Path(options.data), FOLDER / name, list[str]()
    calibrates = any("scheme" in backend for backend in backends)
    if plain:
        notes.append(f"{file.name} has lone quotes: it is read as plain tabs, with quotes as text.")
    if options.train:
        train_rows, train_plain = _read(Path(options.train))
        train = folder / "train.jsonl" if train_plain else Path(options.train)
        if train_plain:
            write_rows(train, train_rows, columns)
    elif not calibrates:
        train = None
    if options.train or not calibrates:
        if plain:
            write_rows(folder / "validation.jsonl", rows, columns)
        return train, folder / "validation.jsonl" if plain else file, notes
    aside, evaluated = set_aside(rows)
    write_rows(folder / "train.jsonl", [rows[place] for place in aside], columns)
    write_rows(folder / "validation.jsonl", [rows[place] for place in evaluated], columns)
    notes.append(
        f"{len(aside):,} of {len(rows):,} rows are set aside for INT8 ranges and not scored; --train FILE takes another file."
    )
    return folder / "train.jsonl", folder / "validation.jsonl", notes


def max_length(folder: Path) -> int:
    """Tokens to which a sequence is cut: what the tokenizer says, what the model has positions for, or LONGEST."""
    from backends.checkpoint import longest_sequence, read_config, read_family

    cut, most = _content(folder / "tokenizer.json").get("truncation"), _content(folder / "tokenizer_config.json")
    said = [(cut or {}).get("max_length"), most.get("model_max_length")]
    lengths = [int(length) for length in said if isinstance(length, int | float) and 8 <= length < LONGEST]
    return min(LONGEST, longest_sequence(read_config(folder), read_family(folder)), *lengths)


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _typical_tokens(rows: Rows, columns: Columns, longest: int) -> int:
    characters = sum(
        len(str(row.get(name) or "")) for row in rows for name in (columns.text, columns.text_pair) if name is not None
    )
    return max(8, min(longest, characters // len(rows) // CHARACTERS + 3))


def _columns_note(file: Path, count: int, columns: Columns) -> str:
    texts = " and ".join(f"'{name}'" for name in (columns.text, columns.text_pair) if name)
    classes = f", {len(columns.labels)} classes" if columns.labels else ""
    label = f"label '{columns.label}'" if columns.label else "a column for each label"
    return f"{file.name}: {count:,} rows, {columns.kind}: text {texts}, {label}{classes}."


def _command(options: argparse.Namespace) -> str:
    """The command as given, to which an option can be added."""
    words = ["quantboard", "pick", options.pick_model, "--data", options.data]
    for option in ("task_kind", "text", "text_pair", "label", "train"):
        if value := getattr(options, option):
            words += [f"--{option.replace('_', '-')}", value]
    return shlex.join(words)
