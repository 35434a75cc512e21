"""Plain text as sequences, masked language models, and examples with words exchanged."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from harness.checkpoints.make import check_inputs_unchanged, ensure
from harness.checkpoints.training import augment
from harness.checkpoints.training.augment import Replaceable, Vocabulary, augmented, replace_words
from harness.checkpoints.training.corpus import (
    Row,
    describe_corpus,
    documents,
    read_sequences,
    text_features,
    write_sequences,
)
from harness.checkpoints.training.glove import nearest
from harness.checkpoints.training.masked_lm import MaskedLM, masked_lm_loss
from harness.checkpoints.training.states import Progress, Training
from harness.errors import CheckpointError
from harness.machine.digests import file_hash
from harness.plan.sources import corpus_identity
from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import DataRef, Features, Shape
from tasks.sample import SAMPLE_VERSION, sample_tokenizer
from tests.run.small import SIZES, encoder, sample_spec, train

__all__ = ["encoder"]  # a fixture

TOKENIZER = sample_tokenizer()


def on_text(folder: Path | None = None, **changes: Any) -> CheckpointSpec:
    data = DataRef("raw", str(folder)) if folder else DataRef("sample")
    given: dict[str, Any] = {
        "identity": corpus_identity(data)[0],
        "shape": Shape(16),
        **changes,
    }
    return sample_spec(task=CORPUS, data=data, **given)


def corpus(folder: Path, text: str) -> Path:
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text(text)
    return folder


def piece(name: str) -> int:
    number = TOKENIZER.token_to_id(name)
    assert number is not None
    return number


def words(ids: np.ndarray[Any, Any]) -> list[str]:
    return [str(TOKENIZER.id_to_token(int(number))) for number in ids]


def test_documents_are_apart_by_a_blank_line(tmp_path: Path) -> None:
    corpus(tmp_path, "\n\none\n two \n\n\nthree\n")
    (tmp_path / "corpus" / "b.txt").write_text("four")
    found = list(documents(DataRef("raw", str(tmp_path))))
    assert found == [["one", "two"], ["three"], ["four"]]


def test_sequences_hold_the_text_once_and_in_order(tmp_path: Path) -> None:
    """Lines are packed as long as they fit, cut in two at a line, and never over the end of a document."""
    text = ["a b c d e", "f g h", "i j k l m n o p q r s t u v w x y z", "", "d e f", "", "g"]
    spec = on_text(corpus(tmp_path, "\n".join(text)))
    features = text_features(spec, TOKENIZER, tmp_path)
    rows = [words(ids[:length]) for ids, length in zip(features.input_ids, features.lengths, strict=True)]
    plain = [[word for word in row if word not in ("[CLS]", "[SEP]")] for row in rows]
    assert plain == [list("abcdefgh"), list("ijklmnopqrstu"), list("vwxyz"), list("def"), list("g")]
    assert all(row[0] == "[CLS]" and row[-1] == "[SEP]" and len(row) <= 16 for row in rows)
    assert rows[0] == ["[CLS]", *"abcde", "[SEP]", *"fgh", "[SEP]"]
    assert features.token_type_ids[0].tolist() == [0] * 7 + [1] * 4 + [0] * 5
    assert all(row.count("[SEP]") == 1 for row in rows[1:])
    assert (features.input_ids[1][features.lengths[1] :] == 0).all()


def test_sequences_are_made_once(tmp_path: Path) -> None:
    corpus(tmp_path, "a b\nc d\n")
    spec = on_text(tmp_path)
    before = text_features(spec, TOKENIZER, tmp_path)
    (tmp_path / "corpus" / "a.txt").write_text("changed, and the identity with it")
    assert np.array_equal(text_features(spec, TOKENIZER, tmp_path).input_ids, before.input_ids)
    other = text_features(on_text(tmp_path), TOKENIZER, tmp_path)
    assert not np.array_equal(other.input_ids, before.input_ids)
    assert not list((tmp_path / "corpus").glob(".part*"))


def test_sequences_that_a_killed_process_left_half_written_are_made_anew(tmp_path: Path) -> None:
    whole = (np.array([5, 6, 7]), np.array([0, 0, 1]), 3)
    half = tmp_path / ".part-text"
    half.mkdir()
    (half / "input_ids").write_bytes(b"half")
    (half / "stray").write_bytes(b"")
    folder = write_sequences(tmp_path / "text", lambda: iter([whole]), 4)
    assert not half.exists()
    assert not (folder / "stray").exists()
    found = read_sequences(folder, 4)
    assert found.input_ids.tolist() == [[5, 6, 7, 0]]
    assert (found.lengths.tolist(), found.example_index.tolist()) == ([3], [3])


def test_two_that_want_the_same_sequences_make_them_once(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def rows() -> Iterator[Row]:
        begun.set()
        assert go_on.wait(60)
        yield np.array([5, 6]), np.array([0, 1]), 0

    def never() -> Iterator[Row]:
        raise AssertionError("made twice")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write_sequences, tmp_path / "text", rows, 2)
        assert begun.wait(60)
        second = pool.submit(write_sequences, tmp_path / "text", never, 2)
        time.sleep(0.2)  # enough for the second to begin, were it allowed to
        go_on.set()
        assert first.result(60) == second.result(60)


def test_text_that_changes_while_it_is_read_is_not_kept_as_what_it_was(tmp_path: Path) -> None:
    corpus(tmp_path, "a b\nc d\n")
    planned = on_text(tmp_path)
    (tmp_path / "corpus" / "a.txt").write_text("another text\n")
    with pytest.raises(CheckpointError, match="tiny: corpus: changed while it was read"):
        text_features(planned, TOKENIZER, tmp_path / "cache")
    assert not [one for one in (tmp_path / "cache" / "corpus").iterdir() if one.is_dir()]


def test_what_is_no_file_is_no_text(tmp_path: Path) -> None:
    corpus(tmp_path, "a b\n")
    before = corpus_identity(DataRef("raw", str(tmp_path)))
    (tmp_path / "corpus" / "folder.txt").mkdir()
    (tmp_path / "corpus" / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert corpus_identity(DataRef("raw", str(tmp_path))) == before


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\n\n", "corpus: its files hold no text; put plain text into corpus/*.txt"),
        (b"caf\xe9\n", "a.txt: is not UTF-8; convert it to UTF-8"),
    ],
)
def test_a_corpus_without_text_is_one_line(tmp_path: Path, content: bytes, line: str) -> None:
    corpus(tmp_path, "")
    (tmp_path / "corpus" / "a.txt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        text_features(on_text(tmp_path), TOKENIZER, tmp_path / "cache")
    assert str(caught.value).endswith(line)


class Asked(torch.nn.Module):
    """Stands for a model: keeps what it is asked, and gives each token the same likelihood but one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, inputs: dict[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        self.asked.append((inputs["input_ids"], chosen))
        return torch.zeros(int(chosen.sum()), self.size)


def test_blanks_are_fifteen_percent_and_mostly_masked() -> None:
    model = Asked(TOKENIZER.get_vocab_size())
    ids = torch.randint(100, 400, (400, 42))
    ids[:, 0], ids[:, -1] = piece("[CLS]"), piece("[SEP]")
    mask = torch.ones_like(ids)
    ids[0, 3:], mask[0, 3:] = 0, 0
    torch.manual_seed(0)
    loss = masked_lm_loss(TOKENIZER)(
        model, {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    )
    assert float(loss) == pytest.approx(np.log(TOKENIZER.get_vocab_size()), rel=1e-5)
    shown, chosen = model.asked[0]
    assert chosen[1:].sum(1).tolist() == [6] * 399
    assert chosen[0].sum() == 1
    assert not chosen[0, 3:].any()
    assert not chosen[:, 0].any() and not chosen[:, -1].any()
    masked = torch.eq(shown[chosen], piece("[MASK]"))
    same = torch.eq(shown[chosen], ids[chosen])
    assert 0.77 < masked.float().mean() < 0.83
    assert 0.08 < same.float().mean() < 0.12
    assert (shown[~chosen] == ids[~chosen]).all()


def test_each_sequences_blanks_weigh_the_same() -> None:
    """So that processes which share a batch can average their losses."""

    class Known(Asked):
        def forward(self, inputs: dict[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
            logits = super().forward(inputs, chosen)
            of_row = chosen.nonzero()[:, 0]
            logits[of_row == 0] += torch.nn.functional.one_hot(ids[0, 1], self.size) * 5.0
            return logits

    ids = torch.full((2, 42), 300)
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    size = TOKENIZER.get_vocab_size()
    loss = masked_lm_loss(TOKENIZER)(
        Known(size), {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    )
    sure = np.log(np.exp(5) + size - 1) - 5
    assert float(loss) == pytest.approx((sure + np.log(size)) / 2, rel=1e-4)


def test_blanks_are_what_transformers_puts_out() -> None:
    torch.manual_seed(0)
    model: Any = BertForMaskedLM(BertConfig(vocab_size=60, **SIZES)).train(False)
    inputs = {
        "input_ids": torch.randint(0, 60, (3, 9)),
        "attention_mask": torch.ones(3, 9, dtype=torch.long),
        "token_type_ids": torch.zeros(3, 9, dtype=torch.long),
    }
    chosen = torch.rand(3, 9) < 0.3
    assert torch.allclose(MaskedLM(model)(inputs, chosen), model(**inputs).logits[chosen], atol=1e-6)


# -- words exchanged


def test_words_of_one_piece_and_of_several() -> None:
    text = "the museum of verymadeupword opened in 1999 ."
    ids = np.array(TOKENIZER.encode(text).ids)
    pieces = Vocabulary(TOKENIZER)
    assert [words(ids[[at]])[0] for at in pieces.single_token_words(ids)] == ["the", "museum", "of", "opened", "in"]
    ((start, end, word),) = pieces.split_words(ids)
    assert word == "verymadeupword"
    assert words(ids[start:end])[0] in word


def test_a_word_is_exchanged_with_its_probability() -> None:
    ids, types = np.arange(10, 18), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    options = [Replaceable(1, 2, np.array([90, 91])), Replaceable(4, 6, [np.array([95, 96, 97])])]
    draw = np.random.default_rng(0)
    made = [replace_words(ids, types, options, 0.4, draw) for _ in range(2000)]
    first = np.mean([one[1] in (90, 91) for one, _ in made])
    assert 0.36 < first < 0.44
    assert 0.4 < np.mean([one[1] == 90 for one, _ in made if one[1] != 11]) < 0.6
    longer = [(one, kinds) for one, kinds in made if len(one) == 9]
    assert 0.36 < len(longer) / 2000 < 0.44
    one, kinds = longer[0]
    assert one.tolist() == [10, one[1], 12, 13, 95, 96, 97, 16, 17]
    assert kinds.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert next(one.tolist() for one, _ in made if len(one) == 8 and one[1] == 11) == ids.tolist()
    assert replace_words(ids, types, options, 1.0, draw)[0].tolist()[4:7] == [95, 96, 97]


def test_neighbours_are_the_nearest_by_cosine(tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("good 1 0\ngreat 9 1\nfine 2 1\nbad -1 0\n, 1 0\nnew 0 1\n")
    assert nearest(file, {"good", "absent"}, 2) == {"good": ["great", "fine"]}
    assert nearest(file, {"bad"}, 9) == {"bad": ["new", "fine", "great", "good"]}
    file.write_text("good 1 0\ngreat 9 1\nat name@domain.com 1 0\nfine 2 1\n")  # as glove.840B has them
    assert nearest(file, {"good"}, 2) == {"good": ["great", "fine"]}
    for content, line in (
        (
            "a 1 0\nb 1\n",
            "glove.txt: line 2: not as many finite numbers as on the lines before; download the file again",
        ),
        ("a 1 x\n", "glove.txt: line 1: not a word and its numbers; give GloVe vectors as text"),
        ("a 1 nan\n", "glove.txt: line 1: not as many finite numbers as on the lines before; download the file again"),
        (
            "a 1 0\nb 1 2 3\n",
            "glove.txt: line 2: not as many finite numbers as on the lines before; download the file again",
        ),
        ("", "glove.txt: holds no words; give GloVe vectors as text"),
    ):
        file.write_text(content)
        with pytest.raises(CheckpointError) as caught:
            nearest(file, {"a"}, 2)
        assert str(caught.value) == line


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


WORDS = on_text(model="masked-lm", recipe="masked_lm", identity={"corpus": f"sample {SAMPLE_VERSION}"}, shape=Shape(48))
TEXTS = ["the museum was opened in spring .", "verymadeupword was founded by a rich merchant ."]


def features() -> Features:
    rows = [TOKENIZER.encode(text).ids for text in TEXTS]
    ids = np.zeros((2, max(map(len, rows))), np.int32)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
    lengths = np.array([len(row) for row in rows])
    return Features(ids, np.zeros_like(ids), lengths, np.arange(2), labels={"labels": np.array([7, 8])})


def student(**changes: Any) -> CheckpointSpec:
    settings = {"copies": 5, "probability": 0.5, "candidates": 3, **changes.pop("augment", {})}
    return sample_spec(
        recipe="distill",
        masked_lm=WORDS,
        distill={"stage": "prediction", "augment": settings},
        shape=Shape(32),
        **changes,
    )


def test_new_examples_are_different_and_have_their_originals_labels(cache: Path) -> None:
    ensure(WORDS, cache)
    made = augmented(features(), student(), TOKENIZER, cache, "cpu")
    assert made.example_index.tolist() == sorted(made.example_index.tolist())
    assert 6 <= len(made) <= 12
    assert made.labels["labels"].tolist() == [7 + at for at in made.example_index]
    rows = [tuple(ids[:length]) for ids, length in zip(made.input_ids, made.lengths, strict=True)]
    assert len(set(rows)) == len(rows)
    plain = features()
    pieces = Vocabulary(TOKENIZER)
    for number in (0, 1):
        original = plain.input_ids[number, : plain.lengths[number]]
        of_it = [np.array(row) for row, at in zip(rows, made.example_index, strict=True) if at == number]
        assert np.array_equal(of_it[0], original)
        places = set(pieces.single_token_words(original))
        for one in of_it[1:]:
            changed = np.flatnonzero(one != original)
            assert set(changed) <= places
            assert pieces.is_word[one[changed]].all()


def test_candidates_are_the_likeliest_whole_words(cache: Path) -> None:
    """Against transformers' own fill-in of one masked word."""
    folder = ensure(WORDS, cache)
    pieces, plain = Vocabulary(TOKENIZER), features()
    found = next(augment.candidates(plain, folder, pieces, 3, cache / "kept", "cpu"))
    model: Any = BertForMaskedLM.from_pretrained(folder).train(False)
    option = found[1]
    ids = torch.from_numpy(plain.input_ids[0, : plain.lengths[0]].astype(np.int64))[None]
    ids[0, option.start] = piece("[MASK]")
    logits = model(input_ids=ids).logits[0, option.start]
    whole = [at for at in logits.argsort(descending=True).tolist() if pieces.is_word[at]]
    assert set(np.asarray(option.candidates).tolist()) <= set(whole[:6])  # bf16 moves near ties


def test_new_examples_follow_from_the_seed_and_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(WORDS, cache)
    first = augmented(features(), student(), TOKENIZER, cache, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(augment, "load_masked_lm", None)  # candidates are kept whatever the seed is
        again = augmented(features(), student(), TOKENIZER, cache, "cpu")
        other = augmented(features(), student(seed=4), TOKENIZER, cache, "cpu")
    assert np.array_equal(first.input_ids, again.input_ids)
    assert not np.array_equal(first.input_ids, other.input_ids)


def test_words_of_several_pieces_have_neighbours(cache: Path, tmp_path: Path) -> None:
    ensure(WORDS, cache)
    file = tmp_path / "glove.txt"
    file.write_text("verymadeupword 1 0\nmuseum 1 0.1\ntheatre 1 0.2\n")
    spec = student(augment={"glove": str(file), "probability": 1.0}, identity={"glove": file_hash(file)})
    made = augmented(features(), spec, TOKENIZER, cache, "cpu")
    new = [words(ids[1:2])[0] for ids, at in zip(made.input_ids, made.example_index, strict=True) if at == 1]
    assert set(new[1:]) <= {"museum", "theatre"}
    assert len(new) > 1
    file.write_text("verymadeupword 1 0\nmuseum 1 0.1\n")
    for identity in (spec.identity, {"glove": "another"}):
        changed = replace(spec, identity=identity)
        with pytest.raises(CheckpointError, match="glove: the content has changed"):
            check_inputs_unchanged(changed)
    with pytest.raises(CheckpointError, match="tiny: glove: changed while it was read"):
        augmented(features(), replace(spec, identity={"glove": "another"}), TOKENIZER, cache, "cpu")
    file.unlink()
    with pytest.raises(CheckpointError, match="glove: the content has changed"):
        check_inputs_unchanged(spec)


def test_a_trainings_states_keep_tied_weights(tmp_path: Path) -> None:
    """A masked language model's output weights are its embeddings: one memory, which safetensors refuses to write twice."""
    settings = {"max_steps": 4, "epochs": 1}
    one = ensure(replace(WORDS, train=train(**settings)), tmp_path / "one")
    two = ensure(replace(WORDS, train=train(**settings, checkpoint_every=2)), tmp_path / "two")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    model = MaskedLM(BertForMaskedLM.from_pretrained(one))
    training = Training(model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler(enabled=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.save(tmp_path / "state", Progress(3), 1)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert training.resume(tmp_path / "state", print).step == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_text_is_kept_by_its_files(tmp_path: Path) -> None:
    spec = on_text(corpus(tmp_path, "a b\nc d\n"))
    told = describe_corpus(spec, text_features(spec, TOKENIZER, tmp_path))
    sha = hashlib.sha256(b"a b\nc d\n").hexdigest()
    assert told["files"] == {"a.txt": sha}
    assert (told["label"], told["bytes"], told["sequences"], told["max_length"]) == ("own text", 8, 1, 16)


def test_a_model_without_the_head_is_one_line(encoder: Path, cache: Path) -> None:
    plain = CheckpointSpec("words", CORPUS, "pretrained", str(encoder), 0, Shape(0), DataRef("sample"))
    ensure(plain, cache)
    spec = sample_spec(
        masked_lm=plain, distill={"stage": "prediction", "augment": {"copies": 1, "probability": 0.5, "candidates": 3}}
    )
    with pytest.raises(CheckpointError) as caught:
        augmented(features(), spec, TOKENIZER, cache, "cpu")
    assert str(caught.value) == (
        "augment.masked_lm: it has no head that predicts masked tokens; name a masked language model, or give augment.train"
    )
    trained = ensure(
        on_text(model="w", recipe="masked_lm", source=str(encoder), architecture=None, train=train(max_steps=1)), cache
    )
    assert (trained / "origin.json").is_file()
