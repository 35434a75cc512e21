"""All backends give the logits of the same model, and INT8 backends run integer products with the checkpoint's ranges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import BackendError, Settings, get_backend
from backends.base import Quantize
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch, make_checkpoint
from tests.backends.running import real_tokens, run_backend, run_real_tokens

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("question_answering"))
    add_ranges(folder)
    return folder


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"labels": 3},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu", "labels": 1},
        {"type_vocab_size": 1, "labels": 3},
        {"num_attention_heads": 1, "layer_norm_eps": 1e-5},
        {"hidden_size": 96, "num_attention_heads": 6, "intermediate_size": 100, "num_hidden_layers": 1},
    ],
)
def test_torch_and_onnx_runtime_agree_to_1e_4(tmp_path: Path, sizes: dict[str, Any]) -> None:
    folder = make_checkpoint(tmp_path / "model", **sizes)
    for batch in (make_batch(1), make_batch(2, rows=1, length=7)):
        onnx, torch = (run_backend(name, folder, batch, tmp_path) for name in ("onnxruntime_fp32", "torch_fp32"))
        assert onnx.shape == torch.shape
        assert onnx.dtype == torch.dtype == np.float32
        onnx, torch = real_tokens(onnx, batch), real_tokens(torch, batch)
        assert np.abs(onnx - torch).max() < 1e-4
        assert torch.size == 1 or torch.std() > 0.01


def test_padding_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    batch = make_batch(3)
    wide = {name: np.pad(values, ((0, 0), (0, 20))) for name, values in batch.items()}
    session = get_backend("onnxruntime_fp32").prepare(checkpoint, Settings(LENGTH + 20, 8, 1, tmp_path), "cpu")
    assert np.abs(real_tokens(session.run(wide)[:, :LENGTH] - session.run(batch), batch)).max() < 1e-5


def test_the_simulation_is_the_engine(checkpoint: Path, tmp_path: Path) -> None:
    """Static INT8 in ONNX Runtime and the simulation with the same ranges differ by float32 rounding only. Quantization changes the
    logits a hundred times as much."""
    batch = make_batch(4)
    engine, simulated, exact = (
        run_real_tokens(name, checkpoint, batch, tmp_path)
        for name in ("onnxruntime_int8", "fake_quant_w8a8", "torch_fp32")
    )
    moved = np.abs(simulated - exact).max()
    assert moved > 1e-3
    assert np.abs(engine - simulated).max() < moved / 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fake_quant_w8a8", "onnxruntime_int8"])
def test_shuffled_ranges_break_it(checkpoint: Path, tmp_path: Path, name: str) -> None:
    """The test above can fail: it does when layers have each other's input ranges."""
    folder = make_checkpoint(tmp_path / "model")
    content = json.loads((checkpoint / "ranges.json").read_text())
    tensors = content["tensors"]
    swapped = {"intermediate.dense": "output.dense", "output.dense": "intermediate.dense"}
    swapped |= {f"attention.self.{part}": "attention.output.dense" for part in ("query", "key", "value")}
    swapped["attention.output.dense"] = "attention.self.query"
    scales = {name: tensor["scale"] for name, tensor in tensors.items()}
    for layer in (0, 1):
        for target, source in swapped.items():
            tensors[f"encoder.layer.{layer}.{target}.input"]["scale"] = scales[f"encoder.layer.{layer}.{source}.input"]
    (folder / "ranges.json").write_text(json.dumps(content))
    batch = make_batch(4)
    exact = run_real_tokens("torch_fp32", checkpoint, batch, tmp_path)
    right = np.abs(run_real_tokens(name, checkpoint, batch, tmp_path) - exact).max()
    wrong = np.abs(run_real_tokens(name, folder, batch, tmp_path) - exact).max()
    assert wrong > 5 * right


def test_dynamic_int8_stays_near_float(checkpoint: Path, tmp_path: Path) -> None:
    batch = make_batch(5)
    exact = run_real_tokens("torch_fp32", checkpoint, batch, tmp_path)
    moved = np.abs(run_real_tokens("onnxruntime_int8_dynamic", checkpoint, batch, tmp_path) - exact)
    assert 1e-5 < moved.max() < 0.5 * exact.std()


@pytest.mark.parametrize("name", ["onnxruntime_int8", "onnxruntime_int8_dynamic"])
def test_every_linear_layer_of_the_encoder_is_an_integer_product(checkpoint: Path, tmp_path: Path, name: str) -> None:
    """Counted by hand: 2 layers x 48 tokens x (4 x 64 x 64 + 2 x 64 x 128)."""
    session = get_backend(name).prepare(checkpoint, Settings(LENGTH, 8, 1, tmp_path), "cpu")
    placement = session.placement()
    linear = 2 * LENGTH * (4 * 64 * 64 + 2 * 64 * 128)
    attention = 2 * 2 * LENGTH * LENGTH * 64
    assert placement.int8_macs == linear
    assert placement.total_macs == linear + attention + LENGTH * 64 * 2
    assert placement.promised_macs == linear
    assert set(placement.nodes) == {"CPUExecutionProvider"}


def test_an_engine_that_runs_the_int8_graph_in_float_does_not_keep_its_promise(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its optimizations ONNX Runtime dequantizes and multiplies floats: right answers, no integer products."""
    import onnxruntime

    level = onnxruntime.GraphOptimizationLevel
    monkeypatch.setattr(level, "ORT_ENABLE_ALL", level.ORT_DISABLE_ALL)
    placement = get_backend("onnxruntime_int8").prepare(checkpoint, Settings(LENGTH, 8, 1, tmp_path), "cpu").placement()
    assert (placement.int8_macs, placement.promised_macs) == (0, 2 * LENGTH * (4 * 64 * 64 + 2 * 64 * 128))


@pytest.mark.parametrize("quantize", ["s8", "u8", "dynamic", "none"])
def test_what_a_graph_promises(checkpoint: Path, tmp_path: Path, quantize: Quantize) -> None:
    """TensorRT's graph promises what ONNX Runtime's does, of which the engine makes integer products (above)."""
    from backends.export import export_onnx, product_macs, promised_macs

    architecture = export_onnx(checkpoint, tmp_path / "model.onnx", quantize=quantize).architecture
    macs = promised_macs(tmp_path / "model.onnx", product_macs(architecture, LENGTH))
    assert macs == (0 if quantize == "none" else 2 * LENGTH * (4 * 64 * 64 + 2 * 64 * 128))


def test_one_quantized_layer_by_hand(checkpoint: Path, tmp_path: Path) -> None:
    """The first query projection of the Q/DQ graph against NumPy's integers."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from backends.export import export_onnx

    path = tmp_path / "model.onnx"
    export_onnx(checkpoint, path, quantize="u8")
    model = onnx.load(path)
    name = "encoder.layer.0.attention.self.query"
    for output in (f"{name}.product:out", "embeddings.LayerNorm:out"):
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the backend does without VNNI
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    _, product, states = session.run(None, dict(make_batch(6)))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scale, codes, weight_scale = (stored[f"{name}.{part}"] for part in ("input.scale", "weight.codes", "weight.scale"))
    assert codes.dtype == np.int8
    assert stored[f"{name}.input.zero_point"] == 128
    q = np.clip(np.rint(states / scale), -128, 127).astype(np.int64)
    expected = (q @ codes.astype(np.int64)) * (scale.astype(np.float64) * weight_scale)
    assert np.abs(product - expected).max() < 1e-4 * np.abs(expected).max()


def asymmetric(tmp_path: Path) -> Path:
    folder = make_checkpoint(tmp_path / "asymmetric")
    add_ranges(folder, "engine_int8_asymmetric")
    return folder


def test_asymmetric_ranges_run_in_onnx_runtime_and_are_refused_for_tensorrt(tmp_path: Path) -> None:
    from backends.export import export_onnx

    folder, batch = asymmetric(tmp_path), make_batch(7)
    engine, simulated = (
        run_real_tokens(name, folder, batch, tmp_path) for name in ("onnxruntime_int8", "fake_quant_w8a8")
    )
    assert np.abs(engine - simulated).max() < 1e-4
    with pytest.raises(BackendError, match="symmetric"):
        export_onnx(folder, tmp_path / "model.onnx", precision="fp16", quantize="s8")


def test_static_int8_without_ranges_says_what_to_do(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    for name in ("onnxruntime_int8", "fake_quant_w8a8"):
        with pytest.raises(BackendError, match=r"ranges\.json"):
            get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "model_type is 't5', which is no encoder of this transformers; name a model of a known"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"num_attention_heads": 5}, "5"),
        ({"hidden_size": 128}, "64"),
    ],
)
def test_an_unsupported_architecture_is_an_error_of_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    from backends.export import export_onnx

    folder = make_checkpoint(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BackendError, match=message) as raised:
        export_onnx(folder, tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*.onnx*"))


def test_an_onnx_runtime_process_imports_no_torch(checkpoint: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from backends import Settings, get_backend\n"
        f"get_backend('onnxruntime_int8').prepare(Path({str(checkpoint)!r}), Settings(48, 8, 1, Path({str(tmp_path)!r})), 'cpu')\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def nodes(path: Path) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Each node of a graph, with the graph's nodes by output and its initializers by name."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    producers = {output: node for node in model.graph.node for output in node.output}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        yield node, producers, stored


def test_the_graph_for_tensorrt_obeys_its_rules(checkpoint: Path, tmp_path: Path) -> None:
    """TensorRT's documented rules for explicit quantization: zero points 0, int8 codes, scales of the tensor's type, weights
    per output channel and activations per tensor, a product that reads two DQs; float16 products, float32 where float16 is too narrow."""
    import onnx

    from backends.export import export_onnx

    path = tmp_path / "model.onnx"
    export_onnx(checkpoint, path, precision="fp16", quantize="s8")
    onnx.checker.check_model(str(path), full_check=True)
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph.value_info
    }
    products = 0
    for node, producers, stored in nodes(path):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = stored[node.input[1]], stored[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert scale.dtype == np.float16
            assert (scale > 0).all()
            assert (scale.ndim == 1) == ("weight" in node.name)
        if node.op_type == "MatMul" and node.name.startswith("encoder.") and node.name.endswith(".product"):
            assert [producers[name].op_type for name in node.input] == ["DequantizeLinear", "DequantizeLinear"]
            products += 1
        if node.op_type == "MatMul":
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT16
        if node.op_type in ("Softmax", "LayerNormalization", "Erf"):
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT
    assert products == 12


@pytest.mark.parametrize(("quantize", "reference"), [("none", "torch_fp32"), ("s8", "fake_quant_w8a8")])
def test_the_graphs_for_tensorrt_run_in_onnx_runtime(
    checkpoint: Path, tmp_path: Path, quantize: Any, reference: str
) -> None:
    """The graphs differ from the float32 backend `reference` only by float16 tensors and scales."""
    import onnxruntime

    from backends.export import export_onnx

    path, batch = tmp_path / "model.onnx", make_batch(8)
    export_onnx(checkpoint, path, precision="fp16", quantize=quantize)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], dict(batch))
    expected = run_real_tokens(reference, checkpoint, batch, tmp_path)
    assert logits.dtype == np.float32
    assert np.abs(real_tokens(logits, batch) - expected).max() < 0.05 * expected.std()


def test_tensorrt_is_unavailable_with_a_remedy() -> None:
    for name in ("tensorrt_fp16", "tensorrt_int8", "tensorrt_rtx_fp16", "tensorrt_rtx_int8"):
        availability = get_backend(name).availability({"gpus": []})
        assert not availability.available
        assert availability.reason == "no NVIDIA GPU found"
        assert availability.remedy


def test_products_of_an_engine_are_int8_if_their_layer_reads_int8() -> None:
    """With JSON as in the documentation of the engine inspector; no engine has produced this."""
    from backends.tensor_rt import placement_of

    layers = [
        {"Name": "encoder.layer.0.output.dense.product", "Inputs": [{"Format/Datatype": "Row major Int8 format"}]},
        {"Name": "fused", "Metadata": "[ONNX Layer: encoder.layer.1.output.dense.product]", "Inputs": [{"Format/Datatype": "Half"}]},
        {"Name": "encoder.layer.10.output.dense.product", "Inputs": [{"Format/Datatype": "Int8"}]},
    ]  # fmt: skip
    macs = {f"encoder.layer.{index}.output.dense.product": 10**index for index in (0, 1, 10)}
    placement = placement_of({"Layers": layers}, macs)
    assert placement.int8_macs == 1 + 10**10
    assert placement.total_macs == 11 + 10**10
    assert placement.nodes == {"INT8": 2, "FP16/FP32": 1}


def test_a_product_is_counted_once_and_by_its_whole_name() -> None:
    """A reformatting layer names the node that it feeds, each profile repeats the layers, and names contain each other."""
    from backends.tensor_rt import placement_of

    int8 = [{"Format/Datatype": "Int8"}]
    layers = [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to a.product", "LayerType": "Reformat", "Inputs": int8, "Metadata": "[ONNX Layer: a.product]"},
        {"Name": "a.product + a.bias", "LayerType": "CaskGemm", "Inputs": int8},
        {"Name": "a.product + a.bias [profile 1]", "LayerType": "CaskGemm", "Metadata": "[ONNX Layer: a.product]\x1e[ONNX Layer: a.bias]", "Inputs": int8},
        {"Name": "b.context", "LayerType": "Gemm", "Inputs": [{"Format/Datatype": "Half"}]},
        {"Name": "b.context.transpose", "LayerType": "Shuffle", "Inputs": int8},
    ]  # fmt: skip
    placement = placement_of({"Layers": layers}, {"a.product": 100, "b.context": 400})
    assert (placement.int8_macs, placement.total_macs) == (100, 500)
