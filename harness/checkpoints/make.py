"""Make a checkpoint: once, under a lock, in a process of its own.

`python -m harness.checkpoints.make JOB.json` makes one; JOB.json holds a CheckpointSpec as `spec` and the folder of the cache as
`cache`. A checkpoint is immutable and its folder is named by its key. It is a plain Hugging Face folder (config.json,
model.safetensors, tokenizer files), with `ranges.json` where it has quantization ranges, `origin.json`, which says what it
was made from and how, and SHA256SUMS, the hashes of them all.
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

from backends import artefacts
from harness.checkpoints.intact import drop_broken
from harness.checkpoints.origin import build_origin, parent_weights, stale_parent
from harness.checkpoints.recipes import run_recipe, task_of
from harness.checkpoints.training.states import state_folder
from harness.errors import CheckpointError, QuantboardError, SourceUnavailable, cache_fault
from harness.machine.forks import QUIET
from harness.machine.processes import INTERRUPTED, USER_FAULT
from harness.plan.sources import corpus_identity, glove_identity, look_up, ranges_of
from harness.plan.spec import CheckpointSpec, folder_of


def main(arguments: Sequence[str]) -> int:
    """Progress goes to stderr. The last line on stdout is JSON: `folder` and `seconds`, or `kind`, `error` and `remedy`."""
    from backends import BackendError
    from harness.machine.processes import die_with_parent
    from tasks import TaskError

    die_with_parent()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
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


def ensure(spec: CheckpointSpec, cache: Path) -> Path:
    """The checkpoint's folder. It is made now where it does not exist, after the checkpoints that it needs. A second process
    that wants the same one waits for the first.

    Raises CheckpointError (SourceUnavailable is one), TaskError, BackendError, and KeyboardInterrupt after a training has saved
    its state.
    """
    from safetensors import SafetensorError

    target = folder_of(spec, cache)
    if broken := drop_broken(spec, cache):
        _log(broken)
    if stale := stale_parent(spec, target.parent):
        raise CheckpointError("; ".join(stale))
    if target.is_dir():
        return target
    for needed in spec.needs:
        ensure(needed, cache)
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
        _log(f"waits for another process that makes {spec.model} on {spec.task}")
        lock.acquire()
    try:
        if not target.is_dir():
            _make(spec, cache, target)
    finally:
        lock.release()


def _make(spec: CheckpointSpec, cache: Path, target: Path) -> None:
    """Make the checkpoint while its lock is held. Its folder gets its name after all of it is on the disk."""
    for leftover in target.parent.glob(f".part-{spec.key}-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    part = target.with_name(f".part-{spec.key}-{os.getpid()}")
    check_inputs_unchanged(spec)
    weights_before = parent_weights(spec, target.parent)
    part.mkdir()
    try:
        facts = _run_recipe(spec, cache, part)
        check_inputs_unchanged(spec)
        missing = [needed for needed in spec.needs if not (target.parent / needed.key).is_dir()]
        if missing or parent_weights(spec, target.parent) != weights_before:
            raise CheckpointError(
                f"{spec.model} on {spec.task}: a checkpoint that it is made from was replaced in the meantime; run the same"
                " command again"
            )
        facts |= build_origin(spec, task_of(spec), part, weights_before)
        (part / "origin.json").write_text(json.dumps(facts, indent=1, allow_nan=False))
        artefacts.seal_folder(part)
        part.rename(target)
        artefacts.sync(target.parent)
        artefacts.remember_folder(target, cache / "hashes")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(state_folder(spec, cache), ignore_errors=True)


def check_inputs_unchanged(spec: CheckpointSpec) -> None:
    """Raises CheckpointError where the training data, the corpus, the word vectors or the source's files have changed since the
    plan. The checkpoint's key and its records name the planned ones."""
    planned, current = spec.identity or {}, dict[str, str]()
    task = task_of(spec) if "train" in planned else None
    if task and "train" in task.identity.splits:
        current["train"] = task.identity.splits["train"].sha256
    if "corpus" in planned:
        current |= corpus_identity(spec.data)[0]
    if "glove" in planned:
        current["glove"] = glove_identity(spec)
    if "config" in planned and (source := look_up(spec.source, Path(), hub=False)).blocked is None:
        current |= source.identity
    if "ranges" in planned:
        current |= {"ranges": "absent"} | ranges_of(spec.source)[1]
    changed = [name for name, value in current.items() if planned.get(name, value) != value]
    if changed:
        raise CheckpointError(
            f"{spec.model} on {spec.task}: {', '.join(changed)}: the content has changed since the plan was made; run the same"
            " command again"
        )


def _run_recipe(spec: CheckpointSpec, cache: Path, output: Path) -> dict[str, Any]:
    """Run the recipe, in several processes where the training settings ask for it and the machine has the devices."""
    wanted = 1 if spec.recipe == "ptq" else (spec.train or {}).get("devices", 1)
    if wanted > 1:
        from harness.checkpoints import distributed

        size = distributed.process_count(spec)
        if size < wanted:
            _log(
                f"{spec.model}: train.devices is {wanted}, this machine has {size}: batches stay the same, each device"
                " computes more of them"
            )
        if size > 1:
            return distributed.run_recipe(spec, cache, output, size)
    return run_recipe(spec, cache, output)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
