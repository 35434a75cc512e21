"""The generic way to an ONNX file: PyTorch's own exporter on transformers' code of a model whose family is not known here.

It takes and gives what our graphs do: `input_ids`, `attention_mask`, `token_type_ids`, int64 (batch, sequence), both sizes free;
`logits`, float32. PyTorch and the counting of products have processes of their own, so that an engine's holds that engine only.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backends.base import INPUTS, BackendError, installed

TRACE_VERSION = 1
"""Part of the key under which exported graphs are cached. Raise it whenever they change."""
_REFUSED = 3
"""Exit code for a fault of the checkpoint."""
CHECKED = (3, 40)
"""Sequences, and tokens of each, on which a new graph is compared with its model."""
TOLERANCE = 1e-3
"""Of their logits, relative to the largest."""

_RENAMING = ["MatMulAddFusion", "MatMulScaleFusion", "MatMulTransposeFusion"]
"""ONNX Runtime's optimizers after which a product has another name."""


def trace_id() -> str:
    """What the graphs depend on beside the checkpoint."""
    runtime = "onnxruntime-gpu" if installed("onnxruntime-gpu", {}) else "onnxruntime"
    made_by = [f"{name} {version(name)}" for name in ("torch", "transformers", "onnxscript", runtime)]
    return f"traced {TRACE_VERSION} {' '.join(made_by)}"


def write_traced(checkpoint: Path, target: Path) -> None:
    """Write the ONNX model of a checkpoint folder to `target`, whole or not at all. Raises BackendError."""
    _write("export", checkpoint, target)


def write_dynamic(traced: Path, target: Path) -> None:
    """Write a traced model with dynamic INT8 by ONNX Runtime's own tool, whole or not at all: weights of linear layers have a scale
    per output channel, their inputs are quantized at run time. Raises BackendError."""
    _write("quantize", traced, target)


def _write(action: str, source: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _in_own_process(action, str(source), str(partial))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def counted_products(path: Path, length: int) -> dict[str, int]:
    """Multiply-accumulates of every matrix product of a graph for one sequence of `length` tokens, by name of its node; without
    those of constants. Raises BackendError."""
    macs: dict[str, int] = json.loads(_in_own_process("count", str(path), str(length)))
    return macs


def _in_own_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "backends.traced", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.splitlines()[-1] if done.stdout else ""
    lines = done.stderr.splitlines()
    reason = lines[-1].strip()[:300] if lines else f"exit code {done.returncode}"
    if done.returncode == _REFUSED:
        raise BackendError(reason)
    raise BackendError(f"PyTorch's exporter or ONNX Runtime cannot take this model ({reason}); run it on torch_fp32")


def _export(checkpoint: Path, target: Path) -> None:
    import onnx
    import torch

    from backends.checkpoint import read_encoder
    from backends.torch_models import load_model, model_logits

    encoder = read_encoder(checkpoint)

    class WithLogits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = load_model(checkpoint, encoder)

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
        ) -> torch.Tensor:
            outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return model_logits(outputs, encoder, attention_mask)

    module = WithLogits().eval()
    ids = torch.full((2, 16), 7)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program: Any = torch.onnx.export(
            module,
            (ids, mask, torch.zeros_like(ids)),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_shapes=(free, free, free),
            verbose=False,
            dynamo=True,
        )
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # where in transformers' code a node comes from, with this machine's folders
    onnx.save(model, target)
    _check_answers(target, module, module.model.config, min(encoder.positions, CHECKED[1]))


def _check_answers(graph: Path, module: Any, config: Any, length: int) -> None:
    """Raise BackendError unless a graph answers as its model does on another batch and other lengths than were traced: where code
    depends on the length, the exporter may keep what held for the traced one."""
    import numpy as np
    import onnxruntime
    import torch

    rows = CHECKED[0]
    words, types = int(config.vocab_size), int(getattr(config, "type_vocab_size", None) or 1)
    ids = torch.arange(rows * length).reshape(rows, length) % max(1, min(words, 55) - 5) + min(5, words - 1)
    mask = (torch.arange(length) < torch.linspace(length // 2, length, rows)[:, None]).long()
    second = (torch.arange(length) > length // 3) * mask * (types > 1)
    inputs = dict(zip(INPUTS, (ids * mask, mask, second), strict=True))
    with torch.no_grad():
        expected = module(**inputs).numpy()
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}
    (logits,) = session.run(["logits"], {name: value.numpy() for name, value in inputs.items() if name in taken})
    difference = np.abs(logits - expected).max() if logits.shape == expected.shape else np.inf
    if not difference <= TOLERANCE * max(1.0, np.abs(expected).max()):
        raise BackendError(
            f"the graph of PyTorch's exporter does not answer as the model does (logits differ by {difference:.2g}); run it on"
            " torch_fp32"
        )


def _quantize(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    model = onnx.load(target)
    _separate(model)
    onnx.save(model, target)


def _separate(model: Any) -> None:
    """Give products that share a weight, as ALBERT's layers do, a name each for it: ONNX Runtime converts signed weights for
    processors without VNNI once a product, under the weight's name, and stops at the second. A Reshape to its own shape is another
    name for it in the file, and is computed when the graph is loaded."""
    import numpy as np
    from onnx import helper, numpy_helper

    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    uses, added = Counter[str](), list[Any]()
    for node in model.graph.node:
        for place in (1, 3) if node.op_type == "MatMulInteger" else ():  # weight and zero point
            name = node.input[place]
            uses[name] += name in shapes
            if uses[name] == 2:
                shape = numpy_helper.from_array(np.array(shapes[name], np.int64), f"{name}:shape")
                model.graph.initializer.append(shape)
            if uses[name] > 1:
                node.input[place] = f"{name}:{uses[name]}"
                added.append(
                    helper.make_node("Reshape", [name, f"{name}:shape"], [node.input[place]], node.input[place])
                )
    nodes = [*added, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _count(path: Path, length: int) -> dict[str, int]:
    """By ONNX Runtime's profile of a run in which nothing is fused. Products of constants are computed when a graph is loaded, so that
    they do not count."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.enable_profiling = True
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_RENAMING
        )
        types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
        whole = {"attention_mask": np.ones, "input_ids": np.zeros, "token_type_ids": np.zeros}
        session.run(None, {one.name: whole[one.name]((1, length), types[one.type]) for one in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    macs: dict[str, int] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            macs[event["name"].removesuffix("_kernel_time")] = _macs(event["args"])
    return {name: count for name, count in macs.items() if count}


def _macs(facts: dict[str, Any]) -> int:
    """Of one node: elements of its output times terms of each sum. 0 where it is no product."""
    shapes = [next(iter(shape.values())) for shape in facts["input_type_shape"] if shape]
    outputs = [next(iter(shape.values())) for shape in facts["output_type_shape"] if shape]
    match facts["op_name"]:
        case "MatMul" | "MatMulInteger" | "Gemm":
            terms = shapes[0][-1]
        case "Conv" | "ConvInteger":
            terms = math.prod(shapes[1][1:])
        case _:
            return 0
    return int(math.prod(outputs[0]) * terms)


def main(action: str, source: str, argument: str) -> int:
    """The last line of stderr says why it failed."""
    try:
        if action == "count":
            print(json.dumps(_count(Path(source), int(argument))))
        else:
            (_export if action == "export" else _quantize)(Path(source), Path(argument))
    except BackendError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    except Exception as error:  # of an exporter on whatever code
        print(_first_cause(error), file=sys.stderr)
        return 1
    return 0


def _first_cause(error: BaseException) -> str:
    """The line that says what happened: the exporter's own errors hold advice to programmers, and stand for another error."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return f"{type(error).__name__}: {first}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
