"""The program beside an exported ONNX model, which answers with onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

DISTRIBUTIONS = ("onnxruntime-gpu|onnxruntime", "tokenizers", "numpy")
"""What the program imports. `a|b` means the first that is installed."""
_TEXT = '''"""{what}: python predict.py "a text", or of two texts: python predict.py "the first" "the second"."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path(__file__).parent
labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # a literal [SEP] in a text is text
tokenizer.enable_truncation({length})
tokenizer.enable_padding(pad_id={pad})
options = onnxruntime.SessionOptions()
{saturation}session = onnxruntime.InferenceSession(folder / "model.onnx", options)
inputs = {{given.name for given in session.get_inputs()}}


def predict(texts):
    """An answer for each text or (text, text)."""
    rows = tokenizer.encode_batch(texts)
    batch = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}}
    batch["token_type_ids"] = [row.type_ids for row in rows]
    arrays = {{name: np.array(ids, np.int64) for name, ids in batch.items() if name in inputs}}
    (logits,) = session.run(["logits"], arrays)
    return {answer}


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print(predict([sys.argv[1] if len(sys.argv) == 2 else tuple(sys.argv[1:3])])[0])
'''
_SATURATION = """cpu = Path("/proc/cpuinfo")
if cpu.exists() and "vnni" not in cpu.read_text():  # such processors lose the ends of large integer products
    options.add_session_config_entry("session.x64quantprecision", "1")
"""
_ANSWERS = {
    "classification": ("The class of a text", "[labels[best] for best in logits.argmax(-1)]"),
    "regression": ("The score of a text", "[float(score) for score in logits[:, 0]]"),
    "multi_label": (
        "The labels of a text",
        "[[label for label, logit in zip(labels, row) if logit > 0] for row in logits]",
    ),
}
"""By kind of head: what the program tells, and the expression that it answers with."""


def program(kind: str | None, length: int, pad: int, *, integer: bool) -> str | None:
    """The program's text; None for a kind of head whose answers take more than its logits.

    kind: `classification`, `regression` or `multi_label`. length: tokens to which a sequence is cut. pad: id of the padding
    token. integer: whether the graph has integer products.
    """
    if kind not in _ANSWERS:
        return None
    what, answer = _ANSWERS[kind]
    saturation = _SATURATION if integer else ""
    return _TEXT.format(what=what, length=length, pad=pad, answer=answer, saturation=saturation)
