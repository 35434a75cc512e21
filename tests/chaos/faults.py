"""The faults. Each works on a copy of the undisturbed run in a folder of its own, and returns what was not survived."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.house import House, Wanted, Whole, accuracy_of, judge, measured, tell, undisturbed

Fault = Callable[[Whole, Path, random.Random], set[str]]


def kill_run(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """Training, calibration, export, scoring and rounds."""
    house = whole.house.copy(folder, results=False, cache=False)
    house.killed(rng.uniform(0.3, 0.95 * whole.seconds), "run", "tiny")
    return judge(house, whole.wanted, house.run("run", "tiny"))


def kill_measuring(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """Checkpoints are there: scoring and rounds are hit more often."""
    house = whole.house.copy(folder, results=False)
    shutil.rmtree(house.cache / "engines")
    house.killed(rng.uniform(0.5, 0.6 * whole.seconds), "run", "tiny")
    return judge(house, whole.wanted, house.run("run", "tiny"))


def kill_training(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """QAT and distillation. The model that both start from is there."""
    trained = _trained(whole)
    house = whole.house.copy(folder, results=False)
    house.killed(rng.uniform(0.5, 0.9 * trained.seconds), "run", "trained")
    return judge(house, trained.wanted, house.run("run", "trained"))


_TRAINED: dict[Path, Whole] = {}


def _trained(whole: Whole) -> Whole:
    place = whole.house.folder.with_name("trained")
    if place not in _TRAINED:
        _TRAINED[place] = undisturbed(place, "trained")
    return _TRAINED[place]


def kill_export(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """All of the folder or nothing; then the same command makes the same folder."""
    house = whole.house.copy(folder, results=True)
    words = ("export", "tiny/onnxruntime_int8")
    expected, began = whole.house.folder / "exported", time.monotonic()
    if not expected.exists():
        ended = whole.house.run(*words, str(expected))
        assert ended.returncode == 0, ended.stderr
    length = max(2.0, time.monotonic() - began)
    target = folder / "exported"
    house.killed(rng.uniform(0.3, length), *words, str(target))
    outcomes = set()
    left = _files(target)
    if left and left != _files(expected):
        outcomes.add("wrong")
    ended = house.run(*words, str(target)) if not left else house.run("validate", "tiny")
    if ended.returncode or "Traceback" in ended.stderr:
        outcomes.add("stuck")
    if _files(target) != _files(expected):
        outcomes.add("wrong")
    return tell(house, ended, outcomes)


def _files(folder: Path) -> dict[str, str]:
    """Hashes of the files by name. What is hidden is a part that a killed command left."""
    files = [path for path in folder.glob("*") if path.is_file()] if folder.exists() else []
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name != "README.md"}


def kill_rescore(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """All copies or none, and whatever came of it can be rescored and shown."""
    house = whole.house.copy(folder, results=True)
    house.killed(rng.uniform(0.2, 2.5), "rescore", "--write", "--data", "sample")
    copies = [record for record in house.readable() if record["rescored"]]
    outcomes = set()
    if len(copies) not in (0, len(whole.wanted)):
        outcomes.add("lost")
    ended = house.run("rescore", "--write", "--data", "sample")
    return outcomes | judge(house, whole.wanted, ended)


def kill_pick(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """`pick` on a model folder and a file; the same command goes on to an answer."""
    from transformers import BertForSequenceClassification

    from tests.run.own_tasks import save_model

    house = House(folder)
    save_model(folder / "model", BertForSequenceClassification, ["no", "yes"])
    rows = "".join(
        f"the museum {'opened' if row % 2 else 'closed'} {row},{('no', 'yes')[row % 2]}\n" for row in range(40)
    )
    (folder / "rows.csv").write_text("text,label\n" + rows)
    words = ("pick", "model", "--data", "rows.csv", "--minutes", "0.1")
    house.killed(rng.uniform(1.0, 60.0), *words)
    ended = house.run(*words)
    outcomes = set()
    keys = [record["key"] for record in measured(house.readable())]
    if len(keys) != len(set(keys)):
        outcomes.add("doubled")
    if ended.returncode or "Traceback" in ended.stderr or not ended.stdout.strip():
        outcomes.add("stuck")
    return tell(house, ended, outcomes)


ARTEFACTS = {
    "weights": "cache/checkpoints/*/model.safetensors",
    "config.json": "cache/checkpoints/*/config.json",
    "tokenizer.json": "cache/checkpoints/*/tokenizer.json",
    "ranges.json": "cache/checkpoints/*/ranges.json",
    "origin.json": "cache/checkpoints/*/origin.json",
    "SHA256SUMS": "cache/checkpoints/*/SHA256SUMS",
    "ONNX file": "cache/engines/onnx/*.onnx",
    "hash of an ONNX file": "cache/engines/onnx/*.sha256",
    "tokens": "cache/features/*.npz",
    "kept scores": "cache/scored/*/*",
    "memory of hashes": "cache/hashes/*",
    "identity of the data": "cache/identity/*",
    "scores file": "results/*/*/scores/*.npz",
    "record": "results/*/*/*.jsonl",
}
TOLD = ("put aside", "left out", "measured again", "put back", "is made again", "was damaged")
QUIET = ("memory of hashes", "identity of the data", "kept scores")
"""What is only made again: no figure depends on it."""


def flip(kind: str) -> Fault:
    def fault(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
        house = whole.house.copy(folder, results=True)
        return flipped(whole, house, [kind], rng)

    return fault


def flipped(whole: Whole, house: House, kinds: list[str], rng: random.Random) -> set[str]:
    """Flip a bit of a file of each kind, and run everything anew; where it is in the results, the suite, which is done."""
    flips = [_flip(house, ARTEFACTS[kind], rng) for kind in kinds]
    in_results = all(ARTEFACTS[kind].startswith("results") for kind in kinds)
    ended = house.run("run", "tiny", *([] if in_results else ["--fresh"]))
    outcomes = judge(house, whole.wanted, ended, anew=True)
    silent = [kind for kind, changed in zip(kinds, flips, strict=True) if changed and kind not in QUIET]
    if silent and not any(word in ended.stderr for word in TOLD):
        outcomes.add("silent")
        print(f"silent: {silent}", flush=True)
    return tell(house, ended, outcomes)


def _flip(house: House, pattern: str, rng: random.Random) -> bool:
    files = [path for path in sorted(house.folder.glob(pattern)) if path.is_file() and path.stat().st_size]
    if not files:
        return False
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return True


def full_disk(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """A file system of a few MiB, or where none may be mounted, files of a few KiB at most. With room, the same command ends."""
    return _disk(whole, folder, rng, checkpoints=False)


def disk_filled(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """The same with the checkpoints there."""
    return _disk(whole, folder, rng, checkpoints=True)


def _disk(whole: Whole, folder: Path, rng: random.Random, *, checkpoints: bool) -> set[str]:
    house = whole.house.copy(folder, results=False, cache=False)
    need, there = _size(whole.house.cache), _size(whole.house.cache / "checkpoints") if checkpoints else 0
    house.cache.mkdir()
    if _mount(house.cache, there + rng.randrange(8192, need - there)):
        if checkpoints:
            shutil.copytree(whole.house.cache / "checkpoints", house.cache / "checkpoints")
        try:
            ended = house.run("run", "tiny")
            outcomes = _refused(house, whole.wanted, ended, "No space left")
            subprocess.run(["mount", "-o", f"remount,size={4 * need + (64 << 20)}", str(house.cache)], check=True)
            return outcomes | judge(house, whole.wanted, house.run("run", "tiny"))
        finally:
            subprocess.run(["umount", "-l", str(house.cache)], check=True)
    ended = house.run("run", "tiny", limit=rng.randrange(1024, need // 4))
    return _refused(house, whole.wanted, ended, "File too large") | judge(house, whole.wanted, house.run("run", "tiny"))


def _size(folder: Path) -> int:
    """Bytes of the pages that a tmpfs keeps."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def _mount(folder: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _refused(house: House, wanted: Wanted, ended: subprocess.CompletedProcess[str], words: str) -> set[str]:
    """Whether a run without room says so, in lines, and leaves nothing wrong."""
    outcomes = set()
    records = house.readable()
    if ended.returncode not in (0, 1, 2) or "Traceback" in ended.stderr:
        outcomes.add("stuck")
    if ended.returncode and words not in ended.stderr and words not in str(records):
        outcomes.add("silent")
    if any(wanted[key] != value for key, value in map(accuracy_of, measured(records))):
        outcomes.add("wrong")
    return tell(house, ended, outcomes)


def two_runners(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """A second run begins while the first is at work: it waits for nothing, refuses, or finds all done. `site` looks on."""
    house = whole.house.copy(folder, results=False)
    ended: list[subprocess.CompletedProcess[str]] = []
    threads = []
    for words in (("run", "tiny"), ("run", "tiny"), ("site", "--out", str(folder / "_site"))):
        threads.append(threading.Thread(target=lambda words=words: ended.append(house.run(*words))))
        threads[-1].start()
        time.sleep(rng.uniform(0.0, 4.0))
    for thread in threads:
        thread.join()
    outcomes = set()
    for one in ended:
        refused = one.returncode == 2 and ("another run on this machine" in one.stderr or "no records" in one.stderr)
        if "Traceback" in one.stderr or not (refused or one.returncode == 0):
            outcomes |= tell(house, one, {"stuck"})
    return outcomes | judge(house, whole.wanted, house.run("run", "tiny"))


FAULTS: dict[str, Fault] = {
    "kill: run": kill_run,
    "kill: measuring": kill_measuring,
    "kill: QAT, distillation": kill_training,
    "kill: export": kill_export,
    "kill: rescore": kill_rescore,
    "kill: pick": kill_pick,
    **{f"bit flip: {kind}": flip(kind) for kind in ARTEFACTS},
    "full disk": full_disk,
    "full disk: measuring": disk_filled,
    "two runners": two_runners,
}
