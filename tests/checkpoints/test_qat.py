"""Quantization-aware training: its start, its result, and interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForQuestionAnswering, BertConfig, BertForSequenceClassification

from backends import Settings, get_backend
from backends.fake_quant.training import THRESHOLD_RATE, Learned
from backends.ranges import TensorRange, read_ranges, write_ranges
from backends.schemes import Quantizer
from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.checkpoints.training import finetune, qat
from harness.checkpoints.training import loop as training_loop
from harness.checkpoints.training.loop import Loss, model_loss
from harness.errors import CheckpointError
from harness.plan.spec import folder_of
from harness.suite.train import TrainSettings
from tasks import DataRef, Features
from tasks.sample import sample_tokenizer
from tests.checkpoints.specs import qat_spec
from tests.run.small import SIZES, glue, sample_spec, train

SPEC = sample_spec()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "user-cache"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    ensure(SPEC, folder)
    return folder


def batch() -> dict[str, np.ndarray[Any, Any]]:
    ids = np.random.default_rng(0).integers(5, 200, (2, 24))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", "q8bert", "aimet_w8a8", "vitis_pof2"])
def test_qat_makes_a_plain_checkpoint_with_ranges(cache: Path, tmp_path: Path, scheme: str) -> None:
    spec = qat_spec(SPEC, scheme)
    folder, parent = ensure(spec, cache), folder_of(SPEC, cache)
    assert {path.name for path in folder.iterdir()} == {path.name for path in parent.iterdir()} | {"ranges.json"}
    _, report = AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    before, after = load_file(parent / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert not torch.equal(before["qa_outputs.weight"], after["qa_outputs.weight"])
    ranges = read_ranges(folder)
    assert ranges.scheme.name == scheme
    assert ranges.calibration["trained"] == 4
    assert set(ranges.calibration["sqnr_db"]) == set(ranges.tensors)
    session = get_backend("fake_quant_w8a8").prepare(folder, Settings(96, 2, 1, tmp_path), "cpu")
    assert np.isfinite(session.run(batch())).all()

    described = describe_checkpoint(folder)
    assert (described.recipe, described.scheme, described.parent) == ("qat", scheme, SPEC.key)
    assert described.train["max_steps"] == 4
    assert described.train["samples"] == 8
    assert described.train_seconds is not None
    assert described.calibration_seconds is not None
    assert described.quantization is not None
    worst = list(described.quantization.worst.values())
    assert len(worst) == 8
    assert worst == sorted(worst)
    assert worst[0] == min(ranges.calibration["sqnr_db"].values())
    assert 0.2 < described.quantization.share < 1
    slow = ["after 4 steps with a decay of 0.9999, activation ranges still hold 100% of what calibration found"]
    assert described.quantization.notes == (slow if scheme == "q8bert" else [])


@pytest.mark.parametrize("scheme", ["engine_int8", "q8bert"])
def test_the_engine_computes_what_the_simulation_trained(cache: Path, tmp_path: Path, scheme: str) -> None:
    """Trained weights and ranges in ONNX Runtime against the simulation: a hundredth of what quantization moves the logits by,
    and far more with the ranges of layers' inputs swapped. Medians, as float32 rounding may put a single token on the other
    side of a tie."""
    folder = ensure(qat_spec(SPEC, scheme), cache)

    def run(name: str, folder: Path) -> np.ndarray[Any, Any]:
        session = get_backend(name).prepare(folder, Settings(96, 2, 1, tmp_path), "cpu")
        logits = session.run(batch())
        session.close()
        return logits

    simulated = run("fake_quant_w8a8", folder)
    moved = np.median(np.abs(simulated - run("torch_fp32", folder)))
    assert moved > 1e-5
    assert np.median(np.abs(run("onnxruntime_int8", folder) - simulated)) < moved / 100
    wrong = Path(shutil.copytree(folder, tmp_path / "wrong"))
    ranges = read_ranges(folder)
    swapped = dict(ranges.tensors)
    for name, other in (("intermediate", "output"), ("output", "intermediate")):
        swapped[f"encoder.layer.0.{name}.dense.input"] = ranges.tensors[f"encoder.layer.0.{other}.dense.input"]
    write_ranges(wrong, replace(ranges, tensors=swapped))
    assert np.median(np.abs(run("onnxruntime_int8", wrong) - simulated)) > moved / 10


@pytest.mark.slow
def test_training_starts_from_the_calibrated_ranges(cache: Path, tmp_path: Path) -> None:
    """With a learning rate of almost 0 the weights stay the parent's, and the ranges those of calibration."""
    shutil.copytree(folder_of(SPEC, cache), folder_of(SPEC, tmp_path))
    settings = train(max_steps=1, learning_rate=1e-12, warmup_ratio=0.0)
    trained = ensure(replace(qat_spec(SPEC), train=settings), tmp_path)
    calibrated = ensure(replace(qat_spec(SPEC), recipe="ptq", train=None), tmp_path)
    trained_weights, weights = (load_file(folder / "model.safetensors") for folder in (trained, calibrated))
    for name, value in weights.items():
        assert torch.allclose(trained_weights[name], value, rtol=0, atol=1e-10)
    ranges = read_ranges(calibrated).tensors
    for name, tensor in read_ranges(trained).tensors.items():
        assert np.allclose(tensor.scale, ranges[name].scale, rtol=1e-5)
    assert describe_checkpoint(calibrated).quantization is not None


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "cause"), [("q8bert", "interrupt"), ("engine_int8", "crash"), ("aimet_w8a8", "crash")]
)
def test_an_interrupted_training_ends_with_the_same_weights_and_ranges(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, cause: str
) -> None:
    settings = train(max_steps=6, learning_rate=1e-3, checkpoint_every=2, dropout=0.1)
    spec = replace(qat_spec(SPEC, scheme), train=settings)
    whole = ensure(spec, cache)
    shutil.copytree(folder_of(SPEC, cache), folder_of(SPEC, tmp_path))
    loop, calls = vars(finetune)["train"], 0

    def loss_that_stops(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            if cause == "crash":
                raise Stop
            os.kill(os.getpid(), signal.SIGINT)
        return model_loss(model, tensors)

    def interrupted(*arguments: Any, loss_of: Loss | None = None, **more: Any) -> Any:
        return loop(*arguments, loss_of=loss_that_stops, **more)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train", interrupted)
        with pytest.raises(Stop if cause == "crash" else KeyboardInterrupt):
            ensure(spec, tmp_path)
    (state,) = folder_of(spec, tmp_path).with_name(f".state-{spec.key}").iterdir()
    assert state.name == ("step-000000002" if cause == "crash" else "step-000000004")
    weights = hashlib.sha256((folder_of(SPEC, cache) / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads((state / "state.json").read_text())["made_by"]["training of tiny (finetune)"] == weights
    resumed = ensure(spec, tmp_path)
    assert calls == 4
    for file in ("model.safetensors", "ranges.json"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.slow
def test_only_a_scheme_that_computes_padding_pads_to_the_maximum(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: dict[str, set[int]] = {}
    loop = vars(finetune)["train"]
    for scheme in ("aimet_w8a8", "vitis_pof2"):
        scheme_widths = widths.setdefault(scheme, set())

        def train_and_note_widths(
            model: torch.nn.Module, *rest: Any, scheme_widths: set[int] = scheme_widths, **more: Any
        ) -> Any:
            model.register_forward_pre_hook(
                lambda _, __, inputs: scheme_widths.add(inputs["input_ids"].shape[1]), with_kwargs=True
            )
            return loop(model, *rest, **more)

        monkeypatch.setattr(finetune, "train", train_and_note_widths)
        ensure(replace(qat_spec(SPEC, scheme), seed=9), cache)
    assert widths["aimet_w8a8"] == {96}
    assert len(widths["vitis_pof2"]) > 1


def test_a_published_classifiers_outputs_are_put_into_the_tasks_order(tmp_path: Path) -> None:
    """The parent's first class is the task's second. Its outputs are swapped before the training."""
    data = DataRef("raw", str(glue(tmp_path)))
    published = tmp_path / "published"
    names: Any = {0: "POSITIVE", 1: "NEGATIVE"}
    config = BertConfig(
        vocab_size=sample_tokenizer().get_vocab_size(), max_position_embeddings=128, id2label=names, **SIZES
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([3.0, -3.0]))
    model.save_pretrained(published)
    weights = load_file(published / "model.safetensors")
    sample_tokenizer().save(str(published / "tokenizer.json"))
    (published / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    loaded = sample_spec(
        task="glue/sst2", data=data, recipe="load", source=str(published), architecture=None, train=None
    )
    spec = replace(qat_spec(loaded), train=train(max_steps=1, learning_rate=1e-12))
    folder = ensure(spec, tmp_path)
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}
    trained = load_file(folder / "model.safetensors")
    assert trained["classifier.bias"].tolist() == pytest.approx([-3.0, 3.0])
    assert torch.allclose(trained["classifier.weight"], weights["classifier.weight"].flip(0), atol=1e-9)


def test_an_unusable_trained_range_is_one_line() -> None:
    for scale in (float("nan"), 0.0, float("inf")):
        tensor = TensorRange("activation", np.array([scale], np.float32), np.zeros(1, np.int32), None, Quantizer())
        with pytest.raises(CheckpointError) as caught:
            qat.check_ranges({"x.input": tensor}, qat_spec(SPEC))
        assert str(caught.value) == (
            "tiny-qat: a trained range is unusable: 'x.input': scales must be positive and finite;"
            " lower learning_rate or raise warmup_ratio"
        )


class RangesModel(torch.nn.Module):
    """A weight, and learned ranges of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 40, generator=torch.Generator().manual_seed(1)))
        channels = Quantizer(narrow=True, granularity="per_channel")
        self.channels = learned([0.01, 0.02, 0.03], channels, axis=0)
        self.tensor = learned([0.02], Quantizer())
        self.ends = learned([0.01], Quantizer(symmetric=False), zero_point=-28)
        self.power = learned([2**-7], Quantizer(power_of_two=True))

    def quantizers(self) -> list[Learned]:
        return [part for part in self.modules() if isinstance(part, Learned)]


def learned(scale: list[float], quantizer: Quantizer, zero_point: int = 0, axis: int | None = None) -> Learned:
    scales = np.array(scale, np.float32)
    zeros = np.full(scales.shape, zero_point, np.int32)
    role: Any = "activation" if axis is None else "weight"
    return Learned(TensorRange(role, scales, zeros, axis, quantizer), 1 if axis is None else 2)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-7])
def test_a_step_moves_ranges_by_a_thousandth_whatever_the_loss(tmp_path: Path, size: float) -> None:
    """With a learning rate of 2e-5, a loss of any size, and weights whose gradient is clipped to a millionth. Values outside a
    range make it wider."""
    model, steps = RangesModel(), 3
    first_scales = [quantizer.tensor_range().scale.astype(np.float64) for quantizer in model.quantizers()]
    before = model.weight.detach().clone()

    def loss(_model: torch.nn.Module, _batch: dict[str, torch.Tensor]) -> torch.Tensor:
        values = 9 * before
        errors = [(quantizer(values) - values).square().mean() for quantizer in model.quantizers()]
        return size * torch.stack(errors).sum() + 1e6 * model.weight.sum()

    ids = np.ones((4, 5), np.int32)
    rows = Features(ids, ids, np.full(4, 5), np.arange(4))
    settings = TrainSettings.model_validate(
        train(
            learning_rate=2e-5,
            max_steps=steps,
            warmup_ratio=0.0,
            schedule="constant",
            weight_decay=0.0,
            precision="fp32",
        )
    )
    training_loop.train(model, rows, settings, seed=1, states=tmp_path, device="cpu", loss_of=loss)
    for quantizer, scales in zip(model.quantizers(), first_scales, strict=True):
        moved = quantizer.tensor_range().scale / scales - 1
        if quantizer is model.power:
            octaves = THRESHOLD_RATE * float(quantizer.amount.detach())
            assert octaves == pytest.approx(0.005 * steps, rel=1e-3)
        elif quantizer is model.ends:
            assert moved.tolist() == pytest.approx([0.002 * steps], rel=1e-3)  # both ends move outwards
        else:
            assert moved.tolist() == pytest.approx([0.001 * steps] * len(moved), rel=3e-3)
    # The weights take the step that they would take without ranges.
    assert torch.allclose(before - model.weight, torch.full_like(before, 2e-5 * steps), rtol=1e-2)
