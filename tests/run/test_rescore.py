"""Stored predictions are scored again to the same figures, and other data is refused. No model runs."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.main import main
from harness.errors import QuantboardError
from harness.measure.inference import limited
from harness.measure.intervals import intervals
from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Data, Record, SplitData
from harness.records.scores import write_scores
from harness.records.store import newest_by_key
from harness.run.rescore import check_data
from tasks import DataRef, Task, open_task
from tests.records.records import make_record

ROWS = 60


def data_of(folder: Path, name: str) -> DataRef:
    """The sample for SQuAD; raw files in GLUE's formats for the others."""
    if name == "squad_v1":
        return DataRef("sample")
    if name == "glue/mrpc":
        head, place = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "MRPC"
        rows = [f"{int(at % 3 > 0)}\t{at}\t{at}\tIt is {at} .\tThat was {at} ." for at in range(ROWS)]
    else:
        head = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
        place = "STS-B"
        rows = [f"{at}\tmain\tMSRvid\t2012\t{at}\tnone\tnone\tA {at}.\tB {at}.\t{at % 6}.000" for at in range(ROWS)]
    for split in ("train", "dev"):
        (folder / "glue" / place).mkdir(parents=True, exist_ok=True)
        (folder / "glue" / place / f"{split}.tsv").write_text("\n".join([head, *rows]) + "\n")
    return DataRef("raw", str(folder))


def predictions(task: Task, examples: Any) -> list[Any]:
    """Two of three are right; the first is missing where a task allows that."""
    if task.kind == "question_answering":
        return [row["answers"]["text"][0] if at % 3 else "something else" for at, row in enumerate(examples)]
    if task.kind == "regression":
        values: list[Any] = [row["label"] + (at % 3) / 10 for at, row in enumerate(examples)]
    else:
        values = [task.labels[row["label"] if at % 3 else 0] for at, row in enumerate(examples)]
    return [None, *values[1:]]


def make(folder: Path, name: str, *, limit: int | None = None, sha256: str | None = None) -> Record:
    ref = data_of(folder / "data", name)
    task = open_task(name, ref)
    split = task.eval_splits[0]
    examples = limited(task.examples(split), limit)
    scores = task.score(examples, predictions(task, examples))
    write_scores(folder / "scores" / "run-k.npz", {split: scores})
    identity = task.identity.splits[split]
    part = Accuracy(
        split=split,
        metrics=intervals(scores),
        primary=task.primary_metric,
        examples=len(examples),
        examples_of_split=identity.rows,
        whole=limit is None,
        missing=scores.missing,
        padding="longest",
        batch_formation="sorted",
        forward_seconds=1.0,
        tokens=1,
        scores_file="scores/run-k.npz",
    )
    split_data = SplitData(
        rows=identity.rows, official_rows=None, sha256=sha256 or identity.sha256, label=identity.label
    )
    data = Data(kind=ref.kind, label=identity.label, splits={split: split_data})
    record = make_record(task=name, accuracy=[part], data=data, settings={"limit": limit})
    store.append(folder / "run.jsonl", record)
    return record


def call(capsys: Any, folder: Path, *words: str) -> tuple[int, Any, str]:
    code = main(["rescore", "--results", str(folder), "--data", str(folder / "data"), "--json", *words])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


@pytest.mark.parametrize("limit", [None, 40])
@pytest.mark.parametrize("name", ["squad_v1", "glue/mrpc", "glue/stsb"])
def test_the_same_figures_come_back(tmp_path: Path, capsys: Any, name: str, limit: int | None) -> None:
    record = make(tmp_path, name, limit=limit)
    code, printed, _ = call(capsys, tmp_path)
    assert code == 0
    (rescored,) = printed["records"]
    assert not rescored["differs"]
    assert {row["metric"]: row["now"]["value"] for row in rescored["metrics"]} == {
        metric: figure.value for metric, figure in record.accuracy[0].metrics.items()
    }


def test_a_figure_that_differs_from_the_predictions_is_shown_and_corrected(tmp_path: Path, capsys: Any) -> None:
    record = make(tmp_path, "glue/mrpc")
    true = record.accuracy[0].metrics["accuracy"].value
    wrong = record.accuracy[0].model_copy(update={"metrics": {"accuracy": Figure(value=99.0), "f1": Figure(value=1.0)}})
    store.append(
        tmp_path / "run.jsonl", record.model_copy(update={"record_id": "run-w", "key": "w", "accuracy": [wrong]})
    )
    code, printed, _ = call(capsys, tmp_path, "run-w")
    assert code == 1
    assert printed["records"][0]["differs"]
    code, printed, _ = call(capsys, tmp_path, "run-w", "--write")
    assert code == 0
    (file,) = printed["written"]
    ((_, new),) = [(path, record) for path, record in store.read(tmp_path) if str(path) == file]
    assert new.accuracy[0].metrics["accuracy"].value == true
    assert new.key == "w"
    assert "scored again from the predictions of run-w" in new.notes[-1]
    assert new.finished == record.finished
    assert new.rescored is not None
    assert datetime.fromisoformat(new.rescored) > datetime.fromisoformat(record.finished)
    with np.load(tmp_path / (new.accuracy[0].scores_file or ""), allow_pickle=False) as stored:
        assert float(stored["validation/correct"].mean()) == pytest.approx(true / 100)


@pytest.mark.parametrize("change", ["interval", "removed", "new"])
def test_other_intervals_and_other_metrics_are_shown(tmp_path: Path, capsys: Any, change: str) -> None:
    """They are the reason to score again, even where no value differs."""
    record = make(tmp_path, "glue/mrpc")
    metrics = dict(record.accuracy[0].metrics)
    if change == "interval":
        assert metrics["f1"].low is not None
        metrics["f1"] = metrics["f1"].model_copy(update={"low": metrics["f1"].low - 1})
    elif change == "removed":
        metrics["recall"] = Figure(value=50.0)
    else:
        del metrics["accuracy"]
    (tmp_path / "run.jsonl").unlink()
    part = record.accuracy[0].model_copy(update={"metrics": metrics})
    store.append(tmp_path / "run.jsonl", record.model_copy(update={"accuracy": [part]}))
    code, printed, _ = call(capsys, tmp_path)
    assert code == 1
    (rescored,) = printed["records"]
    assert rescored["differs"]
    missing = {row["metric"]: (row["recorded"] is None, row["now"] is None) for row in rescored["metrics"]}
    assert missing == {"accuracy": (change == "new", False), "f1": (False, False)} | (
        {"recall": (False, True)} if change == "removed" else {}
    )
    assert main(["rescore", "--results", str(tmp_path), "--data", str(tmp_path / "data")]) == 1
    assert "differs" in capsys.readouterr().out


def test_the_terminal_shows_it_in_80_columns(tmp_path: Path, capsys: Any) -> None:
    """A line a metric, with the recorded figure beside the new one where they differ; records of several tasks."""
    record = make(tmp_path, "glue/mrpc")
    accuracy = record.accuracy[0].metrics["accuracy"]
    metrics = record.accuracy[0].metrics | {"accuracy": Figure(value=99.0, low=98.5, high=99.25)}
    wrong = record.accuracy[0].model_copy(update={"metrics": metrics})
    changes = {"record_id": "20261122T060611Z-0fc4-" + 40 * "w", "key": "w", "accuracy": [wrong], "model": 90 * "m"}
    store.append(tmp_path / "run.jsonl", record.model_copy(update=changes))
    assert main(["rescore", "--results", str(tmp_path), "--data", str(tmp_path / "data")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Records scored again: 2; with other figures than recorded: 1."
    now = f"{accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"
    rows = [line.split() for line in lines if line.startswith("  accuracy")]
    assert rows == [
        ["accuracy", *now.split(), "the", "same"],
        ["accuracy", "99.00", "[98.50,", "99.25]", *now.split(), "differs"],
    ]


def test_two_records_of_one_key_keep_a_file_each(tmp_path: Path, capsys: Any) -> None:
    record = make(tmp_path, "glue/mrpc")
    shutil.copy(tmp_path / "scores" / "run-k.npz", tmp_path / "scores" / "again.npz")
    again = record.accuracy[0].model_copy(update={"scores_file": "scores/again.npz"})
    store.append(tmp_path / "run.jsonl", record.model_copy(update={"record_id": "run-again", "accuracy": [again]}))
    assert call(capsys, tmp_path, "run-k", "run-again", "--write")[0] == 0
    new = [record for _, record in store.read(tmp_path) if record.rescored]
    assert len({record.record_id for record in new}) == len({record.accuracy[0].scores_file for record in new}) == 2


@pytest.mark.parametrize("names", ["abcd", "dcba", "bdac"])
def test_a_record_scored_again_is_no_newer_than_its_measurement(tmp_path: Path, names: str) -> None:
    """In whatever order files are read."""
    old = make_record(record_id="old", run_id="1", finished="2026-01-01T00:00:00+00:00")
    copies = [
        old.model_copy(update={"record_id": name, "rescored": f"2026-0{month}-01T00:00:00+00:00"})
        for name, month in (("first copy", 3), ("second copy", 4))
    ]
    new = make_record(record_id="new", run_id="2", finished="2026-02-01T00:00:00+00:00")
    same_second = make_record(record_id="other", run_id="2", finished=old.finished)
    for records, current in (
        ((old, *copies, new), "new"),
        ((old, *copies), "second copy"),
        ((old, copies[0], same_second), "other"),
    ):
        for name, record in zip(names, records, strict=False):
            store.append(tmp_path / current / f"{name}.jsonl", record)
        assert newest_by_key(record for _, record in store.read(tmp_path / current))["k"].record_id == current


def test_other_data_is_refused(tmp_path: Path, capsys: Any) -> None:
    make(tmp_path, "glue/mrpc", sha256="0")
    code, printed, err = call(capsys, tmp_path)
    assert code == 2
    assert "give the record's data with --data DIR" in err
    assert printed == {"error": [err.strip()]}


@pytest.mark.parametrize("commit", ["0123456789abcdef", None])
def test_an_older_sample_asks_for_the_code_that_made_it(tmp_path: Path, commit: str | None) -> None:
    """No folder of data could hold it. `rerun` makes the same check."""
    record = make(tmp_path, "squad_v1", sha256="0").model_copy(update={"commit": commit})
    fix = "check out commit 0123456789ab" if commit else "run it again, since its commit is unknown"
    with pytest.raises(QuantboardError) as caught:
        check_data(record, "validation", open_task("squad_v1", DataRef("sample")))
    assert str(caught.value) == (f"run-k: the generated sample has changed since (validation of squad_v1); {fix}")


def not_measured(folder: Path, **changes: Any) -> None:
    record = make_record(key="no", label="none", accuracy=[], speed=[], **changes)
    store.append(folder / "run.jsonl", record)


@pytest.mark.parametrize("name", ["run-no", "none", "tiny/none"])
def test_a_cell_that_was_not_measured_has_no_predictions(tmp_path: Path, capsys: Any, name: str) -> None:
    make(tmp_path, "glue/mrpc")
    not_measured(tmp_path, status="failed", reason="killed:\nout of memory", command="quantboard run squad")
    code, _, err = call(capsys, tmp_path, name)
    line = "run-no is failed (killed: out of memory) and has no predictions; run it again: quantboard run squad\n"
    assert (code, err) == (2, line)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "array", "empty", "objects", "folder"])
def test_damaged_predictions_are_one_line(tmp_path: Path, capsys: Any, damage: str) -> None:
    make(tmp_path, "glue/mrpc")
    file = tmp_path / "scores" / "run-k.npz"
    whole = file.read_bytes()
    if damage == "array":
        with file.open("wb") as out:
            np.save(out, np.ones(3))
    elif damage == "objects":
        np.savez(file, allow_pickle=True, **{"validation/id": np.array([None, {}], dtype=object)})
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[60:90] = bytes(30)
        file.write_bytes({"text": b"not that", "cut": whole[:100], "flipped": bytes(flipped), "empty": b""}[damage])
    code, _, err = call(capsys, tmp_path)
    problem = "cannot be read: Is a directory" if damage == "folder" else "not a scores file"
    assert (code, err) == (2, f"{file}: {problem}; restore it from git or delete it\n")


def test_lost_predictions_are_one_line(tmp_path: Path, capsys: Any) -> None:
    make(tmp_path, "glue/mrpc")
    (tmp_path / "scores" / "run-k.npz").unlink()
    code, _, err = call(capsys, tmp_path)
    assert code == 2
    assert "its file of predictions is missing" in err


def test_a_limited_part_is_the_same_every_time() -> None:
    assert limited(range(100), 5) == limited(range(100), 5)
    assert list(limited(range(100), 5)) == sorted(limited(range(100), 5))
    assert limited(range(3), 5) == range(3)
    chosen = np.sort(np.random.default_rng(20_261_121).permutation(100)[:5])
    assert list(limited(range(100), 5)) == chosen.tolist()
