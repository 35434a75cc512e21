"""GloVe vectors (Pennington et al. 2014): a text file with a word and its numbers a line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError

AT_ONCE = 256
"""Words compared with all others at a time."""


def nearest(file: Path, wanted: Collection[str], count: int) -> dict[str, list[str]]:
    """The `count` words of a file that are nearest by cosine to each wanted word that it holds, the word itself left out;
    words of letters alone. Raises CheckpointError naming file and line."""
    words: list[str] = []
    rows: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                word, _, rest = line.rstrip().partition(" ")
                if not word.isalpha() or (rows and rest.count(" ") >= len(rows[0]) and not _is_number(rest)):
                    continue  # published files have tokens with a space inside
                try:
                    row = np.array(rest.split(" "), np.float32)
                except ValueError:
                    raise CheckpointError(f"{file.name}: line {number}: not a word and its numbers") from None
                if (rows and len(row) != len(rows[0])) or not np.isfinite(row).all():
                    raise CheckpointError(f"{file.name}: line {number}: not as many finite numbers as before")
                words.append(word)
                rows.append(row)
    except OSError as error:
        raise CheckpointError(f"{file.name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{file.name}: is not UTF-8; give GloVe vectors as text") from None
    if not rows:
        raise CheckpointError(f"{file.name}: holds no words; give GloVe vectors as text")
    vectors = np.stack(rows)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    place = {word: at for at, word in enumerate(words)}
    asked = sorted(word for word in wanted if word in place)
    found: dict[str, list[str]] = {}
    for first in range(0, len(asked), AT_ONCE):
        part = asked[first : first + AT_ONCE]
        near = vectors[[place[word] for word in part]] @ vectors.T
        order = np.argsort(-near, axis=1, kind="stable")[:, : count + 1]
        for word, row in zip(part, order, strict=True):
            found[word] = [words[at] for at in row if words[at] != word][:count]
    return found


def _is_number(rest: str) -> bool:
    """Whether a number follows the word."""
    try:
        float(rest.partition(" ")[0])
    except ValueError:
        return False
    return True
