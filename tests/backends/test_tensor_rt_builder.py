"""NVIDIA's own parser and builder compile every graph that a TensorRT backend would be given. Needs no GPU: `nox -s rtx`.

TensorRT for RTX and TensorRT have one parser and one API; only the kernels differ. Running an engine takes a GPU.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from backends import BackendError, get_backend
from backends.base import Quantize
from backends.checkpoint import read_architecture
from backends.export import export_onnx
from backends.families import family_names
from backends.tensor_rt_build import COMPUTE_CAPABILITIES, build
from tests.backends.checkpoints import LENGTH, MINILM, add_ranges, make_checkpoint
from tests.backends.family_checkpoints import make_family_checkpoint

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed; nox -s rtx installs and runs it"
)
BATCH = 8
SCHEMES = (
    "engine_int8",
    "q8bert",
    'engine_int8 with keep_float = ["encoder.layer.0.*"]',
    'q8bert with activations.estimator = "min_max"; weights.granularity = "per_channel"',
)


def compiled(folder: Path, target: Path, quantize: Quantize, *capabilities: str) -> int:
    """Bytes of the engine of a checkpoint folder, for two profiles of any batch and length."""
    export_onnx(folder, target, precision="fp16", quantize=quantize)
    return len(build(target, BATCH, LENGTH, "tensorrt_rtx", capabilities or ("8.9",)))


@pytest.mark.parametrize("labels", [None, 3])
@pytest.mark.parametrize("family", [name for name in family_names() if name not in ("camembert", "xlm-roberta")])
def test_every_family_compiles_in_both_precisions(family: str, labels: int | None, tmp_path: Path) -> None:
    """CamemBERT and XLM-RoBERTa differ from RoBERTa in names only, which the graph does not have."""
    folder = make_family_checkpoint(tmp_path / "model", family, labels)
    add_ranges(folder)
    for quantize in ("none", "s8"):
        assert compiled(folder, tmp_path / "model.onnx", quantize) > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_symmetric_scheme_compiles(scheme: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", labels=2)
    add_ranges(folder, scheme)
    assert compiled(folder, tmp_path / "model.onnx", "s8") > 0


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "silu", "quick_gelu"])
def test_every_activation_compiles(activation: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", hidden_act=activation)
    add_ranges(folder)
    assert compiled(folder, tmp_path / "model.onnx", "s8") > 0


@pytest.mark.parametrize("capability", COMPUTE_CAPABILITIES)
def test_every_kind_of_gpu_is_compiled_for(capability: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    add_ranges(folder)
    assert compiled(folder, tmp_path / "model.onnx", "s8", capability) > 0


def test_integer_weights_of_minilm_are_stored_as_integers(tmp_path: Path) -> None:
    """At the shape 384 x 32: the INT8 engine saves most of a byte for each weight of the encoder's products; its kernels need some
    of that."""
    folder = make_checkpoint(tmp_path / "model", **MINILM)
    add_ranges(folder, 'engine_int8 with activations.estimator = "min_max"')
    sizes = {}
    for quantize in ("none", "s8"):
        export_onnx(folder, tmp_path / "model.onnx", precision="fp16", quantize=quantize)
        sizes[quantize] = len(build(tmp_path / "model.onnx", 32, 384, "tensorrt_rtx", ("8.9",)))
    weights = read_architecture(folder).layers * (4 * 384 * 384 + 2 * 384 * 1536)
    assert 0.7 * weights < sizes["none"] - sizes["s8"] < 1.05 * weights


def shifted(path: Path, name: str) -> None:
    """Give the quantizer of that name a zero point of 3."""
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.name == name)
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    onnx.save(model, path)


def test_a_graph_with_a_wrong_quantizer_is_refused(tmp_path: Path) -> None:
    folder, path = make_checkpoint(tmp_path / "model"), tmp_path / "model.onnx"
    add_ranges(folder)
    assert compiled(folder, path, "s8") > 0
    node = "encoder.layer.1.intermediate.dense.input.quantize"
    shifted(path, node)
    with pytest.raises(BackendError, match=rf"rejects node \d+ \({node}\).*zero point"):
        build(path, BATCH, LENGTH, "tensorrt_rtx", ("8.9",))


def test_the_unsigned_graph_for_x86_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    add_ranges(folder)
    with pytest.raises(BackendError, match="rejects node"):
        compiled(folder, tmp_path / "model.onnx", "u8")


def test_an_engine_without_a_gpu_needs_to_know_its_kind(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    export_onnx(folder, tmp_path / "model.onnx", precision="fp16")
    with pytest.raises(BackendError, match=r"compute capability 9\.0: engines are compiled ahead of time"):
        build(tmp_path / "model.onnx", BATCH, LENGTH, "tensorrt_rtx", ("9.0",))


def test_export_writes_an_engine(tmp_path: Path) -> None:
    """By the function of `quantboard export --format tensorrt-rtx`, of a checkpoint without a record."""
    import json

    from harness.checkpoints.export import export

    folder = make_checkpoint(tmp_path / "model")
    add_ranges(folder)
    (folder / "origin.json").write_text("{}")
    files = export(folder, None, "model", "tensorrt-rtx", tmp_path / "out")
    assert {"engine.json", "model.engine", "model.onnx", "ranges.json"} <= {file.name for file in files}
    facts = json.loads((tmp_path / "out" / "engine.json").read_text())
    assert (facts["max_batch"], facts["max_length"]) == (32, 128)
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(BackendError, match="float16 cannot hold all operators' outputs"):
        add_ranges(folder, "aimet_w8a8")
        export(folder, None, "model", "tensorrt-rtx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_unavailable_where_it_cannot_run() -> None:
    for name in ("tensorrt_rtx_fp16", "tensorrt_rtx_int8"):
        backend = get_backend(name)
        assert backend.availability({"gpus": []}).reason == "no NVIDIA GPU found"
        assert backend.availability({"gpus": [{"compute_capability": "8.9"}]}).available
        hopper = backend.availability({"gpus": [{"compute_capability": "9.0"}]})
        assert hopper.reason == "TensorRT for RTX does not compile for a GPU of compute capability 9.0"
        assert "tensorrt_*" in hopper.remedy
