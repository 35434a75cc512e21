"""Records to a static site: an index, a page a suite, a page a cell. Opens from `file://` and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import QuantboardError, disk_fault
from harness.machine import paths
from harness.machine.digests import digest
from harness.machine.software import code_digest, tree_digest
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report import boards, columns
from harness.report.boards import Board, flatten, latest, page_name
from harness.report.charts import names_in
from harness.report.comparability import accuracy_stands, is_padded, is_sample, machine_of_board
from harness.report.glue_average import MEANS, glue_columns, macro_averages
from harness.report.missing import in_words, lacking
from harness.report.pages import (
    _apart,
    _charts,
    _counts,
    _elsewhere,
    against,
    made_from_unclean,
    read_suite,
    suite_page,
)

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
    entries = list(store.read(results)) if results.is_dir() else []
    shown = latest(entry for _, entry in entries)
    found = boards.boards(shown, ScoreStore(entries))
    home = paths.site_sources()
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
            disk_fault(error, out, "name another folder with --out", "cannot write the site")
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
    unclean = made_from_unclean(shown)
    for suite in overview:
        labels = names_in(suite["boards"])
        charts = [_charts(board, labels) for board in suite["boards"]]
        own = [entry for entry in shown if entry.suite == suite["name"] and not is_sample(entry)]
        description, references, asked = read_suite(suite["name"], own)
        gone = [] if suite["sample"] else lacking(asked, own)
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
                "missing": in_words(gone, asked),
                "elsewhere": []
                if suite["sample"]
                else [_elsewhere(board, own, asked, gone) for board in suite["boards"]],
                "apart": _apart(suite["boards"]),
                "unclean": unclean,
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
            unclean=unclean,
            padded=is_padded(entry),
            stands=accuracy_stands(entry),
            leaves=leaves,
            invalid=[columns.why_in_doubt(entry, one) for one in entry.speed],
            beside=[one for name, *one in beside if name == entry.record_id],
            suite_page=suite_page(entry.suite, is_sample(entry)),
            machine=machine_of_board(entry),
        )
    ran = any(entry.backend.startswith("tensorrt") and entry.speed for entry in shown)
    mark = Markup(MARK.format(f"{source} {len(list(out.iterdir())) + 1}"))
    _page(environment, out / "index.html", "index.html", overview=overview, tensorrt=ran, mark=mark)


def _page(environment: Environment, path: Path, template: str, **values: Any) -> None:
    path.write_text(environment.get_template(template).render(**values), encoding="utf-8")


LIBRARIES = ("jinja2", "matplotlib", "numpy", "scipy")


MARK = '<meta name="quantboard-made-of" content="{}">'


def made_of(results: Path) -> str:
    """Hash of everything that pages are made of: records and scores, suites, templates, our code, and the libraries' versions."""
    folders = [tree_digest(folder) for folder in (results, paths.suites(), paths.site_sources())]
    return digest([folders, code_digest(), [version(name) for name in LIBRARIES]])


def is_unchanged(out: Path, source: str) -> bool:
    """Whether `out` holds the whole site that was made of this."""
    try:
        index = (out / "index.html").read_text(encoding="utf-8")
        return MARK.format(f"{source} {len(list(out.iterdir()))}") in index
    except OSError:
        return False
