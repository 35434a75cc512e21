"""What large matrix products reach on this processor, by precision: the ceiling that engines are held against.

`python -m harness.machine.ceiling JOB.json` times them. The ceiling of a precision is the best rate of any library that is here,
since no single one is the fastest on every processor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.machine.hardware import describe
from harness.machine.processes import die_with_parent

ROWS, INNER, COLUMNS = 2048, 1024, 1024
"""A product of (ROWS, INNER) and (INNER, COLUMNS): 4.3 billion operations, as in an encoder's larger layers with a full batch."""
FEW_ROWS = 128
SECONDS = 0.4
"""How long each library may repeat the product."""
SLOW = 1.0
"""A library that needs more seconds for one product is left out: it has no kernel for this processor."""

Product = Callable[[], object]


def main(arguments: list[str]) -> int:
    die_with_parent()
    job = json.loads(Path(arguments[0]).read_text())
    Path(job["out"]).write_text(json.dumps(ceilings(job["threads"])))
    return 0


def ceilings(threads: int) -> list[dict[str, Any]]:
    """The best rate of each precision that the processor multiplies: `precision`, `operations_a_second` and `how`."""
    best: dict[str, dict[str, Any]] = {}
    for precision, library, make in _ways(threads):
        try:
            rate = _rate(make)
        except Exception as error:  # a library without this product on this processor says so in its own way
            print(f"{library}, {precision}: {error}", flush=True)
            continue
        print(f"{library}, {precision}: {rate / 1e9:.0f} Gop/s", flush=True)
        if rate > best.get(precision, {"operations_a_second": 0.0})["operations_a_second"]:
            words = f"{library}, {ROWS} x {INNER} x {COLUMNS}, {threads} thread{'s' * (threads > 1)}"
            best[precision] = {"precision": precision, "operations_a_second": rate, "how": words}
    return list(best.values())


def _rate(make: Callable[[int], Product]) -> float:
    """Operations a second of the fastest call; 0 where one call would take longer than SLOW."""
    few = make(FEW_ROWS)
    few()
    if _time(few) * ROWS / FEW_ROWS > SLOW:
        return 0.0
    product = make(ROWS)
    product()
    end, fastest = time.perf_counter() + SECONDS, float("inf")
    while time.perf_counter() < end:
        fastest = min(fastest, _time(product))
    return 2 * ROWS * INNER * COLUMNS / fastest


def _time(product: Product) -> float:
    start = time.perf_counter()
    product()
    return time.perf_counter() - start


def _ways(threads: int) -> Iterator[tuple[str, str, Callable[[int], Product]]]:
    """(precision, library, rows -> product)."""
    import torch

    torch.set_num_threads(threads)
    flags = describe().flags
    yield "fp32", "PyTorch", lambda rows: _torch_product(rows, torch.float32)
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags):
        yield "bf16", "PyTorch", lambda rows: _torch_product(rows, torch.bfloat16)
    yield "int8", "PyTorch", _torch_integer_product
    yield "fp32", "ONNX Runtime", lambda rows: _onnx_product(rows, threads, integer=False)
    yield "int8", "ONNX Runtime", lambda rows: _onnx_product(rows, threads, integer=True)


def _torch_product(rows: int, dtype: Any) -> Product:
    import torch

    left, right = (torch.rand(*size).to(dtype) for size in ((rows, INNER), (INNER, COLUMNS)))
    out = torch.empty(rows, COLUMNS, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def _torch_integer_product(rows: int) -> Product:
    import torch

    left, right = (
        torch.randint(-127, 128, size, dtype=torch.int32).to(torch.int8) for size in ((rows, INNER), (INNER, COLUMNS))
    )
    return lambda: torch._int_mm(left, right)


def _onnx_product(rows: int, threads: int, *, integer: bool) -> Product:
    """Unsigned by signed integers, which x86 processors multiply fastest."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    left: np.ndarray[Any, Any] = random.random((rows, INNER), np.float32)
    right: np.ndarray[Any, Any] = random.random((INNER, COLUMNS), np.float32)
    if integer:
        left, right = (256 * left).astype(np.uint8), (255 * right - 127).astype(np.int8)
    kinds = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integer else "MatMul", ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", kinds[0], [rows, INNER])],
        [helper.make_tensor_value_info("out", kinds[1], [rows, COLUMNS])],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
