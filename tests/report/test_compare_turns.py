"""Speed-ups from interleaved rounds: cells that ran the same batches alternately."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from harness.records import store
from harness.records.schema import Finding, Flops
from harness.records.scores import ScoreStore
from harness.report.boards import make_boards
from harness.report.columns import speed_up_value
from harness.report.compare import Comparison, compare_board
from harness.report.pairs import pair_up, rows, to_json
from harness.report.speed_ratios import interleaved_ratio
from tests.records.records import make_record
from tests.report.stored_scores import add, answers, interleaved

BASE, TWICE = (1.0, 1.5, 0.9, 1.2), (0.5, 0.76, 0.44, 0.61)
"""Seconds: the machine's speed varies by half, the ratio hardly."""


def compared(folder: Path) -> dict[str, Comparison]:
    found = list(store.read(folder))
    records = [record for _, record in found]
    comparisons = compare_board(records, "validation", ScoreStore(found))
    return {record.key: comparisons[record.record_id] for record in records}


def noisy() -> dict[str, Any]:
    found = Finding(rule="disturbed", what="rounds differ", measured="40%", bound="25%", remedy="a quiet machine")
    return {"status": "invalid", "reason": "rounds differ", "findings": [found]}


def test_the_speed_up_is_the_paired_t_interval_of_the_same_work(tmp_path: Path) -> None:
    """It is shown even where each cell's own speed figure is invalid, together with the ratio of those figures."""
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=(10.0, 11.0), turns=BASE, **noisy())
    add(tmp_path, "int8", answers(300, 20), qps=(30.0, 33.0), turns=TWICE, **noisy())
    found = compared(tmp_path)["int8"]
    assert found.speed_up == ("interleaved", "real", 16, "samples/s")
    ratio = found.ratios["interleaved", "real", 16, "samples/s"]
    logs = [math.log(base / mine) for base, mine in zip(BASE, TWICE, strict=True)]
    test = stats.ttest_1samp(logs, 0.0)
    low, high = test.confidence_interval(0.95)
    assert ratio.value == pytest.approx(math.exp(sum(logs) / 4))
    assert ratio.low == pytest.approx(math.exp(low))
    assert ratio.high == pytest.approx(math.exp(high))
    assert ratio.p == pytest.approx(test.pvalue)
    assert found.ratios["offline", "real", 16, "qps"].value == pytest.approx(3.0)
    shown = speed_up_value(make_record(), found, found.speed_up)
    assert shown.text == "2.00×" and shown.note == "batch 16; Holm p < 0.001, interleaved; precise"


def test_a_cell_that_ran_elsewhere_than_claimed_has_no_speed_up(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=(10.0, 11.0), turns=BASE)
    elsewhere = Finding(rule="wrong_provider", what="w", measured="CPU", bound="GPU", remedy="r")
    wrong: dict[str, Any] = {"status": "invalid", "reason": "w", "findings": [elsewhere]}
    add(tmp_path, "int8", answers(300, 20), qps=(30.0, 33.0), turns=TWICE, **wrong)
    found = compared(tmp_path)["int8"]
    assert found.speed_up is None and not any(load[0] == "interleaved" for load in found.ratios)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda"},
        {"settings": {"limit": None, "measure": {"threads": 7}}},
        {"turns": [interleaved(TWICE, work="another")]},
        {"turns": [interleaved(TWICE, batches=3)]},
        {"turns": [interleaved(TWICE, batch_size=32)]},
        {"turns": [interleaved(TWICE, sequence_length=128)]},
        {"turns": [interleaved(TWICE, load="fixed")]},
    ],
)
def test_other_work_has_no_ratio(changes: dict[str, Any]) -> None:
    base = make_record(key="fp32", turns=[interleaved(BASE)])
    mine = make_record(key="int8", turns=[interleaved(TWICE)])
    assert interleaved_ratio((mine, mine.turns[0]), base) is not None
    other = make_record(**({"key": "int8", "turns": [interleaved(TWICE)]} | changes))
    assert interleaved_ratio((other, other.turns[0]), base) is None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"other_cpu_percent": 5.5}, "other processes took 5.5% of the processors' time (bound 5%)"),
        ({"steal_percent": 30.0}, "the hypervisor took 30.0%"),
        ({"quota_throttled_percent": 1.2}, "a quota held back 1.2%"),
    ],
)
def test_disturbed_rounds_are_not_tested(tmp_path: Path, what: dict[str, float], said: str) -> None:
    """A disturbance may delay long calls more than short ones. The ratio of QPS, whose rounds may have been disturbed as well,
    does not replace it."""
    for name, seconds, qps, more in (
        ("fp32", BASE, (10.0, 11.0), {"baseline": True}),
        ("int8", TWICE, (30.0, 33.0), {}),
    ):
        changed: dict[str, Any] = more
        add(tmp_path, name, answers(300, 20), qps=qps, turns=interleaved(seconds, **what), **changed)
    found = compared(tmp_path)["int8"]
    ratio = found.ratios["interleaved", "real", 16, "samples/s"]
    assert ratio.p is None and ratio.low is None and said in ratio.method
    assert found.ratios["offline", "real", 16, "qps"].p is not None
    assert found.speed_up == ("interleaved", "real", 16, "samples/s")
    shown = speed_up_value(make_record(), found, found.speed_up)
    assert shown.text == "2.00×" and said in shown.note


def test_a_table_shows_what_quantization_did_apart_from_the_engine_and_single_samples(tmp_path: Path) -> None:
    """Seconds, batch 16 and 1: PyTorch 8 and 0.9, ONNX Runtime 4 and 0.6, with integers 2 and 0.2."""
    for name, backend, int8, many, one in (
        ("fp32", "torch_fp32", 0.0, 8.0, 0.9),
        ("plain", "onnxruntime_fp32", 0.0, 4.0, 0.6),
        ("int8", "onnxruntime_int8", 0.9, 2.0, 0.2),
    ):
        turns = [interleaved((many, many)), interleaved((one, one), batch_size=1)]
        flops = Flops(sequence_length=384, total=10, encoder=9, head=1, int8_share=int8, cross_check="equal")
        given: dict[str, Any] = {"baseline": backend == "torch_fp32", "backend": backend, "flops": flops}
        add(tmp_path, name, answers(300, 20), qps=(10.0, 11.0), turns=turns[0], **given)
        records = [
            record.model_copy(update={"turns": [*record.turns, turns[1]]} if record.key == name else {})
            for _, record in store.read(tmp_path)
        ]
        (tmp_path / "run.jsonl").write_text("".join(f"{record.model_dump_json()}\n" for record in records))
    read = list(store.read(tmp_path))
    (board,) = make_boards([record for _, record in read], ScoreStore(read))
    place = {column.name: number for number, column in enumerate(board.columns)}
    shown = {
        row.record.key: [row.values[place[name]].text for name in ("speed-up", "same engine", "batch 1")]
        for row in board.rows
    }
    assert shown == {
        "fp32": ["baseline", "", "baseline"],
        "plain": ["2.00×", "", "1.50×"],
        "int8": ["4.00×", "2.00×", "4.50×"],
    }


def test_rounds_of_another_turn_are_left_out() -> None:
    """A process that was lost in a round has none of it: the rest are compared."""
    base = make_record(key="fp32", turns=[interleaved(BASE)])
    whole = interleaved((*TWICE[:3], 99.0))
    rounds = [*whole.rounds[:3], whole.rounds[3].model_copy(update={"together": "another"})]
    mine = make_record(key="int8", turns=[whole.model_copy(update={"rounds": rounds})])
    ratio = interleaved_ratio((mine, mine.turns[0]), base)
    assert ratio is not None and "3 interleaved rounds" in ratio.method
    assert ratio.value == pytest.approx((1.0 / 0.5 * 1.5 / 0.76 * 0.9 / 0.44) ** (1 / 3))


def test_ranks_are_by_turns_where_cells_took_them(tmp_path: Path) -> None:
    """By their QPS the two INT8 rows could not be told apart, and one is invalid."""
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=(10.0, 14.0, 9.0, 12.0), turns=BASE)
    add(tmp_path, "int8", answers(300, 20), qps=(20.0, 28.0, 18.0, 24.0), turns=TWICE, **noisy())
    add(tmp_path, "same", answers(300, 20), qps=(20.0, 27.0, 19.0, 24.0), turns=(0.51, 0.75, 0.45, 0.6))
    add(tmp_path, "alone", answers(300, 20), qps=(90.0, 91.0, 92.0, 90.0))
    ranks = {name: comparison.speed_rank for name, comparison in compared(tmp_path).items()}
    assert ranks == {"fp32": (3, 3), "int8": (1, 2), "same": (1, 2), "alone": None}


def test_the_largest_set_is_ranked(tmp_path: Path) -> None:
    """Two cells that were run again together do not take away the ranks of those that took turns round by round."""
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=(10.0, 10.1, 9.9), turns=BASE)
    add(tmp_path, "a", answers(300, 20), qps=(20.0, 20.1, 20.0), turns=TWICE)
    add(tmp_path, "b", answers(300, 20), qps=(30.0, 30.2, 30.1))
    ranks = {name: comparison.speed_rank for name, comparison in compared(tmp_path).items()}
    assert ranks == {"fp32": (3, 3), "a": (2, 2), "b": (1, 1)}


def test_compare_shows_what_the_ratio_is_of(tmp_path: Path) -> None:
    """A process that was lost in a slow round: its mean over all rounds would contradict the ratio."""
    add(tmp_path, "fp32", answers(300, 20), baseline=True, turns=(1.0, 1.0, 4.0))
    add(tmp_path, "int8", answers(300, 20), turns=(0.5, 0.5))
    records = list(store.read(tmp_path))
    (pair,) = pair_up([record for _, record in records], "int8", "fp32", [], ScoreStore(records))
    found = next(ratio for ratio in to_json(pair)["ratios"] if ratio["scenario"] == "interleaved")
    assert (found["a"], found["b"], found["value"]) == pytest.approx((64.0, 32.0, 2.0))
    assert any("samples/s, interleaved, batch 16" in row for row in rows([pair]))
