"""Committed figures, recomputed without a line of this project; and that the recomputation can fail."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recompute.pages import check_macro, check_readme
from tests.recompute.pairs import check_comparison
from tests.recompute.records import read, recompute
from tests.recompute.tally import Array, Record, Tally

TOP = Path(__file__).parents[1]


@pytest.mark.slow
def test_all_committed_figures_are_recomputed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.recompute", "results", "README.md"], cwd=TOP, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(", 0 mismatches")
    print(done.stdout)


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_compare_prints_is_recomputed() -> None:
    tally = Tally()
    pairs = json.loads(command("compare", "--json", "--results", "results", "onnxruntime_int8", "torch_fp32"))
    check_comparison(tally, pairs, read(TOP / "results"))
    assert tally.report()
    assert tally.count["McNemar's test and Agresti and Min's ends"]
    assert tally.count["linearised ends and p"]
    assert tally.count["p by Holm's correction"]


@pytest.mark.slow
def test_the_macro_averages_on_a_page_are_recomputed(tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(TOP / "results" / "minilm_glue", results / "minilm_glue")
    command("site", "--results", str(results), "--out", str(tmp_path / "site"))
    tally = Tally()
    check_macro(tally, (tmp_path / "site" / "suite-minilm_glue.html").read_text("utf-8"), [r for r, _ in read(results)])
    assert tally.report()
    assert tally.count["macro averages"] >= 4


def test_a_wrong_comparison_is_reported() -> None:
    (pair, *_) = json.loads(command("compare", "--json", "--task", "glue/mrpc", "onnxruntime_int8", "torch_fp32"))
    figure = pair["differences"]["accuracy"]
    figure["p"] += 1e-6
    figure["low"] -= 1e-6
    bootstrapped = pair["differences"]["f1"]
    bootstrapped["high"] += 0.2 * (bootstrapped["high"] - bootstrapped["low"])
    pair["ratios"][0]["value"] *= 1.000001
    tally = Tally()
    check_comparison(tally, [pair], read(TOP / "results"))
    wrong = {kind for kind, lines in tally.mismatches.items() if lines}
    assert wrong >= {
        "McNemar's test and Agresti and Min's ends",
        "linearised ends and p",
        "ratios of speed, their ends and p",
    }


def test_a_wrong_figure_in_readme_is_reported() -> None:
    readme, tally = (TOP / "README.md").read_text("utf-8"), Tally()
    number = re.findall(r"^- `onnxruntime_int8`: (\d+\.\d\d) ", readme, flags=re.M)[0]
    check_readme(tally, readme.replace(f"`: {number} ", f"`: {float(number) + 0.02:.2f} "), read(TOP / "results"))
    assert len(tally.mismatches["README's result"]) == 1


def test_it_imports_nothing_of_ours() -> None:
    imported: set[str] = set()
    for file in sorted((TOP / "tests" / "recompute").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.level * "." + (node.module or ""))
    others = {name for name in imported if not name.startswith("tests.recompute.")}
    assert {name.partition(".")[0] for name in others} - sys.stdlib_module_names == {
        "numpy",
        "scipy",
        "sklearn",
        "statsmodels",
    }


def committed(task: str) -> tuple[Record, Path]:
    """A committed record with all parts, and the folder of its suite."""
    for record, folder in read(TOP / "results"):
        if record["task"] == task and record["speed"] and record["flops"]["int8_share"]:
            return record, folder
    raise LookupError(task)


def change(*keys: str | int, by: float) -> Callable[[Record], None]:
    """Add to one value of a record."""

    def altered(record: Record) -> None:
        part: Any = record
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] += by

    return altered


METRICS = ("accuracy", 0, "metrics")
ALTERED = {
    "accuracy metrics": change(*METRICS, "f1", "value", by=1e-6),
    "Wilson ends of accuracy": change(*METRICS, "accuracy", "high", by=1e-6),
    "bootstrap ends of accuracy": change(*METRICS, "f1", "low", by=1.0),
    "examples of a split": change("accuracy", 0, "examples", by=1),
    "figures of a LoadGen round": change("speed", 0, "rounds", 1, "p90_ms", by=1e-6),
    "speed: means over rounds": change("speed", 0, "p90_ms", "value", by=1e-6),
    "speed: t ends over rounds": change("speed", 0, "qps", "high", by=1e-6),
    "FLOPs": change("flops", "total", by=128),
    "INT8 shares": change("flops", "int8_share", by=1e-6),
    "multiply-accumulates in integers": change("placement", "int8_macs", by=384),
    "parameters": change("checkpoint", "parameters", by=1),
}


def recomputed(record: Record, scores: dict[str, Array], folder: Path) -> dict[str, list[str]]:
    """Mismatches by kind of one record in a folder of its own."""
    suite = folder / "results" / "suite"
    (suite / "scores").mkdir(parents=True)
    np.savez(suite / record["accuracy"][0]["scores_file"], **scores)  # type: ignore[arg-type]
    (suite / "run.jsonl").write_text(json.dumps(record) + "\n")
    return {kind: lines for kind, lines in recompute(folder / "results").mismatches.items() if lines}


def scores_of(record: Record, folder: Path) -> dict[str, Array]:
    with np.load(folder / record["accuracy"][0]["scores_file"], allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("kind", ALTERED)
def test_an_altered_record_is_reported(kind: str, tmp_path: Path) -> None:
    record, folder = committed("glue/mrpc")
    scores = scores_of(record, folder)
    assert recomputed(record, scores, tmp_path / "as it is") == {}
    ALTERED[kind](record)
    found = recomputed(record, scores, tmp_path / "altered")
    assert kind in found
    assert record["record_id"] in found[kind][0]


def test_an_altered_scores_file_is_reported(tmp_path: Path) -> None:
    record, folder = committed("glue/mrpc")
    scores = scores_of(record, folder)
    right = int(np.flatnonzero(scores["validation/correct"])[0])
    scores["validation/correct"][right] = 0.0
    found = recomputed(record, scores, tmp_path / "one column")
    assert set(found) == {"per-example scores", "Wilson ends of accuracy"}
    scores["validation/predicted"][right] = 1 - scores["validation/label"][right]
    found = recomputed(record, scores, tmp_path / "both columns")
    assert set(found) == {"accuracy metrics", "Wilson ends of accuracy"}


def test_an_altered_answer_of_squad_is_reported(tmp_path: Path) -> None:
    record, folder = committed("squad_v1")
    scores = scores_of(record, folder)
    scores["validation/f1"][int(np.argmax(scores["validation/f1"]))] -= 0.5
    assert "accuracy metrics" in recomputed(record, scores, tmp_path)
