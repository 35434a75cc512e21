"""The verb `pick`: which method to ship under given limits, from a run of a model on a file, or from records that are there."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_columns, add_tasks, add_verb, positive_number, share, suite_name
from harness.cli.pick_lines import answer_lines, place_lines, table_lines
from harness.cli.terminal import tell
from harness.errors import QuantboardError, visible
from harness.machine import paths

if TYPE_CHECKING:
    from harness.report.methods import Contest
    from harness.report.pick import Limits, Pick


def add_verbs(verbs: Verbs) -> None:
    text = "name the method to ship: run a model on a labelled file in every way that this machine has, or read earlier records"
    parser = add_verb(verbs, "pick", pick, text)
    parser.add_argument(
        "pick_model",
        nargs="?",
        metavar="MODEL",
        help="a model folder, hub:OWNER/NAME, package:NAME/FOLDER, or an ONNX file or folder",
    )
    run = parser.add_argument_group("a run, with MODEL")
    run.add_argument(
        "--data",
        metavar="FILE",
        help="labelled rows: CSV, TSV, JSON, JSONL, Parquet, SQuAD's JSON, a save_to_disk folder, or hub:DATASET[/CONFIG]",
    )
    run.add_argument(
        "--train", metavar="FILE", help="rows for INT8 ranges; default: a slice of --data, which is not scored"
    )
    run.add_argument(
        "--made-from",
        metavar="MODEL",
        help="the FP32 model that an ONNX file is compared with; default: that of its folder",
    )
    add_columns(run)
    run.add_argument(
        "--minutes", type=positive_number, default=10, metavar="N", help="about how many minutes it may take; 10"
    )
    run.add_argument(
        "--name", type=suite_name, metavar="NAME", help="of the suite file that is written: picks/NAME.toml"
    )
    stored = parser.add_argument_group("no run, from records of earlier ones")
    stored.add_argument(
        "--from", dest="results", type=Path, metavar="DIR", help="folder of the records; default: results/"
    )
    add_tasks(stored)
    stored.add_argument("--model", action="append", default=[], metavar="NAME", help="only this model")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--keep", type=share, default=0.99, metavar="SHARE", help="of the baseline's accuracy; 0.99")
    limits.add_argument("--sure", action="store_true", help="the lower end of the 95%% interval must hold --keep")
    for name in ("p90-ms", "p99-ms"):
        limits.add_argument(
            f"--{name}", type=positive_number, metavar="MS", help="at most: latency of one query, milliseconds"
        )
    limits.add_argument("--size-mib", type=positive_number, metavar="MIB", help="at most: what the engine loads")
    limits.add_argument("--memory-mib", type=positive_number, metavar="MIB", help="at most: peak memory of the process")


def pick(options: argparse.Namespace) -> int:
    if options.pick_model is None:
        if options.data:
            raise QuantboardError(f"--data: which model? quantboard pick MODEL --data {shlex.quote(options.data)}")
        return _from_records(options)
    if not options.data:
        model = shlex.quote(options.pick_model)
        raise QuantboardError(
            f"pick runs a model on a labelled file: quantboard pick {model} --data FILE; records of earlier runs are picked"
            f" from with --from DIR --model {model}"
        )
    return _from_run(options)


def _limits(options: argparse.Namespace) -> Limits:
    from harness.report.pick import Limits

    return Limits(options.keep, options.sure, options.p90_ms, options.p99_ms, options.size_mib, options.memory_mib)


def _from_run(options: argparse.Namespace) -> int:
    """Run every method on a model and a file, then answer."""
    from harness.cli.pick_run import contest_of, remember, run_pick
    from harness.report.pick import pick as choose

    limits = _limits(options)
    records, notes = run_pick(options)
    contest = contest_of(records)
    choice = choose(contest.methods, limits, contest.p_of_speed)
    take = remember(contest, choice.ship) if choice.ship else None
    if options.json:
        print(json.dumps(_to_json(contest, choice) | {"notes": notes}))
        return 0
    lines = [*answer_lines(contest, choice, limits, take), "", *table_lines(contest, choice, limits, notes)]
    print(visible("\n".join(lines)))
    return 0


def _from_records(options: argparse.Namespace) -> int:
    from harness.cli.records import read_all
    from harness.records.scores import ScoreStore
    from harness.report import pick as rule
    from harness.report.boards import latest, make_boards
    from harness.report.methods import contests

    stored = read_all(options.results or paths.results())
    boards = make_boards(latest(record for _, record in stored), ScoreStore(stored, tell))
    limits = _limits(options)
    selected = [
        contest
        for board in boards
        if not board.sample and (not options.task or board.task in options.task)
        for contest in contests(board)
        if not options.model or contest.model in options.model
    ]
    scored = [contest for contest in selected if contest.metric]
    if selected and not scored:
        raise QuantboardError("speed only: random weights have no accuracy to pick by; name another model with --model")
    rows = [(contest, rule.pick(contest.methods, limits, contest.p_of_speed)) for contest in scored]
    # where nothing but the baseline has a valid speed there is nothing to choose from
    rows = [row for row in rows if sum(method.speed_up is not None for method in row[0].methods) > 1]
    if not rows:
        raise QuantboardError(
            "no cell of this task and model on real data has a valid speed-up over its baseline; run a suite with --data"
        )
    if options.json:
        print(json.dumps([_to_json(contest, choice) for contest, choice in rows]))
    else:
        print(visible("\n\n".join("\n".join(_all_lines(contest, choice, limits)) for contest, choice in rows)))
    return 0


def _all_lines(contest: Contest, choice: Pick, limits: Limits) -> list[str]:
    answer, table = answer_lines(contest, choice, limits), table_lines(contest, choice, limits)
    return [*place_lines(contest), *answer, "", *table]


def _to_json(contest: Contest, choice: Pick) -> dict[str, object]:
    board = contest.board
    place = {"suite": board.suite, "task": board.task, "split": board.split, "machine": board.machine}
    methods = [asdict(method) for method in contest.methods]
    return {**place, "model": contest.model, "methods": methods, "pick": asdict(choice)}
