"""What the script of a task's page needs to pick under other limits: the figures of the rule, unrounded, and the words of the
card. The script has no test of its own: which methods tie is decided here, by the rule itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from harness.measure.percentiles import TAIL_QUERIES
from harness.report.leaderboards import Leaderboard
from harness.report.pick import Limits, Method, Ratio, pick
from harness.report.task_rows import export_command, shown_share, shown_speed


def answer_words(board: Leaderboard) -> dict[str, str]:
    """What the card says of a pick, and the end of `no p99`. {n}: how many methods are within the limits."""
    return {
        "ship": f"Ship this on {board.machine.title}",
        "baseline": "Nothing faster meets your limits.",
        "tied": f"Tied for fastest of {{n}} methods within your limits, and keeps the most {board.subject.metric} of these.",
        "fastest": "The fastest of the {n} methods within your limits.",
        "tail": f" of {TAIL_QUERIES} queries or more",
    }


def method_data(board: Leaderboard) -> list[dict[str, object]]:
    """Of each method what the page's script needs: figures of the rule, unrounded, and texts of the card."""
    found = []
    for entry in board.entries:
        method, speed, kept = (
            entry.method,
            shown_speed(entry.method.speed_up, entry.record),
            shown_share(entry.method.kept),
        )
        figures = {
            "kept": [method.kept.value, method.kept.low] if method.kept else None,
            "speed": method.speed_up.value if method.speed_up else None,
            "p90": method.p90_ms,
            "p99": method.p99_ms,
            "size": method.size_mib,
            "memory": method.memory_mib,
            "effort": method.effort,
        }
        texts = {
            "title": entry.name.title,
            "short": entry.name.short,
            "baseline": entry.name.kind == "baseline",
            "speed_text": speed.text,
            "speed_interval": speed.interval,
            "kept_text": f"{kept.text}%",
            "kept_interval": kept.interval,
            "size_text": f"{method.size_mib:.0f} MiB" if method.size_mib else "–",
            "tie_text": f"{entry.name.short} ({speed.text}, {kept.text}%)",
            "command": export_command(entry.record),
        }
        found.append(figures | texts)
    return found


def ties(board: Leaderboard) -> list[list[int]]:
    """For each method, were it the fastest, the places of those that tie with it: as the rule itself says of each pair."""
    within = Limits(keep=-float("inf"))

    def tied(fastest: Method, other: Method) -> bool:
        if not (fastest.speed_up and other.speed_up and fastest.speed_up.value >= other.speed_up.value):
            return False
        pair = [replace(method, kept=Ratio(1.0, 1.0, 1.0)) for method in (fastest, other)]
        originals = {id(pair[0]): fastest, id(pair[1]): other}
        choice = pick(pair, within, lambda a, b: board.p_of_speed(originals[id(a)], originals[id(b)]))
        return bool(choice.tied)

    methods = board.methods
    return [
        [place for place, other in enumerate(methods) if other is not fastest and tied(fastest, other)]
        for fastest in methods
    ]


def script_data(board: Leaderboard, baseline: str) -> str:
    """JSON that may stand inside a script element."""
    found: Mapping[str, object] = {
        "methods": [data | {"ties": tied} for data, tied in zip(method_data(board), ties(board), strict=True)],
        "words": answer_words(board),
        "metric": board.subject.metric,
        "baseline": baseline,
        "contested": board.is_contested,
    }
    return json.dumps(found).replace("<", "\\u003c")
