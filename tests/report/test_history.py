"""Histories from copies of committed records: more nights of them, with a known slow-down."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.machine import paths
from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.boards import latest, make_boards
from harness.report.history import History, histories, level_change, what_changed
from harness.report.history_chart import history_charts
from harness.report.judged import Judged, Nights, Part, parts_of
from harness.report.leaderboards import leaderboards
from harness.report.night_tests import cell_of
from harness.report.site import render
from tests.records.records import make_record
from tests.report.test_gate import a_night

SUITE = "squad_minilm"


def timed_run() -> list[Record]:
    """The newest committed run of the suite that was interleaved."""
    records = [record for _, record in store.read(paths.results() / SUITE)]
    newest = max(record.run_id for record in records if record.turns)
    return [record for record in records if record.run_id == newest]


def night(
    records: list[Record], number: int, rng: np.random.Generator, slower: float = 0.0, **changes: Any
) -> list[Record]:
    """A copy a night later. slower: the share of speed that INT8 rows lost."""
    copies = []
    for record in records:
        lost = 1 - slower if "int8" in record.label else 1.0
        factor = math.exp(rng.normal(0, 0.01)) / lost
        turns = [
            part.model_copy(
                update={
                    "rounds": [
                        each.model_copy(update={"seconds": each.seconds * (1.0 if record.baseline else factor)})
                        for each in part.rounds
                    ]
                }
            )
            for part in record.turns
        ]
        run = f"20270101T{number:06}Z"
        parts = {
            "run_id": run,
            "record_id": f"{run}-{record.key[:16]}",
            "finished": f"2027-{1 + number // 28:02}-{1 + number % 28:02}T01:00:00+00:00",
            "turns": turns,
        }
        copies.append(record.model_copy(update=parts | changes))
    return copies


def found(records: list[Record]) -> dict[str, History]:
    nights = Nights.of(records)
    groups = leaderboards(make_boards(latest(records), ScoreStore()))
    boards = [board for group in groups.values() for board in group]
    return {history.entry.record.label: history for board in boards for history in histories(board, nights)}


def test_a_slow_down_is_judged_marked_and_named() -> None:
    rng, base = np.random.default_rng(0), timed_run()
    records = [record for number in range(14) for record in night(base, number, rng)]
    software = base[0].software | {"onnxruntime": "9.9"}
    for number in range(14, 20):
        records += night(base, number, rng, slower=0.08, software=software, commit="abc1234def")
    history = found(records)
    slow, quiet = history["onnxruntime_int8"], history["onnxruntime_fp32"]
    assert slow.points[0].what == "first" and len(slow.points) == 20
    assert {point.what for point in slow.points[1:14]} == {"pass"} == {point.what for point in quiet.points[1:]}
    assert "slower" in {point.what for point in slow.points[14:16]}
    assert slow.levels == (14,) and quiet.levels == ()
    assert level_change(slow, 14) == pytest.approx(-0.08, abs=0.015)
    before = base[0].software.get("onnxruntime")
    changes = dict(slow.points[14].changes)
    assert changes["commit"] == "abc1234" and (before is None or changes["library"] == f"onnxruntime {before} → 9.9")
    assert all(not point.changes for place, point in enumerate(slow.points) if place != 14)


def test_a_nights_interval_is_students_over_its_rounds() -> None:
    rng = np.random.default_rng(3)
    records = [record for number in range(3) for record in a_night(number, rng, 0.01)]
    history = found(records)["int8"]
    point = history.points[0]
    (theirs,) = [record for record in records if record.label == "torch" and record.run_id == point.record.run_id]
    logs = [
        math.log(b.seconds / a.seconds)
        for a, b in zip(point.record.turns[0].rounds, theirs.turns[0].rounds, strict=True)
    ]
    low, high = stats.t.interval(0.95, len(logs) - 1, np.mean(logs), stats.sem(logs))
    assert point.speed and point.speed.low == pytest.approx(math.exp(low))
    assert point.speed.high == pytest.approx(math.exp(high))


def test_failed_and_disturbed_nights_are_shown_and_not_judged() -> None:
    rng = np.random.default_rng(4)
    nights = [a_night(number, rng, 0.01) for number in range(4)]
    busy = nights[3][3].turns[0]
    rounds = [each.model_copy(update={"other_cpu_percent": 40.0}) for each in busy.rounds]
    nights[3][3] = nights[3][3].model_copy(update={"turns": [busy.model_copy(update={"rounds": rounds})]})
    failed = {"status": "failed", "reason": "killed", "accuracy": [], "turns": []}
    nights[2] = [record.model_copy(update=failed) if record.label == "int8" else record for record in nights[2]]
    (point,) = [found([r for one in nights for r in one])["int8"].points[-1]]
    assert point.what == "not judged" and point.why.startswith("other processes took 40.0%") and point.speed is None
    assert [point.what for point in found([r for one in nights for r in one])["int8"].points][2] == "failed"


def test_what_changed_between_two_nights() -> None:
    machine = {"cpu": "made up", "cores": 2, "gpus": [], "os": "Linux 1", "memory_bytes": 5}
    a = make_record(commit="1" * 40, machine=machine)
    b = make_record(
        commit="2" * 40, machine=machine | {"os": "Linux 2", "memory_bytes": 6}, software={"torch": "2.14"}, dirty=True
    )
    assert list(what_changed(a, b)) == [
        ("commit", "2222222, uncommitted changes"),
        ("library", "torch 2.13.0 → 2.14"),
        ("machine", "os Linux 1 → Linux 2"),
    ]
    assert list(what_changed(a, a)) == []


def test_the_page_is_linked_and_stays_small_over_many_nights(tmp_path: Path) -> None:
    rng, base = np.random.default_rng(1), timed_run()
    for number in range(100):
        for record in night(base, number, rng):
            store.append(tmp_path / "results" / f"{number:03}.jsonl", record)
    site = render(tmp_path / "results", tmp_path / "site").parent
    (page,) = site.glob("history-*.html")
    text = page.read_text()
    assert f'href="{page.name}"' in (site / page.name.replace("history-", "task-")).read_text()
    assert text.count("90 nights of 100") == len(re.findall('class="card pad night"', text)) > 3
    cell = re.search(r'href="(cell-[^"]*)"', text)
    assert cell and "Its nights" in (site / cell[1]).read_text()


def test_nights_of_one_day_show_their_time() -> None:
    """Below a narrow chart there is room for the time alone."""
    rng, base = np.random.default_rng(0), timed_run()
    days = ("2027-01-05T01:02", "2027-01-05T13:04", "2027-01-06T01:00")
    records = [
        record for number, day in enumerate(days) for record in night(base, number, rng, finished=f"{day}:00+00:00")
    ]
    points = found(records)["onnxruntime_int8"].points
    charts = history_charts(points, [Figure(value=1.0), Figure(value=1.1), Figure(value=1.0)], "speed", "x")
    assert [[tick[1] for tick in chart.x_ticks] for chart in charts] == [
        ["01-05 01:02", "01-05 13:04", "01-06"],
        ["01:02", "13:04", "01-06"],
    ]


def test_one_night_has_no_history(tmp_path: Path) -> None:
    for record in timed_run():
        store.append(tmp_path / "results" / "run.jsonl", record)
    site = render(tmp_path / "results", tmp_path / "site").parent
    assert not list(site.glob("history-*.html"))


@pytest.mark.parametrize("night_before", [0.0, -0.04])
def test_the_dashed_line_is_where_a_night_fails(night_before: float) -> None:
    """By the quantiles of Student's t, and by moving the last night of one row to either side of it. After a slow night the mean of two
    fails first. night_before: what is added to the logarithm of its speed-up."""
    rng, base = np.random.default_rng(0), timed_run()
    records = [record for number in range(12) for record in night(base, number, rng)]
    parts, by_id = parts_of(records), {record.record_id: record for record in records}
    last = next(record for record in reversed(records) if record.label == "onnxruntime_int8")
    own = [part for part in parts if part.cell == cell_of(last)]
    load = max(load for load, _ in own[-1].nights)

    def moved(part: Part, value: float) -> Part:
        return replace(
            part, nights=tuple((at, replace(one, value=value) if at == load else one) for at, one in part.nights)
        )

    own[-2] = moved(own[-2], dict(own[-2].nights)[load].value + night_before)

    def judged(value: float) -> Judged:
        return Nights([*own[:-1], moved(own[-1], value)], by_id.__getitem__).judged(last)[-1]

    values = {at: [dict(part.nights)[at].value for part in own][-11:-1] for at, _ in own[-1].nights}
    freedom = sum(len(of_load) - 1 for of_load in values.values())
    variance = sum(np.var(of_load) * len(of_load) for of_load in values.values()) / freedom
    tests = 2 * len(values)  # tonight, and the mean of the last two nights, of every load

    def lowest(new: int, old: list[float]) -> float:
        error = math.sqrt(variance * (1 / new + 1 / len(old)))
        significant, relevant = stats.t.ppf([0.005 / tests, 0.975], freedom) * error
        return float(np.mean(old) + min(significant, math.log(0.95) + relevant))

    *rest, before = values[load]
    alone, of_two = lowest(1, values[load]), 2 * lowest(2, rest) - before
    assert judged(0.0).below == pytest.approx((math.exp(alone), math.exp(of_two)))
    assert (of_two > alone) == bool(night_before)
    limit = max(alone, of_two)
    assert judged(limit - 1e-6).slower and not judged(limit + 1e-6).slower
    history = found(records)["onnxruntime_int8"]
    assert [len(point.below) for point in history.points] == [0, 1, 1, *[2] * 9]
    gate = [max(point.below, default=None) for point in history.points]
    wide, _ = history_charts(history.points, [p.speed for p in history.points], "l", "×", (), gate)
    (y1, first), *_, (y2, last_tick) = [(y, float(text.rstrip("×"))) for y, text in wide.y_ticks]
    heights = [y1 + (value - first) * (y2 - y1) / (last_tick - first) for value in gate if value]
    drawn = [float(step.split()[1].partition("H")[0]) for step in wide.gate.split("M")[1:]]
    assert 0 < len(drawn) <= 11 and drawn == pytest.approx(heights[-len(drawn) :], abs=0.2)
