"""More examples for a student, with words exchanged (TinyBERT, arXiv 1909.10351, algorithm 1).

A masked language model names the likeliest words for the place of each word; of a word of several pieces, which it cannot
name, GloVe vectors name the nearest ones where a file is given. A new example has each word exchanged with a fixed
probability for one of its candidates. Done on tokens, so that every task with classes or scores can have it; labels stay.
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

from harness.checkpoints.origin import read_origin
from harness.checkpoints.training.corpus import Row, kept_sequences, read_sequences
from harness.checkpoints.training.devices import process_group
from harness.checkpoints.training.glove import nearest
from harness.checkpoints.training.loop import autocast, native_precision
from harness.checkpoints.training.masked_lm import MaskedLM, mask_id
from harness.errors import CheckpointError
from harness.machine.digests import digest
from harness.plan.sources import same_as_planned, words_of
from harness.plan.spec import CheckpointSpec, folder_of
from tasks import Features
from tasks.tokens import bare, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


AUGMENT_VERSION = 1
"""Raised on purpose when candidates or draws change: part of the key under which they are kept."""


ROWS = 512
"""Sequences whose candidates are found, and kept, at a time: what was killed goes on from there."""


BATCH = {"cpu": 64, "cuda": 512}


Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Option:
    """A word at tokens [start, end) of a sequence, and what it may be exchanged for: token ids, one each, or several."""

    start: int
    end: int
    choices: Array | Sequence[Array]


def augmented(features: Features, spec: CheckpointSpec, tokenizer: Tokenizer, cache: Path, device: str) -> Features:
    """Each of `features`, followed by up to `copies` new sequences made of it, all different; from the cache where they were
    made before. The same seed gives the same ones. Raises CheckpointError where masked_lm reads other words or fills in none.
    """
    assert spec.masked_lm is not None and spec.distill is not None
    settings = dict(spec.distill["augment"])
    vectors = settings.pop("glove", None)
    lm, count = folder_of(spec.masked_lm, cache), settings["candidates"]
    content = hashlib.sha256(np.ascontiguousarray(features.input_ids).tobytes()).hexdigest()
    trained = [read_origin(lm)["weights_sha256"]] if spec.masked_lm.recipe == "masked_lm" else []
    base = [AUGMENT_VERSION, spec.masked_lm.key, content, count, *trained]
    longest = spec.shape.max_length if vectors else features.input_ids.shape[1]
    rest = [settings, (spec.identity or {}).get("glove"), longest, spec.seed]

    def rows() -> Iterator[Row]:
        pieces = Pieces(tokenizer)
        spelled = _spelled(features, pieces, Path(vectors), count) if vectors else {}
        found = candidates(features, lm, pieces, count, cache / "candidates" / digest(base), device)
        for number, single in enumerate(found):
            length = int(features.lengths[number])
            ids, types = features.input_ids[number, :length], features.token_type_ids[number, :length]
            several = [Option(a, b, spelled[word]) for a, b, word in pieces.split_words(ids) if spelled.get(word)]
            options = sorted([*single, *several], key=lambda option: option.start)
            draw = np.random.default_rng([spec.seed, number])
            yield ids, types, number
            seen = {ids.tobytes()}
            for _ in range(settings["copies"]):
                made = exchange(ids, types, options, settings["probability"], draw)
                if len(made[0]) <= longest and made[0].tobytes() not in seen:
                    seen.add(made[0].tobytes())
                    yield *made, number
        if vectors:
            same_as_planned(spec, "glove", words_of(spec))

    with process_group().first_alone():
        folder = kept_sequences(cache / "augmented" / digest([*base, *rest]), rows, longest)
    made = read_sequences(folder, longest)
    labels = {name: values[made.example_index] for name, values in features.labels.items()}
    return Features(made.input_ids, made.token_type_ids, made.lengths, made.example_index, labels=labels)


def exchange(
    ids: Array, types: Array, options: Sequence[Option], probability: float, draw: np.random.Generator
) -> tuple[Array, Array]:
    """A copy of a sequence with some of its words exchanged. options: in order, none over another."""
    parts, kinds, at = [], [], 0
    chosen = draw.random(len(options)) < probability
    for option in (option for option, yes in zip(options, chosen, strict=True) if yes):
        which = int(draw.integers(len(option.choices)))
        new = np.atleast_1d(option.choices[which]).astype(ids.dtype)
        parts += [ids[at : option.start], new]
        kinds += [types[at : option.start], np.repeat(types[option.start], len(new))]
        at = option.end
    return np.concatenate([*parts, ids[at:]]), np.concatenate([*kinds, types[at:]])


class Pieces:
    """Which pieces of a vocabulary are whole words, and which go on with one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.names = [tokenizer.id_to_token(number) or "" for number in range(tokenizer.get_vocab_size())]
        self.whole = np.array([name.isalpha() for name in self.names])
        self.going_on = np.array([name.startswith("##") for name in self.names])

    def words(self, ids: Array) -> Array:
        """Places of the words that are one piece."""
        following = np.append(self.going_on[ids[1:]], False)
        return np.flatnonzero(self.whole[ids] & ~following)

    def split_words(self, ids: Array) -> Iterator[tuple[int, int, str]]:
        """[start, end) and spelling of the words of several pieces that are letters alone."""
        starts = np.flatnonzero(~self.going_on[ids])
        for start, end in zip(starts, np.append(starts[1:], len(ids)), strict=True):
            word = "".join(self.names[number].removeprefix("##") for number in ids[start:end])
            if end - start > 1 and word.isalpha():
                yield int(start), int(end), word


def candidates(
    features: Features, lm: Path, pieces: Pieces, count: int, kept: Path, device: str
) -> Iterator[list[Option]]:
    """Of each sequence the words of one piece with the `count` whole words that `lm` finds likeliest in their place, itself
    perhaps among them. `kept`: a folder that keeps what was found."""
    model: MaskedLM | None = None
    for first in range(0, len(features), ROWS):
        rows = np.arange(first, min(first + ROWS, len(features)))
        file = kept / f"{first:09d}.npz"
        if not file.is_file():
            model = model or _model(lm, pieces.tokenizer, device)
            found = _fill_in(features, rows, model, pieces, count, device)
            kept.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npz")
            np.savez_compressed(part, allow_pickle=False, **found)
            part.replace(file)
        with np.load(file, allow_pickle=False) as stored:
            of_row, places, words = stored["rows"], stored["places"], stored["words"]
        bounds = np.searchsorted(of_row, [*rows, rows[-1] + 1])
        for start, end in pairwise(bounds):
            yield [Option(int(at), int(at) + 1, words[start + n]) for n, at in enumerate(places[start:end])]


def _fill_in(
    features: Features, rows: Array, model: MaskedLM, pieces: Pieces, count: int, device: str
) -> dict[str, Array]:
    of_row = [pieces.words(features.input_ids[row, : features.lengths[row]]) for row in rows]
    where = np.repeat(rows, [len(places) for places in of_row])
    places = np.concatenate([*of_row, np.zeros(0, np.int64)]).astype(np.int64)
    mask, allowed = mask_id(pieces.tokenizer), torch.from_numpy(pieces.whole).to(device)
    words = np.zeros((len(where), min(count, int(pieces.whole.sum()))), np.int32)
    for start in range(0, len(where), BATCH[device]):
        part = slice(start, start + BATCH[device])
        lengths = features.lengths[where[part]]
        ids = features.input_ids[where[part], : lengths.max()].astype(np.int64)
        chosen = np.arange(lengths.max()) == places[part, None]
        inputs = {
            "input_ids": np.where(chosen, mask, ids),
            "token_type_ids": features.token_type_ids[where[part], : lengths.max()].astype(np.int64),
            "attention_mask": (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64),
        }
        tensors = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
        with torch.inference_mode(), autocast(device, native_precision(device)):
            logits = model(tensors, torch.from_numpy(chosen).to(device)).float()[:, : len(allowed)]
        logits = logits.masked_fill(~allowed[: logits.shape[1]], -torch.inf)
        words[part] = logits.topk(words.shape[1]).indices.cpu().numpy()
    return {"rows": where, "places": places, "words": words}


def _model(lm: Path, tokenizer: Tokenizer, device: str) -> MaskedLM:
    from transformers import AutoConfig, BertForMaskedLM

    from harness.checkpoints.training.finetune import build_model
    from tasks.tokens import load_tokenizer

    if load_tokenizer(lm).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError("augment.masked_lm: its vocabulary is not the student's; name a model with the same one")
    config = AutoConfig.from_pretrained(lm, local_files_only=True)
    try:
        model = build_model(BertForMaskedLM, lm, config, 0, device, attention="sdpa", head_prefixes=())
    except CheckpointError:
        raise CheckpointError(
            "augment.masked_lm: it has no head that fills in words; name a masked language model, or give augment.train"
        ) from None
    return MaskedLM(model).to(device).eval()


def _spelled(features: Features, pieces: Pieces, vectors: Path, count: int) -> Mapping[str, list[Array]]:
    """Token ids of the neighbours of every word of several pieces."""
    rows = zip(features.input_ids, features.lengths, strict=True)
    wanted = {word for ids, length in rows for *_, word in pieces.split_words(ids[:length])}
    near = nearest(vectors, wanted, count)
    flat = iter(token_ids(bare(pieces.tokenizer), [word for words in near.values() for word in words]))
    return {word: [next(flat) for _ in words] for word, words in near.items()}
