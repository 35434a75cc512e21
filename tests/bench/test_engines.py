"""Engines compared with each other, run alternately in one process: `nox -s bench` prints each with its ratio.

A MiniLM-size encoder (6 layers, 384 wide) with random weights: a figure of speed alone. Sequence 384, batch 16.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends import Settings, get_backend
from harness.machine.hardware import cores, describe
from tests.backends.checkpoints import MINILM, make_checkpoint

LENGTH, BATCH, TURNS = 384, 16, 5
Array = np.ndarray[Any, Any]
Run = Callable[[dict[str, Array]], Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from backends.fake_quant.calibrate import calibrate
    from backends.ranges import write_ranges

    folder = make_checkpoint(tmp_path_factory.mktemp("minilm"), **MINILM)
    write_ranges(folder, calibrate(folder, [batch(4, 64)], "engine_int8", 1))
    return folder


def batch(rows: int = BATCH, length: int = LENGTH) -> dict[str, Array]:
    ids = np.random.default_rng(0).integers(1000, 20_000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@pytest.fixture(scope="module")
def plain(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `torch.onnx.export` makes of transformers' model as it is."""
    from transformers import BertForQuestionAnswering

    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    model = BertForQuestionAnswering.from_pretrained(checkpoint).train(False)
    inputs = {name: torch.from_numpy(values) for name, values in batch(2, 64).items()}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=512)}
    torch.onnx.export(
        model, kwargs=inputs, f=str(path), dynamo=True, dynamic_shapes=dict.fromkeys(inputs, axes), verbose=False
    )
    return path


def open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cores(), 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {node.name for node in session.get_inputs()}
    return lambda given: session.run(None, {name: values for name, values in given.items() if name in known})


def ours(name: str, checkpoint: Path, cache: Path) -> Run:
    session = get_backend(name).prepare(checkpoint, Settings(LENGTH, BATCH, cores(), cache), "cpu")
    return session.run


def compare(sides: dict[str, Run]) -> dict[str, float]:
    """Samples a second of each side: medians over batches that are run alternately."""
    given = batch()
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TURNS + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run(given)
            if turn:  # the first warms up
                spent[name].append(time.perf_counter() - start)
    rates = {name: BATCH / statistics.median(seconds) for name, seconds in spent.items()}
    print()
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"  {name:45} {rate:8.1f} samples/s   {rate / first:5.2f} x")
    return rates


def test_our_graph_against_the_plain_export(checkpoint: Path, plain: Path, tmp_path: Path) -> None:
    sides = {"plain export, ONNX Runtime FP32": open_onnx(plain)}
    sides |= {name: ours(name, checkpoint, tmp_path) for name in ("onnxruntime_fp32", "torch_fp32")}
    rates = compare(sides)
    assert rates["onnxruntime_fp32"] >= 1.25 * rates["plain export, ONNX Runtime FP32"]


def test_our_int8_against_quantize_dynamic_on_the_plain_export(checkpoint: Path, plain: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(plain, tmp_path / "quantized.onnx")
    sides = {"quantize_dynamic on the plain export": open_onnx(tmp_path / "quantized.onnx")}
    sides |= {name: ours(name, checkpoint, tmp_path) for name in ("onnxruntime_int8_dynamic", "onnxruntime_int8")}
    rates = compare(sides)
    if not {"avx512_vnni", "avx_vnni"} & set(describe().flags):
        pytest.skip("no VNNI here: ours keeps products exact at a cost, quantize_dynamic's may saturate")
    assert rates["onnxruntime_int8_dynamic"] >= 1.4 * rates["quantize_dynamic on the plain export"]


def test_where_static_int8_spends_its_time(checkpoint: Path, tmp_path: Path) -> None:
    """ONNX Runtime's own profile of one batch, by operator."""
    import json
    from collections import Counter

    import onnxruntime

    from backends.export import export_onnx

    export_onnx(checkpoint, tmp_path / "static.onnx", quantize="u8")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = cores(), True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(tmp_path / "static.onnx"), options, providers=["CPUExecutionProvider"])
    session.run(None, batch())
    spent: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    print()
    for name, micros in spent.most_common(10):
        print(f"  {name:30} {micros / 1000:8.1f} ms   {100 * micros / total:5.1f}%")
    assert spent["MatMulIntegerToFloat"] > 0


@pytest.mark.parametrize("name", ["torch_fp32", "onnxruntime_fp32", "onnxruntime_int8", "onnxruntime_int8_dynamic"])
def test_one_batch(benchmark: Any, checkpoint: Path, tmp_path: Path, name: str) -> None:
    run = ours(name, checkpoint, tmp_path)
    benchmark.pedantic(run, args=(batch(),), rounds=3, warmup_rounds=1)
