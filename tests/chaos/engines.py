"""Engines that fail in the ways in which libraries do, as an installed package; each costs its own cells and says what happened."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.chaos.house import CELLS, HEAD, House, Whole, accuracy_of, judge, tell

FAULTS = {
    "raises": ("no such kernel",),
    "exits": ("exit code 0",),
    "exits with 7": ("exit code 7",),
    "segfault": ("SIGSEGV",),
    "killed": ("SIGKILL",),
    "hangs": ("accuracy_timeout",),
    "eats memory": ("more memory than measure.memory_gib = 2 grants",),
    "one row": ("row", "shape"),
    "a column more": ("column", "shape"),
    "text": ("dtype", "<U", "text", "str"),
    "NaN": ("NaN", "finite", "no_answer", "not a number"),
    "None": ("None",),
    "prints escapes": ("\\\\x1b", "no such kernel"),
    "dies in turns": ("interleaved", "exit code 9"),
    "hangs in turns": ("speed_timeout",),
}
"""What one of the words of a record's reason, or of its log, must hold."""
ENTRY = """
[[backends]]
name = "faulty"
label = "{label}"
fault = "{fault}"
"""
HARMLESS = "float64"
"""An engine that answers in another precision has the accuracy of the sound one."""
SOUND = ("onnxruntime_fp32", "onnxruntime_int8")
LIMITS = "accuracy_timeout = 25\nspeed_timeout = 25\nmemory_gib = 2\n"


class FaultySession:
    def __init__(self, inner: Any, fault: str, *, in_turns: bool) -> None:
        self._inner, self._fault, self._in_turns = inner, fault, in_turns
        self.artifact_bytes, self.build_seconds, self.built = inner.artifact_bytes, inner.build_seconds, inner.built

    def run(self, batch: Any) -> Any:
        logits = self._inner.run(batch)
        return self._answer(logits)

    def _answer(self, logits: np.ndarray[Any, Any]) -> Any:
        import ctypes
        import time

        fault = self._fault
        if fault.endswith("in turns"):
            if self._in_turns:
                time.sleep(3600 if fault.startswith("hangs") else 0)
                os._exit(9)
            return logits
        if fault in ("raises", "prints escapes"):
            print("\x1b[31mred \u202e" if fault == "prints escapes" else "", flush=True)
            raise RuntimeError("no such kernel" + ("\x1b[0m" if fault == "prints escapes" else ""))
        if fault.startswith("exits"):
            os._exit(7 if fault.endswith("7") else 0)
        if fault == "segfault":
            ctypes.string_at(0)
        if fault == "killed":
            os.kill(os.getpid(), 9)
        if fault == "hangs":
            time.sleep(3600)
        if fault == "eats memory":
            return np.ones((1 << 20, 1 << 20), np.float32)
        odd = {
            "one row": logits[:1],
            "a column more": np.concatenate([logits, logits[..., :1]], axis=-1),
            "text": logits.astype(str),
            "NaN": np.full_like(logits, np.nan),
            "None": None,
            HARMLESS: logits.astype(np.float64),
        }
        return odd.get(fault, logits)

    def placement(self) -> Any:
        return self._inner.placement()

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class Faulty:
    """ONNX Runtime in FP32 with a fault."""

    name: str = "faulty"
    version: int = 1
    distributions: tuple[str, ...] = ("onnxruntime",)
    quantizes: Literal["no", "static", "dynamic"] = "no"
    simulated: bool = False
    symmetric_only: bool = False
    options: Mapping[str, type] = field(default_factory=lambda: {"fault": str})

    @property
    def graph(self) -> Any:
        return self._inner.graph

    @property
    def _inner(self) -> Any:
        from backends import get_backend

        return get_backend("onnxruntime_fp32")

    def availability(self, machine: Mapping[str, Any]) -> Any:
        return self._inner.availability(machine)

    def prepare(self, checkpoint: Path, settings: Any, device: Any) -> FaultySession:
        inner = self._inner.prepare(checkpoint, replace(settings, options={}), device)
        return FaultySession(inner, str(settings.options["fault"]), in_turns=settings.takes_turns)


FAULTY = Faulty()


def faulty_engines(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """All faults in one suite, beside sound engines, of which one answers in another precision."""
    house = whole.house.copy(folder, results=False)
    ended = run_faulty(house, [*FAULTS, HARMLESS])
    sound = {label: label for label in SOUND} | {HARMLESS: "onnxruntime_fp32"}
    return judge_engines(whole, house, ended, list(FAULTS), sound) | judge(house, {}, house.run("validate", "faulty"))


def run_faulty(house: House, faults: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the cells of suite `tiny` and, in the same table, an engine with each fault."""
    package = house.folder / "packages" / "faulty-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[quantboard.backends]\nfaulty = tests.chaos.engines:FAULTY\n")
    house.environment["PYTHONPATH"] += os.pathsep + str(package.parent)
    entries = "".join(ENTRY.format(label=fault, fault=fault) for fault in faults)
    (house.folder / "suites" / "faulty.toml").write_text(HEAD + LIMITS + CELLS + entries)
    return house.run("run", "faulty")


def judge_engines(
    whole: Whole, house: House, ended: subprocess.CompletedProcess[str], faults: list[str], sound: dict[str, str]
) -> set[str]:
    """Whether each fault cost its own cell, and its record says what happened. sound: labels of engines without one, and those
    whose metrics they had in the undisturbed run."""
    records = {record["label"]: record for record in house.readable()}
    undisturbed = {record["label"]: accuracy_of(record)[1] for record in whole.house.readable()}
    outcomes = set()
    for label, same in sound.items():
        if label not in records or (found := accuracy_of(records[label])[1]) is None:
            outcomes.add("lost")
        elif found != undisturbed[same]:
            outcomes.add("wrong")
    if ended.returncode != 1 or "Traceback" in ended.stderr:
        outcomes.add("stuck")
    for fault in faults:
        record = records.get(fault)
        if record is None:
            outcomes.add("lost")
        elif record["status"] == "ok":
            outcomes.add("wrong")
            print(f"an engine with fault '{fault}' is ok", flush=True)
        elif not any(word in " ".join([record["reason"], *record["log_tail"]]) for word in FAULTS[fault]):
            outcomes.add("silent")
            print(f"fault '{fault}': {record['reason']}", flush=True)
    return tell(house, ended, outcomes)
