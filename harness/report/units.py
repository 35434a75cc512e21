"""The parts of a site that can be made apart from one another: the boards of a task and a model on all machines, with every page
about them. A unit's pages follow from its inputs alone, so a build makes only those whose inputs changed."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

from jinja2 import Environment
from markupsafe import Markup

from harness.errors import Tell, visible
from harness.machine.digests import digest
from harness.measure.nights import Spread
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore
from harness.report.board_section import BoardContext, board_section
from harness.report.boards import Board, Outline, boards_of, page_name
from harness.report.catalog import Catalog, Head
from harness.report.cell_page import CellPage, cell_page, record_file
from harness.report.comparability import is_sample, limit_of, machine_of
from harness.report.compare import ancestor_of
from harness.report.compare_page import compare_page, pairs_frame
from harness.report.frames import board_frame, to_csv, to_json, to_parquet
from harness.report.history import histories, with_nights
from harness.report.history_page import history_page
from harness.report.judged import Nights
from harness.report.leaderboards import Leaderboard, Subject, leaderboards, slug_of
from harness.report.machines import Machine
from harness.report.method_pairs import method_pairs
from harness.report.night_tests import cell_of
from harness.report.remembered import RememberedScores
from harness.report.row_answer import row_answers
from harness.report.speed_only_page import SpeedOnlyPage, speed_only_page
from harness.report.standings import Standing, standing_of
from harness.report.task_page import TaskPage, task_page

Pages = dict[str, tuple[str, object] | bytes]
"""By file name: the template, and what it is given as `page`; or the content of a file."""


OWN = ("Compare", "History")
"""Entries of the navigation that lead from the pages about a leaderboard to its own."""


Group = tuple[tuple[Record, ...], tuple[Outline, ...], tuple[BoardContext, ...]]
"""The briefs of the records that share a table, its boards before anything is compared, and what their suite says of each."""


@dataclass(frozen=True)
class Unit:
    groups: tuple[Group, ...]

    @property
    def briefs(self) -> list[Record]:
        return [record for records, _, _ in self.groups for record in records]


@dataclass(frozen=True)
class Surroundings:
    """What of the whole site the pages of a unit show. uncommitted: ids of records with an ancestor from a checkout with
    uncommitted changes. heads: by record id. hashes: SHA-256 of the results by name. comparisons: of scores, as `RememberedScores`
    knows and adds them."""

    catalog: Catalog
    heads: Mapping[str, Head]
    nights: Nights
    machines: Mapping[str, Machine]
    uncommitted: AbstractSet[str]
    hashes: Mapping[str, str]
    comparisons: dict[str, bytes]

    def scores_hash(self, record: Record, part: Accuracy) -> str:
        """Of the scores file as it is; empty where there is none."""
        if not part.scores_file:
            return ""
        name = posixpath.join(posixpath.dirname(self.heads[record.record_id].file), part.scores_file)
        return self.hashes.get(posixpath.normpath(name), "")

    def nights_hash(self, record: Record) -> str:
        cell = cell_of(record)
        ids = self.nights.ids(cell)
        return digest([[self.heads[one].sha for one in ids], repr(self.nights.told(cell))]) if len(ids) > 1 else ""


def units_of(groups: Sequence[Group]) -> list[Unit]:
    """groups: in the order of their boards. Two belong together where a leaderboard may have rows of both."""
    owner: dict[str, int] = {}
    root = list(range(len(groups)))

    def find(place: int) -> int:
        while root[place] != place:
            place = root[place]
        return place

    for place, (records, _, _) in enumerate(groups):
        for slug in dict.fromkeys(_slug(record) for record in records):
            first = find(owner.setdefault(slug, place))
            root[max(first, find(place))] = min(first, find(place))
    units: dict[int, list[Group]] = {}
    for place, group in enumerate(groups):
        units.setdefault(find(place), []).append(group)
    return [Unit(tuple(own)) for own in units.values()]


def _slug(record: Record) -> str:
    return slug_of(record.task, "", ancestor_of(record), limit_of(record), is_sample(record))


def inputs_of(unit: Unit, site: Surroundings, version: str) -> str:
    """A hash of all that its pages are made of, but for `Made.between`. version: of the program, the templates and the navigation."""
    briefs = unit.briefs
    hosts = [machine_of(records[0]) for records, _, _ in unit.groups]
    return digest(
        [
            version,
            [[site.heads[record.record_id].sha for record in records] for records, _, _ in unit.groups],
            [site.scores_hash(record, part) for record in briefs for part in record.accuracy],
            repr([site.machines.get(host) for host in hosts]),
            [site.nights_hash(record) for record in briefs],
            sorted(site.uncommitted & {record.record_id for record in briefs}),
            repr([contexts for _, _, contexts in unit.groups]),
        ]
    )


@dataclass(frozen=True)
class Made:
    """pages: by file name. standings: its leaderboards. sections: of each of its boards on the page of the board's suite. between: how
    runs differ on the machines whose spread its pages show. comparisons: the hashes of those of scores that it asked for. answers: by
    the name of a cell's page, the hash of what it says of its leaderboard, all of it that depends on `between`."""

    pages: dict[str, bytes]
    standings: list[Standing]
    sections: list[str]
    between: dict[str, Spread]
    comparisons: AbstractSet[str]
    answers: dict[str, str]


def make_unit(
    unit: Unit, site: Surroundings, environment: Environment, tell: Tell, same: Mapping[str, str] | None = None
) -> Made:
    """same: the answers of the last build, where its inputs were these and only `between` moved: sections, histories, and the pages
    of cells with these answers are then left out, because they are what they were."""
    read = [
        [
            (site.catalog.path(head), site.catalog.record(head))
            for head in (site.heads[one.record_id] for one in records)
        ]
        for records, _, _ in unit.groups
    ]
    stored = RememberedScores([pair for group in read for pair in group], tell, site.scores_hash, site.comparisons)
    boards, sections = list[Board](), list[str]()
    for group, (_, _, contexts) in zip(read, unit.groups, strict=True):
        own = boards_of([record for _, record in group], stored)
        for board, context in zip(own, contexts, strict=True) if same is None else ():
            section = board_section(board, context, site.uncommitted)
            sections.append(laid_out(environment, "board.html", page=section))
        boards += own
    between = dict[str, Spread]()

    def asked(machine: str) -> Spread:
        return between.setdefault(machine, site.nights.between(machine))

    subjects = leaderboards(boards, asked, site.machines)
    pages, standings, answers = _pages(
        [record for group in read for _, record in group], boards, subjects, stored, site, same
    )
    return Made(_laid_out(pages, environment), standings, sections, between, stored.used, answers)


def _laid_out(pages: Pages, environment: Environment) -> dict[str, bytes]:
    return {
        name: content if isinstance(content, bytes) else lay_out(environment, name, *content)
        for name, content in pages.items()
    }


def lay_out(environment: Environment, name: str, template: str, page: object, mark: str = "") -> bytes:
    """mark: a line for the head of the page."""
    own = page.answer if isinstance(page, CellPage) else page
    links = [
        (what, (what in OWN and getattr(own, what.lower(), "")) or link)
        for what, link in cast("list[tuple[str, str]]", environment.globals["site_pages"])
    ]
    return laid_out(environment, template, page=page, here=name, navigation=links, mark=Markup(mark)).encode()


def laid_out(environment: Environment, template: str, **values: object) -> str:
    """Text of logs, records and data has no effect in it: markup in it is escaped by the templates, control characters here."""
    return visible(environment.get_template(template).render(values))


def _pages(
    records: Sequence[Record],
    boards: Sequence[Board],
    subjects: Mapping[Subject, Sequence[Leaderboard]],
    stored: ScoreStore,
    site: Surroundings,
    same: Mapping[str, str] | None,
) -> tuple[Pages, list[Standing], dict[str, str]]:
    """The pages, the standings, and the hashes of the answers. same: as of `make_unit`."""
    pages: Pages = {}
    standings: list[Standing] = []
    with_history: set[str] = set()
    for group in subjects.values():
        for leaderboard in group:
            by_night = [] if leaderboard.subject.speed_only else with_nights(leaderboard, site.nights)
            history = leaderboard.history_page if by_night else ""
            with_history |= {entry.record.record_id for entry in by_night}
            if by_night and same is None:
                pages[history] = "history.html", history_page(leaderboard, histories(leaderboard, site.nights))
            standings.append(standing_of(leaderboard, history, site.uncommitted))
            pages |= _task_pages(leaderboard, group, site.uncommitted, history)
            if leaderboard.compare_page:
                pairs = method_pairs(leaderboard, stored)
                pages[leaderboard.compare_page] = "compare.html", compare_page(leaderboard, pairs, history)
                csv = leaderboard.compare_page.replace(".html", ".csv")
                pages[csv] = to_csv(pairs_frame(leaderboard, pairs)).encode()
    answers = row_answers(subjects, with_history)
    with_row: dict[str, list[Board]] = {}
    for board in boards:
        for row in board.rows:
            with_row.setdefault(row.record.record_id, []).append(board)
    told = {page_name(record): digest(repr(answers.get(record.record_id))) for record in records}
    for record in records:
        if same is not None and same.get(page_name(record)) == told[page_name(record)]:
            continue
        own, answer = with_row.get(record.record_id, []), answers.get(record.record_id)
        pages[page_name(record)] = "cell.html", cell_page(record, own, site.uncommitted, answer, stored)
        pages[record_file(record)] = site.catalog.line(site.heads[record.record_id])
    return pages, standings, told


def _task_pages(
    leaderboard: Leaderboard, group: Sequence[Leaderboard], uncommitted: AbstractSet[str], history: str
) -> Pages:
    page: TaskPage | SpeedOnlyPage
    if leaderboard.subject.speed_only:
        template, page = "speed_only.html", speed_only_page(leaderboard, group, uncommitted)
    else:
        template, page = "task.html", task_page(leaderboard, group, uncommitted, history)
    frame = board_frame(leaderboard, leaderboard.choose())
    return {
        leaderboard.page: (template, page),
        page.csv: to_csv(frame).encode(),
        page.json_file: to_json(frame).encode(),
        page.parquet: to_parquet(frame),
    }
