"""One engine in a process of its own, which runs a batch when it is asked to: `python peers.py JOB.json`.

Our backends run in our environment, the peers in theirs: they need other versions of transformers. So this file imports nothing of
the project unless a side is one of ours. Requests and answers are JSON, a line each, on standard input and output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Run = Callable[[dict[str, Any]], Any]
"""A batch of int64 arrays -> (batch, length, 2) logits."""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    run = SIDES[job["side"]](job) if job["side"] in SIDES else ours(job)
    print(json.dumps({"ready": versions()}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        given = batch(request["rows"], request["length"])
        wall, cpu = [], []
        for _ in range(request["calls"]):
            began, used = time.perf_counter(), time.process_time()
            logits = run(given)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
        first = [float(value) for value in logits[0, :64].reshape(-1)]
        print(json.dumps({"wall": wall, "cpu": cpu, "logits": first}), file=answers)


def batch(rows: int, length: int) -> dict[str, Any]:
    """Without padding."""
    import numpy as np

    ids = np.random.default_rng(0).integers(1000, 20_000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def versions() -> dict[str, str]:
    from importlib import metadata

    names = ("torch", "transformers", "onnxruntime", "openvino", "nncf", "optimum-onnx")
    installed = {(each.metadata["Name"] or "").lower(): each.version for each in metadata.distributions()}
    return {name: installed[name] for name in names if name in installed}


def ours(job: dict[str, Any]) -> Run:
    from backends import Settings, get_backend

    settings = Settings(job["max_length"], job["max_batch"], job["threads"], Path(job["folder"]) / "ours")
    return get_backend(job["side"]).prepare(Path(job["checkpoint"]), settings, "cpu").run


def transformers_model(job: dict[str, Any], dtype: str = "float32") -> Any:
    import torch
    from transformers import AutoModelForQuestionAnswering

    torch.set_num_threads(job["threads"])
    model = AutoModelForQuestionAnswering.from_pretrained(job["checkpoint"]).train(False)
    return model.to(getattr(torch, dtype))


def torch_run(model: Any) -> Run:
    import torch

    def run(given: dict[str, Any]) -> Any:
        with torch.inference_mode():
            out = model(**{name: torch.from_numpy(values) for name, values in given.items()})
            return torch.stack((out.start_logits, out.end_logits), -1).float().numpy()

    return run


def eager(dtype: str) -> Callable[[dict[str, Any]], Run]:
    return lambda job: torch_run(transformers_model(job, dtype))


def compiled(dtype: str) -> Callable[[dict[str, Any]], Run]:
    def open_side(job: dict[str, Any]) -> Run:
        import torch

        return torch_run(torch.compile(transformers_model(job, dtype), dynamic=True))

    return open_side


def openvino_run(job: dict[str, Any], model: Any, floats: str) -> Run:
    import numpy as np
    import openvino

    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": job["threads"],
        "INFERENCE_PRECISION_HINT": floats,
    }
    request = openvino.Core().compile_model(model, "CPU", properties).create_infer_request()

    def run(given: dict[str, Any]) -> Any:
        out = request.infer(given, share_inputs=True)
        return np.stack([out[index] for index in (0, 1)], -1)

    return run


def openvino_model(job: dict[str, Any]) -> Any:
    """OpenVINO's own conversion of the float model from PyTorch."""
    import openvino
    import torch

    given = {name: torch.from_numpy(values) for name, values in batch(2, 64).items()}
    model = openvino.convert_model(transformers_model(job), example_input=given)
    model.reshape({name: openvino.PartialShape([-1, -1]) for name in INPUTS})
    return model


def openvino(floats: str) -> Callable[[dict[str, Any]], Run]:
    return lambda job: openvino_run(job, openvino_model(job), floats)


def nncf(floats: str) -> Callable[[dict[str, Any]], Run]:
    """NNCF's own post-training quantization, with its settings for transformers."""

    def open_side(job: dict[str, Any]) -> Run:
        library = import_module("nncf")
        data = library.Dataset([batch(4, 128) for _ in range(4)])
        quantized = library.quantize(openvino_model(job), data, model_type=library.ModelType.TRANSFORMER)
        return openvino_run(job, quantized, floats)

    return open_side


def onnx_run(job: dict[str, Any], path: Path) -> Run:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {one.name for one in session.get_inputs()}
    return lambda given: np.stack(
        session.run(None, {name: values for name, values in given.items() if name in known})[:2], -1
    )


def exported(job: dict[str, Any]) -> Path:
    """optimum-onnx's export of the float model."""
    model = import_module("optimum.onnxruntime").ORTModelForQuestionAnswering
    folder: Path = Path(job["folder"]) / str(job["side"]).replace(" ", "-")
    model.from_pretrained(job["checkpoint"], export=True).save_pretrained(folder)
    return folder / "model.onnx"


def optimum(job: dict[str, Any]) -> Run:
    return onnx_run(job, exported(job))


def optimum_int8(job: dict[str, Any]) -> Run:
    """optimum-onnx's dynamic quantization, with its own settings for this processor."""
    kinds = import_module("optimum.onnxruntime.configuration").AutoQuantizationConfig
    make = kinds.avx512_vnni if "avx512_vnni" in Path("/proc/cpuinfo").read_text() else kinds.avx2
    path = exported(job)
    import_module("optimum.onnxruntime").ORTQuantizer.from_pretrained(path.parent).quantize(
        save_dir=path.parent, quantization_config=make(is_static=False, per_channel=True)
    )
    return onnx_run(job, path.with_name("model_quantized.onnx"))


def optimized(job: dict[str, Any]) -> Path:
    """ONNX Runtime's own optimizer for transformers, on optimum's export."""
    from onnxruntime.transformers.optimizer import optimize_model

    path = exported(job)
    model = optimize_model(str(path), model_type="bert", num_heads=job["heads"], hidden_size=job["hidden"], opt_level=0)
    model.save_model_to_file(str(path.with_name("optimized.onnx")))
    return path.with_name("optimized.onnx")


def ort_optimizer(job: dict[str, Any]) -> Run:
    return onnx_run(job, optimized(job))


def ort_optimizer_int8(job: dict[str, Any]) -> Run:
    from onnx import TensorProto
    from onnxruntime.quantization import quantize_dynamic

    path = optimized(job)
    # the optimizer's fused operators have no shape inference, so that it must be told what type they give
    quantize_dynamic(path, path.with_name("quantized.onnx"), extra_options={"DefaultTensorType": TensorProto.FLOAT})
    return onnx_run(job, path.with_name("quantized.onnx"))


SIDES: dict[str, Callable[[dict[str, Any]], Run]] = {
    "transformers eager": eager("float32"),
    "torch.compile": compiled("float32"),
    "OpenVINO": openvino("f32"),
    "optimum-onnx": optimum,
    "ORT optimizer": ort_optimizer,
    "transformers eager, bf16": eager("bfloat16"),
    "torch.compile, bf16": compiled("bfloat16"),
    "OpenVINO, bf16": openvino("bf16"),
    "NNCF, OpenVINO": nncf("f32"),
    "NNCF, OpenVINO, bf16": nncf("bf16"),
    "optimum-onnx dynamic": optimum_int8,
    "ORT optimizer, dynamic": ort_optimizer_int8,
}


if __name__ == "__main__":
    main()
