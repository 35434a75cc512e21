"""The verb `export`: a checkpoint as a folder that runs elsewhere."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_results, add_tasks, add_verb
from harness.cli.records import with_replaced
from harness.cli.terminal import say, tell
from harness.machine import paths

if TYPE_CHECKING:
    from harness.records.schema import Record

LAST = "LAST"


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "export",
        export,
        "write a model as a folder that runs without this project: ONNX, tokenizer, program, card",
    )
    parser.add_argument(
        "name",
        metavar="CELL_OR_MODEL",
        help="LAST: what the last `pick` of this folder names; a record id or MODEL/LABEL: what that cell ran; or a model: its"
        " checkpoint before post-training quantization",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--format",
        choices=["onnx", "safetensors", "tensorrt-rtx"],
        default="onnx",
        help="default: onnx; safetensors is for transformers; tensorrt-rtx adds an engine for RTX GPUs, compiled here without one",
    )
    add_tasks(parser)
    add_results(parser)


def export(options: argparse.Namespace) -> int:
    from harness.checkpoints.export import computes_padding, export, find_checkpoint
    from harness.cli.pick_run import last_pick
    from harness.records import store
    from harness.report.boards import latest

    folder = options.results or paths.results()
    stored = list(store.read(folder, tell)) if folder.is_dir() else []
    records = [record for _, record in stored]
    name = last_pick() if options.name == LAST else options.name
    candidates = with_replaced(latest(records), records, [name])
    checkpoint, record = find_checkpoint(candidates, name, options.task, paths.cache())
    of_cell = record if record and name != record.model and options.format == "onnx" else None
    files = export(
        checkpoint,
        record,
        name,
        options.format,
        options.folder,
        lambda folder: _add_program(checkpoint, of_cell, stored, folder),
    )
    if options.format == "onnx" and computes_padding(checkpoint):
        say("note: padding takes part in this scheme's results; pad inputs to the max_length of the suite")
    if options.format == "tensorrt-rtx":
        say("note: the engine is compiled, and has not been run: that takes an RTX GPU and the runtime of engine.json")
    if record and record.checkpoint and checkpoint.name not in record.checkpoint.lineage:
        say(f"note: {record.record_id} is an early record without a hash of its weights; these may be other weights")
    shown = [str(path) for path in files]
    if (options.folder / "predict.py").is_file():
        say(
            f'try it: python {shlex.quote(str(options.folder / "predict.py"))} "a text"; README.md there has its figures'
        )
    print(json.dumps({"checkpoint": checkpoint.name, "files": shown}) if options.json else "\n".join(shown))
    return 0


def _add_program(checkpoint: Path, record: Record | None, stored: Sequence[tuple[Path, Record]], target: Path) -> None:
    """For what a cell ran: a program that answers, and a card with the measured figures. Raises OSError."""
    from backends import get_backend
    from backends.checkpoint import read_encoder
    from backends.onnx_program import DISTRIBUTIONS
    from harness.checkpoints.program import write_program
    from harness.machine.software import software
    from harness.records.scores import ScoreStore
    from harness.report.boards import latest, make_boards
    from harness.report.card import card
    from harness.report.methods import contests, name_of

    if record is None:
        return
    graph = get_backend(record.backend).graph
    length = record.settings.get("shape", {}).get("max_length") or read_encoder(checkpoint).positions
    write_program(checkpoint, target, length, integer=graph is not None and graph[1] != "none")
    suite = [one for one in latest(one for _, one in stored) if one.suite == record.suite]
    boards = make_boards(suite, ScoreStore(stored, tell))
    of_record = (contest for board in boards for contest in contests(board) if name_of(contest, record.record_id))
    versions = software(DISTRIBUTIONS)
    del versions["python"]
    names = [path.name for path in target.iterdir()]
    text = card(record, next(of_record, None), names, versions, dynamic=graph is not None and graph[1] == "dynamic")
    (target / "README.md").write_text(text, encoding="utf-8")
