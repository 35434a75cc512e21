"""The recipes load and finetune: their sources, and messages about sources that do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForQuestionAnswering, GPT2Config

from backends.base import BackendError
from backends.families import family_names
from harness.checkpoints import make
from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.checkpoints.training import finetune
from harness.errors import CheckpointError, SourceUnavailable
from harness.plan.sources import ranges_of
from harness.plan.spec import CORPUS
from tasks import DataRef, Shape
from tasks.tokens import load_tokenizer
from tests.run.small import (
    SIZES,
    cache,
    copy,
    edit,
    encoder,
    fails,
    glue,
    loads,
    own_cache,
    ptq,
    sample_spec,
    train,
    trained,
)

__all__ = ["cache", "copy", "encoder", "own_cache", "trained"]  # fixtures


@pytest.mark.slow
def test_load_keeps_the_weights_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    loaded = ensure(loads(trained), tmp_path)
    assert (loaded / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert not (loaded / "model.safetensors").samefile(trained / "model.safetensors")
    described = describe_checkpoint(loaded)
    assert (described.recipe, described.source, described.train_seconds) == ("load", "a local folder", None)
    assert str(trained) not in (loaded / "origin.json").read_text()
    load_tokenizer(loaded)


def test_unused_tensors_do_not_count_as_parameters(copy: Path, tmp_path: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file(weights | {"bert.pooler.dense.weight": torch.zeros(16, 16)}, copy / "model.safetensors")
    (copy / "origin.json").unlink()
    assert describe_checkpoint(ensure(loads(copy), tmp_path)).parameters == sum(
        value.numel() for value in weights.values()
    )


def test_random_weights_can_be_loaded(tmp_path: Path) -> None:
    folder = ensure(sample_spec(recipe="load", train=None), tmp_path)
    assert not AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"]


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
    source = ensure(
        sample_spec(source=str(encoder), architecture=None, task="glue/sst2", data=data), tmp_path / "source"
    )
    assert ensure(loads(source, task="glue/sst2", data=data), tmp_path / "good").is_dir()
    edit(source, id2label={"0": "cat", "1": "dog"})
    fails(loads(source, task="glue/sst2", data=data), tmp_path, "does not fit glue/sst2", "cat")


def test_load_refuses_a_checkpoint_of_a_task_with_the_same_classes(tmp_path: Path, encoder: Path) -> None:
    data = DataRef("raw", str(glue(tmp_path)))
    source = ensure(
        sample_spec(source=str(encoder), architecture=None, task="glue/sst2", data=data), tmp_path / "source"
    )
    origin = json.loads((source / "origin.json").read_text())
    (source / "origin.json").write_text(json.dumps(origin | {"task": "imdb"}))
    fails(
        loads(source, task="glue/sst2", data=data),
        tmp_path,
        "its origin.json says that it was made for imdb; fine-tune",
    )


def test_ranges_beside_the_weights_are_loaded_too(trained: Path, cache: Path, tmp_path: Path) -> None:
    source = ensure(ptq(sample_spec()), cache)
    assert ranges_of(str(source))[0] == "engine_int8"
    assert ranges_of(str(trained)) == (None, {}, None)
    spec = loads(source, scheme="engine_int8", identity=ranges_of(str(source))[1])
    assert spec.brings_ranges and not loads(trained).brings_ranges
    folder = ensure(spec, tmp_path / "cache")
    assert (folder / "ranges.json").read_bytes() == (source / "ranges.json").read_bytes()
    quantization = describe_checkpoint(folder).quantization
    assert quantization is not None and quantization.quantized > 0


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e40])
def test_impossible_ranges_are_not_loaded(cache: Path, tmp_path: Path, scale: float) -> None:
    bad = shutil.copytree(ensure(ptq(sample_spec()), cache), tmp_path / "bad")
    value = json.loads((bad / "ranges.json").read_text())
    name = next(name for name, tensor in value["tensors"].items() if tensor["role"] == "weight")
    value["tensors"][name]["scale"][0] = scale
    (bad / "ranges.json").write_text(json.dumps(value))
    fails(
        loads(bad, scheme="engine_int8"),
        tmp_path,
        f"tiny: {bad / 'ranges.json'}: '{name}': scales must be positive and finite",
    )


@pytest.mark.parametrize("deleted", [False, True])
def test_ranges_that_changed_since_the_plan(cache: Path, tmp_path: Path, deleted: bool) -> None:
    source = Path(shutil.copytree(ensure(ptq(sample_spec()), cache), tmp_path / "source"))
    spec = loads(source, scheme="engine_int8", identity=ranges_of(str(source))[1])
    content = (source / "ranges.json").read_text()
    (source / "ranges.json").unlink()
    if not deleted:
        (source / "ranges.json").write_text(content + " ")
    fails(spec, tmp_path, "ranges: the content has changed since the plan was made; run the same command again")


def test_ranges_without_a_known_scheme_are_refused_by_the_plan(cache: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(ensure(ptq(sample_spec()), cache), tmp_path / "bad")
    for content, reason in (("{}", "names no scheme"), ('{"scheme": {"name": "int9"}}', "int9")):
        (bad / "ranges.json").write_text(content)
        scheme, _, blocked = ranges_of(str(bad))
        assert scheme is None
        assert blocked is not None and reason in blocked[0] and "export the model again" in blocked[1]


def test_load_refuses_weights_that_do_not_fit_the_configuration(copy: Path, tmp_path: Path) -> None:
    edit(copy, hidden_size=32)
    fails(loads(copy), tmp_path, "model.safetensors", "config.json asks for")


def test_more_tokens_than_positions(copy: Path, tmp_path: Path) -> None:
    fails(
        loads(copy, shape=Shape(1024, 128)), tmp_path, "shape.max_length 1024 is more than its 512 positions", "to 512"
    )


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


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="there is no such folder"):
        ensure(loads(tmp_path / "nowhere"), tmp_path)


def test_a_path_must_stay_inside_its_package(tmp_path: Path) -> None:
    fails(loads("package:tokenizers/../transformers"), tmp_path, "is outside the package")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["load", "finetune", "pretrained"])
def test_bert_needs_no_model_type(encoder: Path, tmp_path: Path, recipe: str) -> None:
    """The first repositories have neither a model_type nor a tokenizer configuration: only sizes and a vocabulary."""
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
@pytest.mark.parametrize("changed", ["type_vocab_size", "architectures"])
def test_a_configuration_that_may_not_be_berts_needs_a_model_type(
    copy: Path, tmp_path: Path, recipe: str, changed: str
) -> None:
    config = json.loads((copy / "config.json").read_text())
    del config["model_type"]
    if changed == "architectures":
        config["architectures"] = ["RobertaForMaskedLM"]
    else:
        del config[changed]
    (copy / "config.json").write_text(json.dumps(config))
    line = f"has no model_type; add the one of its family: {', '.join(family_names())}"
    fails(sample_spec(recipe=recipe, source=str(copy)), tmp_path, f"tiny: {copy}", "config.json", line)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("recipe", ["load", "finetune", "pretrained"])
def test_weights_that_are_not_finite_are_refused(encoder: Path, tmp_path: Path, recipe: str, value: float) -> None:
    """Otherwise NaN would be scored as wrong answers."""
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
    assert "encoder.layer.0.output.dense.weight' holds values that are not finite; train or exp" in str(caught.value)


# -- finetune


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
    assert describe_checkpoint(folder).architecture["num_labels"] == len(names)


def test_training_starts_from_the_pretrained_weights(encoder: Path, tmp_path: Path) -> None:
    spec = sample_spec(source=str(encoder), architecture=None, train=train(learning_rate=1e-12, max_steps=1))
    weights = load_file(ensure(spec, tmp_path) / "model.safetensors")
    for name, value in load_file(encoder / "model.safetensors").items():
        if not name.startswith("pooler."):
            assert torch.allclose(weights[f"bert.{name}"], value.float(), rtol=0, atol=1e-11)


@pytest.mark.slow
def test_a_head_of_another_size_is_replaced(encoder: Path, tmp_path: Path) -> None:
    """Question answering has two outputs, whatever the number of classes of the source."""
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
    GPT2Config(vocab_size=5000).save_pretrained(folder)
    monkeypatch.setattr(finetune, "train", None)
    fails(
        sample_spec(source=str(folder)),
        tmp_path,
        f"tiny: {folder}: config.json model_type is 'gpt2', which is no encoder of this transformers; name a model of a known"
        f" family ({', '.join(family_names())})",
    )


def test_a_tokenizer_of_another_model_is_refused(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "mine"))
    edit(folder, vocab_size=100)
    fails(sample_spec(source=str(folder)), tmp_path, "the tokenizer has 832 tokens, but the model only 100")


def test_scratch_is_not_trained_on_real_data(tmp_path: Path) -> None:
    data = DataRef("raw", str(glue(tmp_path)))
    fails(sample_spec(task="glue/sst2", data=data), tmp_path, "source 'scratch' has the sample's vocabulary")


def test_a_full_disk_is_noticed_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    fails(sample_spec(), tmp_path, "training needs", "QUANTBOARD_CACHE")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["full", "full in safetensors"])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    from safetensors import SafetensorError

    def fail(*_: object) -> None:
        if fault == "full":
            raise OSError(28, "No space left on device")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(make, "build_origin", fail)
    fails(sample_spec(), tmp_path, "No space left on device; free some space or move the cache with QUANTBOARD_CACHE")
    assert not list((tmp_path / "cache" / "checkpoints").glob(".part*"))
