"""Making checkpoints: what is in them, that they are made once, interruptions and faults."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from backends.artefacts import SUMS, seal_folder
from backends.ranges import read_ranges
from harness.checkpoints import make
from harness.checkpoints.make import ensure, main
from harness.checkpoints.origin import describe_checkpoint
from harness.checkpoints.training.loop import native_precision
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec, folder_of
from harness.run.steps import ensure_checkpoint
from tasks import DataRef, TaskError
from tasks.question_answering import QuestionAnswering
from tasks.sample import sample_tokenizer
from tasks.tokens import load_tokenizer
from tests.run.small import ROOT, SIZES, cache, loads, own_cache, ptq, sample_spec, train, trained

__all__ = ["cache", "own_cache", "trained"]  # fixtures


@pytest.mark.slow
def test_a_checkpoint_is_a_folder_that_transformers_loads(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "origin.json"} <= names
    assert all(Path(name).suffix in (".json", ".safetensors", ".txt") for name in names - {SUMS})
    model, report = AutoModelForQuestionAnswering.from_pretrained(trained, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(model).__name__ == "BertForQuestionAnswering"
    text = "Where is the museum?"
    assert AutoTokenizer.from_pretrained(trained)(text)["input_ids"] == load_tokenizer(trained).encode(text).ids


def sha256_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_origin_says_how_it_was_made(trained: Path) -> None:
    origin = json.loads((trained / "origin.json").read_text())
    weights = load_file(trained / "model.safetensors")
    assert origin["parameters"] == sum(value.numel() for value in weights.values())
    assert origin["weights_sha256"] == sha256_of(trained)
    assert origin["weights_bytes"] == (trained / "model.safetensors").stat().st_size
    assert origin["architecture"] == {**SIZES, "vocab_size": sample_tokenizer().get_vocab_size()}
    assert origin["settings"] == {**train(), "seed": 3}
    assert (origin["train_steps"], origin["train_examples"]) == (3, 4800)
    assert origin["train_windows"] >= origin["train_examples"]
    assert [step for step, _ in origin["loss_curve"]] == [1, 2, 3]
    assert origin["data"] == {"train": "sample", "validation": "sample"}
    assert origin["key"] == trained.name == sample_spec().key
    described = describe_checkpoint(trained)
    assert (described.recipe, described.source, described.stand_in) == ("finetune", "scratch", True)
    assert described.train_threads == origin["train_threads"] >= 1
    assert described.train_devices == 1
    assert described.train_precision == native_precision("cpu")
    assert described.train_seconds is not None and 0 < described.train_seconds < 120
    assert described.train["learning_rate"] == 1e-3


def test_an_existing_checkpoint_is_not_made_again(trained: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "_make", None)
    assert ensure(sample_spec(), cache) == trained
    renamed = sample_spec(model="another name", data=DataRef("sample", "elsewhere"))
    assert ensure(renamed, cache) == trained


@pytest.mark.slow
def test_seeds_decide_everything(trained: Path, tmp_path: Path) -> None:
    again = ensure(sample_spec(), tmp_path)
    assert (again / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    other = ensure(sample_spec(seed=4), tmp_path)
    assert other.name != again.name
    assert (other / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_an_unfinished_checkpoint_does_not_have_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError

    spec = sample_spec()
    leftover = tmp_path / "checkpoints" / f".part-{spec.key}-1"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_text("of a process that was killed")
    with monkeypatch.context() as patch:
        patch.setattr(make, "build_origin", crash)
        with pytest.raises(RuntimeError):
            ensure(spec, tmp_path)
    assert not folder_of(spec, tmp_path).exists()
    assert not leftover.exists()
    ensure(spec, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [spec.key, f"{spec.key}.lock"]


def job(folder: Path, spec: CheckpointSpec, name: str = "job.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"spec": asdict(spec), "cache": str(folder / "cache")}))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.checkpoints.make", str(path)],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_make_one_checkpoint_once(tmp_path: Path) -> None:
    path = job(tmp_path, sample_spec(train=train(max_steps=30)))
    both = [start(path), start(path)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    folders = {json.loads(out.splitlines()[-1])["folder"] for out, _ in outputs}
    assert folders == {str(folder_of(sample_spec(train=train(max_steps=30)), tmp_path / "cache"))}
    assert ["waits for another process" in err for _, err in outputs].count(True) == 1


@pytest.mark.slow
def test_ctrl_c_leaves_a_state_that_the_same_command_resumes(tmp_path: Path) -> None:
    spec = sample_spec(train=train(max_steps=150, checkpoint_every=10))
    path, state = job(tmp_path, spec), tmp_path / "cache" / "checkpoints" / f".state-{spec.key}"
    process = start(path)
    deadline = time.monotonic() + 120
    while not list(state.glob("step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (out, "Traceback" in err) == ("", False)
    (saved,) = state.iterdir()
    again = start(path)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0
    assert f"resumes at step {int(saved.name.removeprefix('step-'))} of 150" in err
    assert not state.exists()
    resumed = Path(json.loads(out)["folder"])
    fresh = tmp_path / "other"
    fresh.mkdir()
    out, err = start(job(fresh, spec)).communicate(
        timeout=240
    )  # in a process of its own, too: denormals are flushed there
    whole = Path(json.loads(out)["folder"])
    origins = [json.loads((folder / "origin.json").read_text()) for folder in (resumed, whole)]
    assert origins[0]["weights_sha256"] == origins[1]["weights_sha256"]
    assert origins[0]["loss_curve"] == origins[1]["loss_curve"]


def test_user_faults_are_one_line_of_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(job(tmp_path, loads("package:no_such_package_here/model")))]) == 3
    answer = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert answer == {
        "kind": "unavailable",
        "error": "package:no_such_package_here/model: package no_such_package_here is not installed",
        "remedy": "python -m pip install no-such-package-here",
    }
    assert main([str(job(tmp_path, sample_spec(recipe="load", train=None, data=DataRef("raw", str(tmp_path)))))]) == 3
    answer = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert answer["kind"] == "failed"
    assert str(tmp_path) in answer["error"]


# -- ptq


def test_calibration_adds_ranges_to_the_same_weights(trained: Path, cache: Path) -> None:
    folder = ensure(ptq(sample_spec()), cache)
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert not (folder / "model.safetensors").samefile(trained / "model.safetensors"), (
        "damage of one is not the other's"
    )
    ranges = read_ranges(folder)
    assert ranges.scheme.name == "engine_int8"
    assert ranges.calibration["samples"] >= 6
    described, parent = describe_checkpoint(folder), describe_checkpoint(trained)
    assert (described.scheme, described.parent) == ("engine_int8", parent.key)
    assert described.lineage == {trained.name: sha256_of(trained), folder.name: sha256_of(trained)}
    assert parent.lineage == {trained.name: sha256_of(trained)}
    assert described.train == {"samples": 6, "batch_size": 4, "seed": 3}
    assert described.train_seconds == parent.train_seconds
    assert described.calibration_seconds is not None
    assert not (trained / "ranges.json").exists()


@pytest.mark.slow
def test_a_checkpoint_of_a_stale_parent_is_not_used(trained: Path, tmp_path: Path) -> None:
    """The parent was trained again under the same key; the child of its old weights is still there."""
    cache = tmp_path / "cache"
    shutil.copytree(trained, cache / "checkpoints" / trained.name)
    child = ptq(sample_spec())
    folder = ensure(child, cache)
    assert ensure(child, cache) == folder
    origin = cache / "checkpoints" / trained.name / "origin.json"
    new = {"weights_sha256": "of another training", "lineage": {trained.name: "of another training"}}
    origin.write_text(json.dumps(json.loads(origin.read_text()) | new))
    seal_folder(origin.parent)
    line = rf"tiny \(ptq\) was made from tiny, which has been trained again since; delete {folder}; the next"
    with pytest.raises(CheckpointError, match=line):
        ensure(child, cache)
    run: Any = SimpleNamespace(cache=cache, failed_checkpoints={}, checked=set(), told=set(), say=print)
    missing = ensure_checkpoint(child, run)
    assert missing is not None and (missing.status, str(folder) in missing.remedy) == ("failed", True)
    shutil.rmtree(folder)
    assert describe_checkpoint(ensure(child, cache)).lineage.keys() == {child.key, trained.name}


def test_a_parent_that_is_replaced_while_its_child_is_made(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, run_recipe = tmp_path / "cache", vars(make)["_run_recipe"]
    parent = Path(shutil.copytree(trained, cache / "checkpoints" / trained.name))
    content = json.loads((parent / "origin.json").read_text())
    new = {name: {trained.name: "new"} if name == "lineage" else value for name, value in content.items()}

    def run_and_replace_parent(*arguments: Any) -> Any:
        facts = run_recipe(*arguments)
        (parent / "origin.json").write_text(json.dumps(new))
        return facts

    monkeypatch.setattr(make, "_run_recipe", run_and_replace_parent)
    with pytest.raises(
        CheckpointError, match="tiny on squad_v1: a checkpoint that it is made from was replaced in the meantime"
    ):
        ensure(ptq(sample_spec()), cache)
    assert not folder_of(ptq(sample_spec()), cache).exists()


def test_an_early_calibrated_checkpoint_gets_the_lineage_of_its_parent(trained: Path, tmp_path: Path) -> None:
    """Early versions kept no lineage. Its weights are its parent's, so the parent's lineage serves while that is in the cache."""
    cache = tmp_path / "cache"
    shutil.copytree(trained, cache / "checkpoints" / trained.name)
    folder = ensure(ptq(sample_spec()), cache)
    origin = json.loads((folder / "origin.json").read_text())
    lineage = origin.pop("lineage")
    (folder / "origin.json").write_text(json.dumps(origin))
    assert describe_checkpoint(folder).lineage == lineage != {}
    (folder / "origin.json").write_text(json.dumps(origin | {"recipe": "qat"}))
    assert describe_checkpoint(folder).lineage == {}
    (folder / "origin.json").write_text(json.dumps(origin | {"weights_sha256": "others"}))
    assert describe_checkpoint(folder).lineage == {}


def test_the_lineage_of_an_early_parent_is_unknown(trained: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    parent = Path(shutil.copytree(trained, cache / "checkpoints" / trained.name)) / "origin.json"
    content = json.loads(parent.read_text()) | {"format": 1}
    (parent.parent / "SHA256SUMS").unlink()
    del content["lineage"]
    parent.write_text(json.dumps(content))
    assert describe_checkpoint(parent.parent).lineage == {trained.name: sha256_of(trained)}  # it was made from no other
    parent.write_text(json.dumps(content | {"parent": "an earlier one"}))
    assert (
        describe_checkpoint(parent.parent).lineage
        == describe_checkpoint(ensure(ptq(sample_spec()), cache)).lineage
        == {}
    )


@pytest.mark.slow
def test_calibration_follows_its_seed_and_reads_only_train(
    trained: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: list[str] = []
    drawn: list[list[str]] = []
    examples, features = QuestionAnswering.examples, QuestionAnswering.features

    def examples_of(self: QuestionAnswering, split: str) -> Sequence[Any]:
        splits.append(split)
        return examples(self, split)

    def features_of(self: QuestionAnswering, rows: Sequence[Any], *rest: Any, **more: Any) -> Any:
        drawn.append([row["id"] for row in rows])
        return features(self, rows, *rest, **more)

    monkeypatch.setattr(QuestionAnswering, "examples", examples_of)
    monkeypatch.setattr(QuestionAnswering, "features", features_of)
    scales = []
    for seed, cache_folder in ((1, cache), (2, cache), (1, tmp_path)):
        if cache_folder == tmp_path:
            shutil.copytree(trained, folder_of(sample_spec(), tmp_path))
        folder = ensure(ptq(sample_spec(), seed=seed), cache_folder)
        ranges = read_ranges(folder)
        scales.append(np.concatenate([tensor.scale for name, tensor in sorted(ranges.tensors.items())]))
    assert set(splits) == {"train"}
    assert [len(set(ids)) for ids in drawn] == [6, 6, 6]
    assert drawn[0] == drawn[2] != drawn[1]
    assert np.array_equal(scales[0], scales[2])
    assert not np.array_equal(scales[0], scales[1])


@pytest.mark.slow
def test_a_missing_parent_is_made_first(tmp_path: Path) -> None:
    ensure(ptq(sample_spec()), tmp_path)
    assert folder_of(sample_spec(), tmp_path).is_dir()


def test_broken_data_is_reported_by_the_task(tmp_path: Path) -> None:
    squad = tmp_path / "data" / "squad"
    squad.mkdir(parents=True)
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (squad / name).write_text('{"data": [')
    with pytest.raises(TaskError, match=r"train-v1\.1\.json"):
        ensure(sample_spec(data=DataRef("raw", str(tmp_path / "data")), recipe="load", train=None), tmp_path)
