"""The pages Compare and History: links to those of each leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.standings import Standing, by_subject


@dataclass(frozen=True)
class ListedSubject:
    """links: (machine, page, how much it shows)."""

    title: str
    model: str
    sample: bool
    links: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class ListingPage:
    title: str
    text: str
    none: str
    subjects: tuple[ListedSubject, ...]


def compare_list(standings: Sequence[Standing]) -> ListingPage:
    return ListingPage(
        "Compare methods",
        "Two to four methods of one task and model, in pairs.",
        "No leaderboard has two methods.",
        listed(standings, lambda one: one.compare, lambda one: f"{len(one.methods)} methods"),
    )


def history_list(standings: Sequence[Standing]) -> ListingPage:
    return ListingPage(
        "Night by night",
        "Methods that were measured more than once.",
        "No method was measured in two nights.",
        listed(standings, lambda one: one.history, lambda one: ""),
    )


def listed(
    standings: Sequence[Standing], page: Callable[[Standing], str], words: Callable[[Standing], str]
) -> tuple[ListedSubject, ...]:
    return tuple(
        ListedSubject(subject.title, subject.model, subject.sample or subject.limit is not None, links)
        for subject, group in by_subject(standings).items()
        if (links := tuple((one.machine.title, page(one), words(one)) for one in group if page(one)))
    )
