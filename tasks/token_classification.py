"""A tag for every word of a sentence, such as named entities, scored as seqeval scores them (Nakayama 2018; CoNLL-2000's rule).

Sequences are made as transformers' `run_ner.py` makes them: the words are tokenized one by one, and the first token of a word
stands for it, in training and in the answer. A word that does not fit into the sequence, or that the tokenizer drops, gets no
answer: it counts as `O`, so that entities in it are missed. (`run_ner.py` leaves such words out of the truth as well.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import Features, Scores, Shape, Statistic, TaskError
from tasks.class_names import output_tags, read_class
from tasks.defined import DefinedTask, Row
from tasks.metrics.labels import statistic_percent
from tasks.predictions import parse_json, shown
from tasks.sequence_classification import example_ids, in_order
from tasks.tokens import Ints, bare, sequences, special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tags = list[str]
OUTSIDE = "O"
IGNORED = -100
"""The target of tokens that no loss is computed for, as PyTorch has it."""
STATISTICS = {
    "f1": Statistic("dice", ("entities_right", "entities_predicted", "entities_true")),
    "precision": Statistic("ratio", ("entities_right", "entities_predicted")),
    "recall": Statistic("ratio", ("entities_right", "entities_true")),
    "word_accuracy": Statistic("ratio", ("words_right", "words")),
}
_BATCH = 1000


class TokenClassification(DefinedTask):
    """A task of kind `token_classification`. Rows hold `tokens`, the words, `label`, a tag's number for each, and, if they can,
    `idx`."""

    def features(
        self, examples: Sequence[Row], tokenizer: Tokenizer, shape: Shape, *, training: bool = False
    ) -> Features:
        """One sequence for each sentence, of at most `shape.max_length` tokens.

        extra: `word` (n, longest) int32, the number of the word whose first token this is, else -1. labels (training):
        `labels` (n, longest) int64, the tag's number at the first token of each word, else IGNORED. Raises TaskError when the
        shape has no room for words.
        """
        special = special_tokens(tokenizer)
        room = shape.max_length - special.count(1)
        if room < 1:
            raise TaskError(f"max_length {shape.max_length} leaves no room for words; raise max_length")
        parts = [
            (ids[:room], words[:room])
            for ids, words in _word_tokens(bare(tokenizer), [row["tokens"] for row in examples])
        ]
        input_ids, token_type_ids, lengths = sequences([ids for ids, _ in parts], None, special)
        word = np.full(input_ids.shape, -1, np.int32)
        before = special.before(0, 1)
        for row, (_, words) in enumerate(parts):
            is_first = np.diff(words, prepend=-1) > 0
            word[row, before : before + len(words)] = np.where(is_first, words, -1)
        return Features(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            lengths=lengths,
            example_index=np.arange(len(examples)),
            extra={"word": word},
            labels={"labels": _targets(examples, word)} if training else {},
        )

    def decode(
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[Tags | None]:
        """For each sentence the tag of each word: that with the largest logit at the word's first token, of (n, longest, tags).

        label_names: the model's names of its outputs, matched to the task's by name; it may have others too, which then stand
        in the answer as the model calls them. A sentence with a logit that is not finite gets None. Raises TaskError when a tag
        of the task is none of the model's.
        """
        if len(outputs) != len(examples) or outputs.ndim != 3:
            raise ValueError(f"outputs have shape {outputs.shape} for {len(examples)} sentences")
        names = self.output_tags(label_names) if label_names else list(self.labels)
        if outputs.shape[2] != len(names):
            raise TaskError(f"{self.name}: the model has {outputs.shape[2]} outputs and names {len(names)} tags")
        word = features.extra.get("word", np.zeros((0, 0), np.int32))
        answers: list[Tags | None] = []
        for row, example in enumerate(examples):
            at = np.flatnonzero(word[row] >= 0)
            logits = outputs[row, at]
            tags = [OUTSIDE] * len(example["tokens"])
            for number, best in zip(word[row, at], logits.argmax(-1), strict=True):
                tags[number] = names[best]
            answers.append(tags if np.isfinite(logits).all() else None)
        return answers

    def output_tags(self, names: Sequence[str]) -> Tags:
        """The tag of each of the model's outputs, which the model calls `names`. Raises TaskError."""
        return output_tags(self._definition, names)

    def score(self, examples: Sequence[Row], predictions: Sequence[Tags | None]) -> Scores:
        """seqeval's F1, precision and recall over all entities; and the share of words with the right tag. A missing prediction
        has no entity and no right word.

        per_example: `id`; `prediction`, a JSON list of tags (empty where missing); how many entities are right, predicted and
        true, and how many words are right and there, by sentence. Sentences are what intervals resample.
        """
        from seqeval.metrics.sequence_labeling import get_entities

        counts = np.zeros((len(examples), 5), np.int64)
        for row, (example, tags) in enumerate(zip(examples, predictions, strict=True)):
            truth = [self.labels[number] for number in example["label"]]
            true = set(get_entities(truth))
            found = set(get_entities(tags)) if tags else set()
            right = sum(tag == expected for tag, expected in zip(tags or [], truth, strict=False))
            counts[row] = len(true & found), len(found), len(true), right, len(truth)
        names = ("entities_right", "entities_predicted", "entities_true", "words_right", "words")
        columns = {
            "id": example_ids(examples),
            "prediction": np.array(
                ["" if tags is None else json.dumps(tags, ensure_ascii=False) for tags in predictions], np.str_
            ),
        } | dict(zip(names, counts.T.astype(np.float64), strict=True))
        statistics = {name: STATISTICS[name] for name in self._definition.metrics}
        return Scores(
            metrics={name: statistic_percent(statistic, columns) for name, statistic in statistics.items()},
            per_example=columns,
            statistics=statistics,
            missing=sum(tags is None for tags in predictions),
        )

    def predictions_from_json(self, examples: Sequence[Row], content: str | bytes, file: str) -> list[Tags | None]:
        """The predictions of a file: a JSON list in the order of `examples`, of lists with a tag's name or number for each word;
        null where there is none. Raises TaskError, naming `file` and the row (counted from 1)."""
        predictions: list[Tags | None] = []
        values = in_order(parse_json(content, file), len(examples), file)
        for row, (value, example) in enumerate(zip(values, examples, strict=True), 1):
            where = f"{file}: row {row}"
            if value is not None and not isinstance(value, list):
                raise TaskError(f"{where}: {shown(value)} is no list of tags; give one for each word, or null")
            if value is not None and len(value) != len(example["tokens"]):
                raise TaskError(
                    f"{where}: {len(value)} tags for {len(example['tokens'])} words; give one for each word"
                )
            predictions.append(value and [read_class(self._definition, tag, where) for tag in value])
        return predictions


def _word_tokens(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[tuple[Ints, Ints]]:
    """For each sentence its token ids, and the number of the word that each token is of. `tokenizer` as `bare` returns it."""
    return [
        (np.array(encoding.ids, np.int32), np.array(encoding.word_ids, np.int32))
        for first in range(0, len(sentences), _BATCH)
        for encoding in tokenizer.encode_batch(
            [list(words) for words in sentences[first : first + _BATCH]], is_pretokenized=True, add_special_tokens=False
        )
    ]


def _targets(examples: Sequence[Row], word: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    targets = np.full(word.shape, IGNORED, np.int64)
    for row, example in enumerate(examples):
        at = np.flatnonzero(word[row] >= 0)
        targets[row, at] = np.array(example["label"], np.int64)[word[row, at]]
    return targets
