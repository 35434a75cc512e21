"""ONNX files that were made elsewhere: by PyTorch's own exporter and by ONNX Runtime's quantizer, run as they are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForQuestionAnswering

from backends import BackendError, Settings, get_backend
from backends.base import INPUTS
from harness.checkpoints.make import ensure
from harness.plan.sources import look_up
from harness.plan.spec import CheckpointSpec
from tests.backends.checkpoints import make_batch
from tests.plan.test_plan import Make, find_cell, make
from tests.run.small import cache, fails, loads, own_cache, trained

__all__ = ["cache", "make", "own_cache", "trained"]  # fixtures


class Plain(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Any:
        answer = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        return answer.start_logits, answer.end_logits


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in optimum's layout: model.onnx beside the configuration and the tokenizer."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(trained / name, folder / name)
    model: Any = AutoModelForQuestionAnswering.from_pretrained(trained, attn_implementation="eager").eval()
    names = ["start_logits", "end_logits"]
    example = tuple(torch.ones((2, 9), dtype=torch.int64) for _ in range(3))
    torch.onnx.export(
        Plain(model), example, str(folder / "model.onnx"), input_names=list(INPUTS), output_names=names, dynamo=False,
        dynamic_axes={name: {0: "batch", 1: "length"} for name in (*INPUTS, *names)}, opset_version=17,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def quantized(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("quantized") / "model"))
    quantize_dynamic(exported / "model.onnx", folder / "model_quantized.onnx", weight_type=QuantType.QInt8)
    (folder / "model.onnx").unlink()
    return folder


def spec_of(folder: Path) -> CheckpointSpec:
    source = look_up(f"onnx:{folder}", Path(), hub=False)
    assert source.blocked is None
    return replace(loads(source.source), identity=source.identity)


def run(checkpoint: Path, folder: Path) -> tuple[np.ndarray[Any, Any], Any]:
    settings = Settings(max_length=40, max_batch=4, threads=1, cache=folder)
    session = get_backend("onnxruntime_file").prepare(checkpoint, settings, "cpu")
    try:
        return session.run(batch()), session.placement()
    finally:
        session.close()


def batch() -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ascontiguousarray(values[:, :40]) for name, values in make_batch(3).items()}


def test_a_file_of_pytorchs_exporter_answers_as_transformers_does(
    exported: Path, trained: Path, tmp_path: Path
) -> None:
    checkpoint = ensure(spec_of(exported), tmp_path / "cache")
    assert (checkpoint / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()
    model: Any = AutoModelForQuestionAnswering.from_pretrained(trained).eval()
    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(values) for name, values in batch().items()})
    expected = np.stack([answer.start_logits.numpy(), answer.end_logits.numpy()], -1)
    logits, placement = run(checkpoint, tmp_path)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (logits.dtype, placement.int8_macs, placement.claimed) == (np.float32, 0, "CPUExecutionProvider")


def test_a_quantized_file_is_run_as_onnx_runtime_alone_runs_it(quantized: Path, tmp_path: Path) -> None:
    checkpoint = ensure(spec_of(quantized), tmp_path / "cache")
    logits, placement = run(checkpoint, tmp_path)
    plain = onnxruntime.InferenceSession(str(quantized / "model_quantized.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(logits, np.stack(plain.run(["start_logits", "end_logits"], batch()), -1))
    assert placement.int8_macs > 0.3 * placement.total_macs


def test_the_content_of_the_file_is_in_the_key(quantized: Path, tmp_path: Path) -> None:
    """A changed file was answered `done before` with the old figure."""
    copy = Path(shutil.copytree(quantized, tmp_path / "copy"))
    key = spec_of(quantized).key
    assert spec_of(copy).key == key
    file = copy / "model_quantized.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    assert spec_of(copy).key != key


def test_several_files_or_none_are_one_line(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    shutil.copyfile(copy / "model.onnx", copy / "model_quantized.onnx")
    two = look_up("onnx:copy", tmp_path, hub=False).blocked
    assert two == (
        "onnx:copy: the folder has 2 ONNX files (model.onnx, model_quantized.onnx)",
        "name one: onnx:copy/model.onnx",
    )
    assert look_up("onnx:copy/model.onnx", tmp_path, hub=False).blocked is None
    (copy / "config.json").unlink()
    alone = look_up("onnx:copy/model.onnx", tmp_path, hub=False).blocked
    assert alone is not None and "no config.json" in alone[0]
    none = look_up("onnx:nowhere", tmp_path, hub=False).blocked
    assert none is not None and "there is no ONNX file" in none[0]


def test_a_graph_without_a_tasks_outputs_is_one_line(exported: Path, trained: Path, tmp_path: Path) -> None:
    import onnx

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    model = onnx.load(str(copy / "model.onnx"))
    model.graph.output[0].name = "hidden"
    next(node for node in model.graph.node if "start_logits" in node.output).output[:] = ["hidden"]
    onnx.save(model, str(copy / "model.onnx"))
    with pytest.raises(BackendError, match=r"has the outputs end_logits, hidden, and none is 'logits'"):
        run(ensure(spec_of(copy), tmp_path / "cache"), tmp_path)
    with pytest.raises(BackendError, match="runs models with source = 'onnx:PATH'"):
        run(trained, tmp_path)
    (copy / "model.onnx").unlink()
    fails(loads(f"onnx:{copy / 'model.onnx'}"), tmp_path, "is gone")


def test_only_its_own_backend_runs_it_and_it_is_compared_with_what_it_came_from(
    make: Make, exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "onnx-model")
    table = '[models.mine]\nsource = "onnx:onnx-model"\nrecipe = "load"\nmade_from = "model:base"\n\n[shape]\n'
    entry = '[[backends]]\nname = "onnxruntime_file"\n\n[[backends]]\nname = "torch_fp32"'
    plan = make(("[shape]\n", table), ('[[backends]]\nname = "torch_fp32"', entry))
    cells = [cell for cell in plan.cells if cell.model == "mine" and cell.task == "squad_v1"]
    assert {cell.backend for cell in cells} == {"onnxruntime_file"}
    assert {cell.ancestor for cell in cells} == {"base"}
    assert not [cell for cell in plan.cells if cell.model != "mine" and cell.backend == "onnxruntime_file"]
    assert find_cell(plan, "base").backend == "torch_fp32"
