"""The files that let an exported model answer without this project: `predict.py`, `labels.json` and the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from harness.suite.guess import head_of

PROGRAM = "predict.py"


def write_program(checkpoint: Path, target: Path, length: int, *, integer: bool) -> None:
    """Write the program beside `target / "model.onnx"`, unless the answers of the model's head take more than its logits.
    length: tokens to which a sequence is cut. integer: whether the graph has integer products. Raises TaskError for a
    tokenizer without special tokens."""
    from backends.checkpoint import read_config, read_encoder
    from backends.onnx_program import program
    from tasks.tokens import load_tokenizer, special_tokens

    head = head_of(read_config(checkpoint))
    kind = head.kind
    if kind is None and read_encoder(checkpoint).head == "classification":
        kind = "classification"
    tokenizer = load_tokenizer(checkpoint)
    special = special_tokens(tokenizer)
    text = program(kind, length, special.pad, integer=integer)
    if text is None:
        return
    if len(tokenizer.encode("a").ids) == len(tokenizer.encode("a", add_special_tokens=False).ids):
        from tokenizers.processors import BertProcessing

        cls, _, sep = (piece.token or 0 for piece in special.single)
        tokenizer.post_processor = BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    tokenizer.save(str(target / "tokenizer.json"))
    (target / PROGRAM).write_text(text, encoding="utf-8")
    (target / "labels.json").write_text(json.dumps(list(head.classes), ensure_ascii=False), encoding="utf-8")
