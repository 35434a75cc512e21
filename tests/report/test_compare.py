"""Cells compared with their baselines, ranked, and over seeds: from records and their stored scores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.errors import RecordError
from harness.records import schema, store
from harness.records.schema import Checkpoint, Finding, Flops
from harness.records.scores import ScoreStore
from harness.report import boards, columns
from harness.report.compare import Comparison, baseline_of, compare_board
from harness.report.site import render
from harness.report.speed_ratios import rounds_alternate, speed_ratios
from harness.suite.train import TrainSettings
from tests.records.records import make_record
from tests.report.stored_scores import add, answers, with_rounds

FAST, SLOW = (100.0, 101.0, 99.0, 100.5, 99.5), (50.0, 50.4, 49.5, 50.2, 49.7)


def compared(folder: Path) -> dict[str, Comparison]:
    found = list(store.read(folder))
    records = [record for _, record in found]
    comparisons = compare_board(records, "validation", ScoreStore(found))
    return {record.key: comparisons[record.record_id] for record in records}


def test_each_cell_is_tested_against_its_baseline_and_corrected_over_the_table(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=SLOW)
    add(tmp_path, "good", answers(300, 22), qps=FAST)
    add(tmp_path, "bad", answers(300, 40), qps=FAST)
    found = compared(tmp_path)
    assert found["fp32"].differences == {}
    good, bad = found["good"].differences["accuracy"], found["bad"].differences["accuracy"]
    assert good.value == pytest.approx(-100 * 2 / 300)
    assert good.p == pytest.approx(stats.binomtest(0, 2).pvalue)
    assert bad.p == pytest.approx(stats.binomtest(0, 20).pvalue)
    assert found["bad"].corrected == pytest.approx(2 * stats.binomtest(0, 20).pvalue)
    assert found["good"].corrected == pytest.approx(0.5)
    assert found["good"].share == pytest.approx(278 / 280)
    assert (found["good"].bound, found["bad"].bound) == (0.99, 0.0)
    assert bad.low is not None and bad.high is not None
    fp32 = 100 * 280 / 300
    assert found["bad"].share_range == pytest.approx(((fp32 + bad.low) / fp32, (fp32 + bad.high) / fp32))


def of_weights(key: str, **lineage: str) -> Checkpoint:
    return Checkpoint(key=key, recipe="r", source="s", architecture={}, parameters=1, weights_bytes=4, lineage=lineage)


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ({"f": "new", "p": "x"}, ""),
        ({"f": "old", "p": "y"}, "other training"),  # the cache was emptied, and only some cells were run again
        ({"other settings": "z", "p": "y"}, "other training"),
        ({"other revision": "new", "p": "y"}, ""),
        ({}, "training not known"),
    ],
)
def test_accuracy_is_compared_only_with_a_baseline_of_the_same_weights(
    tmp_path: Path, kept: dict[str, str], why: str
) -> None:
    results, out = tmp_path / "results", tmp_path / "site"
    add(results, "fp32", answers(300, 20), baseline=True, qps=SLOW, checkpoint=of_weights("f", f="new"))
    for seed in (1, 2):
        seeded: dict[str, Any] = {"baseline": seed == 2, "seed": seed}
        add(
            results,
            f"int8-{seed}",
            answers(300, 40),
            qps=FAST,
            label="int8",
            checkpoint=of_weights("p", **kept),
            **seeded,
        )
    add(results, "kin", answers(300, 40), qps=FAST, checkpoint=of_weights("k", f="new", k="w"))
    found = compared(results)
    comparison = found["int8-1"]
    assert (comparison.why_incomparable, "accuracy" in comparison.differences, comparison.share is None) == (
        why,
        not why,
        bool(why),
    )
    assert {name: other.ranked for name, other in found.items() if name != "int8-2"} == dict.fromkeys(
        ("fp32", "kin"), 2 if why else 3
    ) | {"int8-1": 0 if why else 3}
    assert found["kin"].corrected == pytest.approx((1 if why else 2) * stats.binomtest(0, 20).pvalue)
    assert comparison.ratios.keys() == found["kin"].ratios.keys() != set()
    render(results, out)
    suite, cell = next(out.glob("suite-*.html")).read_text(), (out / "cell-run-int8-1.html").read_text()
    assert (suite.count(f">{why}</td>") > 1) if why else ("training</td>" not in suite)
    assert ("accuracy is not compared" in cell) == bool(why)


def test_records_without_lineages_are_compared(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, checkpoint=of_weights("f"))
    add(tmp_path, "int8", answers(300, 40), checkpoint=of_weights("p"))
    assert "accuracy" in compared(tmp_path)["int8"].differences


def test_cells_that_cannot_be_distinguished_share_ranks(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=SLOW)
    add(tmp_path, "good", answers(300, 22), qps=FAST)
    add(tmp_path, "bad", answers(300, 60), qps=FAST)
    found = compared(tmp_path)
    assert {key: comparison.rank for key, comparison in found.items()} == {
        "fp32": (1, 2),
        "good": (1, 2),
        "bad": (3, 3),
    }
    assert {key: comparison.speed_rank for key, comparison in found.items()} == {
        "fp32": (3, 3),
        "good": (1, 2),
        "bad": (1, 2),
    }


def finding(rule: Any) -> Finding:
    return Finding(rule=rule, what="what", measured="1", bound="0", remedy="do")


def products(int8: float) -> Flops:
    return Flops(sequence_length=384, total=10, encoder=9, head=1, int8_share=int8, cross_check="equal")


def test_int8_is_also_compared_with_its_own_engine_in_floating_point(tmp_path: Path) -> None:
    """Twice as fast as the baseline, of which the engine alone brings 1.6: what is left is quantization's, 1.25."""
    engine, int8 = (80.0, 80.6, 79.4, 80.3, 79.7), (100.0, 100.7, 99.3, 100.4, 99.6)
    add(tmp_path, "fp32", answers(300, 20), qps=SLOW, baseline=True, flops=products(0.0))
    add(tmp_path, "ort", answers(300, 22), qps=engine, backend="onnxruntime_fp32", flops=products(0.0))
    add(tmp_path, "bf16", answers(300, 22), qps=int8, backend="onnxruntime_bf16", flops=products(0.0))
    elsewhere: dict[str, dict[str, Any]] = {
        "gpu": {"device": "cuda"},
        "version": {"software": {"onnxruntime": "1"}},
        "float": {"scheme": "engine_int8"},
        "model": {"model": "teacher"},
    }
    for name, changes in elsewhere.items():
        more: Any = {"backend": "onnxruntime_aa", "flops": products(0.0)} | changes
        add(tmp_path, name, answers(300, 90), qps=SLOW, **more)
    add(tmp_path, "int8", answers(300, 40), qps=int8, backend="onnxruntime_int8", flops=products(0.9))
    student: Any = {"model": "student", "settings": {"limit": None, "ancestor": "teacher"}}
    add(tmp_path, "student", answers(300, 21), backend="onnxruntime_int8", flops=products(0.9), **student)
    add(tmp_path, "other", answers(300, 22), seed=2, backend="onnxruntime_int8", flops=products(0.9))
    add(tmp_path, "own", answers(300, 22), backend="torch_int8", label="own", flops=products(0.9))
    read = list(store.read(tmp_path))
    (board,) = boards.make_boards([record for _, record in read], ScoreStore(read))
    found = {name.removeprefix("run-"): comparison for name, comparison in board.engines.items()}
    assert set(found) == {
        "int8"
    }  # own: the baseline is its engine in floating point; student: its own weights are not there
    assert found["int8"].base is not None and found["int8"].base.key == "ort"
    ratio = found["int8"].ratios["offline", "real", 16, "qps"]
    assert ratio.value == pytest.approx(1.25, rel=1e-3)
    assert found["int8"].differences["accuracy"].value == pytest.approx(-100 * 18 / 300)
    assert found["int8"].corrected == pytest.approx(stats.binomtest(0, 18).pvalue)
    out = tmp_path / "site"
    render(tmp_path, out)
    page = (out / "cell-run-int8.html").read_text()
    assert (
        page.index("Compared with its baseline")
        < page.index("the same engine in floating point")
        < page.rindex("1.25×")
    )
    assert "the same engine in floating point" not in (out / "cell-run-ort.html").read_text()


def test_an_invalid_cell_is_compared_but_its_invalid_figure_is_not_ranked(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=SLOW)
    add(tmp_path, "a", answers(300, 25), qps=FAST)
    for name, rule in (("unsure", "disturbed"), ("elsewhere", "wrong_provider"), ("float", "ran_float")):
        add(tmp_path, name, answers(300, 25), qps=FAST, status="invalid", reason=rule, findings=[finding(rule)])
    found = compared(tmp_path)
    assert {name: comparison.ranked for name, comparison in found.items()} == {
        "fp32": 3,
        "a": 3,
        "unsure": 3,
        "elsewhere": 0,
        "float": 0,
    }
    assert {name: comparison.speed_ranked for name, comparison in found.items()} == {
        "fp32": 2,
        "a": 2,
        "unsure": 0,
        "elsewhere": 0,
        "float": 0,
    }
    assert found["elsewhere"].differences["accuracy"].p is not None


def test_speed_is_compared_under_equal_conditions_only(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=SLOW)
    add(tmp_path, "int8", answers(300, 20), qps=FAST)
    found = compared(tmp_path)["int8"]
    assert set(found.ratios) == {("offline", "real", 16, "qps"), ("offline", "fixed", 16, "qps")}
    ratio = found.ratios["offline", "real", 16, "qps"]
    assert ratio.value == pytest.approx(2.0, rel=0.01)
    assert ratio.low is not None and ratio.high is not None and 1.9 < ratio.low < 2.0 < ratio.high < 2.1
    assert "one after the other" in ratio.method


def test_rounds_are_paired_only_where_they_alternated() -> None:
    """Only between rounds next to each other does a drift of the machine cancel."""
    (plain,) = (part for part in make_record().speed if (part.scenario, part.load) == ("offline", "real"))
    mine = make_record(key="a"), with_rounds(plain, FAST)
    assert rounds_alternate(mine, (make_record(key="b"), with_rounds(plain, SLOW)))
    kept = with_rounds(plain, SLOW, hour=1)
    assert not rounds_alternate(mine, (make_record(key="b"), kept))
    for changes in ({"seed": 2}, {"run_id": "other"}, {"task": "glue/cola"}):
        assert not rounds_alternate(mine, (make_record(key="b", **changes), with_rounds(plain, SLOW)))
    assert all(round_.run_id == "" for round_ in mine[1].rounds)
    *first, last = mine[1].rounds
    resumed = plain.model_copy(
        update={"rounds": [*first, last.model_copy(update={"run_id": "after the first was killed"})]}
    )
    assert not rounds_alternate(mine, (make_record(key="b"), resumed))
    older = [round_.model_copy(update={"started": ""}) for round_ in mine[1].rounds]
    assert not rounds_alternate(mine, (make_record(key="b"), plain.model_copy(update={"rounds": older})))


def test_a_rate_that_one_round_did_not_find_makes_no_pair_of_other_rounds() -> None:
    """Of (0, 30, 60) and (25, 50, 0) only the second rounds can be compared: 30 to 50, not 30 to 25 and 60 to 50."""
    (plain,) = (part for part in make_record().speed if (part.scenario, part.load) == ("offline", "real"))
    server = plain.model_copy(update={"scenario": "server"})
    mine = make_record(key="a", speed=[with_rounds(server, (0.0, 30.0, 60.0))])
    base = make_record(key="b", speed=[with_rounds(server, (25.0, 50.0, 0.0))])
    whole = make_record(key="c", speed=[with_rounds(server, (25.0, 50.0, 55.0))])
    assert speed_ratios(mine, base) == speed_ratios(mine, whole) == speed_ratios(whole, base) == {}
    assert speed_ratios(whole, whole)["server", "real", 16, "qps"].value == 1.0


def test_rounds_of_another_run_or_of_other_conditions_are_neither_tested_nor_ranked(tmp_path: Path) -> None:
    one_thread = {"limit": None, "measure": {"threads": 1}}
    two_threads = {"limit": None, "measure": {"threads": 2}}
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=SLOW, settings=two_threads)
    add(tmp_path, "int8", answers(300, 20), qps=FAST, settings=two_threads)
    add(tmp_path, "later", answers(300, 20), qps=FAST, settings=two_threads, run_id="other")
    add(tmp_path, "narrow", answers(300, 20), qps=FAST, settings=one_thread)
    add(tmp_path, "on_gpu", answers(300, 20), qps=FAST, settings=two_threads, device="cuda")
    found = compared(tmp_path)
    assert {key: found[key].speed_rank for key in ("fp32", "int8")} == {"fp32": (2, 2), "int8": (1, 1)}
    assert (found["later"].speed_rank, found["narrow"].speed_rank) == (None, None)
    assert found["on_gpu"].speed_rank is None and found["on_gpu"].ratios == {}
    later = found["later"].ratios["offline", "real", 16, "qps"]
    assert later.value == pytest.approx(2.0, rel=0.01)
    assert (later.low, later.p, later.method) == (None, None, "not tested: the rounds were not interleaved")
    assert found["narrow"].ratios == {}


def test_other_examples_are_never_subtracted(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True)
    add(tmp_path, "part", answers(300, 40), ids=np.arange(1000, 1300).astype(str))
    found = compared(tmp_path)["part"]
    assert (found.differences, found.share, found.bound) == ({}, None, None)


def test_articles_are_resampled_for_grouped_examples(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(30), 10)
    rng = np.random.default_rng(0)
    base, mine = (rng.random(300) < 0.8).astype(float), (rng.random(300) < 0.6).astype(float)
    add(tmp_path, "fp32", base, baseline=True, groups=groups)
    add(tmp_path, "int8", mine, groups=groups)
    assert "over 30 articles" in compared(tmp_path)["int8"].differences["accuracy"].method


def test_the_baseline_of_a_descendant_is_its_ancestors() -> None:
    fp32 = make_record(key="fp32", model="bert", baseline=True)
    other = make_record(key="other", model="bert", baseline=True, seed=2)
    folded = make_record(key="folded", model="bert-qat", baseline=True, settings={"limit": None, "ancestor": "bert"})
    int8 = make_record(key="int8", model="bert-qat", settings={"limit": None, "ancestor": "bert"})
    alone = make_record(key="alone", model="else")
    records = [fp32, other, folded, int8, alone]
    assert [baseline_of(record, records) for record in records] == [fp32, other, fp32, fp32, None]


def test_seeds_have_a_spread_of_their_own(tmp_path: Path) -> None:
    for seed, wrong in ((1, 20), (2, 26), (3, 23)):
        add(tmp_path, f"fp32-{seed}", answers(300, 20), baseline=True, seed=seed, label="fp32")
        add(tmp_path, f"int8-{seed}", answers(300, wrong), seed=seed, label="int8")
    found = list(store.read(tmp_path))
    (board,) = boards.make_boards([record for _, record in found], ScoreStore(found))
    line = next(spread for spread in board.seeds if spread.label == "int8")
    assert line.seeds == (1, 2, 3)
    assert line.values == pytest.approx((100 * 274 / 300, 100 * 277 / 300, 100 * 280 / 300))
    assert line.deviation == pytest.approx(1.0)
    assert line.points == pytest.approx((-2.0, -1.0, 0.0))


def test_a_spread_is_over_seeds_only(tmp_path: Path) -> None:
    """Not over other data, settings or devices. The place of the data, checkpoints kept while training, and a default that is
    written out are no settings."""

    def made(seed: int, **changes: Any) -> dict[str, Any]:
        spec = {"seed": seed, "parent": {"seed": seed, "identity": {"train": "a"}, "train": {"epochs": 1}} | changes}
        own = {"keep_checkpoints": seed, "epochs": 1.0}
        if seed == 1:  # written out
            own["weight_decay"] = TrainSettings.model_fields["weight_decay"].default
        spec |= {"train": own, "data": {"kind": "saved" if seed == 1 else "raw"}}
        return {"seed": seed, "settings": {"limit": None, "checkpoint": spec}}

    whole: dict[int, dict[str, Any]] = {1: {}, 2: {}, 3: {"identity": {"train": "b"}}, 4: {"train": {"epochs": 2}}}
    for seed, changes in whole.items():
        add(tmp_path, f"cpu-{seed}", answers(300, 20), label="fp32", **made(seed, **changes))
        add(tmp_path, f"cuda-{seed}", answers(300, 20), label="fp32", device="cuda", **made(seed, **changes))
    found = list(store.read(tmp_path))
    (board,) = boards.make_boards([record for _, record in found], ScoreStore(found))
    assert [(line.device, line.seeds) for line in board.seeds] == [("cpu", (1, 2)), ("cuda", (1, 2))]


def test_a_baseline_is_of_the_same_device_where_there_is_one() -> None:
    def cell(key: str, device: str, **changes: Any) -> schema.Record:
        return make_record(key=key, device=device, **changes)

    bases = [cell(device, device, baseline=True) for device in ("cpu", "cuda")]
    int8 = cell("int8", "cuda", label="int8")
    assert [baseline_of(record, [*bases, int8]) for record in (*bases, int8)] == [*bases, bases[1]]
    assert baseline_of(int8, [bases[0], int8]) == bases[0]


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True)
    found = list(store.read(tmp_path))
    (board,) = boards.make_boards([record for _, record in found], ScoreStore(found))
    assert board.seeds == ()


def test_pages_show_difference_rank_and_speed_up(tmp_path: Path) -> None:
    results = tmp_path / "results"
    add(results, "fp32", answers(300, 20), baseline=True, qps=SLOW)
    bad = add(results, "bad", answers(300, 60), qps=FAST)
    site = render(results, tmp_path / "site").parent
    row = re.sub(r"\s+", " ", (site / "suite-squad.html").read_text().split(">bad</a>")[1].split("</tr>")[0])
    for shown in ("-13.33", "p &lt; 0.001", "below 99%", "2.00×", ">2<br>", ">1<br>"):
        assert shown in row
    page = (site / boards.page_name(bad)).read_text()
    assert "Compared with its baseline" in page
    assert "McNemar" in page
    assert 'href="cell-run-fp32.html"' in page


def test_a_seed_without_speed_says_why_and_is_not_left_out_as_invalid(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for seed, parts in ((1, {"qps": SLOW}), (2, {"settings": {"limit": None, "measure": {"rounds": 0}}, "speed": []})):
        add(results, f"fp32-{seed}", answers(300, 20), baseline=True, seed=seed, label="fp32", **parts)
    add(results, "int8", answers(300, 20), qps=FAST)
    site = render(results, tmp_path / "site").parent
    page = (site / "suite-squad.html").read_text()
    assert 'class="chart"' in page
    assert "Left out" not in page
    assert page.split("fp32-2.html")[-1].count("first seed only") == len(columns.SPEED_COLUMNS)
    spoilt = add(
        results, "noisy", answers(300, 20), status="invalid", reason="noisy", findings=[finding("disturbed")], qps=FAST
    )
    render(results, tmp_path / "site")
    assert f"Left out, because a validity rule fails: {spoilt.label} of" in (site / "suite-squad.html").read_text()


def test_a_missing_scores_file_leaves_a_difference_without_a_test(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True)
    add(tmp_path, "int8", answers(300, 30))
    (tmp_path / "scores" / "run-int8.npz").unlink()
    found = compared(tmp_path)["int8"]
    assert found.differences["accuracy"].p is None
    assert found.rank is None


def test_a_broken_scores_file_is_named(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True)
    (tmp_path / "scores" / "run-fp32.npz").write_bytes(b"PK half")
    with pytest.raises(RecordError, match=r"run-fp32\.npz: not a scores file"):
        add(tmp_path, "int8", answers(300, 30))
        compared(tmp_path)


@pytest.mark.parametrize("name", ["../scores/run-a.npz", "/etc/passwd", "scores/../../x.npz"])
def test_a_record_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    record = add(tmp_path, "a", answers(10, 1))
    stored = ScoreStore(store.read(tmp_path))
    assert stored.path(record, name) is None
    assert stored.path(record, "scores/run-a.npz") == tmp_path / "scores" / "run-a.npz"


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    record = add(tmp_path, "a", answers(10, 1))
    content = {"validation/id": np.array([{"a": 1}], dtype=object)}
    np.savez(tmp_path / "scores" / "run-a.npz", allow_pickle=True, **content)
    with pytest.raises(RecordError, match="not a scores file"):
        ScoreStore(store.read(tmp_path)).scores(record, "validation")
