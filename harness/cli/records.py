"""The verbs that work on records: compare, rescore, rerun, export."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.terminal import console, show
from harness.errors import QuantboardError
from harness.machine import paths
from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report import pairs
from harness.report.boards import latest

if TYPE_CHECKING:
    from harness.run.rescore import Rescored


def read_all(folder: Path) -> list[tuple[Path, Record]]:
    """Raises QuantboardError where there are no records."""
    found = list(store.read(folder)) if folder.is_dir() else []
    if not found:
        raise QuantboardError(f"{folder}: holds no records; `quantboard run SUITE` makes some")
    return found


def compare_records(options: argparse.Namespace) -> int:
    found = read_all(options.results or paths.results())
    shown = latest(entry for _, entry in found)
    named = {options.a, options.b}
    shown += [
        entry for _, entry in found if entry.record_id in named and entry not in shown
    ]  # one that was measured again
    made = pairs.pair_up(shown, options.a, options.b, options.task, ScoreStore(found))
    if options.json:
        print(json.dumps([pairs.to_json(pair) for pair in made]))
    elif options.markdown:
        print(pairs.to_markdown(made))
    else:
        print_pairs(made)
    return 0


def print_pairs(made: list[pairs.Pair]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(pairs.title(made)))
    for name in pairs.COLUMNS:
        table.add_column(escape(name), overflow="fold", justify="right" if name in ("A", "B") else "left")
    for row in pairs.rows(made):
        table.add_row(*map(escape, row))
    out = console()
    out.print(table)
    for line in pairs.notes(made):
        out.print(line, style="dim", markup=False, highlight=False)


def rescore_records(options: argparse.Namespace) -> int:
    from harness.run.rescore import rescore, write

    found = read_all(options.results or paths.results())
    entries = [entry for entry in latest(entry for _, entry in found) if entry.accuracy]
    if options.names:
        everything = [entry for _, entry in found if entry.accuracy]
        lacking = [entry for _, entry in found if not entry.accuracy]
        chosen = [
            one
            for name in options.names
            for one in store.select(
                [*entries, *_old(everything, entries, name)], name, lacking=lacking, what="predictions"
            )
        ]
        entries = list({entry.record_id: entry for entry in chosen}.values())
    stored = ScoreStore(found)
    made = list(rescore(entries, stored, options.data))
    files = [str(path) for path in write(made, stored)] if options.write else []
    if options.json:
        print(json.dumps({"records": [_rescored_json(one) for one in made], "written": files}))
    else:
        _print_rescored(made, files)
    return 1 if any(one.differs for one in made) and not options.write else 0


def _old(everything: list[Record], entries: list[Record], name: str) -> list[Record]:
    """Records that newer ones have replaced are found by their id alone."""
    known = {entry.record_id for entry in entries}
    return [entry for entry in everything if entry.record_id == name and entry.record_id not in known]


def _rescored_json(one: Rescored) -> dict[str, object]:
    metrics = [
        {
            "split": split,
            "metric": name,
            "recorded": before.model_dump() if before else None,
            "now": now.model_dump() if now else None,
        }
        for split, name, before, now in one.changes()
    ]
    return {"record_id": one.old.record_id, "differs": one.differs, "metrics": metrics}


def _print_rescored(made: list[Rescored], files: list[str]) -> None:
    from rich.table import Table

    from harness.run.rescore import is_other

    table = Table(title="Scored again from stored predictions")
    for name in ("record", "cell", "split", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("recorded", "now"):
        table.add_column(name, justify="right")
    for one in made:
        cell = f"{one.old.model} / {one.old.task} / {one.old.label} / seed {one.old.seed}"
        for split, name, before, now in one.changes():
            mark = " differs" if is_other(before, now) else ""
            table.add_row(one.old.record_id, cell, split, name, _plain(before), _plain(now) + mark)
    out = console()
    out.print(table)
    for path in files:
        out.print(f"written: {path}", markup=False, highlight=False)


def _plain(figure: Figure | None) -> str:
    return show(figure).replace("[", "\\[") if figure else "not there"


def export_checkpoint(options: argparse.Namespace) -> int:
    from harness.checkpoints.export import computes_padding, export, find_checkpoint

    folder = options.results or paths.results()
    entries = [entry for _, entry in store.read(folder)] if folder.is_dir() else []
    shown = latest(entries)
    shown += [entry for entry in entries if entry.record_id == options.name and entry not in shown]
    checkpoint, entry = find_checkpoint(shown, options.name, options.task, paths.cache())
    files = [str(path) for path in export(checkpoint, entry, options.name, options.format, options.folder)]
    if options.format == "onnx" and computes_padding(checkpoint):
        print("note: its scheme computes padding, too: pad inputs to the max_length of its suite", file=sys.stderr)
    if entry and entry.checkpoint and checkpoint.name not in entry.checkpoint.lineage:
        print(
            f"note: {entry.record_id} does not say which weights it ran (earlier records do not): whether these are they is"
            " not known",
            file=sys.stderr,
        )
    print(json.dumps({"checkpoint": checkpoint.name, "files": files}) if options.json else "\n".join(files))
    return 0


def rerun_record(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    from harness.run.rerun import rerun

    found = read_all(paths.results())
    old = next((entry for _, entry in found if entry.record_id == options.record), None)
    if old is None:
        old = store.select([entry for _, entry in found], options.record)[-1]
        if not old.record_id.startswith(options.record):
            raise QuantboardError(
                f"'{options.record}' is no record id; `quantboard compare` takes names, rerun does not"
            )
    words = ["quantboard", "rerun", old.record_id]
    if options.data:
        words += ["--data", options.data if options.data in ("sample", "real") else "DIR"]
    new = rerun(old, options.data, options.source, shlex.join(words), say)
    found = read_all(paths.results())
    if new.accuracy and old.accuracy:
        made = pairs.pair_up([old, new], new.record_id, old.record_id, [], ScoreStore(found))
        if options.json:
            print(json.dumps({"record": new.model_dump(), "against": [pairs.to_json(pair) for pair in made]}))
        else:
            print_pairs(made)
    elif options.json:
        print(json.dumps({"record": new.model_dump(), "against": []}))
    if new.reason:
        say(f"{new.status}: {new.reason}")
    return 1 if new.status == "failed" else 0
