"""Small text corpora, and a masked language model that is trained on the sample's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.plan.sources import corpus_identity
from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import DataRef, Shape
from tasks.sample import SAMPLE_VERSION, sample_tokenizer
from tests.run.small import sample_spec

TOKENIZER = sample_tokenizer()


def corpus_spec(folder: Path | None = None, **changes: Any) -> CheckpointSpec:
    """A checkpoint on the corpus in `folder`, or on the sample's."""
    data = DataRef("raw", str(folder)) if folder else DataRef("sample")
    fields: dict[str, Any] = {"identity": corpus_identity(data)[0], "shape": Shape(16), **changes}
    return sample_spec(task=CORPUS, data=data, **fields)


MASKED_LM = corpus_spec(
    model="masked-lm", recipe="masked_lm", identity={"corpus": f"sample {SAMPLE_VERSION}"}, shape=Shape(48)
)


def write_corpus(folder: Path, text: str) -> Path:
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text(text)
    return folder


def token_id(name: str) -> int:
    number = TOKENIZER.token_to_id(name)
    assert number is not None
    return number


def token_names(ids: np.ndarray[Any, Any]) -> list[str]:
    return [str(TOKENIZER.id_to_token(int(number))) for number in ids]
