"""Source + recipe -> Checkpoint: made once, under a lock, in a process of its own; immutable and content-addressed.

`python -m harness.checkpoint JOB.json` makes one; JOB holds a CheckpointSpec as `spec` and the cache's folder as `cache`. A
checkpoint is a plain Hugging Face folder (config.json, model.safetensors, tokenizer files), with `ranges.json` where it was
calibrated, and `origin.json`: where it came from and how it was made.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import CheckpointSpec
from harness.errors import CheckpointError, QuantboardError, SourceUnavailable
from harness.fetch import find_source
from tasks import Features, Task, open_task

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from harness.record import Checkpoint

USER_FAULT = 3
INTERRUPTED = 130
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
OF_TRAINING = (
    "train_seconds",
    "train_device",
    "train_examples",
    "train_windows",
    "train_steps",
    "train_precision",
    "loss_curve",
)
"""What origin.json says of a training; a checkpoint that only adds ranges inherits it."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def folder_of(spec: CheckpointSpec, cache: Path) -> Path:
    """Where the checkpoint lies once it is made."""
    return cache / "checkpoints" / spec.key


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a checkpoint folder, without transformers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def ensure(spec: CheckpointSpec, cache: Path) -> Path:
    """The checkpoint's folder, made now if it is not there, its parents too. A second process that wants the same one waits for
    the first.

    Raises CheckpointError (SourceUnavailable is one), TaskError, BackendError; KeyboardInterrupt after training saved its state.
    """
    from safetensors import SafetensorError

    target = folder_of(spec, cache)
    if target.is_dir():
        return target
    if spec.parent:
        ensure(spec.parent, cache)
    try:
        _make_once(spec, cache, target)
    except (OSError, SafetensorError) as error:
        full = isinstance(error, SafetensorError) and "os error 28" in str(error)
        if not full and not (isinstance(error, OSError) and error.errno in _DISK):
            raise
        what = os.strerror(errno.ENOSPC) if full else os.strerror(getattr(error, "errno", None) or 0)
        raise CheckpointError(
            f"{target.parent}: {what}; free some space or move the cache with QUANTBOARD_CACHE"
        ) from None
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
    state = target.with_name(f".state-{spec.key}")
    part.mkdir()
    try:
        task = open_task(spec.task, spec.data)
        make = {"load": _load, "finetune": _finetune, "ptq": _calibrate}[spec.recipe]
        facts = make(spec, task, cache, part)
        (part / "origin.json").write_text(json.dumps(facts | _origin(spec, task, part), indent=1, allow_nan=False))
        for file in part.iterdir():
            _sync(file)
        part.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(state, ignore_errors=True)


def _load(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `load`: the weights as they are. Their head must fit the task."""
    import numpy as np

    from backends import BackendError
    from backends.bert import Weights, read_architecture
    from tasks import TaskError

    source = _source(spec, cache)
    if source is None:
        config = _config(spec, task, None)
        _tokenizer(spec, None, config, part)
        from harness.training.finetune import untrained

        untrained(config, task, spec.seed).save_pretrained(part)
        return {}
    try:
        architecture = read_architecture(source)
        Weights(source, architecture)
        if architecture.head != ("question_answering" if task.kind == "question_answering" else "classification"):
            raise BackendError(f"it has a head for {architecture.head.replace('_', ' ')}")
        if task.kind != "question_answering":  # are the classes the task's, by name?
            none = np.zeros((0, 1), np.int32)
            nothing = Features(none, none, np.zeros(0, np.int64), np.zeros(0, np.int64))
            task.decode([], nothing, np.zeros((0, architecture.labels), np.float32), label_names(source))
    except (BackendError, TaskError) as error:
        raise CheckpointError(
            f"{spec.model}: {_root(spec).source} does not fit {spec.task}: {error}; fine-tune it (recipe = 'finetune')"
            " or load one that was"
        ) from None
    _tokenizer(spec, source, _config(spec, task, source), part)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(source / file, part / file)
    return {}


def _finetune(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `finetune`: pretrained weights, or random ones, trained on the task."""
    import torch

    from backends import BackendError
    from harness.machine import cores
    from harness.training.cpu import prepare_process
    from harness.training.finetune import finetune, fit_to_task
    from harness.training.settings import TrainSettings

    source = _source(spec, cache)
    prepare_process(min(cores(), torch.get_num_threads()))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = _config(spec, task, source)
    tokenizer = _tokenizer(spec, source, config, part)
    try:
        fit_to_task(config, task, settings, part)
    except BackendError as error:
        why = str(error).removeprefix(f"{part / 'config.json'}: ")
        raise CheckpointError(f"{spec.model}: {_root(spec).source}: {why}") from None
    state = folder_of(spec, cache).with_name(f".state-{spec.key}")
    model, facts = finetune(source, config, task, tokenizer, spec, settings, state, device)
    model.save_pretrained(part, max_shard_size="1TB")
    return facts


def _source(spec: CheckpointSpec, cache: Path) -> Path | None:
    """The folder of the weights to start from; None for random ones."""
    if spec.parent:
        return folder_of(spec.parent, cache)
    if spec.source == "scratch":
        return None
    revision = (spec.identity or {}).get("revision")  # the plan says "unresolved" where the hub did not answer it
    return find_source(spec.source, None if revision == "unresolved" else revision)


def _config(spec: CheckpointSpec, task: Task, source: Path | None) -> Any:
    """transformers' configuration of the model. Raises CheckpointError where it can do nothing for the task or the shape."""
    from transformers import AutoConfig, BertConfig

    if source is None:
        from tasks.sample import sample_vocabulary

        if spec.recipe == "finetune" and spec.data.kind != "sample":
            raise CheckpointError(
                f"{spec.model}: source 'scratch' has the sample's vocabulary, which knows few words of real data;"
                " fine-tune a pretrained encoder (hub:ID, package:NAME/FOLDER or a folder)"
            )
        sizes: dict[str, Any] = dict(spec.architecture or {})
        config: Any = BertConfig(
            vocab_size=len(sample_vocabulary()), max_position_embeddings=max(512, spec.shape.max_length), **sizes
        )
    else:
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # a wrong type in it is an exception of yet another library's own
            raise CheckpointError(
                f"{spec.model}: {_root(spec).source}: config.json cannot be read ({_line(error)}); save the model again"
            ) from None
    positions = getattr(config, "max_position_embeddings", spec.shape.max_length)
    if spec.shape.max_length > positions:
        raise CheckpointError(
            f"{spec.model}: shape.max_length {spec.shape.max_length} is more than the {positions} positions of {_root(spec).source}"
        )
    return config


def _tokenizer(spec: CheckpointSpec, source: Path | None, config: Any, part: Path) -> Tokenizer:
    """Write the fast tokenizer's files, so that later processes need no transformers; returns it."""
    if source is None:
        from tasks.sample import sample_tokenizer

        sample_tokenizer().save(str(part / "tokenizer.json"))
        described = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}
        (part / "tokenizer_config.json").write_text(json.dumps(described))
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # the tokenizers library raises plain Exception for a broken file
            raise CheckpointError(
                f"{spec.model}: {_root(spec).source}: tokenizer.json or vocab.txt cannot be read ({_line(error)}); save them again"
            ) from None
        tokenizer.save_pretrained(part)
    if not (part / "tokenizer.json").is_file():
        raise CheckpointError(f"{spec.model}: {_root(spec).source}: has no fast tokenizer; save one as tokenizer.json")
    fast = load_tokenizer(part)
    if fast.get_vocab_size() > config.vocab_size:
        raise CheckpointError(
            f"{spec.model}: {_root(spec).source}: its tokenizer has {fast.get_vocab_size():,} pieces, its model takes"
            f" {config.vocab_size:,}; give the model's own tokenizer"
        )
    return fast


def _calibrate(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `ptq`: ranges for a post-training scheme, from training examples drawn with the seed; weights are the parent's."""
    import numpy as np
    import torch

    from backends import Device
    from backends.fake_quant.calibrate import calibrate
    from backends.ranges import write_ranges
    from harness.machine import cores

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a ptq checkpoint has a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    for file in sorted(parent.iterdir()):
        if file.name not in ("origin.json", "ranges.json"):
            _link(file, part / file.name)
    settings = {"samples": 128, "batch_size": 16, **(spec.calibration or {})}
    torch.set_num_threads(min(cores(), torch.get_num_threads()))
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    examples = task.examples("train")
    drawn = np.sort(np.random.default_rng(spec.seed).permutation(len(examples))[: settings["samples"]])
    features = task.features([examples[index] for index in drawn], load_tokenizer(parent), spec.shape)
    start = time.monotonic()
    write_ranges(part, calibrate(parent, batches(features, settings["batch_size"]), spec.scheme, spec.seed, device))
    inherited = json.loads((parent / "origin.json").read_text())
    return {name: inherited[name] for name in OF_TRAINING if name in inherited} | {
        "calibration_seconds": time.monotonic() - start
    }


def batches(features: Features, size: int) -> Iterator[dict[str, Any]]:
    """Batches in the features' order, each padded to its own longest, as `Session.run` takes them."""
    import numpy as np

    for at in range(0, len(features), size):
        rows = slice(at, at + size)
        lengths = features.lengths[rows]
        width = int(lengths.max())
        yield {
            "input_ids": features.input_ids[rows, :width].astype(np.int64),
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
            "token_type_ids": features.token_type_ids[rows, :width].astype(np.int64),
        }


def label_names(folder: Path) -> tuple[str, ...]:
    """The model's own names of its classes, in its numbering."""
    named: dict[str, str] = json.loads((folder / "config.json").read_text()).get("id2label") or {}
    return tuple(named[index] for index in sorted(named, key=int))


def _origin(spec: CheckpointSpec, task: Task, folder: Path) -> dict[str, Any]:
    """What made the checkpoint; names no folder of the machine."""
    from math import prod

    from safetensors import safe_open

    from harness import machine

    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="np") as stored:
        parameters = sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118 (no dict)
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    here = machine.describe()
    commit, dirty = machine.commit()
    return {
        "format": 1,
        "key": spec.key,
        "model": spec.model,
        "task": spec.task,
        "source": "a local folder" if _root(spec).source.startswith("/") else _root(spec).source,
        "recipe": spec.recipe,
        "stand_in": _root(spec).source == "scratch" and spec.data.kind == "sample",
        "scheme": spec.scheme,
        "seed": spec.seed,
        "settings": dict((spec.calibration if spec.recipe == "ptq" else spec.train) or {}) | {"seed": spec.seed},
        "data": {name: split.label for name, split in task.identity.splits.items()},
        "data_sha256": {name: split.sha256 for name, split in task.identity.splits.items()},
        "identity": dict(spec.identity or {}),
        "parent": spec.parent.key if spec.parent else None,
        "architecture": {name: config[name] for name in SIZES if name in config}
        | ({"num_labels": len(task.labels)} if task.labels else {}),
        "parameters": parameters,
        "weights_bytes": weights.stat().st_size,
        "weights_sha256": sha256,
        "made_by": {
            "software": machine.software(("torch", "transformers", "tokenizers", "safetensors", "numpy")),
            "machine": {name: here[name] for name in ("cpu", "cores", "flags", "gpus")},
            "commit": commit,
            "dirty": dirty,
        },
    }


def _root(spec: CheckpointSpec) -> CheckpointSpec:
    return _root(spec.parent) if spec.parent else spec


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def describe(folder: Path) -> Checkpoint:
    """A checkpoint folder as a record keeps it."""
    from harness.record import Checkpoint

    origin = json.loads((folder / "origin.json").read_text())
    same = (
        "key", "recipe", "source", "stand_in", "architecture", "parameters", "weights_bytes", "scheme", "parent", "made_by"
    )  # fmt: skip
    of_making = ("train_seconds", "train_device", "train_examples", "calibration_seconds")
    return Checkpoint(
        **{name: origin[name] for name in same},
        **{name: origin.get(name) for name in of_making},
        train=origin["settings"],
    )


def main(arguments: Sequence[str]) -> int:
    """Progress goes to stderr; the last line on stdout is JSON: folder and seconds, or error, remedy and kind."""
    from backends import BackendError
    from harness.children import die_with_parent
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
        print(json.dumps({"kind": "failed", "error": str(error), "remedy": ""}))
        return USER_FAULT
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps({"folder": str(folder), "seconds": time.monotonic() - start}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
