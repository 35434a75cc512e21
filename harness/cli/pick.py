"""The verb `pick`: which method to ship under given limits, from records that are there."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_results, add_tasks, add_verb
from harness.errors import QuantboardError
from harness.machine import paths

if TYPE_CHECKING:
    from harness.report.methods import Contest
    from harness.report.pick import Limits, Method, Pick, Ratio


def add_verbs(verbs: Verbs) -> None:
    text = "name the method to ship under given limits, from the records of earlier runs"
    parser = add_verb(verbs, "pick", pick, text)
    add_tasks(parser)
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only this model")
    parser.add_argument("--keep", type=_share, default=0.99, metavar="SHARE", help="of the baseline's accuracy; 0.99")
    parser.add_argument("--sure", action="store_true", help="the lower end of the 95%% interval must hold --keep")
    for name, unit in (("p90-ms", "latency of one query"), ("p99-ms", "latency of one query")):
        parser.add_argument(f"--{name}", type=_positive_number, metavar="MS", help=f"at most: {unit}, milliseconds")
    parser.add_argument("--size-mib", type=_positive_number, metavar="MIB", help="at most: what the engine loads")
    parser.add_argument(
        "--memory-mib", type=_positive_number, metavar="MIB", help="at most: peak memory of the process"
    )
    add_results(parser)


def _share(text: str) -> float:
    value = _positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"'{text}' is more than 1; give a share such as 0.99")
    return value


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def pick(options: argparse.Namespace) -> int:
    from harness.cli.records import read_all
    from harness.records.scores import ScoreStore
    from harness.report import pick as rule
    from harness.report.boards import latest, make_boards
    from harness.report.methods import contests

    stored = read_all(options.results or paths.results())
    boards = make_boards(latest(record for _, record in stored), ScoreStore(stored))
    limits = rule.Limits(
        options.keep, options.sure, options.p90_ms, options.p99_ms, options.size_mib, options.memory_mib
    )
    rows = [
        (contest, rule.pick(contest.methods, limits, contest.p_of_speed))
        for board in boards
        if not board.sample and (not options.task or board.task in options.task)
        for contest in contests(board)
        if not options.model or contest.model in options.model
    ]
    # where nothing but the baseline has a valid speed there is nothing to choose from
    rows = [row for row in rows if sum(method.speed_up is not None for method in row[0].methods) > 1]
    if not rows:
        raise QuantboardError(
            "no cell of this task and model on real data has a valid speed-up over its baseline; run a suite with --data"
        )
    if options.json:
        print(json.dumps([_to_json(contest, choice) for contest, choice in rows]))
    else:
        print("\n\n".join("\n".join(lines(contest, choice, limits)) for contest, choice in rows))
    return 0


def lines(contest: Contest, choice: Pick, limits: Limits) -> list[str]:
    """What the terminal shows of one pick, at most 80 columns wide: the answer, then the table of all methods."""
    board = contest.board
    split = f" {board.split}" if board.split not in ("", "validation") else ""
    head = [f"{board.task}{split}, {contest.model} ({board.suite})", board.machine]
    answer = [f"Nothing holds the limits. {choice.loosen}".rstrip()]
    if choice.ship:
        answer = [f"Ship {choice.ship.name}: {_answer(choice.ship)}"]
        if choice.tied:
            answer.append(f"As fast, as far as can be told: {', '.join(method.name for method in choice.tied)}.")
        if choice.close_call:
            low = choice.ship.kept.low if choice.ship.kept else None
            certain = f"it keeps {100 * low:.1f}%" if low is not None else "nothing is known"
            safe = f" {choice.surely.name} surely does." if choice.surely else ""
            answer.append(f"Close call: with 95% certainty {certain}, less than {100 * limits.keep:g}%.{safe}")
    outside = {method.name for method, _ in choice.outside}
    width = max(len(method.name) for method in contest.methods)
    table = [f"  {'method':<{width}}{'kept %':>7}{'speed-up':>18}{'p90 ms':>7}{'MiB':>5}"]
    for method in sorted(contest.methods, key=lambda method: -(method.speed_up.value if method.speed_up else 0)):
        verdict = "ship" if method is choice.ship else "no" if method.name in outside else "fits"
        table.append(
            f"  {method.name:<{width}}{_percent(method.kept):>7}{_times(method.speed_up):>18}"
            f"{_number(method.p90_ms, '.1f'):>7}{_number(method.size_mib, '.0f'):>5}  {verdict}"
        )
    wrapped = [line for text in (*head, *answer) for line in textwrap.wrap(text, 80)]
    reasons = [f"  no: {method.name}: {why}"[:80] for method, why in choice.outside]
    return [*wrapped, "", *table, *reasons]


def _answer(method: Method) -> str:
    parts = [f"{_times(method.speed_up)} times the baseline's speed", f"keeps {_percent(method.kept)}% of its accuracy"]
    if method.p90_ms:
        parts.append(f"p90 {method.p90_ms:.1f} ms")
    if method.size_mib:
        parts.append(f"{method.size_mib:.0f} MiB")
    return ", ".join(parts) + "."


def _percent(ratio: Ratio | None) -> str:
    return f"{100 * ratio.value:.1f}" if ratio else ""


def _times(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    interval = "" if ratio.low is None or ratio.low == ratio.high else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.value:.2f}{interval}"


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else ""


def _to_json(contest: Contest, choice: Pick) -> dict[str, object]:
    board = contest.board
    place = {"suite": board.suite, "task": board.task, "split": board.split, "machine": board.machine}
    methods = [asdict(method) for method in contest.methods]
    return {**place, "model": contest.model, "methods": methods, "pick": asdict(choice)}
