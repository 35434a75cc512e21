"""What the index needs to know of a leaderboard: plain values, which the site keeps between builds."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from harness.report.leaderboards import Leaderboard, Subject, subject_order
from harness.report.machines import Machine
from harness.report.names import Name
from harness.report.pages import uncommitted_remarks
from harness.report.pick import Method


@dataclass(frozen=True)
class Standing:
    """A standing of random weights has no pick and stands on no card. methods, names: of the leaderboard's entries. ship: the place of the pick. contested: there is a choice. timed: a method was
    timed. baseline: the baseline's metric. uncommitted: the pick, its model or what that was made from comes from a checkout with
    uncommitted changes. compare, history: pages; empty where there is none."""

    subject: Subject
    machine: Machine
    page: str
    compare: str
    history: str
    methods: tuple[Method, ...]
    names: tuple[Name, ...]
    ship: int | None
    close_call: bool
    contested: bool
    timed: bool
    baseline: str
    uncommitted: bool = False


def standing_of(board: Leaderboard, history: str = "", uncommitted: AbstractSet[str] = frozenset()) -> Standing:
    """uncommitted: ids of records with an ancestor from a checkout with uncommitted changes."""
    choice, split = board.choose(), board.subject.split
    part = next((part for part in board.main.baseline.accuracy if part.split == split), None)
    return Standing(
        subject=board.subject,
        machine=board.machine,
        page=board.page,
        compare=board.compare_page,
        history=history,
        methods=board.methods,
        names=tuple(entry.name for entry in board.entries),
        ship=next((place for place, method in enumerate(board.methods) if method is choice.ship), None),
        close_call=choice.close_call,
        contested=board.is_contested,
        timed=any(entry.record.speed or entry.record.turns for entry in board.entries),
        uncommitted=any(
            uncommitted_remarks(row.record, uncommitted)
            for entry in board.entries
            if entry.method is choice.ship
            for row in entry.rows
        ),
        baseline=f"{part.metrics[part.primary].value:.2f}" if part else "",
    )


def by_subject(standings: Sequence[Standing]) -> dict[Subject, list[Standing]]:
    """In the order of the index; of each the machine with the newest instructions first."""
    found: dict[Subject, list[Standing]] = {}
    for standing in sorted(standings, key=lambda standing: subject_order(standing.subject)):
        found.setdefault(standing.subject, []).append(standing)
    return {subject: sorted(group, key=lambda one: one.machine.place) for subject, group in found.items()}
