"""A model folder as it is found, brought into the one form that all else reads: config.json, model.safetensors, a tokenizer.

Weights in several files are joined, PyTorch's own format is converted, and the prefix that training in parallel leaves in names
is taken off. Nothing is rounded: tensors keep their type and their bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from backends import BackendError, artefacts
from backends.model_files import SAFETENSORS, clean_names, data_start, is_pickled, tensor_headers, weight_files
from harness.errors import CheckpointError
from harness.machine.digests import digest, file_hash

_OTHERS = (".json", ".txt", ".model")
"""How files of configurations and tokenizers end."""
_VERSION = 1
"""Raised when the result changes, so that folders are made again."""


def plain_folder(source: Path, cache: Path, shown: str) -> Path:
    """The folder itself where it has the form already, else one in the cache that has. shown: what messages call the source.

    Raises CheckpointError.
    """
    try:
        files = weight_files(source)
        if files == [source / SAFETENSORS] and not _renamed(files[0]):
            return source
        others = [file for file in sorted(source.rglob("*")) if file.is_file() and file.name.endswith(_OTHERS)]
        others = [file for file in others if not file.name.endswith(".index.json")]
        content = {str(file.relative_to(source)): file_hash(file) for file in [*files, *others]}
        target = cache / "sources" / digest([_VERSION, content])
        if not artefacts.usable(target, cache):
            _make(files, others, source, target)
    except (BackendError, CheckpointError) as error:
        raise CheckpointError(f"{shown}: {error}") from None
    return target


def _renamed(file: Path) -> bool:
    """Whether the tensors have a prefix. LayerNorm's old names alone are read as they are."""
    names = clean_names(tensor_headers(file))
    return any(not new.startswith(old.rpartition(".")[0]) for old, new in names.items())


def _make(files: list[Path], others: list[Path], source: Path, target: Path) -> None:
    """Written aside and renamed, so that a folder of the name is complete."""
    part = target.with_name(f".part-{target.name}-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        for file in others:
            copy = part / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        if is_pickled(files[0]):
            raw = part / "unpickled.safetensors"
            _unpickle(files, raw)
            _join([raw], part / SAFETENSORS)
            raw.unlink()
        else:
            _join(files, part / SAFETENSORS)
        artefacts.seal_folder(part)
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpickle(files: list[Path], output: Path) -> None:
    command = [sys.executable, "-m", "harness.checkpoints.unpickle", str(output), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    name = files[0].name
    try:
        fault = json.loads(done.stdout.splitlines()[-1])["error"]
    except (ValueError, IndexError, KeyError, TypeError):
        fault = f"reading it ended with exit code {done.returncode}; get the model as model.safetensors"
    raise CheckpointError(f"{name}: {fault}")


def _join(files: list[Path], output: Path) -> None:
    """The tensors of safetensors files in one file, byte for byte."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[tuple[Path, int, int]] = []
    offset = 0
    entries = [(file, data_start(file), tensor_headers(file)) for file in files]
    names = clean_names(name for _, _, tensors in entries for name in tensors)
    for file, start, tensors in entries:
        for name, entry in tensors.items():
            first, last = entry["data_offsets"]
            header[names[name]] = {**entry, "data_offsets": [offset, offset + last - first]}
            parts.append((file, start + first, last - first))
            offset += last - first
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with output.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for file, start, length in parts:
            with file.open("rb") as stream:
                stream.seek(start)
                while length:
                    block = stream.read(min(length, 1 << 24))
                    if not block:
                        raise CheckpointError(f"{file.name}: is cut short; copy the model again")
                    target.write(block)
                    length -= len(block)
