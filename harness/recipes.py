"""The recipes: each writes a checkpoint's files into a folder and says how it went.

Heavy modules are imported inside: planning reads names from here.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import CheckpointSpec, folder_of
from harness.errors import CheckpointError
from harness.fetch import find_source
from harness.labels import label_names
from harness.origin import OF_TRAINING, root
from harness.training.settings import TrainSettings
from tasks import Features, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a checkpoint folder, without transformers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def load(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `load`: the weights as they are. Their head must fit the task."""
    import numpy as np

    from backends import BackendError
    from backends.bert import Weights, read_architecture
    from backends.ranges import read_ranges
    from tasks import TaskError

    source = source_of(spec, cache)
    if source is None:
        config = config_of(spec, None)
        write_tokenizer(spec, None, config, part)
        from harness.training.finetune import fit_head, untrained

        fit_head(config, task)
        untrained(config, task, spec.seed).save_pretrained(part)
        return {}
    try:
        architecture = read_architecture(source)
        weights = Weights(source, architecture)
        for name in weights:
            weights[name]  # reads it: an engine would answer NaN, and be scored for it
        if architecture.head != ("question_answering" if task.kind == "question_answering" else "classification"):
            raise BackendError(f"it has a head for {architecture.head.replace('_', ' ')}")
        if task.kind != "question_answering":  # are the classes the task's, by name?
            none = np.zeros((0, 1), np.int32)
            nothing = Features(none, none, np.zeros(0, np.int64), np.zeros(0, np.int64))
            task.decode([], nothing, np.zeros((0, architecture.labels), np.float32), label_names(source, task))
        if (made_for := _made_for(source)) not in (None, spec.task):
            raise BackendError(f"its origin.json says that it was made for {made_for}")
    except (BackendError, TaskError) as error:
        why = str(error).removesuffix("; fine-tune it first")
        raise CheckpointError(
            f"{spec.model}: {root(spec).source} does not fit {spec.task}: {why}; fine-tune it (recipe = 'finetune') or load one"
            " that was"
        ) from None
    write_tokenizer(spec, source, config_of(spec, source), part)
    copy_model(source, part)
    if spec.scheme:
        shutil.copyfile(source / "ranges.json", part / "ranges.json")
        try:
            read_ranges(source)
        except BackendError as error:
            raise CheckpointError(f"{spec.model}: {error}") from None
    return {}


def _made_for(source: Path) -> str | None:
    """The task of a checkpoint of ours, which may have the classes of another; None of any other folder."""
    try:
        found = json.loads((source / "origin.json").read_text())["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def finetune(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `finetune`: pretrained weights, or random ones, trained on the task."""
    from backends import BackendError
    from harness.training.finetune import finetune, fit_to_task

    source = source_of(spec, cache)
    device = begin_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = config_of(spec, source)
    tokenizer = write_tokenizer(spec, source, config, part)
    try:
        fit_to_task(config, task, settings, part)
    except BackendError as error:
        why = str(error).removeprefix(f"{part / 'config.json'}: ")
        raise CheckpointError(f"{spec.model}: {root(spec).source}: {why}") from None
    model, facts = finetune(source, config, task, tokenizer, spec, settings, state_of(spec, cache), device)
    model.save_pretrained(part, max_shard_size="1TB")
    return facts


def qat(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `qat`: the parent trained with quantizers; their ranges stand beside the folded weights."""
    from backends.ranges import write_ranges
    from harness.training.finetune import fit_to_task
    from harness.training.qat import qat

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a qat checkpoint has a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    device = begin_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = config_of(spec, parent)
    tokenizer = write_tokenizer(spec, parent, config, part)
    fit_to_task(config, task, settings, part)
    model, facts, ranges = qat(parent, config, task, tokenizer, spec, settings, state_of(spec, cache), device)
    model.save_pretrained(part, max_shard_size="1TB")
    write_ranges(part, ranges)
    return facts


def calibrate(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `ptq`: ranges for a post-training scheme, from training examples drawn with the seed; weights are the parent's."""
    import torch

    from backends import Device
    from backends.fake_quant.calibrate import calibrate as find_ranges
    from backends.fake_quant.schemes import get_scheme
    from backends.ranges import write_ranges
    from harness.machine import cores
    from harness.training.calibration import calibration_batches

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a ptq checkpoint has a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    for file in sorted(parent.iterdir()):
        if file.name not in ("origin.json", "ranges.json"):
            _link(file, part / file.name)
    torch.set_num_threads(min(cores(), torch.get_num_threads()))
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = calibration_batches(spec, get_scheme(spec.scheme), task, load_tokenizer(parent))
    start = time.monotonic()
    write_ranges(part, find_ranges(parent, batches, spec.scheme, spec.seed, device))
    inherited = json.loads((parent / "origin.json").read_text())
    return {name: inherited[name] for name in OF_TRAINING if name in inherited} | {
        "calibration_seconds": time.monotonic() - start
    }


def copy_model(source: Path, part: Path) -> None:
    """Weights as they are, and a configuration that transformers' Auto classes can read."""
    from backends.bert import read_config

    shutil.copyfile(source / "model.safetensors", part / "model.safetensors")
    (part / "config.json").write_text(json.dumps(read_config(source), indent=2))


def begin_training() -> str:
    """Prepare this process for a training; returns its device."""
    import torch

    from harness.machine import cores
    from harness.training.cpu import prepare_process
    from harness.training.devices import crew

    prepare_process(max(1, min(cores() // crew().size, torch.get_num_threads())))
    return "cuda" if torch.cuda.is_available() else "cpu"


def state_of(spec: CheckpointSpec, cache: Path) -> Path:
    """Where a training keeps the states that it resumes from."""
    return folder_of(spec, cache).with_name(f".state-{spec.key}")


def source_of(spec: CheckpointSpec, cache: Path) -> Path | None:
    """The folder of the weights to start from; None for random ones."""
    if spec.parent:
        return folder_of(spec.parent, cache)
    if spec.source == "scratch":
        return None
    revision = (spec.identity or {}).get("revision")  # the plan says "unresolved" where the hub did not answer it
    return find_source(spec.source, None if revision == "unresolved" else revision)


def config_of(spec: CheckpointSpec, source: Path | None) -> Any:
    """transformers' configuration of the model. Raises CheckpointError where it can do nothing for the task or the shape."""
    from transformers import AutoConfig, BertConfig

    from backends import BackendError
    from backends.bert import read_config

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
            kind: Any = BertConfig if read_config(source)["model_type"] == "bert" else AutoConfig
            config = kind.from_pretrained(source, trust_remote_code=False, local_files_only=True)
        except BackendError as error:
            why = str(error).removeprefix(f"{source / 'config.json'}: ")
            raise CheckpointError(f"{spec.model}: {root(spec).source}: config.json {why}") from None
        except Exception as error:  # a wrong type in it is an exception of yet another library's own
            raise CheckpointError(
                f"{spec.model}: {root(spec).source}: config.json cannot be read ({_line(error)}); save the model again"
            ) from None
    positions = getattr(config, "max_position_embeddings", spec.shape.max_length)
    if spec.shape.max_length > positions:
        raise CheckpointError(
            f"{spec.model}: shape.max_length {spec.shape.max_length} is more than the {positions} positions of {root(spec).source}"
        )
    return config


def write_tokenizer(spec: CheckpointSpec, source: Path | None, config: Any, part: Path) -> Tokenizer:
    """Write the fast tokenizer's files, so that later processes need no transformers; returns it."""
    if source is None:
        from tasks.sample import sample_tokenizer

        sample_tokenizer().save(str(part / "tokenizer.json"))
        described = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}
        (part / "tokenizer_config.json").write_text(json.dumps(described))
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, config=config, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises plain Exception for a broken file
            raise CheckpointError(
                f"{spec.model}: {root(spec).source}: tokenizer.json or vocab.txt cannot be read ({_line(error)}); save them again"
            ) from None
        tokenizer.save_pretrained(part)
    if not (part / "tokenizer.json").is_file():
        raise CheckpointError(f"{spec.model}: {root(spec).source}: has no fast tokenizer; save one as tokenizer.json")
    fast = load_tokenizer(part)
    if fast.get_vocab_size() > config.vocab_size:
        raise CheckpointError(
            f"{spec.model}: {root(spec).source}: its tokenizer has {fast.get_vocab_size():,} pieces, its model takes"
            f" {config.vocab_size:,}; give the model's own tokenizer"
        )
    return fast


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
