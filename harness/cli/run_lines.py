"""What the terminal shows at the end of a run, at most 80 columns wide: a table a task and model, and the notes of all below."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cli.method_table import RANGES, SPEED_RANGES, WIDTH, Notes, how_timed, table, titles_of, verdicts
from harness.cli.terminal import tell

if TYPE_CHECKING:
    from harness.records.schema import Record
    from harness.records.scores import ScoreStore
    from harness.report.boards import Board
    from harness.report.methods import Contest

SIMULATION = "A simulation rounds as an engine would. It has no speed."
SEEDS = "Of several seeds the median is shown, with the widest range; only the first is timed."
MOST_NAMED = 6
"""Cells that a note names; of more it says how many."""


def run_lines(records: Sequence[Record], until: str | None = None, stored: ScoreStore | None = None) -> list[str]:
    """The final tables of a run. until: the step after which it stopped, without records to compare. stored: their scores; default:
    those beside the records of this folder."""
    from harness.machine import paths
    from harness.records import store
    from harness.records.scores import ScoreStore
    from harness.report.boards import make_boards

    if stored is None and not until and paths.results().is_dir():
        stored = ScoreStore(store.read(paths.results(), tell), tell)
    boards = [board for board in make_boards(records, None if until else stored, for_pick=True) if board.rows]
    ranges = RANGES if any(board.primary for board in boards) else SPEED_RANGES
    notes, lines = Notes([ranges] if boards else ()), list[str]()
    for board in boards:
        lines += _board_lines(board, notes)
    _tell_reasons(records, notes)
    _tell_averages([] if until else records, notes)
    logs = [line for record in records for line in _log(record)]
    done = [] if boards or any(record.why for record in records) else [f"{len(records)} cells: done up to {until}."]
    return [*lines, *done, *notes.lines(), *logs]


def _board_lines(board: Board, notes: Notes) -> list[str]:
    from harness.report.methods import contests

    by_model = {contest.model: contest for contest in contests(board)}
    split = f" {board.split}" if board.split not in ("", "validation") else ""
    data = "sample data" if board.sample else board.data
    limit = f"{board.limit:,} examples, " if board.limit else ""
    lines = []
    for model in board.by_ancestor:
        head = f"{board.task}{split}, {model} ({limit}{data})"
        lines += [*textwrap.wrap(head, WIDTH), *_table(board, model, by_model.get(model), notes), ""]
    return lines


def _table(board: Board, model: str, contest: Contest | None, notes: Notes) -> list[str]:
    """The methods of a model; those without a valid accuracy, and simulations, come last."""
    from harness.report.comparability import NO_ACCURACY
    from harness.report.methods import methods_of

    everything = methods_of(board, model)
    verdict: dict[str, str] = {}
    if contest:
        verdict = _verdicts(contest, notes)
        for note in how_timed(contest):
            notes.add(note)
    for method, record in everything:
        caveat = _caveat(record)
        if caveat and method.name not in verdict:
            verdict[method.name] = f"{caveat[0]} {notes.add(caveat[1])}" if caveat[1] else caveat[0]
    if len({row.record.seed for row in board.by_ancestor[model]}) > 1:
        notes.add(SEEDS)
    if any(record.speed_only for _, record in everything):
        notes.add(NO_ACCURACY)
    methods = [method for method, _ in everything]
    if board.sample:
        notes.add("Sample data: its figures say nothing about real data, and no pick is made from it.")
    return table(methods, board.primary, verdict, titles_of(methods), memory=True)


def _verdicts(contest: Contest, notes: Notes) -> dict[str, str]:
    """By the suite's own limit on accuracy; of the sample and of runs without speeds only the baseline is named."""
    from harness.report.columns import min_accuracy
    from harness.report.pick import Limits, pick

    timed = sum(method.speed_up is not None for method in contest.methods) > 1
    if contest.board.sample or not timed or not contest.metric:
        return {contest.baseline_name: "base"}
    keep = min_accuracy(contest.baseline)
    notes.add(f"ship, fits: keeps {100 * keep:g}% (measure.min_accuracy); quantboard pick takes other limits.")
    return verdicts(contest, pick(contest.methods, Limits(keep=keep), contest.p_of_speed), notes)


def _caveat(record: Record) -> tuple[str, str] | None:
    """(word, note) of a row that is no method to ship."""
    from harness.report.comparability import has_valid_accuracy

    if not has_valid_accuracy(record):
        return "bad", f"{record.model} {record.label}: {record.why}. Do not trust its figures."
    return ("sim", SIMULATION) if record.simulated else None


def _tell_reasons(records: Sequence[Record], notes: Notes) -> None:
    """Why cells were skipped, failed or are invalid: each reason once, with the cells that it is about."""
    several = {name: len({getattr(record, name) for record in records}) > 1 for name in ("model", "task", "seed")}
    by_reason: dict[tuple[str, str, str], dict[str, None]] = {}
    for record in records:
        if record.why:
            cells = by_reason.setdefault((record.standing, record.why, record.remedy), {})
            cells[_cell(record, several.__getitem__)] = None
    for (standing, why, remedy), cells in by_reason.items():
        names = ", ".join(list(cells)[:MOST_NAMED])
        more = f" and {len(cells) - MOST_NAMED} more" if len(cells) > MOST_NAMED else ""
        state = {"skipped": "did not run", "invalid": "in part invalid"}.get(standing, standing)
        fix = f" {remedy[:1].upper()}{remedy[1:]}." if remedy else ""
        notes.add(f"{names}{more} {state}: {' '.join(why.split()).rstrip('.')}.{fix}")


def _cell(record: Record, differs: Callable[[str], bool]) -> str:
    """A cell by what tells it from the others of the run."""
    parts = [record.label, record.model if differs("model") else "", record.task if differs("task") else ""]
    parts.append(f"seed {record.seed}" if differs("seed") else "")
    return " / ".join(filter(None, parts))


def _tell_averages(records: Sequence[Record], notes: Notes) -> None:
    from harness.report.macro_average import definition, macro_averages, macro_line

    averages = [average for average in macro_averages(records) if average.figure]
    for average in averages:
        notes.add(macro_line(average))
    for benchmark in dict.fromkeys(average.benchmark for average in averages):
        notes.add(f"{benchmark} macro average: the {definition(benchmark)}.")


def _log(record: Record) -> list[str]:
    """The last lines of a failed cell's log, below its name."""
    return (
        [f"{record.model} / {record.task} / {record.label}:", *(f"    {line}" for line in record.log_tail)]
        if record.log_tail
        else []
    )
