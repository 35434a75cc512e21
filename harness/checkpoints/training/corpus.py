"""Plain text as sequences: what general distillation and masked language models are trained on."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from harness.checkpoints.training.devices import process_group
from harness.errors import CheckpointError
from harness.machine.digests import digest, file_hash
from harness.plan.sources import corpus_files, corpus_identity, same_as_planned
from harness.plan.spec import CheckpointSpec
from tasks import DataRef, Features
from tasks.tokens import bare, special_ids, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


TEXT_VERSION = 1
"""Of how text becomes sequences: what was kept of another version is not read."""


LINES = 20_000
"""Tokenized at a time: a corpus may be larger than the memory."""


Ids = np.ndarray[Any, np.dtype[np.int32]]


Row = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]
"""Token ids and types of one sequence, and which example it comes from."""


def text_features(spec: CheckpointSpec, tokenizer: Tokenizer, cache: Path) -> Features:
    """Sequences of at most `spec.shape.max_length` tokens without labels, in files of the cache.

    Like BERT's pretraining without its random next texts and short sequences: consecutive lines of one document as long as they fit, cut in two at a line drawn with the
    seed ([CLS] a [SEP] b [SEP]) where there are several. A line that is too long is cut into pieces. Raises CheckpointError
    where there is no text.
    """
    longest = spec.shape.max_length
    key = digest(
        [TEXT_VERSION, dict(spec.identity or {}).get("corpus"), longest, spec.seed, digest(tokenizer.to_str())]
    )

    def rows() -> Iterator[Row]:
        special = special_ids(tokenizer)
        for first, second in _segments(spec.data, tokenizer, longest - 3, np.random.default_rng(spec.seed)):
            head = np.concatenate([[special.cls], first, [special.sep]])
            tail = np.concatenate([second, [special.sep]]) if len(second) else second
            yield np.concatenate([head, tail]), np.repeat([0, 1], [len(head), len(tail)]), 0
        same_as_planned(spec, "corpus", corpus_identity(spec.data)[0]["corpus"])

    with process_group().first_alone():
        folder = kept_sequences(cache / "corpus" / key, rows, longest)
    features = read_sequences(folder, longest)
    if not len(features):
        raise CheckpointError("corpus: its files hold no text; put plain text into corpus/*.txt")
    return features


def describe_corpus(spec: CheckpointSpec, features: Features) -> dict[str, Any]:
    """What is kept of the text: it is the user's own, so that no name says what it was. files: SHA-256 by name."""
    files = corpus_files(spec.data)
    return {
        "label": "sample" if spec.data.kind == "sample" else "own text",
        "files": {file.name: file_hash(file) for file in files},
        "bytes": sum(file.stat().st_size for file in files),
        "sequences": len(features),
        "max_length": spec.shape.max_length,
        "identity": dict(spec.identity or {}).get("corpus"),
    }


def kept_sequences(folder: Path, rows: Callable[[], Iterator[Row]], longest: int) -> Path:
    """Write sequences to `folder` unless it is there, whole or not at all: raw files that are read piece by piece."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        part = folder.with_name(f".part-{folder.name}")
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir()
        try:
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context((part / name).open("wb")) for name in _FILES]
                for ids, types, example in rows():
                    padded: tuple[np.ndarray[Any, Any], ...] = (
                        np.zeros(longest, np.int32),
                        np.zeros(longest, np.int8),
                        np.array([len(ids), example], np.int64),
                    )
                    padded[0][: len(ids)], padded[1][: len(ids)] = ids, types
                    for file, values in zip(files, padded, strict=True):
                        file.write(values.tobytes())
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


_FILES = ("input_ids", "token_type_ids", "lengths")


def read_sequences(folder: Path, longest: int) -> Features:
    """What `kept_sequences` wrote, without labels. The padding of token ids is 0, which the attention mask hides."""
    lengths, examples = np.fromfile(folder / "lengths", np.int64).reshape(-1, 2).T
    shape = (len(lengths), longest)
    ids, types = (
        np.memmap(folder / name, kind, "r", shape=shape) if len(lengths) else np.zeros(shape, kind)
        for name, kind in zip(_FILES, (np.int32, np.int8), strict=False)
    )
    return Features(ids, types, np.ascontiguousarray(lengths), np.ascontiguousarray(examples))


def _segments(data: DataRef, tokenizer: Tokenizer, room: int, draw: np.random.Generator) -> Iterator[tuple[Ids, Ids]]:
    """Two parts of at most `room` tokens together; the second may be empty."""
    for document in _tokenized(data, tokenizer):
        pieces = [line[at : at + room] for line in document for at in range(0, len(line), room)]
        waiting: list[Ids] = []
        for piece in pieces:
            if waiting and sum(map(len, waiting)) + len(piece) > room:
                yield _in_two(waiting, draw)
                waiting = []
            waiting.append(piece)
        if waiting:
            yield _in_two(waiting, draw)


def _in_two(lines: Sequence[Ids], draw: np.random.Generator) -> tuple[Ids, Ids]:
    cut = int(draw.integers(1, len(lines))) if len(lines) > 1 else 1
    second = np.concatenate(lines[cut:]) if len(lines) > 1 else np.zeros(0, np.int32)
    return np.concatenate(lines[:cut]), second


def _tokenized(data: DataRef, tokenizer: Tokenizer) -> Iterator[list[Ids]]:
    """Documents as lists of lines as token ids; tokenized many at a time."""
    plain = bare(tokenizer)
    waiting: list[list[str]] = []
    for document in documents(data):
        waiting.append(document)
        if sum(map(len, waiting)) >= LINES:
            yield from _ids_of(waiting, plain)
            waiting = []
    yield from _ids_of(waiting, plain)


def _ids_of(documents: list[list[str]], tokenizer: Tokenizer) -> Iterator[list[Ids]]:
    found = iter(token_ids(tokenizer, [line for document in documents for line in document]))
    for document in documents:
        yield [next(found) for _ in document]


def documents(data: DataRef) -> Iterator[list[str]]:
    """The corpus as lists of lines: of the files `corpus/*.txt`, documents apart by a blank line, or of the sample. Raises
    CheckpointError for a file that is no text."""
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
            raise CheckpointError(f"{file}: is not UTF-8; convert it") from None
        if lines:
            yield lines
