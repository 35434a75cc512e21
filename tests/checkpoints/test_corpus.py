"""Plain text as token sequences."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.checkpoints.training.corpus import (
    Row,
    describe_corpus,
    documents,
    read_sequences,
    text_features,
    write_sequences,
)
from harness.errors import CheckpointError
from harness.plan.sources import corpus_identity
from tasks import DataRef
from tests.checkpoints.texts import TOKENIZER, corpus_spec, token_names, write_corpus


def test_a_blank_line_separates_documents(tmp_path: Path) -> None:
    write_corpus(tmp_path, "\n\none\n two \n\n\nthree\n")
    (tmp_path / "corpus" / "b.txt").write_text("four")
    assert list(documents(DataRef("raw", str(tmp_path)))) == [["one", "two"], ["three"], ["four"]]


def test_sequences_hold_the_text_once_and_in_order(tmp_path: Path) -> None:
    """Lines are packed as long as they fit, cut in two at a line, and never packed across documents."""
    lines = ["a b c d e", "f g h", "i j k l m n o p q r s t u v w x y z", "", "d e f", "", "g"]
    spec = corpus_spec(write_corpus(tmp_path, "\n".join(lines)))
    features = text_features(spec, TOKENIZER, tmp_path)
    rows = [token_names(ids[:length]) for ids, length in zip(features.input_ids, features.lengths, strict=True)]
    texts = [[name for name in row if name not in ("[CLS]", "[SEP]")] for row in rows]
    assert texts == [list("abcdefgh"), list("ijklmnopqrstu"), list("vwxyz"), list("def"), list("g")]
    assert all(row[0] == "[CLS]" and row[-1] == "[SEP]" and len(row) <= 16 for row in rows)
    assert rows[0] == ["[CLS]", *"abcde", "[SEP]", *"fgh", "[SEP]"]
    assert features.token_type_ids[0].tolist() == [0] * 7 + [1] * 4 + [0] * 5
    assert all(row.count("[SEP]") == 1 for row in rows[1:])
    assert (features.input_ids[1][features.lengths[1] :] == 0).all()


def test_sequences_are_made_once(tmp_path: Path) -> None:
    write_corpus(tmp_path, "a b\nc d\n")
    spec = corpus_spec(tmp_path)
    before = text_features(spec, TOKENIZER, tmp_path)
    (tmp_path / "corpus" / "a.txt").write_text("changed, and the identity with it")
    assert np.array_equal(text_features(spec, TOKENIZER, tmp_path).input_ids, before.input_ids)
    changed = text_features(corpus_spec(tmp_path), TOKENIZER, tmp_path)
    assert not np.array_equal(changed.input_ids, before.input_ids)
    assert not list((tmp_path / "corpus").glob(".part*"))


def test_half_written_sequences_of_a_killed_process_are_made_again(tmp_path: Path) -> None:
    row = (np.array([5, 6, 7]), np.array([0, 0, 1]), 3)
    leftover = tmp_path / ".part-text"
    leftover.mkdir()
    (leftover / "input_ids").write_bytes(b"half")
    (leftover / "stray").write_bytes(b"")
    folder = write_sequences(tmp_path / "text", lambda: iter([row]), 4)
    assert not leftover.exists()
    assert not (folder / "stray").exists()
    sequences = read_sequences(folder, 4)
    assert sequences.input_ids.tolist() == [[5, 6, 7, 0]]
    assert (sequences.lengths.tolist(), sequences.example_index.tolist()) == ([3], [3])


def test_two_processes_that_want_the_same_sequences_make_them_once(tmp_path: Path) -> None:
    started, resume = threading.Event(), threading.Event()

    def rows() -> Iterator[Row]:
        started.set()
        assert resume.wait(60)
        yield np.array([5, 6]), np.array([0, 1]), 0

    def unwanted() -> Iterator[Row]:
        raise AssertionError("made twice")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write_sequences, tmp_path / "text", rows, 2)
        assert started.wait(60)
        second = pool.submit(write_sequences, tmp_path / "text", unwanted, 2)
        time.sleep(0.2)  # enough for the second to start if the lock let it
        resume.set()
        assert first.result(60) == second.result(60)


def test_text_that_changes_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    write_corpus(tmp_path, "a b\nc d\n")
    planned = corpus_spec(tmp_path)
    (tmp_path / "corpus" / "a.txt").write_text("another text\n")
    with pytest.raises(CheckpointError, match="tiny: corpus: changed while it was read"):
        text_features(planned, TOKENIZER, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "corpus").iterdir() if path.is_dir()]


def test_only_files_are_text(tmp_path: Path) -> None:
    write_corpus(tmp_path, "a b\n")
    before = corpus_identity(DataRef("raw", str(tmp_path)))
    (tmp_path / "corpus" / "folder.txt").mkdir()
    (tmp_path / "corpus" / "missing.txt").symlink_to(tmp_path / "nowhere")
    assert corpus_identity(DataRef("raw", str(tmp_path))) == before


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\n\n", "corpus: its files hold no text; put plain text into corpus/*.txt"),
        (b"caf\xe9\n", "a.txt: is not UTF-8; convert it to UTF-8"),
    ],
)
def test_a_corpus_without_text_is_one_line(tmp_path: Path, content: bytes, line: str) -> None:
    write_corpus(tmp_path, "")
    (tmp_path / "corpus" / "a.txt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        text_features(corpus_spec(tmp_path), TOKENIZER, tmp_path / "cache")
    assert str(caught.value).endswith(line)


def test_a_corpus_is_described_by_its_files(tmp_path: Path) -> None:
    spec = corpus_spec(write_corpus(tmp_path, "a b\nc d\n"))
    corpus = describe_corpus(spec, text_features(spec, TOKENIZER, tmp_path))
    assert corpus["files"] == {"a.txt": hashlib.sha256(b"a b\nc d\n").hexdigest()}
    assert (corpus["label"], corpus["bytes"], corpus["sequences"], corpus["max_length"]) == ("own text", 8, 1, 16)
