"""Neighbours of words in a file of GloVe vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checkpoints.training.glove import nearest
from harness.errors import CheckpointError


def test_neighbours_are_the_nearest_by_cosine(tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("good 1 0\ngreat 9 1\nfine 2 1\nbad -1 0\n, 1 0\nnew 0 1\n")
    assert nearest(file, {"good", "absent"}, 2) == {"good": ["great", "fine"]}
    assert nearest(file, {"bad"}, 9) == {"bad": ["new", "fine", "great", "good"]}


def test_tokens_with_a_space_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("good 1 0\ngreat 9 1\nat name@domain.com 1 0\nfine 2 1\n")  # as glove.840B has them
    assert nearest(file, {"good"}, 2) == {"good": ["great", "fine"]}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a 1 0\nb 1\n", "line 2: not as many finite numbers as on the lines before; download the file again"),
        ("a 1 x\n", "line 1: not a word and its numbers; give GloVe vectors as text"),
        ("a 1 nan\n", "line 1: not as many finite numbers as on the lines before; download the file again"),
        ("a 1 0\nb 1 2 3\n", "line 2: not as many finite numbers as on the lines before; download the file again"),
        ("", "holds no words; give GloVe vectors as text"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: str, line: str) -> None:
    file = tmp_path / "glove.txt"
    file.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        nearest(file, {"a"}, 2)
    assert str(caught.value) == f"glove.txt: {line}"
