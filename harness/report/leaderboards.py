"""All methods of one task and model on one machine, from every suite that ran there: what a page names a pick of.

A board holds the rows of one suite. Rows of several suites stand together here, each compared with the baseline of its own
suite. Their runs differ by more than rounds within a run show; where that is known from repeated runs, all speed-ups of such a
table include it. Where two suites have the same method, the suite counts that timed more engines on this machine, then more methods,
then the newer one. A test of speed exists only between methods of one suite, whose rounds were interleaved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import quote

from harness.measure.nights import Spread
from harness.records.schema import Record
from harness.report.boards import Board, Row
from harness.report.comparability import data_of, examples_of
from harness.report.machines import Machine, machines
from harness.report.methods import Contest, contests, kept_of
from harness.report.names import Name, name_of
from harness.report.pick import Limits, Method, Pick, Ratio, pick
from tasks.titles import metric_title, task_order, task_title

SPEED_ONLY = "speed only"
"""What the title of a page says of a model of random weights."""

UNKNOWN = Spread(0.0, 0)
"""No cell was measured in two runs."""


@dataclass(frozen=True)
class Entry:
    """A method, the rows that it stands for (one a seed), and the contest that tested its speed. foreign: another suite's run
    than the leaderboard's baseline."""

    method: Method
    name: Name
    rows: Sequence[Row]
    contest: Contest
    foreign: bool = False

    @property
    def record(self) -> Record:
        """The seed that was timed, or the first."""
        return self.row.record

    @property
    def row(self) -> Row:
        """Of that seed."""
        return max(self.rows, key=lambda row: bool(row.record.speed or row.record.turns))


@dataclass(frozen=True)
class Simulated:
    """A simulation: accuracy alone."""

    title: str
    record: Record
    kept: Ratio | None


@dataclass(frozen=True)
class Leaderboard:
    """entries: the fastest first. main: the contest whose baseline the leaderboard shows. unmeasured: failed and skipped cells.
    between: how runs differ on this machine, which the speed-ups include; asked for only where they come from several runs."""

    subject: Subject
    machine: Machine
    entries: tuple[Entry, ...]
    main: Contest
    simulated: tuple[Simulated, ...]
    unmeasured: tuple[Record, ...]
    page: str
    between: Spread = UNKNOWN

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        return tuple(entry.method for entry in self.entries)

    @property
    def is_contested(self) -> bool:
        """Whether there is anything to choose from: a method besides the baseline that has a valid speed."""
        return sum(method.speed_up is not None and method.kept is not None for method in self.methods) > 1

    def entry_of(self, method: Method) -> Entry:
        return next(entry for entry in self.entries if entry.method is method)

    def p_of_speed(self, mine: Method, theirs: Method) -> float | None:
        """As the rule of `pick` asks for it; None between methods of two suites."""
        a, b = self.entry_of(mine), self.entry_of(theirs)
        if a.contest is not b.contest:
            return None
        originals = [entry.contest.methods[_place(entry)] for entry in (a, b)]
        return a.contest.p_of_speed(*originals)

    @property
    def compare_page(self) -> str:
        """Where its methods are compared in pairs; empty where there is nothing to compare, or speed alone, which the table does."""
        several = len(self.entries) > 1 and not self.subject.speed_only
        return self.page.replace("task-", "compare-", 1) if several else ""

    @property
    def history_page(self) -> str:
        """Where its methods stand night by night, if any has several."""
        return self.page.replace("task-", "history-", 1)

    def anchor_of(self, entry: Entry) -> str:
        """Of a method's part of a page."""
        return re.sub(r"[^A-Za-z0-9]+", "-", entry.method.name).strip("-")

    def compare_link(self, entries: Iterable[Entry]) -> str:
        """That page with these methods chosen."""
        names = (quote(entry.method.name, safe="") for entry in entries)
        return f"{self.compare_page}#{','.join(names)}" if self.compare_page else ""

    def choose(self, limits: Limits | None = None) -> Pick:
        return pick(self.methods, limits, self.p_of_speed) if limits else self._default

    @cached_property
    def _default(self) -> Pick:
        return pick(self.methods, Limits(), self.p_of_speed)


@dataclass(frozen=True)
class Subject:
    """What a page is about: a task and a model, on the same examples. metric: empty where the model has random weights, and thus a
    speed alone. data: the state of the examples in words."""

    task: str
    title: str
    split: str
    model: str
    metric: str
    sample: bool
    limit: int | None
    data: str
    slug: str

    @property
    def speed_only(self) -> bool:
        return not self.metric


def leaderboards(
    boards: Sequence[Board],
    between: Callable[[str], Spread] = lambda machine: UNKNOWN,
    by_machine: Mapping[str, Machine] | None = None,
) -> dict[Subject, list[Leaderboard]]:
    """By subject, a leaderboard a machine: real data first, then by task; the machine with the newest instructions first.
    between: how speed-ups of a cell differ between runs, by machine; called where that is shown. by_machine: as `machines` gives them of all boards; of these
    boards' own where it is None."""
    if by_machine is None:
        by_machine = machines([row.record for board in boards for row in board.rows])
    grouped: dict[tuple[object, ...], list[Contest]] = {}
    for board in boards:
        for contest in contests(board):
            grouped.setdefault(_key(contest), []).append(contest)
    subjects = _subjects(grouped)
    found: dict[Subject, list[Leaderboard]] = {}
    for key in sorted(grouped, key=lambda key: subject_order(subjects[key])):
        subject = subjects[key]
        for identity, machine in by_machine.items():
            own = [contest for contest in grouped[key] if contest.board.machine == identity]
            if own:
                found.setdefault(subject, []).append(_leaderboard(subject, machine, own, between))
    return found


def _key(contest: Contest) -> tuple[object, ...]:
    board = contest.board
    evaluated = examples_of(contest.baseline)[1]
    return board.sample, board.limit or 0, board.task, board.split, contest.model, evaluated


def subject_order(subject: Subject) -> tuple[object, ...]:
    """Real data first, then by task."""
    place = (subject.task, subject.split, subject.model, subject.slug)
    return subject.sample, subject.limit or 0, task_order(subject.task), *place


def slug_of(task: str, split: str, model: str, limit: int | None, sample: bool) -> str:
    """For names of files."""
    words = [task, split, model, f"limit-{limit}" if limit else "", "sample" if sample else ""]
    return re.sub(r"[^A-Za-z0-9]+", "-", " ".join(filter(None, words))).strip("-")


def _subjects(grouped: Mapping[tuple[object, ...], Sequence[Contest]]) -> dict[tuple[object, ...], Subject]:
    """Each with a file name of its own."""
    subjects: dict[tuple[object, ...], Subject] = {}
    for key, group in grouped.items():
        board, contest = group[0].board, group[0]
        split = board.split.removeprefix("validation").strip("_") if contest.metric else SPEED_ONLY
        slug = slug_of(board.task, split, contest.model, board.limit, board.sample)
        namesakes = sum(subject.slug.partition("--")[0] == slug for subject in subjects.values())
        subjects[key] = Subject(
            task=board.task,
            title=f"{task_title(board.task)}{', ' if not contest.metric else ' '}{split}".strip(),
            split=board.split,
            model=contest.model,
            metric=metric_title(contest.metric),
            sample=board.sample,
            limit=board.limit,
            data=_state(group),
            slug=f"{slug}--{namesakes + 1}" if namesakes else slug,
        )
    return subjects


def _state(group: Sequence[Contest]) -> str:
    """The state of the data in a few words: `official`, `trained on subset`, `sample`."""
    record = max((contest.baseline for contest in group), key=lambda record: record.finished)
    if group[0].board.sample:
        return "sample"
    words = [re.sub(r" \(.*", "", part) for part in data_of(record).split("; ")]
    named = dict(part.split(": ", 1) for part in words if ": " in part)
    if not named:
        return words[0]
    if named.get("evaluated on") == "official" and group[0].metric:
        return f"trained on {named.get('trained on', 'other data')}"
    return str(named.get("evaluated on", words[0]))


def _leaderboard(
    subject: Subject, machine: Machine, group: Sequence[Contest], between: Callable[[str], Spread]
) -> Leaderboard:
    ordered = sorted(group, key=_strength, reverse=True)
    entries: dict[tuple[object, ...], Entry] = {}
    for contest in ordered:
        for method in contest.methods:
            rows = contest.rows[method.name]
            record = rows[0].record
            key: tuple[object, ...] = (record.model, record.backend, record.scheme)
            if contest is ordered[0]:
                key = (*key, record.label) if key in entries else key
            known = entries.get(key)
            if known is None or (
                known.method.speed_up is None and method.speed_up is not None and contest is known.contest
            ):
                baseline = record.backend == contest.baseline.backend and record.model == contest.model
                name = name_of(record, contest.model, baseline=baseline)
                entries[key] = Entry(method, name, rows, contest, foreign=contest is not ordered[0])
    unique = _with_unique_names(list(entries.values()))
    spread = UNKNOWN
    if any(entry.foreign for entry in unique):
        spread = between(machine.identity)
        unique = [
            replace(entry, method=replace(entry.method, speed_up=_between_runs(entry.method.speed_up, spread)))
            for entry in unique
        ]
    board_records = {record.record_id: record for contest in ordered for record in contest.board.unmeasured}
    return Leaderboard(
        subject=subject,
        machine=machine,
        entries=tuple(sorted(unique, key=lambda entry: -(entry.method.speed_up.value if entry.method.speed_up else 0))),
        main=ordered[0],
        simulated=tuple(_simulated(ordered)),
        unmeasured=tuple(record for record in board_records.values() if record.model == subject.model),
        page=f"task-{subject.slug}-{machine.slug}.html",
        between=spread,
    )


def _between_runs(speed_up: Ratio | None, between: Spread) -> Ratio | None:
    """A speed-up with the interval that another run would fall into as well: half-widths add up as variances do."""
    if speed_up is None or speed_up.low is None or speed_up.high is None or speed_up.low == speed_up.high:
        return speed_up
    if not between.freedom:
        return speed_up
    from scipy.special import stdtrit

    runs = float(stdtrit(between.freedom, 0.975)) * math.sqrt(between.variance)
    below, above = (math.hypot(math.log(end / speed_up.value), runs) for end in (speed_up.low, speed_up.high))
    return Ratio(speed_up.value, speed_up.value * math.exp(-below), speed_up.value * math.exp(above))


def _strength(contest: Contest) -> tuple[int, int, int, str]:
    timed = [method.name for method in contest.methods if method.speed_up]
    engines = {contest.rows[name][0].record.backend for name in timed}
    newest = max(row.record.finished for rows in contest.rows.values() for row in rows)
    return len(engines), len(timed), len(contest.methods), newest


def _with_unique_names(entries: Sequence[Entry]) -> list[Entry]:
    """Identifiers and titles that are taken get the suite's name, and the label."""
    unique: list[Entry] = []
    for entry in entries:
        method, name = entry.method, entry.name
        if any(method.name == other.method.name for other in unique):
            method = replace(method, name=f"{method.name} ({entry.contest.board.suite})")
        if any(name.title == other.name.title for other in unique):
            name = replace(name, title=f"{name.title} ({method.name})", short=f"{name.short} ({method.name})")
        unique.append(replace(entry, method=method, name=name))
    return unique


def _place(entry: Entry) -> int:
    """Of an entry's method in its contest."""
    rows = entry.contest.rows
    return next(at for at, method in enumerate(entry.contest.methods) if rows[method.name] is entry.rows)


def _simulated(group: Iterable[Contest]) -> Iterable[Simulated]:
    seen: set[tuple[object, ...]] = set()
    for contest in group:
        for row in contest.simulated:
            record = row.record
            key = (record.model, record.backend, record.scheme, record.seed)
            if key not in seen:
                seen.add(key)
                seed = f", seed {record.seed}" if len({row.record.seed for row in contest.simulated}) > 1 else ""
                how = "after training" if record.model == contest.model else f"trained, {record.model}"
                title = f"{record.scheme or record.label}, {how}{seed}"
                yield Simulated(title, record, kept_of(row, contest.board.split))
