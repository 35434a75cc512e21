"""Plain text as token sequences, for general distillation and for training masked language models."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from backends import artefacts
from harness.checkpoints.training.devices import process_group
from harness.errors import CheckpointError
from harness.machine.digests import digest, file_hash
from harness.plan.sources import check_unchanged, corpus_files, corpus_identity
from harness.plan.spec import CheckpointSpec
from tasks import DataRef, Features
from tasks.tokens import bare, sequences, special_tokens, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


TEXT_VERSION = 1
"""Raised on purpose when the way from text to sequences changes: part of the key under which sequences are kept."""

LINES_AT_A_TIME = 20_000
"""Lines that are tokenized together. The whole corpus may not fit into memory."""

FILES = ("input_ids", "token_type_ids", "lengths")
"""Raw arrays of the sequences, one file each."""

Ids = np.ndarray[Any, np.dtype[np.int32]]

Row = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]
"""Token ids and token types of one sequence, and the index of the example that it comes from."""


def text_features(spec: CheckpointSpec, tokenizer: Tokenizer, cache: Path) -> Features:
    """The corpus as sequences of at most `spec.shape.max_length` tokens, without labels, memory-mapped from the cache.

    Each sequence is [CLS] a [SEP] b [SEP], made of consecutive lines of one document, as many as fit; they are cut in two at a
    line that is drawn with the seed. A single line gives [CLS] a [SEP]; a line that is too long is cut into pieces. This is
    BERT's pretraining input without its random next sentences and its short sequences (arXiv 1810.04805, appendix A.2).

    Raises CheckpointError where there is no text, or where it changed since the plan.
    """
    max_length = spec.shape.max_length
    key = digest(
        [TEXT_VERSION, dict(spec.identity or {}).get("corpus"), max_length, spec.seed, digest(tokenizer.to_str())]
    )

    def rows() -> Iterator[Row]:
        special = special_tokens(tokenizer)
        room = max_length - special.count(2)
        for first, second in _segments(spec.data, tokenizer, room, np.random.default_rng(spec.seed)):
            ids, types, _ = sequences([first], [second] if len(second) else None, special)
            yield ids[0], types[0], 0
        check_unchanged(spec, "corpus", corpus_identity(spec.data)[0]["corpus"])

    with process_group().main_process_first():
        folder = write_sequences(cache / "corpus" / key, rows, max_length)
    features = read_sequences(folder, max_length)
    if not len(features):
        raise CheckpointError("corpus: its files hold no text; put plain text into corpus/*.txt")
    return features


def describe_corpus(spec: CheckpointSpec, features: Features) -> dict[str, Any]:
    """What origin.json says of the text. It is the user's own and has no name, so its files are identified by SHA-256."""
    files = corpus_files(spec.data)
    return {
        "label": "sample" if spec.data.kind == "sample" else "own text",
        "files": {file.name: file_hash(file) for file in files},
        "bytes": sum(file.stat().st_size for file in files),
        "sequences": len(features),
        "max_length": spec.shape.max_length,
        "identity": dict(spec.identity or {}).get("corpus"),
    }


def write_sequences(folder: Path, rows: Callable[[], Iterator[Row]], max_length: int) -> Path:
    """Write sequences to `folder` unless it exists: completely or not at all, and only once where several processes want it.
    Each is padded with 0 to `max_length` tokens."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if artefacts.usable(folder, folder.parents[1]):
            return folder
        part = folder.with_name(f".part-{folder.name}")
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
        part.mkdir()
        try:
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context((part / name).open("wb")) for name in FILES]
                for ids, types, example in rows():
                    padded: tuple[np.ndarray[Any, Any], ...] = (
                        np.zeros(max_length, np.int32),
                        np.zeros(max_length, np.int8),
                        np.array([len(ids), example], np.int64),
                    )
                    padded[0][: len(ids)], padded[1][: len(ids)] = ids, types
                    for file, values in zip(files, padded, strict=True):
                        file.write(values.tobytes())
            artefacts.seal_folder(part)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def read_sequences(folder: Path, max_length: int) -> Features:
    """What `write_sequences` wrote, memory-mapped and without labels: (sequences, max_length)."""
    lengths, examples = np.fromfile(folder / "lengths", np.int64).reshape(-1, 2).T
    shape = (len(lengths), max_length)
    ids, types = (
        np.memmap(folder / name, dtype, "r", shape=shape) if len(lengths) else np.zeros(shape, dtype)
        for name, dtype in zip(FILES, (np.int32, np.int8), strict=False)
    )
    return Features(ids, types, np.ascontiguousarray(lengths), np.ascontiguousarray(examples))


def _segments(data: DataRef, tokenizer: Tokenizer, room: int, draw: np.random.Generator) -> Iterator[tuple[Ids, Ids]]:
    """Pairs of texts with at most `room` tokens together; the second may be empty."""
    for document in _tokenized(data, tokenizer):
        pieces = [line[start : start + room] for line in document for start in range(0, len(line), room)]
        pending: list[Ids] = []
        for piece in pieces:
            if pending and sum(map(len, pending)) + len(piece) > room:
                yield _in_two(pending, draw)
                pending = []
            pending.append(piece)
        if pending:
            yield _in_two(pending, draw)


def _in_two(lines: Sequence[Ids], draw: np.random.Generator) -> tuple[Ids, Ids]:
    cut = int(draw.integers(1, len(lines))) if len(lines) > 1 else 1
    second = np.concatenate(lines[cut:]) if len(lines) > 1 else np.zeros(0, np.int32)
    return np.concatenate(lines[:cut]), second


def _tokenized(data: DataRef, tokenizer: Tokenizer) -> Iterator[list[Ids]]:
    """The documents, each as a list of its lines' token ids."""
    without_template = bare(tokenizer)
    pending: list[list[str]] = []
    for document in documents(data):
        pending.append(document)
        if sum(map(len, pending)) >= LINES_AT_A_TIME:
            yield from _token_ids(pending, without_template)
            pending = []
    yield from _token_ids(pending, without_template)


def _token_ids(documents: list[list[str]], tokenizer: Tokenizer) -> Iterator[list[Ids]]:
    ids = iter(token_ids(tokenizer, [line for document in documents for line in document]))
    for document in documents:
        yield [next(ids) for _ in document]


def documents(data: DataRef) -> Iterator[list[str]]:
    """The documents of the corpus, each as a list of lines: those of `corpus/*.txt`, which a blank line separates, or the
    sample's. Raises CheckpointError for a file that is not UTF-8."""
    if data.kind == "sample":
        from tasks.sample import sample_corpus

        yield from sample_corpus()
        return
    for file in corpus_files(data):
        lines: list[str] = []
        try:
            with file.open(encoding="utf-8") as content:
                for line in content:
                    if line.strip():
                        lines.append(line.strip())
                    elif lines:
                        yield lines
                        lines = []
        except UnicodeDecodeError:
            raise CheckpointError(f"{file}: is not UTF-8; convert it to UTF-8") from None
        if lines:
            yield lines
