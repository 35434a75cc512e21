"""Chaos in short: `python -m tests.chaos [--kills N] [--flips N] [--seed N]`, or `nox -s chaos`.

A very small suite is run once, whole. Then the same run is killed (SIGKILL) at random instants and continued, and single bits are
flipped in every kind of artefact. Afterwards the records must be those of the undisturbed run: none lost, none doubled, no other
accuracy, and no damage without a word. Prints a table; exit code 1 where a fault was not survived.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.run.test_run import Checkout

OUTCOMES = ("survived", "lost", "doubled", "wrong", "silent", "stuck")
ARTEFACTS = {
    "weights": "cache/checkpoints/*/model.safetensors",
    "config.json": "cache/checkpoints/*/config.json",
    "tokenizer.json": "cache/checkpoints/*/tokenizer.json",
    "ranges.json": "cache/checkpoints/*/ranges.json",
    "origin.json": "cache/checkpoints/*/origin.json",
    "SHA256SUMS": "cache/checkpoints/*/SHA256SUMS",
    "ONNX file": "cache/engines/onnx/*.onnx",
    "tokens": "cache/features/*.npz",
    "kept scores": "cache/scored/*/*",
    "hashes": "cache/hashes/*",
    "scores file": "results/*/*/scores/*.npz",
    "record": "results/*/*/*.jsonl",
}


@dataclass
class Table:
    """Outcomes by kind of fault."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, fault: str, outcomes: set[str]) -> None:
        self.counts.setdefault(fault, Counter()).update(outcomes or {"survived"})

    def __str__(self) -> str:
        lines = [f"{'fault':24}" + "".join(f"{name:>10}" for name in OUTCOMES)]
        for fault, counts in self.counts.items():
            lines.append(f"{fault:24}" + "".join(f"{counts[name]:>10}" for name in OUTCOMES))
        return "\n".join(lines)

    @property
    def survived(self) -> bool:
        return not any(counts[name] for counts in self.counts.values() for name in OUTCOMES[1:])


def accuracies(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of every measured cell, by its key."""
    measured = [record for record in records if record["status"] in ("ok", "invalid")]
    return {
        record["key"]: [
            {name: figure["value"] for name, figure in part["metrics"].items()} for part in record["accuracy"]
        ]
        for record in measured
    }


def readable(checkout: Checkout) -> list[dict[str, Any]]:
    """All records of a checkout whose lines are whole."""
    found = []
    for file in sorted((checkout.folder / "results").rglob("*.jsonl")):
        for line in file.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                found.append(
                    record | {"key": record["key"], "status": record["status"], "accuracy": record["accuracy"]}
                )
            except (ValueError, KeyError, TypeError):
                continue
    return found


def copy(whole: Checkout, folder: Path, *, results: bool) -> Checkout:
    other = Checkout(folder)
    shutil.copytree(whole.cache, other.cache, symlinks=True)
    if results:
        shutil.copytree(whole.folder / "results", other.folder / "results")
    return other


def kill(whole: Checkout, folder: Path, instant: float, wanted: dict[str, Any]) -> set[str]:
    """Kill the run after `instant` seconds, and continue it to its end. Checkpoints are there, so the run scores and measures."""
    other = copy(whole, folder, results=False)
    shutil.rmtree(other.cache / "engines", ignore_errors=True)
    process = subprocess.Popen(
        other.command("run", "small"), cwd=other.folder, env=other.environment, stderr=subprocess.DEVNULL
    )
    time.sleep(instant)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = other.run("run", "small")
    return judge(other, wanted, ended)


def judge(other: Checkout, wanted: dict[str, Any], ended: subprocess.CompletedProcess[str]) -> set[str]:
    outcomes = set()
    records = readable(other)
    keys = Counter(record["key"] for record in records if record["status"] in ("ok", "invalid"))
    if ended.returncode or "Traceback" in ended.stderr:
        outcomes.add("stuck")
        print(ended.stderr[-2000:], file=sys.stderr)
    if wanted.keys() - keys.keys():
        outcomes.add("lost")
    if any(count > 1 for count in keys.values()):
        outcomes.add("doubled")
    if any(wanted[key] != value for key, value in accuracies(records).items() if key in wanted):
        outcomes.add("wrong")
    return outcomes


def flip(whole: Checkout, folder: Path, pattern: str, rng: random.Random, wanted: dict[str, Any]) -> set[str]:
    """Flip a bit of a file, score everything anew, and compare."""
    other = copy(whole, folder, results=True)
    files = [path for path in sorted(other.folder.glob(pattern)) if path.is_file() and path.stat().st_size]
    if not files:
        return set()
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    in_results = pattern.startswith("results")
    ended = other.run("run", "small", *([] if in_results else ["--fresh"]))
    outcomes = judge(other, wanted, ended) - {"doubled"}  # --fresh measures anew, and so does a record that is gone
    told = any(word in ended.stderr for word in ("put aside", "left out", "measured again", "put back"))
    if in_results and not told and accuracies(readable(other)) != wanted:
        outcomes.add("silent")
    return outcomes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=3, help="default: 3")
    parser.add_argument("--flips", type=int, default=1, help="bit flips of each kind of artefact; default: 1")
    parser.add_argument(
        "--only", action="append", default=[], choices=list(ARTEFACTS), help="only this kind of artefact"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng, table = random.Random(options.seed), Table()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        top = Path(name)
        whole = Checkout(top / "whole")
        began = time.monotonic()
        ended = whole.run("run", "small")
        seconds = time.monotonic() - began
        if ended.returncode:
            print(ended.stderr, file=sys.stderr)
            return 2
        wanted = accuracies(whole.records())
        print(f"the whole run took {seconds:.0f} s; {len(wanted)} cells are measured", flush=True)
        for number in range(options.kills):
            folder = top / f"kill-{number}"
            table.add("kill -9 of the run", kill(whole, folder, rng.uniform(0.5, 0.9 * seconds), wanted))
            shutil.rmtree(folder)
        for kind, pattern in ARTEFACTS.items():
            for number in range(options.flips if not options.only or kind in options.only else 0):
                folder = top / f"flip-{number}"
                table.add(f"bit flip: {kind}", flip(whole, folder, pattern, rng, wanted))
                shutil.rmtree(folder)
                print(table, flush=True)
    print(table)
    return 0 if table.survived else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
