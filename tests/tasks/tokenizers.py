"""Small tokenizers of transformers, one of each kind: WordPiece, byte-level BPE and unigram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from tests.tasks.wordpiece import WORDS

TEXT = " ".join(WORDS)


def byte_level(folder: Path) -> Any:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([TEXT] * 20, vocab_size=330, special_tokens=special)
    trained.save_model(str(folder))
    return RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def byte_level_of_modernbert(folder: Path) -> Any:
    """As its tokenizer.json has it: byte-level BPE with BERT's special tokens, placed by a template."""
    trained = ByteLevelBPETokenizer()
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    trained.train_from_iterator([TEXT] * 20, vocab_size=330, special_tokens=names)
    tokenizer: Any = trained._tokenizer
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    special = {f"{name.strip('[]').lower()}_token": name for name in names}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special
    )  # type: ignore[no-untyped-call]


def unigram(kind: Any) -> Any:
    pieces = [f"▁{word}" for word in WORDS[::2]] + ["▁", *map(chr, range(97, 123)), *"0123456789"]
    vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return kind(vocab=[*vocabulary, *((piece, -2.0 - len(piece)) for piece in dict.fromkeys(pieces))])


def unigram_of_deberta() -> Any:
    pieces = [f"▁{word}" for word in WORDS[::2]] + ["▁", *map(chr, range(97, 123)), *"0123456789"]
    vocabulary = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    pieces = list(dict.fromkeys(pieces))
    return DebertaV2Tokenizer(
        vocab=[*vocabulary, *((piece, -2.0 - len(piece)) for piece in pieces), ("[MASK]", 0.0)], unk_id=3
    )


def make_tokenizer(kind: str, folder: Path) -> Any:
    if kind == "roberta":
        return byte_level(folder)
    if kind in ("xlm-roberta", "camembert"):
        return unigram(XLMRobertaTokenizer if kind == "xlm-roberta" else CamembertTokenizer)
    if kind == "modernbert":
        return byte_level_of_modernbert(folder)
    if kind == "deberta-v2":
        return unigram_of_deberta()
    if kind == "mpnet":
        names = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *WORDS]
        return MPNetTokenizer(vocab={name: number for number, name in enumerate(dict.fromkeys(names))})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={name: number for number, name in enumerate(dict.fromkeys(names))})
