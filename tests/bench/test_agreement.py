"""How closely a simulation agrees with its engine, on a trained and calibrated checkpoint and real data:

    QUANTBOARD_BENCH_DATA=DIR QUANTBOARD_BENCH_CHECKPOINT=FOLDER nox -s bench -- -k agreement

Rounding to a grid amplifies differences: a value within float32's error of a boundary may be rounded up by one program and
down by another, which moves later values by a whole step, and more so from layer to layer. So two correct programs differ. How
much is allowed follows from ONNX Runtime itself, which runs the same Q/DQ graph with its fusions and without them: the
simulation must agree with it no worse than it agrees with itself, in answers and in logits. In the first layer, where nothing
has been amplified yet, nearly all integers must be equal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import stats
from torch import nn

from backends import Settings, get_backend
from backends.export import export_cached
from backends.fake_quant.quantizers import FakeQuantize
from backends.fake_quant.simulate import simulate
from backends.ranges import read_ranges, write_ranges
from backends.torch_eager import TORCH_FP32
from harness.machine.hardware import cores
from tasks import DataRef, Features, Shape, open_task
from tasks.tokens import load_tokenizer

BATCH, INPUTS, TRACED = 16, 2000, 64
LENGTHS = {"squad_v1": 384}
FIRST, FIRST_LAYER = 1e-5, 1e-2
"""The largest share of the first integers, and of the integers of each tensor of layer 0, that may differ. A layer norm's
float32 error is some ulps of values of up to 128 steps, so 1e-5 of a step, and that share of values is so near a boundary.
Each layer multiplies it."""
LOGITS = 0.5
"""The simulation's logits differ from the engine's, on average, by at most this share of the difference between FP32's and
the engine's. With independent rounding errors it would be the square root of two."""
Array = np.ndarray[Any, Any]
Run = Callable[[dict[str, Array]], Array]


@dataclass(frozen=True)
class Bench:
    """A checkpoint, and inputs of its task sorted by length."""

    checkpoint: Path
    features: Features
    rows: Array
    length: int

    def batches(self, limit: int) -> Iterator[dict[str, Array]]:
        rows = self.rows[:: max(1, len(self.rows) // limit)][:limit]
        for at in range(0, len(rows), BATCH):
            part = rows[at : at + BATCH]
            width = int(self.features.lengths[part].max())
            yield {
                "input_ids": self.features.input_ids[part, :width].astype(np.int64),
                "attention_mask": (np.arange(width) < self.features.lengths[part, None]).astype(np.int64),
                "token_type_ids": self.features.token_type_ids[part, :width].astype(np.int64),
            }


@pytest.fixture(scope="module")
def bench() -> Bench:
    data, named = (os.environ.get(f"QUANTBOARD_BENCH_{name}") for name in ("DATA", "CHECKPOINT"))
    if not data or not named:
        pytest.skip("needs QUANTBOARD_BENCH_DATA=DIR and QUANTBOARD_BENCH_CHECKPOINT=FOLDER (a calibrated checkpoint)")
    checkpoint = Path(named)
    name = json.loads((checkpoint / "origin.json").read_text())["task"]
    length = LENGTHS.get(name, 128)
    task = open_task(name, DataRef("raw", data))
    features = task.features(task.examples("validation"), load_tokenizer(checkpoint), Shape(length))
    rows = np.sort(np.random.default_rng(0).permutation(len(features))[:INPUTS])
    print(f"\n{name}, {len(rows)} inputs")
    return Bench(checkpoint, features, rows[np.argsort(features.lengths[rows], kind="stable")], length)


def answers(run: Run, bench: Bench) -> tuple[Array, Array]:
    """The likeliest class of each input, or its start and end, (inputs, 1 or 2); and all logits without those of padding."""
    likeliest, all_logits = [], []
    for batch in bench.batches(INPUTS):
        logits, inside = run(batch), batch["attention_mask"] > 0
        if logits.ndim == 3:
            likeliest.append(np.where(inside[..., None], logits, -np.inf).argmax(1))
            all_logits.append(logits[inside].ravel())
        else:
            likeliest.append(logits.argmax(1)[:, None])
            all_logits.append(logits.ravel())
    return np.concatenate(likeliest), np.concatenate(all_logits)


def unfused(checkpoint: Path, cache: Path) -> tuple[Any, list[str]]:
    """The engine's graph executed operator by operator, and the names of its integer tensors, which are outputs as well."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = cores()
    path, _ = export_cached(checkpoint, cache, quantize="u8")
    model = onnx.load(str(path))
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    kinds = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in names]
    model.graph.output.extend(kinds)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), names


def shuffled(checkpoint: Path, folder: Path) -> Path:
    """The same weights, with the ranges of activations exchanged at random."""
    ranges = read_ranges(checkpoint)
    names = [name for name in ranges.tensors if name.endswith("dense.input")]
    order = np.random.default_rng(0).permutation(len(names))
    swapped = {name: ranges.tensors[names[other]] for name, other in zip(names, order, strict=True)}
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (folder / file).symlink_to(checkpoint / file)
    write_ranges(folder, type(ranges)(ranges.scheme, {**ranges.tensors, **swapped}, ranges.calibration))
    return folder


def test_agreement_of_simulation_and_engine(bench: Bench, tmp_path: Path) -> None:
    settings = Settings(bench.length, BATCH, cores(), tmp_path)
    wrong = shuffled(bench.checkpoint, tmp_path / "shuffled")
    plain, _ = unfused(bench.checkpoint, tmp_path)

    def run_of(backend: str, checkpoint: Path) -> Run:
        return get_backend(backend).prepare(checkpoint, settings, "cpu").run

    engine, engine_logits = answers(run_of("onnxruntime_int8", bench.checkpoint), bench)
    sides: dict[str, Run] = {
        "onnxruntime_int8 without fusions": lambda batch: plain.run(["logits"], batch)[0],
        "fake_quant_w8a8": run_of("fake_quant_w8a8", bench.checkpoint),
        "onnxruntime_fp32": run_of("onnxruntime_fp32", bench.checkpoint),
        "fake_quant_w8a8, ranges shuffled": run_of("fake_quant_w8a8", wrong),
    }
    same: list[int] = []
    mean_differences: list[float] = []
    count = len(engine)
    print("  compared with onnxruntime_int8: equal likeliest answers; mean and largest difference of logits")
    for name, run in sides.items():
        likeliest, logits = answers(run, bench)
        same.append(int((likeliest == engine).all(1).sum()))
        difference = np.abs(logits - engine_logits)
        mean_differences.append(float(difference.mean()))
        ends = stats.binomtest(same[-1], count).proportion_ci(0.95, "exact")
        share = f"{same[-1]} of {count}, {same[-1] / count:6.1%}   [{ends.low:.1%}, {ends.high:.1%}]"
        print(f"  {name:34} {share}; {mean_differences[-1]:.4f}, {difference.max():.3f}")
    itself, simulated, exact, lost = same
    allowed = 3 * (2 * itself * (1 - itself / count)) ** 0.5  # three standard errors of a difference of two counts
    assert simulated >= itself - max(allowed, 3)
    assert mean_differences[1] <= LOGITS * mean_differences[2]
    assert mean_differences[2] < mean_differences[3]
    if engine.shape[1] == 2:  # labels of two classes can be the same by chance
        assert lost < exact < simulated


def test_agreement_of_integers_by_layer(bench: Bench, tmp_path: Path) -> None:
    plain, names = unfused(bench.checkpoint, tmp_path)
    ranges = read_ranges(bench.checkpoint)
    session = TORCH_FP32.prepare(bench.checkpoint, Settings(bench.length, BATCH, cores(), tmp_path), "cpu")
    simulate(session.model, ranges)
    seen: dict[str, Array] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, _: Any, out: Any) -> None:
            seen[name] = (out / module.get_buffer("scale")).round().int().numpy()

        return keep

    for path, module in session.model.named_modules():
        if isinstance(module, FakeQuantize) and path.endswith(".quantize_input"):
            name = path.removeprefix("bert.").removesuffix(".quantize_input")
            module.register_forward_hook(watch(name + (".query" if name.endswith(".self") else "")))
    layers: dict[str, Array] = {}
    for batch in bench.batches(TRACED):
        session.run(batch)
        inside = batch["attention_mask"] > 0
        for output, codes in zip(names, plain.run(names, batch), strict=True):
            name = output.removesuffix(".input.quantize:out")
            steps = codes.astype(np.int32) - (int(ranges.tensors[f"{name}.input"].zero_point[0]) + 128)
            off = np.abs(seen[name] - steps)
            off = off[inside] if off.ndim == 3 else off
            counts = np.array([off.size, (off > 0).sum(), (off > 1).sum()])
            layers[name] = layers.get(name, np.zeros(3, np.int64)) + counts
    print(f"  integers that differ between the simulation and the engine without fusions, {TRACED} inputs")
    for name, (total, by_any, by_more) in layers.items():
        print(f"  {name:40} {by_any / total:8.4%}, by more than a step {by_more / total:8.4%}   ({by_any} of {total})")
        if name.startswith("encoder.layer.0."):
            assert by_any <= FIRST_LAYER * total
    first, last = (layers[name] for name in (next(iter(layers)), list(layers)[-1]))
    assert first[1] <= FIRST * first[0]
    assert not first[2]
    assert first[1] / first[0] <= last[1] / last[0]
