"""How far a simulation can be its engine, on a trained and calibrated checkpoint and real data:

    QUANTBOARD_BENCH_DATA=DIR QUANTBOARD_BENCH_CHECKPOINT=FOLDER nox -s bench -- -k agreement

Rounding to a grid amplifies: a value that lies within float32's error of a boundary falls to one side here and to the other
there, which moves what comes after by a whole step, and so on from layer to layer. Two correct programs therefore differ. How
much is allowed is not for us to choose: ONNX Runtime runs the same Q/DQ graph with its fusions and without them, and the
simulation must agree with it no worse than it agrees with itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from backends import Settings, get_backend
from backends.export import export_cached
from backends.ranges import read_ranges, write_ranges
from harness.machine import cores
from harness.recipes import load_tokenizer
from tasks import DataRef, Shape, open_task

LENGTH, BATCH, WINDOWS = 384, 16, 2000
Array = np.ndarray[Any, Any]


def answers(run: Any, features: Any, rows: Array) -> Array:
    """Likeliest start and end of each window, (windows, 2)."""
    found = []
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        width = int(features.lengths[part].max())
        batch = {
            "input_ids": features.input_ids[part, :width].astype(np.int64),
            "attention_mask": (np.arange(width) < features.lengths[part, None]).astype(np.int64),
            "token_type_ids": features.token_type_ids[part, :width].astype(np.int64),
        }
        logits = np.where(batch["attention_mask"][..., None] > 0, run(batch), -np.inf)
        found.append(logits.argmax(1))
    return np.concatenate(found)


def unfused(checkpoint: Path, cache: Path) -> Any:
    """The engine's graph executed operator by operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = cores()
    path, _ = export_cached(checkpoint, cache, quantize="u8")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["logits"], batch)[0]


def shuffled(checkpoint: Path, folder: Path) -> Path:
    """The same weights with the ranges of activations dealt to each other."""
    ranges = read_ranges(checkpoint)
    names = [name for name in ranges.tensors if name.endswith("dense.input")]
    dealt = np.random.default_rng(0).permutation(len(names))
    swapped = {name: ranges.tensors[names[other]] for name, other in zip(names, dealt, strict=True)}
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (folder / file).symlink_to(checkpoint / file)
    write_ranges(folder, type(ranges)(ranges.scheme, {**ranges.tensors, **swapped}, ranges.calibration))
    return folder


def test_agreement_of_simulation_and_engine(tmp_path: Path) -> None:
    data, named = (os.environ.get(f"QUANTBOARD_BENCH_{name}") for name in ("DATA", "CHECKPOINT"))
    if not data or not named:
        pytest.skip("needs QUANTBOARD_BENCH_DATA=DIR and QUANTBOARD_BENCH_CHECKPOINT=FOLDER (a calibrated checkpoint)")
    checkpoint = Path(named)
    task = open_task("squad_v1", DataRef("raw", data))
    features = task.features(task.examples("validation"), load_tokenizer(checkpoint), Shape(LENGTH))
    rows = np.sort(np.random.default_rng(0).permutation(len(features))[:WINDOWS])
    rows = rows[np.argsort(features.lengths[rows], kind="stable")]
    settings = Settings(LENGTH, BATCH, cores(), tmp_path)
    wrong = shuffled(checkpoint, tmp_path / "shuffled")
    engine = answers(get_backend("onnxruntime_int8").prepare(checkpoint, settings, "cpu").run, features, rows)
    sides = {
        "onnxruntime_int8 without fusions": unfused(checkpoint, tmp_path),
        "fake_quant_w8a8": get_backend("fake_quant_w8a8").prepare(checkpoint, settings, "cpu").run,
        "onnxruntime_fp32": get_backend("onnxruntime_fp32").prepare(checkpoint, settings, "cpu").run,
        "fake_quant_w8a8, ranges shuffled": get_backend("fake_quant_w8a8").prepare(wrong, settings, "cpu").run,
    }
    same: dict[str, int] = {}
    print(f"\n  windows with onnxruntime_int8's own start and end, of {len(rows)}:")
    for name, run in sides.items():
        same[name] = int((answers(run, features, rows) == engine).all(1).sum())
        sure = stats.binomtest(same[name], len(rows)).proportion_ci(0.95, "exact")
        print(f"  {name:40} {same[name] / len(rows):6.1%}   [{sure.low:.1%}, {sure.high:.1%}]")
    itself, simulated, exact, lost = same.values()
    allowed = 3 * (2 * itself * (1 - itself / len(rows))) ** 0.5  # three standard errors of a difference of two counts
    assert simulated >= itself - allowed
    assert simulated > exact
    assert lost < exact
