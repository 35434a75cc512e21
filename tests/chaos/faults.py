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
    trained = _other(whole, "trained")
    house = whole.house.copy(folder, results=False)
    house.killed(rng.uniform(0.5, 0.9 * trained.seconds), "run", "trained")
    return judge(house, trained.wanted, house.run("run", "trained"))


_OTHERS: dict[Path, Whole] = {}


def _other(whole: Whole, suite: str) -> Whole:
    """The undisturbed run of another suite."""
    place = whole.house.folder.with_name(suite)
    if place not in _OTHERS:
        _OTHERS[place] = undisturbed(place, suite)
    return _OTHERS[place]


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
    """`pick` on a model folder and a file; the same command goes on to an answer, and its suite file is what it ran."""
    house = House(folder)
    model, rows = house.give_model(), folder / "suites" / "rows.csv"
    words = ("pick", str(model), "--data", str(rows), "--minutes", "0.1", "--name", "mine")
    house.killed(rng.uniform(1.0, 60.0), *words)
    ended = house.run(*words)
    outcomes = set()
    if ended.returncode or "Traceback" in ended.stderr or not ended.stdout.strip():
        outcomes.add("stuck")
    found = dict(map(accuracy_of, measured(house.readable())))
    again = house.run("run", "picks/mine.toml")
    if {record["key"] for record in measured(house.readable())} != found.keys():
        outcomes.add("doubled")
    return tell(house, ended, outcomes) | judge(house, found, again)


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
    "base model": "cache/sources/*/*",
    "kept scores": "cache/scored/*/*",
    "memory of hashes": "cache/hashes/*",
    "identity of the data": "cache/identity/*",
    "scores file": "results/*/*/scores/*.npz",
    "record": "results/*/*/*.jsonl",
}
TOLD = ("left out", "measured again", "put back")
"""What is said of damaged results."""
QUIET = ("memory of hashes", "identity of the data", "kept scores")
"""What is only made again: no figure depends on it."""


def flip(kind: str) -> Fault:
    def fault(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
        house = whole.house.copy(folder, results=True)
        return flipped(whole, house, [kind], rng)

    return fault


def flip_base_model(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """The form in which the cache keeps a model of PyTorch's own format. It is read where a checkpoint is made from it."""
    loaded = _other(whole, "loaded")
    house = loaded.house.copy(folder, results=True)
    shutil.rmtree(house.cache / "checkpoints")
    return flipped(loaded, house, ["base model"], rng, "loaded")


def flipped(whole: Whole, house: House, kinds: list[str], rng: random.Random, suite: str = "tiny") -> set[str]:
    """Flip a bit of a file of each kind, and run everything anew; where it is in the results, the suite, which is done. What
    figures depend on must be named, put aside and made again; afterwards every byte of the cache is what was written."""
    flips = {kind: _flip(house, kind, rng) for kind in kinds}
    in_results = all(ARTEFACTS[kind].startswith("results") for kind in kinds)
    again = [] if in_results else ["--remeasure"] if kinds == ["kept scores"] else ["--fresh"]
    ended = house.run("run", suite, *again)
    outcomes = judge(house, whole.wanted, ended, anew=True)
    aside = {path.name.rsplit("-", 2)[0] for path in house.cache.glob("**/broken/*")}
    for kind, path in flips.items():
        if path is None or kind in QUIET:
            continue
        whole_ = path.parent if (path.parent / "SHA256SUMS").exists() or kind == "SHA256SUMS" else path
        whole_ = whole_.with_name(whole_.name.removesuffix(".sha256"))
        named = whole_.name in ended.stderr and whole_.name in aside and whole_.exists()
        if not (any(word in ended.stderr for word in TOLD) if in_results else named):
            outcomes.add("silent")
            print(f"silent: a bit of {path.relative_to(house.folder)}; put aside are {sorted(aside)}", flush=True)
    verified = house.run("cache", "verify")
    if verified.returncode:
        outcomes |= tell(house, verified, {"wrong"})
    return tell(house, ended, outcomes)


def _flip(house: House, kind: str, rng: random.Random) -> Path | None:
    """Flip a bit of one file. Of a record it is the highest bit of a byte: one digit of a record for another is what git shows."""
    pattern = ARTEFACTS[kind]
    files = [path for path in sorted(house.folder.glob(pattern)) if path.is_file() and path.stat().st_size]
    if not files:
        return None
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << (7 if kind == "record" else rng.randrange(8))
    file.write_bytes(content)
    return file


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
    **{f"bit flip: {kind}": flip(kind) for kind in ARTEFACTS if kind != "base model"},
    "bit flip: base model": flip_base_model,
    "full disk": full_disk,
    "full disk: measuring": disk_filled,
    "two runners": two_runners,
}
