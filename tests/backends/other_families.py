"""A family that is not shipped, as another package would add it: its classifier has no pooler (tests/backends/family_checkpoints.py
has its model)."""

from __future__ import annotations

from backends.families import Family

BARE = Family(
    model_type="bare",
    classes={
        "question_answering": "BareForQuestionAnswering",
        "classification": "BareForSequenceClassification",
        "masked_lm": "BareForMaskedLM",
        "encoder": "BareModel",
    },
    modules={"embeddings": "body.embeddings", "encoder": "body.encoder", "classifier": "last"},
)
