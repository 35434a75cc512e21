"""GloVe vectors (Pennington et al. 2014): a text file with a word and its numbers on each line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import CheckpointError

WORDS_AT_A_TIME = 256
"""Words that are compared with all others in one matrix product."""

Vectors = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def nearest(file: Path, words: Collection[str], count: int) -> dict[str, list[str]]:
    """The `count` nearest neighbours by cosine, without the word itself, of each of `words` that the file holds. Only words
    of letters count as neighbours.

    Raises CheckpointError, which names the file and the line.
    """
    known, vectors = _read(file)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    row_of = {word: row for row, word in enumerate(known)}
    wanted = sorted(word for word in words if word in row_of)
    neighbours: dict[str, list[str]] = {}
    for start in range(0, len(wanted), WORDS_AT_A_TIME):
        part = wanted[start : start + WORDS_AT_A_TIME]
        similarity = vectors[[row_of[word] for word in part]] @ vectors.T
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : count + 1]
        for word, rows in zip(part, order, strict=True):
            neighbours[word] = [known[row] for row in rows if known[row] != word][:count]
    return neighbours


def _read(file: Path) -> tuple[list[str], Vectors]:
    """The words of letters in a file, and their vectors, (words, numbers)."""
    words: list[str] = []
    vectors: list[Vectors] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                word, _, rest = line.rstrip().partition(" ")
                if not word.isalpha() or (
                    vectors and rest.count(" ") >= len(vectors[0]) and not _starts_with_number(rest)
                ):
                    continue  # published files hold tokens with a space inside
                try:
                    vector: Any = np.array(rest.split(" "), np.float32)
                except ValueError:
                    raise CheckpointError(
                        f"{file.name}: line {number}: not a word and its numbers; give GloVe vectors as text"
                    ) from None
                if (vectors and len(vector) != len(vectors[0])) or not np.isfinite(vector).all():
                    raise CheckpointError(
                        f"{file.name}: line {number}: not as many finite numbers as on the lines before; download the file again"
                    )
                words.append(word)
                vectors.append(vector)
    except OSError as error:
        raise CheckpointError(
            f"{file.name}: cannot be read: {error.strerror}; check its path and permissions"
        ) from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{file.name}: is not UTF-8; give GloVe vectors as text") from None
    if not words:
        raise CheckpointError(f"{file.name}: holds no words; give GloVe vectors as text")
    return words, np.stack(vectors)


def _starts_with_number(text: str) -> bool:
    try:
        float(text.partition(" ")[0])
    except ValueError:
        return False
    return True
