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
from harness.report.alike import accuracy_stands, is_padded, is_sample, is_whole, machine_of_board
from harness.report.charts import Curve, accuracy_against_qps, names_in, points
from harness.report.compare import Beside
from harness.report.lacking import Asked, asked_of, in_words, lacking
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
            invalid=[tables.why_in_doubt(entry, one) for one in entry.speed],
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
        "base_stands": accuracy_stands(beside.base),
        "not_kin": beside.not_kin,
        "page": page_name(beside.base),
        "share": tables.share(entry, beside),
        "asked": 100 * tables.asked_of(entry),
        "metrics": [(name, tables.difference(one, one.p, ""), one.method) for name, one in beside.differences.items()],
        "corrected": tables.p_text(beside.corrected),
        "ratios": [
            (*load, tables.times(load, one, beside.corrected_ratio(load), entry, beside.base, ""), one.method)
            for load, one in beside.ratios.items()
        ],
    }


def made_from_unclean(records: Sequence[Record]) -> set[str]:
    """Ids of records whose model was made from, or taught by, one that was made in a checkout with uncommitted changes, as far as
    records say: the same key and the same weights."""
    made = [(entry, entry.checkpoint) for entry in records if entry.checkpoint]
    dirty = {(one.key, one.lineage[one.key]) for _, one in made if one.made_by.get("dirty") and one.key in one.lineage}
    return {
        entry.record_id
        for entry, one in made
        if any(item in dirty for item in one.lineage.items() if item[0] != one.key)
    }


def suite_page(name: str, sample: bool) -> str:
    return f"suite-{name}-sample.html" if sample else f"suite-{name}.html"


def _counts(entries: Sequence[Record]) -> list[tuple[str, str]]:
    """(badge, words): how many cells have an accuracy that stands, and of those how many a speed."""
    stands = [entry for entry in entries if accuracy_stands(entry)]
    whole = [entry for entry in stands if is_whole(entry)]
    timed = [entry for entry in stands if entry.speed]
    doubtful = [[tables.in_doubt(entry, one) for one in entry.speed] for entry in timed]
    found = [
        ("ok", "accuracy", len(whole)),
        ("warn", "accuracy on a part of the evaluation set", len(stands) - len(whole)),
        ("ok", "speed", sum(not any(of) for of in doubtful)),
        ("invalid", "speed, in part invalid", sum(any(of) and not all(of) for of in doubtful)),
        ("invalid", "speed invalid", sum(all(of) for of in doubtful)),
        ("", "not timed", len(stands) - len(timed)),
        ("invalid", "invalid", sum(entry.status == "invalid" for entry in entries if not accuracy_stands(entry))),
        *((status, status, sum(entry.status == status for entry in entries)) for status in ("failed", "skipped")),
    ]
    return [(badge, f"{count} {words}") for badge, words, count in found if count]


def _charts(board: Board, labels: Mapping[Curve, str]) -> dict[str, str] | None:
    shown = points(board, labels)
    return accuracy_against_qps(shown, board.primary, sorted(labels.values())) if len(shown) > 1 else None


def read_suite(name: str, own: Sequence[Record]) -> tuple[str, list[dict[str, Any]], list[Asked]]:
    """What the suite is for, in its own words; published figures from elsewhere: shown beside ours, never ranked with them; the
    cells that it asks for. own: its records."""
    path = paths.home() / "suites" / f"{name}.toml"
    return (*load_for_pages(path), asked_of(path, own)) if path.is_file() else ("", [], [])


def _elsewhere(board: Board, own: Sequence[Record], asked: Sequence[Asked], gone: Sequence[Asked]) -> list[str]:
    """What has records, but none of this board's machine."""
    here = [entry for entry in own if machine_of_board(entry) == board.machine]
    wanted = [one for one in asked if one[0] == board.task]
    return in_words([one for one in lacking(wanted, here) if one not in gone], wanted)


def _apart(boards: Sequence[Board]) -> list[str]:
    """Of each board, the models and seeds that stand on an earlier board of its task with other weights, or weights that may be
    others: trained apart, under one name."""
    found = []
    for number, board in enumerate(boards):
        mine, names = _weights(board), list[str]()
        for earlier in boards[:number]:
            if (earlier.task, earlier.split) == (board.task, board.split):
                theirs = _weights(earlier)
                both = [name for name in mine if name in theirs]
                names += [
                    f"{model} (seed {seed})"
                    for model, seed in both
                    if not _same(mine[model, seed], theirs[model, seed])
                ]
        found.append(", ".join(dict.fromkeys(names)))
    return found


def _weights(board: Board) -> dict[tuple[str, int], dict[str, str]]:
    """Of each model and seed that was made, the weights (SHA-256) of all its checkpoints; nothing where records do not say."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for row in board.rows:
        made = row.record.checkpoint
        if made and made.recipe != "load":
            found.setdefault((row.record.model, row.record.seed), {}).update(made.lineage)
    return found


def _same(mine: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    shared = [key for key in mine if key in theirs]
    return bool(shared) and all(mine[key] == theirs[key] for key in shared)


def _page(environment: Environment, path: Path, template: str, **values: Any) -> None:
    path.write_text(environment.get_template(template).render(**values), encoding="utf-8")
