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
from harness.measure.inference import evaluated
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
    """The sample for SQuAD, else raw files in GLUE's forms."""
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
    """Two of three right, one of them missing where a task can lack one."""
    if task.kind == "question_answering":
        return [row["answers"]["text"][0] if at % 3 else "something else" for at, row in enumerate(examples)]
    if task.kind == "regression":
        found: list[Any] = [row["label"] + (at % 3) / 10 for at, row in enumerate(examples)]
    else:
        found = [task.labels[row["label"] if at % 3 else 0] for at, row in enumerate(examples)]
    return [None, *found[1:]]


def make(folder: Path, name: str, *, limit: int | None = None, sha256: str | None = None) -> Record:
    ref = data_of(folder / "data", name)
    task = open_task(name, ref)
    split = task.eval_splits[0]
    examples = evaluated(task.examples(split), limit)
    scores = task.score(examples, predictions(task, examples))
    write_scores(folder / "scores" / "run-k.npz", {split: scores})
    here = task.identity.splits[split]
    part = Accuracy(
        split=split,
        metrics=intervals(scores),
        primary=task.primary_metric,
        examples=len(examples),
        examples_of_split=here.rows,
        whole=limit is None,
        missing=scores.missing,
        padding="longest",
        batch_formation="sorted",
        forward_seconds=1.0,
        tokens=1,
        scores_file="scores/run-k.npz",
    )
    of_split = SplitData(rows=here.rows, official_rows=None, sha256=sha256 or here.sha256, label=here.label)
    data = Data(kind=ref.kind, label=here.label, splits={split: of_split})
    entry = make_record(task=name, accuracy=[part], data=data, settings={"limit": limit})
    store.append(folder / "run.jsonl", entry)
    return entry


def call(capsys: Any, folder: Path, *words: str) -> tuple[int, Any, str]:
    code = main(["rescore", "--results", str(folder), "--data", str(folder / "data"), "--json", *words])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


@pytest.mark.parametrize("limit", [None, 40])
@pytest.mark.parametrize("name", ["squad_v1", "glue/mrpc", "glue/stsb"])
def test_the_same_figures_come_back(tmp_path: Path, capsys: Any, name: str, limit: int | None) -> None:
    entry = make(tmp_path, name, limit=limit)
    code, found, _ = call(capsys, tmp_path)
    assert code == 0
    (one,) = found["records"]
    assert not one["differs"]
    assert {row["metric"]: row["now"]["value"] for row in one["metrics"]} == {
        metric: figure.value for metric, figure in entry.accuracy[0].metrics.items()
    }


def test_a_figure_that_is_not_what_the_predictions_give_is_told_and_put_right(tmp_path: Path, capsys: Any) -> None:
    entry = make(tmp_path, "glue/mrpc")
    true = entry.accuracy[0].metrics["accuracy"].value
    wrong = entry.accuracy[0].model_copy(update={"metrics": {"accuracy": Figure(value=99.0), "f1": Figure(value=1.0)}})
    store.append(
        tmp_path / "run.jsonl", entry.model_copy(update={"record_id": "run-w", "key": "w", "accuracy": [wrong]})
    )
    code, found, _ = call(capsys, tmp_path, "run-w")
    assert code == 1
    assert found["records"][0]["differs"]
    code, found, _ = call(capsys, tmp_path, "run-w", "--write")
    assert code == 0
    (file,) = found["written"]
    ((_, new),) = [(path, one) for path, one in store.read(tmp_path) if str(path) == file]
    assert new.accuracy[0].metrics["accuracy"].value == true
    assert new.key == "w"
    assert "scored again from the predictions of run-w" in new.notes[-1]
    assert new.finished == entry.finished
    assert new.rescored is not None
    assert datetime.fromisoformat(new.rescored) > datetime.fromisoformat(entry.finished)
    with np.load(tmp_path / (new.accuracy[0].scores_file or ""), allow_pickle=False) as stored:
        assert float(stored["validation/correct"].mean()) == pytest.approx(true / 100)


@pytest.mark.parametrize("change", ["interval", "gone", "new"])
def test_other_intervals_and_other_metrics_are_told(tmp_path: Path, capsys: Any, change: str) -> None:
    """The very reason to score again, though no value is another."""
    entry = make(tmp_path, "glue/mrpc")
    metrics = dict(entry.accuracy[0].metrics)
    if change == "interval":
        assert metrics["f1"].low is not None
        metrics["f1"] = metrics["f1"].model_copy(update={"low": metrics["f1"].low - 1})
    elif change == "gone":
        metrics["recall"] = Figure(value=50.0)
    else:
        del metrics["accuracy"]
    (tmp_path / "run.jsonl").unlink()
    part = entry.accuracy[0].model_copy(update={"metrics": metrics})
    store.append(tmp_path / "run.jsonl", entry.model_copy(update={"accuracy": [part]}))
    code, found, _ = call(capsys, tmp_path)
    assert code == 1
    (one,) = found["records"]
    assert one["differs"]
    told = {row["metric"]: (row["recorded"] is None, row["now"] is None) for row in one["metrics"]}
    assert told == {"accuracy": (change == "new", False), "f1": (False, False)} | (
        {"recall": (False, True)} if change == "gone" else {}
    )
    assert main(["rescore", "--results", str(tmp_path), "--data", str(tmp_path / "data")]) == 1
    assert "differs" in capsys.readouterr().out


def test_two_records_of_one_key_keep_a_file_each(tmp_path: Path, capsys: Any) -> None:
    entry = make(tmp_path, "glue/mrpc")
    shutil.copy(tmp_path / "scores" / "run-k.npz", tmp_path / "scores" / "again.npz")
    again = entry.accuracy[0].model_copy(update={"scores_file": "scores/again.npz"})
    store.append(tmp_path / "run.jsonl", entry.model_copy(update={"record_id": "run-again", "accuracy": [again]}))
    assert call(capsys, tmp_path, "run-k", "run-again", "--write")[0] == 0
    new = [one for _, one in store.read(tmp_path) if one.rescored]
    assert len({one.record_id for one in new}) == len({one.accuracy[0].scores_file for one in new}) == 2


@pytest.mark.parametrize("names", ["abcd", "dcba", "bdac"])
def test_a_record_scored_again_is_no_newer_than_its_measurement(tmp_path: Path, names: str) -> None:
    """Whatever the order in which files are read."""
    old = make_record(record_id="old", run_id="1", finished="2026-01-01T00:00:00+00:00")
    copies = [
        old.model_copy(update={"record_id": name, "rescored": f"2026-0{month}-01T00:00:00+00:00"})
        for name, month in (("first copy", 3), ("second copy", 4))
    ]
    new = make_record(record_id="new", run_id="2", finished="2026-02-01T00:00:00+00:00")
    at_once = make_record(record_id="other", run_id="2", finished=old.finished)
    for entries, current in (
        ((old, *copies, new), "new"),
        ((old, *copies), "second copy"),
        ((old, copies[0], at_once), "other"),
    ):
        for name, entry in zip(names, entries, strict=False):
            store.append(tmp_path / current / f"{name}.jsonl", entry)
        assert newest_by_key(record for _, record in store.read(tmp_path / current))["k"].record_id == current


def test_other_data_is_refused(tmp_path: Path, capsys: Any) -> None:
    make(tmp_path, "glue/mrpc", sha256="0")
    code, found, err = call(capsys, tmp_path)
    assert code == 2
    assert "other rows; give --data DIR" in err
    assert found == {"error": [err.strip()]}


@pytest.mark.parametrize("commit", ["0123456789abcdef", None])
def test_an_older_sample_asks_for_the_code_that_made_it(tmp_path: Path, commit: str | None) -> None:
    """No folder of data could hold it; `rerun` checks the same."""
    entry = make(tmp_path, "squad_v1", sha256="0").model_copy(update={"commit": commit})
    where = "check out commit 0123456789ab for it" if commit else "of no known commit; run it again"
    with pytest.raises(QuantboardError) as caught:
        check_data(entry, "validation", open_task("squad_v1", DataRef("sample")))
    assert str(caught.value) == (
        f"run-k: the generated sample has changed since it was made (validation of squad_v1); {where}"
    )


def not_measured(folder: Path, **changes: Any) -> None:
    entry = make_record(key="no", label="none", accuracy=[], speed=[], **changes)
    store.append(folder / "run.jsonl", entry)


@pytest.mark.parametrize("name", ["run-no", "none", "tiny/none"])
def test_a_cell_that_was_not_measured_has_no_predictions(tmp_path: Path, capsys: Any, name: str) -> None:
    make(tmp_path, "glue/mrpc")
    not_measured(tmp_path, status="failed", reason="killed:\nout of memory", command="quantboard run squad")
    code, _, err = call(capsys, tmp_path, name)
    told = "run-no is failed (killed: out of memory) and has no predictions; run it again: quantboard run squad\n"
    assert (code, err) == (2, told)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "array", "empty", "objects", "folder"])
def test_damaged_predictions_are_told_in_our_words(tmp_path: Path, capsys: Any, damage: str) -> None:
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
    what = "cannot be read: Is a directory" if damage == "folder" else "not a scores file"
    assert (code, err) == (2, f"{file}: {what}; restore it from git or delete it\n")


def test_lost_predictions_are_one_line(tmp_path: Path, capsys: Any) -> None:
    make(tmp_path, "glue/mrpc")
    (tmp_path / "scores" / "run-k.npz").unlink()
    code, _, err = call(capsys, tmp_path)
    assert code == 2
    assert "its predictions are not beside it" in err


def test_a_limited_part_is_the_same_every_time() -> None:
    assert evaluated(range(100), 5) == evaluated(range(100), 5)
    assert list(evaluated(range(100), 5)) == sorted(evaluated(range(100), 5))
    assert evaluated(range(3), 5) == range(3)
    chosen = np.sort(np.random.default_rng(20_261_121).permutation(100)[:5])
    assert list(evaluated(range(100), 5)) == chosen.tolist()
