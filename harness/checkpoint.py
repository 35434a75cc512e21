"""Source + recipe -> Checkpoint: made once, under a lock, in a process of its own; immutable and content-addressed.

`python -m harness.checkpoint JOB.json` makes one. A checkpoint is a plain Hugging Face folder (config.json, model.safetensors,
tokenizer files), with `ranges.json` where it was calibrated, and `origin.json`: where it came from and how it was made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import CheckpointSpec
from harness.errors import CheckpointError, QuantboardError, SourceUnavailable
from tasks import Task, open_task

if TYPE_CHECKING:
    from harness.record import Checkpoint

USER_FAULT = 3
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json")


def folder_of(spec: CheckpointSpec, cache: Path) -> Path:
    """Where the checkpoint lies once it is made."""
    return cache / "checkpoints" / spec.key


def ensure(spec: CheckpointSpec, cache: Path) -> Path:
    """The checkpoint's folder, made now if it is not there. A second process that wants the same waits for the first.

    Raises CheckpointError (its parts: SourceUnavailable), TaskError, BackendError.
    """
    target = folder_of(spec, cache)
    if target.is_dir():
        return target
    from filelock import FileLock, Timeout

    if spec.parent:
        ensure(spec.parent, cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            print(f"waits for another process that makes {spec.model} on {spec.task}", file=sys.stderr, flush=True)
            lock.acquire()
        try:
            if not target.is_dir():
                _make(spec, cache, target)
        finally:
            lock.release()
    except OSError as error:
        if error.strerror is None:
            raise
        raise CheckpointError(
            f"{target.parent}: {error.strerror}; free some space or move the cache with QUANTBOARD_CACHE"
        ) from None
    return target


def _make(spec: CheckpointSpec, cache: Path, target: Path) -> None:
    part = target.with_name(f".part-{spec.key}-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    state = target.with_name(f".state-{spec.key}")
    try:
        task = open_task(spec.task, spec.data)
        facts = (
            _calibrate(spec, cache, task, part)
            if spec.recipe == "ptq"
            else _load_or_train(spec, task, cache, part, state)
        )
        origin = facts | _origin(spec, task, part)
        (part / "origin.json").write_text(json.dumps(origin, indent=1))
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(state, ignore_errors=True)


def _load_or_train(spec: CheckpointSpec, task: Task, cache: Path, part: Path, state: Path) -> dict[str, Any]:
    import torch
    from transformers import AutoConfig, AutoTokenizer, BertConfig

    from harness.machine import cores
    from harness.training.cpu import prepare_process
    from harness.training.finetune import auto_class, dropout_config, finetune, head_config
    from harness.training.settings import TrainSettings

    prepare_process(cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if spec.parent:
        source: Path | None = folder_of(spec.parent, cache)
    else:
        source = None if spec.source == "scratch" else find_source(spec.source)
    if source is None:
        from tasks.sample import sample_tokenizer

        architecture = dict(spec.architecture or {})
        raw = sample_tokenizer()
        raw.save(str(part / "tokenizer.json"))
        (part / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizerFast", "do_lower_case": True})
        )
        config: Any = BertConfig(
            vocab_size=raw.get_vocab_size(), max_position_embeddings=max(512, spec.shape.max_length), **architecture
        )
    else:
        config = AutoConfig.from_pretrained(source)
        AutoTokenizer.from_pretrained(source).save_pretrained(part)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(part / "tokenizer.json"))
    if spec.shape.max_length > config.max_position_embeddings:
        raise CheckpointError(
            f"{spec.model}: shape.max_length {spec.shape.max_length} is more than the model's {config.max_position_embeddings} positions"
        )
    if spec.recipe == "load":
        model = _load(source, config, spec, task, auto_class(task))
        facts: dict[str, Any] = {}
    else:
        train = TrainSettings.model_validate(dict(spec.train or {}))
        for name, value in {**head_config(task), **dropout_config(train.dropout)}.items():
            setattr(config, name, value)
        model, trained, examples = finetune(source, config, task, tokenizer, spec, state, device)
        facts = {
            "train_seconds": trained.seconds,
            "train_steps": trained.steps,
            "train_precision": trained.precision,
            "train_device": device,
            "train_examples": examples,
            "loss_curve": trained.curve,
        }
    model.save_pretrained(part)
    return facts


def _load(source: Path | None, config: Any, spec: CheckpointSpec, task: Task, head: Any) -> Any:
    """A model used as it is: its head must be there and fit the task."""
    if source is None:
        return head.from_config(config)
    model, report = head.from_pretrained(source, config=config, output_loading_info=True)
    lacking = sorted(name for name in report["missing_keys"] if "position_ids" not in name)
    if lacking:
        raise CheckpointError(
            f"{spec.model}: {spec.source} has no weights for {', '.join(lacking[:3])}; it was made for another task than {spec.task}: use recipe 'finetune'"
        )
    if task.labels and config.num_labels != len(task.labels):
        raise CheckpointError(
            f"{spec.model}: {spec.source} has {config.num_labels} labels, {spec.task} has {len(task.labels)}"
        )
    return model


def find_source(source: str) -> Path:
    """The folder of `hub:ID`, `package:NAME/SUBDIR` or an absolute folder. Raises SourceUnavailable or CheckpointError."""
    kind, _, name = source.partition(":")
    if kind == "package":
        package, _, folder = name.partition("/")
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SourceUnavailable(
                f"{source}: package {package} is not installed", f"python -m pip install {package.replace('_', '-')}"
            )
        path = Path(next(iter(found.submodule_search_locations))) / folder
    elif kind == "hub":
        path = download(name)
    else:
        path = Path(source)
    for file in ("config.json", "model.safetensors"):
        if not (path / file).is_file():
            raise SourceUnavailable(
                f"{source}: has no {file}", "give a folder of a Hugging Face model with safetensors weights"
            )
    return path


def download(name: str) -> Path:
    """A model from the hub: config, tokenizer and safetensors, never pickled weights. Raises SourceUnavailable with the remedy."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*TOKENIZER_FILES, "model.safetensors"]
    try:
        path = Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=5))
        if not (path / "model.safetensors").is_file():  # many older repositories have a conversion by the hub's own bot
            path = Path(snapshot_download(name, revision="refs/pr/1", allow_patterns=patterns, etag_timeout=5))
    except GatedRepoError:
        raise SourceUnavailable(
            f"hub:{name}: its owner must grant access", "accept its terms on the hub and set HF_TOKEN"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise SourceUnavailable(
            f"hub:{name}: not found, or without safetensors weights, or not for you",
            "check the id; for a private one set HF_TOKEN",
        ) from None
    except LocalEntryNotFoundError:
        raise SourceUnavailable(
            f"hub:{name}: the hub does not answer", "go online, or set HF_ENDPOINT to a mirror"
        ) from None
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise SourceUnavailable(
            f"hub:{name}: the download failed: {text}", "try again; what has arrived is kept"
        ) from None
    return path


def _calibrate(spec: CheckpointSpec, cache: Path, task: Task, part: Path) -> dict[str, Any]:
    """Ranges for a post-training scheme, from training examples drawn with the seed; weights are the parent's."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer

    from backends.fake_quant.calibrate import calibrate
    from backends.ranges import write_ranges
    from harness.machine import cores

    assert spec.parent is not None and spec.scheme is not None
    parent = folder_of(spec.parent, cache)
    for file in sorted(parent.iterdir()):
        if file.name not in ("origin.json", "ranges.json"):
            _link(file, part / file.name)
    settings = {"samples": 128, "batch_size": 16, **(spec.calibration or {})}
    torch.set_num_threads(cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    examples = task.examples("train")
    drawn = np.random.default_rng(spec.seed).permutation(len(examples))[: settings["samples"]]
    features = task.features(
        [examples[index] for index in sorted(drawn)], Tokenizer.from_file(str(parent / "tokenizer.json")), spec.shape
    )

    def batches() -> Iterator[dict[str, Any]]:
        for at in range(0, len(features), settings["batch_size"]):
            rows = slice(at, at + settings["batch_size"])
            lengths = features.lengths[rows]
            width = int(lengths.max())
            yield {
                "input_ids": features.input_ids[rows, :width].astype(np.int64),
                "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
                "token_type_ids": features.token_type_ids[rows, :width].astype(np.int64),
            }

    start = time.monotonic()
    write_ranges(part, calibrate(parent, batches(), spec.scheme, spec.seed, device))
    inherited = json.loads((parent / "origin.json").read_text())
    kept = ("train_seconds", "train_device", "train_examples", "train_steps", "train_precision", "loss_curve")
    return {name: inherited[name] for name in kept if name in inherited} | {
        "calibration_seconds": time.monotonic() - start
    }


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _origin(spec: CheckpointSpec, task: Task, folder: Path) -> dict[str, Any]:
    """What made the checkpoint; names no folder of the machine."""
    from safetensors import safe_open

    from harness import machine

    config = json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        parameters = 0
        for name in weights.keys():  # noqa: SIM118 (a safetensors file is no dict)
            count = 1
            for size in weights.get_slice(name).get_shape():
                count *= size
            parameters += count
    root = spec.parent or spec
    here = machine.describe()
    return {
        "format": 1,
        "key": spec.key,
        "model": spec.model,
        "task": spec.task,
        "source": "a local folder" if root.source.startswith("/") else root.source,
        "recipe": spec.recipe,
        "stand_in": root.source == "scratch" and spec.data.kind == "sample",
        "scheme": spec.scheme,
        "settings": dict((spec.calibration if spec.recipe == "ptq" else spec.train) or {}) | {"seed": spec.seed},
        "data": {name: split.label for name, split in task.identity.splits.items()},
        "data_sha256": {name: split.sha256 for name, split in task.identity.splits.items()},
        "parent": spec.parent.key if spec.parent else None,
        "architecture": {name: config[name] for name in SIZES if name in config}
        | ({"num_labels": len(task.labels)} if task.labels else {}),
        "parameters": parameters,
        "weights_bytes": (folder / "model.safetensors").stat().st_size,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "made_by": {
            "software": machine.software(("torch", "transformers", "tokenizers")),
            "machine": {name: here[name] for name in ("cpu", "cores", "flags", "gpus")},
        },
    }


def describe(folder: Path) -> Checkpoint:
    """A checkpoint folder as a record keeps it."""
    from harness.record import Checkpoint

    origin = json.loads((folder / "origin.json").read_text())
    return Checkpoint(
        key=origin["key"],
        recipe=origin["recipe"],
        source=origin["source"],
        stand_in=origin["stand_in"],
        architecture=origin["architecture"],
        parameters=origin["parameters"],
        weights_bytes=origin["weights_bytes"],
        scheme=origin["scheme"],
        train=origin["settings"],
        train_seconds=origin.get("train_seconds"),
        train_device=origin.get("train_device"),
        train_examples=origin.get("train_examples"),
        calibration_seconds=origin.get("calibration_seconds"),
        parent=origin["parent"],
        made_by=origin["made_by"],
    )


def main(arguments: Sequence[str]) -> int:
    from backends import BackendError
    from harness.children import die_with_parent
    from tasks import TaskError

    die_with_parent()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    job = json.loads(Path(arguments[0]).read_text())
    try:
        folder = ensure(CheckpointSpec.from_json(job["spec"]), Path(job["cache"]))
    except SourceUnavailable as error:
        print(json.dumps({"kind": "unavailable", "error": error.reason, "remedy": error.remedy}))
        return USER_FAULT
    except (QuantboardError, TaskError, BackendError) as error:
        print(json.dumps({"kind": "failed", "error": str(error)}))
        return USER_FAULT
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"folder": str(folder)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
