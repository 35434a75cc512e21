"""How near a cell's products come to what the processor can multiply: the roofline of its record.

The products' operations a second, over the rate that they would have if each ran at the ceiling of its precision. Whatever an
engine does besides products lowers the share, as do badly chosen kernels: it is a measure of the engine, not of the model.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from backends import Backend, get_backend
from harness.machine.processes import run_module
from harness.plan.spec import Cell
from harness.records.speed_schema import Ceiling, Roofline, RooflineShare, Speed, Turns
from harness.run.context import Run, work_folder
from harness.run.features import read_samples

TIMEOUT = 120.0

Operations = Callable[[int], int]
"""Operations of all products of one sequence of so many tokens."""


def roofline(
    cell: Cell, run: Run, speed: Sequence[Speed], turns: Sequence[Turns], operations: Operations, int8_share: float
) -> Roofline | None:
    """None where there is no speed, on a GPU, and where the processor has no ceiling of the cell's precision.

    The ceilings are taken once a run for each number of threads, when the first cell's speed has been measured.
    """
    if cell.device != "cpu" or not (speed or turns):
        return None
    floats = float_precision(get_backend(cell.backend))
    ceilings = _ceilings(run, cell.measure.threads)
    rates: dict[str, float] = {ceiling.precision: ceiling.operations_a_second for ceiling in ceilings}
    parts = [(name, share) for name, share in ((floats, 1 - int8_share), ("int8", int8_share)) if share > 0]
    if any(name not in rates for name, _ in parts):
        return None
    limit = 1 / sum(share / rates[name] for name, share in parts)
    shares = [
        RooflineShare(
            scenario=scenario,  # type: ignore[arg-type]
            load=load,  # type: ignore[arg-type]
            batch_size=size,
            operations_a_second=rate,
            share=rate / limit,
        )
        for scenario, load, size, rate in _rates(cell, run, speed, turns, operations)
    ]
    return Roofline(floats=floats, operations_a_second=limit, ceilings=ceilings, shares=shares)  # type: ignore[arg-type]


def float_precision(backend: Backend) -> str:
    """The type that a backend computes in whatever is not integer: its `floats`, or else that of its graph's tensors."""
    floats = str(getattr(backend, "floats", "") or (backend.graph or ("fp32",))[0])
    return {"f32": "fp32"}.get(floats, floats)


def _rates(
    cell: Cell, run: Run, speed: Sequence[Speed], turns: Sequence[Turns], operations: Operations
) -> Iterator[tuple[str, str, int, float]]:
    """(scenario, load, batch size, operations a second). A sequence that is padded to max_length has that many tokens, since the
    engine multiplies them all; padding to the longest of a real batch is not counted."""
    of_longest = operations(cell.shape.max_length)
    lengths = read_samples(work_folder(cell, run) / "samples.npz").lengths
    of_token = sum(operations(int(length)) for length in lengths) / int(lengths.sum())

    def rate(load: str, samples: float, tokens: float) -> float:
        return samples * of_longest if load == "fixed" or cell.pads else tokens * of_token

    for one in turns:
        rounds = [rate(one.load, of.samples / of.seconds, of.tokens / of.seconds) for of in one.rounds]
        yield "interleaved", one.load, one.batch_size, statistics.median(rounds)
    for test in speed:
        if test.scenario not in ("server", "interleaved"):  # the latter is in turns
            samples = test.qps.value
            yield test.scenario, test.load, test.batch_size, rate(test.load, samples, samples * test.mean_tokens)


def _ceilings(run: Run, threads: int) -> list[Ceiling]:
    """Those of this run; empty where they could not be taken, which is said once."""
    if threads not in run.ceilings:
        run.ceilings[threads] = []
        with tempfile.TemporaryDirectory(prefix="quantboard-") as folder:
            job, log, out = (Path(folder) / name for name in ("job.json", "job.log", "out.json"))
            job.write_text(json.dumps({"threads": threads, "out": str(out)}))
            ended = run_module("harness.machine.ceiling", job, log, timeout=TIMEOUT, threads=threads)
            if ended.reason:
                run.say(f"no ceilings of matrix products: {ended.reason}")
            else:
                run.ceilings[threads] = [Ceiling(**one) for one in json.loads(out.read_text())]
    return run.ceilings[threads]
