"""Records to a static site: an index, a page a suite, a page a cell. Opens from `file://` and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import QuantboardError, Tell, disk_fault, refuse, visible
from harness.machine import paths
from harness.machine.digests import digest
from harness.machine.software import code_digest, tree_digest
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.benchmark_page import benchmark_pages
from harness.report.boards import Board, latest, make_boards, page_name
from harness.report.cell_page import cell_page
from harness.report.compare_page import compare_page, pairs_frame
from harness.report.coverage_page import coverage_page
from harness.report.frames import board_frame, to_csv, to_json, to_parquet
from harness.report.history import Nights, histories
from harness.report.history_page import history_page
from harness.report.index_page import index_page
from harness.report.leaderboards import leaderboards
from harness.report.macro_average import macro_averages
from harness.report.method_page import method_page
from harness.report.method_pairs import method_pairs
from harness.report.pages import with_uncommitted_ancestors
from harness.report.references_page import references_page
from harness.report.row_answer import row_answers
from harness.report.suite_page import suite_page
from harness.report.task_page import task_page

PAGES = re.compile(
    r"(index|coverage|references|method)\.html|(suite|cell|task|compare|history|benchmark)-[A-Za-z0-9_.-]+\.(html|csv|json|parquet)"
)


def render(results: Path, out: Path, *, if_changed: bool = False, tell: Tell = refuse) -> Path:
    """Write the whole site to `out` and return its index page. An older site is replaced only when the new one is complete;
    with if_changed it stays where it was made of the same records, scores, suites, templates and code.

    `tell` gets damaged records and scores files: `refuse` raises RecordError. Raises SuiteError for a suite file whose references
    cannot be read, and QuantboardError for a folder with other files in it. Nothing half-written stays.
    """
    if out.exists() and not _is_ours(out):
        raise QuantboardError(f"{out}: holds files that are not a Quantboard site; name another folder with --out")
    source = made_of(results)  # before reading: records appended in the meantime belong to the next site
    if if_changed and is_unchanged(out, source):
        return out / "index.html"
    read = list(store.read(results, tell)) if results.is_dir() else []
    pages = _pages([record for _, record in read], ScoreStore(read, tell))
    home = paths.site_sources()
    environment = make_environment(home)
    fresh: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".site-", dir=out.parent))
        fresh.chmod(0o755)
        _write(environment, fresh, pages, source)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    except OSError as error:
        raise QuantboardError(
            disk_fault(error, out, "name another folder with --out", "cannot write the site")
        ) from None
    finally:
        if fresh:
            shutil.rmtree(fresh, ignore_errors=True)  # no longer there once it has become `out`
    return out / "index.html"


def _is_ours(out: Path) -> bool:
    """An empty folder, or one that holds nothing but our pages: all of it is replaced."""
    return out.is_dir() and all(PAGES.fullmatch(path.name) and path.is_file() for path in out.iterdir())


def make_environment(home: Path) -> Environment:
    """Templates with autoescape. The style sheet and the script are inlined, and the Content-Security-Policy holds their hashes,
    because a policy of 'self' means nothing to a page that is opened from a file."""
    environment = Environment(
        loader=FileSystemLoader(home / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    names = ("style.css", "script.js", "task.js", "compare.js")
    style, script, task_script, compare_script = (
        (home / "static" / name).read_text(encoding="utf-8") for name in names
    )
    environment.filters["soft"] = soft
    scripts = " ".join(map(_hash, (script, task_script, compare_script)))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {scripts}; base-uri 'none'; form-action 'none'"
    environment.globals |= {"style": Markup(style), "script": Markup(script), "task_script": Markup(task_script)}
    environment.globals["compare_script"] = Markup(compare_script)
    environment.globals["policy"] = policy
    return environment


def soft(text: str) -> Markup:
    """A name that may be broken after an underscore."""
    return Markup("_<wbr>").join(visible(str(text)).split("_"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


Pages = dict[str, tuple[str, Any] | str | bytes]
"""By file name: the template, and what it is given as `page`; or the content of a file."""


def _pages(all_records: Sequence[Record], stored: ScoreStore) -> Pages:
    records, nights = latest(all_records), Nights(all_records)
    boards = make_boards(records, stored)
    uncommitted = with_uncommitted_ancestors(records)
    subjects = leaderboards(boards, nights.between)
    index = index_page(records, boards, subjects)
    averages = macro_averages(records)
    pages: Pages = {"index.html": ("index.html", index)}
    pages["coverage.html"] = "coverage.html", coverage_page(records, paths.suites())
    pages |= {name: ("benchmark.html", content) for name, content in benchmark_pages(averages).items()}
    pages["references.html"] = "references.html", references_page(paths.suites())
    if (text := paths.method()).is_file():
        pages["method.html"] = "method.html", method_page(text)
    for suite in index.suites:
        suite_content = suite_page(suite.name, suite.sample, records, boards, averages, uncommitted)
        pages[suite.page] = "suite.html", suite_content
    with_history: set[str] = set()
    for group in subjects.values():
        for leaderboard in group:
            by_night = histories(leaderboard, nights)
            if by_night:
                with_history |= {history.entry.record.record_id for history in by_night}
                pages[leaderboard.history_page] = "history.html", history_page(leaderboard, by_night)
            history = leaderboard.history_page if by_night else ""
            task_content = task_page(leaderboard, group, uncommitted, history)
            pages[leaderboard.page] = "task.html", task_content
            frame = board_frame(leaderboard, leaderboard.choose())
            pages |= {task_content.csv: to_csv(frame), task_content.json_file: to_json(frame)}
            pages[task_content.parquet] = to_parquet(frame)
            if leaderboard.compare_page:
                pairs = method_pairs(leaderboard, stored)
                pages[leaderboard.compare_page] = "compare.html", compare_page(leaderboard, pairs)
                pages[leaderboard.compare_page.replace(".html", ".csv")] = to_csv(pairs_frame(leaderboard, pairs))
    answers = row_answers(subjects, with_history)
    with_row: dict[str, list[Board]] = {}
    for board in boards:
        for row in board.rows:
            with_row.setdefault(row.record.record_id, []).append(board)
    for record in records:
        cell_content = cell_page(record, with_row.get(record.record_id, []), uncommitted, answers.get(record.record_id))
        pages[page_name(record)] = "cell.html", cell_content
    return pages


def _navigation(pages: Pages) -> list[tuple[str, str]]:
    """(name, file name) of what every page links to."""
    benchmarks = [
        (page[1].name, name) for name, page in pages.items() if isinstance(page, tuple) and page[0] == "benchmark.html"
    ]
    fixed = [("Coverage", "coverage.html"), ("References", "references.html"), ("Method", "method.html")]
    return [("Leaderboards", "index.html"), *benchmarks, *(entry for entry in fixed if entry[1] in pages)]


def _write(environment: Environment, out: Path, pages: Pages, source: str) -> None:
    environment.globals["site_pages"] = _navigation(pages)
    mark = Markup(MARK.format(f"{source} {len(pages)}"))
    for name, content in pages.items():
        if isinstance(content, str | bytes):
            (out / name).write_bytes(content.encode() if isinstance(content, str) else content)
            continue
        template, page = content
        html = environment.get_template(template).render(
            page=page, here=name, mark=mark if name == "index.html" else ""
        )
        (out / name).write_text(html, encoding="utf-8")


LIBRARIES = ("jinja2", "markdown-it-py", "numpy", "pandas", "pyarrow", "ruptures", "scipy")


MARK = '<meta name="quantboard-made-of" content="{}">'


def made_of(results: Path) -> str:
    """Hash of all that decides the pages: records, scores, suites, templates, our code, and the libraries' versions."""
    folders = [tree_digest(folder) for folder in (results, paths.suites(), paths.site_sources())]
    method = paths.method()
    text = method.read_text(encoding="utf-8") if method.is_file() else ""
    return digest([folders, text, code_digest(), [version(name) for name in LIBRARIES]])


def is_unchanged(out: Path, source: str) -> bool:
    """Whether `out` holds the complete site that was made of this source."""
    try:
        index = (out / "index.html").read_text(encoding="utf-8")
        return MARK.format(f"{source} {len(list(out.iterdir()))}") in index
    except OSError:
        return False
