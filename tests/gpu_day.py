"""What a borrowed GPU should give first: `nox -s gpu_day -- [--minutes 12] [--data DIR]`.

The parts come in order of value, each with its share of the minutes. A part that takes longer is stopped; what it has finished is
kept, and the same command continues. Records go to `results/`. Prints a table; exit code 1 where a part failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GRACE = 20.0
"""Seconds that a stopped part has to write what it keeps."""


@dataclass(frozen=True)
class Part:
    """share: of all minutes."""

    name: str
    share: float
    command: tuple[str, ...]
    takes_data: bool = True


def suite(name: str, *options: str) -> tuple[str, ...]:
    return sys.executable, "-m", "harness", "run", name, *options


ON_GPU = (
    "torch_fp32",
    "torch_bf16",
    "torch_compiled_fp32",
    "onnxruntime_fp32",
    "onnxruntime_int8",
    "tensorrt_fp16",
    "tensorrt_int8",
)
"""Of squad_minilm's backends those that take a GPU: the others would spend its minutes on the CPU."""

PARTS = (
    Part("tests on the GPU", 0.2, (sys.executable, "-m", "pytest", "-q", "-m", "gpu"), takes_data=False),
    Part("BERT-base's size, speed alone", 0.25, suite("bert_base_gpu")),
    Part("MiniLM on SQuAD", 0.3, suite("squad_minilm", *(word for name in ON_GPU for word in ("--backend", name)))),
    Part("QAT on STS-B", 0.25, suite("minilm_qat", "--task", "glue/stsb", "--seed", "42")),
)


@dataclass(frozen=True)
class Outcome:
    name: str
    seconds: float
    ended: str

    @property
    def failed(self) -> bool:
        return self.ended.startswith("failed")


def run_parts(parts: Sequence[Part], seconds: float, data: str | None = None) -> Iterator[Outcome]:
    """Run the parts one after the other. A part may take its share of `seconds`, and what those before it left of theirs."""
    began, shares = time.monotonic(), 0.0
    for part in parts:
        shares += part.share
        words = [*part.command, *(["--data", data] if data and part.takes_data else [])]
        yield _run(part.name, words, began + shares * seconds)


def _run(name: str, words: Sequence[str], until: float) -> Outcome:
    """until: the instant, of the monotonic clock, at which the part is stopped."""
    began = time.monotonic()
    child = subprocess.Popen(words)
    try:
        code = child.wait(max(0.0, until - began))
        ended = "done" if code == 0 else f"failed, exit code {code}"
    except subprocess.TimeoutExpired:
        ended = "stopped: its time was over"
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return Outcome(name, time.monotonic() - began, ended)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_day", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0, metavar="N", help="of all parts; default: 12")
    parser.add_argument("--data", metavar="DIR", help="folder with the data, as for `quantboard run`")
    options = parser.parse_args(arguments)
    outcomes = []
    for outcome in run_parts(PARTS, 60 * options.minutes, options.data):
        print(f"{outcome.name}: {outcome.ended}, {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
    print()
    for outcome in outcomes:
        print(f"{outcome.name:32}{outcome.seconds:6.0f} s  {outcome.ended}")
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
