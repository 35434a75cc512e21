"""Calibration and simulation of whole models against an integer BERT written in NumPy, and shuffled ranges against both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import BertForQuestionAnswering

from backends import BackendError, Settings, get_backend
from backends.fake_quant.calibrate import calibrate, calibrate_model
from backends.fake_quant.output_error import CLIPS
from backends.ranges import read_ranges, write_ranges
from backends.schemes import Quantizer, Scheme, get_scheme
from tests.backends.checkpoints import LENGTH, make_batch, make_checkpoint
from tests.backends.running import run_real_tokens

Array = np.ndarray[Any, Any]
LAYER = "encoder.layer.1"


def outliers(folder: Path) -> None:
    """Outliers as training makes them and random weights lack: a channel of LayerNorm's output that is large in every token, and a
    feed-forward neuron that is 0 but for a few tokens, where it is huge."""
    weights = load_file(folder / "model.safetensors")
    for layer in (0, 1):
        at = f"bert.encoder.layer.{layer}"
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{at}.{norm}.weight"][7] = 6
        weights[f"{at}.intermediate.dense.weight"][0] = 0
        weights[f"{at}.intermediate.dense.weight"][0, 7] = 40
        weights[f"{at}.intermediate.dense.bias"][0] = -40 * 6 * 2.3  # fires where that channel is 2.3 deviations high
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("model"))
    outliers(folder)
    return folder


def batches() -> list[dict[str, Array]]:
    return [make_batch(seed) for seed in range(100, 104)]


def with_ranges(checkpoint: Path, folder: Path, scheme: str) -> Path:
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    write_ranges(folder, calibrate(checkpoint, batches(), scheme, 1))
    return folder


def run(name: str, folder: Path, batch: Mapping[str, Array]) -> Array:
    """Logits of the real tokens."""
    return run_real_tokens(name, folder, batch, folder / "cache")


def integer_bert(folder: Path, batch: Mapping[str, Array], heads: int = 4) -> Array:
    """Logits of the real tokens by a BERT for question answering in float64, which reads nothing but the files of the checkpoint. Each
    linear layer of the encoder is a product of integers, summed exactly; codes are divided by the scale, as in ONNX."""
    weights = {name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()}
    ranges = json.loads((folder / "ranges.json").read_text())["tensors"]

    def codes(values: Array, name: str) -> tuple[Array, Array]:
        tensor = ranges[name]
        scale, zero = (np.array(tensor[key]).reshape(-1, 1) for key in ("scale", "zero_point"))
        low = -127 if tensor["narrow"] else -128
        return (np.clip(np.rint(values / scale) + zero, low, 127) - zero).astype(np.int64), scale

    def linear(values: Array, name: str) -> Array:
        inputs, input_scale = codes(values.reshape(-1, values.shape[-1]), f"{name}.input")
        matrix, scales = codes(weights[f"{name}.weight"].astype(np.float64), f"{name}.weight")
        product = (inputs @ matrix.T) * (input_scale * scales.T) + weights[f"{name}.bias"]
        return np.asarray(product.reshape(*values.shape[:-1], -1))

    def norm(values: Array, name: str) -> Array:
        centred = values - values.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(unit * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def split(values: Array) -> Array:
        return values.reshape(*values.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    mask = np.where(batch["attention_mask"][:, None, None] == 1, 0.0, -np.inf)
    states = (
        weights["embeddings.word_embeddings.weight"][batch["input_ids"]].astype(np.float64)
        + weights["embeddings.token_type_embeddings.weight"][batch["token_type_ids"]]
        + weights["embeddings.position_embeddings.weight"][: batch["input_ids"].shape[1]]
    )
    states = norm(states, "embeddings.LayerNorm")
    for layer in (0, 1):
        at = f"encoder.layer.{layer}"
        query, key, value = (split(linear(states, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1]) + mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        context = (shares @ value).transpose(0, 2, 1, 3).reshape(states.shape)
        states = norm(states + linear(context, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        wide = linear(states, f"{at}.intermediate.dense")
        wide = wide / 2 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        states = norm(states + linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    logits = states @ weights["qa_outputs.weight"].T + weights["qa_outputs.bias"]
    return np.asarray(logits[batch["attention_mask"].astype(bool)])


def shuffle(folder: Path, which: str) -> None:
    """Give every range of one kind another tensor's numbers; shapes and roles stay right, so the file is still valid."""
    value = json.loads((folder / "ranges.json").read_text())
    tensors = value["tensors"]
    if which == "inputs":
        turn = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
        for layer in ("encoder.layer.0", "encoder.layer.1"):
            old = [
                (tensors[f"{layer}.{part}.input"]["scale"], tensors[f"{layer}.{part}.input"]["zero_point"])
                for part in turn
            ]
            for part, (scale, zero) in zip(turn, old[1:] + old[:1], strict=True):
                for same in ("query", "key", "value") if part.endswith("query") else (None,):
                    name = part.replace("query", same) if same else part
                    tensors[f"{layer}.{name}.input"].update(scale=scale, zero_point=zero)
    else:
        for name, tensor in tensors.items():
            if name.endswith(".weight"):
                tensor["scale"] = tensor["scale"][1:] + tensor["scale"][:1]
    (folder / "ranges.json").write_text(json.dumps(value))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", "engine_int8_asymmetric"])
def test_the_simulation_equals_integer_arithmetic(checkpoint: Path, tmp_path: Path, scheme: str) -> None:
    """The simulation differs from integer arithmetic by less than a hundredth of what quantization changes. With shuffled ranges, of
    inputs or of weights, it differs far more."""
    folder = with_ranges(checkpoint, tmp_path / "right", scheme)
    batch = make_batch(1)
    expected = integer_bert(folder, batch)
    simulated = run("fake_quant_w8a8", folder, batch)
    moved = np.abs(simulated - run("torch_fp32", checkpoint, batch))
    bound = moved.mean() / 100
    assert 1e-4 < moved.mean() < 0.1 * expected.std()
    assert np.abs(simulated - expected).mean() < bound
    for which in ("inputs", "weights"):
        wrong = with_ranges(checkpoint, tmp_path / which, scheme)
        shuffle(wrong, which)
        assert np.abs(run("fake_quant_w8a8", wrong, batch) - expected).mean() > 50 * bound


def load(checkpoint: Path, attention: str) -> Any:
    model: Any = BertForQuestionAnswering.from_pretrained(checkpoint, attn_implementation=attention)
    return model.train(False)


def reader_inputs(checkpoint: Path) -> tuple[Any, dict[str, list[torch.Tensor]], list[torch.Tensor]]:
    """The model, what its layer 1 reads in calibration (seen by hooks of this test), and the masks."""
    model = load(checkpoint, "eager")
    layer = model.bert.encoder.layer[1]
    watched = {
        "attention.self.query": layer.attention.self.query,
        "attention.output.dense": layer.attention.output.dense,
        "intermediate.dense": layer.intermediate.dense,
        "output.dense": layer.output.dense,
    }
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in watched}
    handles = []
    for name, module in watched.items():
        handles.append(module.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0])))
    with torch.no_grad():
        for batch in batches():
            model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    for handle in handles:
        handle.remove()
    return model, seen, [torch.from_numpy(batch["attention_mask"]).bool() for batch in batches()]


def context(attention: Any, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    query, key, value = (
        getattr(attention, part)(states).unflatten(-1, (4, -1)).transpose(1, 2) for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    shares = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    joined: torch.Tensor = (shares @ value).transpose(1, 2).flatten(2)
    return joined


@pytest.mark.parametrize(
    "part", ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
)
def test_output_error_takes_the_clip_that_disturbs_the_reader_least(checkpoint: Path, part: str) -> None:
    """Against a search with PyTorch's own fake-quantize and an attention of this test."""
    model, seen, masks = reader_inputs(checkpoint)
    layer = model.bert.encoder.layer[1]
    largest = max(float(values[mask].abs().max()) for values, mask in zip(seen[part], masks, strict=True))

    def read(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if part.endswith("query"):
            return context(layer.attention.self, states, mask)[mask]
        output: torch.Tensor = layer.get_submodule(part)(states)[mask]
        return output

    errors = []
    with torch.no_grad():
        for clip in CLIPS:
            error = 0.0
            for states, mask in zip(seen[part], masks, strict=True):
                rounded = torch.fake_quantize_per_tensor_affine(states, largest * clip / 127, 0, -128, 127)
                right = read(states, mask)
                error += float(((read(rounded, mask) - right).norm(dim=-1) / right.norm(dim=-1)).square().sum())
            errors.append(error)
    tensors, _ = calibrate_model(model, batches(), get_scheme("engine_int8"))
    clip = float(tensors[f"{LAYER}.{part}.input"].scale[0]) * 127 / largest
    assert clip == pytest.approx(CLIPS[int(np.argmin(errors))], rel=1e-5)


def test_outliers_are_clipped_somewhere_and_kept_elsewhere(checkpoint: Path) -> None:
    """The difference between the estimators `output_error` and `min_max` on the same values."""
    by_output, by_extremes = (
        calibrate_model(
            load(checkpoint, "sdpa"),
            batches(),
            Scheme("x", Quantizer(narrow=True, granularity="per_channel"), Quantizer(estimator=estimator)),
        )[0]
        for estimator in ("output_error", "min_max")
    )
    shares = [
        float(by_output[name].scale[0] / by_extremes[name].scale[0]) for name in by_output if name.endswith(".input")
    ]
    assert max(shares) == pytest.approx(1, rel=1e-3)
    assert min(shares) < 0.8
    for name, tensor in by_output.items():
        if name.endswith(".weight"):
            assert np.array_equal(tensor.scale, by_extremes[name].scale)


@pytest.mark.slow
def test_weights_are_scaled_by_their_channels_largest_magnitude(checkpoint: Path) -> None:
    ranges = calibrate(checkpoint, batches(), "engine_int8", 1)
    weights = load_file(checkpoint / "model.safetensors")
    for name, tensor in ranges.tensors.items():
        if name.endswith(".weight"):
            assert np.allclose(tensor.scale * 127, np.abs(weights[f"bert.{name}"]).max(1), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", "engine_int8_asymmetric"])
def test_padding_counts_in_no_range(checkpoint: Path, scheme: str) -> None:
    """Wider padding, filled with other tokens, changes neither counts nor ranges (beyond float32 rounding of the model)."""
    plain = calibrate(checkpoint, batches(), scheme, 1)
    padded = []
    for batch in batches():
        wide = {name: np.pad(values, ((0, 0), (0, 30))) for name, values in batch.items()}
        wide["input_ids"][wide["attention_mask"] == 0] = 17
        padded.append(wide)
    wider = calibrate(checkpoint, padded, scheme, 1)
    for name, tensor in plain.tensors.items():
        assert np.allclose(tensor.scale, wider.tensors[name].scale, rtol=1e-4)
        assert np.abs(tensor.zero_point - wider.tensors[name].zero_point).max() <= 1
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches())
    for facts in (plain.calibration, wider.calibration):
        assert (facts["samples"], facts["batches"], facts["tokens"], facts["seed"]) == (16, 4, tokens, 1)


@pytest.mark.slow
def test_calibration_repeats_itself_to_the_bit(checkpoint: Path, tmp_path: Path) -> None:
    files = [
        write_ranges(tmp_path, calibrate(checkpoint, iter(batches()), "engine_int8", 5)).read_bytes() for _ in "12"
    ]
    assert files[0] == files[1]


@pytest.mark.slow
def test_signal_to_noise_equals_that_of_the_values(checkpoint: Path) -> None:
    model, seen, masks = reader_inputs(checkpoint)
    tensors, facts = calibrate_model(model, batches(), get_scheme("engine_int8"))
    for part, states in seen.items():
        name = f"{LAYER}.{part}.input"
        values = torch.cat([state[mask] for state, mask in zip(states, masks, strict=True)]).numpy().astype(np.float64)
        wrong = tensors[name].dequantize(tensors[name].quantize(values)) - values
        assert facts["sqnr_db"][name] == pytest.approx(10 * np.log10((values**2).sum() / (wrong**2).sum()), abs=0.1)
    name = f"{LAYER}.intermediate.dense.weight"
    weight = load_file(checkpoint / "model.safetensors")[f"bert.{name}"].astype(np.float64)
    wrong = tensors[name].dequantize(tensors[name].quantize(weight)) - weight
    assert facts["sqnr_db"][name] == pytest.approx(10 * np.log10((weight**2).sum() / (wrong**2).sum()), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("output.dense.weight", np.nan, f"'{LAYER}.output.dense.weight' holds values that are not finite"),
        ("output.dense.weight", 0, f"'{LAYER}.output.dense.weight' is zero"),
        ("intermediate.dense.bias", np.inf, f"'{LAYER}.output.dense.input' was not finite"),
        ("attention.self.value", 0, f"'{LAYER}.attention.output.dense.input' was zero"),
    ],
)
def test_broken_checkpoints_are_named(
    checkpoint: Path, tmp_path: Path, tensor: str, value: float, message: str
) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    for name in weights:
        if name.startswith(f"bert.{LAYER}.{tensor}"):
            weights[name] = np.full_like(weights[name], value)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    with pytest.raises(BackendError) as raised:
        calibrate(tmp_path, batches(), "engine_int8", 1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_pruned_output_channel_is_no_fault(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights[f"bert.{LAYER}.output.dense.weight"][5] = 0
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    write_ranges(tmp_path, calibrate(tmp_path, batches(), "engine_int8", 1))
    assert (read_ranges(tmp_path).tensors[f"{LAYER}.output.dense.weight"].scale > 0).all()


def test_no_batches_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(BackendError, match="no tokens"):
        calibrate(checkpoint, [], "engine_int8", 1)


@pytest.mark.slow
def test_the_simulation_reports_its_placement(checkpoint: Path, tmp_path: Path) -> None:
    folder = with_ranges(checkpoint, tmp_path / "model", "engine_int8_asymmetric")
    backend = get_backend("fake_quant_w8a8")
    assert (backend.simulated, backend.quantizes, backend.symmetric_only) == (True, "static", False)
    session = backend.prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")
    placement = session.placement()
    assert placement.int8_macs == 0
    assert placement.notes == (
        "12 linear layers simulate integer products in float32 with the ranges of engine_int8_asymmetric",
    )
    simulated = [name for name, operator, _ in placement.detail if operator == "FakeQuantLinear"]
    assert len(simulated) == 12
    assert f"bert.{LAYER}.output.dense" in simulated
    alone = session.run(make_batch(2, rows=1, length=9))
    assert alone.shape == (1, 9, 2)
    assert alone.dtype == np.float32
