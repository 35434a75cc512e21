"""One build of the site: the units whose inputs changed are made, the other pages are taken from the last build, and the pages
about everything are made of what is kept of all units."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from harness.errors import Tell
from harness.machine import paths
from harness.machine.digests import digest
from harness.records.schema import Record
from harness.report.benchmark_page import benchmark_pages
from harness.report.boards import Outline, grouped, latest_of, outlines_of
from harness.report.catalog import Catalog
from harness.report.coverage_page import coverage_page
from harness.report.index_page import index_page
from harness.report.judged import Nights
from harness.report.kept import Kept, KeptUnit
from harness.report.listing import compare_list, history_list
from harness.report.machines import machines
from harness.report.macro_average import MacroAverage, macro_averages
from harness.report.method_page import method_page
from harness.report.pages import not_measured, suite_page_name, suite_summaries, with_uncommitted_ancestors
from harness.report.references_page import references_page
from harness.report.search_section import read_search
from harness.report.standings import Standing
from harness.report.suite_page import Suite, board_contexts, suite_page
from harness.report.units import Surroundings, Unit, inputs_of, lay_out, make_unit, units_of

MARK = '<meta name="quantboard-made-of" content="{}">'


class Build:
    def __init__(
        self,
        fresh: Path,
        last: Path,
        kept: Kept,
        catalog: Catalog,
        hashes: Mapping[str, str],
        code: str,
        environment: Environment,
        tell: Tell,
    ) -> None:
        """fresh: the folder to write to. last, kept: the site of the last build, and what it left. hashes: SHA-256 of the results
        by name. code: a hash of the program."""
        self._fresh, self._last, self._kept, self._left = fresh, last, kept, Kept(catalog.known)
        self._catalog, self._hashes, self._code = catalog, hashes, code
        self._environment, self._tell = environment, tell
        self._written: set[str] = set()
        self._comparisons = dict(kept.comparisons)

    def write(self, source: str) -> Kept:
        """All pages. source: a hash of all that they are made of. Gives what the next build may take."""
        catalog = self._catalog
        heads = {head.record_id: head for head in latest_of(catalog.heads, lambda head: head.place)}
        records = [catalog.brief(head) for head in heads.values()]
        groups = [(tuple(group), tuple(outlines_of(group))) for group in grouped(records)]
        outlines = [outline for _, own in groups for outline in own]
        hosts = machines([record for outline in outlines for record in outline.records])
        averages = macro_averages(records)
        benchmarks = benchmark_pages(averages, {identity: host.title for identity, host in hosts.items()})
        self._environment.globals["site_pages"] = _navigation({name: page.name for name, page in benchmarks.items()})
        surroundings = Surroundings(
            catalog=catalog,
            heads={head.record_id: head for head in catalog.heads} | heads,
            nights=Nights(catalog.parts, catalog.record_of),
            machines=hosts,
            uncommitted=with_uncommitted_ancestors(records),
            hashes=self._hashes,
            comparisons=self._comparisons,
        )
        suites = _suites(outlines, records)
        contexts = {
            id(outline): context
            for suite in suites
            for outline, context in zip(suite.outlines, board_contexts(suite), strict=True)
        }
        units = units_of([(*group, tuple(contexts[id(outline)] for outline in group[1])) for group in groups])
        version = digest([self._code, self._environment.globals["site_pages"]])
        standings, sections = self._units(units, surroundings, version)
        for suite in suites:
            self._suite(suite, averages, [sections[id(outline)] for outline in suite.outlines], version)
        places = [outline.place for outline in outlines]
        updated = max((record.finished[:10] for record in records), default="")
        pages: dict[str, tuple[str, object]] = {
            "coverage.html": ("coverage.html", coverage_page(records, paths.suites())),
            "references.html": ("references.html", references_page(paths.suites())),
            "compare.html": ("listing.html", compare_list(standings)),
            "history.html": ("listing.html", history_list(standings)),
            **{name: ("benchmark.html", page) for name, page in benchmarks.items()},
        }
        if (text := paths.method()).is_file():
            pages["method.html"] = "method.html", method_page(text)
        for name, page in pages.items():
            self._put(name, lay_out(self._environment, name, *page))
        index = index_page(standings, list(suite_summaries(records, places)), not_measured(records), updated)
        mark = MARK.format(f"{source} {len(self._written) + 1}")
        self._put("index.html", lay_out(self._environment, "index.html", "index.html", index, mark))
        return self._left

    def _units(
        self, units: Sequence[Unit], surroundings: Surroundings, version: str
    ) -> tuple[list[Standing], dict[int, str]]:
        """The standings, and of each board the hash of its section, by the id of its outline."""
        standings: list[Standing] = []
        sections: dict[int, str] = {}
        for unit in units:
            inputs = inputs_of(unit, surroundings, version)
            made = self._kept.units.get(inputs)
            if made is None or not self._take(made):
                made = self._make(unit, inputs, surroundings)
            elif any(surroundings.nights.between(machine) != spread for machine, spread in made.between.items()):
                made = self._make(unit, inputs, surroundings, made)
            else:
                self._left.units[inputs] = made
            standings += made.standings
            outlines = (outline for _, own, _ in unit.groups for outline in own)
            sections |= {id(outline): sha for outline, sha in zip(outlines, made.sections, strict=True)}
        return standings, sections

    def _take(self, made: KeptUnit) -> bool:
        """Its pages and sections as the last build made them; False where one of them is not what it was."""
        kept = self._kept.sections
        if any(_sha(kept.get(sha, b"")) != sha for sha in made.sections):
            return False
        if not all(self._link(name, sha) for name, sha in made.pages.items()):
            return False
        self._left.sections |= {sha: kept[sha] for sha in made.sections}
        self._keep_comparisons(made.comparisons)
        return True

    def _keep_comparisons(self, hashes: Iterable[str]) -> None:
        self._left.comparisons |= {sha: self._comparisons[sha] for sha in hashes if sha in self._comparisons}

    def _make(self, unit: Unit, inputs: str, surroundings: Surroundings, last: KeptUnit | None = None) -> KeptUnit:
        """What tells of damage is made in every build. last: the unit as it was taken, where only the difference between runs moved."""
        problems = list[str]()

        def tell(problem: str) -> None:
            problems.append(problem)
            self._tell(problem)

        new = make_unit(unit, surroundings, self._environment, tell, last.answers if last else None)
        coded = [json.dumps(section).encode() for section in new.sections]
        made = KeptUnit(
            pages=(last.pages if last else {}) | {name: self._put(name, page) for name, page in new.pages.items()},
            standings=tuple(new.standings),
            sections=last.sections if last else tuple(map(_sha, coded)),
            between=new.between,
            comparisons=tuple(sorted({*new.comparisons, *(last.comparisons if last else ())})),
            answers=new.answers,
        )
        self._keep_comparisons(made.comparisons)
        self._left.sections |= {_sha(section): section for section in coded}
        if not problems:
            self._left.units[inputs] = made
        return made

    def _suite(self, suite: Suite, averages: Sequence[MacroAverage], sections: Sequence[str], version: str) -> None:
        search = read_search(self._catalog.results, suite.name, suite.sample, self._tell)
        page = suite_page(suite, averages, search=search)
        name = suite_page_name(suite.name, suite.sample)
        inputs = digest([version, name, repr(page), sections])
        sha = self._kept.suites.get(inputs)
        if sha is None or not self._link(name, sha):
            boards = tuple(Markup(json.loads(self._left.sections[one])) for one in sections)  # laid out from a template
            sha = self._put(name, lay_out(self._environment, name, "suite.html", replace(page, boards=boards)))
        self._left.suites[inputs] = sha

    def _put(self, name: str, content: bytes) -> str:
        if name in self._written:  # perhaps as a link to the last build's, which stays as it is
            (self._fresh / name).unlink()
        (self._fresh / name).write_bytes(content)
        self._written.add(name)
        return _sha(content)

    def _link(self, name: str, sha: str) -> bool:
        """Take a page from the last build; False where it is not what it was."""
        old = self._last / name
        try:
            if _sha(old.read_bytes()) != sha:
                return False
            new = self._fresh / name
            if name in self._written:
                new.unlink()
            try:
                os.link(old, new)
            except OSError:  # not every file system has hard links
                shutil.copyfile(old, new)
        except OSError:
            return False
        self._written.add(name)
        return True


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _suites(outlines: Sequence[Outline], records: Sequence[Record]) -> list[Suite]:
    """In the order of their boards."""
    own: dict[tuple[str, bool], list[Outline]] = {}
    for outline in outlines:
        own.setdefault((outline.place.suite, outline.place.sample), []).append(outline)
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(record.suite, []).append(record)
    return [Suite(name, sample, tuple(by_name[name]), tuple(found)) for (name, sample), found in own.items()]


def _navigation(benchmarks: Mapping[str, str]) -> list[tuple[str, str]]:
    """(name, file name) of what every page links to. benchmarks: their names by file name."""
    return [
        ("Leaderboards", "index.html"),
        ("Compare", "compare.html"),
        ("History", "history.html"),
        ("Coverage", "coverage.html"),
        *((name, page) for page, name in benchmarks.items()),
        ("References", "references.html"),
        *([("Method", "method.html")] if paths.method().is_file() else []),
    ]
