"""More training examples for a student: words are replaced by similar ones (TinyBERT, arXiv 1909.10351, algorithm 1).

For a word that is one token, a masked language model names the likeliest words in its place. It cannot do so for a word of
several tokens; where a GloVe file is given, that names the word's nearest neighbours. In a new example each word is replaced
with a fixed probability by one of its candidates. This works on tokens, so it serves every task with classes or scores; labels
stay the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from backends import artefacts
from harness.checkpoints.origin import read_origin
from harness.checkpoints.training.corpus import Row, read_sequences, write_sequences
from harness.checkpoints.training.devices import process_group
from harness.checkpoints.training.glove import nearest
from harness.checkpoints.training.loop import autocast, native_precision
from harness.checkpoints.training.masked_lm import MaskedLM
from harness.errors import CheckpointError
from harness.machine.digests import digest
from harness.plan.sources import check_unchanged, glove_identity
from harness.plan.spec import CheckpointSpec, folder_of
from tasks import Features
from tasks.tokens import bare, load_tokenizer, mask_id, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


AUGMENT_VERSION = 1
"""Raised on purpose when candidates or draws change: part of the key under which new examples are kept."""

ROWS = 512
"""Sequences whose candidates are computed and kept together. What was interrupted resumes after the last of these parts."""

BATCH = {"cpu": 64, "cuda": 512}
"""Masked sequences that the language model reads at a time, by device."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Replaceable:
    """A word, the tokens [start, end) of a sequence, and its candidates: token ids, a single one or several each."""

    start: int
    end: int
    candidates: Array | Sequence[Array]


def augmented(features: Features, spec: CheckpointSpec, tokenizer: Tokenizer, cache: Path, device: str) -> Features:
    """Each of `features`, followed by up to `copies` new sequences that are made from it and differ from each other.

    They follow from the seed, and are read from the cache where they were made before. Raises CheckpointError where
    `spec.masked_lm` has another vocabulary or no head that predicts masked tokens.
    """
    assert spec.masked_lm is not None and spec.distill is not None
    settings = dict(spec.distill["augment"])
    glove = settings.pop("glove", None)
    masked_lm, count = folder_of(spec.masked_lm, cache), settings["candidates"]
    content = hashlib.sha256(np.ascontiguousarray(features.input_ids).tobytes()).hexdigest()
    weights = [read_origin(masked_lm)["weights_sha256"]] if spec.masked_lm.recipe == "masked_lm" else []
    candidates_key = [AUGMENT_VERSION, spec.masked_lm.key, content, count, *weights]
    max_length = spec.shape.max_length if glove else features.input_ids.shape[1]
    augmented_key = [*candidates_key, settings, (spec.identity or {}).get("glove"), max_length, spec.seed]

    def rows() -> Iterator[Row]:
        vocabulary = Vocabulary(tokenizer)
        neighbours = _neighbours(features, vocabulary, Path(glove), count) if glove else {}
        folder = cache / "candidates" / digest(candidates_key)
        single_tokens = candidates(features, masked_lm, vocabulary, count, folder, device)
        for number, single in enumerate(single_tokens):
            length = int(features.lengths[number])
            ids, types = features.input_ids[number, :length], features.token_type_ids[number, :length]
            several = [
                Replaceable(start, end, neighbours[word])
                for start, end, word in vocabulary.split_words(ids)
                if neighbours.get(word)
            ]
            words = sorted([*single, *several], key=lambda word: word.start)
            draw = np.random.default_rng([spec.seed, number])
            yield ids, types, number
            seen = {ids.tobytes()}
            for _ in range(settings["copies"]):
                new_ids, new_types = replace_words(ids, types, words, settings["probability"], draw)
                if len(new_ids) <= max_length and new_ids.tobytes() not in seen:
                    seen.add(new_ids.tobytes())
                    yield new_ids, new_types, number
        if glove:
            check_unchanged(spec, "glove", glove_identity(spec))

    with process_group().main_process_first():
        folder = write_sequences(cache / "augmented" / digest(augmented_key), rows, max_length)
    sequences = read_sequences(folder, max_length)
    labels = {name: values[sequences.example_index] for name, values in features.labels.items()}
    return Features(
        sequences.input_ids, sequences.token_type_ids, sequences.lengths, sequences.example_index, labels=labels
    )


def replace_words(
    ids: Array, types: Array, words: Sequence[Replaceable], probability: float, draw: np.random.Generator
) -> tuple[Array, Array]:
    """Ids and types of a copy of a sequence in which each of `words` is replaced with the given probability. The words are in
    order and do not overlap."""
    new_ids, new_types, end = [], [], 0
    replaced = draw.random(len(words)) < probability
    for word in (word for word, replace in zip(words, replaced, strict=True) if replace):
        index = int(draw.integers(len(word.candidates)))
        candidate = np.atleast_1d(word.candidates[index]).astype(ids.dtype)
        new_ids += [ids[end : word.start], candidate]
        new_types += [types[end : word.start], np.repeat(types[word.start], len(candidate))]
        end = word.end
    return np.concatenate([*new_ids, ids[end:]]), np.concatenate([*new_types, types[end:]])


class Vocabulary:
    """Which tokens of a WordPiece vocabulary are words of letters, and which continue a word."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.names = [tokenizer.id_to_token(number) or "" for number in range(tokenizer.get_vocab_size())]
        self.is_word = np.array([name.isalpha() for name in self.names])
        self.continues_word = np.array([name.startswith("##") for name in self.names])

    def single_token_words(self, ids: Array) -> Array:
        """Positions of the words that are a single token."""
        continued = np.append(self.continues_word[ids[1:]], False)
        return np.flatnonzero(self.is_word[ids] & ~continued)

    def split_words(self, ids: Array) -> Iterator[tuple[int, int, str]]:
        """[start, end) and spelling of the words of letters that are several tokens."""
        starts = np.flatnonzero(~self.continues_word[ids])
        for start, end in zip(starts, np.append(starts[1:], len(ids)), strict=True):
            word = "".join(self.names[number].removeprefix("##") for number in ids[start:end])
            if end - start > 1 and word.isalpha():
                yield int(start), int(end), word


def candidates(
    features: Features, masked_lm: Path, vocabulary: Vocabulary, count: int, folder: Path, device: str
) -> Iterator[list[Replaceable]]:
    """For each sequence its single-token words, each with the `count` words that `masked_lm` finds likeliest in its place; the
    word itself may be among them. They are kept in `folder`."""
    model: MaskedLM | None = None
    for first in range(0, len(features), ROWS):
        rows = np.arange(first, min(first + ROWS, len(features)))
        file = folder / f"{first:09d}.npz"
        if not artefacts.usable(file, folder.parents[1]):
            model = model or load_masked_lm(masked_lm, vocabulary.tokenizer, device)
            predictions = _predict(features, rows, model, vocabulary, count, device)
            folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npz")
            np.savez_compressed(part, allow_pickle=False, **predictions)
            artefacts.move_sealed(part, file, folder.parents[1] / "hashes")
        with np.load(file, allow_pickle=False) as stored:
            word_rows, positions, words = stored["rows"], stored["places"], stored["words"]
        bounds = np.searchsorted(word_rows, [*rows, rows[-1] + 1])
        for start, end in pairwise(bounds):
            yield [
                Replaceable(int(position), int(position) + 1, words[start + offset])
                for offset, position in enumerate(positions[start:end])
            ]


def load_masked_lm(folder: Path, tokenizer: Tokenizer, device: str) -> MaskedLM:
    """The masked language model of a checkpoint, on `device`. Raises CheckpointError as `augmented` does."""
    from transformers import AutoConfig

    from harness.checkpoints.training.finetune import build_model

    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError("augment.masked_lm: its vocabulary is not the student's; name a model with the same one")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    try:
        model = build_model("masked_lm", folder, config, 0, device, attention="sdpa", new_head=False)
    except CheckpointError:
        raise CheckpointError(
            "augment.masked_lm: it has no head that predicts masked tokens; name a masked language model, or give"
            " augment.train"
        ) from None
    return MaskedLM(model).to(device).eval()


def _predict(
    features: Features, rows: Array, model: MaskedLM, vocabulary: Vocabulary, count: int, device: str
) -> dict[str, Array]:
    """Of every single-token word in `rows`: its row, its position, and the ids of its candidates, (words, count)."""
    positions_of_row = [vocabulary.single_token_words(features.input_ids[row, : features.lengths[row]]) for row in rows]
    word_rows = np.repeat(rows, [len(positions) for positions in positions_of_row])
    positions = np.concatenate([*positions_of_row, np.zeros(0, np.int64)]).astype(np.int64)
    mask, allowed = mask_id(vocabulary.tokenizer), torch.from_numpy(vocabulary.is_word).to(device)
    words = np.zeros((len(word_rows), min(count, int(vocabulary.is_word.sum()))), np.int32)
    for start in range(0, len(word_rows), BATCH[device]):
        part = slice(start, start + BATCH[device])
        lengths = features.lengths[word_rows[part]]
        ids = features.input_ids[word_rows[part], : lengths.max()].astype(np.int64)
        chosen = np.arange(lengths.max()) == positions[part, None]
        arrays = {
            "input_ids": np.where(chosen, mask, ids),
            "token_type_ids": features.token_type_ids[word_rows[part], : lengths.max()].astype(np.int64),
            "attention_mask": (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64),
        }
        inputs = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
        with torch.inference_mode(), autocast(device, native_precision(device)):
            logits = model(inputs, torch.from_numpy(chosen).to(device)).float()[:, : len(allowed)]
        logits = logits.masked_fill(~allowed[: logits.shape[1]], -torch.inf)
        words[part] = logits.topk(words.shape[1]).indices.cpu().numpy()
    return {"rows": word_rows, "places": positions, "words": words}


def _neighbours(features: Features, vocabulary: Vocabulary, glove: Path, count: int) -> Mapping[str, list[Array]]:
    """Token ids of the GloVe neighbours of every word that is several tokens."""
    rows = zip(features.input_ids, features.lengths, strict=True)
    split_words = {word for ids, length in rows for *_, word in vocabulary.split_words(ids[:length])}
    neighbours = nearest(glove, split_words, count)
    flat = iter(token_ids(bare(vocabulary.tokenizer), [word for words in neighbours.values() for word in words]))
    return {word: [next(flat) for _ in words] for word, words in neighbours.items()}
