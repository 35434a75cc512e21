"""Our rows and the peers at seven shapes, all alive at once, one batch at a time in turn: `nox -s bench -- -k peers`.

Each side has a process of its own; the peers' have an environment of their own. All have the same weights (random: a figure of
speed alone), the same batches without padding, and `--peer-threads` threads. With one thread a side's time is its process's
CPU time, in which waiting for a processor does not count; with more it is wall time.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import get_backend
from backends.checkpoint import read_architecture
from backends.processor import multiplies_bfloat16
from harness.machine.hardware import describe
from harness.machine.processes import run_module
from tests.backends.checkpoints import MINILM, make_checkpoint
from tests.bench import peers

BASE = {**MINILM, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
SHAPES = {
    "minilm": (MINILM, [(1, 128), (1, 384), (16, 128), (16, 384)]),
    "base": (BASE, [(1, 128), (1, 384), (16, 128)]),
}
OURS = {
    "fp32": ["torch_fp32", "torch_compiled_fp32", "onnxruntime_fp32", "openvino_fp32"],
    "bf16": ["torch_bf16", "openvino_bf16"],
    "int8": [
        "torch_int8", "torch_int8_bf16", "onnxruntime_int8", "onnxruntime_int8_dynamic", "openvino_int8", "openvino_int8_bf16",
    ],
}  # fmt: skip
THEIRS = {
    "fp32": ["transformers eager", "torch.compile", "OpenVINO", "optimum-onnx", "ORT optimizer"],
    "bf16": ["transformers eager, bf16", "torch.compile, bf16", "OpenVINO, bf16"],
    "int8": ["NNCF, OpenVINO", "NNCF, OpenVINO, bf16", "optimum-onnx dynamic", "ORT optimizer, dynamic"],
}
GOALS = {"fp32": 1.0, "bf16": 1.0, "int8": 1.1}
"""Our best row over the best peer, at least."""
ERRORS = {"fp32": 0.01, "bf16": 0.1, "int8": 0.5}
"""Of logits, root mean square, in standard deviations of transformers' own in float32: other answers would be another model."""
REFERENCE = "transformers eager"
SECONDS = 0.3
"""A side repeats a batch for so long in each of its turns."""


class Side:
    """A process that runs one engine."""

    def __init__(self, name: str, job: Mapping[str, Any], log: Path) -> None:
        path = log.with_suffix(".json")
        path.write_text(json.dumps({**job, "side": name}))
        theirs = name in peers.SIDES
        python = os.environ["QUANTBOARD_PEERS_PYTHON"] if theirs else sys.executable
        threads = {name: str(job["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.name, self._log = name, log
        with log.open("wb") as errors:
            self._child = subprocess.Popen(
                [python, str(Path(peers.__file__)), str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **threads, "PYTHONPATH": "" if theirs else str(Path(__file__).parents[2])},
            )

    def wait(self) -> None:
        """Until its engine is loaded; then it says which versions its libraries have."""
        self.versions: dict[str, str] = self._read()["ready"]

    def run(self, rows: int, length: int, calls: int) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"rows": rows, "length": length, "calls": calls}).encode() + b"\n")
        self._child.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._child.kill()
        self._child.wait()

    def _read(self) -> Any:
        assert self._child.stdout is not None
        if line := self._child.stdout.readline():
            return json.loads(line)
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise RuntimeError(f"{self.name}: {lines[-1]}")


@contextmanager
def started(names: list[str], job: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Side]]:
    """The sides that start; of each other it is printed why it does not."""
    with ExitStack() as stack:
        sides: dict[str, Side] = {}
        for number, name in enumerate(names):
            side = Side(name, job, folder / f"{number}.log")
            stack.callback(side.close)
            try:
                side.wait()
                side.run(2, 64, 1)
            except (RuntimeError, OSError) as error:
                print(f"  not here: {error}")
            else:
                sides[name] = side
        yield sides


def measure(sides: Mapping[str, Side], rows: int, length: int, threads: int, turns: int) -> dict[str, dict[str, Any]]:
    """Of each side the median seconds of a batch over all turns, and its logits."""
    clock, order = "cpu" if threads == 1 else "wall", list(sides)
    calls, seconds, logits = {}, {name: [] for name in sides}, {}  # type: ignore[var-annotated]
    for name, side in sides.items():  # twice: the first may compile
        side.run(rows, length, 1)
        answer = side.run(rows, length, 2)
        calls[name] = max(1, math.ceil(SECONDS / min(answer["wall"])))
        logits[name] = np.array(answer["logits"])
    shuffle = random.Random(rows * length).shuffle
    for _ in range(turns):
        shuffle(order)
        for name in order:
            seconds[name].append(statistics.median(sides[name].run(rows, length, calls[name])[clock]))
    return {name: {"seconds": statistics.median(seconds[name]), "logits": logits[name]} for name in sides}


def ceilings(threads: int, folder: Path) -> dict[str, float]:
    """Operations a second of large products, by precision, timed now."""
    job, out = folder / "ceiling.json", folder / "ceilings.json"
    job.write_text(json.dumps({"threads": threads, "out": str(out)}))
    assert not run_module("harness.machine.ceiling", job, folder / "ceiling.log", timeout=120, threads=threads).reason
    return {one["precision"]: one["operations_a_second"] for one in json.loads(out.read_text())}


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """What the shapes gave; printed together, and written to `--peers-out`, at the end."""
    rows: list[dict[str, Any]] = []
    yield rows
    print("\n\nour best / best peer:")
    for row in rows:
        print(f"  {row['model']:7} {row['batch']:3} x {row['length']:<4}" + "".join(_cell(row, kind) for kind in OURS))
    if out := request.config.getoption("--peers-out"):
        machine = describe()
        facts = {"cpu": machine.cpu, "cpu_model": machine.cpu_model, "flags": list(machine.flags)}
        Path(str(out)).write_text(json.dumps({"machine": facts, "shapes": rows}, indent=1) + "\n")


def _cell(row: Mapping[str, Any], kind: str) -> str:
    ratio = row["ratios"].get(kind)
    return f"   {kind} {ratio:5.2f}{' ' if ratio >= GOALS[kind] else '!'}" if ratio else ""


@pytest.mark.skipif(
    "QUANTBOARD_PEERS_PYTHON" not in os.environ,
    reason="the peers have an environment of their own: nox -s bench -- -k peers",
)
@pytest.mark.parametrize("model", SHAPES)
def test_peers(model: str, results: list[dict[str, Any]], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every side answers as transformers does, and the table is printed. Ratios below their goals end with a `!`."""
    from backends.fake_quant.calibrate import calibrate
    from backends.ranges import write_ranges

    threads, turns = (int(request.config.getoption(f"--peer-{name}")) for name in ("threads", "turns"))
    sizes, shapes = SHAPES[model]
    checkpoint = make_checkpoint(tmp_path / "model", **sizes)
    write_ranges(checkpoint, calibrate(checkpoint, [peers.batch(4, 128)], "engine_int8", 1))
    job = {
        "checkpoint": str(checkpoint), "folder": str(tmp_path), "threads": threads, "max_length": 384, "max_batch": 16,
        "heads": sizes["num_attention_heads"], "hidden": sizes["hidden_size"],
    }  # fmt: skip
    machine = describe().as_dict()
    kinds = [kind for kind in OURS if kind != "bf16" or multiplies_bfloat16(machine)]
    theirs = [name for kind in kinds for name in THEIRS[kind] if "bf16" in kinds or not name.endswith("bf16")]
    ours = [name for kind in kinds for name in OURS[kind] if get_backend(name).availability(machine).available]
    names = [*ours, *theirs]
    wrong: list[str] = []
    with started(names, job, tmp_path) as sides:
        for rows, length in shapes:
            print(f"\n{model}, batch {rows} x {length}, {threads} thread{'s' * (threads > 1)}")
            limits = ceilings(threads, tmp_path)
            found = measure(sides, rows, length, threads, turns)
            operations = 2 * rows * read_architecture(checkpoint).total_macs(length)
            row: dict[str, Any] = {"model": model, "batch": rows, "length": length, "threads": threads, "ratios": {}}
            row["versions"] = {name: side.versions for name, side in sides.items()}
            for kind in kinds:
                row |= _print_kind(kind, found, rows, operations, limits[kind])
                wrong += _wrong(kind, found)
                fastest = [
                    min((found[name]["seconds"] for name in names_of[kind] if name in found), default=math.nan)
                    for names_of in (THEIRS, OURS)
                ]
                if not math.isnan(sum(fastest)):
                    row["ratios"][kind] = fastest[0] / fastest[1]
            results.append(row)
    assert not wrong, "\n".join(wrong)


def _print_kind(
    kind: str, found: Mapping[str, Mapping[str, Any]], rows: int, operations: int, limit: float
) -> dict[str, Any]:
    """Print a table of one precision; returns it for the file."""
    here = [name for name in (*OURS[kind], *THEIRS[kind]) if name in found]
    peer = min((found[name]["seconds"] for name in THEIRS[kind] if name in found), default=math.nan)
    print(f"  {kind}, ceiling {limit / 1e9:.0f} Gop/s{'best peer':>37}{'of the ceiling':>17}")
    table = {}
    for name in sorted(here, key=lambda name: float(found[name]["seconds"])):
        seconds = found[name]["seconds"]
        share = operations / seconds / limit
        whose = "ours" if name in OURS[kind] else "peer"
        print(f"    {whose}  {name:26}{rows / seconds:9.1f} samples/s{peer / seconds:8.2f} x{100 * share:13.0f}%")
        table[name] = {"samples_a_second": rows / seconds, "share_of_ceiling": share}
    return {kind: table, f"{kind}_ceiling": limit}


def _wrong(kind: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The sides whose logits are not those of the model."""
    if REFERENCE not in found:
        return
    expected = found[REFERENCE]["logits"]
    for name in (*OURS[kind], *THEIRS[kind]):
        if name in found:
            error = float(np.sqrt(np.mean((found[name]["logits"] - expected) ** 2)) / expected.std())
            if error > ERRORS[kind]:
                yield f"{name}: logits differ from transformers' by {error:.3f} of their standard deviation"
