"""The verbs that work on records: compare, rescore, rerun, site."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_data, add_results, add_tasks, add_verb, data_words
from harness.cli.compare_lines import compare_lines
from harness.cli.rescore_lines import rescore_lines
from harness.cli.terminal import say, tell
from harness.errors import QuantboardError, Tell, visible
from harness.machine import paths

if TYPE_CHECKING:
    from harness.records.schema import Record
    from harness.run.rescore import Rescored


def add_verbs(verbs: Verbs) -> None:
    text = "compare two groups of records: paired tests, intervals, ratios of speed"
    parser = add_verb(verbs, "compare", compare, text)
    for name in ("a", "b"):
        parser.add_argument(name, help="a record id, a label, a backend, a model, or MODEL/LABEL")
    add_tasks(parser)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    add_results(parser)

    parser = add_verb(verbs, "rescore", rescore, "score stored predictions again, without running a model")
    parser.add_argument("names", nargs="*", metavar="RECORD", help="record ids, labels or models; default: all records")
    add_data(parser)
    parser.add_argument("--write", action="store_true", help="append records with the new figures")
    add_results(parser)

    parser = add_verb(verbs, "rerun", rerun, "run a cell again, with the settings in its record; no suite file is read")
    parser.add_argument("record", help="a record id, or its beginning")
    add_data(parser)
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="folder of the model, if it was loaded from a folder"
    )

    parser = add_verb(
        verbs, "site", site, "make static web pages from the records; exit code 1 where damaged ones are left out"
    )
    add_results(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the pages; default: _site/ of the checkout, else of the working folder",
    )
    parser.add_argument("--if-changed", action="store_true", help="do nothing if the pages would stay the same")


def read_all(folder: Path, tell: Tell = tell) -> list[tuple[Path, Record]]:
    """Every record with its file. Damaged ones are passed to `tell`, and left out unless it raises. Raises QuantboardError where there are none."""
    from harness.records import store

    records = list(store.read(folder, tell)) if folder.is_dir() else []
    if not records:
        raise QuantboardError(
            f"{folder}: no records; `quantboard run SUITE` or `quantboard pick MODEL --data FILE` makes some"
        )
    return records


def with_replaced(current: Sequence[Record], records: Iterable[Record], ids: Collection[str]) -> list[Record]:
    """The current records, and of those that newer ones have replaced the ones that are named by their id."""
    known = {record.record_id for record in current}
    return [*current, *(record for record in records if record.record_id in ids and record.record_id not in known)]


def compare(options: argparse.Namespace) -> int:
    from harness.records.scores import ScoreStore
    from harness.report import pairs
    from harness.report.boards import latest

    stored = read_all(options.results or paths.results())
    records = [record for _, record in stored]
    candidates = with_replaced(latest(records), records, {options.a, options.b})
    made = pairs.pair_up(candidates, options.a, options.b, options.task, ScoreStore(stored, tell))
    if options.json:
        print(json.dumps([pairs.to_json(pair) for pair in made]))
    elif options.markdown:
        print(pairs.to_markdown(made))
    else:
        print(visible("\n".join(compare_lines(made))))
    return 0


def rescore(options: argparse.Namespace) -> int:
    from harness.records.scores import ScoreStore
    from harness.run.rescore import append_rescored, rescore

    stored = read_all(options.results or paths.results())
    scores = ScoreStore(stored)
    rescored = list(rescore(_to_rescore([record for _, record in stored], options.names), scores, options.data))
    files = [str(path) for path in append_rescored(rescored, scores)] if options.write else []
    if options.json:
        print(json.dumps({"records": [_rescored_json(outcome) for outcome in rescored], "written": files}))
    else:
        print(visible("\n".join(rescore_lines(rescored, files))))
    return 1 if any(outcome.differs for outcome in rescored) and not options.write else 0


def _to_rescore(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """The current records with predictions, or those of them that the names stand for; a replaced record by its id."""
    from harness.records import store
    from harness.report.boards import latest

    current = [record for record in latest(records) if record.accuracy]
    if not names:
        return current
    scored = [record for record in records if record.accuracy]
    lacking = [record for record in records if not record.accuracy]
    selected = [
        record
        for name in names
        for record in store.select(with_replaced(current, scored, [name]), name, lacking=lacking, what="predictions")
    ]
    return list({record.record_id: record for record in selected}.values())


def _rescored_json(outcome: Rescored) -> dict[str, object]:
    metrics = [
        {
            "split": split,
            "metric": name,
            "recorded": before.model_dump() if before else None,
            "now": now.model_dump() if now else None,
        }
        for split, name, before, now in outcome.changes()
    ]
    return {"record_id": outcome.record.record_id, "differs": outcome.differs, "metrics": metrics}


def rerun(options: argparse.Namespace) -> int:
    from harness.records.scores import ScoreStore
    from harness.report import pairs
    from harness.run.rerun import rerun

    old = _named_by_id([record for _, record in read_all(paths.results())], options.record)
    command = shlex.join(["quantboard", "rerun", old.record_id, *data_words(options.data)])
    new = rerun(old, options.data, options.source, command, say)
    made: list[pairs.Pair] = []
    if new.accuracy and old.accuracy:
        scores = ScoreStore(read_all(paths.results()), tell)
        made = pairs.pair_up([old, new], new.record_id, old.record_id, [], scores)
    if options.json:
        print(json.dumps({"record": new.model_dump(), "against": [pairs.to_json(pair) for pair in made]}))
    elif made:
        print(visible("\n".join(compare_lines(made))))
    if new.why:
        say(f"{new.standing}: {new.why}")
    return 1 if new.status == "failed" else 0


def _named_by_id(records: Sequence[Record], name: str) -> Record:
    """Raises QuantboardError for a name that is no record id or beginning of one."""
    from harness.records import store

    for record in records:
        if record.record_id == name:
            return record
    record = store.select(records, name)[-1]
    if not record.record_id.startswith(name):
        raise QuantboardError(f"'{name}' is not a record id; rerun takes no other name; `quantboard compare` does")
    return record


def site(options: argparse.Namespace) -> int:
    from harness.report.site import render

    if options.results and not options.results.is_dir():
        raise QuantboardError(f"--results: {options.results}: no such folder; `quantboard run SUITE` makes records")
    results, out = options.results or paths.results(), options.out or paths.site_output()
    page = render(results, out, if_changed=options.if_changed, tell=tell)
    print(json.dumps({"page": str(page)}) if options.json else f"open {page}")
    return 1 if tell.cache_info().currsize else 0
