"""Source + recipe -> Checkpoint: made once, under a lock, in a process of its own; immutable and content-addressed.

`python -m harness.checkpoints.make JOB.json` makes one; JOB holds a CheckpointSpec as `spec` and the cache's folder as `cache`. A
checkpoint is a plain Hugging Face folder (config.json, model.safetensors, tokenizer files), with `ranges.json` where it was
calibrated, and `origin.json`: where it came from and how it was made.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.checkpoints.origin import origin, parent_weights, stale_parent
from harness.checkpoints.recipes import run_recipe, task_of
from harness.checkpoints.training import states
from harness.errors import CheckpointError, QuantboardError, SourceUnavailable, cache_fault
from harness.machine.processes import INTERRUPTED, USER_FAULT
from harness.plan.sources import corpus_identity, glove_identity, look_up, ranges_of
from harness.plan.spec import CheckpointSpec, folder_of


def ensure(spec: CheckpointSpec, cache: Path) -> Path:
    """The checkpoint's folder, made now if it is not there, its parents too. A second process that wants the same one waits for
    the first.

    Raises CheckpointError (SourceUnavailable is one), TaskError, BackendError; KeyboardInterrupt after training saved its state.
    """
    from safetensors import SafetensorError

    target = folder_of(spec, cache)
    if why := stale_parent(spec, target.parent):
        raise CheckpointError("; ".join(why))
    if target.is_dir():
        return target
    for one in spec.needs:
        ensure(one, cache)
    try:
        _make_once(spec, cache, target)
    except (OSError, SafetensorError) as error:
        if (fault := cache_fault(error, target.parent)) is None:
            raise
        raise fault from None
    return target


def _make_once(spec: CheckpointSpec, cache: Path, target: Path) -> None:
    from filelock import FileLock, Timeout

    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        _say(f"waits for another process that makes {spec.model} on {spec.task}")
        lock.acquire()
    try:
        if not target.is_dir():
            _make(spec, cache, target)
    finally:
        lock.release()


def _make(spec: CheckpointSpec, cache: Path, target: Path) -> None:
    """Under the lock: whole and on the disk before it has its name."""
    for left in target.parent.glob(f".part-{spec.key}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = target.with_name(f".part-{spec.key}-{os.getpid()}")
    check_inputs_unchanged(spec)
    before = parent_weights(spec, target.parent)
    part.mkdir()
    try:
        facts = _follow(spec, cache, part)
        check_inputs_unchanged(spec)
        if (
            not all((target.parent / one.key).is_dir() for one in spec.needs)
            or parent_weights(spec, target.parent) != before
        ):
            raise CheckpointError(
                f"{spec.model} on {spec.task}: a checkpoint that it is made from was replaced meanwhile; run it again"
            )
        facts |= origin(spec, task_of(spec), part, before)
        (part / "origin.json").write_text(json.dumps(facts, indent=1, allow_nan=False))
        for file in part.iterdir():
            _sync(file)
        part.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(states.state_folder(spec, cache), ignore_errors=True)


def check_inputs_unchanged(spec: CheckpointSpec) -> None:
    """Raises CheckpointError where training data, corpus, word vectors or the source's files are not (any more) those that the
    key, and records, name: what is made of others must not go by it."""
    planned, found = spec.identity or {}, dict[str, str]()
    task = task_of(spec) if "train" in planned else None
    if task and "train" in task.identity.splits:
        found["train"] = task.identity.splits["train"].sha256
    if "corpus" in planned:
        found |= corpus_identity(spec.data)[0]
    if "glove" in planned:
        found["glove"] = glove_identity(spec)
    if "config" in planned and (source := look_up(spec.source, Path(), hub=False)).blocked is None:
        found |= source.identity
    if "ranges" in planned:
        found |= {"ranges": "absent"} | ranges_of(spec.source)[1]
    changed = [name for name, value in found.items() if planned.get(name, value) != value]
    if changed:
        raise CheckpointError(
            f"{spec.model} on {spec.task}: {', '.join(changed)}: other content than when this was planned; run it again"
        )


def _follow(spec: CheckpointSpec, cache: Path, part: Path) -> dict[str, Any]:
    """The recipe, into `part`; returns what origin.json says of it."""
    wanted = 1 if spec.recipe == "ptq" else (spec.train or {}).get("devices", 1)
    if wanted > 1:
        from harness.checkpoints import distributed

        size = distributed.count(spec)
        if size < wanted:
            _say(
                f"{spec.model}: {wanted} devices asked for, {size} here: the same batches, a larger part of each on one"
            )
        if size > 1:
            return distributed.follow(spec, cache, part, size)
    return run_recipe(spec, cache, part)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Progress goes to stderr; the last line on stdout is JSON: folder and seconds, or error, remedy and kind."""
    from backends import BackendError
    from harness.machine.processes import die_with_parent
    from tasks import TaskError

    die_with_parent()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    start = time.monotonic()
    try:
        job = json.loads(Path(arguments[0]).read_text())
        folder = ensure(CheckpointSpec.from_json(job["spec"]), Path(job["cache"]))
    except SourceUnavailable as error:
        print(json.dumps({"kind": "unavailable", "error": error.reason, "remedy": error.remedy}))
        return USER_FAULT
    except (QuantboardError, TaskError, BackendError) as error:
        print(json.dumps({"kind": "failed", "error": str(error), "remedy": "", "log": getattr(error, "log", ())}))
        return USER_FAULT
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps({"folder": str(folder), "seconds": time.monotonic() - start}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
