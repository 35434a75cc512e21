"""Records to a static site: an index, a page a suite, a page a cell. Opens from `file://` and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import paths, record
from harness.errors import QuantboardError
from harness.record import Record
from harness.report import tables
from harness.report.alike import accuracy_stands, is_sample, machine_of_board
from harness.report.charts import accuracy_against_qps, points
from harness.report.compare import Beside
from harness.report.macro import MEANS, glue_columns, macro_averages
from harness.report.stored import Stored
from harness.report.tables import Board, flatten, latest, page_name
from harness.report.unchanged import MARK, is_unchanged, made_of
from harness.suite import load_for_pages

PAGES = re.compile(r"index\.html|(suite|cell)-[A-Za-z0-9_.-]+\.html")


def render(results: Path, out: Path, *, if_changed: bool = False) -> Path:
    """Write the whole site to `out`, replacing an older one only when the new one is complete; returns its index page.
    if_changed: leave the one that is there where it would be made of the same.

    Raises RecordError for a results file that cannot be read, SuiteError for a suite file whose references cannot be read,
    QuantboardError when `out` is somebody else's folder. Nothing half-written stays, whatever ends it.
    """
    if out.exists() and not _is_ours(out):
        raise QuantboardError(f"{out}: is not a site of ours and not empty; name another folder with --out")
    source = made_of(results)  # before they are read: what is appended meanwhile makes another site
    if if_changed and is_unchanged(out, source):
        return out / "index.html"
    entries = list(record.read(results)) if results.is_dir() else []
    shown = latest(entry for _, entry in entries)
    found = tables.boards(shown, Stored(entries))
    home = paths.home() / "site"
    environment = make_environment(home)
    fresh: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".site-", dir=out.parent))
        fresh.chmod(0o755)
        _write(environment, fresh, shown, found, source)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    except OSError as error:
        raise QuantboardError(
            f"{out}: cannot write the site: {error.strerror}; free some space or name another folder with --out"
        ) from None
    finally:
        if fresh:
            shutil.rmtree(fresh, ignore_errors=True)  # no longer there once it has become `out`
    return out / "index.html"


def _is_ours(out: Path) -> bool:
    """An empty folder, or one that holds nothing but pages that we write: all of it is replaced."""
    return out.is_dir() and all(PAGES.fullmatch(one.name) and one.is_file() for one in out.iterdir())


def make_environment(home: Path) -> Environment:
    """Templates with autoescape, and the one style sheet and script, inlined with their hashes in the Content-Security-Policy:
    a policy of 'self' means nothing to a page that is opened from a file."""
    environment = Environment(
        loader=FileSystemLoader(home / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((home / "static" / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    environment.filters["soft"] = soft
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    environment.globals |= {"style": Markup(style), "script": Markup(script), "policy": policy}
    return environment


def soft(text: str) -> Markup:
    """A name that may break after an underscore, and nowhere else."""
    return Markup("_<wbr>").join(str(text).split("_"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _write(environment: Environment, out: Path, shown: Sequence[Record], found: Sequence[Board], source: str) -> None:
    suites = list(dict.fromkeys((board.suite, board.sample) for board in found))
    titles = {entry.suite: entry.suite_title for entry in shown}
    overview: list[dict[str, Any]] = [
        {
            "name": name,
            "title": titles[name],
            "sample": sample,
            "page": suite_page(name, sample),
            "boards": [board for board in found if (board.suite, board.sample) == (name, sample)],
            "commands": list(
                dict.fromkeys(one.command for one in shown if one.suite == name and is_sample(one) == sample)
            ),
            "counts": _counts([entry for entry in shown if entry.suite == name and is_sample(entry) == sample]),
        }
        for name, sample in suites
    ]
    averages = macro_averages(shown)
    for suite in overview:
        charts = [_charts(board) for board in suite["boards"]]
        description, references, asked = read_suite(suite["name"])
        own = [entry for entry in shown if entry.suite == suite["name"]]
        macro = [one for one in averages if (one.suite, one.sample) == (suite["name"], suite["sample"])]
        macro = macro if any(one.figure for one in macro) else []
        _page(
            environment,
            out / suite["page"],
            "suite.html",
            **{
                "suite": suite,
                "charts": charts,
                "description": description,
                "references": references,
                "missing": {} if suite["sample"] else without_results(asked, own),
            },
            **{"macro": macro, "means": MEANS, "glue": glue_columns(macro)},
        )
    beside = [
        (row.record.record_id, board.split, to_engine, against(row.record, one))
        for board in found
        for row in board.rows
        for to_engine, one in ((False, row.beside), (True, board.engines.get(row.record.record_id)))
        if one and one.base and one.base.record_id != row.record.record_id
    ]
    for entry in shown:
        leaves = flatten(json.loads(entry.model_dump_json()))
        _page(
            environment,
            out / page_name(entry),
            "cell.html",
            entry=entry,
            sample=is_sample(entry),
            stands=accuracy_stands(entry),
            leaves=leaves,
            beside=[one for name, *one in beside if name == entry.record_id],
            suite_page=suite_page(entry.suite, is_sample(entry)),
            machine=machine_of_board(entry),
        )
    ran = any(entry.backend.startswith("tensorrt") and entry.speed for entry in shown)
    mark = Markup(MARK.format(f"{source} {len(list(out.iterdir())) + 1}"))
    _page(environment, out / "index.html", "index.html", overview=overview, tensorrt=ran, mark=mark)


def against(entry: Record, beside: Beside) -> dict[str, Any]:
    """A cell beside its baseline or its own engine without integer products, as its page shows it: every metric and every figure of speed."""
    assert beside.base is not None
    return {
        "base": beside.base,
        "not_kin": beside.not_kin,
        "page": page_name(beside.base),
        "share": tables.share(entry, beside),
        "asked": 100 * tables.asked_of(entry),
        "metrics": [(name, tables.difference(one, one.p), one.method) for name, one in beside.differences.items()],
        "corrected": tables.p_text(beside.corrected),
        "ratios": [
            (*load, tables.times(load, one, beside.corrected_ratio(load), entry, beside.base), one.method)
            for load, one in beside.ratios.items()
        ],
    }


def suite_page(name: str, sample: bool) -> str:
    return f"suite-{name}-sample.html" if sample else f"suite-{name}.html"


def _counts(entries: Sequence[Record]) -> dict[str, int]:
    return {
        status: count
        for status in ("ok", "invalid", "failed", "skipped")
        if (count := sum(e.status == status for e in entries))
    }


def _charts(board: Board) -> dict[str, str] | None:
    shown = points(board)
    return accuracy_against_qps(shown, board.primary) if len(shown) > 1 else None


def read_suite(name: str) -> tuple[str, list[dict[str, Any]], dict[str, list[Any]]]:
    """What the suite is for, in its own words; published figures from elsewhere: shown beside ours, never ranked with them; the
    models, tasks and seeds that it asks for."""
    path = paths.home() / "suites" / f"{name}.toml"
    return load_for_pages(path) if path.is_file() else ("", [], {})


def without_results(asked: Mapping[str, Sequence[Any]], entries: Sequence[Record]) -> dict[str, list[Any]]:
    """What a suite asks for that no measured record among its own on real data is of."""
    had = [entry for entry in entries if not is_sample(entry) and entry.status in ("ok", "invalid")]
    found = {f"{name}s": {getattr(entry, name) for entry in had} for name in ("model", "task", "seed")}
    missing = {name: [one for one in values if one not in found[name]] for name, values in asked.items()}
    return {name: values for name, values in missing.items() if values}


def _page(environment: Environment, path: Path, template: str, **values: Any) -> None:
    path.write_text(environment.get_template(template).render(**values), encoding="utf-8")
