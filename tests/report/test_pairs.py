"""`quantboard compare A B`: which records a name means, which go together, and the three forms of the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.cli.main import main
from harness.errors import QuantboardError
from harness.records import store
from harness.records.schema import Checkpoint, Finding
from tests.records.records import make_record
from tests.report.stored_scores import add, answers

FAST, SLOW = (100.0, 101.0, 99.0), (50.0, 50.4, 49.5)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in (1, 2):
        add(tmp_path, f"fp32-{seed}", answers(300, 20), label="torch_fp32", baseline=True, seed=seed, qps=SLOW)
        add(tmp_path, f"int8-{seed}", answers(300, 40), label="int8", seed=seed, qps=FAST)
    add(tmp_path, "other", answers(300, 40), label="int8", model="large", task="glue/sst2")
    return tmp_path


def call(capsys: Any, results: Path, *words: str) -> tuple[int, str, str]:
    code = main(["compare", *words, "--results", str(results)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_labels_are_paired_by_task_and_seed(results: Path, capsys: Any) -> None:
    code, out, _ = call(capsys, results, "int8", "torch_fp32", "--json")
    assert code == 0
    found = json.loads(out)
    assert [(difference["a"]["record_id"], difference["b"]["record_id"]) for difference in found] == [
        ("run-int8-1", "run-fp32-1"),
        ("run-int8-2", "run-fp32-2"),
    ]
    difference = found[0]["differences"]["accuracy"]
    assert difference["value"] == pytest.approx(-100 * 20 / 300)
    assert difference["p"] == pytest.approx(stats.binomtest(0, 20).pvalue)
    assert difference["p_holm"] == pytest.approx(2 * stats.binomtest(0, 20).pvalue)
    ratio = next(ratio for ratio in found[0]["ratios"] if ratio["load"] == "real")
    assert ratio["value"] == pytest.approx(2, rel=0.01)
    assert (ratio["a"], ratio["b"]) == (pytest.approx(100), pytest.approx(np.mean(SLOW)))


def test_rows_of_several_suites_and_machines_are_told_apart(tmp_path: Path, capsys: Any) -> None:
    places: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {"suite": "other"},
        "three": {"machine": {"cpu": "new", "cores": 2}},
    }
    for name, changes in places.items():
        for label in ("fp32", "int8"):
            add(tmp_path, f"{label}-{name}", answers(300, 20), label=label, **changes)
    shown = call(capsys, tmp_path, "int8", "fp32", "--markdown")[1]
    for first in ("squad, made up, 2 cores, no GPU", "other, made up, 2 cores, no GPU", "squad, new, 2 cores, no GPU"):
        assert f"| glue/rte, {first} |" in shown
    alone = call(capsys, tmp_path, "run-int8-one", "run-fp32-one", "--markdown")[1]
    assert "| glue/rte |" in alone


def test_a_pair_of_two_trainings_says_so(tmp_path: Path, capsys: Any) -> None:
    for name, weights in (("fp32", "new"), ("int8", "old")):
        checkpoint = Checkpoint(
            key="f", recipe="r", source="s", architecture={}, parameters=1, weights_bytes=4, lineage={"f": weights}
        )
        add(tmp_path, name, answers(300, 20), label=name, checkpoint=checkpoint)
    (found,) = json.loads(call(capsys, tmp_path, "int8", "fp32", "--json")[1])
    assert found["other_training"] is True
    assert "two trainings" in call(capsys, tmp_path, "int8", "fp32", "--markdown")[1]


def test_of_two_trainings_without_a_lineage_nothing_is_taken_for_granted(tmp_path: Path, capsys: Any) -> None:
    """One model and seed on two machines: nobody knows whether it is the same training. On one it is taken for granted."""
    add(tmp_path, "old", answers(300, 20))
    add(tmp_path, "new", answers(300, 40), machine={"cpu": "new", "cores": 2})
    add(tmp_path, "int8", answers(300, 30), label="int8")
    (found,) = json.loads(call(capsys, tmp_path, "run-old", "run-new", "--json")[1])
    assert found["training"] == "training not known"
    shown = call(capsys, tmp_path, "run-old", "run-new", "--markdown")[1]
    assert shown.count("training not known") >= 2
    (found,) = json.loads(call(capsys, tmp_path, "run-int8", "run-old", "--json")[1])
    assert found["training"] == ""


def test_rows_of_several_models_are_named_and_stay_with_their_own(tmp_path: Path, capsys: Any) -> None:
    for model in ("tiny", "large"):
        for label, wrong in (("fp32", 20), ("int8", 40)):
            add(tmp_path, f"{model}-{label}", answers(300, wrong), label=label, model=model)
    add(tmp_path, "alone", answers(300, 40), label="int8", model="alone")
    shown = call(capsys, tmp_path, "int8", "fp32", "--markdown")[1]
    assert shown.count("| accuracy |") == 2
    for model in ("tiny", "large"):
        assert f"| glue/rte, A {model}/int8, B {model}/fp32 |" in shown
    found = json.loads(call(capsys, tmp_path, "tiny", "fp32", "--json")[1])
    assert [(one["a"]["label"], one["b"]["model"]) for one in found] == [("int8", "tiny")]
    code, _, err = call(capsys, tmp_path, "run-alone", "fp32")
    assert code == 2
    assert "means several cells to compare with alone/int8: large/fp32, tiny/fp32; name one" in err


def test_of_several_schemes_the_same_one_is_meant(tmp_path: Path, capsys: Any) -> None:
    """Unless a label names another, or there is none."""
    for backend, scheme in (("sim", "q8bert"), ("sim", "engine_int8"), ("engine", "engine_int8"), ("fp32", None)):
        label = f"{backend} ({scheme})" if scheme else backend
        add(tmp_path, label.replace(" ", ""), answers(300, 20), label=label, backend=backend, scheme=scheme)

    def labels(*names: str) -> list[tuple[str, str]]:
        return [
            (pair["a"]["label"], pair["b"]["label"]) for pair in json.loads(call(capsys, tmp_path, *names, "--json")[1])
        ]

    assert labels("sim", "engine") == [("sim (engine_int8)", "engine (engine_int8)")]
    assert labels("sim (q8bert)", "engine") == [("sim (q8bert)", "engine (engine_int8)")]
    code, _, err = call(capsys, tmp_path, "tiny/fp32", "tiny")  # its own engine is no reason to guess one
    assert code == 2 and "means several cells to compare with tiny/fp32" in err
    assert labels("sim", "fp32") == [("sim (q8bert)", "fp32"), ("sim (engine_int8)", "fp32")]
    assert labels("fp32", "engine") == [("fp32", "engine (engine_int8)")]


def test_a_part_of_the_examples_is_called_so(tmp_path: Path, capsys: Any) -> None:
    for label in ("fp32", "int8"):
        add(tmp_path, label, answers(300, 20), label=label, total=1000, settings={"limit": 300})
    shown = call(capsys, tmp_path, "int8", "fp32", "--markdown")[1]
    assert "| official; only 300 of 1,000 examples |" in shown


def test_what_ran_elsewhere_has_no_ratio_and_says_so(results: Path, capsys: Any) -> None:
    finding = Finding(rule="wrong_provider", what="w", measured="m", bound="b", remedy="r")
    add(results, "int8-3", answers(300, 40), label="int8", seed=3, qps=FAST, status="invalid", findings=[finding])
    add(results, "fp32-3", answers(300, 20), label="torch_fp32", seed=3, qps=SLOW)
    found = json.loads(call(capsys, results, "run-int8-3", "run-fp32-3", "--json")[1])
    assert found[0]["ratios"] == []
    assert (
        "tiny/int8: computed something other than the name says"
        in call(capsys, results, "run-int8-3", "run-fp32-3", "--markdown")[1]
    )


def test_record_ids_are_taken_as_they_are(results: Path, capsys: Any) -> None:
    _, out, _ = call(capsys, results, "run-int8-2", "run-fp32-1", "--json")
    assert [(pair["a"]["seed"], pair["b"]["seed"]) for pair in json.loads(out)] == [(2, 1)]


def test_markdown_is_a_table_with_its_notes(results: Path, capsys: Any) -> None:
    _, out, _ = call(capsys, results, "int8", "torch_fp32", "--markdown")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 2 * 2  # accuracy and samples a second of two seeds
    assert "| glue/rte | 1 | official | accuracy | 86.67 | 93.33 | -6.67 [" in out
    assert "A: int8 of tiny; B: torch_fp32 of tiny" in out
    assert "Holm" in out


def test_the_terminal_has_a_line_a_task_that_says_which_side_is_better(results: Path, capsys: Any) -> None:
    _, out, _ = call(capsys, results, "tiny/int8", "torch_fp32", "--task", "glue/rte")
    lines = out.splitlines()
    rows = [line.split() for line in lines if line.startswith("  glue/rte")]
    assert len(rows) == 2, "one for each seed"
    assert rows[0][:5] == ["glue/rte", "accuracy", "86.67", "93.33", "-6.67"]
    assert "2.00×" in rows[0] and rows[0][-4:] == ["B", "score,", "A", "speed"]
    assert "seed 1" in lines and "seed 2" in lines
    assert max(map(len, lines)) <= 80
    add(results, "same", answers(300, 40), label="same", seed=1)
    _, out, _ = call(capsys, results, "run-int8-1", "run-same")
    assert next(line for line in out.splitlines() if line.startswith("  glue/rte")).endswith("neither")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("int9", "torch_fp32"), "no record is called 'int9'; did you mean 'int8'?"),
        (
            ("int8", "torch_fp32", "--task", "glue/cola"),
            "--task: no record of 'glue/cola'; there are glue/rte, glue/sst2",
        ),
        (("large", "torch_fp32"), "no record of 'large' and 'torch_fp32' has the same task and examples"),
    ],
)
def test_a_wrong_name_is_one_line(results: Path, capsys: Any, words: tuple[str, ...], said: str) -> None:
    code, out, err = call(capsys, results, *words)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_name_that_means_several_cells_is_not_guessed(results: Path, capsys: Any) -> None:
    for seed in (1, 2):
        add(results, f"dynamic-{seed}", answers(300, 30), label="dynamic", seed=seed)
    code, _, err = call(capsys, results, "torch_fp32", "tiny")
    assert code == 2
    assert err.startswith(
        "'tiny' means several cells to compare with tiny/torch_fp32: tiny/dynamic, tiny/int8; name one"
    )
    code, _, err = call(capsys, results, "run-int8-1", "run-int8-1")
    said = "both names are the same, 'run-int8-1'; name two that differ, as MODEL/LABEL or by record id\n"
    assert (code, err) == (2, said)
    code, _, err = call(capsys, results, "run-other", "large/int8")
    assert (code, err) == (2, "'run-other' and 'large/int8' mean the same record, run-other\n")


@pytest.mark.parametrize("name", ["int8", "tiny/torch_fp32", "run-int8-2"])
def test_a_name_beside_itself_is_told_so(results: Path, capsys: Any, name: str) -> None:
    code, out, err = call(capsys, results, name, name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"both names are the same, '{name}'; name two that differ")


def test_a_cell_that_was_not_measured_has_no_figures(results: Path, capsys: Any) -> None:
    for seed in (1, 2):
        record = make_record(
            key=f"trt-{seed}",
            label="trt",
            seed=seed,
            finished=f"2026-01-0{seed}T00:00:00+00:00",
            accuracy=[],
            speed=[],
            status="skipped",
            reason="no GPU",
            remedy="run it where there is one",
        )
        store.append(results / "run.jsonl", record)
    for name, more in (("trt", " (1 other record has the name 'trt' and none either)"), ("run-trt-2", "")):
        code, _, err = call(capsys, results, name, "torch_fp32")
        assert code == 2
        assert err == f"run-trt-2 is skipped (no GPU) and has no figures{more}; run it where there is one\n"


def test_the_same_answers_are_counted_whether_right_or_wrong(tmp_path: Path, capsys: Any) -> None:
    for name, said in (("engine", ["a", "b", "b", "a"]), ("simulation", ["a", "b", "a", "a"])):
        record = add(tmp_path, name, answers(4, 2))
        path = tmp_path / str(record.accuracy[0].scores_file)
        with np.load(path) as stored:
            columns = dict(stored)
        np.savez(path, allow_pickle=False, **columns, **{"validation/prediction": np.array(said)})
    _, out, _ = call(capsys, tmp_path, "simulation", "engine", "--json")
    assert json.loads(out)[0]["same_answers"] == {"count": 3, "of": 4}
    _, out, _ = call(capsys, tmp_path, "simulation", "engine", "--markdown")
    assert "| same answers |  |  | 75.00% | 1 of 4 differ |" in out


def test_no_records_is_one_line(tmp_path: Path, capsys: Any) -> None:
    code, _, err = call(capsys, tmp_path / "none", "a", "b")
    assert code == 2
    assert "no records; `quantboard run SUITE` or" in err


def test_the_beginning_of_an_id_must_be_of_one_record() -> None:
    records = [make_record(key="abcd1"), make_record(key="abcd2")]
    assert [record.key for record in store.select(records, "run-abcd1")] == ["abcd1"]
    with pytest.raises(QuantboardError, match="beginning of 2 record ids"):
        store.select(records, "run-abcd")


def test_sample_data_is_never_compared_with_real_data(results: Path, capsys: Any) -> None:
    data = make_record().data
    assert data is not None
    add(results, "sampled", answers(300, 1), label="sampled", data=data.model_copy(update={"kind": "sample"}))
    code, _, err = call(capsys, results, "sampled", "torch_fp32")
    assert code == 2
    assert "same task and examples" in err
