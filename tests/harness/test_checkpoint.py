"""Checkpoints: what is in them, that they are made once, and what is said of sources that do not fit."""

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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer, BertConfig, BertModel, RobertaConfig

from backends.base import BackendError
from backends.ranges import read_ranges
from harness import checkpoint
from harness.cells import CORPUS, CheckpointSpec, folder_of
from harness.checkpoint import ensure, main
from harness.errors import CheckpointError, SourceUnavailable
from harness.origin import describe
from harness.recipes import load_tokenizer
from harness.training import finetune
from harness.training.settings import TrainSettings
from tasks import DataRef, Shape, TaskError
from tasks.sample import sample_tokenizer
from tasks.squad import Squad

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, Any] = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


def train(**changes: Any) -> dict[str, Any]:
    given = {"learning_rate": 1e-3, "epochs": 1, "max_steps": 3, "batch_size": 8, **changes}
    return TrainSettings.model_validate(given).model_dump()


def sample_spec(**changes: Any) -> CheckpointSpec:
    """A very small model, trained a few steps on the sample."""
    base = CheckpointSpec(
        model="tiny",
        task="squad_v1",
        recipe="finetune",
        source="scratch",
        seed=3,
        shape=Shape(96, 32, 32),
        data=DataRef("sample"),
        architecture=SIZES,
        train=train(),
    )
    return replace(base, **changes)


def ptq(parent: CheckpointSpec, **changes: Any) -> CheckpointSpec:
    base = replace(
        parent,
        recipe="ptq",
        architecture=None,
        train=None,
        scheme="engine_int8",
        calibration={"samples": 6, "batch_size": 4},
        parent=parent,
    )
    return replace(base, **changes)


def loads(source: Path | str, **changes: Any) -> CheckpointSpec:
    return sample_spec(recipe="load", source=str(source), architecture=None, train=None, **changes)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "user-cache"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache: Path) -> Path:
    return ensure(sample_spec(), cache)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The trained model as a folder of the user's, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "mine"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder without a head, as its authors publish one: weights in half precision."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=sample_tokenizer().get_vocab_size(), max_position_embeddings=128, **SIZES)
    model: Any = BertModel(config)
    model.half().save_pretrained(folder)
    sample_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_is_a_folder_that_transformers_loads(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "origin.json"} <= names
    assert all(Path(name).suffix in (".json", ".safetensors", ".txt") for name in names)
    model, report = AutoModelForQuestionAnswering.from_pretrained(trained, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(model).__name__ == "BertForQuestionAnswering"
    text = "Where is the museum?"
    assert AutoTokenizer.from_pretrained(trained)(text)["input_ids"] == load_tokenizer(trained).encode(text).ids


def test_the_origin_says_what_was_done(trained: Path) -> None:
    origin = json.loads((trained / "origin.json").read_text())
    weights = load_file(trained / "model.safetensors")
    assert origin["parameters"] == sum(value.numel() for value in weights.values())
    assert origin["weights_sha256"] == hashlib.sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    assert origin["weights_bytes"] == (trained / "model.safetensors").stat().st_size
    assert origin["architecture"] == {**SIZES, "vocab_size": sample_tokenizer().get_vocab_size()}
    assert origin["settings"] == {**train(), "seed": 3}
    assert (origin["train_steps"], origin["train_examples"]) == (3, 4800)
    assert origin["train_windows"] >= origin["train_examples"]
    assert [step for step, _ in origin["loss_curve"]] == [1, 2, 3]
    assert origin["data"] == {"train": "sample", "validation": "sample"}
    assert origin["key"] == trained.name == sample_spec().key
    described = describe(trained)
    assert (described.recipe, described.source, described.stand_in) == ("finetune", "scratch", True)
    assert described.train_seconds is not None and 0 < described.train_seconds < 120
    assert described.train["learning_rate"] == 1e-3


def test_a_made_checkpoint_is_not_made_again(trained: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_make", None)
    assert ensure(sample_spec(), cache) == trained
    renamed = sample_spec(model="another name", data=DataRef("sample", "elsewhere"))
    assert ensure(renamed, cache) == trained


def test_seeds_decide_everything(trained: Path, tmp_path: Path) -> None:
    again = ensure(sample_spec(), tmp_path)
    assert (again / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    other = ensure(sample_spec(seed=4), tmp_path)
    assert other.name != again.name
    assert (other / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


def test_nothing_half_made_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError

    spec = sample_spec()
    left = tmp_path / "checkpoints" / f".part-{spec.key}-1"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("of a process that was killed")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "origin", crash)
        with pytest.raises(RuntimeError):
            ensure(spec, tmp_path)
    assert not folder_of(spec, tmp_path).exists()
    assert not left.exists()
    ensure(spec, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [spec.key, f"{spec.key}.lock"]


def job(folder: Path, spec: CheckpointSpec, name: str = "job.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"spec": asdict(spec), "cache": str(folder / "cache")}))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.checkpoint", str(path)],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_make_one_checkpoint_once(tmp_path: Path) -> None:
    path = job(tmp_path, sample_spec(train=train(max_steps=30)))
    both = [start(path), start(path)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    folders = {json.loads(out.splitlines()[-1])["folder"] for out, _ in outputs}
    assert folders == {str(folder_of(sample_spec(train=train(max_steps=30)), tmp_path / "cache"))}
    assert ["waits for another process" in err for _, err in outputs].count(True) == 1


def test_ctrl_c_leaves_a_state_and_the_same_command_goes_on(tmp_path: Path) -> None:
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
    (left,) = state.iterdir()
    again = start(path)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0
    assert f"resumes at step {int(left.name.removeprefix('step-'))} of 150" in err
    assert not state.exists()
    resumed = Path(json.loads(out)["folder"])
    fresh = tmp_path / "other"
    fresh.mkdir()
    out, err = start(job(fresh, spec)).communicate(timeout=240)  # denormals are flushed in a process as such
    whole = Path(json.loads(out)["folder"])
    origins = [json.loads((folder / "origin.json").read_text()) for folder in (resumed, whole)]
    assert origins[0]["weights_sha256"] == origins[1]["weights_sha256"]
    assert origins[0]["loss_curve"] == origins[1]["loss_curve"]


def test_user_faults_are_one_line_of_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(job(tmp_path, loads("package:no_such_package_here/model")))]) == 3
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told == {
        "kind": "unavailable",
        "error": "package:no_such_package_here/model: package no_such_package_here is not installed",
        "remedy": "python -m pip install no-such-package-here",
    }
    assert main([str(job(tmp_path, sample_spec(recipe="load", train=None, data=DataRef("raw", str(tmp_path)))))]) == 3
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told["kind"] == "failed"
    assert str(tmp_path) in told["error"]


# -- load


def test_load_keeps_the_weights_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    loaded = ensure(loads(trained), tmp_path)
    assert (loaded / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert not (loaded / "model.safetensors").samefile(trained / "model.safetensors")
    described = describe(loaded)
    assert (described.recipe, described.source, described.train_seconds) == ("load", "a local folder", None)
    assert str(trained) not in (loaded / "origin.json").read_text()
    load_tokenizer(loaded)


def test_random_weights_can_be_loaded(tmp_path: Path) -> None:
    folder = ensure(sample_spec(recipe="load", train=None), tmp_path)
    assert not AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"]


def fails(spec: CheckpointSpec, folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ensure(spec, folder / "cache")
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    assert not folder_of(spec, folder / "cache").exists()


def test_load_refuses_an_encoder_without_a_head(encoder: Path, tmp_path: Path) -> None:
    fails(loads(encoder), tmp_path, f"tiny: {encoder} does not fit squad_v1", "recipe = 'finetune'")


def test_load_refuses_a_head_of_another_task(copy: Path, tmp_path: Path) -> None:
    rte = DataRef("raw", str(glue(tmp_path)))
    fails(
        loads(copy, task="glue/sst2", data=rte),
        tmp_path,
        "does not fit glue/sst2: it has a head for question answering",
    )


def test_load_refuses_classes_with_other_names(tmp_path: Path, encoder: Path) -> None:
    data = DataRef("raw", str(glue(tmp_path)))
    made = ensure(sample_spec(source=str(encoder), architecture=None, task="glue/sst2", data=data), tmp_path / "made")
    assert ensure(loads(made, task="glue/sst2", data=data), tmp_path / "good").is_dir()
    edit(made, id2label={"0": "cat", "1": "dog"})
    fails(loads(made, task="glue/sst2", data=data), tmp_path, "does not fit glue/sst2", "cat")


def test_load_refuses_weights_that_are_not_the_configurations(copy: Path, tmp_path: Path) -> None:
    edit(copy, hidden_size=32)
    fails(loads(copy), tmp_path, "model.safetensors", "config.json asks for")


def test_more_tokens_than_positions(copy: Path, tmp_path: Path) -> None:
    fails(loads(copy, shape=Shape(1024, 128)), tmp_path, "shape.max_length 1024 is more than the 512 positions")


@pytest.mark.parametrize("recipe", ["load", "finetune"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "there is no config.json"),
        ("model.safetensors", "there is no model.safetensors"),
        ("tokenizer.json", "there is no tokenizer.json or vocab.txt"),
    ],
)
def test_an_incomplete_folder(copy: Path, tmp_path: Path, file: str, words: str, recipe: str) -> None:
    (copy / file).unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickled")
    fails(sample_spec(recipe=recipe, source=str(copy)), tmp_path, words)


@pytest.mark.parametrize("recipe", ["load", "finetune"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "no such"}'),
        ("config.json", b'{"model_type": "bert", "hidden_size": "wide"}'),
        ("model.safetensors", b"not safetensors"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_broken_file_of_a_source(copy: Path, tmp_path: Path, file: str, content: bytes, recipe: str) -> None:
    (copy / file).write_bytes(content)
    fails(sample_spec(recipe=recipe, source=str(copy)), tmp_path, file)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="there is no such folder"):
        ensure(loads(tmp_path / "nowhere"), tmp_path)


def test_a_package_path_stays_in_its_package(tmp_path: Path) -> None:
    fails(loads("package:tokenizers/../transformers"), tmp_path, "leaves the package")


@pytest.mark.parametrize("recipe", ["load", "finetune", "pretrained"])
def test_bert_needs_no_model_type(encoder: Path, tmp_path: Path, recipe: str) -> None:
    """The first repositories have none, nor a tokenizer's configuration: a vocabulary and sizes are all."""
    source = Path(shutil.copytree(encoder, tmp_path / "mine"))
    if recipe == "load":
        source = Path(shutil.copytree(ensure(sample_spec(train=train(max_steps=1)), tmp_path), tmp_path / "reader"))
    vocabulary = load_tokenizer(source).get_vocab()
    (source / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (source / file).unlink()
    config = json.loads((source / "config.json").read_text())
    old = {name: config[name] for name in (*SIZES, "vocab_size", "type_vocab_size", "max_position_embeddings")}
    (source / "config.json").write_text(json.dumps(old))
    spec = loads(source) if recipe == "load" else sample_spec(source=str(source), architecture=None)
    if recipe == "pretrained":
        spec = replace(spec, recipe=recipe, task=CORPUS, train=None)
    folder = ensure(spec, tmp_path)
    assert AutoConfig.from_pretrained(folder).to_dict().items() >= {**old, "model_type": "bert"}.items()
    assert load_tokenizer(folder).get_vocab() == vocabulary
    if recipe != "pretrained":
        assert not AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"]


@pytest.mark.parametrize("recipe", ["load", "finetune"])
@pytest.mark.parametrize("lacking", ["type_vocab_size", "architectures"])
def test_what_may_be_no_bert_must_say_that_it_is(copy: Path, tmp_path: Path, recipe: str, lacking: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    del config["model_type"]
    if lacking == "architectures":
        config["architectures"] = ["RobertaForMaskedLM"]
    else:
        del config[lacking]
    (copy / "config.json").write_text(json.dumps(config))
    line = 'has no model_type; where it is a BERT encoder, add "model_type": "bert"'
    fails(sample_spec(recipe=recipe, source=str(copy)), tmp_path, f"tiny: {copy}", "config.json", line)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("recipe", ["load", "finetune", "pretrained"])
def test_weights_that_are_not_finite_do_not_come_in(encoder: Path, tmp_path: Path, recipe: str, value: float) -> None:
    """They would be scored as a model that is always wrong."""
    source = Path(shutil.copytree(encoder, tmp_path / "mine"))
    if recipe == "load":
        source = Path(shutil.copytree(ensure(sample_spec(train=train(max_steps=1)), tmp_path), tmp_path / "reader"))
    weights = load_file(source / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.output.dense.weight"))
    weights[name][3, 5] = value
    save_file(weights, source / "model.safetensors")
    spec = loads(source) if recipe == "load" else sample_spec(source=str(source), architecture=None)
    if recipe == "pretrained":
        spec = replace(spec, recipe=recipe, task=CORPUS, train=None)
    with pytest.raises((CheckpointError, BackendError)) as caught:
        ensure(spec, tmp_path)
    assert "'encoder.layer.0.output.dense.weight' holds values that are not finite; train or exp" in str(caught.value)


# -- finetune


def glue(folder: Path) -> Path:
    """Two of GLUE's classic files, a few rows each."""
    sst = folder / "data" / "glue" / "SST-2"
    sts = folder / "data" / "glue" / "STS-B"
    for path in (sst, sts):
        path.mkdir(parents=True, exist_ok=True)
    rows = [f"a {'fine' if at % 2 else 'dull'} film number {at}\t{at % 2}" for at in range(40)]
    columns = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    pairs = [f"{at}\tg\tf\ty\t0\ts\ts\tA film.\tA film {at}.\t{at % 6}.000" for at in range(40)]
    for split in ("train", "dev"):
        (sst / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
        (sts / f"{split}.tsv").write_text("\n".join([columns, *pairs]) + "\n")
    return folder / "data"


@pytest.mark.parametrize(
    ("task", "names", "problem"),
    [
        ("glue/sst2", {"0": "negative", "1": "positive"}, "single_label_classification"),
        ("glue/stsb", {"0": "score"}, "regression"),
    ],
)
def test_a_new_head_has_the_tasks_classes(
    encoder: Path, tmp_path: Path, task: str, names: dict[str, str], problem: str
) -> None:
    data = DataRef("raw", str(glue(tmp_path)))
    folder = ensure(sample_spec(task=task, source=str(encoder), architecture=None, data=data), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert (config["id2label"], config["problem_type"]) == (names, problem)
    assert config["architectures"] == ["BertForSequenceClassification"]
    weights = load_file(folder / "model.safetensors")
    assert weights["classifier.weight"].shape == (len(names), 16)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert describe(folder).architecture["num_labels"] == len(names)


def test_training_starts_from_the_pretrained_weights(encoder: Path, tmp_path: Path) -> None:
    spec = sample_spec(source=str(encoder), architecture=None, train=train(learning_rate=1e-12, max_steps=1))
    weights = load_file(ensure(spec, tmp_path) / "model.safetensors")
    for name, value in load_file(encoder / "model.safetensors").items():
        if not name.startswith("pooler."):
            assert torch.allclose(weights[f"bert.{name}"], value.float(), rtol=0, atol=1e-11)


def test_a_classifier_becomes_a_reader(encoder: Path, tmp_path: Path) -> None:
    """Heads of another size go; question answering has two outputs whatever number of classes the source had."""
    data = DataRef("raw", str(glue(tmp_path)))
    regression = ensure(sample_spec(task="glue/stsb", source=str(encoder), architecture=None, data=data), tmp_path)
    for task, ref, head, outputs in (
        ("squad_v1", DataRef("sample"), "qa_outputs", 2),
        ("glue/sst2", data, "classifier", 2),
    ):
        spec = sample_spec(source=str(regression), architecture=None, task=task, data=ref)
        assert load_file(ensure(spec, tmp_path) / "model.safetensors")[f"{head}.weight"].shape[0] == outputs


def test_dropout_is_set_in_the_configuration(encoder: Path, tmp_path: Path) -> None:
    folder = ensure(sample_spec(source=str(encoder), architecture=None, train=train(dropout=0.0)), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.0, 0.0)


def test_an_encoder_with_a_missing_layer_is_not_trained(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "mine"))
    edit(folder, num_hidden_layers=2)
    fails(sample_spec(source=str(folder)), tmp_path, "has no fitting bert.encoder.layer.1.", "and 15 more")


def test_an_architecture_that_no_backend_runs_is_not_trained(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "mine"))
    RobertaConfig(vocab_size=5000).save_pretrained(folder)
    monkeypatch.setattr(finetune, "train", None)
    fails(sample_spec(source=str(folder)), tmp_path, f"tiny: {folder}: model_type is 'roberta'")


def test_a_tokenizer_of_another_model(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "mine"))
    edit(folder, vocab_size=100)
    fails(sample_spec(source=str(folder)), tmp_path, "its model takes 100")


def test_scratch_is_not_trained_on_real_data(tmp_path: Path) -> None:
    data = DataRef("raw", str(glue(tmp_path)))
    fails(sample_spec(task="glue/sst2", data=data), tmp_path, "source 'scratch' has the sample's vocabulary")


def test_a_full_disk_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    fails(sample_spec(), tmp_path, "training needs", "QUANTBOARD_CACHE")


@pytest.mark.parametrize("fault", ["full", "full in safetensors"])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    from safetensors import SafetensorError

    def origin(*_: object) -> None:
        if fault == "full":
            raise OSError(28, "No space left on device")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "origin", origin)
    fails(sample_spec(), tmp_path, "No space left on device; free some space or move the cache with QUANTBOARD_CACHE")
    assert not list((tmp_path / "cache" / "checkpoints").glob(".part*"))


# -- ptq


def test_calibration_adds_ranges_to_the_same_weights(trained: Path, cache: Path) -> None:
    folder = ensure(ptq(sample_spec()), cache)
    assert (folder / "model.safetensors").samefile(trained / "model.safetensors")
    ranges = read_ranges(folder)
    assert ranges.scheme.name == "engine_int8"
    assert ranges.calibration["samples"] >= 6
    described, parent = describe(folder), describe(trained)
    assert (described.scheme, described.parent) == ("engine_int8", parent.key)
    assert described.train == {"samples": 6, "batch_size": 4, "seed": 3}
    assert described.train_seconds == parent.train_seconds
    assert described.calibration_seconds is not None
    assert not (trained / "ranges.json").exists()


def test_calibration_follows_its_seed_and_reads_train_alone(
    trained: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    drawn: list[list[str]] = []
    examples, features = Squad.examples, Squad.features

    def watched(self: Squad, split: str) -> Sequence[Any]:
        asked.append(split)
        return examples(self, split)

    def looked(self: Squad, rows: Sequence[Any], *rest: Any, **more: Any) -> Any:
        drawn.append([row["id"] for row in rows])
        return features(self, rows, *rest, **more)

    monkeypatch.setattr(Squad, "examples", watched)
    monkeypatch.setattr(Squad, "features", looked)
    scales = []
    for seed, place in ((1, cache), (2, cache), (1, tmp_path)):
        if place == tmp_path:
            shutil.copytree(trained, folder_of(sample_spec(), tmp_path))
        folder = ensure(ptq(sample_spec(), seed=seed), place)
        ranges = read_ranges(folder)
        scales.append(np.concatenate([tensor.scale for name, tensor in sorted(ranges.tensors.items())]))
    assert set(asked) == {"train"}
    assert [len(set(ids)) for ids in drawn] == [6, 6, 6]
    assert drawn[0] == drawn[2] != drawn[1]
    assert np.array_equal(scales[0], scales[2])
    assert not np.array_equal(scales[0], scales[1])


def test_a_child_makes_its_parent(tmp_path: Path) -> None:
    ensure(ptq(sample_spec()), tmp_path)
    assert folder_of(sample_spec(), tmp_path).is_dir()


def test_broken_data_is_the_tasks_own_line(tmp_path: Path) -> None:
    squad = tmp_path / "data" / "squad"
    squad.mkdir(parents=True)
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (squad / name).write_text('{"data": [')
    with pytest.raises(TaskError, match=r"train-v1\.1\.json"):
        ensure(sample_spec(data=DataRef("raw", str(tmp_path / "data")), recipe="load", train=None), tmp_path)
