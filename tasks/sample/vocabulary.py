"""The sample's own WordPiece vocabulary, in the style of uncased BERT."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.sample import words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary(texts: Iterable[str]) -> list[str]:
    """The word pieces in the order of their ids: special tokens, single characters (so that no ASCII text is unknown), pairs
    of digits, the parts of made-up names, then every other word of `texts`, whole and in alphabetical order."""
    characters = [*string.punctuation, "£", *string.digits, *string.ascii_lowercase]
    continued = [f"##{character}" for character in string.digits + string.ascii_lowercase]
    numbers = [form for pair in range(100) for form in (f"{pair:02d}", f"##{pair:02d}")]
    heads = [head.lower() for head in words.NAME_HEADS]
    tails = [*words.PERSON_TAILS, *words.PLACE_TAILS]
    made_up = {head + tail for head in heads for tail in tails}
    pieces = dict.fromkeys([*SPECIAL, *characters, *continued, *numbers, *heads, *(f"##{tail}" for tail in tails)])
    spelled = {word for text in texts for word in _words(text) if word.isalpha()}
    pieces.update(dict.fromkeys(sorted(spelled - made_up)))
    return list(pieces)


def _words(text: str) -> list[str]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normal = BertNormalizer(lowercase=True).normalize_str(text)
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(normal)]


def tokenizer(pieces: list[str]) -> Tokenizer:
    """An uncased BERT tokenizer with these pieces: lower case, accents stripped, `[CLS] a [SEP] b [SEP]`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {piece: number for number, piece in enumerate(pieces)}
    result = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    result.normalizer = normalizers.BertNormalizer(lowercase=True)
    result.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    result.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    result.decoder = decoders.WordPiece(prefix="##")
    result.add_special_tokens(list(SPECIAL))
    return result
