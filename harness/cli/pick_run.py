"""`pick MODEL --data FILE`: guess the columns, write a suite file, run what fits the time, and read its records."""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import artefacts
from harness.cli.pick_data import (
    FOLDER,
    columns_note,
    find_places,
    read,
    split_files,
    typical_tokens,
    with_unanswerable,
)
from harness.cli.pick_model import backends_of, find_model, max_length
from harness.cli.suites import RunOptions, plan_offline, run_suite
from harness.cli.terminal import say, tell
from harness.errors import QuantboardError
from harness.machine import paths
from harness.suite.guess import Columns, guess, head_of
from harness.suite.own import FEWEST_ROUNDS, SEARCH, SEARCHED_NAME, Own, slug, write_suite

if TYPE_CHECKING:
    from harness.plan.spec import Cell
    from harness.records.schema import Record
    from harness.report.methods import Contest
    from harness.report.pick import Method

LAST = FOLDER / "LAST"
"""Holds the id of the record that the last pick names."""
MARGIN = 1.3
"""How many times longer than estimated a pick may take."""
FAR_LONGER = 2.0
"""Times the median method's time, from which a method is left out first: compiling takes minutes in every process."""
FEWEST = 500
"""Rows that are evaluated at least, where the time is short."""


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
    records, _ = run_suite(run, show_progress=not options.json)
    return records, notes


def contest_of(records: Sequence[Record]) -> Contest:
    """The methods that were run. Raises QuantboardError with the reason where there is nothing to compare."""
    from harness.records import store
    from harness.records.scores import ScoreStore
    from harness.report.boards import make_boards
    from harness.report.methods import contests

    boards = make_boards(records, ScoreStore(store.read(paths.results(), tell), tell), for_pick=True)
    for contest in (contest for board in boards for contest in contests(board)):
        return contest
    failed = [record for record in records if record.reason]
    if not failed:
        raise QuantboardError("no method has a valid accuracy; `quantboard run` with the suite file shows why")
    why = next((record for record in failed if record.baseline), failed[0])
    raise QuantboardError(" ".join(f"{why.label} {why.status}: {why.reason}; {why.remedy}".strip("; ").split()))


def remember(contest: Contest, ship: Method) -> str:
    """Note what the pick names, for `export LAST`. Returns the command."""
    chosen = min((row.record for row in contest.rows[ship.name]), key=lambda record: record.seed)
    artefacts.write_whole(LAST, f"{chosen.record_id}\n".encode())
    return "quantboard export LAST out/"


def last_pick() -> str:
    """The id of the record that the last pick in this folder names. Raises QuantboardError where there was none."""
    try:
        return LAST.read_text(encoding="utf-8").strip()
    except OSError:
        raise QuantboardError(
            "LAST: no pick was made in this folder; change to the one that has picks/, or run: quantboard pick MODEL --data FILE"
        ) from None


def prepare(options: argparse.Namespace, *, searches: int = 0) -> Prepared:
    """Read the file, guess what is not given, and write the suite file. searches: rows that the verb `search` needs beside those of
    calibration; 0 for a pick. Raises QuantboardError, TaskError, BackendError."""
    given = find_model(options.pick_model, options.made_from)
    head = head_of(_config(given.folder))
    places = find_places(options.data, options.train)
    table = read(places.evaluated, options.task_kind or head.kind, skip=options.skip_bad_rows)
    named = Columns(options.task_kind, options.text, options.text_pair, options.label, tuple(options.labels))
    try:
        columns = with_unanswerable(guess(table.rows, head, named, places.shown, _kinds()), table)
    except QuantboardError as error:
        raise QuantboardError(
            str(error).replace("{command}", _command(options, "search" if searches else "pick"))
        ) from None
    task = slug(places.name)
    name = options.name or f"{task}-{given.name}"
    name = f"{name[:SEARCHED_NAME]}{SEARCH}" if searches else name
    backends, longest = backends_of(given), max_length(given.folder, columns.kind)
    calibrates = any("scheme" in backend for backend in backends)
    files = split_files(options, places, table, columns, name, calibrates=calibrates, searches=searches)
    own = Own(
        name=name,
        title=f"{given.name} on {places.shown}",
        task=_task_name(task),
        model=given.name,
        source=given.source,
        files=given.files,
        max_length=longest,
        columns=columns,
        validation=files.validation,
        train=files.train,
        backends=backends,
        skip_bad_rows=options.skip_bad_rows,
        labels=options.labels,
    )
    suite = FOLDER / f"{name}.toml"
    write_suite(own, suite)
    notes = (*given.notes, columns_note(places, len(table.rows), columns), *files.notes, f"Suite file: {suite}")
    return Prepared(own, suite, notes, typical_tokens(table.rows, columns, longest), files.rows)


def choose(prepared: Prepared, minutes: float) -> tuple[RunOptions, list[str]]:
    """Which methods to run, on how many rows and in how many rounds, so that it takes about `minutes`. Where all take longer,
    methods that take far longer than most are left out first, then there are fewer rounds, fewer rows, and at last only the
    cheap methods. The suite file then holds just what is run. The list says what is left out."""
    from backends import FOR_ONNX_FILES
    from harness.run.estimate import flops_per_second

    planned = plan_offline(RunOptions(str(prepared.suite)), ["hub"])
    cells = sorted((cell for cell in planned.cells if not cell.blocked), key=_cost)
    if not cells or not cells[0].baseline:
        why = next((cell.blocked for cell in planned.cells if cell.blocked), None)
        raise QuantboardError("; ".join(why) if why else "no method can run here; `quantboard doctor` says why")
    rate, budget, notes, limit = flops_per_second(), 60 * minutes / MARGIN, list[str](), prepared.rows

    def seconds(cell: Cell) -> float:
        return _seconds(cell, limit, prepared.tokens, rate)

    every = cells
    if sum(map(seconds, cells)) > budget:
        most = FAR_LONGER * statistics.median(map(seconds, cells))
        cells = [cell for cell in cells if cell.baseline or seconds(cell) <= most]
    if sum(map(seconds, cells)) > budget:
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
    runs = {_entry(cell) for cell in kept}
    left_out = [entry for entry in dict.fromkeys(map(_entry, every)) if entry not in runs]
    notes += [f"{entry} does not fit {minutes:g} minutes; --minutes gives more." for entry in left_out]
    if prepared.own.files and not prepared.own.files.keys() - set(left_out):
        left_out.append(FOR_ONNX_FILES)
    drawn = limit if limit < prepared.rows else None
    own = replace(prepared.own, rounds=cells[0].measure.rounds, left_out=left_out, minutes=minutes, limit=drawn)
    write_suite(own, prepared.suite)
    return RunOptions(str(prepared.suite), limit=drawn), notes


def _entry(cell: Cell) -> str:
    """What the suite file calls the cell's method: a backend, or an ONNX file."""
    from backends import FOR_ONNX_FILES

    return cell.model if cell.backend == FOR_ONNX_FILES else cell.backend


def _seconds(cell: Cell, rows: int, tokens: int, rate: float) -> float:
    from harness.run.estimate import cell_seconds
    from tasks import DataIdentity, SplitIdentity

    identity = DataIdentity("declared", "", {"validation": SplitIdentity(rows, None, "", "")})
    return cell_seconds(cell, identity, rate, tokens)


def _cost(cell: Cell) -> tuple[bool, int]:
    """The baseline first, then what the user gave, what needs nothing made, and what is calibrated."""
    from backends import FOR_ONNX_FILES, get_backend

    if cell.backend == FOR_ONNX_FILES:
        return not cell.baseline, -1
    return not cell.baseline, ("no", "dynamic", "static").index(get_backend(cell.backend).quantizes)


def _task_name(name: str) -> str:
    from tasks import task_names

    return name if re.match(r"[a-z0-9]", name) and name not in task_names() else f"my-{name}"


def _config(folder: Path) -> Mapping[str, Any]:
    from backends.checkpoint import read_config

    return read_config(folder)


def _kinds() -> list[str]:
    from tasks.declared import KINDS

    return list(KINDS)


def _command(options: argparse.Namespace, verb: str) -> str:
    """The command as given, to which an option can be added."""
    words = ["quantboard", verb, options.pick_model, "--data", options.data]
    for option in ("made_from", "task_kind", "text", "text_pair", "label", "train"):
        if value := getattr(options, option):
            words += [f"--{option.replace('_', '-')}", value]
    return shlex.join(words)
