"""Whole models with the published schemes: the simulation against a BERT in NumPy, ONNX Runtime, and a model in training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends import BackendError, Settings, get_backend
from backends.checkpoint import read_architecture
from backends.fake_quant.calibrate import calibrate, calibrate_model, noise_of
from backends.fake_quant.estimators import find_grid
from backends.fake_quant.simulate import install, names_of, parameter_of, simulate
from backends.fake_quant.training import Learned, trained_quantizer
from backends.ranges import Ranges, read_ranges, write_ranges
from backends.schemes import Quantizer, Scheme, get_scheme, scheme_names
from backends.tensor_names import coverage, source, tensor_names
from backends.torch_models import load_model
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch, make_checkpoint
from tests.backends.rounded_bert import RoundedBert
from tests.backends.running import real_tokens, run_real_tokens, run_unfused

Array = np.ndarray[Any, Any]
PUBLISHED = ("q8bert", "aimet_w8a8", "vitis_pof2")
NEAR = 0.05
"""Mean difference that two implementations may have, as a share of the mean change that quantization makes to the logits. Float32
puts some values on the other side of a tie, and a scheme that rounds every operator passes such a step on."""


def batches() -> list[dict[str, Array]]:
    return [make_batch(seed) for seed in range(100, 104)]


def calibrated(folder: Path, scheme: str, labels: int | None = None) -> Path:
    made = make_checkpoint(folder, labels=labels)
    add_ranges(made, scheme)
    return made


def logits(name: str, folder: Path, batch: dict[str, Array]) -> Array:
    """Of the real tokens."""
    return run_real_tokens(name, folder, batch, folder / "cache")


def unfused(folder: Path, batch: dict[str, Array], quantize: str) -> Array:
    return run_unfused(folder, batch, folder / "model.onnx", quantize=quantize)


def shuffle(folder: Path, ending: str) -> None:
    """Give each tensor of one kind the scale of the next; the file stays valid."""
    value = json.loads((folder / "ranges.json").read_text())
    tensors = value["tensors"]
    names = [name for name in tensors if name.endswith(ending) and source(name) == name]
    scales = [(tensors[name]["scale"], tensors[name]["zero_point"]) for name in names]
    for name, (scale, zero) in zip(names, scales[1:] + scales[:1], strict=True):
        for same in (name, *(reader for reader in tensors if source(reader) == name)):
            tensors[same].update(scale=scale, zero_point=zero)
    (folder / "ranges.json").write_text(json.dumps(value))


@pytest.mark.slow
@pytest.mark.parametrize("labels", [None, 3])
@pytest.mark.parametrize("scheme", PUBLISHED)
def test_the_simulation_is_the_scheme(tmp_path: Path, scheme: str, labels: int | None) -> None:
    folder = calibrated(tmp_path, scheme, labels)
    batch = make_batch(1)
    expected = real_tokens(RoundedBert(folder).logits(batch), batch)
    simulated = logits("fake_quant_w8a8", folder, batch)
    moved = np.abs(simulated - logits("torch_fp32", folder, batch)).mean()
    assert 1e-3 < moved < 0.3 * expected.std()
    assert np.abs(simulated - expected).mean() < NEAR * moved
    shuffle(folder, ".output" if scheme != "q8bert" else ".input")
    assert np.abs(logits("fake_quant_w8a8", folder, batch) - expected).mean() > 10 * NEAR * moved


@pytest.mark.parametrize("labels", [None, 3])
def test_onnx_runtime_is_the_simulation_of_q8bert(tmp_path: Path, labels: int | None) -> None:
    """Linear layers, heads, tables and int32 biases; the same bound as between the simulation and NumPy."""
    folder = calibrated(tmp_path, "q8bert", labels)
    batch = make_batch(2)
    simulated = logits("fake_quant_w8a8", folder, batch)
    moved = np.abs(simulated - logits("torch_fp32", folder, batch)).mean()
    engine = logits("onnxruntime_int8", folder, batch)
    assert np.abs(engine - simulated).mean() < NEAR * moved
    shuffle(folder, ".input")
    assert np.abs(logits("onnxruntime_int8", folder, batch) - simulated).mean() > 10 * NEAR * moved


def test_every_linear_layer_is_an_integer_product_and_tables_and_biases_are_integers(tmp_path: Path) -> None:
    """Counted by hand: the encoder's 2 x 48 x (4 x 64 x 64 + 2 x 64 x 128), the pooler's and the classifier's one token."""
    import onnx
    from onnx import numpy_helper

    from backends.export import export_onnx

    folder = calibrated(tmp_path, "q8bert", 3)
    session = get_backend("onnxruntime_int8").prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")
    placement = session.placement()
    assert placement.int8_macs == 2 * LENGTH * (4 * 64 * 64 + 2 * 64 * 128) + 64 * 64 + 64 * 3
    assert placement.promised_macs == placement.int8_macs
    for quantize in ("u8", "s8"):
        export_onnx(folder, tmp_path / "model.onnx", quantize=quantize)
        model = onnx.load(tmp_path / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        tables = [name for name in stored if "embeddings.weight.codes" in name]
        assert {stored[name].dtype.name for name in tables} == {"int8"}
        assert len(tables) == 3
        biases = {name: value for name, value in stored.items() if ".bias" in name and "LayerNorm" not in name}
        assert {value.dtype.name for name, value in biases.items() if name.endswith(".codes")} == (
            {"int32"} if quantize == "u8" else set()
        )
        readers = {name for node in model.graph.node for name in node.input if node.op_type == "DequantizeLinear"}
        if quantize == "s8":  # TensorRT dequantizes 8-bit constants and what a Q put out, nothing else
            made = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
            assert all(name in made or name in stored for name in readers)
            assert not {name for name in readers if ".bias" in name}


def test_the_int8_graph_for_tensorrt_is_the_simulation_of_q8bert(tmp_path: Path) -> None:
    import onnxruntime

    from backends.export import export_onnx

    folder = calibrated(tmp_path, "q8bert")
    batch = make_batch(3)
    export_onnx(folder, tmp_path / "model.onnx", precision="fp16", quantize="s8")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (engine,) = session.run(["logits"], dict(batch))
    simulated = logits("fake_quant_w8a8", folder, batch)
    difference = real_tokens(engine, batch) - simulated
    rounding = simulated - logits("torch_fp32", folder, batch)
    assert np.abs(difference).max() < 0.1 * simulated.std()
    assert (difference**2).mean() < 0.6 * (rounding**2).mean()  # FP16 puts some values on another code of the INT8 grid


@pytest.mark.parametrize("labels", [None, 3])
def test_the_graph_of_aimets_scheme_is_its_simulation(tmp_path: Path, labels: int | None) -> None:
    """Every operator's output on its grid, the mask of -6, tables, heads."""
    folder = calibrated(tmp_path, "aimet_w8a8", labels)
    batch = make_batch(2)
    simulated = logits("fake_quant_w8a8", folder, batch)
    moved = np.abs(simulated - logits("torch_fp32", folder, batch)).mean()
    assert np.abs(unfused(folder, batch, quantize="u8") - simulated).mean() < NEAR * moved
    engine = logits("onnxruntime_int8", folder, batch)
    assert np.abs(engine - simulated).mean() < 0.5 * moved  # its integer softmax is not the graph's
    shuffle(folder, ".output")
    assert np.abs(unfused(folder, batch, quantize="u8") - simulated).mean() > 10 * NEAR * moved


@pytest.mark.slow
def test_aimets_graph_has_exactly_the_ranges(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    from backends.export import export_onnx

    folder = calibrated(tmp_path, "aimet_w8a8", 3)
    export_onnx(folder, tmp_path / "model.onnx", quantize="u8")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rounded = {
        node.name.removesuffix(".quantize"): node for node in model.graph.node if node.op_type == "QuantizeLinear"
    }
    made = {name: node for node in model.graph.node for name in node.output}
    ranges = read_ranges(folder)
    assert set(rounded) == {name for name in ranges.tensors if name.endswith(".output")}
    for name, node in rounded.items():
        scale, zero = (stored[name] for name in node.input[1:])
        assert (scale, int(zero) - 128) == (ranges.tensors[name].scale[0], ranges.tensors[name].zero_point[0])
        assert made[node.input[0]].op_type not in ("QuantizeLinear", "DequantizeLinear")
    for name, tensor in ranges.tensors.items():
        if name.endswith(".weight"):
            assert np.array_equal(stored[f"{name}.scale"].ravel(), tensor.scale)
            assert stored[f"{name}.codes"].dtype == np.int8
    assert stored["mask.masked"] == -6
    placement = get_backend("onnxruntime_int8").prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu").placement()
    # The products of attention as well; not the pooler's, which reads the output of a Gather.
    assert placement.total_macs is not None
    assert placement.int8_macs == placement.promised_macs == placement.total_macs - 64 * 64
    with pytest.raises(BackendError, match="float16 cannot hold all operators' outputs"):
        export_onnx(folder, tmp_path / "half.onnx", precision="fp16", quantize="u8")
    with pytest.raises(BackendError, match="asymmetric"):
        export_onnx(folder, tmp_path / "tensorrt.onnx", quantize="s8")


@pytest.mark.slow
def test_biases_with_a_range_of_their_own_are_integers(tmp_path: Path) -> None:
    """With Vitis's scheme, but not its rounding of ties, which no engine has. TensorRT gets the values of the integers."""
    vitis = get_scheme("vitis_pof2")
    scheme = replace(vitis, activations=replace(vitis.activations, rounding="half_even"))
    folder = make_checkpoint(tmp_path)
    tensors, facts = calibrate_model(load_model(folder, read_architecture(folder)), batches(), scheme)
    write_ranges(folder, Ranges(scheme, tensors, facts))
    batch = make_batch(2)
    simulated = logits("fake_quant_w8a8", folder, batch)
    moved = np.abs(simulated - logits("torch_fp32", folder, batch)).mean()
    for quantize in ("u8", "s8"):
        assert np.abs(unfused(folder, batch, quantize=quantize) - simulated).mean() < NEAR * moved


@pytest.mark.slow
def test_a_scheme_for_simulation_only_is_not_exported(tmp_path: Path) -> None:
    folder = calibrated(tmp_path, "vitis_pof2")
    with pytest.raises(BackendError, match="'vitis_pof2', which can only be simulated") as raised:
        get_backend("onnxruntime_int8").prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_padding_leaks_through_a_mask_of_minus_six(tmp_path: Path) -> None:
    """The logits depend on the padding, so a scheme with such a mask pads to one length. Those of other schemes do not."""
    batch = make_batch(4)
    wide = {name: np.pad(values, ((0, 0), (0, 16))) for name, values in batch.items()}
    changes = {}
    for scheme in ("aimet_w8a8", "q8bert"):
        folder = calibrated(tmp_path / scheme, scheme)
        session = get_backend("fake_quant_w8a8").prepare(folder, Settings(LENGTH + 16, 8, 1, tmp_path), "cpu")
        narrow = session.run(batch)
        changes[scheme] = float(
            np.abs(real_tokens(session.run(wide)[:, :LENGTH] - narrow, batch)).mean() / narrow.std()
        )
    assert changes["aimet_w8a8"] > 1e-2 > 20 * changes["q8bert"]
    assert get_scheme("aimet_w8a8").padding == "max_length"


@pytest.mark.slow
@pytest.mark.parametrize("labels", [None, 3])
@pytest.mark.parametrize("scheme", scheme_names())
def test_a_folded_checkpoint_computes_what_training_did(tmp_path: Path, scheme: str, labels: int | None) -> None:
    """Install quantizers, move ranges and weights by steps of an optimizer, remove the quantizers: the plain checkpoint with its
    ranges gives the logits of the model in training, and gradients reach the weights of every layer."""
    folder = make_checkpoint(tmp_path, labels=labels)
    chosen = get_scheme(scheme)
    model: Any = load_model(folder, read_architecture(folder))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, _ = calibrate_model(model, batches(), chosen)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    quantizers = {
        name: trained_quantizer(first[name], parameter_of(model, name))
        for name in names_of(model, chosen)
        if source(name) == name
    }
    for quantizer in quantizers.values():
        if isinstance(quantizer, Learned):  # small steps would not reach the next power of two
            quantizer.amount.data.fill_(0.0021)
    take_out = install(model, chosen, quantizers)
    batch = make_batch(5)
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(2):
        model.train()
        outputs = model(**tensors)
        loss = (outputs.logits if labels else outputs.start_logits + outputs.end_logits).square().sum()
        optimizer.zero_grad()
        loss.backward()
        used = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
        learned = {name for name, _ in model.named_parameters() if name.endswith(".amount")}
        # Values that are on their grid already (halved scores on a grid of powers of two) give their range no gradient; weights
        # never are.
        assert {name for name in learned - used if "quantize_weight" in name} == set()
        assert {f"bert.encoder.layer.{layer}.intermediate.dense.weight" for layer in (0, 1)} <= used
        optimizer.step()
    model.eval()
    with torch.no_grad():
        outputs = model(**tensors)
        trained = outputs.logits if labels else torch.stack((outputs.start_logits, outputs.end_logits), -1)
    ranges = {name: quantizer.tensor_range() for name, quantizer in quantizers.items()}
    take_out()
    assert model.state_dict().keys() == before.keys()
    assert not torch.equal(
        model.state_dict()["bert.encoder.layer.0.output.dense.weight"],
        before["bert.encoder.layer.0.output.dense.weight"],
    )
    model.save_pretrained(tmp_path / "folded")
    write_ranges(tmp_path / "folded", Ranges(chosen, {name: ranges[source(name)] for name in names_of(model, chosen)}))
    assert any(not np.array_equal(tensor.scale, first[name].scale) for name, tensor in ranges.items())
    folded = logits("fake_quant_w8a8", tmp_path / "folded", batch)
    assert np.abs(folded - real_tokens(trained.numpy(), batch)).max() < 1e-5 * folded.std()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", "aimet_w8a8"])
def test_calibration_leaves_the_model_unchanged(tmp_path: Path, scheme: str) -> None:
    folder = make_checkpoint(tmp_path)
    model: Any = load_model(folder, read_architecture(folder))
    modules = {name: type(module) for name, module in model.named_modules()}
    attention, batch = model.config._attn_implementation, make_batch(6)
    with torch.no_grad():
        before = model(**{name: torch.from_numpy(values) for name, values in batch.items()}).start_logits
        tensors, facts = calibrate_model(model, batches(), get_scheme(scheme))
        after = model(**{name: torch.from_numpy(values) for name, values in batch.items()}).start_logits
    assert torch.equal(before, after)
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert model.config._attn_implementation == attention
    again, seen = noise_of(model, batches(), Ranges(get_scheme(scheme), tensors))
    assert again == facts["sqnr_db"]
    assert seen == {name: facts[name] for name in ("samples", "batches", "tokens")}


def test_a_simulation_stays_on_its_models_device(tmp_path: Path) -> None:
    """With `meta` instead of a GPU."""
    folder = calibrated(tmp_path, "q8bert")
    model = load_model(folder, read_architecture(folder)).to("meta")
    simulate(model, read_ranges(folder))
    assert {tensor.device.type for tensor in (*model.buffers(), *model.parameters())} == {"meta"}


def test_ema_and_mode_look_at_each_batch(tmp_path: Path) -> None:
    """Compared with what hooks of this test see at the feed-forward layer's input."""
    folder = make_checkpoint(tmp_path)
    model: Any = load_model(folder, read_architecture(folder))
    seen: list[Array] = []
    handle = model.bert.encoder.layer[1].output.dense.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach().numpy())
    )
    with torch.no_grad():
        for batch in batches():
            model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    handle.remove()
    real = [values[batch["attention_mask"].astype(bool)] for values, batch in zip(seen, batches(), strict=True)]
    name = "encoder.layer.1.output.dense.input"

    ema = Scheme("x", Quantizer(), Quantizer(estimator="ema", ema_decay=0.5), tensors="linears")
    threshold = np.abs(real[0]).max()
    for values in real[1:]:
        threshold = (threshold + np.abs(values).max()) / 2
    assert calibrate_model(model, batches(), ema)[0][name].scale[0] * 127 == pytest.approx(threshold, rel=1e-6)

    chosen = Quantizer(power_of_two=True, bits=4, estimator="mode")
    mode = Scheme("x", Quantizer(), chosen, tensors="linears")
    by_batch = [
        find_grid(values.reshape(1, -1), np.ones(values.size), Quantizer(power_of_two=True, bits=4, estimator="mse"))[
            0
        ][0]
        for values in real
    ]
    scale = calibrate_model(model, batches(), mode)[0][name].scale[0]
    assert by_batch.count(scale) == max(by_batch.count(candidate) for candidate in by_batch)


def test_all_tokens_count_in_schemes_that_compute_padding(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    mask = calibrate(folder, batches(), "aimet_w8a8", 1).tensors["encoder.layer.0.attention.mask.output"]
    low = -(mask.zero_point[0] + 128) * mask.scale[0]
    assert low < -6  # its range holds the scores of padding


@pytest.mark.slow
def test_a_bias_of_zeros_has_a_range(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    model: Any = load_model(folder, read_architecture(folder))
    with torch.no_grad():
        model.qa_outputs.bias.zero_()
    tensors, _ = calibrate_model(model, batches(), get_scheme("vitis_pof2"))
    assert tensors["qa_outputs.bias"].scale[0] == tensors["qa_outputs.weight"].scale[0]


def test_the_share_of_tensors_by_hand(tmp_path: Path) -> None:
    """One layer with a classifier: 3 tables, 8 weights, 8 biases, 3 LayerNorms' gains and biases; 3 operators of the embeddings,
    3 projections, 5 of attention, 3 after it, 2 and 3 of the feed-forward part, 3 of the head."""
    tensors = 3 + 8 + 8 + 6 + (3 + 3 + 5 + 3 + 2 + 3 + 3)
    by_scheme = {
        "engine_int8": 6 + 4,
        "q8bert": 3 + 8 + 8 + (4 + 2),
        "aimet_w8a8": 3 + 8 + 22,
        "vitis_pof2": 3 + 8 + 8 + 21,
    }
    architecture = read_architecture(make_checkpoint(tmp_path, labels=2, num_hidden_layers=1))
    for name, quantized in by_scheme.items():
        assert coverage(architecture, get_scheme(name)) == (quantized, tensors)
    names = tensor_names(architecture, get_scheme("aimet_w8a8"))
    assert len(names) == len(set(names)) == 33
    assert "encoder.layer.0.attention.mask.output" in names
    assert "encoder.layer.0.attention.mask.output" not in tensor_names(architecture, get_scheme("vitis_pof2"))
