"""Small tokenizers of transformers, one of each kind: WordPiece, byte-level BPE and unigram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizer, CamembertTokenizer, MPNetTokenizer, RobertaTokenizer, XLMRobertaTokenizer

from tests.tasks.wordpiece import WORDS

TEXT = " ".join(WORDS)


def byte_level(folder: Path) -> Any:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([TEXT] * 20, vocab_size=330, special_tokens=special)
    trained.save_model(str(folder))
    return RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def unigram(kind: Any) -> Any:
    pieces = [f"▁{word}" for word in WORDS[::2]] + ["▁", *map(chr, range(97, 123)), *"0123456789"]
    vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return kind(vocab=[*vocabulary, *((piece, -2.0 - len(piece)) for piece in dict.fromkeys(pieces))])


def make_tokenizer(kind: str, folder: Path) -> Any:
    if kind == "roberta":
        return byte_level(folder)
    if kind in ("xlm-roberta", "camembert"):
        return unigram(XLMRobertaTokenizer if kind == "xlm-roberta" else CamembertTokenizer)
    if kind == "mpnet":
        names = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *WORDS]
        return MPNetTokenizer(vocab={name: number for number, name in enumerate(dict.fromkeys(names))})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={name: number for number, name in enumerate(dict.fromkeys(names))})
