"""The faults. Each works on a copy of the undisturbed run in a folder of its own, and returns what was not survived."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
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
    """Flip a bit of a file of each kind, and run everything anew; where it is in the results, the suite, which is done."""
    flips = flip_all(house, kinds, rng)
    in_results = all(ARTEFACTS[kind].startswith("results") for kind in kinds)
    again = [] if in_results else ["--remeasure"] if kinds == ["kept scores"] else ["--fresh"]
    ended = house.run("run", suite, *again)
    return judge(house, whole.wanted, ended, anew=True) | noticed(house, flips, ended)


def flip_all(house: House, kinds: list[str], rng: random.Random) -> dict[str, Path | None]:
    """The files of which a bit was flipped, by kind; None where there is none."""
    return {kind: _flip(house, kind, rng) for kind in kinds}


def noticed(house: House, flips: Mapping[str, Path | None], ended: subprocess.CompletedProcess[str]) -> set[str]:
    """What figures depend on must have been named, put aside and made again by the command that ended; and every byte of the
    cache is what was written."""
    outcomes = set()
    aside = {path.name.rsplit("-", 2)[0] for path in house.cache.glob("**/broken/*")}
    for kind, path in flips.items():
        if path is None or kind in QUIET:
            continue
        whole = path.parent if (path.parent / "SHA256SUMS").exists() or kind == "SHA256SUMS" else path
        whole = whole.with_name(whole.name.removesuffix(".sha256"))
        named = whole.name in ended.stderr and whole.name in aside and whole.exists()
        told = any(word in ended.stderr for word in TOLD)
        if not (told if ARTEFACTS[kind].startswith("results") else named):
            outcomes.add("silent")
            print(f"silent: a bit of {path.relative_to(house.folder)}; put aside are {sorted(aside)}", flush=True)
    verified = house.run("cache", "verify")
    if verified.returncode:
        outcomes |= tell(house, verified, {"wrong"})
    return tell(house, ended, outcomes)


def flip_interrupted(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """In what a killed run keeps for the next one: the state of a training, or the results of a cell's processes."""
    house = whole.house.copy(folder, results=False, cache=False)
    patterns = ("cache/checkpoints/.state-*/step-*/*", "cache/cells/*/*.json", "cache/cells/*/*.npz")
    wanted = rng.choice(patterns)
    house.killed_when(lambda: any(house.folder.glob(wanted)), "run", "tiny")
    for pattern in patterns:
        if files := [file for file in sorted(house.folder.glob(pattern)) if file.is_file() and file.stat().st_size]:
            _flip_bit(rng.choice(files), rng, range(8))
    return judge(house, whole.wanted, house.run("run", "tiny"))


def _flip(house: House, kind: str, rng: random.Random) -> Path | None:
    """Flip a bit of one file. Of a record it is the highest bit of a byte: one digit of a record for another is what git shows."""
    pattern = ARTEFACTS[kind]
    files = [path for path in sorted(house.folder.glob(pattern)) if path.is_file() and path.stat().st_size]
    if not files:
        return None
    file = rng.choice(files)
    _flip_bit(file, rng, range(7, 8) if kind == "record" else range(8))
    return file


def _flip_bit(file: Path, rng: random.Random, bits: range) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.choice(bits)
    file.write_bytes(content)


def full_disk(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """A file system of a few MiB, or where none may be mounted, files of a few KiB at most. With room, the same command ends."""
    with filled(whole, folder, rng, checkpoints=False) as (house, outcomes):
        return outcomes | judge(house, whole.wanted, house.run("run", "tiny"))


def disk_filled(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """The same with the checkpoints there."""
    with filled(whole, folder, rng, checkpoints=True) as (house, outcomes):
        return outcomes | judge(house, whole.wanted, house.run("run", "tiny"))


def results_filled(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """Too little room for the records and their scores."""
    house = whole.house.copy(folder, results=False)
    need = _size(whole.house.folder / "results")
    with small_disk(house.folder / "results", 4096 * rng.randrange(1, need // 4096)) as enlarge:
        if not enlarge:
            return set()
        outcomes = _refused(house, whole.wanted, house.run("run", "tiny"), "No space left")
        enlarge()
        return outcomes | judge(house, whole.wanted, house.run("run", "tiny"))


@contextlib.contextmanager
def filled(whole: Whole, folder: Path, rng: random.Random, *, checkpoints: bool) -> Iterator[tuple[House, set[str]]]:
    """A checkout whose run had too little room, and what was not survived of that; inside the block there is room."""
    house = whole.house.copy(folder, results=False, cache=False)
    need, there = _size(whole.house.cache), _size(whole.house.cache / "checkpoints") if checkpoints else 0
    with small_disk(house.cache, there + rng.randrange(8192, need - there)) as enlarge:
        if checkpoints:
            shutil.copytree(whole.house.cache / "checkpoints", house.cache / "checkpoints")
        ended = house.run("run", "tiny", limit=None if enlarge else rng.randrange(1024, need // 4))
        outcomes = _refused(house, whole.wanted, ended, "No space left" if enlarge else "File too large")
        if enlarge:
            enlarge()
        yield house, outcomes


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], object] | None]:
    """Mount a file system of so many bytes at a new folder. In the block there is what gives it room; None where it may not be
    mounted."""
    folder.mkdir()
    mounted = _mount(folder, size)
    more = ["mount", "-o", f"remount,size={size + (256 << 20)}", str(folder)]
    try:
        yield partial(subprocess.run, more, check=True) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _size(folder: Path) -> int:
    """Bytes of the pages that a tmpfs keeps."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def _mount(folder: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _refused(house: House, wanted: Wanted, ended: subprocess.CompletedProcess[str], words: str) -> set[str]:
    """Whether a run without room says so, in lines, and leaves nothing wrong. A training that would find none does not begin."""
    outcomes = set()
    records = house.readable()
    if ended.returncode not in (0, 1, 2) or "Traceback" in ended.stderr:
        outcomes.add("stuck")
    told = ended.stderr + str(records)
    if ended.returncode and not any(one in told for one in (words, "for its states and its result")):
        outcomes.add("silent")
    if any(wanted[key] != value for key, value in map(accuracy_of, measured(records))):
        outcomes.add("wrong")
    return tell(house, ended, outcomes)


def two_runners(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    house = whole.house.copy(folder, results=False)
    return at_once(house, rng) | judge(house, whole.wanted, house.run("run", "tiny"))


def at_once(house: House, rng: random.Random) -> set[str]:
    """A second run begins while the first is at work: it waits for nothing, refuses, or finds all done. `site` looks on."""
    ended: list[subprocess.CompletedProcess[str]] = []
    threads = []
    for words in (("run", "tiny"), ("run", "tiny"), ("site", "--out", str(house.folder / "_site"))):
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
    return outcomes


FAULTS: dict[str, Fault] = {
    "kill: run": kill_run,
    "kill: measuring": kill_measuring,
    "kill: QAT, distillation": kill_training,
    "kill: export": kill_export,
    "kill: rescore": kill_rescore,
    "kill: pick": kill_pick,
    **{f"bit flip: {kind}": flip(kind) for kind in ARTEFACTS if kind != "base model"},
    "bit flip: base model": flip_base_model,
    "bit flip: interrupted run": flip_interrupted,
    "full disk": full_disk,
    "full disk: measuring": disk_filled,
    "full disk: results": results_filled,
    "two runners": two_runners,
}
